use ringmaster_protocol::{
    Generation, Srvid,
    database::{PullDb, RecordCount, TransDb},
    node::NodeFlags,
};

use super::*;
use crate::node::{controls, state::FreezeState, testing::GENERATION, world::Origin};

const TID: Generation = Generation(200);
const SRVID: Srvid = Srvid(0xF001_0000_0000_0003);

fn freeze(db: DbId) -> ControlRequest<'static> {
    ControlRequest::DbFreeze(db)
}

fn trans(db: DbId) -> TransDb {
    TransDb { db, tid: TID }
}

fn stream(db: DbId) -> PullDb {
    PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid: SRVID }
}

/// A database that is frozen, with its transaction open.
fn in_transaction() -> (Cluster, DbId) {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(0, &freeze(db)), done());
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionStart(trans(db))), done());
    cluster.took(0);
    (cluster, db)
}

fn push_message(cluster: &mut Cluster, db: DbId, key: &[u8]) {
    let data = one_record(db, key, header(5, 0), b"pushed");
    cluster.event(0, |cx| controls::message(cx, SRVID, data));
}

#[test]
fn everybody_who_wants_a_freeze_is_answered_when_it_is_complete() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    cluster.took(0);
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Freeze(_)));
    let first = cluster.send(0, &freeze(db));
    let second = cluster.send(0, &freeze(db));
    assert_eq!((cluster.reply(first), cluster.reply(second)), (None, None));
    assert_eq!(cluster.release(0, &Outcome::Done), 1);
    assert_eq!(cluster.reply(first), Some(done()));
    assert_eq!(cluster.reply(second), Some(done()));
    assert_eq!(cluster.control(0, &freeze(db)), done(), "already frozen");
    assert_eq!(data_asks(&cluster.took(0)), [DataAsk::Freeze(db)]);
}

#[test]
fn a_freeze_that_fails_can_be_tried_again() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Freeze(_)));
    let id = cluster.send(0, &freeze(db));
    cluster.release(0, &Outcome::Failed("no lock".into()));
    assert_eq!(cluster.reply(id), Some(refused()));
    assert_eq!(cluster.state(0).databases[0].freeze, FreezeState::None);
    let id = cluster.send(0, &freeze(db));
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(id), Some(done()));
}

#[test]
fn a_thaw_ends_a_freeze_that_still_waits_and_its_late_outcome_is_nothing() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Freeze(_)));
    let id = cluster.send(0, &freeze(db));
    assert_eq!(cluster.control(0, &ControlRequest::DbThaw(db)), done());
    assert_eq!(cluster.reply(id), Some(refused()));
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.state(0).databases[0].freeze, FreezeState::None);
}

#[test]
fn unknown_databases_are_neither_frozen_nor_thawed() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &freeze(DbId(1))), refused());
    assert_eq!(cluster.control(0, &ControlRequest::DbThaw(DbId(1))), refused());
}

#[test]
fn a_recovery_replaces_the_records_and_the_generation() {
    let (mut cluster, db) = in_transaction();
    cluster.nodes[0].store.put(db, b"old", header(1, 0), b"old");
    assert_eq!(cluster.control(0, &ControlRequest::WipeDatabase(trans(db))), done());
    assert_eq!(cluster.control(0, &ControlRequest::DbPushStart(stream(db))), done());
    push_message(&mut cluster, db, b"one");
    push_message(&mut cluster, db, b"two");
    let count = cluster.control(0, &ControlRequest::DbPushConfirm(db));
    assert_eq!(value::<RecordCount>(&count), RecordCount(2));
    assert!(cluster.nodes[0].store.record(db, b"old").is_some(), "until the commit");
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionCommit(trans(db))), done());
    assert_eq!(cluster.control(0, &ControlRequest::DbThaw(db)), done());
    assert_eq!(
        data_asks(&cluster.took(0)),
        [
            DataAsk::TransactionCommit(db),
            DataAsk::Replaced(db),
            DataAsk::SetGeneration(db, TID),
            DataAsk::Thaw(db, Some(TID)),
        ]
    );
    assert!(cluster.nodes[0].store.record(db, b"old").is_none());
    assert!(cluster.nodes[0].store.record(db, b"two").is_some());
    assert_eq!(cluster.state(0).databases[0].generation, TID);
}

#[test]
fn nothing_of_a_transaction_is_possible_without_a_freeze() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    for control in [
        ControlRequest::DbTransactionStart(trans(db)),
        ControlRequest::DbTransactionCommit(trans(db)),
        ControlRequest::WipeDatabase(trans(db)),
        ControlRequest::DbPull(stream(db)),
        ControlRequest::DbPushStart(stream(db)),
        ControlRequest::DbPushConfirm(db),
    ] {
        assert_eq!(cluster.control(0, &control), refused(), "{control:?}");
    }
}

#[test]
fn another_transaction_id_is_refused() {
    let (mut cluster, db) = in_transaction();
    let other = TransDb { db, tid: Generation(201) };
    assert_eq!(cluster.control(0, &ControlRequest::WipeDatabase(other)), refused());
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionCommit(other)), refused());
    assert_eq!(cluster.state(0).databases[0].generation, GENERATION);
}

#[test]
fn a_transaction_that_starts_again_drops_the_first() {
    let (mut cluster, db) = in_transaction();
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionStart(trans(db))), done());
    assert_eq!(
        data_asks(&cluster.took(0)),
        [DataAsk::TransactionCancel(db), DataAsk::TransactionStart(db)]
    );
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionCancel(db)), done());
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionCommit(trans(db))), refused());
}

#[test]
fn a_commit_that_fails_leaves_the_old_generation() {
    let (mut cluster, db) = in_transaction();
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::TransactionCommit(_)));
    assert_eq!(cluster.control(0, &ControlRequest::DbTransactionCommit(trans(db))), refused());
    assert_eq!(cluster.state(0).databases[0].generation, GENERATION);
}

#[test]
fn a_commit_makes_a_copy_healthy_if_any_node_is() {
    let (mut cluster, db) = in_transaction();
    cluster.change(0, |state| {
        state.databases[0].unhealthy = Some("torn".into());
        state.nodes[0].flags = NodeFlags::UNHEALTHY;
    });
    cluster.control(0, &ControlRequest::DbTransactionCommit(trans(db)));
    let reason = |cluster: &Cluster| cluster.state(0).databases[0].unhealthy.clone();
    assert_eq!(reason(&cluster).as_deref(), Some("NO-HEALTHY-NODES - torn"));
    for _ in 0..2 {
        cluster.control(0, &ControlRequest::DbTransactionStart(trans(db)));
        cluster.control(0, &ControlRequest::DbTransactionCommit(trans(db)));
        assert_eq!(reason(&cluster).as_deref(), Some("NO-HEALTHY-NODES - torn"));
    }
    cluster.change(0, |state| state.nodes[0].flags = NodeFlags::NONE);
    cluster.control(0, &ControlRequest::DbTransactionStart(trans(db)));
    cluster.control(0, &ControlRequest::DbTransactionCommit(trans(db)));
    assert_eq!(reason(&cluster), None);
}

#[test]
fn a_pull_sends_to_the_node_that_asks_and_then_counts() {
    let (mut cluster, db) = in_transaction();
    cluster.nodes[0].store.put(db, b"key", header(1, 0), b"value");
    let from = Origin::Node(pnn(0), 9);
    let count = cluster.control_from(0, from, &ControlRequest::DbPull(stream(db)));
    assert_eq!(value::<RecordCount>(&count), RecordCount(1));
    let to = pnn(0);
    assert_eq!(data_asks(&cluster.took(0)), [DataAsk::Pull { db, srvid: SRVID, to }]);
}

#[test]
fn invalid_records_are_not_pulled() {
    let mut cluster = Cluster::running(1);
    let db = volatile(&mut cluster, "locking.tdb");
    cluster.nodes[0].store.put(db, b"key", header(1, 0), b"value");
    cluster.control(0, &ControlRequest::Freeze);
    cluster.took(0);
    let count = cluster.control(0, &ControlRequest::DbPull(stream(db)));
    assert_eq!(value::<RecordCount>(&count), RecordCount(0));
    assert_eq!(data_asks(&cluster.took(0)), []);
}

#[test]
fn a_confirmation_waits_for_the_batches_that_came_before_it() {
    let (mut cluster, db) = in_transaction();
    cluster.control(0, &ControlRequest::DbPushStart(stream(db)));
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Push { .. }));
    push_message(&mut cluster, db, b"one");
    push_message(&mut cluster, db, b"two");
    let id = cluster.send(0, &ControlRequest::DbPushConfirm(db));
    cluster.release(0, &Outcome::Count(1));
    assert_eq!(cluster.reply(id), None);
    cluster.release(0, &Outcome::Count(1));
    assert_eq!(cluster.reply(id).map(|answer| value(&answer)), Some(RecordCount(2)));
}

#[test]
fn a_batch_that_cannot_be_stored_ends_the_count() {
    let (mut cluster, db) = in_transaction();
    cluster.control(0, &ControlRequest::DbPushStart(stream(db)));
    push_message(&mut cluster, db, b"one");
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::Push { .. }));
    push_message(&mut cluster, db, b"two");
    push_message(&mut cluster, db, b"three");
    let count = cluster.control(0, &ControlRequest::DbPushConfirm(db));
    assert_eq!(value::<RecordCount>(&count), RecordCount(1));
}

#[test]
fn a_push_that_starts_again_with_the_same_srvid_counts_anew() {
    let (mut cluster, db) = in_transaction();
    cluster.control(0, &ControlRequest::DbPushStart(stream(db)));
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Push { .. }));
    push_message(&mut cluster, db, b"old");
    cluster.control(0, &ControlRequest::DbPushStart(stream(db)));
    cluster.release(0, &Outcome::Count(1));
    push_message(&mut cluster, db, b"new");
    cluster.release(0, &Outcome::Count(1));
    let count = cluster.control(0, &ControlRequest::DbPushConfirm(db));
    assert_eq!(value::<RecordCount>(&count), RecordCount(1));
    assert_eq!(cluster.control(0, &ControlRequest::DbPushConfirm(db)), refused());
}

#[test]
fn a_thaw_gives_up_a_push() {
    let (mut cluster, db) = in_transaction();
    cluster.control(0, &ControlRequest::DbPushStart(stream(db)));
    cluster.took(0);
    cluster.control(0, &ControlRequest::DbThaw(db));
    assert!(cluster.took(0).contains(&Did::Tell(Tell::ForgetSrvid(SRVID))));
    push_message(&mut cluster, db, b"late");
    assert_eq!(cluster.state(0).databases[0].push, None);
}
