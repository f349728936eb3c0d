// SPDX-License-Identifier: Apache-2.0
//! The five operations each kind of resource has: reads on the model in memory, writes through [`Live`](crate::store::Live).
//! Called by [`super`], which has found the operation and read the body.

use pillion_config::ResourceKey;
use pillion_config::tags::LimitOf;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Api;
use super::body;
use super::document;
use super::draft;
use super::error::ApiError;
use super::page::Page;
use super::query::Query;
use super::token::fingerprint;
use super::write;
use crate::store::live::Token;
use crate::store::model::Collection;

impl Api {
    pub(super) async fn create(
        &self,
        of: &Collection,
        operation: &str,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        let body = body::parse(bytes)?;
        let draft = draft::creation(of.kind, &body).map_err(|found| ApiError::problems(&found))?;
        let key = key_in(of, &draft.name);
        let token = self.token(operation, &key, draft.token.as_ref(), &body);
        let owner = self.owner.clone();
        let decide = move |model: &_, now| write::create(model, &owner, &key, &draft, now);
        Ok(self.live.write(Box::new(decide), token).await?)
    }

    pub(super) async fn update(
        &self,
        key: &ResourceKey,
        operation: &str,
        bytes: &[u8],
    ) -> Result<Value, ApiError> {
        let body = if bytes.is_empty() && key.kind == pillion_config::Kind::Mesh {
            // UpdateMesh has no required member, so some clients send no body at all.
            Map::new()
        } else {
            body::parse(bytes)?
        };
        let revision =
            draft::revision(key.kind, &body).map_err(|found| ApiError::problems(&found))?;
        let token = self.token(operation, key, revision.token.as_ref(), &body);
        let (owner, key) = (self.owner.clone(), key.clone());
        let decide = move |model: &_, now| write::update(model, &owner, &key, &revision, now);
        Ok(self.live.write(Box::new(decide), token).await?)
    }

    pub(super) async fn delete(&self, key: &ResourceKey) -> Result<Value, ApiError> {
        let (owner, key) = (self.owner.clone(), key.clone());
        let decide = move |model: &_, now| write::delete(model, &owner, &key, now);
        Ok(self.live.write(Box::new(decide), None).await?)
    }

    pub(super) fn describe(&self, key: &ResourceKey) -> Result<Value, ApiError> {
        let model = self.live.current();
        let record = write::find(&model, key)?;
        Ok(document::data(record, &self.owner.region, document::ACTIVE))
    }

    pub(super) fn list(&self, of: &Collection, query: &Query) -> Result<Value, ApiError> {
        let model = self.live.current();
        let page = Page::parse(query, LimitOf::Resources, identity(of))?;
        if let Some(above) = above(of) {
            write::find(&model, &above)?;
        }
        let (records, next) = page.take(model.list(of, page.after()), |record| &record.key.name);
        let items: Vec<Value> = records
            .into_iter()
            .map(|record| document::reference(record, &self.owner.region))
            .collect();
        let mut answer = Map::new();
        answer.insert(document::list_member(of.kind).to_owned(), json!(items));
        if let Some(next) = next {
            answer.insert("nextToken".to_owned(), json!(next));
        }
        Ok(Value::Object(answer))
    }

    /// A token belongs to one operation: the same one in a create and in an update are two tokens.
    fn token(
        &self,
        operation: &str,
        key: &ResourceKey,
        token: Option<&String>,
        body: &Map<String, Value>,
    ) -> Option<Token> {
        token.map(|token| Token {
            scope: format!("{}/{operation}", self.owner.account),
            token: token.clone(),
            fingerprint: fingerprint(operation, &key.id(), body),
        })
    }
}

fn key_in(of: &Collection, name: &str) -> ResourceKey {
    match of.kind {
        pillion_config::Kind::Mesh => ResourceKey::mesh(name),
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
        pillion_config::Kind::Mesh => None,
        _ => key
            .parent_key()
            .or_else(|| Some(ResourceKey::mesh(&of.mesh))),
    }
}

fn identity(of: &Collection) -> String {
    key_in(of, "").id()
}
