//! Several engines with a network between them that keeps order per pair of nodes, as TCP does.

mod calls;
mod hops;
mod increments;
mod lease;
mod readonly;
mod recovery;
mod vacuum;

use std::collections::{BTreeMap, VecDeque};

use ringmaster_protocol::{
    DbId, Decode, Destination, Generation, Packet, PacketStyle, Pnn, Reqid, Rsn,
    call::{CallFlags, CallId, ReqCall},
    database::{DbFlags, VnnMap},
    header::Envelope,
    record::{Dmaster, RecBuffer, RecordFlags, RecordHeader},
};

use super::{
    ClientId, Context, ControlToken, CopyUpdate, LockOutcome, MemoryStore, Micros, NodeEnvelope,
    Output, RecordEngine, RecordStore, Ticket, UpdateToken,
};

const DB: DbId = DbId(0x1234_5678);
const CLIENT: ClientId = ClientId(7);

fn pnn(number: usize) -> Pnn {
    Pnn::new(u32::try_from(number).unwrap()).unwrap()
}

/// What an engine asked for.
#[derive(Default)]
struct Recorder {
    replies: Vec<(ClientId, Reqid, i32, Vec<u8>)>,
    packets: Vec<(Pnn, Vec<u8>)>,
    waits: Vec<(Vec<u8>, Ticket)>,
    updates: Vec<(Pnn, ControlToken, Vec<u8>)>,
    updated: Vec<(UpdateToken, i32)>,
    high_hop_counts: Vec<u32>,
    recoveries: Vec<&'static str>,
}

/// What travels from one node to another.
#[derive(Clone, Debug)]
enum Sent {
    Packet(Vec<u8>),
    /// A control that calls a copy back, with the generation of the sender's map.
    Update {
        token: ControlToken,
        generation: Generation,
        payload: Vec<u8>,
    },
    Updated {
        token: ControlToken,
        status: i32,
    },
}

impl Output for Recorder {
    fn reply_client(&mut self, client: ClientId, reqid: Reqid, status: i32, data: &[u8]) {
        self.replies.push((client, reqid, status, data.to_vec()));
    }
    fn send_node(&mut self, to: Pnn, envelope: NodeEnvelope, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        let envelope = Envelope {
            generation: envelope.generation,
            destination: Destination::Node(to),
            source: Destination::Node(envelope.source),
            reqid: envelope.reqid,
        };
        packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
        self.packets.push((to, bytes));
    }
    fn wait_for_chain(&mut self, _: DbId, key: &[u8], ticket: Ticket) {
        self.waits.push((key.to_vec(), ticket));
    }
    fn update_record(&mut self, to: Pnn, token: ControlToken, payload: &[u8]) {
        self.updates.push((to, token, payload.to_vec()));
    }
    fn updated(&mut self, token: UpdateToken, status: i32) {
        self.updated.push((token, status));
    }
    fn high_hop_count(&mut self, _: DbId, _: &[u8], hopcount: u32) {
        self.high_hop_counts.push(hopcount);
    }
    fn force_recovery(&mut self, reason: &'static str) {
        self.recoveries.push(reason);
    }
}

struct Node {
    engine: RecordEngine,
    store: MemoryStore,
    out: Recorder,
}

struct Cluster {
    now: Micros,
    nodes: Vec<Node>,
    /// What is under way, by pair of nodes.
    network: BTreeMap<(usize, usize), VecDeque<Sent>>,
    /// Updates that nodes are working on: who asked, and by what name.
    updates: Vec<(UpdateToken, usize, ControlToken)>,
    generation: Generation,
}

impl Cluster {
    fn new(count: usize, flags: DbFlags) -> Self {
        let mut cluster = Self {
            now: Micros(0),
            nodes: (0..count)
                .map(|number| Node {
                    engine: RecordEngine::new(pnn(number), 0),
                    store: MemoryStore::new(),
                    out: Recorder::default(),
                })
                .collect(),
            network: BTreeMap::new(),
            updates: Vec::new(),
            generation: Generation(100),
        };
        for node in &mut cluster.nodes {
            node.engine.attach(DB, flags);
        }
        cluster.new_generation(Generation(100));
        cluster
    }

    fn new_generation(&mut self, generation: Generation) {
        self.generation = generation;
        let map = (0..self.nodes.len()).map(pnn).collect::<Vec<_>>();
        for node in &mut self.nodes {
            node.engine.set_vnn_map(VnnMap { generation, map: map.clone() });
            node.engine.set_generation(DB, generation);
        }
    }

    fn with<R>(
        &mut self,
        node: usize,
        f: impl FnOnce(&mut RecordEngine, &mut Context<'_, MemoryStore, Recorder>) -> R,
    ) -> R {
        let Node { engine, store, out } = &mut self.nodes[node];
        let mut cx = Context { now: self.now, store, out };
        let result = f(engine, &mut cx);
        for (to, bytes) in out.packets.drain(..) {
            let to = usize::try_from(to.get()).unwrap();
            assert_ne!(to, node, "a packet to oneself does not leave the engine");
            self.network.entry((node, to)).or_default().push_back(Sent::Packet(bytes));
        }
        for (token, status) in std::mem::take(&mut self.nodes[node].out.updated) {
            let place = self.updates.iter().position(|update| update.0 == token);
            let (_, from, token) = self.updates.remove(place.expect("an update under way"));
            self.send(node, from, Sent::Updated { token, status });
        }
        result
    }

    fn send(&mut self, from: usize, to: usize, sent: Sent) {
        self.network.entry((from, to)).or_default().push_back(sent);
    }

    fn call(&mut self, node: usize, reqid: u32, flags: CallFlags, callid: CallId, key: &[u8]) {
        let call = ReqCall { flags, db: DB, callid, hopcount: 0, key, calldata: b"" };
        self.with(node, |engine, cx| engine.client_call(cx, CLIENT, Reqid(reqid), &call));
    }

    fn migrate(&mut self, node: usize, reqid: u32, key: &[u8]) {
        self.call(node, reqid, CallFlags::IMMEDIATE_MIGRATION, CallId::NULL, key);
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(sent) = self.network.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        match sent {
            Sent::Packet(bytes) => {
                let (header, packet) = Packet::decode(&bytes).expect("our own packets decode");
                self.with(to, |engine, cx| engine.node_packet(cx, &header, &packet));
            }
            Sent::Update { token, generation, payload } => {
                self.update(from, to, token, generation, &payload);
            }
            Sent::Updated { token, status } => self.nodes[to].engine.control_done(token, status),
        }
        true
    }

    fn turn(&mut self, node: usize) {
        self.with(node, RecordEngine::turn);
        self.send_updates(node);
    }

    /// Sends the updates that a node's engine wants sent.
    fn send_updates(&mut self, node: usize) {
        let generation = self.nodes[node].engine.vnn_map().generation;
        for (to, token, payload) in std::mem::take(&mut self.nodes[node].out.updates) {
            let to = usize::try_from(to.get()).unwrap();
            self.send(node, to, Sent::Update { token, generation, payload });
        }
    }

    fn update(
        &mut self,
        from: usize,
        to: usize,
        control: ControlToken,
        generation: Generation,
        payload: &[u8],
    ) {
        let buffer = RecBuffer::from_bytes(payload).expect("our own buffer");
        let records: Vec<_> = buffer.iter().collect();
        let [record] = &records[..] else { panic!("a revoke is about one record") };
        let (header, data) = record.split_header().expect("a header");
        let update = CopyUpdate { db: DB, generation, key: record.key, header, data };
        let token = UpdateToken(control.0 * 100 + from as u64);
        self.updates.push((token, from, control));
        self.with(to, |engine, cx| engine.update_copy(cx, token, &update));
    }

    /// Delivers and processes until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = false;
            for (from, to) in self.network.keys().copied().collect::<Vec<_>>() {
                moved |= self.deliver(from, to);
            }
            for node in 0..self.nodes.len() {
                while self.nodes[node].engine.next_deadline().is_some_and(|at| at <= self.now) {
                    self.turn(node);
                    moved = true;
                }
                moved |= !self.nodes[node].out.updates.is_empty();
                self.send_updates(node);
            }
            if !moved {
                for node in &self.nodes {
                    assert!(node.store.is_unlocked(), "every chain has been given back");
                }
                return;
            }
        }
        panic!("the cluster does not settle");
    }

    fn replies(&mut self, node: usize) -> Vec<(u32, i32, Vec<u8>)> {
        let replies = std::mem::take(&mut self.nodes[node].out.replies);
        replies.into_iter().map(|(_, reqid, status, data)| (reqid.0, status, data)).collect()
    }

    fn record(&self, node: usize, key: &[u8]) -> Option<(u64, u32, u32, Vec<u8>)> {
        let (header, value) = self.nodes[node].store.get(DB, key)?;
        Some((header.rsn.0, header.dmaster.raw(), header.flags.0, value.to_vec()))
    }

    /// What smbd does under the chain lock: the value changes, the header stays.
    fn write(&mut self, node: usize, key: &[u8], value: &[u8]) -> bool {
        let store = &mut self.nodes[node].store;
        let Some((header, _)) = store.get(DB, key) else { return false };
        let mine = header.dmaster.is(pnn(node));
        if !mine || header.flags.intersects(RecordFlags::RO_HAVE_DELEGATIONS) {
            return false;
        }
        store.put(DB, key, header, value);
        true
    }
}

/// A key whose lmaster is the given node of `count`.
fn key_of(lmaster: usize, count: u32) -> Vec<u8> {
    (0_u32..)
        .map(|number| format!("key-{number}").into_bytes())
        .find(|key| {
            ringmaster_protocol::hash::jenkins(key) % count == u32::try_from(lmaster).unwrap()
        })
        .expect("keys of every lmaster exist")
}

const MIGRATED: u32 = RecordFlags::MIGRATED_WITH_DATA.0;
const DELEGATED: u32 = RecordFlags::RO_HAVE_DELEGATIONS.0 | MIGRATED;
