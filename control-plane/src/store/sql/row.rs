// SPDX-License-Identifier: Apache-2.0
//! One resource as columns: their names, how a record is bound to them and read back. Shared by the tables of what is
//! ([`super::statements`]) and of what was ([`super::history`]).

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use sqlx::Any;
use sqlx::FromRow;
use sqlx::Row as _;
use sqlx::any::AnyArguments;
use sqlx::any::AnyRow;
use sqlx::query::Query;

use crate::store::Record;

/// In the order in which [`bind`] binds them.
pub(super) const COLUMNS: [&str; 12] = [
    "mesh_owner",
    "kind",
    "mesh",
    "parent",
    "name",
    "resource_owner",
    "uid",
    "version",
    "created_ms",
    "updated_ms",
    "spec",
    "tags",
];

/// An insertion into `table` of `first` columns and then a record; both dialects number parameters `$1`.
pub(super) fn insert_into(table: &str, first: &[&str]) -> String {
    let names = [first, COLUMNS.as_slice()].concat();
    let places: Vec<String> = (1..=names.len()).map(|place| format!("${place}")).collect();
    format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        places.join(", ")
    )
}

/// A statement in the making.
pub(super) type Statement<'q> = Query<'q, Any, AnyArguments>;

/// Binds [`COLUMNS`].
pub(super) fn bind<'q>(
    query: Statement<'q>,
    record: &'q Record,
) -> Result<Statement<'q>, sqlx::Error> {
    let encoded = |error: serde_json::Error| sqlx::Error::Encode(error.into());
    let spec = serde_json::to_string(&*record.spec).map_err(encoded)?;
    let tags = serde_json::to_string(&record.tags).map_err(encoded)?;
    Ok(bind_key(query.bind(&record.mesh_owner), &record.key)
        .bind(&record.resource_owner)
        .bind(&record.uid)
        .bind(record.version.cast_signed())
        .bind(record.created_ms)
        .bind(record.updated_ms)
        .bind(spec)
        .bind(tags))
}

/// Binds kind, mesh, parent and name.
pub(super) fn bind_key<'q>(query: Statement<'q>, key: &'q ResourceKey) -> Statement<'q> {
    query
        .bind(key.kind.word())
        .bind(&key.mesh)
        .bind(key.parent.as_deref().unwrap_or_default())
        .bind(&key.name)
}

/// As read, not yet understood.
pub(super) struct Row {
    mesh_owner: String,
    kind: String,
    mesh: String,
    parent: String,
    name: String,
    resource_owner: String,
    uid: String,
    version: i64,
    created_ms: i64,
    updated_ms: i64,
    spec: String,
    tags: String,
}

impl FromRow<'_, AnyRow> for Row {
    fn from_row(row: &AnyRow) -> Result<Row, sqlx::Error> {
        Ok(Row {
            mesh_owner: row.try_get("mesh_owner")?,
            kind: row.try_get("kind")?,
            mesh: row.try_get("mesh")?,
            parent: row.try_get("parent")?,
            name: row.try_get("name")?,
            resource_owner: row.try_get("resource_owner")?,
            uid: row.try_get("uid")?,
            version: row.try_get("version")?,
            created_ms: row.try_get("created_ms")?,
            updated_ms: row.try_get("updated_ms")?,
            spec: row.try_get("spec")?,
            tags: row.try_get("tags")?,
        })
    }
}

impl Row {
    /// An error names the row that makes no sense.
    pub(super) fn into_record(self) -> Result<Record, String> {
        let wrong = |what: &str| {
            let Row {
                kind, mesh, name, ..
            } = &self;
            format!("{kind} {name} of mesh {mesh}: {what}")
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.word() == self.kind)
            .ok_or_else(|| wrong("unknown kind"))?;
        let spec =
            serde_json::from_str(&self.spec).map_err(|error| wrong(&format!("spec: {error}")))?;
        let spec = pillion_config::parse_spec(kind, &spec)
            .map_err(|problems| wrong(&pillion_config::problem::sentence(&problems)))?;
        let tags =
            serde_json::from_str(&self.tags).map_err(|error| wrong(&format!("tags: {error}")))?;
        Ok(Record {
            key: ResourceKey {
                kind,
                mesh: self.mesh,
                parent: Some(self.parent).filter(|parent| !parent.is_empty()),
                name: self.name,
            },
            spec: Arc::new(spec),
            uid: self.uid,
            version: self.version.cast_unsigned(),
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            mesh_owner: self.mesh_owner,
            resource_owner: self.resource_owner,
            tags,
        })
    }
}
