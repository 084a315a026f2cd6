//! The recovery daemon's decisions: who leads, when the cluster recovers, and how.
//!
//! Role: what C does in `ctdb_recoverd` and `ctdb_recovery_helper`, as sequences of the node's plane:
//! `leader` (broadcasts, timeout, elections), `main_loop` (the checks of every second), `recovery`
//! (with `collect` and `push`), `takeover`; `messages` answers the srvids it listens to.
//! Contract with the driver: [`start`] once the daemon has run event `setup`; received messages of the
//! srvids asked for with [`Ask::ListenSrvid`](super::Ask) go to `State::mailbox`, in the order of
//! their arrival and before the reply of a control that arrived later on the same connection;
//! [`lock_lost`] when the lock helper has ended by itself; [`stop`] when the daemon shuts down.
//! Invariants
//! - One main loop, one election, one recovery at a time.
//! - Nothing outlives [`stop`]; a recovery does not outlive this node's leadership.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6, 7; `ctdb/server/ctdb_recoverd.c`.

mod ask;
mod bans;
mod cluster_log;
mod collect;
mod database;
mod election;
mod flags;
mod leader;
mod main_loop;
pub mod merge;
mod messages;
mod push;
mod recovery;
mod state;
mod switches;
mod takeover;

use std::future::Future;

#[cfg(test)]
pub(in crate::node) use messages::SRVIDS;
pub use state::RecdState;

use ringmaster_protocol::Pnn;

use super::{NodeCx, world::Tell};

/// Starts everything; returns at once.
pub fn start(cx: &NodeCx) {
    let now = cx.now();
    {
        let mut state = cx.state_mut();
        let priority_time = state.wall_clock_at(now);
        let nodes_listed = state.nodes.len();
        state.recd = RecdState { priority_time, nodes_listed, ..RecdState::default() };
        state.leader = None;
    }
    spawn(cx, begin(cx.clone()));
}

/// Listens before it speaks.
async fn begin(cx: NodeCx) {
    messages::listen(&cx).await;
    spawn(&cx, messages::handle(cx.clone()));
    spawn(&cx, leader::watch(cx.clone()));
    spawn(&cx, leader::candidatures(cx.clone()));
    spawn(&cx, leader::election_timer(cx.clone()));
    spawn(&cx, leader::broadcasts(cx.clone()));
    spawn(&cx, cluster_log::run(cx.clone()));
    spawn(&cx, main_loop::run(cx.clone()));
}

/// Starts a sequence that ends with [`stop`].
fn spawn(cx: &NodeCx, sequence: impl Future<Output = ()> + 'static) {
    let own = cx.clone();
    cx.spawn(async move {
        ask::unless(&own, sequence, |state| state.recd.stopped).await;
    });
}

/// Ends everything at the next event and lets go of the cluster lock, or of the attempt to take it.
pub fn stop(cx: &NodeCx) {
    {
        let mut state = cx.state_mut();
        state.recd.stopped = true;
        state.lock_held = false;
    }
    cx.tell(Tell::ReleaseLock);
}

/// A node of our kind is dead. If it led, and all that are left are ours, nobody waits for the
/// leader timeout. As long as there is no leader every further death is a reason to try again: the
/// last attempt may have failed for it.
pub(super) fn lost_one_of_ours(cx: &NodeCx, pnn: Pnn) {
    {
        let mut state = cx.state_mut();
        let led = state.leader == Some(pnn);
        if state.recd.stopped || !state.all_are_ours() || !(led || state.leader.is_none()) {
            return;
        }
        if led {
            state.leader = None;
        }
        if !leader::can_lead(&state) {
            return;
        }
    }
    let own = cx.clone();
    spawn(cx, async move {
        // An attempt under way fails when it hears of this death.
        own.until(|state| !state.recd.calling_election).await;
        let nobody = own.state().leader.is_none();
        if nobody {
            leader::force_election(&own).await;
        }
    });
}

/// The cluster lock, taken with [`Ask::TakeLock`](super::Ask), is lost: its helper has ended. This
/// node leads no more from this moment on. (C's stays leader until the election, which nothing can
/// come between there; here its main loop could, and would ban a leader without the lock.)
pub fn lock_lost(cx: &NodeCx) {
    let able = {
        let mut state = cx.state_mut();
        let held = std::mem::replace(&mut state.lock_held, false);
        if !held || state.recd.stopped {
            return;
        }
        if leader::leads(&state) {
            state.leader = None;
        }
        leader::can_lead(&state)
    };
    tracing::warn!("Cluster lock helper terminated");
    if able {
        let own = cx.clone();
        spawn(cx, async move { leader::force_election(&own).await });
    }
}

#[cfg(test)]
mod tests;
