//! Health: the monitor event and what its result changes.
//!
//! Origin: `docs/spec/cluster-semantics.md` 8.

use super::NodeCx;

/// Starts the monitor loop; returns at once.
pub fn start(_cx: &NodeCx) {}
