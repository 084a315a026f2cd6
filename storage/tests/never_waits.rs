//! A handle that serves a shard gets along while somebody else has the freelist.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::handle::Handle;
use ringmaster_storage::lock::{FileLocks, Locks, TryLock, Wait};
use ringmaster_storage::ltdb::DatabaseKind;
use ringmaster_storage::open::open;

fn store(handle: &mut Handle, key: &[u8], value: &[u8]) -> Stored {
    handle.store(key, &[value], StoreMode::Replace).unwrap()
}

#[test]
fn without_the_freelist_a_store_is_done_in_place_in_a_dead_record_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.tdb.0");
    let options = DatabaseKind::Replicated.open_options(1, false);
    let mut shard = open(&path, &options).unwrap();
    shard.never_wait();
    shard.set_max_dead(5);
    for number in 0..8_u32 {
        assert_eq!(store(&mut shard, &number.to_le_bytes(), &[7; 60]), Stored::Done);
    }
    let mut other = shard.database().handle().unwrap();
    assert_eq!(other.locks().lock_freelist(Wait::No).unwrap(), TryLock::Granted);

    // In place: no block is needed.
    assert_eq!(store(&mut shard, &1_u32.to_le_bytes(), &[8; 60]), Stored::Done);
    // A new record and one that outgrows its place need one: nothing may change.
    let before = std::fs::read(&path).unwrap();
    assert_eq!(store(&mut shard, b"new", &[1; 40]), Stored::Busy);
    assert_eq!(store(&mut shard, &1_u32.to_le_bytes(), &[1; 400]), Stored::Busy);
    assert!(std::fs::read(&path).unwrap() == before);
    // Deletes leave dead records, more than the limit: nobody can free them now.
    for number in 0..7_u32 {
        assert!(shard.delete(&number.to_le_bytes()).unwrap());
    }
    assert_eq!(shard.engine().chain_len(0).unwrap(), Some(8));
    // Now there is a place of the right size, also for a record that outgrows its own.
    assert_eq!(store(&mut shard, b"new", &[2; 20]), Stored::Done);
    assert_eq!(store(&mut shard, b"new", &[3; 50]), Stored::Done);
    assert_eq!(store(&mut shard, &7_u32.to_le_bytes(), &[4; 60]), Stored::Done);
    assert_eq!(store(&mut shard, b"large", &[5; 500]), Stored::Busy);

    other.locks().unlock_freelist().unwrap();
    assert_eq!(store(&mut shard, b"large", &[5; 500]), Stored::Done);
    let mut value = Vec::new();
    assert!(shard.fetch(b"new", &mut value).unwrap());
    assert_eq!(value, [3; 50]);
    let mut keys = Vec::new();
    shard
        .for_each(|key, _| {
            keys.push(key.to_vec());
            true
        })
        .unwrap();
    keys.sort();
    assert_eq!(keys, [7_u32.to_le_bytes().to_vec(), b"large".to_vec(), b"new".to_vec()]);
    assert_eq!(shard.check(|_, _| true).unwrap().live, 3);
    // A delete with the freelist at hand trims what was left.
    assert!(shard.delete(b"large").unwrap());
    assert!(shard.engine().chain_len(0).unwrap().unwrap() <= 7);
    assert!(!other.locks().holds_chain_or_freelist());
}
