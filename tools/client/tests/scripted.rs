//! Databases and transactions against a scripted daemon and real TDB files: what a cluster does
//! only at bad moments, on machines without one.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod daemon;

use std::sync::mpsc::channel;
use std::time::Duration;

use daemon::{Answer, Daemon, Files, Script, header, pnn};
use ringmaster_client::transaction::{Holder, UnsettledCause};
use ringmaster_client::{
    AttachError, CallError, Client, Database, DbKind, OpenDatabaseError, RecordError,
    TransactionError, TransactionOptions,
};
use ringmaster_protocol::record::RecordFlags;
use ringmaster_storage::lock::LockKind;

const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(60);

const VOLATILE: &str = "volatile.tdb";
const PERSISTENT: &str = "persistent.tdb";
const SEQNUM: &[u8] = b"__db_sequence_number__\0";

fn connect(daemon: &Daemon, timeout: Duration) -> Client {
    Client::connect_to(&daemon.socket(), timeout).unwrap()
}

fn open_volatile(client: &mut Client) -> Database {
    client.open(VOLATILE, DbKind::Volatile).unwrap()
}

fn open_persistent(client: &mut Client) -> Database {
    client.open(PERSISTENT, DbKind::Persistent).unwrap()
}

/// One transaction that sets `key` to `value`.
fn transact(daemon: &Daemon, commit_timeout: Duration) -> Result<(), TransactionError> {
    let mut client = connect(daemon, LONG);
    let mut database = open_persistent(&mut client);
    let options = TransactionOptions { lock_timeout: LONG, commit_timeout };
    let mut transaction = client.begin_with(&mut database, options).unwrap();
    transaction.store(b"key", b"value").unwrap();
    transaction.commit()
}

#[test]
fn a_record_that_never_stays_is_an_error_that_counts_the_tries() {
    // Answers, but the record goes on to node 1 each time.
    let stays_away = |files: &mut Files, db, key: &[u8]| {
        files.put(db, key, header(1, RecordFlags::NONE), b"");
        Answer::Status(0)
    };
    let daemon = Daemon::start(Script::default().on_call(stays_away));
    let mut client = connect(&daemon, SHORT);
    let mut database = open_volatile(&mut client);
    let error = client.lock_record(&mut database, b"key").unwrap_err();
    let RecordError::Contended { tries, .. } = error else { panic!("{error:?}") };
    assert!(tries > 1);
    // A read takes the value from the reply, wherever the record is.
    client.set_timeout(LONG);
    assert_eq!(client.fetch(&mut database, b"key").unwrap(), None);
}

#[test]
fn a_locked_chain_is_an_error_after_the_time_out() {
    let daemon = Daemon::start(Script::default());
    let mut client = connect(&daemon, SHORT);
    let mut database = open_volatile(&mut client);
    let path = database.attached().path.clone();
    let (release, released) = channel();
    let (holding, holds) = channel();
    let holder = std::thread::spawn(move || {
        let mut handle = daemon::open_file(&path, false);
        let locked = handle.lock_key(b"key", LockKind::Write).unwrap();
        holding.send(()).unwrap();
        released.recv().unwrap();
        locked.unlock().unwrap();
    });
    holds.recv().unwrap();
    let error = client.lock_record(&mut database, b"key").unwrap_err();
    assert!(matches!(error, RecordError::ChainBusy { .. }), "{error:?}");
    let error = client.fetch(&mut database, b"key").unwrap_err();
    assert!(matches!(error, RecordError::ChainBusy { .. }), "{error:?}");
    release.send(()).unwrap();
    holder.join().unwrap();
    client.set_timeout(LONG);
    client.lock_record(&mut database, b"key").unwrap().unlock().unwrap();
}

#[test]
fn a_value_that_is_not_final_is_waited_for() {
    let daemon = Daemon::start(Script::default());
    let mut client = connect(&daemon, SHORT);
    let mut database = open_volatile(&mut client);
    let in_progress = header(0, RecordFlags::PERSISTENT_IN_PROGRESS);
    daemon.files().put(database.id(), b"key", in_progress, b"server id and value");
    let error = client.lock_record(&mut database, b"key").unwrap_err();
    assert!(matches!(error, RecordError::InProgress { .. }), "{error:?}");
    let error = client.fetch(&mut database, b"key").unwrap_err();
    assert!(matches!(error, RecordError::InProgress { .. }), "{error:?}");
    daemon.files().put(database.id(), b"key", header(0, RecordFlags::PERSISTENT), b"value");
    let record = client.lock_record(&mut database, b"key").unwrap();
    assert_eq!(record.value(), b"value");
}

#[test]
fn a_record_is_stored_with_its_header_and_deleted_with_a_notice() {
    let daemon = Daemon::start(Script::default());
    let mut client = connect(&daemon, LONG);
    let mut database = open_volatile(&mut client);
    let with_data = header(0, RecordFlags::MIGRATED_WITH_DATA);
    daemon.files().put(database.id(), b"key", with_data, b"old");
    let mut record = client.lock_record(&mut database, b"key").unwrap();
    record.store(b"new").unwrap();
    assert_eq!(record.value(), b"new");
    record.unlock().unwrap();
    let stored = database.fetch_local(b"key", LONG).unwrap();
    assert_eq!(stored, Some((with_data, b"new".to_vec())));
    client.lock_record(&mut database, b"key").unwrap().delete(&mut client).unwrap();
    let stored = database.fetch_local(b"key", LONG).unwrap();
    assert_eq!(stored, Some((with_data, Vec::new())));
    assert_eq!(client.fetch(&mut database, b"key").unwrap(), None);
    // What is answered later was read later than the notice.
    assert!(client.process_exists(pnn(0), daemon::LIVING).unwrap());
    assert_eq!(daemon.scheduled(), [(database.id(), b"key".to_vec(), with_data)]);
}

#[test]
fn the_local_file_is_read_chain_by_chain_without_holding_any() {
    let daemon = Daemon::start(Script::default());
    let mut client = connect(&daemon, LONG);
    let mut database = open_volatile(&mut client);
    let db = database.id();
    for number in 0..30_u8 {
        daemon.files().put(db, &[number], header(1, RecordFlags::NONE), &[number; 3]);
    }
    let mut seen = Vec::new();
    let visited = database.for_each_local(LONG, |key, record, value| {
        assert_eq!((record, value), (header(1, RecordFlags::NONE), &[key[0]; 3][..]));
        // Writing to the same chain from here would hang if it were locked.
        daemon.files().put(db, key, record, value);
        seen.push(key[0]);
        true
    });
    visited.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
    let mut first = 0;
    database
        .for_each_local(LONG, |_, _, _| {
            first += 1;
            first < 5
        })
        .unwrap();
    assert_eq!(first, 5);
}

#[test]
fn a_fetched_record_without_a_header_is_malformed() {
    let script = Script::default().on_call(|_, _, _| Answer::Data(b"too short".to_vec()));
    let daemon = Daemon::start(script);
    let mut client = connect(&daemon, LONG);
    let mut database = open_volatile(&mut client);
    let error = client.fetch(&mut database, b"key").unwrap_err();
    assert!(matches!(error, RecordError::Call(CallError::Malformed { .. })), "{error:?}");
}

#[test]
fn a_damaged_database_is_not_opened() {
    let daemon = Daemon::start(Script::default().unhealthy("bad free list"));
    let mut client = connect(&daemon, LONG);
    let error = client.open(PERSISTENT, DbKind::Persistent).unwrap_err();
    let OpenDatabaseError::Attach(AttachError::Unhealthy { .. }) = &error else {
        panic!("{error:?}")
    };
    assert!(error.to_string().contains("bad free list; restore"), "{error}");
}

#[test]
fn a_commit_that_a_recovery_completed_is_a_success() {
    let script = Script::default().on_commit(|files, buffer| {
        files.apply(buffer);
        Answer::Status(2)
    });
    let daemon = Daemon::start(script);
    transact(&daemon, LONG).unwrap();
    assert_eq!(daemon.commits(), 1);
}

#[test]
fn a_commit_that_a_recovery_discarded_is_tried_again() {
    let mut refusals = 2;
    let script = Script::default().on_commit(move |files, buffer| {
        if refusals > 0 {
            refusals -= 1;
            return Answer::Status(-1);
        }
        files.apply(buffer);
        Answer::Status(0)
    });
    let daemon = Daemon::start(script);
    transact(&daemon, LONG).unwrap();
    assert_eq!(daemon.commits(), 3);
    let mut client = connect(&daemon, LONG);
    let mut database = open_persistent(&mut client);
    assert_eq!(client.fetch(&mut database, b"key").unwrap(), Some(b"value".to_vec()));
    let (header, value) = database.fetch_local(SEQNUM, LONG).unwrap().unwrap();
    assert_eq!((header.rsn.0, value), (1, 1_u64.to_le_bytes().to_vec()));
}

#[test]
fn a_commit_refused_for_ever_changes_nothing_and_says_so() {
    let daemon = Daemon::start(Script::default().on_commit(|_, _| Answer::Status(-1)));
    let error = transact(&daemon, SHORT).unwrap_err();
    assert!(matches!(error, TransactionError::Refused { .. }), "{error:?}");
    assert!(daemon.commits() > 1);
    // And the lock is free.
    let mut client = connect(&daemon, LONG);
    let mut database = open_persistent(&mut client);
    client.begin(&mut database).unwrap().cancel().unwrap();
}

#[test]
fn a_stranger_who_writes_without_the_lock_is_noticed() {
    let script = Script::default().on_commit(|files, buffer| {
        files.put(buffer.db(), SEQNUM, header(0, RecordFlags::NONE), &7_u64.to_le_bytes());
        Answer::Status(-1)
    });
    let daemon = Daemon::start(script);
    let error = transact(&daemon, LONG).unwrap_err();
    let TransactionError::Diverged { before: 0, now: 7, .. } = error else { panic!("{error:?}") };
    assert_eq!(daemon.commits(), 1, "nothing is tried again");
}

#[test]
fn a_commit_without_an_answer_is_unsettled() {
    let daemon = Daemon::start(Script::default().on_commit(|_, _| Answer::Nothing));
    let error = transact(&daemon, SHORT).unwrap_err();
    let TransactionError::Unsettled { source: UnsettledCause::Control(_), .. } = &error else {
        panic!("{error:?}")
    };
    let daemon = Daemon::start(Script::default().on_commit(|_, _| Answer::Close));
    let error = transact(&daemon, LONG).unwrap_err();
    assert!(matches!(error, TransactionError::Unsettled { .. }), "{error:?}");
}

#[test]
fn a_lock_nobody_can_read_is_not_taken() {
    let daemon = Daemon::start(Script::default());
    let mut client = connect(&daemon, LONG);
    let mut locks = client.open("g_lock.tdb", DbKind::Volatile).unwrap();
    let mut database = open_persistent(&mut client);
    let key = format!("transaction_db_{}\0", database.id()).into_bytes();
    let mut record = client.lock_record(&mut locks, &key).unwrap();
    record.store(b"who wrote this?").unwrap();
    record.unlock().unwrap();
    let patience = TransactionOptions { lock_timeout: SHORT, commit_timeout: LONG };
    let error = client.begin_with(&mut database, patience).unwrap_err();
    let TransactionError::Locked { holder: Holder::Unreadable, .. } = error else {
        panic!("{error:?}")
    };
    let record = client.lock_record(&mut locks, &key).unwrap();
    assert_eq!(record.value(), b"who wrote this?");
}
