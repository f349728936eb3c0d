// SPDX-License-Identifier: Apache-2.0
//! The disk store keeps the contract of `store`; and what concerns its files alone.

use std::path::Path;
use std::sync::Arc;

use parking_lot::MappedRwLockReadGuard;
use parking_lot::RwLockReadGuard;

use super::*;
use crate::store::contract;
use crate::store::contract::Place;
use crate::store::record;
use crate::trace::tests::span;

fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        retention: contract::RETENTION,
        memory: 64 * 1024 * 1024,
    }
}

fn open(disk: &Disk) -> MappedRwLockReadGuard<'_, Engine> {
    RwLockReadGuard::map(disk.engine.read(), |engine| engine.as_ref().expect("open"))
}

impl Place for tempfile::TempDir {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(Disk::open(settings(self.path())).expect("a store"))
    }

    fn histories(&self) -> u32 {
        6
    }
}

#[test]
fn the_disk_store_keeps_the_contract() {
    for case in contract::CASES {
        case(&tempfile::tempdir().expect("a folder"));
    }
}

#[test]
fn a_row_of_before_parts_were_kept_has_them_when_it_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(settings(folder.path())).expect("a store");
    let spans = [Span {
        trace: TraceId(7),
        entry: true,
        ..span(1, 0, "a")
    }];
    disk.append(&spans, SystemTime::now()).expect("appended");
    disk.settle(&[TraceId(7)]).expect("settled");
    let (_, day) = open(&disk).all_days().pop().expect("a day");
    let whole = day.row(TraceId(7)).expect("read").expect("there");
    assert!(!whole.summary.parts.is_empty());
    let old = record::encode_trace_without_parts(&whole);
    assert!(
        record::decode_trace(TraceId(7), &old).is_some_and(|(row, _)| row.summary.parts.is_empty())
    );
    day.rows
        .insert(TraceId(7).0.to_be_bytes(), old)
        .expect("written");
    assert_eq!(day.row(TraceId(7)).expect("read"), Some(whole));
}
