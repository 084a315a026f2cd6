//! Chain locks that the daemon waits for.

use ringmaster_dataplane::record::Ticket;

use crate::{
    mutation::Mutation,
    node::DB,
    sim::{Event, Sim},
};

impl Sim {
    pub(crate) fn wait(&mut self, node: usize, key: Vec<u8>, ticket: Ticket) {
        if self.is(Mutation::WaiterLost) {
            return;
        }
        self.nodes[node].waiting.push((key.clone(), ticket));
        self.grant_soon(node, key);
    }

    pub(crate) fn grant_soon(&mut self, node: usize, key: Vec<u8>) {
        let life = self.nodes[node].life;
        let delay = self.random.range(10, 400);
        self.after(delay, Event::Grant { node, life, key });
    }

    pub(crate) fn grant(&mut self, node: usize, life: u32, key: &[u8]) {
        let known = &mut self.nodes[node];
        if known.life != life || !known.alive || known.frozen {
            return;
        }
        let Some(place) = known.waiting.iter().position(|(of, _)| of == key) else { return };
        if known.store.memory.grant(DB, key) {
            let (_, ticket) = known.waiting.remove(place);
            self.with(node, |engine, cx| engine.chain_ready(cx, ticket));
        }
        if self.nodes[node].waiting.iter().any(|(of, _)| of == key) {
            self.grant_soon(node, key.to_vec());
        }
    }

    /// Somebody holds a chain.
    pub(crate) fn is_held(&self, node: usize, key: &[u8]) -> bool {
        self.nodes[node].store.memory.is_held(DB, key)
    }

    /// A process other than the daemon gives a chain back.
    pub(crate) fn let_go(&mut self, node: usize, key: &[u8]) {
        self.nodes[node].store.memory.let_go(DB, key);
    }
}
