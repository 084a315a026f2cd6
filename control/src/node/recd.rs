//! The recovery daemon's decisions: who leads, when the cluster recovers, and how.
//!
//! Role: what C does in `ctdb_recoverd` and `ctdb_recovery_helper`, as sequences of the node's plane:
//! `leader` (broadcasts, timeout, elections), `main_loop` (the checks of every second), `recovery`
//! (with `collect` and `push`), `takeover`; `messages` answers the srvids it listens to.
//! Contract with the driver: [`start`] once the daemon has run event `setup`; received messages of the
//! srvids asked for with [`Ask::ListenSrvid`](super::Ask) go to [`State::mailbox`], in the order of
//! their arrival and before the reply of a control that arrived later on the same connection;
//! [`lock_lost`] when the lock helper has ended by itself; [`stop`] when the daemon shuts down.
//! Invariants
//! - One main loop, one election, one recovery at a time.
//! - Nothing outlives [`stop`]; a recovery does not outlive this node's leadership.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6, 7; `ctdb/server/ctdb_recoverd.c`.

mod state;

pub use state::RecdState;

use super::NodeCx;

/// Starts everything; returns at once.
pub fn start(cx: &NodeCx) {
    cx.state_mut().recd.stopped = false;
}

/// Ends everything at the next event and lets go of the cluster lock.
pub fn stop(cx: &NodeCx) {
    cx.state_mut().recd.stopped = true;
}

/// The cluster lock, taken with [`Ask::TakeLock`](super::Ask), is lost: its helper has ended.
pub fn lock_lost(cx: &NodeCx) {
    cx.state_mut().lock_held = false;
}
