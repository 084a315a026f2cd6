//! The leader's word in the log about nodes that are away.
//!
//! Role: without a cluster lock nobody else notices that half a cluster is a cluster of its own.
//! Origin: `docs/spec/cluster-semantics.md` 6.12; `ctdb_recoverd.c`.

use ringmaster_protocol::node::NodeFlags;
use tracing::warn;

use super::leader::leads;
use crate::node::{NodeCx, State};

/// Between two looks, in milliseconds: the minutes that the log speaks of.
const LOOK_MS: u64 = 60_000;

/// Looks for ever.
pub(super) async fn run(cx: NodeCx) {
    let mut minutes = None;
    loop {
        cx.sleep(LOOK_MS).await;
        minutes = look(&cx.state(), minutes);
    }
}

/// One look: for how many minutes the cluster has been incomplete, `None` while it is complete or
/// somebody else's business.
fn look(state: &State, minutes: Option<u32>) -> Option<u32> {
    if !leads(state) || state.constants.cluster_lock.is_some() {
        return None;
    }
    let leader = state.pnn();
    let connected = state.connected().len();
    if connected == state.nodes_without(NodeFlags::DELETED).len() {
        if minutes.is_some() {
            warn!("Cluster complete with leader={leader}");
        }
        return None;
    }
    let elapsed = minutes.map_or(0, |minutes| minutes.saturating_add(1));
    if is_worth_a_line(elapsed) {
        warn!(
            "Cluster incomplete with leader={leader}, elapsed={elapsed} minutes, \
             connected={connected}"
        );
    }
    Some(elapsed)
}

/// Each minute for ten, every ten minutes for an hour, then once an hour.
const fn is_worth_a_line(elapsed: u32) -> bool {
    elapsed <= 10 || (elapsed <= 60 && elapsed.is_multiple_of(10)) || elapsed.is_multiple_of(60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_not_filled() {
        let lines: Vec<u32> = (0..=240).filter(|elapsed| is_worth_a_line(*elapsed)).collect();
        let rest = [20, 30, 40, 50, 60, 120, 180, 240];
        assert_eq!(lines, (0..=10).chain(rest).collect::<Vec<u32>>());
    }
}
