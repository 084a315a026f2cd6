//! Records: what happens to a call, wherever it comes from.
//!
//! Role: the record protocol of one shard, as a pure state machine: packets, lock grants and time
//! go in; store operations, packets and replies come out. Runs unchanged in the daemon (TDB files,
//! sockets) and in the simulator (memory, a scheduled network).
//! Owner: one shard; it holds the state of the chains that the shard owns.
//! Invariants
//! - A record is only read and written between `try_lock` and `unlock` of its chain, in one call
//!   into the engine. Nothing read from it is kept across an unlock: clients write behind our back.
//! - A client's call is never answered with an error: it waits, or is sent again after a recovery.
//! - Whatever is parked (busy chain, frozen database, migration or revoke under way) comes back by
//!   an event that is certain to come: lock grant, thaw, end of the migration, end of the revoke.
//! - Never here: sockets, clocks, threads, system calls.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2; `ctdb/server/ctdb_call.c`,
//! `ctdb/server/ctdb_daemon.c`, `ctdb/server/ctdb_ltdb_server.c`.

mod call;
mod database;
mod deferral;
mod hot;
mod migration;
mod pending;
mod readonly;
mod store;
mod store_rule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, Pnn, RequestHeader,
    call::{CallFlags, CallId, ReqCall},
    database::{DbFlags, VnnMap},
    hash::jenkins,
    id::Reqid,
    record::RecordHeader,
};

pub use database::{DbStatistics, HotKey};
pub use pending::ReqidTable;
pub use store::{FetchError, LockOutcome, MemoryStore, RecordStore};

use database::Database;
use pending::PendingCall;

/// Milliseconds since an arbitrary start; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Later by `millis`.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

/// Name of a local client, unique for the life of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// Names a parked packet that waits for its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names a control that the engine has sent and wants to hear the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlToken(pub u64);

/// What the engine wants done. The implementor encodes and counts; it decides nothing.
pub trait Output {
    /// Answers a client's call (`REPLY_CALL`). The client may be gone: then nothing is sent.
    fn reply_client(&mut self, client: ClientId, reqid: Reqid, status: i32, data: &[u8]);

    /// Sends a packet to another node (never to this one).
    fn send_node(&mut self, to: Pnn, envelope: NodeEnvelope, packet: &Packet<'_>);

    /// The chain of `key` is busy: wait for it, then call [`RecordEngine::chain_ready`] with the
    /// chain still locked for us.
    fn wait_for_chain(&mut self, db: DbId, key: &[u8], ticket: Ticket);

    /// Sends an `UPDATE_RECORD` control (payload: a `ctdb_rec_buffer`) to a node; its end comes
    /// back through [`RecordEngine::control_done`].
    fn update_record(&mut self, to: Pnn, token: ControlToken, payload: &[u8]);

    /// The record protocol has been violated in a way that only a recovery repairs.
    fn force_recovery(&mut self, reason: &'static str);
}

/// Addressing of a record packet between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEnvelope {
    /// Whom the answer goes to: the origin of a call, even when somebody forwards it.
    pub source: Pnn,
    /// Chosen by the origin of the call.
    pub reqid: Reqid,
    /// Of the database.
    pub generation: Generation,
}

/// Tunables that the record path reads (`docs/spec/cluster-semantics.md` 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordTunables {
    /// `FetchCollapse`: one migration at a time per key, later callers wait for it.
    pub fetch_collapse: bool,
    /// `HopcountMakeSticky`: hops that make a key sticky (sticky databases only).
    pub hopcount_make_sticky: u32,
    /// `StickyDuration`, in seconds.
    pub sticky_duration_s: u32,
    /// `StickyPindown`, in milliseconds.
    pub sticky_pindown_ms: u32,
    /// `ControlTimeout`, in seconds: a revoke gives up after it.
    pub control_timeout_s: u32,
}

impl Default for RecordTunables {
    fn default() -> Self {
        Self {
            fetch_collapse: true,
            hopcount_make_sticky: 50,
            sticky_duration_s: 600,
            sticky_pindown_ms: 200,
            control_timeout_s: 60,
        }
    }
}

/// Counters of the record path; the shard adds them to what `ctdb statistics` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordCounters {
    /// Client calls processed, repeated ones again.
    pub total_calls: u64,
    /// Gauge: client calls under way.
    pub pending_calls: u64,
    /// Largest hop count seen at a dmaster.
    pub max_hop_count: u32,
    /// Calls by hop count: bucket = bit length, at most 15.
    pub hop_count_bucket: [u32; 16],
    /// Read-only copies handed out.
    pub ro_delegations: u64,
    /// Revokes completed.
    pub ro_revokes: u64,
    /// Client calls for a database that is not attached: they get no answer, as in C.
    pub calls_unknown_db: u64,
    /// Latencies of client calls, in milliseconds: number, sum, minimum, maximum.
    pub latency: Latency,
}

/// A latency counter, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Sum of them.
    pub total: f64,
    /// Smallest; 0 without samples.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Latency {
    /// Adds a sample of `millis`.
    pub fn add(&mut self, millis: f64) {
        self.min = if self.count == 0 { millis } else { self.min.min(millis) };
        self.max = self.max.max(millis);
        self.total += millis;
        self.count += 1;
    }
}

/// Who asked, and how to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Client {
        client: ClientId,
        reqid: Reqid,
    },
    /// `node` may be this one: a call sent again after a recovery.
    Node {
        node: Pnn,
        reqid: Reqid,
        generation: Generation,
    },
}

/// A call taken out of its packet, to be processed again later.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Parked {
    origin: Origin,
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Call {
        flags: CallFlags,
        db: DbId,
        callid: CallId,
        hopcount: u32,
        key: Box<[u8]>,
        calldata: Box<[u8]>,
    },
    /// `REQ_DMASTER`; the boxed bytes are the record's.
    ReqDmaster {
        packet: migration::Handover,
        dmaster: Pnn,
    },
    ReplyDmaster {
        packet: migration::Handover,
    },
    /// A `REPLY_CALL` of this node to itself.
    ReplyCall {
        status: i32,
        data: Box<[u8]>,
    },
    /// A revoke whose updates are done.
    FinishRevoke {
        db: DbId,
        key: Box<[u8]>,
    },
}

impl Work {
    /// Work of this node's own that no change of the epoch makes void.
    const fn is_ours(&self) -> bool {
        matches!(self, Self::FinishRevoke { .. })
    }
}

/// What a call into the engine works with.
pub struct Context<'a, S, O> {
    /// Now.
    pub now: Millis,
    /// The records.
    pub store: &'a mut S,
    /// Where the results go.
    pub out: &'a mut O,
}

/// The record protocol of one shard.
#[derive(Debug)]
pub struct RecordEngine {
    pnn: Pnn,
    vnn_map: VnnMap,
    banned: bool,
    tunables: RecordTunables,
    databases: BTreeMap<DbId, Database>,
    pending: ReqidTable<PendingCall>,
    /// Packets that wait for a chain, and which.
    waiting: BTreeMap<Ticket, (DbId, Box<[u8]>, Parked)>,
    next_ticket: u64,
    /// Packets to process as if they had just come in.
    injected: VecDeque<Parked>,
    timers: BTreeMap<(Millis, u64), Timer>,
    next_timer: u64,
    revoke_tokens: BTreeMap<ControlToken, (DbId, Box<[u8]>, Pnn)>,
    next_token: u64,
    counters: RecordCounters,
    /// Reused for fetched values, so that a call allocates nothing.
    value: Vec<u8>,
    /// Reused for replies with a header.
    reply: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Timer {
    /// A deferred-fetch queue has waited long enough.
    DeferredFetch { db: DbId, key: Box<[u8]>, opened: u64 },
    /// A pinned sticky record is let go.
    Unpin { db: DbId, key: Box<[u8]> },
    /// A revoke has taken too long.
    RevokeTimeout { db: DbId, key: Box<[u8]>, started: u64 },
    /// Packets held back after a revoke.
    Inject { parked: Vec<Parked> },
}

impl RecordEngine {
    /// An engine without databases. `shard` is carried by its request ids.
    #[must_use]
    pub fn new(pnn: Pnn, shard: u8) -> Self {
        Self {
            pnn,
            vnn_map: VnnMap { generation: Generation::INVALID, map: Vec::new() },
            banned: false,
            tunables: RecordTunables::default(),
            databases: BTreeMap::new(),
            pending: ReqidTable::new(shard),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            injected: VecDeque::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            revoke_tokens: BTreeMap::new(),
            next_token: 0,
            counters: RecordCounters::default(),
            value: Vec::new(),
            reply: Vec::new(),
        }
    }

    /// Adds a database; its generation is that of the current map.
    pub fn attach(&mut self, id: DbId, flags: DbFlags) {
        let generation = self.vnn_map.generation;
        self.databases.entry(id).or_insert_with(|| Database::new(flags, generation));
    }

    /// Forgets a database; packets parked for it are dropped, callers get no answer.
    pub fn detach(&mut self, id: DbId) {
        self.databases.remove(&id);
        self.pending.retain(|call| call.db != id);
        self.waiting.retain(|_, (db, _, _)| *db != id);
    }

    /// Waits that the store has given up because it is frozen: their packets wait for the thaw.
    pub fn waits_given_up(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            let Some((id, _, parked)) = self.waiting.remove(ticket) else { continue };
            if let Some(db) = self.databases.get_mut(&id) {
                db.frozen.push_back(parked);
            }
        }
    }

    /// Sets a run-time property (READONLY, STICKY); repeated calls change nothing.
    pub fn add_flags(&mut self, id: DbId, flags: DbFlags) {
        if let Some(db) = self.databases.get_mut(&id) {
            db.flags = db.flags | flags;
        }
    }

    /// A new map of lmasters. Databases keep their generation until [`Self::set_generation`].
    pub fn set_vnn_map(&mut self, map: VnnMap) {
        self.vnn_map = map;
    }

    /// The database's generation: at the commit of a recovery, or INVALID when the node goes
    /// inactive.
    pub fn set_generation(&mut self, id: DbId, generation: Generation) {
        if let Some(db) = self.databases.get_mut(&id) {
            db.generation = generation;
        }
    }

    /// Banned nodes drop record packets.
    pub const fn set_banned(&mut self, banned: bool) {
        self.banned = banned;
    }

    /// New values; they hold from the next event on.
    pub const fn set_tunables(&mut self, tunables: RecordTunables) {
        self.tunables = tunables;
    }

    /// A commit of a persistent or replicated transaction begins or ends: while one is open, calls
    /// of other nodes are not migrated.
    pub fn set_commit_active(&mut self, id: DbId, active: bool) {
        if let Some(db) = self.databases.get_mut(&id) {
            db.commit_active = active;
        }
    }

    /// The map of lmasters that holds.
    #[must_use]
    pub const fn vnn_map(&self) -> &VnnMap {
        &self.vnn_map
    }

    /// Packets put aside, in all queues together: 0 when nothing waits for anything.
    #[must_use]
    pub fn backlog(&self) -> usize {
        let of_timers = self.timers.values().map(|timer| match timer {
            Timer::Inject { parked } => parked.len(),
            _ => 0,
        });
        self.waiting.len()
            + self.injected.len()
            + of_timers.sum::<usize>()
            + self.databases.values().map(Database::backlog).sum::<usize>()
    }

    /// Counters since the last reset.
    #[must_use]
    pub const fn counters(&self) -> &RecordCounters {
        &self.counters
    }

    /// Counters and hot keys of one database.
    #[must_use]
    pub fn db_statistics(&self, id: DbId) -> Option<&DbStatistics> {
        self.databases.get(&id).map(|db| &db.statistics)
    }

    /// Zeroes counters and hot keys.
    pub fn reset_counters(&mut self) {
        self.counters = RecordCounters::default();
        for db in self.databases.values_mut() {
            db.statistics = DbStatistics::default();
        }
    }

    /// Takes the keys scheduled for deletion out of a database, for a vacuum round.
    pub fn take_delete_queue(&mut self, id: DbId) -> Vec<(Box<[u8]>, RecordHeader)> {
        self.databases.get_mut(&id).map(|db| db.deletions.take()).unwrap_or_default()
    }

    /// Notes a record for the next vacuum round (`SCHEDULE_FOR_DELETION` of a local client).
    /// `false` for an unknown database.
    pub fn schedule_for_deletion(&mut self, id: DbId, key: &[u8], header: RecordHeader) -> bool {
        let Some(db) = self.databases.get_mut(&id) else { return false };
        db.deletions.insert(key, header);
        true
    }

    /// The lmaster of a key; this node before there is a map.
    #[must_use]
    pub fn lmaster(&self, key: &[u8]) -> Pnn {
        let map = &self.vnn_map.map;
        match u32::try_from(map.len()) {
            Ok(len) if len > 0 => map[(jenkins(key) % len) as usize],
            _ => self.pnn,
        }
    }

    /// A record packet from another node (or from this one, through the network's loop).
    pub fn node_packet<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        header: &RequestHeader,
        packet: &Packet<'_>,
    ) {
        let envelope = &header.envelope;
        if self.banned || envelope.generation != self.vnn_map.generation {
            return; // of another epoch: its sender repeats it after the recovery
        }
        let Destination::Node(node) = envelope.source else { return };
        let origin = Origin::Node { node, reqid: envelope.reqid, generation: envelope.generation };
        match packet {
            Packet::ReqCall(call) => self.node_call(cx, origin, call),
            Packet::ReplyCall(reply) => {
                self.reply_call(cx, envelope.reqid, reply.status, reply.data);
            }
            Packet::ReqDmaster(request) => {
                if let Some(dmaster) = request.new_dmaster() {
                    self.req_dmaster(cx, origin, migration::Handover::of_request(request), dmaster);
                }
            }
            Packet::ReplyDmaster(reply) => {
                self.reply_dmaster(cx, origin, migration::Handover::of_reply(reply));
            }
            Packet::ReplyError(_) => self.reply_error(envelope.reqid),
            _ => {}
        }
    }

    /// The chain that `ticket` waited for is locked for us; it is unlocked when this returns.
    pub fn chain_ready<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        ticket: Ticket,
    ) {
        if let Some((db, key, parked)) = self.waiting.remove(&ticket) {
            self.process(cx, parked);
            cx.store.unlock(db, &key);
        }
    }

    /// A database has been thawed: what waited for it goes on, and every call that this node has
    /// under way is sent again (the only resend there is).
    pub fn thawed(&mut self, id: DbId) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        let generation = db.generation;
        self.injected.extend(db.frozen.drain(..));
        let mut resent = Vec::new();
        self.pending.replace_ids(
            |call| call.db == id,
            |reqid, call| {
                resent.push(Parked {
                    origin: Origin::Node { node: self.pnn, reqid, generation },
                    work: call.work(),
                });
            },
        );
        self.injected.extend(resent);
    }

    /// A local client has gone: its calls go on in the cluster, their results are nobody's.
    pub fn client_gone(&mut self, client: ClientId) {
        let mut orphaned = Vec::new();
        self.pending.retain(|call| {
            let keep = call.client != client;
            if !keep {
                orphaned.push((call.db, call.key.clone()));
            }
            keep
        });
        for (db, key) in orphaned {
            self.release_deferred_fetch(db, &key);
        }
        let of_client = |parked: &Parked| matches!(parked.origin, Origin::Client { client: owner, .. } if owner == client);
        self.injected.retain(|parked| !of_client(parked));
        for db in self.databases.values_mut() {
            db.forget(&of_client);
        }
        // A packet that waits for its chain stays: the grant has to find it to give the lock back.
    }

    /// When [`Self::turn`] wants to be called again; `None` when nothing waits for time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if !self.injected.is_empty() {
            return Some(Millis(0));
        }
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Processes due timers and what they and earlier events have put aside. Bounded: packets put
    /// aside while it runs wait for the next turn.
    pub fn turn<S: RecordStore, O: Output>(&mut self, cx: &mut Context<'_, S, O>) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > cx.now {
                break;
            }
            let timer = entry.remove();
            self.timer_fired(cx, timer);
        }
        for _ in 0..self.injected.len() {
            let Some(parked) = self.injected.pop_front() else { break };
            self.process(cx, parked);
        }
    }

    fn timer_fired<S: RecordStore, O: Output>(&mut self, cx: &mut Context<'_, S, O>, timer: Timer) {
        match timer {
            Timer::DeferredFetch { db, key, opened } => {
                if self.deferred_fetch_of(db, &key).is_some_and(|queue| queue.opened == opened) {
                    self.release_deferred_fetch(db, &key);
                }
            }
            Timer::Unpin { db, key } => self.unpin(db, &key),
            Timer::RevokeTimeout { db, key, started } => {
                self.revoke_timed_out(cx, db, &key, started);
            }
            Timer::Inject { parked } => self.injected.extend(parked),
        }
    }

    fn set_timer(&mut self, at: Millis, timer: Timer) {
        self.next_timer += 1;
        self.timers.insert((at, self.next_timer), timer);
    }

    /// Processes something that was put aside. A node's packet that waited over a change of the
    /// epoch is dropped: its sender sends it again.
    fn process<S: RecordStore, O: Output>(&mut self, cx: &mut Context<'_, S, O>, parked: Parked) {
        let Parked { origin, work } = parked;
        if let (Origin::Node { generation, .. }, false) = (origin, work.is_ours())
            && generation != self.vnn_map.generation
        {
            return;
        }
        match (work, origin) {
            (Work::Call { flags, db, callid, hopcount, key, calldata }, origin) => {
                let (key, calldata) = (&*key, &*calldata);
                let call = ReqCall { flags, db, callid, hopcount, key, calldata };
                match origin {
                    Origin::Client { client, reqid } => self.client_call(cx, client, reqid, &call),
                    Origin::Node { .. } => self.node_call(cx, origin, &call),
                }
            }
            (Work::ReqDmaster { packet, dmaster }, origin) => {
                self.req_dmaster(cx, origin, packet, dmaster);
            }
            (Work::ReplyDmaster { packet }, origin) => self.reply_dmaster(cx, origin, packet),
            (Work::ReplyCall { status, data }, Origin::Node { reqid, .. }) => {
                self.reply_call(cx, reqid, status, &data);
            }
            (Work::ReplyCall { .. }, Origin::Client { .. }) => {}
            (Work::FinishRevoke { db, key }, _) => self.finish_revoke(cx, db, &key),
        }
    }

    /// Locks the chain of `key`, or parks the packet until that is possible.
    fn lock_or_park<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
        parked: impl FnOnce() -> Parked,
    ) -> Locked {
        match cx.store.try_lock(db, key) {
            LockOutcome::Locked => Locked::Yes,
            LockOutcome::Busy => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.waiting.insert(ticket, (db, key.into(), parked()));
                cx.out.wait_for_chain(db, key, ticket);
                Locked::Parked
            }
            LockOutcome::Frozen => {
                if let Some(database) = self.databases.get_mut(&db) {
                    database.frozen.push_back(parked());
                }
                Locked::Parked
            }
            LockOutcome::Failed => Locked::Failed,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Locked {
    Yes,
    Parked,
    Failed,
}
