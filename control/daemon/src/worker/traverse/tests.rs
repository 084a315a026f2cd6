use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
};

use ringmaster_protocol::{
    DbId, Decode, Rsn,
    database::DbFlags,
    record::{Dmaster, RecordFlags},
};
use ringmaster_storage::{
    chain::StoreMode,
    lock::{FileLocks, Wait},
    ltdb::DatabaseKind,
    open::open,
};

use super::*;
use crate::worker::{Opened, tests::flags_of};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a traverse does: a record or the end marker goes out, or it ends.
#[derive(Debug, PartialEq)]
enum Did {
    Sent(Vec<u8>),
    Ended(Outcome),
}

/// A peer that takes one packet whenever it is told to.
struct Peer {
    tell: Sender<Did>,
    taken: std::sync::Mutex<Receiver<()>>,
}

impl Report for Peer {
    fn opened(&self, _: DbId, _: Result<Opened, String>) {}
    fn sent(&self, sent: Sent) {
        let Sent::Control { data, .. } = sent else { panic!("{sent:?}") };
        let record = RecData::from_bytes(&data).unwrap();
        assert_eq!(record.reqid, 4);
        self.tell.send(Did::Sent(record.key.to_vec())).unwrap();
        // A peer that has gone takes everything.
        let _ = self.taken.lock().unwrap().recv();
    }
    fn done(&self, _: DbId, number: u64, outcome: Outcome) {
        assert_eq!(number, 7);
        self.tell.send(Did::Ended(outcome)).unwrap();
    }
}

struct Subject {
    handle: Handle,
    flags: DbFlags,
}

impl Subject {
    fn new(folder: &Path, kind: DatabaseKind) -> Self {
        let flags = flags_of(kind);
        let handle = open(&folder.join("w.tdb.0"), &kind.open_options(101, true)).unwrap();
        Self { handle, flags }
    }

    fn put(&mut self, key: &[u8], dmaster: u32, data: &[u8]) {
        let dmaster = Dmaster::from_raw(dmaster);
        let header = RecordHeader { rsn: Rsn(1), dmaster, flags: RecordFlags::NONE };
        let parts = [&header.to_array()[..], data];
        let _stored = self.handle.store(key, &parts, StoreMode::Replace).unwrap();
    }

    fn start(&self, with_empty: bool) -> (Arc<AtomicBool>, Sender<()>, Receiver<Did>) {
        let (tell, told) = channel();
        let (take, taken) = channel();
        let report = Peer { tell, taken: std::sync::Mutex::new(taken) };
        let stop = Arc::new(AtomicBool::new(false));
        let pnn = Pnn::new(0).unwrap();
        let facts = Facts { id: DbId(9), flags: self.flags, pnn, lmasters: [pnn].into() };
        let wanted = Wanted { reqid: 4, to: Pnn::new(1).unwrap(), with_empty };
        let database = Arc::clone(self.handle.database());
        start(database, facts, wanted, 7, Arc::clone(&stop), report).unwrap();
        (stop, take, told)
    }

    /// Everything that a willing peer is sent, sorted, without the end marker, which must be last.
    fn all(&self, with_empty: bool) -> Vec<Vec<u8>> {
        let (_stop, take, told) = self.start(with_empty);
        drop(take);
        let mut keys = Vec::new();
        loop {
            match told.recv_timeout(PATIENCE).unwrap() {
                Did::Sent(key) => keys.push(key),
                Did::Ended(outcome) => {
                    assert_eq!(keys.pop(), Some(Vec::new()), "the end marker");
                    assert_eq!(outcome, Outcome::Count(u32::try_from(keys.len()).unwrap()));
                    keys.sort();
                    return keys;
                }
            }
        }
    }
}

#[test]
fn of_a_volatile_database_the_records_that_are_here_are_sent_and_of_others_all() {
    for kind in [DatabaseKind::Volatile, DatabaseKind::Persistent, DatabaseKind::Replicated] {
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject::new(folder.path(), kind);
        subject.put(b"mine", 0, b"x");
        subject.put(b"empty", 0, b"");
        subject.put(b"theirs", 1, b"x");
        let everything = vec![b"empty".to_vec(), b"mine".to_vec(), b"theirs".to_vec()];
        if kind == DatabaseKind::Volatile {
            assert_eq!(subject.all(false), [b"mine"]);
            assert_eq!(subject.all(true), [&b"empty"[..], b"mine"]);
        } else {
            assert_eq!(subject.all(false), everything);
            assert_eq!(subject.all(true), everything);
        }
    }
}

#[test]
fn many_records_are_each_sent_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let mut keys: Vec<Vec<u8>> = (0..1_000).map(|n| format!("key {n}").into_bytes()).collect();
    for key in &keys {
        subject.put(key, 0, b"value");
    }
    keys.sort();
    assert_eq!(subject.all(false), keys);
}

#[test]
fn a_peer_that_takes_nothing_does_not_hold_up_a_freeze() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    for n in 0..10 {
        subject.put(format!("key {n}").as_bytes(), 0, b"value");
    }
    let (_stop, take, told) = subject.start(false);
    assert!(matches!(told.recv_timeout(PATIENCE).unwrap(), Did::Sent(_)));
    // The peer has not taken it yet: nothing is locked.
    let locks = subject.handle.locks();
    let _granted = locks.lock_all_records(LockKind::Write, Wait::Yes).unwrap();
    drop(take);
    // What has been copied is sent; then the traverse waits for the thaw.
    let mut sent = 1;
    while let Ok(did) = told.recv_timeout(Duration::from_millis(200)) {
        assert!(matches!(did, Did::Sent(ref key) if !key.is_empty()), "{did:?}");
        sent += 1;
    }
    assert!(sent < 10, "the other chains are frozen");
    subject.handle.locks().unlock_all_records().unwrap();
    loop {
        match told.recv_timeout(PATIENCE).unwrap() {
            Did::Sent(_) => {}
            Did::Ended(outcome) => return assert_eq!(outcome, Outcome::Count(10)),
        }
    }
}

#[test]
fn a_traverse_that_is_stopped_ends_without_an_end_marker_frozen_or_not() {
    for frozen in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
        subject.put(b"one", 0, b"value");
        subject.put(b"two", 0, b"value");
        if frozen {
            let locks = subject.handle.locks();
            let _granted = locks.lock_all_records(LockKind::Write, Wait::Yes).unwrap();
        }
        let (stop, take, told) = subject.start(false);
        if !frozen {
            assert!(matches!(told.recv_timeout(PATIENCE).unwrap(), Did::Sent(_)));
        }
        stop.store(true, Ordering::Relaxed);
        drop(take);
        let ended = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(ended, Did::Ended(Outcome::Failed("stopped".into())));
    }
}
