//! What the driver sees of other nodes, and what the record protocol asks for.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.6, 7.10.

use ringmaster_protocol::{Pnn, node::NodeFlags, process::RecMode};

use super::answer::publish_soon;
use crate::node::NodeCx;

/// Both connections to a node stand.
pub fn node_connected(cx: &NodeCx, pnn: Pnn) {
    change_flags(cx, pnn, |flags| flags.without(NodeFlags::DISCONNECTED));
}

/// A node is dead: its connections have broken, or it is silent.
pub fn node_gone(cx: &NodeCx, pnn: Pnn) {
    let lost = NodeFlags::DISCONNECTED | NodeFlags::UNHEALTHY;
    change_flags(cx, pnn, |flags| flags.with(lost));
}

fn change_flags(cx: &NodeCx, pnn: Pnn, change: impl Fn(NodeFlags) -> NodeFlags) {
    let changed = {
        let mut state = cx.state_mut();
        let node = state.nodes.iter_mut().find(|node| node.pnn == pnn);
        node.is_some_and(|node| {
            let flags = change(node.flags);
            std::mem::replace(&mut node.flags, flags) != flags
        })
    };
    if changed {
        publish_soon(cx);
    }
}

/// Something has happened that only a recovery repairs; the leader notices.
pub fn force_recovery(cx: &NodeCx) {
    let was = std::mem::replace(&mut cx.state_mut().recovery_mode, RecMode::Active);
    if was != RecMode::Active {
        publish_soon(cx);
    }
}
