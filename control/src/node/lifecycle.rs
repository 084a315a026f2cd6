//! A node's life: run states from the first event to the exit.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.1, 1.2, 1.10.

use super::{NodeCx, Tell};

/// Starts the node; returns at once.
pub fn start(_cx: &NodeCx) {}

/// Stops the node in order and leaves with `status`; returns at once.
pub fn shutdown(cx: &NodeCx, status: i32) {
    cx.tell(Tell::Exit(status));
}
