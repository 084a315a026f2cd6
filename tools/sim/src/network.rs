//! What travels between nodes: ordered per pair of nodes, as one TCP connection keeps it.

use std::collections::VecDeque;

use ringmaster_dataplane::record::{ControlToken, CopyUpdate, UpdateToken};
use ringmaster_protocol::{
    Decode, Destination, Generation, Packet,
    record::{RecBuffer, RecordFlags, RecordHeader},
};

use crate::{
    mutation::Mutation,
    node::DB,
    sim::{Event, Sim},
};

/// Messages under way on one link; more means that something multiplies.
const LINK_MAX: usize = 2_000;

/// An `UPDATE_RECORD` that calls a read-only copy back.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub(crate) token: ControlToken,
    /// Of its packet's header: the sender's map when it was sent.
    pub(crate) generation: Generation,
    pub(crate) payload: Vec<u8>,
}

/// What travels between nodes. Controls keep their order with packets: one connection carries both.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Packet(Vec<u8>),
    Update(Update),
    Updated { token: ControlToken, status: i32 },
    VacuumFetch { key: usize },
    TryDelete { key: usize, header: RecordHeader },
    TryDeleted { key: usize, header: RecordHeader, deleted: bool },
}

impl Sim {
    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.alive && b.alive && !a.cut && !b.cut
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message) {
        if !self.connected(from, to) {
            return;
        }
        if self.is(Mutation::StrangerBelieved) {
            self.repeat_later(from, to, &message);
        }
        let delay = match self.random.below(20) {
            0 => self.random.range(5_000, 80_000),
            1..=4 => self.random.range(1_000, 5_000),
            _ => self.random.range(50, 1_000),
        };
        let link = self.links.entry((from, to)).or_default();
        link.push_back(message);
        let len = link.len();
        self.check(len <= LINK_MAX, || format!("{len} messages from {from} to {to}"));
        self.after(delay, Event::Deliver { from, to });
    }

    pub(crate) fn repeat_later(&mut self, from: usize, to: usize, message: &Message) {
        let Message::Packet(bytes) = message else { return };
        let is_request = matches!(Packet::decode(bytes), Ok((_, Packet::ReqDmaster(_))));
        if is_request && self.random.chance(20) {
            self.links.entry((from, to)).or_default().push_back(message.clone());
            self.after(50_000, Event::Deliver { from, to });
        }
    }

    pub(crate) fn deliver(&mut self, from: usize, to: usize) {
        let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return; // lost with its connection
        };
        match message {
            Message::Packet(bytes) => self.packet(from, to, &bytes),
            Message::Update(update) => self.update(to, from, &update),
            Message::Updated { token, status } => {
                self.nodes[to].updates.retain(|(known, _)| *known != token);
                self.nodes[to].engine.control_done(token, status);
                self.carry_out(to);
            }
            Message::VacuumFetch { key } => self.vacuum_fetch(to, key),
            Message::TryDelete { key, header } => self.try_delete(from, to, key, header),
            Message::TryDeleted { key, header, deleted } => {
                self.try_deleted(from, to, key, header, deleted);
            }
        }
    }

    pub(crate) fn packet(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let Ok((mut header, packet)) = Packet::decode(bytes) else {
            return self.fail(format!("node {to} cannot decode a packet of node {from}"));
        };
        self.note(|| format!("{from} -> {to} {:?} {packet:?}", header.envelope));
        if self.is(Mutation::OldGenerationAccepted) {
            header.envelope.generation = self.nodes[to].engine.vnn_map().generation;
        }
        if let (true, Packet::ReqDmaster(request), Destination::Node(source)) =
            (self.is(Mutation::StrangerBelieved), &packet, header.envelope.source)
            && let Some((mut known, value)) = self.nodes[to].store.memory.get(DB, request.key)
        {
            let value = value.to_vec();
            known.dmaster = source.into();
            self.nodes[to].store.memory.put(DB, request.key, known, &value);
        }
        self.with(to, |engine, cx| engine.node_packet(cx, &header, &packet));
    }

    /// `UPDATE_RECORD` at the holder of a copy: refused by its plane, or its engine's.
    fn update(&mut self, node: usize, from: usize, update: &Update) {
        let Update { token, generation, .. } = *update;
        let known = &self.nodes[node];
        let stale = generation != known.engine.vnn_map().generation;
        if known.recovering || known.frozen || (stale && !self.is(Mutation::LateUpdateObeyed)) {
            return self.send(node, from, Message::Updated { token, status: -1 });
        }
        if self.is(Mutation::LateUpdateObeyed) || self.is(Mutation::UpdateOvertakesCopy) {
            let life = known.life;
            let delay = self.random.range(50, 500);
            let update = update.clone();
            return self.after(delay, Event::UpdateByWorker { node, life, from, update });
        }
        let Ok(buffer) = RecBuffer::from_bytes(&update.payload) else {
            return self.fail("an UPDATE_RECORD cannot be decoded".to_owned());
        };
        for record in &buffer {
            let Some((mut header, data)) = record.split_header() else { continue };
            if self.is(Mutation::CopyKeptAfterRevoke) {
                header.flags = header.flags | RecordFlags::RO_HAVE_READONLY;
            }
            let place = u64::try_from(from).expect("few nodes");
            let name = UpdateToken(token.0 * 1_000 + place);
            let copy = CopyUpdate { db: DB, generation, key: record.key, header, data };
            self.note(|| format!("{node} UPDATE_RECORD {copy:?}"));
            self.with(node, |engine, cx| engine.update_copy(cx, name, &copy));
        }
    }

    /// The engine has answered an update.
    pub(crate) fn updated(&mut self, node: usize, name: UpdateToken, status: i32) {
        let from = usize::try_from(name.0 % 1_000).expect("few nodes");
        let token = ControlToken(name.0 / 1_000);
        self.send(node, from, Message::Updated { token, status });
    }

    /// [`Mutation::UpdateOvertakesCopy`]: a thread of its own writes the record, whatever waits for
    /// its chain. [`Mutation::LateUpdateObeyed`]: as in C, whatever it meets.
    pub(crate) fn update_by_worker(&mut self, node: usize, from: usize, update: Update) {
        let token = update.token;
        let Ok(buffer) = RecBuffer::from_bytes(&update.payload) else { return };
        let mut status = 0;
        for record in &buffer {
            let Some((header, data)) = record.split_header() else { continue };
            let key = record.key.to_vec();
            if !self.nodes[node].store.memory.hold(DB, &key) {
                let delay = self.random.range(50, 500);
                let life = self.nodes[node].life;
                return self.after(delay, Event::UpdateByWorker { node, life, from, update });
            }
            let store = &mut self.nodes[node].store;
            if let Some((known, value)) = store.memory.get(DB, &key)
                && (known.flags.intersects(RecordFlags::RO_HAVE_READONLY)
                    || self.options.mutation == Some(Mutation::LateUpdateObeyed))
            {
                if known.rsn >= header.rsn && value != data {
                    status = 1;
                } else {
                    store.memory.put(DB, &key, header, data);
                    store.changed = true;
                }
            }
            self.let_go(node, &key);
        }
        self.send(node, from, Message::Updated { token, status });
    }

    /// Everything under way between two nodes is lost.
    pub(crate) fn lose(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(link) = self.links.get_mut(&(from, to)) {
                link.clear();
            }
            let node = &mut self.nodes[from];
            let failed: Vec<_> =
                node.updates.iter().filter(|update| update.1 == to).copied().collect();
            node.updates.retain(|update| update.1 != to);
            node.deletions.retain(|_, deletion| !deletion.left.contains(&to));
            if node.alive {
                for (token, _) in failed {
                    node.engine.control_done(token, -1);
                }
                self.carry_out(from);
            }
        }
    }
}
