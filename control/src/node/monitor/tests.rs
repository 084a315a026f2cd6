use super::*;
use crate::node::{
    Outcome, monitor,
    testing::{Cluster, Did, Play, pnn},
};

/// A node that is monitored from now on.
fn monitored() -> Cluster {
    let mut cluster = Cluster::running(2);
    cluster.took(0);
    cluster.event(0, monitor::start);
    cluster
}

/// Seconds, from now, at which the event is run in the next `seconds`.
fn runs(cluster: &mut Cluster, seconds: u64) -> Vec<u64> {
    let mut runs = Vec::new();
    for second in 1..=seconds {
        cluster.advance_ms(1_000);
        if ran(&cluster.took(0)) {
            runs.push(second);
        }
    }
    runs
}

fn ran(did: &[Did]) -> bool {
    did.iter().any(|did| matches!(did, Did::Ask(Ask::Script(run)) if run.event == "monitor"))
}

fn unhealthy(cluster: &Cluster) -> bool {
    cluster.state(0).own_flags().intersects(NodeFlags::UNHEALTHY)
}

#[test]
fn a_healthy_node_is_looked_at_less_and_less_often() {
    let mut cluster = monitored();
    assert_eq!(runs(&mut cluster, 62), [2, 4, 8, 16, 31, 46, 61]);
}

#[test]
fn one_failure_makes_a_node_unhealthy_and_everybody_hears_of_it() {
    let mut cluster = monitored();
    cluster.script(0, "monitor", ScriptResult::Failed);
    cluster.advance_ms(2_000);
    assert!(unhealthy(&cluster));
    let did = cluster.took(0);
    let change =
        NodeFlagChange { pnn: pnn(0), new_flags: NodeFlags::UNHEALTHY, old_flags: NodeFlags::NONE };
    let takeover = SrvidMessage { pnn: Some(pnn(0)), srvid: Srvid(0) };
    assert_eq!(
        did[1..],
        [
            Did::Tell(Tell::Notify("unhealthy")),
            Did::Tell(Tell::Message {
                to: Destination::Node(pnn(0)),
                srvid: Srvid::PUSH_NODE_FLAGS,
                data: change.to_bytes(),
            }),
            Did::Tell(Tell::Message {
                to: Destination::BroadcastConnected,
                srvid: Srvid::TAKEOVER_RUN,
                data: takeover.to_bytes(),
            }),
        ]
    );
    assert_eq!(runs(&mut cluster, 32), [5, 15, 30]);
}

#[test]
fn one_success_makes_it_healthy_again() {
    let mut cluster = monitored();
    cluster.change(0, |state| state.change_own_flags(|flags| flags | NodeFlags::UNHEALTHY));
    cluster.advance_ms(2_000);
    assert!(!unhealthy(&cluster));
    assert!(cluster.took(0).contains(&Did::Tell(Tell::Notify("healthy"))));
}

#[test]
fn a_hung_script_counts_as_a_failure_only_after_many_times() {
    let mut cluster = monitored();
    cluster.change(0, |state| state.tunables.set(Tunable::MonitorTimeoutCount, 3));
    cluster.script(0, "monitor", ScriptResult::TimedOut);
    cluster.advance_ms(4_000);
    assert!(!unhealthy(&cluster));
    cluster.advance_ms(4_000);
    assert!(unhealthy(&cluster));
}

#[test]
fn any_other_result_starts_the_count_of_hung_scripts_anew() {
    let mut cluster = monitored();
    cluster.change(0, |state| state.tunables.set(Tunable::MonitorTimeoutCount, 2));
    for result in [ScriptResult::TimedOut, ScriptResult::Ok, ScriptResult::TimedOut] {
        cluster.script(0, "monitor", result);
        while !ran(&cluster.took(0)) {
            cluster.advance_ms(1_000);
        }
    }
    assert!(!unhealthy(&cluster));
}

#[test]
fn a_cancelled_run_says_nothing() {
    let mut cluster = monitored();
    cluster.script(0, "monitor", ScriptResult::Cancelled);
    cluster.advance_ms(60_000);
    assert!(!unhealthy(&cluster));
}

#[test]
fn a_node_that_is_inactive_or_recovers_is_not_looked_at() {
    let mut cluster = monitored();
    cluster.change(0, |state| state.recovery_mode = RecMode::Active);
    assert!(runs(&mut cluster, 30).is_empty());
    cluster.change(0, |state| {
        state.recovery_mode = RecMode::Normal;
        state.change_own_flags(|flags| flags | NodeFlags::STOPPED);
    });
    assert!(runs(&mut cluster, 30).is_empty());
    cluster.change(0, |state| state.change_own_flags(|_| NodeFlags::NONE));
    assert_eq!(runs(&mut cluster, 2), [2]);
}

#[test]
fn an_event_that_cannot_be_launched_is_tried_again_in_five_seconds() {
    let mut cluster = monitored();
    cluster.script(0, "monitor", ScriptResult::NotRun);
    assert_eq!(runs(&mut cluster, 18), [2, 7, 12, 17]);
    assert!(!unhealthy(&cluster));
}

#[test]
fn monitoring_ends_with_the_node() {
    let mut cluster = monitored();
    cluster.play(0, |ask| matches!(ask, Ask::Script(_)).then_some(Play::Hold));
    cluster.advance_ms(2_000);
    cluster.change(0, |state| state.enter(RunState::Shutdown));
    cluster.release(0, &Outcome::Script(ScriptResult::Failed));
    assert!(!unhealthy(&cluster));
    cluster.advance_ms(60_000);
    assert!(!ran(&cluster.took(0)[1..]));
}
