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
mod contract;
mod counters;
mod database;
mod deferral;
mod fetches;
mod hot;
mod lease;
mod migration;
mod parking;
mod pending;
mod readonly;
mod store;
mod store_rule;
#[cfg(test)]
mod tests;
mod timers;
mod update;
pub mod vacuum;

use std::collections::{BTreeMap, VecDeque};

use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, Pnn, RequestHeader,
    database::{DbFlags, VnnMap},
    record::RecordHeader,
};

pub use contract::{
    ClientId, Context, ControlToken, Micros, NodeEnvelope, Output, RecordTunables, Ticket,
    UpdateToken,
};
pub use counters::{Latency, RecordCounters};
pub use database::{DbStatistics, HotKey};
pub use pending::ReqidTable;
pub use store::{FetchError, LockOutcome, MemoryStore, RecordStore};
pub use update::CopyUpdate;

use database::Database;
use parking::{Locked, Origin, Parked, Work};
use pending::{Asker, PendingCall};
use timers::Timer;
use vacuum::Tombstone;

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
    /// The packet that is processed holds its chain: nobody who waits for it comes first.
    chain_is_granted: bool,
    /// Packets to process as if they had just come in.
    injected: VecDeque<Parked>,
    timers: BTreeMap<(Micros, u64), Timer>,
    next_timer: u64,
    revoke_tokens: BTreeMap<ControlToken, (DbId, Box<[u8]>, Pnn)>,
    next_token: u64,
    counters: RecordCounters,
    /// Reused for fetched values, so that a call allocates nothing.
    value: Vec<u8>,
    /// Reused for replies with a header.
    reply: Vec<u8>,
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
            chain_is_granted: false,
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

    /// Sets a run-time property (READONLY, STICKY); repeated calls change nothing.
    pub fn add_flags(&mut self, id: DbId, flags: DbFlags) {
        if let Some(db) = self.databases.get_mut(&id) {
            db.flags = db.flags | flags;
        }
    }

    /// A new map of lmasters. Databases keep their generation until [`Self::set_generation`].
    pub fn set_vnn_map(&mut self, map: VnnMap) {
        let is_new = map.generation != self.vnn_map.generation;
        self.vnn_map = map;
        if is_new {
            let ids: Vec<DbId> = self.databases.keys().copied().collect();
            for id in ids {
                self.end_leases(id);
            }
        }
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
            if !active {
                self.injected.extend(db.committing.drain(..));
            }
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
    pub fn take_delete_queue(&mut self, id: DbId) -> Vec<Tombstone> {
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
        vacuum::lmaster_of(&self.vnn_map.map, key, self.pnn)
    }

    /// A recovery has replaced the database: read-only copies, and what was to be deleted, are void.
    pub fn replaced(&mut self, id: DbId) {
        self.forget_delegations(id);
        let Some(db) = self.databases.get_mut(&id) else { return };
        db.deletions.take();
        db.fetches.forget();
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
                self.reply_call(cx, origin, reply.status, reply.data);
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

    /// A database has been thawed: what waited for it goes on, and every call that this node has
    /// under way is sent again (the only resend there is).
    pub fn thawed(&mut self, id: DbId) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        let generation = db.generation;
        self.injected.extend(db.frozen.drain(..));
        // What a change of an earlier epoch has held back is sent again by its senders.
        db.dmaster_changes.retain(|_, change| change.generation == generation);
        db.fetches.forget();
        self.forget_calls(|call| call.db == id && call.asker == Asker::Vacuum);
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

    /// Nobody waits for these any more: who waits behind them goes on.
    fn forget_calls(&mut self, nobodys: impl Fn(&PendingCall) -> bool) {
        let mut orphaned = Vec::new();
        self.pending.retain(|call| {
            let keep = !nobodys(call);
            if !keep {
                orphaned.push((call.db, call.key.clone()));
            }
            keep
        });
        self.counters.pending_calls = self.pending.len() as u64;
        for (db, key) in orphaned {
            self.release_deferred_fetch(db, &key);
        }
    }

    /// A local client has gone: its calls go on in the cluster, their results are nobody's.
    pub fn client_gone(&mut self, client: ClientId) {
        self.forget_calls(|call| call.asker.is(client));
        let of_client = |parked: &Parked| matches!(parked.origin, Origin::Client { client: owner, .. } if owner == client);
        self.injected.retain(|parked| !of_client(parked));
        for db in self.databases.values_mut() {
            db.forget(&of_client);
        }
        // A packet that waits for its chain stays: the grant has to find it to give the lock back.
    }
}
