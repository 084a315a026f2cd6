use ringmaster_protocol::{
    Generation,
    node::{NodeFlagChange, NodeFlags},
    process::RecMode,
    record::{PushRecord, RecBuffer},
};

use super::*;
use crate::node::{
    controls,
    testing::{CLIENT, GENERATION},
    world::{ClientId, Origin, RequestId},
};

/// A commit of one record by node 0's client.
fn commit(cluster: &mut Cluster, db: DbId) -> RequestId {
    let buffer = one_record(db, b"key", header(1, 0), b"value");
    cluster.send(0, &ControlRequest::Trans3Commit(RecBuffer::from_bytes(&buffer).unwrap()))
}

fn stored(cluster: &Cluster, node: usize, db: DbId) -> bool {
    cluster.nodes[node].store.record(db, b"key") == Some((header(1, 0), b"value".to_vec()))
}

fn hold_updates(cluster: &mut Cluster, node: usize) {
    hold_data(cluster, node, |data| matches!(data, DataAsk::UpdateRecords { .. }));
}

fn recovering(cluster: &Cluster) -> bool {
    cluster.state(0).recovery_mode == RecMode::Active
}

#[test]
fn a_commit_is_done_when_every_member_has_stored_it() {
    let mut cluster = Cluster::running(3);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.took(0);
    hold_updates(&mut cluster, 2);
    let id = commit(&mut cluster, db);
    assert_eq!(cluster.reply(id), None);
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_RECORD), [0, 1, 2]);
    cluster.release(2, &Outcome::Done);
    assert_eq!(cluster.reply(id), Some(done()));
    assert!(stored(&cluster, 0, db) && stored(&cluster, 1, db));
    assert_eq!(data_asks(&cluster.took(0)), [DataAsk::CommitActive(db, false)]);
    assert_eq!(cluster.state(0).databases[0].commit, None);
}

#[test]
fn members_of_the_map_are_written_to_and_nobody_else() {
    let mut cluster = Cluster::running(3);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.change(0, |state| {
        state.nodes[1].flags = NodeFlags::UNHEALTHY;
        state.vnn_map.map.retain(|member| *member != pnn(2));
    });
    cluster.took(0);
    let id = commit(&mut cluster, db);
    assert_eq!(cluster.reply(id), Some(done()));
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_RECORD), [0, 1]);
}

#[test]
fn nothing_is_committed_without_a_member_of_the_map() {
    for away in [NodeFlags::DISCONNECTED, NodeFlags::STOPPED, NodeFlags::BANNED] {
        let mut cluster = Cluster::running(2);
        let db = persistent(&mut cluster, "secrets.tdb");
        cluster.change(0, |state| state.nodes[1].flags = away);
        cluster.took(0);
        let id = commit(&mut cluster, db);
        cluster.advance_ms(5_000);
        assert_eq!(cluster.reply(id), None);
        assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_RECORD), [0; 0]);
        // The recovery that takes it out of the map.
        cluster.change(0, |state| state.recovery_mode = RecMode::Active);
        assert_eq!(cluster.reply(id), Some(refused()));
        cluster.change(0, |state| {
            state.recovery_mode = RecMode::Normal;
            state.vnn_map.map = vec![pnn(0)];
        });
        let id = commit(&mut cluster, db);
        assert_eq!(cluster.reply(id), Some(done()));
    }
}

#[test]
fn a_member_that_is_back_is_waited_for_until_the_word_of_it_has_come() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.change(0, |state| state.nodes[1].flags = NodeFlags::BANNED);
    let id = commit(&mut cluster, db);
    cluster.advance_ms(500);
    cluster.took(0);
    let word =
        NodeFlagChange { pnn: pnn(1), new_flags: NodeFlags::NONE, old_flags: NodeFlags::BANNED };
    cluster.control_from(0, Origin::Node(pnn(1), 0), &ControlRequest::ModifyFlags(word));
    assert_eq!(cluster.reply(id), Some(done()));
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_RECORD), [0, 1]);
}

#[test]
fn a_member_that_nobody_takes_care_of_is_waited_for_as_long_as_for_a_control() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.change(0, |state| state.nodes[1].flags = NodeFlags::DISCONNECTED);
    let id = commit(&mut cluster, db);
    cluster.advance_ms(59_999);
    assert_eq!(cluster.reply(id), None);
    cluster.advance_ms(1);
    assert_eq!(cluster.reply(id), Some(refused()));
}

#[test]
fn a_commit_without_members_is_done_at_once() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.change(0, |state| state.vnn_map.map.clear());
    let id = commit(&mut cluster, db);
    assert_eq!(cluster.reply(id), Some(done()));
    assert!(!stored(&cluster, 0, db));
}

#[test]
fn one_commit_per_database_and_per_client() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    let other = persistent(&mut cluster, "account.tdb");
    cluster.event(0, |cx| controls::client_connected(cx, ClientId(8), 88));
    hold_updates(&mut cluster, 0);
    let first = commit(&mut cluster, db);
    let second = commit(&mut cluster, other);
    assert_eq!(cluster.reply(second), Some(refused()), "the client is busy");
    let buffer = one_record(db, b"key", header(1, 0), b"value");
    let again = ControlRequest::Trans3Commit(RecBuffer::from_bytes(&buffer).unwrap());
    assert_eq!(cluster.control_from(0, Origin::Client(ClientId(8)), &again), refused());
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(first), Some(done()));
}

#[test]
fn strangers_recoveries_and_unknown_databases_commit_nothing() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    let unknown = commit(&mut cluster, DbId(1));
    assert_eq!(cluster.reply(unknown), Some(refused()));
    let buffer = one_record(db, b"key", header(1, 0), b"value");
    let control = ControlRequest::Trans3Commit(RecBuffer::from_bytes(&buffer).unwrap());
    for stranger in [Origin::Client(ClientId(99)), Origin::Node(pnn(0), 7)] {
        assert_eq!(cluster.control_from(0, stranger, &control), refused());
    }
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    let id = commit(&mut cluster, db);
    assert_eq!(cluster.reply(id), Some(refused()));
}

#[test]
fn a_member_that_fails_leaves_the_commit_to_a_recovery() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    fail_data(&mut cluster, 1, |data| matches!(data, DataAsk::UpdateRecords { .. }));
    let id = commit(&mut cluster, db);
    assert!(recovering(&cluster));
    assert_eq!(cluster.reply(id), None);
    cluster.advance_ms(600_000);
    assert_eq!(cluster.reply(id), None, "the time limit counts for nothing in a recovery");
    cluster.control_from(0, Origin::Own, &ControlRequest::SetRecMode(RecMode::Normal));
    assert_eq!(cluster.reply(id), None);
    cluster.control_from(0, Origin::Own, &ControlRequest::EndRecovery);
    assert_eq!(cluster.reply(id), Some(error(2, "trans3 commit ended by recovery")));
}

#[test]
fn replies_that_come_during_a_recovery_count_for_nothing() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    hold_updates(&mut cluster, 0);
    let id = commit(&mut cluster, db);
    cluster.control(0, &ControlRequest::SetRecMode(RecMode::Active));
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(id), None);
    cluster.control_from(0, Origin::Own, &ControlRequest::SetRecMode(RecMode::Normal));
    cluster.control_from(0, Origin::Own, &ControlRequest::EndRecovery);
    assert_eq!(cluster.reply(id).map(|answer| answer.status), Some(2));
}

#[test]
fn a_member_that_dies_starts_a_recovery() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    hold_updates(&mut cluster, 1);
    let id = commit(&mut cluster, db);
    cluster.kill(1);
    assert!(recovering(&cluster));
    assert_eq!(cluster.reply(id), None);
}

#[test]
fn a_member_that_is_silent_starts_a_recovery_too() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    cluster.change(1, |state| {
        state.tunables.set(ringmaster_protocol::tunable::Tunable::ControlTimeout, 0)
    });
    hold_updates(&mut cluster, 1);
    let id = commit(&mut cluster, db);
    cluster.advance_ms(60_000);
    assert!(recovering(&cluster));
    assert_eq!(cluster.reply(id), None);
}

#[test]
fn a_client_that_goes_with_an_open_commit_starts_a_recovery_and_frees_the_database() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    hold_updates(&mut cluster, 0);
    commit(&mut cluster, db);
    cluster.took(0);
    cluster.event(0, |cx| controls::client_gone(cx, CLIENT));
    assert!(recovering(&cluster));
    assert_eq!(cluster.state(0).databases[0].commit, None);
    assert_eq!(data_asks(&cluster.took(0)), [DataAsk::CommitActive(db, false)]);
}

#[test]
fn a_late_reply_of_an_old_commit_does_not_count_for_the_next_one() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    hold_updates(&mut cluster, 0);
    let first = commit(&mut cluster, db);
    for control in [
        ControlRequest::SetRecMode(RecMode::Active),
        ControlRequest::SetRecMode(RecMode::Normal),
        ControlRequest::EndRecovery,
    ] {
        cluster.control_from(0, Origin::Own, &control);
    }
    assert_eq!(cluster.reply(first).map(|answer| answer.status), Some(2));
    let held = std::mem::take(&mut cluster.nodes[0].held);
    let second = commit(&mut cluster, db);
    let mine = std::mem::replace(&mut cluster.nodes[0].held, held);
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(second), None);
    cluster.nodes[0].held = mine;
    cluster.release(0, &Outcome::Done);
    assert_eq!(cluster.reply(second), Some(done()));
}

#[test]
fn an_update_is_refused_in_a_recovery_and_for_unhealthy_databases() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    let buffer = one_record(db, b"key", header(1, 0), b"value");
    let update = ControlRequest::UpdateRecord(RecBuffer::from_bytes(&buffer).unwrap());
    cluster.change(0, |state| state.databases[0].unhealthy = Some("torn".into()));
    assert_eq!(cluster.control(0, &update), refused());
    cluster.change(0, |state| state.databases[0].unhealthy = None);
    assert_eq!(cluster.control(0, &update), done());
    assert!(stored(&cluster, 0, db));
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    assert_eq!(cluster.control(0, &update), refused());
    assert_eq!(cluster.state(0).counters.childwrite_calls, 1);
}

#[test]
fn an_update_that_cannot_be_stored_is_status_one_and_one_that_hangs_times_out() {
    let mut cluster = Cluster::running(1);
    let db = persistent(&mut cluster, "secrets.tdb");
    let buffer = one_record(db, b"key", header(1, 0), b"value");
    let update = ControlRequest::UpdateRecord(RecBuffer::from_bytes(&buffer).unwrap());
    hold_updates(&mut cluster, 0);
    let id = cluster.send(0, &update);
    assert_eq!(cluster.state(0).counters.pending_childwrite_calls, 1);
    cluster.advance_ms(60_000);
    assert_eq!(cluster.reply(id), Some(error(-1, "timeout in ctdb_persistent_lock")));
    let counters = cluster.state(0).counters.clone();
    assert_eq!((counters.pending_childwrite_calls, counters.childwrite_latency.max), (0, 60.0));
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::UpdateRecords { .. }));
    assert_eq!(cluster.control(0, &update).status, 1);
}

fn update_of(buffer: &[u8]) -> ControlRequest<'_> {
    ControlRequest::UpdateRecord(RecBuffer::from_bytes(buffer).unwrap())
}

#[test]
fn copies_are_called_back_by_the_shards_and_transactions_written_by_the_worker() {
    let mut cluster = Cluster::running(2);
    let copies = volatile(&mut cluster, "locking.tdb");
    let kept = persistent(&mut cluster, "secrets.tdb");
    cluster.took(0);
    let buffers = [copies, kept].map(|db| one_record(db, b"key", header(1, 0), b"value"));
    for buffer in &buffers {
        assert_eq!(cluster.control_from(0, Origin::Node(pnn(1), 0), &update_of(buffer)), done());
    }
    let [first, second] = buffers;
    assert_eq!(
        data_asks(&cluster.took(0)),
        [
            DataAsk::UpdateCopies { db: copies, generation: GENERATION, buffer: first },
            DataAsk::UpdateRecords { db: kept, buffer: second },
        ]
    );
}

#[test]
fn an_update_from_before_a_recovery_and_one_of_frozen_copies_are_refused() {
    let mut cluster = Cluster::running(2);
    let copies = volatile(&mut cluster, "locking.tdb");
    let kept = persistent(&mut cluster, "secrets.tdb");
    let buffers = [copies, kept].map(|db| one_record(db, b"key", header(1, 0), b"value"));
    let sender = Origin::Node(pnn(1), 0);
    cluster.change(1, |state| state.vnn_map.generation = Generation(99));
    for buffer in &buffers {
        assert_eq!(cluster.control_from(0, sender, &update_of(buffer)), refused());
    }
    cluster.change(1, |state| state.vnn_map.generation = GENERATION);
    cluster.control(0, &ControlRequest::DbFreeze(copies));
    assert_eq!(cluster.control_from(0, sender, &update_of(&buffers[0])), refused());
    cluster.control(0, &ControlRequest::DbThaw(copies));
    assert_eq!(cluster.control_from(0, sender, &update_of(&buffers[0])), done());
}

#[test]
fn a_pushed_record_of_another_generation_or_of_this_node_is_ignored() {
    let mut cluster = Cluster::running(2);
    let db = volatile(&mut cluster, "locking.tdb");
    let push = |generation, dmaster| {
        let header = header(1, dmaster);
        ControlRequest::PushRecord(PushRecord { generation, db, header, key: b"k", data: b"v" })
    };
    assert_eq!(cluster.control(0, &push(Generation(99), 1)), done());
    assert_eq!(cluster.control(0, &push(GENERATION, 0)), done());
    assert_eq!(cluster.nodes[0].store.record(db, b"k"), None);
    assert_eq!(cluster.control(0, &push(GENERATION, 1)), done());
    assert_eq!(cluster.nodes[0].store.record(db, b"k"), Some((header(1, 1), b"v".to_vec())));
}

#[test]
fn a_commit_that_begins_before_all_have_left_the_recovery_is_not_ended_with_it() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    for mode in [RecMode::Active, RecMode::Normal] {
        cluster.control_from(0, Origin::Own, &ControlRequest::SetRecMode(mode));
    }
    hold_updates(&mut cluster, 1);
    let id = commit(&mut cluster, db);
    cluster.control_from(0, Origin::Own, &ControlRequest::EndRecovery);
    assert_eq!(cluster.reply(id), None, "node 1 has not confirmed");
    cluster.release(1, &Outcome::Failed("in recovery still".into()));
    assert!(recovering(&cluster), "the next one decides");
    assert_eq!(cluster.reply(id), None);
}

const NORMAL: ControlRequest<'static> = ControlRequest::SetRecMode(RecMode::Normal);
const ACTIVE: ControlRequest<'static> = ControlRequest::SetRecMode(RecMode::Active);

/// Both nodes in a recovery that has put the databases back in service already.
fn at_the_end_of_a_recovery(cluster: &mut Cluster) {
    for node in 0..2 {
        cluster.control(node, &ACTIVE);
        cluster.change(node, |state| state.left_in = None);
    }
}

#[test]
fn a_commit_after_a_recovery_waits_until_all_have_left_it() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    at_the_end_of_a_recovery(&mut cluster);
    assert_eq!(cluster.control(0, &NORMAL), done());
    cluster.took(0);
    let id = commit(&mut cluster, db);
    assert_eq!(sent(&cluster.took(0), ControlOpcode::UPDATE_RECORD), [0; 0]);
    assert_eq!(cluster.control(1, &NORMAL), done());
    assert_eq!(cluster.reply(id), None);
    assert_eq!(cluster.control(0, &ControlRequest::EndRecovery), done());
    assert_eq!(cluster.reply(id), Some(done()));
    assert!(stored(&cluster, 1, db) && !recovering(&cluster));
}

#[test]
fn a_commit_waits_neither_for_ever_nor_into_the_next_recovery() {
    let mut cluster = Cluster::running(2);
    let db = persistent(&mut cluster, "secrets.tdb");
    at_the_end_of_a_recovery(&mut cluster);
    cluster.control(0, &NORMAL);
    cluster.control(1, &NORMAL);
    let id = commit(&mut cluster, db);
    cluster.advance_ms(9_999);
    assert_eq!(cluster.reply(id), None);
    cluster.advance_ms(1);
    assert_eq!(cluster.reply(id), Some(done()));
    cluster.control(0, &ACTIVE);
    cluster.control(0, &NORMAL);
    let id = commit(&mut cluster, db);
    assert_eq!(cluster.reply(id), None);
    cluster.control(0, &ACTIVE);
    assert_eq!(cluster.reply(id), Some(refused()));
}

#[test]
fn an_update_of_a_node_that_has_left_the_recovery_waits_until_this_one_has() {
    let mut cluster = Cluster::running(2);
    let copies = volatile(&mut cluster, "locking.tdb");
    let kept = persistent(&mut cluster, "secrets.tdb");
    at_the_end_of_a_recovery(&mut cluster);
    let buffers = [copies, kept].map(|db| one_record(db, b"key", header(1, 0), b"value"));
    let from = Origin::Node(pnn(1), 0);
    let ids = buffers.each_ref().map(|buffer| cluster.send_from(0, from, &update_of(buffer)));
    assert_eq!(ids.map(|id| cluster.reply(id)), [None, None]);
    cluster.control(0, &NORMAL);
    assert_eq!(ids.map(|id| cluster.reply(id)), [Some(done()), Some(done())]);
    assert!(stored(&cluster, 0, kept));
    // This is the next recovery: it decides.
    cluster.control(0, &ACTIVE);
    for buffer in &buffers {
        assert_eq!(cluster.control_from(0, from, &update_of(buffer)), refused());
    }
}

#[test]
fn an_update_waits_for_no_recovery_that_has_not_put_the_database_back() {
    let mut cluster = Cluster::running(2);
    let kept = persistent(&mut cluster, "secrets.tdb");
    at_the_end_of_a_recovery(&mut cluster);
    let buffer = one_record(kept, b"key", header(1, 0), b"value");
    let from = Origin::Node(pnn(1), 0);
    assert_eq!(cluster.control(0, &ControlRequest::DbFreeze(kept)), done());
    assert_eq!(cluster.control_from(0, from, &update_of(&buffer)), refused());
    assert_eq!(cluster.control(0, &ControlRequest::DbThaw(kept)), done());
    let id = cluster.send_from(0, from, &update_of(&buffer));
    assert_eq!(cluster.reply(id), None);
    // The leader has died; the next one brings another generation.
    cluster.change(0, |state| state.vnn_map.generation = Generation(GENERATION.0 + 1));
    assert_eq!(cluster.reply(id), Some(refused()));
    assert!(!stored(&cluster, 0, kept));
}
