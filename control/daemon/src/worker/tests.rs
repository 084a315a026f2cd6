mod vacuum;

use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use ringmaster_protocol::{
    Decode, Rsn,
    record::{Dmaster, RecBuffer, RecBufferBuilder, RecData, RecordFlags, RecordHeader},
};
use ringmaster_storage::{ltdb::DatabaseKind, open::open};

use super::*;

const DB: DbId = DbId(0xABCD);
const PATIENCE: Duration = Duration::from_secs(20);

struct Channel(Sender<(Vec<Sent>, Option<Outcome>)>, std::sync::Mutex<Vec<Sent>>);

impl Report for Channel {
    fn opened(&self, _: DbId, opened: Result<Opened, String>) {
        let outcome = opened.map_or_else(Outcome::Failed, |_| Outcome::Done);
        self.0.send((Vec::new(), Some(outcome))).unwrap();
    }
    fn sent(&self, sent: Sent) {
        self.1.lock().unwrap().push(sent);
    }
    fn done(&self, _: DbId, _: u64, outcome: Outcome) {
        let sent = std::mem::take(&mut *self.1.lock().unwrap());
        self.0.send((sent, Some(outcome))).unwrap();
    }
}

struct Subject {
    worker: Worker,
    results: Receiver<(Vec<Sent>, Option<Outcome>)>,
    handle: Handle,
}

pub(super) fn flags_of(kind: DatabaseKind) -> DbFlags {
    match kind {
        DatabaseKind::Volatile => DbFlags::NONE,
        DatabaseKind::Persistent => DbFlags::PERSISTENT,
        DatabaseKind::Replicated => DbFlags::REPLICATED,
    }
}

fn pnn(number: u32) -> Pnn {
    Pnn::new(number).unwrap()
}

impl Subject {
    fn new(folder: &Path, kind: DatabaseKind) -> Self {
        let flags = flags_of(kind);
        let handle = open(&folder.join("w.tdb.0"), &kind.open_options(101, true)).unwrap();
        let facts = Facts { id: DB, flags, pnn: pnn(0), lmasters: [pnn(0), pnn(1)].into() };
        let (sender, results) = channel();
        let report = Channel(sender, std::sync::Mutex::default());
        let options = kind.open_options(101, true);
        let worker = Worker::start(facts, folder.join("w.tdb.0"), options, report).unwrap();
        let opened = results.recv_timeout(PATIENCE).expect("opened in time").1;
        assert_eq!(opened, Some(Outcome::Done));
        Self { worker, results, handle }
    }

    fn run(&mut self, job: Job) -> (Vec<Sent>, Outcome) {
        assert!(self.worker.order(1, job));
        let (sent, outcome) = self.results.recv_timeout(PATIENCE).expect("an outcome in time");
        (sent, outcome.unwrap())
    }

    fn done(&mut self, job: Job) {
        assert_eq!(self.run(job).1, Outcome::Done);
    }

    fn get(&mut self, key: &[u8]) -> Option<(u64, u32, Vec<u8>)> {
        let mut value = Vec::new();
        let record = self.handle.fetch_record(key, &mut value).unwrap()?;
        Some((record.header.rsn.0, record.header.dmaster.raw(), record.data.to_vec()))
    }
}

fn header(rsn: u64, dmaster: u32) -> RecordHeader {
    let flags = RecordFlags::NONE;
    RecordHeader { rsn: Rsn(rsn), dmaster: Dmaster::from_raw(dmaster), flags }
}

fn batch(records: &[(&[u8], u64, u32, &[u8])]) -> Vec<u8> {
    let mut builder = RecBufferBuilder::new(DB);
    for (key, rsn, dmaster, data) in records {
        builder.push_with_header(0, key, &header(*rsn, *dmaster), data);
    }
    builder.into_bytes()
}

fn put(handle: &mut Handle, key: &[u8], rsn: u64, dmaster: u32, data: &[u8]) {
    let mut locked = handle.lock_key(key, LockKind::Write).unwrap();
    let _done = locked.store_record(key, header(rsn, dmaster), data).unwrap();
}

const KINDS: [DatabaseKind; 3] =
    [DatabaseKind::Volatile, DatabaseKind::Persistent, DatabaseKind::Replicated];

#[test]
fn a_recovery_replaces_everything_at_its_commit_and_not_before() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject::new(folder.path(), kind);
        put(&mut subject.handle, b"old", 3, 0, b"content");
        subject.done(Job::Freeze);
        subject.done(Job::TransactionStart);
        let pull = Job::Pull { srvid: Srvid(9), to: pnn(1), batch_bytes: 1_000_000 };
        let (sent, outcome) = subject.run(pull);
        assert_eq!(outcome, Outcome::Count(1));
        let [Sent::Message { to, srvid, data }] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((*to, *srvid), (pnn(1), Srvid(9)));
        let buffer = RecBuffer::from_bytes(data).unwrap();
        let pulled: Vec<_> = buffer.iter().map(|record| record.key.to_vec()).collect();
        assert_eq!(pulled, [b"old"]);
        subject.done(Job::Wipe);
        let push = batch(&[(b"new", 7, 0, b"pushed"), (b"other", 8, 1, b"too")]);
        assert_eq!(subject.run(Job::Push(push)).1, Outcome::Count(2));
        // Another process looks under the file's own locks only after the thaw; the file itself is
        // as it was until the commit.
        let image = std::fs::read(folder.path().join("w.tdb.0")).unwrap();
        assert!(image.windows(7).any(|bytes| bytes == b"content"), "{kind:?}");
        assert!(!image.windows(6).any(|bytes| bytes == b"pushed"), "{kind:?}");
        subject.done(Job::TransactionCommit);
        subject.done(Job::Thaw);
        assert_eq!(subject.get(b"old"), None, "{kind:?}");
        // The leader is dmaster of what it pushes to itself, and a volatile store raises the rsn.
        let rsn = if kind == DatabaseKind::Volatile { 8 } else { 7 };
        assert_eq!(subject.get(b"new"), Some((rsn, 0, b"pushed".to_vec())), "{kind:?}");
        assert_eq!(subject.get(b"other"), Some((8, 1, b"too".to_vec())), "{kind:?}");
        assert_eq!(subject.run(Job::Check).1, Outcome::Done, "{kind:?}");
    }
}

#[test]
fn a_recovery_that_ends_before_its_commit_leaves_the_old_content() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject::new(folder.path(), kind);
        put(&mut subject.handle, b"old", 3, 0, b"content");
        for end in [Job::TransactionCancel, Job::Freeze] {
            subject.done(Job::Freeze);
            subject.done(Job::TransactionStart);
            subject.done(Job::Wipe);
            let push = batch(&[(b"new", 7, 0, b"pushed")]);
            assert_eq!(subject.run(Job::Push(push)).1, Outcome::Count(1));
            subject.done(end);
        }
        subject.done(Job::Thaw);
        assert_eq!(subject.get(b"old"), Some((3, 0, b"content".to_vec())), "{kind:?}");
        assert_eq!(subject.get(b"new"), None, "{kind:?}");
    }
}

#[test]
fn a_push_may_name_any_database() {
    // `ctdb restoredb` sends the buffers of a backup as they are; C's backups hold a random id.
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Persistent);
    subject.done(Job::Freeze);
    subject.done(Job::TransactionStart);
    let mut push = batch(&[(b"new", 7, 0, b"pushed")]);
    push[..4].copy_from_slice(&0x414C_9500_u32.to_le_bytes());
    assert_eq!(subject.run(Job::Push(push)).1, Outcome::Count(1));
}

#[test]
fn recovery_work_needs_the_freeze() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let pull = Job::Pull { srvid: Srvid(9), to: pnn(1), batch_bytes: 1 };
    for job in [Job::TransactionStart, pull, Job::Push(batch(&[])), Job::TransactionCommit] {
        let outcome = subject.run(job).1;
        assert!(matches!(&outcome, Outcome::Failed(why) if why.contains("frozen")), "{outcome:?}");
    }
    assert!(matches!(subject.run(Job::Wipe).1, Outcome::Failed(_)));
}

#[test]
fn a_freeze_waits_for_a_process_in_a_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    let chain = subject.handle.database().chain_of(b"k");
    subject.handle.lock_chain(chain, LockKind::Write).unwrap().keep();
    assert!(subject.worker.order(1, Job::Freeze));
    assert!(subject.results.recv_timeout(Duration::from_millis(50)).is_err());
    subject.handle.unlock_chain(chain).unwrap();
    assert_eq!(subject.results.recv_timeout(PATIENCE).unwrap().1, Some(Outcome::Done));
    let free = subject.handle.try_lock_chain(chain, LockKind::Write).unwrap().is_some();
    assert!(!free, "frozen");
    subject.done(Job::Thaw);
    assert!(subject.handle.try_lock_chain(chain, LockKind::Write).unwrap().is_some());
}

#[test]
fn batches_end_at_the_limit_and_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    for number in 0..100_u32 {
        put(&mut subject.handle, &number.to_le_bytes(), 1, 0, &[7; 100]);
    }
    subject.done(Job::Freeze);
    let (sent, outcome) =
        subject.run(Job::Pull { srvid: Srvid(9), to: pnn(0), batch_bytes: 1_000 });
    assert_eq!(outcome, Outcome::Count(100));
    let counts: Vec<u32> = sent
        .iter()
        .map(|sent| match sent {
            Sent::Message { data, .. } => RecBuffer::from_bytes(data).unwrap().count(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(counts.len() > 10 && counts.iter().sum::<u32>() == 100, "{counts:?}");
}

#[test]
fn an_update_is_refused_when_it_is_older_and_different() {
    for kind in [DatabaseKind::Persistent, DatabaseKind::Replicated] {
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject::new(folder.path(), kind);
        put(&mut subject.handle, b"k", 5, 1, b"v5");
        subject.done(Job::Update(batch(&[(b"k", 6, 1, b"v6")])));
        assert_eq!(subject.get(b"k"), Some((6, 1, b"v6".to_vec())));
        let older = batch(&[(b"a", 9, 1, b"first"), (b"k", 6, 1, b"other")]);
        assert!(matches!(subject.run(Job::Update(older)).1, Outcome::Failed(_)));
        assert_eq!(subject.get(b"k"), Some((6, 1, b"v6".to_vec())), "{kind:?}");
        assert_eq!(subject.get(b"a"), None, "{kind:?}: all or nothing");
        subject.done(Job::Update(batch(&[(b"k", 6, 1, b"v6")])));
        subject.done(Job::Update(batch(&[(b"new", 1, 1, b"x")])));
        assert!(subject.get(b"new").is_some(), "{kind:?}");
    }
}

#[test]
fn a_pushed_record_is_stored_and_marked_as_having_moved() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Volatile);
    subject.done(Job::PushRecord(batch(&[(b"k", 6, 1, b"v6")])));
    let mut value = Vec::new();
    let record = subject.handle.fetch_record(b"k", &mut value).unwrap().unwrap();
    assert_eq!((record.header.rsn, record.data), (Rsn(6), &b"v6"[..]));
    assert!(record.header.flags.contains(RecordFlags::MIGRATED_WITH_DATA));
    put(&mut subject.handle, b"k", 8, 0, b"newer");
    subject.done(Job::PushRecord(batch(&[(b"k", 7, 1, b"late")])));
    subject.done(Job::PushRecord(batch(&[(b"k", 8, 1, b"late")])));
    assert_eq!(subject.get(b"k"), Some((8, 0, b"newer".to_vec())), "it has moved here since");
    put(&mut subject.handle, b"k", 9, 2, b"newest");
    subject.done(Job::PushRecord(batch(&[(b"k", 8, 1, b"late")])));
    assert_eq!(subject.get(b"k"), Some((9, 2, b"newest".to_vec())), "and on to a third node");
    let broken = Job::PushRecord(vec![1, 2, 3]);
    assert!(matches!(subject.run(broken).1, Outcome::Failed(_)));
}

#[test]
fn sequence_numbers_are_read_and_raised() {
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Persistent);
    assert_eq!(subject.run(Job::DbSeqnum).1, Outcome::Seqnum(0));
    put(&mut subject.handle, SEQNUM_KEY, 1, 0, &77_u64.to_le_bytes());
    assert_eq!(subject.run(Job::DbSeqnum).1, Outcome::Seqnum(77));
    put(&mut subject.handle, SEQNUM_KEY, 1, 0, b"short");
    assert_eq!(subject.run(Job::DbSeqnum).1, Outcome::Seqnum(0));
    let Outcome::Seqnum(before) = subject.run(Job::TdbSeqnum).1 else { panic!() };
    assert_eq!(subject.run(Job::BumpTdbSeqnum).1, Outcome::Seqnum(before + 1));
}

#[test]
fn changes_by_the_worker_count_once_that_is_wanted() {
    for kind in [DatabaseKind::Persistent, DatabaseKind::Replicated] {
        let folder = tempfile::tempdir().unwrap();
        let mut subject = Subject::new(folder.path(), kind);
        let counted = |subject: &mut Subject, value: &[u8], rsn| {
            put(&mut subject.handle, b"k", rsn - 1, 1, b"old");
            subject.done(Job::Update(batch(&[(b"k", rsn, 1, value)])));
            let Outcome::Seqnum(number) = subject.run(Job::TdbSeqnum).1 else { panic!() };
            number
        };
        assert_eq!(counted(&mut subject, b"v2", 2), 0, "{kind:?}");
        subject.done(Job::EnableSeqnum);
        assert!(counted(&mut subject, b"v3", 3) > 0, "{kind:?}");
    }
}

#[test]
fn a_broken_persistent_database_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.tdb.0");
    let kind = DatabaseKind::Persistent;
    let mut handle = open(&path, &kind.open_options(11, false)).unwrap();
    for number in 0..20_u32 {
        put(&mut handle, &number.to_le_bytes(), 1, 0, b"value");
    }
    drop(handle);
    let mut image = std::fs::read(&path).unwrap();
    let half = image.len() / 2;
    image[200..half].fill(0x77);
    std::fs::write(&path, image).unwrap();
    let flags = DbFlags::PERSISTENT;
    let facts = Facts { id: DB, flags, pnn: pnn(0), lmasters: [pnn(0)].into() };
    let (sender, results) = channel();
    let report = Channel(sender, std::sync::Mutex::default());
    let _worker = Worker::start(facts, path, kind.open_options(11, false), report).unwrap();
    let outcome = results.recv_timeout(PATIENCE).unwrap().1.unwrap();
    let Outcome::Failed(reason) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("w.tdb.0") && reason.contains("restoredb"), "{reason}");
}

#[test]
fn a_commit_that_somebody_died_in_is_undone() {
    use ringmaster_storage::{
        chain::{StoreMode, Stored},
        format::{MAGIC_RECOVERY, RECOVERY_HEAD},
        recovery::needs_recovery,
    };
    let folder = tempfile::tempdir().unwrap();
    let mut subject = Subject::new(folder.path(), DatabaseKind::Replicated);
    let deadline = std::time::Instant::now() + PATIENCE;
    let committed = subject.handle.in_transaction(deadline, |session, handle| {
        assert_eq!(session.store(handle, b"key", &[b"half"], StoreMode::Replace)?, Stored::Done);
        Ok(())
    });
    committed.unwrap();
    // As if the process had died before it marked the commit as done.
    let store = subject.handle.database().store();
    let area = store.read_u32(RECOVERY_HEAD).unwrap();
    store.write_u32(area + 20, MAGIC_RECOVERY).unwrap();
    assert!(needs_recovery(store).unwrap());
    subject.done(Job::Recover);
    assert!(!needs_recovery(subject.handle.database().store()).unwrap());
    assert!(!subject.handle.exists(b"key").unwrap());
}
