use ringmaster_protocol::{
    Generation,
    capabilities::Capabilities,
    node::{BanState, NodeFlagChange, NodeFlags},
    process::{RecMode, Role, RunState},
    tunable::Tunable,
};

use super::*;
use crate::node::{controls, state::FreezeState};

fn own_flags(cluster: &Cluster) -> NodeFlags {
    cluster.state(0).own_flags()
}

fn ban(node: usize, seconds: u32) -> ControlRequest<'static> {
    ControlRequest::SetBanState(BanState { pnn: pnn(node), seconds })
}

fn modify(node: usize, new_flags: NodeFlags) -> ControlRequest<'static> {
    let change = NodeFlagChange { pnn: pnn(node), new_flags, old_flags: NodeFlags(0xFF) };
    ControlRequest::ModifyFlags(change)
}

#[test]
fn a_stopped_node_voids_its_calls_and_freezes_everything() {
    let mut cluster = Cluster::running(1);
    let kept = persistent(&mut cluster, "secrets.tdb");
    let id = volatile(&mut cluster, "locking.tdb");
    cluster.took(0);
    assert_eq!(cluster.control(0, &ControlRequest::StopNode), done());
    assert_eq!(own_flags(&cluster), NodeFlags::STOPPED);
    assert_eq!(
        data_asks(&cluster.took(0)),
        [
            DataAsk::SetGeneration(id, Generation::INVALID),
            DataAsk::SetGeneration(kept, Generation::INVALID),
            DataAsk::Freeze(id),
            DataAsk::Freeze(kept),
        ]
    );
    let state = cluster.state(0);
    assert_eq!(state.vnn_map.generation, Generation::INVALID);
    assert_eq!(state.recovery_mode, RecMode::Active);
    assert_eq!(state.frozen_all, FreezeState::Frozen);
    assert!(state.databases.iter().all(|db| db.generation == Generation::INVALID));
    assert!(state.database(id).unwrap().invalid_records);
    assert!(!state.database(kept).unwrap().invalid_records);
}

#[test]
fn continuing_clears_the_flag_and_nothing_else() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ControlRequest::StopNode);
    assert_eq!(cluster.control(0, &ControlRequest::ContinueNode), done());
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
    assert_eq!(cluster.state(0).frozen_all, FreezeState::Frozen);
}

#[test]
fn a_disabled_node_stays_active() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::DisableNode), done());
    assert_eq!(own_flags(&cluster), NodeFlags::PERMANENTLY_DISABLED);
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Normal);
    assert_eq!(cluster.control(0, &ControlRequest::EnableNode), done());
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
}

#[test]
fn a_change_of_flags_is_in_the_view_before_the_reply() {
    let mut cluster = Cluster::running(1);
    cluster.send(0, &ControlRequest::DisableNode);
    let did = cluster.took_all(0);
    assert_eq!(did[0], Did::Ask(Ask::Data(DataAsk::Publish)));
    assert!(matches!(did[1], Did::Tell(Tell::Reply { .. })));
}

#[test]
fn flags_of_others_are_taken_over_but_for_the_connection() {
    let mut cluster = Cluster::running(2);
    let flags = |cluster: &Cluster, node: usize| cluster.state(0).nodes[node].flags;
    let told = NodeFlags::BANNED | NodeFlags::DISCONNECTED;
    assert_eq!(cluster.control(0, &modify(1, told)), done());
    assert_eq!(flags(&cluster, 1), NodeFlags::BANNED);
    assert_eq!(cluster.control(0, &modify(0, NodeFlags::BANNED)), done());
    assert_eq!(flags(&cluster, 0), NodeFlags::NONE, "nobody else decides about this node");
    assert_eq!(cluster.control(0, &modify(9, NodeFlags::NONE)), refused());
    cluster.event(0, |cx| controls::node_gone(cx, pnn(1)));
    let gone = NodeFlags::BANNED | NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY;
    assert_eq!(cluster.control(0, &modify(1, NodeFlags::NONE)), done());
    assert_eq!(flags(&cluster, 1), gone, "of a node that is not connected nothing is known");
    cluster.event(0, |cx| controls::node_connected(cx, pnn(1)));
    assert_eq!(flags(&cluster, 1), NodeFlags::BANNED | NodeFlags::UNHEALTHY);
}

#[test]
fn a_node_that_becomes_healthy_while_this_one_starts_forces_a_recovery() {
    let mut cluster = Cluster::running(2);
    cluster.change(0, |state| state.nodes[1].flags = NodeFlags::UNHEALTHY);
    cluster.control(0, &modify(1, NodeFlags::NONE));
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Normal, "this node runs");
    cluster.change(0, |state| {
        state.nodes[1].flags = NodeFlags::UNHEALTHY;
        state.run_state = RunState::Startup;
    });
    cluster.control(0, &modify(1, NodeFlags::NONE));
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active);
}

#[test]
fn a_ban_ends_by_itself_once_everything_is_frozen() {
    let mut cluster = Cluster::running(1);
    volatile(&mut cluster, "locking.tdb");
    assert_eq!(cluster.control(0, &ban(0, 10)), done());
    assert_eq!(own_flags(&cluster), NodeFlags::BANNED);
    assert_eq!(cluster.state(0).frozen_all, FreezeState::Frozen);
    let state = cluster.control(0, &ControlRequest::GetBanState);
    assert_eq!(value::<BanState>(&state), BanState { pnn: pnn(0), seconds: 10 });
    cluster.advance_ms(9_999);
    assert_eq!(own_flags(&cluster), NodeFlags::BANNED);
    cluster.advance_ms(1);
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
    let state = cluster.control(0, &ControlRequest::GetBanState);
    assert_eq!(value::<BanState>(&state), BanState { pnn: pnn(0), seconds: 0 });
}

#[test]
fn a_ban_goes_on_as_long_as_the_databases_cannot_be_frozen() {
    let mut cluster = Cluster::running(1);
    volatile(&mut cluster, "locking.tdb");
    hold_data(&mut cluster, 0, |data| matches!(data, DataAsk::Freeze(_)));
    cluster.control(0, &ban(0, 10));
    cluster.advance_ms(10_000);
    assert_eq!(own_flags(&cluster), NodeFlags::BANNED);
    let state = cluster.control(0, &ControlRequest::GetBanState);
    assert_eq!(value::<BanState>(&state), BanState { pnn: pnn(0), seconds: 300 });
    cluster.release(0, &Outcome::Done);
    cluster.advance_ms(300_000);
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
}

#[test]
fn a_second_ban_replaces_the_first_and_does_not_freeze_again() {
    let mut cluster = Cluster::running(1);
    volatile(&mut cluster, "locking.tdb");
    cluster.control(0, &ban(0, 10));
    cluster.took(0);
    cluster.advance_ms(5_000);
    cluster.control(0, &ban(0, 20));
    assert_eq!(data_asks(&cluster.took(0)), []);
    cluster.advance_ms(19_999);
    assert_eq!(own_flags(&cluster), NodeFlags::BANNED);
    cluster.advance_ms(1);
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
}

#[test]
fn a_ban_of_no_time_ends_the_ban() {
    let mut cluster = Cluster::running(1);
    cluster.control(0, &ban(0, 10));
    assert_eq!(cluster.control(0, &ban(0, 0)), done());
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
    assert_eq!(cluster.state(0).recovery_mode, RecMode::Active, "a recovery follows");
}

#[test]
fn bans_of_other_nodes_are_refused_and_disabled_bans_ignored() {
    let mut cluster = Cluster::running(2);
    assert_eq!(cluster.control(0, &ban(1, 10)), refused());
    cluster.change(0, |state| state.tunables.set(Tunable::EnableBans, 0));
    assert_eq!(cluster.control(0, &ban(0, 10)), done());
    assert_eq!(own_flags(&cluster), NodeFlags::NONE);
}

#[test]
fn roles_are_switched_at_run_time() {
    let mut cluster = Cluster::running(1);
    assert_eq!(cluster.control(0, &ControlRequest::SetLmasterRole(Role::Off)), done());
    assert_eq!(cluster.control(0, &ControlRequest::SetRecmasterRole(Role::Off)), done());
    let without = Capabilities::DEFAULT.without(Capabilities::LMASTER | Capabilities::LEADER);
    assert_eq!(cluster.state(0).capabilities, without);
    assert_eq!(cluster.control(0, &ControlRequest::SetLmasterRole(Role::On)), done());
    assert_eq!(cluster.state(0).capabilities, without | Capabilities::LMASTER);
}
