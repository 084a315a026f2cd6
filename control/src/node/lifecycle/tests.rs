use ringmaster_protocol::{
    Destination, Srvid,
    control::{ControlOpcode, ControlRequest},
    database::VnnMap,
    node::NodeFlags,
    process::RecMode,
};

use super::*;
use crate::node::{
    lifecycle,
    testing::{Cluster, Did, GENERATION, Play, pnn},
    world::{Origin, ScriptRun},
};

/// What an operator would notice, in order.
fn milestones(did: &[Did]) -> Vec<String> {
    let milestone = |did: &Did| match did {
        Did::Ask(Ask::Script(ScriptRun { event, .. })) => Some(format!("event {event}")),
        Did::Ask(Ask::Data(DataAsk::Attach { name, frozen: true, .. })) => {
            Some(format!("attach {name}"))
        }
        Did::Ask(Ask::Data(DataAsk::Freeze(_))) => Some("freeze".into()),
        Did::Tell(Tell::Notify(word)) => Some(format!("notify {word}")),
        Did::Tell(Tell::StartTransport) => Some("transport".into()),
        Did::Tell(Tell::StartKeepalive) => Some("keepalive".into()),
        Did::Tell(Tell::Exit(status)) => Some(format!("exit {status}")),
        Did::Tell(Tell::Control(control)) if control.opcode == ControlOpcode::STARTUP => {
            Some(format!("tell {}", control.to))
        }
        _ => None,
    };
    did.iter().filter_map(milestone).collect()
}

/// A leader far away recovers the node.
fn recover(cluster: &mut Cluster, node: usize) {
    let leader = Origin::Node(pnn(7), 0);
    let map = VnnMap { generation: GENERATION, map: vec![pnn(node)] };
    let ids: Vec<DbId> = cluster.state(node).databases.iter().map(|db| db.id).collect();
    let mut steps = vec![
        ControlRequest::SetRecMode(RecMode::Active),
        ControlRequest::StartRecovery,
        ControlRequest::SetVnnMap(map),
    ];
    for db in ids {
        let transaction = ringmaster_protocol::database::TransDb { db, tid: GENERATION };
        steps.push(ControlRequest::DbFreeze(db));
        steps.push(ControlRequest::DbTransactionStart(transaction));
        steps.push(ControlRequest::DbTransactionCommit(transaction));
        steps.push(ControlRequest::DbThaw(db));
    }
    steps.push(ControlRequest::SetRecMode(RecMode::Normal));
    steps.push(ControlRequest::EndRecovery);
    for step in steps {
        assert_eq!(cluster.control_from(node, leader, &step).status, 0, "{step:?}");
    }
}

/// One of two nodes, its own elections and recoveries silenced: the other one leads.
fn starting() -> Cluster {
    let mut cluster = Cluster::of(2);
    cluster.nodes[0].files = vec!["account.tdb".into(), "secrets.tdb".into()];
    cluster.event(0, lifecycle::start);
    cluster.event(0, recd::stop);
    cluster
}

#[test]
fn a_node_starts_in_order() {
    let mut cluster = starting();
    assert_eq!(cluster.state(0).run_state, RunState::FirstRecovery);
    assert_eq!(
        milestones(&cluster.took(0)),
        [
            "event init",
            "notify init",
            "attach account.tdb",
            "attach secrets.tdb",
            "freeze",
            "freeze",
            "transport",
            "event setup",
            "notify setup",
            "keepalive",
        ]
    );
    cluster.advance_ms(60_000);
    assert_eq!(milestones(&cluster.took(0)), [""; 0], "nothing without a recovery");
    recover(&mut cluster, 0);
    assert_eq!(cluster.state(0).run_state, RunState::Startup);
    cluster.took(0);
    cluster.advance_ms(1_000);
    assert_eq!(milestones(&cluster.took(0)), ["event startup", "notify startup", "tell 1"]);
    assert_eq!(cluster.state(0).run_state, RunState::Running);
}

#[test]
fn without_fast_start_the_startup_waits_for_some_time_without_a_recovery() {
    let mut cluster = starting();
    cluster.change(0, |state| state.constants.fast_start = false);
    recover(&mut cluster, 0);
    cluster.advance_ms(12_000);
    assert_eq!(cluster.state(0).run_state, RunState::Startup);
    cluster.advance_ms(2_000);
    assert_eq!(cluster.state(0).run_state, RunState::Running);
}

#[test]
fn a_startup_event_that_fails_is_run_again() {
    let mut cluster = starting();
    cluster.script(0, "startup", ScriptResult::Failed);
    recover(&mut cluster, 0);
    cluster.took(0);
    cluster.advance_ms(11_000);
    let startups = milestones(&cluster.took(0));
    assert_eq!(startups, ["event startup", "event startup", "event startup"]);
    cluster.script(0, "startup", ScriptResult::Ok);
    cluster.advance_ms(5_000);
    assert_eq!(cluster.state(0).run_state, RunState::Running);
}

#[test]
fn an_event_without_which_there_is_no_node_ends_the_daemon() {
    for event in ["init", "setup"] {
        let mut cluster = Cluster::of(1);
        cluster.script(0, event, ScriptResult::Failed);
        cluster.event(0, lifecycle::start);
        let did = milestones(&cluster.took(0));
        assert_eq!(did.last().map(String::as_str), Some("exit 1"), "{event}");
    }
}

#[test]
fn a_persistent_database_that_cannot_be_attached_ends_the_daemon_before_it_serves_anybody() {
    let mut cluster = Cluster::of(1);
    cluster.nodes[0].files = vec!["secrets.tdb".into()];
    cluster.play(0, |ask| match ask {
        Ask::Data(DataAsk::Attach { .. }) => Some(Play::Outcome(Outcome::Failed("damaged".into()))),
        _ => None,
    });
    cluster.event(0, lifecycle::start);
    let did = milestones(&cluster.took(0));
    assert_eq!(did, ["event init", "notify init", "attach secrets.tdb", "exit 1"]);
}

#[test]
fn a_database_that_is_not_healthy_after_the_first_recovery_ends_the_daemon_in_order() {
    let mut cluster = starting();
    recover(&mut cluster, 0);
    cluster.change(0, |state| state.databases[0].unhealthy = Some("torn".into()));
    cluster.took(0);
    cluster.advance_ms(1_000);
    assert_eq!(milestones(&cluster.took(0)), ["event shutdown", "exit 11"]);
}

#[test]
fn a_shutdown_runs_its_event_and_leaves_once() {
    let mut cluster = Cluster::running(1);
    let id = cluster.send(0, &ControlRequest::Shutdown);
    cluster.send(0, &ControlRequest::Shutdown);
    assert_eq!(cluster.reply(id), None, "never answered");
    assert_eq!(milestones(&cluster.took(0)), ["event shutdown", "exit 0"]);
    assert_eq!(cluster.state(0).run_state, RunState::Shutdown);
}

#[test]
fn a_shutdown_in_the_middle_of_the_start_ends_the_start() {
    let mut cluster = starting();
    recover(&mut cluster, 0);
    cluster.play(0, |ask| match ask {
        Ask::Script(run) if run.event == "shutdown" => Some(Play::Hold),
        _ => None,
    });
    cluster.event(0, |cx| lifecycle::shutdown(cx, 32));
    cluster.took(0);
    cluster.advance_ms(60_000);
    assert_eq!(milestones(&cluster.took(0)), [""; 0]);
    cluster.release(0, &Outcome::Script(ScriptResult::TimedOut));
    assert_eq!(milestones(&cluster.took(0)), ["exit 32"]);
}

#[test]
fn a_shutdown_asks_for_a_takeover_run_and_waits_for_its_end() {
    let mut cluster = Cluster::running(2);
    cluster.change(0, |state| state.constants.shutdown_failover_timeout_s = 10);
    cluster.took(0);
    cluster.event(0, |cx| lifecycle::shutdown(cx, 0));
    let reply_to = Srvid::daemon_reply(pnn(0));
    let request = Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::TAKEOVER_RUN,
        data: SrvidMessage { pnn: Some(pnn(0)), srvid: reply_to }.to_bytes(),
    };
    let did = cluster.took(0);
    assert_eq!(did, [Did::Ask(Ask::ListenSrvid(reply_to)), Did::Tell(request)]);
    cluster.advance_ms(9_000);
    assert_eq!(milestones(&cluster.took(0)), [""; 0]);
    // -1 as well: the leader has tried.
    let failed = (-1_i32).to_le_bytes().to_vec();
    cluster.event(0, |cx| crate::node::controls::message(cx, reply_to, failed));
    assert_eq!(milestones(&cluster.took(0)), ["event shutdown", "exit 0"]);
}

#[test]
fn a_shutdown_does_not_wait_for_ever_for_a_takeover_run() {
    let mut cluster = Cluster::running(2);
    cluster.change(0, |state| state.constants.shutdown_failover_timeout_s = 10);
    cluster.event(0, |cx| lifecycle::shutdown(cx, 0));
    cluster.took(0);
    cluster.advance_ms(10_000);
    assert_eq!(milestones(&cluster.took(0)), ["event shutdown", "exit 0"]);
}

#[test]
fn three_nodes_elect_a_leader_recover_and_run() {
    let mut cluster = Cluster::of(3);
    for node in 0..3 {
        cluster.nodes[node].files = vec!["secrets.tdb".into()];
        cluster.event(node, lifecycle::start);
    }
    cluster.advance_ms(60_000);
    let generation = cluster.state(0).vnn_map.generation;
    assert_ne!(generation, Generation::INVALID);
    for node in 0..3 {
        let state = cluster.state(node);
        assert_eq!(state.run_state, RunState::Running, "node {node}");
        assert_eq!(state.recovery_mode, RecMode::Normal);
        assert_eq!(state.vnn_map.generation, generation);
        assert_eq!(state.databases[0].generation, generation);
        assert_eq!(state.leader, cluster.state(0).leader);
        assert_eq!(state.own_flags(), NodeFlags::NONE);
    }
}
