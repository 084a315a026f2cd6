//! Ban credits: reports about nodes that spoil recoveries, and what follows from them.
//!
//! Invariant: at most one entry per node of the list.
//! Origin: `docs/spec/cluster-semantics.md` 6.9; `ctdb/server/ctdb_recoverd.c`.

use std::collections::BTreeMap;

use ringmaster_protocol::{Pnn, control::kinds, node::BanState, tunable::Tunable};
use tracing::warn;

use super::ask::control;
use crate::{node::NodeCx, plane::Millis};

/// Reports by node: how many, and when the last came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Credits(BTreeMap<Pnn, (u32, Millis)>);

impl Credits {
    /// Adds reports; those of before a quiet period of `grace_s` seconds are forgotten.
    pub(super) fn add(&mut self, node: Pnn, count: u32, now: Millis, grace_s: u32) {
        let (credits, last) = self.0.entry(node).or_insert((0, now));
        if last.plus_seconds(grace_s) < now {
            *credits = 0;
        }
        *credits = credits.saturating_add(count);
        *last = now;
    }

    /// Takes those nodes out that have reached the threshold for this size of the nodes list.
    pub(super) fn take_excessive(&mut self, node_count: usize) -> Vec<Pnn> {
        let threshold = u32::try_from(2 * node_count).unwrap_or(u32::MAX);
        let excessive = self.0.iter_mut().filter(|(_, (credits, _))| *credits >= threshold);
        excessive
            .map(|(node, (credits, _))| {
                *credits = 0;
                *node
            })
            .collect()
    }

    /// Forgets everything: after a good recovery.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Reports a node. Ignored for one that is not in the list and while this node is inactive.
pub(super) fn report(cx: &NodeCx, node: Pnn, count: u32) {
    let now = cx.now();
    let mut state = cx.state_mut();
    if state.flags_of(node).is_none() || state.is_inactive() {
        return;
    }
    let grace_s = state.tunables.value(Tunable::RecoveryGracePeriod);
    state.recd.credits.add(node, count, now, grace_s);
}

/// Bans the nodes that have been reported too often; says whether this node was among them.
pub(super) async fn ban_misbehaving(cx: &NodeCx) -> bool {
    let (nodes, own, seconds) = {
        let mut state = cx.state_mut();
        let count = state.nodes.len();
        let nodes = state.recd.credits.take_excessive(count);
        (nodes, state.pnn(), state.tunables.value(Tunable::RecoveryBanPeriod))
    };
    let mut self_banned = false;
    for node in nodes {
        warn!("Node {node} reached the limit of ban credits - banning it for {seconds} seconds");
        ban(cx, node, seconds).await;
        self_banned |= node == own;
    }
    self_banned
}

/// Bans a node; a failure is for the log.
pub(super) async fn ban(cx: &NodeCx, node: Pnn, seconds: u32) {
    let state = BanState { pnn: node, seconds };
    if let Err(failed) = control::<kinds::SetBanState>(cx, node, &state).await {
        warn!("Failed to ban node {node}: {failed}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(pnn: u32) -> Pnn {
        Pnn::new(pnn).unwrap()
    }

    #[test]
    fn twice_the_number_of_nodes_is_too_much() {
        let mut credits = Credits::default();
        for _ in 0..5 {
            credits.add(node(1), 1, Millis(0), 120);
        }
        assert_eq!(credits.take_excessive(3), []);
        credits.add(node(1), 1, Millis(0), 120);
        assert_eq!(credits.take_excessive(3), [node(1)]);
        assert_eq!(credits.take_excessive(3), [], "the count begins again");
    }

    #[test]
    fn reports_of_before_a_quiet_period_are_forgotten() {
        let mut credits = Credits::default();
        credits.add(node(0), 5, Millis(0), 120);
        credits.add(node(0), 1, Millis(120_001), 120);
        assert_eq!(credits.take_excessive(3), []);
        credits.add(node(0), 5, Millis(240_001), 120);
        assert_eq!(credits.take_excessive(3), [node(0)]);
    }
}
