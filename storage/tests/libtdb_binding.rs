//! The binding of libtdb that the interoperability tests rest on, tested against itself: if these
//! fail, no other result about libtdb means anything.
use std::io;

#[path = "support/libtdb.rs"]
mod libtdb;

use libtdb::{Locker, Tdb, TdbError, error, flag, mode};

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

#[test]
fn records_come_back_and_check_is_content() -> io::Result<()> {
    if !libtdb::available() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let tdb = Tdb::create(&dir.path().join("t.tdb"), 3, flag::SEQNUM)?;
    assert_eq!(tdb.store(b"hi", b"world", mode::INSERT), Ok(()));
    assert_eq!(tdb.store(b"hi", b"again", mode::INSERT), Err(TdbError(error::EXISTS)));
    assert_eq!(tdb.append(b"hi", b"!"), Ok(()));
    assert_eq!(tdb.fetch(b"hi").as_deref(), Some(&b"world!"[..]));
    assert_eq!(tdb.fetch(b"no"), None);
    assert_eq!(tdb.records(), Ok(vec![(b"hi".to_vec(), b"world!".to_vec())]));
    assert_eq!(tdb.transaction_start(), Ok(()));
    assert_eq!(tdb.delete(b"hi"), Ok(()));
    assert_eq!(tdb.transaction_cancel(), Ok(()));
    assert!(tdb.exists(b"hi"));
    assert_eq!(tdb.check(), Ok(()));
    // One store, one append that fitted in place; the cancelled transaction left no trace.
    assert_eq!(tdb.seqnum(), 2);
    Ok(())
}

#[test]
fn lockers_in_two_processes_exclude_each_other() -> io::Result<()> {
    if !libtdb::available() {
        return Ok(());
    }
    for flags in [flag::CLEAR_IF_FIRST, flag::CLEAR_IF_FIRST | flag::MUTEX_LOCKING] {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("t.tdb");
        let mut first = Locker::start(&path, 3, flags);
        let mut second = Locker::start(&path, 3, flags);
        first.must("chainlock k");
        assert_eq!(second.run("chainlock_nonblock k"), format!("error {}", error::LOCK));
        second.send("chainlock k");
        let sleep =
            if flags & flag::MUTEX_LOCKING != 0 { libc::SYS_futex } else { libc::SYS_fcntl };
        second.wait_asleep_in(sleep);
        first.kill();
        assert_eq!(second.reply(), "ok");
        second.must("store k v");
        assert_eq!(second.run("fetch k"), "v");
        second.must("chainunlock k");
        second.must("check");
    }
    Ok(())
}
