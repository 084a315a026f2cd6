//! Health: the monitor event and what its result changes.
//!
//! Invariants
//! - Only this sequence changes this node's UNHEALTHY.
//! - A change is told once: the recovery daemon's part pushes the flags, the leader moves addresses.
//!
//! Origin: `docs/spec/cluster-semantics.md` 8; `ctdb/server/ctdb_monitor.c`.

use ringmaster_protocol::{
    Destination, Srvid,
    node::{NodeFlagChange, NodeFlags},
    process::{RecMode, RunState, SrvidMessage},
    tunable::Tunable,
    wire::Encode,
};

use super::{
    Ask, NodeCx, State, Tell, events,
    state::FreezeState,
    world::{DataAsk, ScriptResult},
};

/// Until the first run, in seconds.
const FIRST_S: u32 = 2;

/// Until the next run after a change or a failed launch, in seconds.
const SOON_S: u32 = 5;

/// How long to wait, and how often a script has hung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    next_s: u32,
    timeouts: u32,
}

/// Starts the monitor loop; returns at once.
pub fn start(cx: &NodeCx) {
    cx.spawn(monitor(cx.clone()));
}

async fn monitor(cx: NodeCx) {
    let stopping = |state: &State| state.run_state == RunState::Shutdown;
    let mut pace = Pace { next_s: FIRST_S, timeouts: 0 };
    let mut wait_s = FIRST_S;
    loop {
        let deadline = cx.now().plus_seconds(wait_s);
        if cx.until_or(deadline, stopping).await {
            return;
        }
        wait_s = pace.next_s;
        if is_idle(&cx.state()) {
            continue;
        }
        let result = events::run(&cx, "monitor").await;
        if stopping(&cx.state()) {
            return;
        }
        if result == ScriptResult::NotRun {
            pace.next_s = SOON_S;
            wait_s = SOON_S;
            continue;
        }
        judge(&cx, result, &mut pace).await;
        wait_s = pace.next_s;
        let longest_s = cx.state().tunable(Tunable::MonitorInterval);
        pace.next_s = pace.next_s.saturating_mul(2).min(longest_s);
    }
}

/// Nothing is to be found out about a node in this state.
fn is_idle(state: &State) -> bool {
    state.recovery_mode != RecMode::Normal
        || state.is_inactive()
        || state.run_state != RunState::Running
        || state.frozen_all == FreezeState::Frozen
}

/// What a result means for this node's health.
async fn judge(cx: &NodeCx, result: ScriptResult, pace: &mut Pace) {
    let hangs_max = cx.state().tunable(Tunable::MonitorTimeoutCount);
    let healthy = match result {
        ScriptResult::Cancelled | ScriptResult::NotRun => return,
        ScriptResult::TimedOut => {
            pace.timeouts += 1;
            if pace.timeouts < hangs_max {
                tracing::warn!(timeouts = pace.timeouts, "a monitor script hangs");
                return;
            }
            false
        }
        ScriptResult::Ok => {
            pace.timeouts = 0;
            true
        }
        ScriptResult::Failed => {
            pace.timeouts = 0;
            false
        }
    };
    let (old_flags, new_flags, pnn) = {
        let mut state = cx.state_mut();
        let old_flags = state.own_flags();
        state.change_own_flags(|flags| match healthy {
            true => flags.without(NodeFlags::UNHEALTHY),
            false => flags.with(NodeFlags::UNHEALTHY),
        });
        (old_flags, state.own_flags(), state.pnn())
    };
    if old_flags == new_flags {
        return;
    }
    pace.next_s = SOON_S;
    cx.ask(Ask::Data(DataAsk::Publish)).await;
    cx.tell(Tell::Notify(if healthy { "healthy" } else { "unhealthy" }));
    tracing::warn!(healthy, "health has changed; asking the leader to move addresses");
    let change = NodeFlagChange { pnn, new_flags, old_flags };
    cx.tell(Tell::Message {
        to: Destination::Node(pnn),
        srvid: Srvid::PUSH_NODE_FLAGS,
        data: change.to_bytes(),
    });
    cx.tell(Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::TAKEOVER_RUN,
        data: SrvidMessage { pnn: Some(pnn), srvid: Srvid(0) }.to_bytes(),
    });
}

#[cfg(test)]
mod tests;
