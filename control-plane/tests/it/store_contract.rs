// SPDX-License-Identifier: Apache-2.0
//! The contract of `pillion_control_plane::store::Store`, held against every implementation there is.

use std::sync::Arc;

use pillion_config::Kind;
use pillion_config::ResourceKey;
use pillion_config::parse_spec;
use pillion_control_plane::store::Answered;
use pillion_control_plane::store::Author;
use pillion_control_plane::store::Change;
use pillion_control_plane::store::Commit;
use pillion_control_plane::store::CommitError;
use pillion_control_plane::store::Recall;
use pillion_control_plane::store::Record;
use pillion_control_plane::store::Store;
use pillion_control_plane::store::sql::Place;
use pillion_control_plane::store::sql::SqlStore;
use serde_json::json;
use tempfile::TempDir;

/// Each promise as a function of an open store, run once per implementation.
macro_rules! contract {
    ($($promise:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $promise() {
                    let folder = tempfile::TempDir::new().expect("a folder");
                    super::$promise(&super::sqlite_in(&folder).await).await;
                }
            )*
        }
        /// One server for all of them, emptied in between: starting one takes longer than all promises together.
        #[tokio::test]
        async fn postgres_keeps_every_promise() {
            let server = crate::postgres::Postgres::start();
            let place = Place::Server(server.url());
            $(
                println!("{}", stringify!($promise));
                $promise(&SqlStore::open(&place).await.expect("a server")).await;
                assert!(server.psql("DROP SCHEMA pillion CASCADE").status.success());
            )*
        }
    };
}

contract!(
    an_empty_store_is_at_revision_0,
    a_commit_takes_the_next_revision_and_is_loaded_again,
    a_stale_commit_changes_nothing,
    a_put_replaces_and_a_removal_removes,
    a_token_is_kept_with_its_change_and_forgotten_in_time,
    a_stale_commit_leaves_no_token,
    watchers_hear_of_every_revision,
    a_value_is_changed_by_who_knows_what_stands_there,
    history_is_kept_with_its_change_newest_first,
    several_changes_take_one_revision,
);

async fn sqlite_in(folder: &TempDir) -> SqlStore {
    SqlStore::open(&Place::File(folder.path().join("store.db")))
        .await
        .expect("a new file")
}

fn record(name: &str, version: u64) -> Record {
    let spec = json!({"egressFilter": {"type": "DROP_ALL"}});
    Record {
        key: ResourceKey::mesh(name),
        spec: Arc::new(parse_spec(Kind::Mesh, &spec).expect("a valid spec")),
        uid: "6f1c".to_owned(),
        version,
        created_ms: 1_700_000_000_123,
        updated_ms: 1_700_000_000_456,
        mesh_owner: "000000000000".to_owned(),
        resource_owner: "111111111111".to_owned(),
        tags: [("a".to_owned(), "ü".to_owned())].into(),
    }
}

fn author() -> Author {
    Author {
        who: "AKID".to_owned(),
        operation: "UpdateMesh".to_owned(),
    }
}

fn put(record: Record, based_on: u64) -> Commit {
    Commit {
        based_on,
        changes: vec![Change::Put(Arc::new(record))],
        author: author(),
        answered: None,
        now_ms: 1000,
    }
}

fn answered(expires_ms: i64) -> Answered {
    Answered {
        scope: "000000000000/CreateMesh".to_owned(),
        token: "t".to_owned(),
        fingerprint: [7; 32],
        answer: json!({"meshName": "m"}),
        expires_ms,
    }
}

async fn find(store: &dyn Store, now_ms: i64) -> Option<Answered> {
    let found = store.answered("000000000000/CreateMesh", "t", now_ms).await;
    found.expect("a working store")
}

async fn an_empty_store_is_at_revision_0(store: &dyn Store) {
    let contents = store.load().await.expect("a working store");
    assert_eq!((contents.revision, contents.records.len()), (0, 0));
    assert_eq!(*store.revisions().borrow(), 0);
}

async fn a_commit_takes_the_next_revision_and_is_loaded_again(store: &dyn Store) {
    let mut route = record("m", 3);
    route.key = ResourceKey::route("m", "r", "t");
    let spec =
        json!({"tcpRoute": {"action": {"weightedTargets": [{"virtualNode": "n", "weight": 1}]}}});
    route.spec = Arc::new(parse_spec(Kind::Route, &spec).expect("a valid spec"));
    assert_eq!(
        store.commit(put(record("m", 1), 0)).await.expect("fresh"),
        1
    );
    assert_eq!(store.commit(put(route.clone(), 1)).await.expect("fresh"), 2);
    let mut contents = store.load().await.expect("a working store");
    contents.records.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(contents.revision, 2);
    assert_eq!(contents.records, [record("m", 1), route]);
}

async fn a_stale_commit_changes_nothing(store: &dyn Store) {
    store.commit(put(record("m", 1), 0)).await.expect("fresh");
    for based_on in [0, 2] {
        let stale = store.commit(put(record("other", 1), based_on)).await;
        assert!(
            matches!(stale, Err(CommitError::Stale { found: 1 })),
            "{stale:?}"
        );
    }
    let contents = store.load().await.expect("a working store");
    assert_eq!((contents.revision, contents.records.len()), (1, 1));
}

async fn a_put_replaces_and_a_removal_removes(store: &dyn Store) {
    store.commit(put(record("m", 1), 0)).await.expect("fresh");
    store.commit(put(record("m", 2), 1)).await.expect("fresh");
    let contents = store.load().await.expect("a working store");
    assert_eq!(contents.records, [record("m", 2)]);
    let removal = Commit {
        changes: vec![Change::Remove(Arc::new(record("m", 2)))],
        author: author(),
        ..put(record("m", 2), 2)
    };
    assert_eq!(store.commit(removal).await.expect("fresh"), 3);
    let contents = store.load().await.expect("a working store");
    assert_eq!((contents.revision, contents.records.len()), (3, 0));
}

async fn a_token_is_kept_with_its_change_and_forgotten_in_time(store: &dyn Store) {
    let commit = Commit {
        answered: Some(answered(2000)),
        ..put(record("m", 1), 0)
    };
    store.commit(commit).await.expect("fresh");
    assert_eq!(find(store, 1999).await, Some(answered(2000)));
    assert_eq!(find(store, 2000).await, None);
    let later = Commit {
        answered: Some(answered(9000)),
        now_ms: 2000,
        ..put(record("m", 2), 1)
    };
    store
        .commit(later)
        .await
        .expect("an expired token may be used again");
    assert_eq!(find(store, 2000).await, Some(answered(9000)));
}

async fn a_stale_commit_leaves_no_token(store: &dyn Store) {
    let commit = Commit {
        answered: Some(answered(2000)),
        ..put(record("m", 1), 5)
    };
    store.commit(commit).await.expect_err("stale");
    assert_eq!(find(store, 0).await, None);
}

async fn watchers_hear_of_every_revision(store: &dyn Store) {
    let mut revisions = store.revisions();
    store.commit(put(record("m", 1), 0)).await.expect("fresh");
    assert_eq!(
        *revisions
            .wait_for(|revision| *revision == 1)
            .await
            .expect("open"),
        1
    );
}

async fn a_value_is_changed_by_who_knows_what_stands_there(store: &dyn Store) {
    let touches = store.touches();
    for (before, after, done) in [
        (None, Some(b"one\0two".as_slice()), true),
        (None, Some(b"late"), false),
        (Some(b"late".as_slice()), Some(b"later"), false),
        (Some(b"one\0two"), Some(b"three"), true),
    ] {
        let swapped = store.swap_value("a/b", before, after).await;
        assert_eq!(swapped.expect("a working store"), done);
        let stands = if done {
            after
        } else {
            Some(b"one\0two".as_slice())
        };
        let found = store.value("a/b").await.expect("a working store");
        assert_eq!(found.as_deref(), stands);
    }
    assert_eq!(*touches.borrow(), 2, "once for each that was done");
    assert!(
        store
            .swap_value("a/b", Some(b"three"), None)
            .await
            .expect("a working store")
    );
    assert_eq!(store.value("a/b").await.expect("a working store"), None);
}

async fn history_is_kept_with_its_change_newest_first(store: &dyn Store) {
    store.commit(put(record("m", 1), 0)).await.expect("fresh");
    store
        .commit(put(record("other", 1), 1))
        .await
        .expect("fresh");
    store.commit(put(record("m", 2), 2)).await.expect("fresh");
    store
        .commit(put(record("m", 9), 0))
        .await
        .expect_err("stale");
    let which = Recall {
        key: Some(ResourceKey::mesh("m")),
        limit: 10,
        ..Recall::default()
    };
    let found = store.recall(which.clone()).await.expect("a working store");
    let told: Vec<(u64, u64)> = found
        .iter()
        .map(|one| (one.revision, one.record.version))
        .collect();
    assert_eq!(told, [(3, 2), (1, 1)]);
    assert_eq!(
        (&found[0].author, found[0].at_ms, found[0].removed),
        (&author(), 1000, false)
    );
    let all = Recall {
        after: 1,
        oldest_first: true,
        limit: 10,
        ..Recall::default()
    };
    let found = store.recall(all).await.expect("a working store");
    let told: Vec<u64> = found.iter().map(|one| one.revision).collect();
    assert_eq!(told, [2, 3]);
}

async fn several_changes_take_one_revision(store: &dyn Store) {
    let mut commit = put(record("m", 1), 0);
    commit.changes.push(Change::Put(Arc::new(record("n", 1))));
    assert_eq!(store.commit(commit).await.expect("fresh"), 1);
    let contents = store.load().await.expect("a working store");
    assert_eq!((contents.revision, contents.records.len()), (1, 2));
    let which = Recall {
        limit: 10,
        ..Recall::default()
    };
    assert_eq!(store.recall(which).await.expect("a working store").len(), 2);
}
