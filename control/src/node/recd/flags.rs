//! Node flags, as the leader spreads them.
//!
//! Invariant: a node's own word about itself is the truth; DISCONNECTED is nobody's but the
//! observer's (the receiver of MODIFY_FLAGS keeps its own).
//! Origin: `docs/spec/cluster-semantics.md` 1.8, 6.6 step 16; `ctdb_recoverd.c: update_flags`.

use std::collections::BTreeMap;

use ringmaster_protocol::{
    Pnn,
    control::kinds,
    node::{NodeFlagChange, NodeFlags, NodeMap},
};

use super::ask::{Failed, multi};
use crate::node::NodeCx;

/// What has to be pushed: nodes of `own` with the flags that all should see. `others` are the maps
/// of all other connected nodes.
pub(super) fn differences(
    own: &NodeMap,
    this: Pnn,
    others: &BTreeMap<Pnn, NodeMap>,
) -> Vec<NodeFlagChange> {
    let mut changes = Vec::new();
    for node in &own.0 {
        if node.flags.intersects(NodeFlags::DISCONNECTED) {
            continue;
        }
        let says = |by: &NodeMap| by.find(node.pnn).map(|entry| entry.flags);
        let own_word = others.get(&node.pnn).filter(|_| node.pnn != this).and_then(says);
        let flags = own_word.unwrap_or(node.flags);
        let disagrees = others.values().any(|map| says(map).is_some_and(|seen| seen != flags));
        if flags != node.flags || disagrees {
            changes.push(NodeFlagChange { pnn: node.pnn, new_flags: flags, old_flags: node.flags });
        }
    }
    changes
}

/// Pushes one node's flags to all connected nodes.
pub(super) async fn push(cx: &NodeCx, change: NodeFlagChange) -> Result<(), Failed> {
    let connected = cx.state().connected();
    multi::<kinds::ModifyFlags>(cx, &connected, &change).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use ringmaster_protocol::{SockAddr, node::NodeAndFlags};

    use super::*;

    fn node(pnn: u32) -> Pnn {
        Pnn::new(pnn).unwrap()
    }

    fn map(flags: [NodeFlags; 3]) -> NodeMap {
        let addr = SockAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4379);
        let entries = flags.into_iter().zip(0..);
        NodeMap(entries.map(|(flags, pnn)| NodeAndFlags { pnn: node(pnn), flags, addr }).collect())
    }

    const OK: NodeFlags = NodeFlags::NONE;

    #[test]
    fn agreement_pushes_nothing() {
        let all = map([OK, OK, OK]);
        let others = BTreeMap::from([(node(1), all.clone()), (node(2), all.clone())]);
        assert_eq!(differences(&all, node(0), &others), []);
    }

    #[test]
    fn a_nodes_own_word_is_adopted_and_pushed() {
        let own = map([OK, OK, OK]);
        let others = BTreeMap::from([
            (node(1), map([OK, NodeFlags::STOPPED, OK])),
            (node(2), map([OK, OK, OK])),
        ]);
        let change = NodeFlagChange { pnn: node(1), new_flags: NodeFlags::STOPPED, old_flags: OK };
        assert_eq!(differences(&own, node(0), &others), [change]);
    }

    #[test]
    fn a_third_nodes_wrong_opinion_is_corrected() {
        let own = map([OK, OK, OK]);
        let others = BTreeMap::from([
            (node(1), own.clone()),
            (node(2), map([NodeFlags::UNHEALTHY, OK, OK])),
        ]);
        let change = NodeFlagChange { pnn: node(0), new_flags: OK, old_flags: OK };
        assert_eq!(differences(&own, node(0), &others), [change]);
    }

    #[test]
    fn a_disconnected_node_is_nobodys_business() {
        let own = map([OK, NodeFlags::DISCONNECTED, OK]);
        let others = BTreeMap::from([(node(2), map([OK, OK, OK]))]);
        assert_eq!(differences(&own, node(0), &others), []);
    }
}
