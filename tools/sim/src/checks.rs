//! Promises that are checked at every step, and when everything has come to rest.

use ringmaster_protocol::Generation;

use crate::{
    actor::Actor,
    node::{DB, pnn},
    sim::Sim,
};

impl Sim {
    /// At most one node of a generation is the dmaster of a record.
    pub(crate) fn check_dmasters(&mut self) {
        if !self.nodes.iter().any(|node| node.store.changed) {
            return;
        }
        for node in &mut self.nodes {
            node.store.changed = false;
        }
        for key in 0..self.keys.len() {
            let mut owners: Vec<(usize, Generation)> = Vec::new();
            for (number, node) in self.nodes.iter().enumerate() {
                let owns = node.alive
                    && !node.frozen
                    && node
                        .store
                        .memory
                        .get(DB, &self.keys[key])
                        .is_some_and(|(header, _)| header.dmaster.is(pnn(number)));
                if owns {
                    owners.push((number, node.generation));
                }
            }
            let twice = owners
                .iter()
                .enumerate()
                .any(|(place, owner)| owners[..place].iter().any(|other| other.1 == owner.1));
            self.check(!twice, || format!("dmasters of key {key}: {owners:?}"));
            self.follow(key);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.faults_left == 0
            && self.healing == 0
            && self.recovery.is_none()
            && self.actors.iter().all(Actor::is_done)
            && self.nodes.iter().all(|node| node.engine.backlog() == 0 && node.updates.is_empty())
            && self.waiters.is_empty()
            && self.nodes.iter().all(|node| node.engine.counters().pending_calls == 0)
    }

    pub(crate) fn what_hangs(&self) -> String {
        let clients: Vec<String> = self
            .actors
            .iter()
            .filter(|actor| !actor.is_done())
            .map(|actor| {
                format!("client {} on node {}: {:?}", actor.client.0, actor.node, actor.state)
            })
            .collect();
        let backlogs: Vec<usize> = self.nodes.iter().map(|node| node.engine.backlog()).collect();
        format!(
            "it does not come to an end: {} (recovery: {:?}, put aside: {backlogs:?}, requests: {:?})",
            clients.join("; "),
            self.recovery,
            self.waiters
        )
    }

    /// With everything at rest: every record that should be there is at its dmaster.
    pub(crate) fn check_rest(&mut self) {
        for key in 0..self.keys.len() {
            let found: Vec<Vec<u8>> = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(number, node)| {
                    let (header, value) = node.store.memory.get(DB, &self.keys[key])?;
                    (node.alive && header.dmaster.is(pnn(number))).then(|| value.to_vec())
                })
                .collect();
            let wanted = self.truths[key].value().to_vec();
            // A record that is on its way for a client that has gone is at no node's for a moment.
            let right = match &found[..] {
                [] => true,
                [value] => *value == wanted,
                _ => false,
            };
            self.check(right, || format!("key {key}: found {found:?}, not {wanted:?}"));
        }
    }
}
