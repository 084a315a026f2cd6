//! Fairness: who asks for a record gets it before somebody else has had it again and again.
//!
//! A node waits from the moment when one of its clients asks the cluster for a record until the
//! record arrives there. Each arrival at another node meanwhile passes it over. A call may chase the
//! record for a hop or two; then it stands in the queue of whoever has it, and is served in order.
//!
//! Not with read-only copies: as in C, who wants a copy is held back for a second after a revoke, and
//! the callers behind it on its node with it.

use std::collections::BTreeMap;

use crate::{
    node::{DB, pnn},
    sim::Sim,
};

/// Arrivals at one other node while a node waits, per node of the cluster, when every message takes
/// about as long as any other: while a call chases the record, nobody is far ahead of it. (A message
/// that takes a hundred times as long as the others may be passed by any number of arrivals.)
const PASSED_OVER_MAX: usize = 2;

/// One record's way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Travels {
    at: Option<usize>,
    /// Nodes that wait, and how often the record has arrived at each other one since.
    waiting: BTreeMap<usize, BTreeMap<usize, u32>>,
}

impl Sim {
    /// A client of `node` asks the cluster for a record.
    pub(crate) fn waits_for(&mut self, node: usize, key: usize) {
        let travels = &mut self.travels[key];
        if !self.options.readonly && travels.at != Some(node) {
            travels.waiting.entry(node).or_default();
        }
    }

    /// Nobody waits any more: a recovery has changed everything.
    pub(crate) fn forget_waits(&mut self) {
        for travels in &mut self.travels {
            travels.waiting.clear();
        }
    }

    /// Follows the records after a change.
    pub(crate) fn follow(&mut self, key: usize) {
        let name = &self.keys[key];
        let here = |node: &usize| {
            let record = self.nodes[*node].store.memory.get(DB, name);
            record.is_some_and(|(header, _)| header.dmaster.is(pnn(*node)))
        };
        let Some(node) = (0..self.nodes.len()).find(here) else { return };
        let travels = &mut self.travels[key];
        if travels.at.replace(node) == Some(node) {
            return;
        }
        travels.waiting.remove(&node);
        self.summary.travels += 1;
        let mut most = 0;
        for passed in travels.waiting.values_mut() {
            let count = passed.entry(node).or_default();
            *count += 1;
            most = most.max(*count);
        }
        self.summary.passed_over = self.summary.passed_over.max(most);
        let limit = if self.options.calm { PASSED_OVER_MAX * self.nodes.len() } else { usize::MAX };
        self.check(usize::try_from(most).is_ok_and(|most| most <= limit), || {
            format!("key {key} has come to node {node} {most} times while another waits")
        });
    }
}
