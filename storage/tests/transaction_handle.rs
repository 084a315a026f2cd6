//! Transactions of handles beside libtdb in another process: who excludes whom, and when.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/libtdb.rs"]
mod libtdb;

use std::path::Path;
use std::time::{Duration, Instant};

use libtdb::{Locker, Tdb, flag};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::format::RECOVERY_HEAD;
use ringmaster_storage::handle::{Handle, Progress, Session};
use ringmaster_storage::lock::Wait;
use ringmaster_storage::open::{OpenOptions, open};
use ringmaster_storage::store::Store;
use ringmaster_storage::transaction::{Step, TransactionError};

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

/// Long enough for everything that can succeed at all.
fn patience() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn at_once() -> Instant {
    Instant::now()
}

/// The two kinds of files: byte-range locks and robust mutexes.
const KINDS: [(u32, i32); 2] =
    [(0, flag::DEFAULT), (4096 + 1, flag::MUTEX_LOCKING | flag::CLEAR_IF_FIRST)];

fn ours(path: &Path, flags: u32) -> Handle {
    open(path, &OpenOptions::create(7, Flags::from_bits(flags))).unwrap()
}

fn put(session: &mut Session, handle: &Handle, key: &str, value: &str) {
    let stored = session.store(handle, key.as_bytes(), &[value.as_bytes()], StoreMode::Replace);
    assert_eq!(stored.unwrap(), Stored::Done);
}

fn start(handle: &mut Handle) -> Session {
    handle.start_transaction(Wait::No).unwrap().expect("nobody else is at it")
}

#[test]
fn readers_elsewhere_see_the_old_state_until_the_commit_and_writers_wait() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (number, (flags, their_flags)) in KINDS.into_iter().enumerate() {
        let path = directory.path().join(format!("{number}.tdb"));
        let mut handle = ours(&path, flags);
        let mut their = Locker::start(&path, 7, their_flags);
        their.must("store key old");
        let mut session = start(&mut handle);
        put(&mut session, &handle, "key", "new");
        assert_eq!(their.run("fetch key"), "old");
        assert_eq!(their.run("start_nonblock"), "error 6", "one transaction at a time: NOLOCK");
        let chain_lock = their.run("chainlock_nonblock key");
        assert!(chain_lock.starts_with("error"), "writers are shut out: {chain_lock}");
        session.finish(&mut handle, patience()).unwrap();
        assert_eq!(their.run("fetch key"), "new");
        their.must("check");
        their.must("store key theirs");
        let mut value = Vec::new();
        assert!(handle.fetch(b"key", &mut value).unwrap());
        assert_eq!(value, b"theirs");
    }
}

#[test]
fn a_transaction_of_libtdb_makes_ours_wait_and_a_reader_delays_the_commit() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    let mut handle = ours(&path, 0);
    let mut their = Locker::start(&path, 7, flag::DEFAULT);
    their.must("start");
    assert!(handle.start_transaction(Wait::No).unwrap().is_none());
    their.must("store key value");
    their.must("commit");

    let mut session = start(&mut handle);
    put(&mut session, &handle, "key", "ours");
    their.must("chainlock_read other");
    assert_eq!(session.commit(&mut handle, at_once()).unwrap(), Progress::Busy);
    their.must("chainunlock_read other");
    session.finish(&mut handle, patience()).unwrap();
    assert_eq!(their.run("fetch key"), "ours");
}

#[test]
fn the_undo_log_of_a_dead_writer_is_played_back_by_whoever_comes_next() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // Our writer dies prepared, libtdb recovers.
    let path = directory.path().join("ours.tdb");
    let copy = directory.path().join("copy.tdb");
    let mut handle = ours(&path, 0);
    assert_eq!(handle.store(b"key", &[b"old"], StoreMode::Replace).unwrap(), Stored::Done);
    let mut session = start(&mut handle);
    put(&mut session, &handle, "key", "new");
    while let Progress::Sync(point) = session.prepare(&mut handle, patience()).unwrap() {
        handle.database().store().sync(point).unwrap();
    }
    std::fs::copy(&path, &copy).unwrap();
    let tdb = Tdb::open(&copy, 0, flag::DEFAULT, libc::O_RDWR).unwrap();
    assert_eq!(tdb.fetch(b"key").unwrap(), b"old");
    tdb.check().unwrap();
    drop(tdb);
    while let Step::Sync(point) = session.cancel(&mut handle).unwrap() {
        handle.database().store().sync(point).unwrap();
    }
    let mut value = Vec::new();
    assert!(handle.fetch(b"key", &mut value).unwrap());
    assert_eq!(value, b"old");

    // libtdb's writer is killed prepared, while we have the file open: the next lock recovers.
    let path = directory.path().join("theirs.tdb");
    let mut handle = ours(&path, 0);
    let mut their = Locker::start(&path, 7, flag::DEFAULT);
    their.must("store key old");
    their.must("start");
    their.must("store key new");
    their.must("prepare");
    their.kill();
    assert!(handle.fetch(b"key", &mut value).unwrap());
    assert_eq!(value, b"old");
    assert!(handle.check(|_, _| true).is_ok());
    // And so does the start of a transaction.
    let mut their = Locker::start(&path, 7, flag::DEFAULT);
    their.must("start");
    their.must("store key new");
    their.must("prepare");
    their.kill();
    let mut session = start(&mut handle);
    assert!(session.fetch(&handle, b"key", &mut value).unwrap());
    assert_eq!(value, b"old");
    session.finish(&mut handle, patience()).unwrap();
}

#[test]
fn an_error_inside_cancels_the_whole_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    let mut handle = ours(&path, 0);
    let outcome = handle.in_transaction(patience(), |session, handle| {
        put(session, handle, "key", "value");
        Err::<(), _>(TransactionError::Busy)
    });
    assert!(matches!(outcome, Err(TransactionError::Busy)));
    assert!(!handle.exists(b"key").unwrap());
    assert!(handle.start_transaction(Wait::No).unwrap().is_some(), "the locks were given back");
}

#[test]
fn an_empty_transaction_leaves_the_file_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    let mut handle = ours(&path, 0);
    let before = std::fs::read(&path).unwrap();
    let session = start(&mut handle);
    session.finish(&mut handle, at_once()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn transactions_nest_unless_the_handle_forbids_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    let mut handle = ours(&path, 0);
    let mut session = start(&mut handle);
    session.nest(&handle).unwrap();
    put(&mut session, &handle, "key", "inner");
    assert!(session.transaction().cancel_inner());
    assert!(matches!(session.finish(&mut handle, patience()), Err(TransactionError::Spoiled)));
    assert!(!handle.exists(b"key").unwrap());
    drop(handle);
    let mut handle = ours(&path, Flags::DISALLOW_NESTING.bits());
    let mut session = start(&mut handle);
    assert!(matches!(session.nest(&handle), Err(TransactionError::Nesting)));
    session.finish(&mut handle, patience()).unwrap();
}

#[test]
fn a_pointer_into_the_header_is_not_taken_for_a_recovery_area() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    let mut handle = ours(&path, 0);
    assert_eq!(handle.store(b"key", &[b"old"], StoreMode::Replace).unwrap(), Stored::Done);
    // Where the header's reserved words are zero, an idle area could seem to lie.
    handle.database().store().write_u32(RECOVERY_HEAD, 72).unwrap();
    let done = handle.in_transaction(patience(), |session, handle| {
        put(session, handle, "key", "new");
        Ok(())
    });
    done.unwrap();
    assert_eq!(handle.check(|_, _| true).unwrap().live, 1);
}

#[test]
fn a_read_only_handle_starts_no_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    drop(ours(&path, 0));
    let mut handle = open(&path, &OpenOptions::read_only()).unwrap();
    assert!(handle.start_transaction(Wait::No).is_err());
}

#[test]
fn repack_and_repair_keep_every_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.tdb");
    let mut handle = ours(&path, 0);
    for number in 0..500_u32 {
        let key = number.to_le_bytes();
        let done = handle.store(&key, &[&[1; 90]], StoreMode::Insert).unwrap();
        assert_eq!(done, Stored::Done);
    }
    for number in (0..500_u32).step_by(2) {
        assert!(handle.delete(&number.to_le_bytes()).unwrap());
    }
    let scattered = handle.freelist_len().unwrap();
    assert_eq!(handle.repack(patience()).unwrap(), 250);
    assert!(handle.freelist_len().unwrap() < scattered / 10);
    assert_eq!(handle.repair(patience()).unwrap().gaps, 0);
    assert_eq!(handle.check(|_, _| true).unwrap().live, 250);
    let mut rescued = 0;
    handle
        .rescue(|_, value| {
            rescued += u32::from(value == [1; 90]);
            true
        })
        .unwrap();
    assert_eq!(rescued, 250);
}
