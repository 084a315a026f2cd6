//! Several engines with a network between them that keeps order per pair of nodes, as TCP does.

use std::collections::{BTreeMap, VecDeque};

use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, PacketStyle, Pnn, Reqid, Rsn,
    call::{CallFlags, CallId, ReqCall},
    database::{DbFlags, VnnMap},
    header::Envelope,
    record::{Dmaster, RecordFlags, RecordHeader},
};

use super::{
    ClientId, Context, ControlToken, MemoryStore, Millis, NodeEnvelope, Output, RecordEngine,
    RecordStore, Ticket,
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
    recoveries: Vec<&'static str>,
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
    now: Millis,
    nodes: Vec<Node>,
    /// Packets under way, by pair of nodes.
    network: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    generation: Generation,
}

impl Cluster {
    fn new(count: usize, flags: DbFlags) -> Self {
        let mut cluster = Self {
            now: Millis(0),
            nodes: (0..count)
                .map(|number| Node {
                    engine: RecordEngine::new(pnn(number), 0),
                    store: MemoryStore::new(),
                    out: Recorder::default(),
                })
                .collect(),
            network: BTreeMap::new(),
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
            self.network.entry((node, to)).or_default().push_back(bytes);
        }
        result
    }

    fn call(&mut self, node: usize, reqid: u32, flags: CallFlags, callid: CallId, key: &[u8]) {
        let call = ReqCall { flags, db: DB, callid, hopcount: 0, key, calldata: b"" };
        self.with(node, |engine, cx| engine.client_call(cx, CLIENT, Reqid(reqid), &call));
    }

    fn migrate(&mut self, node: usize, reqid: u32, key: &[u8]) {
        self.call(node, reqid, CallFlags::IMMEDIATE_MIGRATION, CallId::NULL, key);
    }

    fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(bytes) = self.network.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        let (header, packet) = Packet::decode(&bytes).expect("our own packets decode");
        self.with(to, |engine, cx| engine.node_packet(cx, &header, &packet));
        true
    }

    fn turn(&mut self, node: usize) {
        self.with(node, RecordEngine::turn);
        // `UPDATE_RECORD` as the daemon of the other node does it (semantics 4.3).
        for (to, token, payload) in std::mem::take(&mut self.nodes[node].out.updates) {
            let status = self.update(usize::try_from(to.get()).unwrap(), &payload);
            self.nodes[node].engine.control_done(token, status);
        }
    }

    fn update(&mut self, node: usize, payload: &[u8]) -> i32 {
        use ringmaster_protocol::{Decode, record::RecBuffer};
        let buffer = RecBuffer::from_bytes(payload).expect("our own buffer");
        for record in &buffer {
            let (header, data) = record.split_header().expect("a header");
            let store = &mut self.nodes[node].store;
            if let Some((known, value)) = store.get(DB, record.key) {
                if known.rsn >= header.rsn && value != data {
                    return 1;
                }
                store.put(DB, record.key, header, data);
            }
        }
        0
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
                if !self.nodes[node].out.updates.is_empty() {
                    self.turn(node);
                }
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

#[test]
fn an_absent_record_appears_where_its_lmaster_is() {
    let mut cluster = Cluster::new(1, DbFlags::NONE);
    cluster.migrate(0, 1, b"key1");
    assert_eq!(cluster.replies(0), [(1, 0, vec![])]);
    assert!(cluster.write(0, b"key1", b"hello"));
    cluster.call(0, 2, CallFlags::NONE, CallId::FETCH, b"key1");
    cluster.call(0, 3, CallFlags::NONE, CallId::FETCH_WITH_HEADER, b"key1");
    let replies = cluster.replies(0);
    assert_eq!(replies[0], (2, 0, b"hello".to_vec()));
    // Invented with rsn 0 and stored (1), the NULL call stored (2), the FETCH (3).
    assert_eq!(replies[1].2[..8], 3_u64.to_le_bytes());
    assert_eq!(replies[1].2[24..], *b"hello");
    assert_eq!(cluster.record(0, b"key1"), Some((4, 0, 0, b"hello".to_vec())));
}

#[test]
fn a_record_moves_from_its_dmaster_by_its_lmaster_to_who_asked() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, 3);
    cluster.migrate(0, 1, &key);
    cluster.settle();
    assert!(cluster.write(0, &key, b"data"));
    let at_first = cluster.record(0, &key).unwrap();
    cluster.replies(0);
    cluster.migrate(2, 9, &key);
    cluster.settle();
    assert_eq!(cluster.replies(2), [(9, 0, vec![])]);
    let (rsn, dmaster, flags, value) = cluster.record(2, &key).unwrap();
    // Stored by become-dmaster and again by the call that waited.
    assert_eq!((rsn, dmaster, flags, &value[..]), (at_first.0 + 2, 2, MIGRATED, &b"data"[..]));
    assert_eq!(cluster.record(1, &key).map(|record| record.1), Some(2), "the lmaster knows");
    assert_eq!(cluster.record(0, &key).map(|record| record.1), Some(2), "the old one sends on");
}

#[test]
fn an_empty_record_leaves_nothing_at_a_node_that_is_neither_dmaster_nor_lmaster() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(1, 3);
    cluster.migrate(0, 1, &key);
    cluster.settle();
    cluster.migrate(2, 2, &key);
    cluster.settle();
    assert_eq!(cluster.record(0, &key), None);
    assert_eq!(cluster.record(2, &key).map(|record| record.1), Some(2));
}

#[test]
fn callers_of_one_key_share_one_migration() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    for reqid in 1..=5 {
        cluster.migrate(0, reqid, &key);
    }
    assert_eq!(cluster.network[&(0, 1)].len(), 1, "one call leaves");
    cluster.settle();
    let answered: Vec<u32> = cluster.replies(0).iter().map(|reply| reply.0).collect();
    assert_eq!(answered, [1, 2, 3, 4, 5]);
}

#[test]
fn a_call_waits_for_a_busy_chain_and_gives_it_back() {
    let mut cluster = Cluster::new(1, DbFlags::NONE);
    assert!(cluster.nodes[0].store.hold(DB, b"k"));
    cluster.migrate(0, 1, b"k");
    assert_eq!(cluster.replies(0), []);
    let (key, ticket) = cluster.nodes[0].out.waits.pop().expect("a waiter is asked for");
    assert_eq!(key, b"k");
    cluster.nodes[0].store.let_go(DB, b"k");
    assert!(cluster.nodes[0].store.grant(DB, b"k"));
    cluster.with(0, |engine, cx| engine.chain_ready(cx, ticket));
    assert_eq!(cluster.replies(0), [(1, 0, vec![])]);
    assert!(cluster.nodes[0].store.is_unlocked());
}

#[test]
fn a_node_packet_that_waited_over_a_recovery_is_dropped_and_its_lock_given_back() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    assert!(cluster.nodes[1].store.hold(DB, &key));
    cluster.migrate(0, 1, &key);
    assert!(cluster.deliver(0, 1));
    let (_, ticket) = cluster.nodes[1].out.waits.pop().expect("a waiter is asked for");
    cluster.new_generation(Generation(101));
    cluster.nodes[1].store.let_go(DB, &key);
    assert!(cluster.nodes[1].store.grant(DB, &key));
    cluster.with(1, |engine, cx| engine.chain_ready(cx, ticket));
    assert!(cluster.nodes[1].store.is_unlocked());
    assert!(cluster.network.get(&(1, 0)).is_none_or(VecDeque::is_empty));
}

#[test]
fn calls_wait_for_the_thaw_and_lost_ones_are_sent_again() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    cluster.network.clear(); // lost with the connection
    for node in 0..2 {
        cluster.nodes[node].store.set_frozen(DB, true);
    }
    let other = key_of(0, 2);
    cluster.migrate(0, 2, &other);
    cluster.settle();
    assert_eq!(cluster.replies(0), []);
    cluster.new_generation(Generation(101));
    for node in 0..2 {
        cluster.nodes[node].store.set_frozen(DB, false);
        cluster.nodes[node].engine.thawed(DB);
    }
    cluster.settle();
    let mut answered: Vec<u32> = cluster.replies(0).iter().map(|reply| reply.0).collect();
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);
}

#[test]
fn a_reply_of_an_old_generation_is_dropped() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.deliver(0, 1));
    cluster.new_generation(Generation(101));
    while cluster.deliver(1, 0) {}
    assert_eq!(cluster.replies(0), []);
    assert_eq!(cluster.record(0, &key), None);
    for node in 0..2 {
        cluster.nodes[node].engine.thawed(DB);
    }
    // In a real recovery the record is put right before the thaw.
    let store = &mut cluster.nodes[1].store;
    let header =
        RecordHeader { rsn: Rsn(5), dmaster: Dmaster::from(pnn(1)), flags: RecordFlags::NONE };
    store.put(DB, &key, header, b"");
    cluster.settle();
    assert_eq!(cluster.replies(0).len(), 1);
}

#[test]
fn copies_are_handed_out_and_called_back_before_a_write() {
    let mut cluster = Cluster::new(3, DbFlags::READONLY);
    let key = key_of(0, 3);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.replies(0);
    let base = cluster.record(0, &key).unwrap().0;
    for node in [1, 2] {
        cluster.call(node, 5, CallFlags::WANT_READONLY, CallId::FETCH, &key);
        cluster.settle();
        assert_eq!(cluster.replies(node), [(5, 0, b"one".to_vec())], "the header is cut off");
        let copy = cluster.record(node, &key).expect("a copy is kept");
        let flags = RecordFlags::RO_HAVE_READONLY.0 | MIGRATED;
        assert_eq!((copy.0, copy.1, copy.2), (base + 1, 0, flags));
    }
    let delegating = cluster.record(0, &key).unwrap();
    assert_eq!((delegating.0, delegating.2), (base + 3, DELEGATED));
    assert!(!cluster.write(0, &key, b"too early"), "a client sees the flag and asks");
    cluster.migrate(0, 6, &key);
    cluster.settle();
    assert_eq!(cluster.replies(0), [(6, 0, vec![])]);
    for node in [1, 2] {
        let copy = cluster.record(node, &key).unwrap();
        assert_eq!((copy.0, copy.2), (base + 2, MIGRATED), "it is no copy any more");
    }
    let (rsn, _, flags, _) = cluster.record(0, &key).unwrap();
    // Revoked r+4, cleared +1, the call itself +1.
    assert_eq!((rsn, flags), (base + 6, MIGRATED), "vacuuming has to ask before it deletes it");
    assert!(cluster.write(0, &key, b"two"));
    assert_eq!(cluster.nodes[0].engine.counters().ro_revokes, 1);
    assert_eq!(cluster.nodes[0].engine.counters().ro_delegations, 2);
}

/// A copy that waited for a busy chain would be stored after the revoke that found none.
#[test]
fn a_copy_that_meets_a_busy_chain_is_answered_and_not_kept() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 5, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    assert!(cluster.nodes[1].store.hold(DB, &key));
    cluster.settle();
    assert_eq!(cluster.replies(1), [(5, 0, b"one".to_vec())]);
    cluster.nodes[1].store.let_go(DB, &key);
    cluster.migrate(0, 6, &key);
    cluster.settle();
    assert!(cluster.write(0, &key, b"two"));
    assert_eq!(cluster.record(1, &key), None, "nobody reads the old value");
    assert!(cluster.nodes[1].out.waits.is_empty());
}

/// Found by the simulator: after the revoke the holder has a header with a high rsn. If vacuuming
/// deleted the record here without asking, that header would win over a record created anew.
#[test]
fn an_empty_record_that_was_delegated_is_not_vacuumed_without_asking() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    assert_eq!(cluster.record(0, &key).map(|record| record.2), Some(DELEGATED));
    cluster.migrate(0, 3, &key);
    cluster.settle();
    let queued = cluster.nodes[0].engine.take_delete_queue(DB);
    let [(_, header)] = &queued[..] else { panic!("one empty record: {queued:?}") };
    assert!(header.flags.contains(RecordFlags::MIGRATED_WITH_DATA));
}

/// Found by the simulator: a recovery sends the new map first and the records later. A node that
/// has just become lmaster by that map has nothing on file, and made its own client the owner of an
/// empty record, while the dmaster's client wrote.
#[test]
fn a_new_lmaster_invents_nothing_before_the_records_of_its_recovery_have_come() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(0, 3);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"data"));
    let generation = Generation(101);
    let map = VnnMap { generation, map: vec![pnn(1)] };
    cluster.nodes[1].engine.set_vnn_map(map);
    cluster.migrate(1, 2, &key);
    cluster.settle();
    assert_eq!((cluster.replies(1), cluster.record(1, &key)), (vec![], None));
    let (header, value) = cluster.nodes[0].store.get(DB, &key).expect("the record");
    let (pushed, value) = (RecordHeader { dmaster: pnn(1).into(), ..header }, value.to_vec());
    cluster.nodes[1].store.put(DB, &key, pushed, &value);
    cluster.nodes[1].engine.set_generation(DB, generation);
    cluster.nodes[1].engine.thawed(DB);
    cluster.settle();
    assert_eq!(cluster.replies(1), [(2, 0, vec![])]);
    assert!(cluster.write(1, &key, b"more"));
}

#[test]
fn a_remote_writer_waits_for_the_revoke_too() {
    let mut cluster = Cluster::new(3, DbFlags::READONLY);
    let key = key_of(0, 3);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    cluster.migrate(2, 3, &key);
    cluster.settle();
    assert_eq!(cluster.record(2, &key).map(|record| record.1), Some(2));
    assert_eq!(cluster.record(1, &key).map(|record| record.2), Some(MIGRATED));
    assert!(cluster.write(2, &key, b"two"));
}

#[test]
fn a_revoke_that_fails_lets_nobody_write_and_is_tried_again() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    cluster.replies(0);
    cluster.migrate(0, 3, &key);
    let (_, token, _) = cluster.nodes[0].out.updates.pop().expect("an update");
    cluster.nodes[0].engine.control_done(token, -1);
    cluster.settle();
    assert_eq!(cluster.replies(0), []);
    assert_eq!(cluster.record(0, &key).map(|record| record.2), Some(DELEGATED));
    cluster.now = Millis(1_000);
    cluster.settle();
    assert_eq!(cluster.replies(0), [(3, 0, vec![])], "the second try reaches the copy");
}

#[test]
fn a_revoke_without_an_answer_ends_by_its_timeout() {
    let mut cluster = Cluster::new(2, DbFlags::READONLY);
    let key = key_of(0, 2);
    cluster.migrate(0, 1, &key);
    assert!(cluster.write(0, &key, b"one"));
    cluster.call(1, 2, CallFlags::WANT_READONLY, CallId::FETCH, &key);
    cluster.settle();
    cluster.migrate(0, 3, &key);
    let (_, late, _) = cluster.nodes[0].out.updates.pop().expect("an update");
    cluster.now = Millis(60_000);
    cluster.settle();
    assert_eq!(cluster.record(0, &key).map(|record| record.2), Some(DELEGATED));
    cluster.nodes[0].engine.control_done(late, 0);
    cluster.settle();
    assert_eq!(
        cluster.record(0, &key).map(|record| record.2),
        Some(DELEGATED),
        "a late answer changes nothing"
    );
}

#[test]
fn an_unknown_database_is_silence_for_a_client_and_an_error_for_a_node() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    cluster.nodes[1].engine.detach(DB);
    let call = ReqCall {
        flags: CallFlags::NONE,
        db: DbId(1),
        callid: CallId::NULL,
        hopcount: 0,
        key: b"k",
        calldata: b"",
    };
    cluster.with(0, |engine, cx| engine.client_call(cx, CLIENT, Reqid(1), &call));
    assert_eq!(cluster.replies(0), []);
    assert_eq!(cluster.nodes[0].engine.counters().calls_unknown_db, 1);
    cluster.migrate(0, 2, &key_of(1, 2));
    assert!(cluster.deliver(0, 1));
    let bytes = cluster.network[&(1, 0)].front().expect("an answer");
    let (_, packet) = Packet::decode(bytes).unwrap();
    let Packet::ReplyError(error) = packet else { panic!("{packet:?}") };
    assert_eq!(error.message, b"Unknown database in request. db_id==0x12345678");
    cluster.settle();
    assert_eq!(cluster.replies(0), [], "the client hears nothing of it");
}

#[test]
fn a_record_arrives_even_when_its_client_has_gone() {
    let mut cluster = Cluster::new(2, DbFlags::NONE);
    let key = key_of(1, 2);
    cluster.migrate(0, 1, &key);
    cluster.nodes[0].engine.client_gone(CLIENT);
    cluster.settle();
    assert_eq!(cluster.record(0, &key).map(|record| record.1), Some(0));
    assert_eq!(cluster.replies(0), []);
    cluster.migrate(1, 2, &key);
    cluster.settle();
    assert_eq!(cluster.replies(1).len(), 1);
}

#[test]
fn a_false_dmaster_forces_a_recovery() {
    let mut cluster = Cluster::new(3, DbFlags::NONE);
    let key = key_of(0, 3);
    cluster.migrate(1, 1, &key);
    cluster.settle();
    let packet = Packet::ReqDmaster(ringmaster_protocol::call::ReqDmaster {
        db: DB,
        rsn: Rsn(77),
        dmaster: Dmaster::from(pnn(2)),
        key: &key,
        data: b"stolen",
        record_flags: RecordFlags::NONE,
    });
    let mut bytes = Vec::new();
    let envelope = Envelope {
        generation: cluster.generation,
        destination: Destination::Node(pnn(0)),
        source: Destination::Node(pnn(2)),
        reqid: Reqid(5),
    };
    packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    cluster.network.entry((2, 0)).or_default().push_back(bytes);
    cluster.settle();
    assert_eq!(cluster.nodes[0].out.recoveries.len(), 1);
    assert_eq!(cluster.record(0, &key).map(|record| record.1), Some(1), "nothing has moved");
}

#[test]
fn a_sticky_record_stays_for_a_moment() {
    let mut cluster = Cluster::new(2, DbFlags::STICKY);
    let key = key_of(1, 2);
    // A call that has been chased over fifty hops makes the key sticky at its dmaster.
    let chased = |hopcount| ReqCall {
        flags: CallFlags::IMMEDIATE_MIGRATION,
        db: DB,
        callid: CallId::NULL,
        hopcount,
        key: &key,
        calldata: b"",
    };
    cluster.migrate(0, 1, &key);
    cluster.settle();
    let mut bytes = Vec::new();
    let envelope = Envelope {
        generation: cluster.generation,
        destination: Destination::Node(pnn(0)),
        source: Destination::Node(pnn(1)),
        reqid: Reqid(9),
    };
    Packet::ReqCall(chased(50)).encode_into(&mut bytes, envelope, PacketStyle::Daemon);
    cluster.network.entry((1, 0)).or_default().push_back(bytes);
    cluster.settle();
    cluster.migrate(0, 2, &key);
    cluster.settle(); // it comes back to node 0, where the key is sticky
    cluster.replies(0);
    cluster.migrate(1, 3, &key);
    cluster.settle();
    assert_eq!(cluster.replies(1), [], "pinned for 200 ms");
    cluster.now = Millis(200);
    cluster.settle();
    assert_eq!(cluster.replies(1).len(), 1);
}

#[test]
fn scheduled_deletions_are_those_of_empty_records() {
    let mut cluster = Cluster::new(1, DbFlags::NONE);
    cluster.migrate(0, 1, b"empty");
    cluster.migrate(0, 2, b"full");
    assert!(cluster.write(0, b"full", b"x"));
    cluster.migrate(0, 3, b"full");
    let keys: Vec<_> =
        cluster.nodes[0].engine.take_delete_queue(DB).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [Box::from(*b"empty")]);
}

/// Clients on every node add to counters under the chain lock; the network reorders between pairs
/// of nodes, chains are busy at random. Nothing is lost, and every record has one dmaster.
#[test]
fn increments_on_all_nodes_add_up_whatever_the_order() {
    for seed in 1..=60_u64 {
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let nodes = usize::try_from(2 + next(3)).unwrap();
        let flags = if next(2) == 0 { DbFlags::NONE } else { DbFlags::READONLY };
        let mut cluster = Cluster::new(nodes, flags);
        let keys: Vec<Vec<u8>> = (0..3).map(|n| format!("counter-{n}").into_bytes()).collect();
        let mut wanted: Vec<Vec<u32>> = vec![vec![4; keys.len()]; nodes];
        let mut asked: Vec<Vec<bool>> = vec![vec![false; keys.len()]; nodes];
        for step in 0..200_000 {
            if wanted.iter().flatten().all(|left| *left == 0) {
                break;
            }
            assert!(step < 199_999, "seed {seed}: increments do not get done");
            let node = usize::try_from(next(nodes as u64)).unwrap();
            match next(4) {
                0 => {
                    let which = usize::try_from(next(keys.len() as u64)).unwrap();
                    let key = &keys[which];
                    if wanted[node][which] == 0 {
                        continue;
                    }
                    let value = cluster.record(node, key).map(|record| record.3);
                    let number =
                        value.map_or(0, |value| value.try_into().map_or(0, u32::from_le_bytes));
                    if cluster.nodes[node].store.is_unlocked()
                        && cluster.write(node, key, &(number + 1).to_le_bytes())
                    {
                        wanted[node][which] -= 1;
                        asked[node][which] = false;
                    } else if !asked[node][which] {
                        asked[node][which] = true;
                        let reqid = u32::try_from(which).unwrap() + 1;
                        if next(4) == 0 {
                            cluster.call(
                                node,
                                90 + reqid,
                                CallFlags::WANT_READONLY,
                                CallId::FETCH,
                                key,
                            );
                        }
                        cluster.migrate(node, reqid, key);
                    }
                }
                1 => {
                    cluster.turn(node);
                    cluster.now = cluster.now.plus(next(5));
                }
                _ => {
                    let pairs: Vec<_> = cluster.network.keys().copied().collect();
                    if !pairs.is_empty() {
                        let pair = pairs[usize::try_from(next(pairs.len() as u64)).unwrap()];
                        cluster.deliver(pair.0, pair.1);
                    }
                }
            }
            for (reqid, ..) in cluster.replies(node) {
                if (1..90).contains(&reqid) {
                    asked[node][reqid as usize - 1] = false; // look again, ask again if need be
                }
            }
            for key in &keys {
                let owners = (0..nodes)
                    .filter(|node| {
                        cluster.record(*node, key).is_some_and(|record| record.1 as usize == *node)
                    })
                    .count();
                assert!(owners <= 1, "seed {seed}: {owners} dmasters");
            }
        }
        cluster.settle();
        for key in &keys {
            let values: Vec<u32> = (0..nodes)
                .filter_map(|node| {
                    let record = cluster.record(node, key)?;
                    (record.1 as usize == node).then(|| record.3.try_into().ok())?
                })
                .map(u32::from_le_bytes)
                .collect();
            assert_eq!(values, [4 * u32::try_from(nodes).unwrap()], "seed {seed}");
        }
        assert!(cluster.nodes.iter().all(|node| node.out.recoveries.is_empty()), "seed {seed}");
    }
}

/// The trait is what the daemon's store implements: one use through it, so that it stays usable.
#[test]
fn the_store_nests_locks() {
    let mut store = MemoryStore::new();
    assert_eq!(store.try_lock(DB, b"k"), super::LockOutcome::Locked);
    assert_eq!(store.try_lock(DB, b"k"), super::LockOutcome::Locked);
    store.unlock(DB, b"k");
    assert!(!store.hold(DB, b"k"));
    store.unlock(DB, b"k");
    assert!(store.hold(DB, b"k"));
    assert_eq!(store.try_lock(DB, b"k"), super::LockOutcome::Busy);
}
