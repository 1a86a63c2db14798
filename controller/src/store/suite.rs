//! What every store must do, run on each of them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const LIMITS: LogLimits = LogLimits { n_revisions: 4, n_changes: 6 };

fn txn(based_on: u64, writes: &[(&str, Option<&str>)]) -> Txn {
    let writes = writes.iter().map(|(k, v)| ((*k).to_owned(), v.map(|v| v.as_bytes().to_vec()))).collect();
    Txn { based_on: Revision::new(based_on), writes }
}

fn on_each(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::new(LIMITS));
    let dir = TempDir::new().unwrap();
    check(&RedbStore::open(&dir.path().join("store.redb"), LIMITS).unwrap());
}

#[test]
fn a_commit_is_one_revision_in_the_values_and_in_the_log() {
    on_each(|store| {
        assert_eq!(store.read().unwrap().revision, Revision::ZERO);
        store.commit(txn(0, &[("a", Some("1")), ("b", Some("1")), ("gone", None)])).unwrap();
        let commit = store.commit(txn(1, &[("a", Some("2")), ("b", None)])).unwrap();
        assert_eq!(commit.revision, Revision::new(2));
        let contents = store.read().unwrap();
        let a = b"2".to_vec();
        assert_eq!(contents.values, BTreeMap::from([("a".to_owned(), a.clone())]));
        assert_eq!(commit.changes, [("a".to_owned(), Some(a)), ("b".to_owned(), None)]);
        let log = store.changes_since(Revision::ZERO).unwrap();
        assert_eq!(log.iter().map(|c| c.changes.len()).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(store.changes_since(Revision::new(1)).unwrap(), [commit]);
    });
}

#[test]
fn a_transaction_on_an_old_revision_writes_nothing() {
    on_each(|store| {
        store.commit(txn(0, &[("a", Some("1"))])).unwrap();
        let before = store.read().unwrap();
        for stale in [0, 2] {
            let error = store.commit(txn(stale, &[("a", Some("2"))])).unwrap_err();
            assert!(matches!(error, StoreError::Moved { .. }), "{error}");
        }
        assert_eq!(store.read().unwrap(), before);
    });
}

#[test]
fn the_log_keeps_to_its_limits() {
    on_each(|store| {
        for revision in 0..6 {
            store.commit(txn(revision, &[("a", Some("1"))])).unwrap();
        }
        assert_eq!(store.read().unwrap().compacted, Revision::new(2));
        assert_eq!(store.changes_since(Revision::new(2)).unwrap().len(), 4);
        let error = store.changes_since(Revision::new(1)).unwrap_err();
        assert!(matches!(error, StoreError::Compacted { compacted } if compacted == Revision::new(2)));

        let many: Vec<_> = (0..9).map(|i| format!("k{i}")).collect();
        let writes: Vec<_> = many.iter().map(|key| (key.as_str(), Some("x"))).collect();
        store.commit(txn(6, &writes)).unwrap();
        assert_eq!(store.read().unwrap().compacted, Revision::new(6), "one large revision stays alone");
    });
}

#[test]
fn a_file_reopens_as_it_was() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("sub/store.redb");
    let store = RedbStore::open(&path, LIMITS).unwrap();
    for revision in 0..6 {
        store.commit(txn(revision, &[("a", Some("1")), ("b", Some("2"))])).unwrap();
    }
    let (contents, log) = (store.read().unwrap(), store.changes_since(Revision::new(4)).unwrap());
    drop(store);
    let store = RedbStore::open(&path, LIMITS).unwrap();
    assert_eq!(store.read().unwrap(), contents);
    assert_eq!(store.changes_since(Revision::new(4)).unwrap(), log);
}

/// The bytes of the file right after a commit returned are what a crash leaves.
#[test]
fn what_was_acknowledged_survives_a_crash() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.redb");
    let store = RedbStore::open(&path, LIMITS).unwrap();
    for revision in 0..3 {
        store.commit(txn(revision, &[("a", Some("1"))])).unwrap();
        let copy = dir.path().join("copy.redb");
        fs::copy(&path, &copy).unwrap();
        let after_crash = RedbStore::open(&copy, LIMITS).unwrap();
        assert_eq!(after_crash.read().unwrap(), store.read().unwrap());
    }
}

#[test]
fn a_file_in_use_a_newer_and_a_damaged_one_are_refused_in_words() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.redb");
    let store = RedbStore::open(&path, LIMITS).unwrap();
    assert!(matches!(RedbStore::open(&path, LIMITS), Err(StoreError::InUse(_))));
    drop(store);

    let garbage = dir.path().join("garbage.redb");
    fs::write(&garbage, [0x5a; 8192]).unwrap();
    let error = RedbStore::open(&garbage, LIMITS).unwrap_err();
    assert!(matches!(error, StoreError::Corrupted { .. }), "{error}");
    assert_eq!(fs::read(&garbage).unwrap(), [0x5a; 8192]);

    let database = ::redb::Database::open(&path).unwrap();
    let write = database.begin_write().unwrap();
    let meta: ::redb::TableDefinition<'_, &str, u64> = ::redb::TableDefinition::new("meta");
    write.open_table(meta).unwrap().insert("schema", 9).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = RedbStore::open(&path, LIMITS).unwrap_err();
    assert!(error.to_string().contains("schema 9"), "{error}");
}

#[test]
fn a_truncated_or_flipped_file_never_panics_and_never_invents() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store.redb");
    let store = RedbStore::open(&path, LIMITS).unwrap();
    store.commit(txn(0, &[("a", Some("one"))])).unwrap();
    store.commit(txn(1, &[("a", Some("two"))])).unwrap();
    let good = store.read().unwrap();
    drop(store);
    let bytes = fs::read(&path).unwrap();
    let hurt = dir.path().join("hurt.redb");
    for at in (0..bytes.len()).step_by(bytes.len() / 64 + 1) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        for candidate in [&flipped, &bytes[..at].to_vec()] {
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&hurt).unwrap();
            file.write_all(candidate).unwrap();
            drop(file);
            let Ok(store) = RedbStore::open(&hurt, LIMITS) else { continue };
            if let Ok(contents) = store.read() {
                let is_prefix = contents.revision <= good.revision;
                assert!(contents == good || is_prefix, "at {at}: {contents:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn both_kinds_agree(steps in prop::collection::vec(
        prop::collection::btree_map("[a-c]", prop::option::of(prop::collection::vec(any::<u8>(), 0..4)), 0..3), 0..10)
    ) {
        let dir = TempDir::new().unwrap();
        let memory = MemoryStore::new(LIMITS);
        let file = RedbStore::open(&dir.path().join("store.redb"), LIMITS).unwrap();
        for (revision, writes) in steps.into_iter().enumerate() {
            let txn = Txn { based_on: Revision::new(revision as u64), writes };
            prop_assert_eq!(memory.commit(txn.clone()).unwrap(), file.commit(txn).unwrap());
        }
        let contents = memory.read().unwrap();
        prop_assert_eq!(&contents, &file.read().unwrap());
        prop_assert_eq!(memory.changes_since(contents.compacted).unwrap(), file.changes_since(contents.compacted).unwrap());
    }
}
