//! The recovery mode and what a recovery tells every node: map, begin, end.
//!
//! Origin: `docs/spec/cluster-semantics.md` 7.2, 7.3, 7.9; `ctdb/server/ctdb_recover.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    Generation, Pnn, Srvid,
    control::{ControlOpcode, ControlRequest},
    control_packet::ControlFlags,
    database::VnnMap,
    node::NodeFlags,
    process::{RecMode, RunState},
    text::Text,
    tunable::Tunable,
};

use super::{
    addresses::release_all_if_recovery_lasts,
    answer::{Call, done, error, publish, refused, status, success},
    statistics::add_latency,
};
use crate::node::{
    Ask, NodeCx, Outcome, State, events,
    freeze::{freeze_all, thaw_all},
    lifecycle,
    state::FreezeState,
    world::{ControlAnswer, LockResult, OutgoingControl},
};

/// The lock test at the end of a recovery gives up after this long, in seconds.
const TEST_LOCK_S: u32 = 5;

/// From leaving a recovery, how long clients' commits wait for the word that the other nodes have left
/// it too, in seconds: twice what their lock test may take. They begin without it then.
const OTHERS_LEAVE_S: u32 = 10;

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::SetVnnMap(map) => set_vnn_map(cx, map).await,
        ControlRequest::SetRecMode(mode) => set_recovery_mode(cx, mode).await,
        ControlRequest::StartRecovery => start_recovery(cx, call).await,
        ControlRequest::EndRecovery => end_recovery(cx).await,
        ControlRequest::Freeze => success(freeze_all(cx).await),
        other => return ControlFlow::Continue(other),
    })
}

async fn set_vnn_map(cx: &NodeCx, map: VnnMap) -> ControlAnswer {
    // An inactive node's calls stay void, whoever thinks that it takes part in his recovery. (C
    // takes the map: its stopped node then works on in the new generation.)
    if cx.state().recovery_mode != RecMode::Active || cx.state().is_inactive() {
        return refused();
    }
    cx.state_mut().set_vnn_map(map);
    publish(cx).await;
    done()
}

async fn set_recovery_mode(cx: &NodeCx, mode: RecMode) -> ControlAnswer {
    if cx.state().recovery_mode == mode {
        return done();
    }
    match mode {
        RecMode::Active => {
            cx.state_mut().recovery_mode = RecMode::Active;
            release_all_if_recovery_lasts(cx);
            publish(cx).await;
            done()
        }
        RecMode::Normal => leave_recovery(cx).await,
    }
}

async fn leave_recovery(cx: &NodeCx) -> ControlAnswer {
    if let Some((db, generation)) = stale_database(&cx.state()) {
        tracing::error!(db, ?generation, "stays in recovery: the database has another generation");
        return refused();
    }
    let generation = cx.state().vnn_map.generation;
    if generation == Generation::INVALID {
        tracing::error!("stays in recovery: the node has become inactive since it began");
        return refused();
    }
    if cx.state().frozen_all == FreezeState::Frozen {
        thaw_all(cx).await;
    }
    if cx.state().constants.cluster_lock.is_some() {
        match cx.ask(Ask::TestLock { timeout_s: TEST_LOCK_S }).await {
            // The leader holds it, as it must.
            Outcome::Lock(LockResult::Contention(seconds)) => {
                add_latency(&mut cx.state_mut().counters.reclock_ctdbd, seconds);
            }
            Outcome::Lock(LockResult::TimedOut) => {}
            Outcome::Lock(LockResult::Taken(_)) => {
                return error(
                    -1,
                    "Took recovery lock from daemon during recovery - \
                     probably a cluster filesystem lock coherence problem",
                );
            }
            _ => return error(-1, "Unexpected error when testing recovery lock"),
        }
    }
    {
        let mut state = cx.state_mut();
        if state.vnn_map.generation != generation {
            // Stopped, banned or in the next recovery while the lock was tested. C leaves the
            // recovery all the same.
            return refused();
        }
        state.recovery_mode = RecMode::Normal;
        state.recoveries_left += 1;
        state.left_in = Some(generation);
        state.others_leave_until = Some(cx.now().plus_seconds(OTHERS_LEAVE_S));
    }
    publish(cx).await;
    done()
}

fn stale_database(state: &State) -> Option<(String, Generation)> {
    let generation = state.vnn_map.generation;
    let stale = state.databases.iter().find(|db| db.generation != generation);
    stale.map(|db| (db.name.clone(), db.generation))
}

async fn start_recovery(cx: &NodeCx, call: &Call) -> ControlAnswer {
    let (leader, asks) = {
        let mut state = cx.state_mut();
        state.recovery_started = state.wall_clock_at(cx.now());
        let leader = call.node(&state);
        let flags = state.flags_of(leader).unwrap_or(NodeFlags::DISCONNECTED);
        (leader, leader != state.pnn() && !flags.intersects(NodeFlags::DISCONNECTED))
    };
    if asks && let Err(answer) = compare_cluster_lock(cx, leader).await {
        return answer;
    }
    publish(cx).await;
    status(events::status(events::run(cx, "startrecovery").await))
}

/// A node with another cluster lock than the leader must not take part: two leaders would be
/// possible. It shuts down.
async fn compare_cluster_lock(cx: &NodeCx, leader: Pnn) -> Result<(), ControlAnswer> {
    let timeout_s = cx.state().tunable(Tunable::ControlTimeout);
    let question = OutgoingControl {
        to: leader,
        opcode: ControlOpcode::GET_RECLOCK_FILE,
        srvid: Srvid(0),
        flags: ControlFlags::NONE,
        client: None,
        data: Vec::new(),
        timeout_s,
    };
    let theirs = match cx.ask(Ask::Control(question)).await {
        Outcome::Reply(Ok(answer)) if answer.status == 0 => answer.data,
        Outcome::Reply(Ok(answer)) => return Err(status(answer.status)),
        _ => return Err(refused()),
    };
    let theirs = (!theirs.is_empty()).then(|| Text::new(&theirs).as_bytes().to_vec());
    let ours = cx.state().constants.cluster_lock.clone();
    if theirs == ours.map(String::into_bytes) {
        return Ok(());
    }
    tracing::error!(%leader, "the leader has another cluster lock; shutting down");
    lifecycle::shutdown(cx, 1);
    Err(refused())
}

async fn end_recovery(cx: &NodeCx) -> ControlAnswer {
    {
        let mut state = cx.state_mut();
        state.others_leave_until = None;
        if state.recovery_mode == RecMode::Normal {
            let recovery = state.recoveries_left;
            let open = state.databases.iter_mut().filter_map(|db| db.commit.as_mut());
            // One that has begun since this node left the recovery goes on: another node that had
            // not left it yet may have refused its part. (C ends it too, and its client takes what
            // is in force here for what is in force everywhere.)
            for commit in open.filter(|commit| commit.recovery != recovery) {
                commit.ended = true;
            }
        }
    }
    let result = events::run(cx, "recovered").await;
    if result == crate::node::world::ScriptResult::NotRun {
        return refused();
    }
    {
        let mut state = cx.state_mut();
        state.counters.num_recoveries += 1;
        state.recovery_finished = state.wall_clock_at(cx.now());
        state.recovery_finished_at = cx.now();
        if state.run_state == RunState::FirstRecovery {
            state.enter(RunState::Startup);
        }
    }
    publish(cx).await;
    status(events::status(result))
}
