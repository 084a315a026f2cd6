//! One simulated node: the production engine, its records in memory, and what it asked for.

use std::collections::BTreeMap;

use ringmaster_dataplane::record::{
    ClientId, ControlToken, FetchError, LockOutcome, MemoryStore, NodeEnvelope, Output,
    RecordEngine, RecordStore, Ticket, UpdateToken,
};
use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, PacketStyle, Pnn, Reqid, Rsn, database::DbFlags,
    header::Envelope, record::RecordHeader,
};

use crate::mutation::Mutation;

/// The database of all simulated records.
pub(crate) const DB: DbId = DbId(0x5EED_0001);

/// The number of a node as the protocol has it.
pub(crate) fn pnn(node: usize) -> Pnn {
    u32::try_from(node).ok().and_then(Pnn::new).expect("few nodes")
}

/// What an engine asked for in one call into it.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) replies: Vec<(ClientId, Reqid, Vec<u8>)>,
    pub(crate) packets: Vec<(usize, Vec<u8>)>,
    pub(crate) waits: Vec<(Vec<u8>, Ticket)>,
    pub(crate) updates: Vec<(usize, ControlToken, Vec<u8>)>,
    pub(crate) updated: Vec<(UpdateToken, i32)>,
    pub(crate) recoveries: Vec<&'static str>,
}

impl Output for Recorder {
    fn reply_client(&mut self, client: ClientId, reqid: Reqid, status: i32, data: &[u8]) {
        assert_eq!(status, 0, "a client's call is never answered with an error");
        self.replies.push((client, reqid, data.to_vec()));
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
        self.packets.push((to.get() as usize, bytes));
    }

    fn wait_for_chain(&mut self, _: DbId, key: &[u8], ticket: Ticket) {
        self.waits.push((key.to_vec(), ticket));
    }

    fn update_record(&mut self, to: Pnn, token: ControlToken, payload: &[u8]) {
        self.updates.push((to.get() as usize, token, payload.to_vec()));
    }

    fn updated(&mut self, token: UpdateToken, status: i32) {
        self.updated.push((token, status));
    }

    fn force_recovery(&mut self, reason: &'static str) {
        self.recoveries.push(reason);
    }
}

/// Memory, with the mistakes that a store can make.
pub(crate) struct SimStore {
    pub(crate) memory: MemoryStore,
    me: Pnn,
    mutation: Option<Mutation>,
    /// A record has changed since the checkers looked last.
    pub(crate) changed: bool,
    /// Records whose change is held back ([`Mutation::DmasterStoredLate`]).
    pub(crate) late: Vec<(Vec<u8>, RecordHeader, Vec<u8>)>,
}

impl SimStore {
    fn new(me: Pnn, mutation: Option<Mutation>) -> Self {
        Self { memory: MemoryStore::new(), me, mutation, changed: false, late: Vec::new() }
    }
}

impl RecordStore for SimStore {
    fn try_lock(&mut self, db: DbId, key: &[u8]) -> LockOutcome {
        let outcome = self.memory.try_lock(db, key);
        if outcome == LockOutcome::Busy && self.mutation == Some(Mutation::ChainLockNotTaken) {
            self.memory.let_go(db, key);
            return self.memory.try_lock(db, key);
        }
        outcome
    }

    fn unlock(&mut self, db: DbId, key: &[u8]) {
        self.memory.unlock(db, key);
    }

    fn fetch(
        &mut self,
        db: DbId,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<Option<RecordHeader>, FetchError> {
        self.memory.fetch(db, key, value)
    }

    fn store(
        &mut self,
        db: DbId,
        key: &[u8],
        mut header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        self.changed = true;
        match self.mutation {
            Some(Mutation::RsnNotRaised) => header.rsn = Rsn(header.rsn.0.min(2)),
            Some(Mutation::DmasterStoredLate) => {
                let mine = self.memory.get(db, key).is_some_and(|old| old.0.dmaster.is(self.me));
                if mine && !header.dmaster.is(self.me) {
                    self.late.push((key.to_vec(), header, value.to_vec()));
                    return Ok(());
                }
            }
            _ => {}
        }
        self.memory.store(db, key, header, value)
    }

    fn delete(&mut self, db: DbId, key: &[u8]) -> Result<(), FetchError> {
        self.changed = true;
        self.memory.delete(db, key)
    }
}

/// A tombstone that its lmaster wants to delete, and who has yet to agree.
#[derive(Clone, Debug)]
pub(crate) struct Deletion {
    pub(crate) header: RecordHeader,
    pub(crate) left: Vec<usize>,
}

/// A node.
pub(crate) struct Node {
    pub(crate) engine: RecordEngine,
    pub(crate) store: SimStore,
    pub(crate) out: Recorder,
    /// Grows with every start of the daemon; events of an earlier life are void.
    pub(crate) life: u32,
    pub(crate) alive: bool,
    /// Cut off from all others.
    pub(crate) cut: bool,
    /// The process does nothing before this time.
    pub(crate) paused_until: u64,
    /// Frozen, or a freeze waits for the clients that hold a chain.
    pub(crate) frozen: bool,
    /// Recovery mode ACTIVE.
    pub(crate) recovering: bool,
    /// It has been frozen as inactive: its records are not used by the next recovery.
    pub(crate) invalid: bool,
    /// Of the database.
    pub(crate) generation: Generation,
    pub(crate) waiting: Vec<(Vec<u8>, Ticket)>,
    pub(crate) updates: Vec<(ControlToken, usize)>,
    pub(crate) deletions: BTreeMap<Vec<u8>, Deletion>,
    pub(crate) turn_at: Option<u64>,
}

impl Node {
    /// A daemon that has just been started: no records, frozen, in no generation.
    pub(crate) fn start(
        number: usize,
        life: u32,
        flags: DbFlags,
        mutation: Option<Mutation>,
    ) -> Self {
        let mut engine = RecordEngine::new(pnn(number), 0);
        engine.attach(DB, flags);
        let mut store = SimStore::new(pnn(number), mutation);
        store.memory.set_frozen(DB, true);
        Self {
            engine,
            store,
            out: Recorder::default(),
            life,
            alive: true,
            cut: false,
            paused_until: 0,
            frozen: true,
            recovering: true,
            invalid: false,
            generation: Generation::INVALID,
            waiting: Vec::new(),
            updates: Vec::new(),
            deletions: BTreeMap::new(),
            turn_at: None,
        }
    }
}
