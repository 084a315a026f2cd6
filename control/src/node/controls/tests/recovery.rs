use ringmaster_protocol::{
    Generation,
    database::VnnMap,
    node::NodeFlags,
    process::{RecMode, RunState},
};

use super::*;
use crate::node::{
    state::FreezeState,
    testing::GENERATION,
    world::{LockResult, Origin, ScriptResult},
};

const NORMAL: ControlRequest<'static> = ControlRequest::SetRecMode(RecMode::Normal);
const ACTIVE: ControlRequest<'static> = ControlRequest::SetRecMode(RecMode::Active);

fn map(generation: u32) -> VnnMap {
    VnnMap { generation: Generation(generation), map: vec![pnn(0)] }
}

/// A node in recovery, with a cluster lock whose test ends so.
fn leaving(result: LockResult) -> (Cluster, ControlAnswer) {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.constants.cluster_lock = Some("/lock".into()));
    cluster.control(0, &ACTIVE);
    cluster.play(0, move |ask| match ask {
        Ask::TestLock { timeout_s: 5 } => Some(Play::Outcome(Outcome::Lock(result))),
        _ => None,
    });
    let answer = cluster.control(0, &NORMAL);
    (cluster, answer)
}

#[test]
fn the_map_is_only_taken_in_a_recovery() {
    let mut cluster = Cluster::running(1);
    let set = ControlRequest::SetVnnMap(map(200));
    assert_eq!(cluster.control(0, &set), refused());
    cluster.control(0, &ACTIVE);
    assert_eq!(cluster.control(0, &set), done());
    assert_eq!(cluster.state(0).vnn_map, map(200));
}

#[test]
fn a_mode_that_is_already_set_is_set() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &NORMAL), done());
    assert_eq!(cluster.control(0, &ACTIVE), done());
    assert_eq!(cluster.control(0, &ACTIVE), done());
    assert_eq!(cluster.control(0, &ControlRequest::GetRecMode).status, 1);
}

#[test]
fn a_mode_that_does_not_exist_acts_like_normal() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ACTIVE);
    let set = ControlRequest::Other { opcode: ControlOpcode::SET_RECMODE, data: &[7, 0, 0, 0] };
    assert_eq!(cluster.control(0, &set), done());
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Normal);
}

#[test]
fn a_database_of_another_generation_keeps_the_node_in_recovery() {
    let mut cluster = Cluster::running(1);
    volatile(&mut cluster, "locking.tdb");
    cluster.control(0, &ACTIVE);
    cluster.control(0, &ControlRequest::SetVnnMap(map(200)));
    assert_eq!(cluster.control(0, &NORMAL), refused());
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
}

#[test]
fn leaving_a_recovery_thaws_what_a_stop_has_frozen() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "locking.tdb");
    cluster.control(0, &ControlRequest::StopNode);
    cluster.change(0, |state| {
        state.vnn_map.generation = GENERATION;
        state.databases[0].generation = GENERATION;
    });
    cluster.took(0);
    assert_eq!(cluster.control(0, &NORMAL), done());
    assert_eq!(data_asks(&cluster.took(0)), [DataAsk::Thaw(id, Some(GENERATION))]);
    assert_eq!(cluster.state(0).frozen_all, FreezeState::None);
    assert!(cluster.state(0).databases[0].invalid_records, "until a recovery has replaced them");
}

#[test]
fn a_lock_that_the_leader_holds_ends_the_recovery() {
    let (cluster, answer) = leaving(LockResult::Contention(0.5));
    assert_eq!(answer, done());
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Normal);
    assert_eq!(cluster.state(0).counters.reclock_ctdbd.total, 0.5);
}

#[test]
fn a_lock_test_that_times_out_ends_the_recovery_without_a_latency() {
    let (cluster, answer) = leaving(LockResult::TimedOut);
    assert_eq!(answer, done());
    assert_eq!(cluster.state(0).counters.reclock_ctdbd.num, 0);
}

#[test]
fn a_node_that_is_stopped_while_the_lock_is_tested_stays_in_recovery() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.constants.cluster_lock = Some("/lock".into()));
    cluster.control(0, &ACTIVE);
    cluster.play(0, |ask| matches!(ask, Ask::TestLock { .. }).then_some(Play::Hold));
    let normal = cluster.send(0, &NORMAL);
    assert_eq!(cluster.control(0, &ControlRequest::StopNode), done());
    cluster.release(0, &Outcome::Lock(LockResult::Contention(0.5)));
    assert_eq!(cluster.reply(normal), Some(refused()));
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
}

#[test]
fn a_lock_that_can_be_taken_keeps_the_node_in_recovery() {
    let text = "Took recovery lock from daemon during recovery - probably a cluster filesystem \
                lock coherence problem";
    let (cluster, answer) = leaving(LockResult::Taken(0.1));
    assert_eq!(answer, error(-1, text));
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
    let (_, answer) = leaving(LockResult::Error);
    assert_eq!(answer, error(-1, "Unexpected error when testing recovery lock"));
}

#[test]
fn a_recovery_starts_when_leader_and_node_have_the_same_lock() {
    let mut cluster = Cluster::running(2);
    for node in 0..2 {
        cluster.change(node, |state| state.constants.cluster_lock = Some("/lock".into()));
    }
    let leader = Origin::Node(pnn(1), 3);
    let answer = cluster.control_from(0, leader, &ControlRequest::StartRecovery);
    assert_eq!(answer, done());
    let did = cluster.took(0);
    assert_eq!(sent(&did, ControlOpcode::GET_RECLOCK_FILE), [1]);
    assert_eq!(events(&did), ["startrecovery"]);
}

#[test]
fn a_node_with_another_lock_than_the_leader_refuses_and_leaves() {
    let mut cluster = Cluster::running(2);
    cluster.change(1, |state| state.constants.cluster_lock = Some("/lock".into()));
    let leader = Origin::Node(pnn(1), 3);
    let id = cluster.send_from(0, leader, &ControlRequest::StartRecovery);
    assert_eq!(cluster.reply(id), Some(refused()));
    let did = cluster.took(0);
    assert_eq!(events(&did), ["shutdown"]);
    assert!(did.contains(&Did::Tell(Tell::Exit(1))));
}

#[test]
fn a_leader_that_is_thought_disconnected_is_not_asked() {
    let mut cluster = Cluster::running(2);
    cluster.change(0, |state| state.nodes[1].flags = NodeFlags::DISCONNECTED);
    let leader = Origin::Node(pnn(1), 3);
    assert_eq!(cluster.control_from(0, leader, &ControlRequest::StartRecovery), done());
    assert_eq!(sent(&cluster.took(0), ControlOpcode::GET_RECLOCK_FILE), [0; 0]);
}

#[test]
fn a_hung_recovery_script_is_success_and_a_failed_one_is_not() {
    let mut cluster = Cluster::running(1);
    for (event, control) in [
        ("startrecovery", ControlRequest::StartRecovery),
        ("recovered", ControlRequest::EndRecovery),
    ] {
        cluster.script(0, event, ScriptResult::TimedOut);
        assert_eq!(cluster.control(0, &control), done());
        cluster.script(0, event, ScriptResult::Failed);
        assert_eq!(cluster.control(0, &control).status, 8);
    }
}

#[test]
fn the_first_recovery_that_ends_unlocks_the_startup_whatever_the_script_says() {
    let mut cluster = Cluster::running(1);
    cluster.change(0, |state| state.run_state = RunState::FirstRecovery);
    cluster.script(0, "recovered", ScriptResult::Failed);
    cluster.advance_ms(4_000);
    assert_eq!(cluster.control(0, &ControlRequest::EndRecovery).status, 8);
    let state = cluster.state(0);
    assert_eq!(state.run_state, RunState::Startup);
    assert_eq!((state.counters.num_recoveries, state.recovery_finished.seconds), (1, 1_004));
}

#[test]
fn a_recovery_does_not_end_in_the_middle_of_the_next() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ACTIVE);
    assert_eq!(cluster.control(0, &ControlRequest::EndRecovery), refused());
    assert_eq!(cluster.state(0).counters.num_recoveries, 0);
    assert_eq!(events(&cluster.took(0)), [""; 0]);
}

#[test]
fn a_freeze_of_everything_marks_volatile_records_invalid() {
    let mut cluster = Cluster::running(1);
    let kept = persistent(&mut cluster, "secrets.tdb");
    let id = volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(0, &ControlRequest::Freeze), done());
    let state = cluster.state(0);
    assert_eq!(state.frozen_all, FreezeState::Frozen);
    assert!(state.database(id).unwrap().invalid_records);
    assert!(!state.database(kept).unwrap().invalid_records);
}

#[test]
fn a_freeze_of_everything_that_fails_keeps_what_it_has_marked() {
    let mut cluster = Cluster::running(1);
    let id = volatile(&mut cluster, "locking.tdb");
    fail_data(&mut cluster, 0, |data| matches!(data, DataAsk::Freeze(_)));
    assert_eq!(cluster.control(0, &ControlRequest::Freeze), refused());
    assert_eq!(cluster.state(0).frozen_all, FreezeState::None);
    assert!(cluster.state(0).database(id).unwrap().invalid_records);
}

#[test]
fn a_freeze_of_nothing_is_done() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::Freeze), done());
    assert_eq!(cluster.state(0).frozen_all, FreezeState::Frozen);
}
