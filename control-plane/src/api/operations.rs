// SPDX-License-Identifier: Apache-2.0
//! The five operations each kind of resource has: reads on the model in memory, writes through [`Live`](crate::store::Live).
//! Called by [`super`], which has found the operation and read the body.

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::tags::LimitOf;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Api;
use super::Asked;
use super::body;
use super::document;
use super::draft;
use super::error::ApiError;
use super::page::Page;
use super::query::Query;
use super::token::fingerprint;
use super::write;
use crate::access::Wish;
use crate::store::Record;
use crate::store::live::Decide;
use crate::store::live::Token;
use crate::store::live::Write;
use crate::store::model::Collection;

impl Api {
    pub(super) async fn create(
        &self,
        of: &Collection,
        asked: &Asked,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        let body = body::parse(bytes)?;
        let draft = draft::creation(of.kind, &body).map_err(|found| ApiError::problems(&found))?;
        let key = self.key_in(of, &draft.name, asked);
        let would_be = document::bare(&key).arn(&self.access.region, asked.caller.account());
        self.permit(asked, Wish::Write, &would_be)?;
        let token = token(asked, &key, draft.token.as_ref(), &body);
        let owner = self.owner(asked);
        let decide = move |model: &_, now| write::create(model, &owner, &key, &draft, now);
        self.write(asked, Box::new(decide), token).await
    }

    pub(super) async fn update(
        &self,
        key: &ResourceKey,
        asked: &Asked,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        self.permit(
            asked,
            Wish::Write,
            &self.arn(&self.live.current(), key, &asked.caller),
        )?;
        let body = if bytes.is_empty() && key.kind == Kind::Mesh {
            // UpdateMesh has no required member, so some clients send no body at all.
            Map::new()
        } else {
            body::parse(bytes)?
        };
        let revision =
            draft::revision(key.kind, &body).map_err(|found| ApiError::problems(&found))?;
        let token = token(asked, key, revision.token.as_ref(), &body);
        let (owner, key) = (self.owner(asked), key.clone());
        let decide = move |model: &_, now| write::update(model, &owner, &key, &revision, now);
        self.write(asked, Box::new(decide), token).await
    }

    pub(super) async fn delete(&self, key: &ResourceKey, asked: &Asked) -> Result<Value, ApiError> {
        self.permit(
            asked,
            Wish::Write,
            &self.arn(&self.live.current(), key, &asked.caller),
        )?;
        let (owner, key) = (self.owner(asked), key.clone());
        let decide = move |model: &_, now| write::delete(model, &owner, &key, now);
        self.write(asked, Box::new(decide), None).await
    }

    pub(super) async fn write(
        &self,
        asked: &Asked,
        decide: Decide,
        token: Option<Token>,
    ) -> Result<Value, ApiError> {
        let author = asked.author();
        Ok(self
            .live
            .write(Write {
                decide,
                author,
                token,
            })
            .await?)
    }

    pub(super) fn describe(&self, key: &ResourceKey, asked: &Asked) -> Result<Value, ApiError> {
        let model = self.live.current();
        self.permit(asked, Wish::Read, &self.arn(&model, key, &asked.caller))?;
        let record = write::find(&model, key)?;
        Ok(document::data(
            record,
            &self.access.region,
            document::ACTIVE,
        ))
    }

    pub(super) fn list(
        &self,
        of: &Collection,
        asked: &Asked,
        query: &Query,
    ) -> Result<Value, ApiError> {
        let model = self.live.current();
        let page = Page::parse(query, LimitOf::Resources, identity(of))?;
        if let Some(above) = above(of) {
            self.permit(asked, Wish::Read, &self.arn(&model, &above, &asked.caller))?;
            write::find(&model, &above)?;
        }
        // Of meshes everybody sees their own, those shared with them, and of these what their key may read.
        let visible = |record: &&Arc<Record>| {
            of.kind != Kind::Mesh
                || (self.access.sees(&asked.caller, record)
                    && asked
                        .caller
                        .may(Wish::Read, &document::arn(record, &self.access.region)))
        };
        let records = model.list(of, page.after()).filter(visible);
        let (records, next) = page.take(records, |record| &record.key.name);
        let items: Vec<Value> = records
            .into_iter()
            .map(|record| document::reference(record, &self.access.region))
            .collect();
        let mut answer = Map::new();
        answer.insert(document::list_member(of.kind).to_owned(), json!(items));
        if let Some(next) = next {
            answer.insert("nextToken".to_owned(), json!(next));
        }
        Ok(Value::Object(answer))
    }

    fn key_in(&self, of: &Collection, name: &str, asked: &Asked) -> ResourceKey {
        match of.kind {
            Kind::Mesh => ResourceKey::mesh(self.access.spell(name, asked.caller.account())),
            _ => key_in(of, name),
        }
    }
}

/// A token belongs to one operation of one account: the same one in a create and in an update are two tokens.
fn token(
    asked: &Asked,
    key: &ResourceKey,
    token: Option<&String>,
    body: &Map<String, Value>,
) -> Option<Token> {
    let Asked { caller, operation } = asked;
    token.map(|token| Token {
        scope: format!("{}/{operation}", caller.account()),
        token: token.clone(),
        fingerprint: fingerprint(operation, &key.id(), body),
    })
}

fn key_in(of: &Collection, name: &str) -> ResourceKey {
    match of.kind {
        Kind::Mesh => ResourceKey::mesh(name),
        kind => ResourceKey {
            kind,
            mesh: of.mesh.clone(),
            parent: of.parent.clone(),
            name: name.to_owned(),
        },
    }
}

/// What a list is a list of the members of: a router, a gateway, a mesh; nothing for meshes.
fn above(of: &Collection) -> Option<ResourceKey> {
    let key = key_in(of, "");
    match of.kind {
        Kind::Mesh => None,
        _ => key
            .parent_key()
            .or_else(|| Some(ResourceKey::mesh(&of.mesh))),
    }
}

fn identity(of: &Collection) -> String {
    key_in(of, "").id()
}
