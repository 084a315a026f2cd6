//! What one shard knows of one database.

use std::collections::{BTreeMap, VecDeque};

use ringmaster_protocol::{
    Generation, Pnn, database::DbFlags, hash::jenkins, record::RecordHeader,
};

use super::{
    Micros, Parked, fetches::FetchQueue, hot::MigrationCounts, lease::Lease, readonly::Revoke,
    vacuum::Tombstone,
};

/// Keys scheduled for deletion that are kept; more wait for a full vacuum run to find them.
const DELETIONS_MAX: usize = 1_000_000;

/// A record that moved often within a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotKey {
    /// Migrations to this node in one second.
    pub count: u32,
    /// Its key.
    pub key: Box<[u8]>,
}

/// Counters of one database on one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DbStatistics {
    /// Read-only copies handed out.
    pub ro_delegations: u64,
    /// Revokes completed.
    pub ro_revokes: u64,
    /// Calls by hop count.
    pub hop_count_bucket: [u32; 16],
    /// Hottest keys, ascending by count, at most ten.
    pub hot_keys: Vec<HotKey>,
}

/// Packets held back per key.
pub(super) type Queues<T> = BTreeMap<Box<[u8]>, T>;

#[derive(Debug)]
pub(super) struct DeferredFetch {
    /// Tells this queue from an earlier one of the same key.
    pub(super) opened: u64,
    pub(super) waiting: VecDeque<Parked>,
}

/// Calls of other nodes for a record whose dmaster is just changing here.
#[derive(Debug)]
pub(super) struct DmasterChange {
    pub(super) generation: Generation,
    pub(super) waiting: VecDeque<Parked>,
}

#[derive(Debug)]
pub(super) struct Sticky {
    pub(super) until: Micros,
    /// Calls held while the record is pinned here; `None` when it is not pinned.
    pub(super) pinned: Option<VecDeque<Parked>>,
}

#[derive(Debug)]
pub(super) struct Database {
    pub(super) flags: DbFlags,
    pub(super) generation: Generation,
    pub(super) commit_active: bool,
    /// Calls of other nodes that wait for the end of the commit.
    pub(super) committing: VecDeque<Parked>,
    /// Packets that wait for their chain, by key.
    pub(super) waiting: Queues<usize>,
    /// Wait for the thaw.
    pub(super) frozen: VecDeque<Parked>,
    pub(super) deferred_fetches: Queues<DeferredFetch>,
    pub(super) dmaster_changes: Queues<DmasterChange>,
    pub(super) revokes: Queues<Revoke>,
    /// Nodes with a read-only copy, by key (C keeps them in a `.RO` file).
    pub(super) delegates: BTreeMap<Box<[u8]>, Vec<ringmaster_protocol::Pnn>>,
    pub(super) sticky: Queues<Sticky>,
    pub(super) deletions: DeleteQueue,
    pub(super) fetches: FetchQueue,
    pub(super) leases: Queues<Lease>,
    pub(super) migrations: MigrationCounts,
    pub(super) statistics: DbStatistics,
}

impl Database {
    pub(super) fn new(flags: DbFlags, generation: Generation) -> Self {
        Self {
            flags,
            generation,
            commit_active: false,
            committing: VecDeque::new(),
            waiting: BTreeMap::new(),
            frozen: VecDeque::new(),
            deferred_fetches: BTreeMap::new(),
            dmaster_changes: BTreeMap::new(),
            revokes: BTreeMap::new(),
            delegates: BTreeMap::new(),
            sticky: BTreeMap::new(),
            deletions: DeleteQueue::default(),
            fetches: FetchQueue::default(),
            leases: BTreeMap::new(),
            migrations: MigrationCounts::default(),
            statistics: DbStatistics::default(),
        }
    }

    /// Volatile: neither persistent nor replicated.
    pub(super) fn is_volatile(&self) -> bool {
        !self.flags.intersects(DbFlags::PERSISTENT | DbFlags::REPLICATED)
    }

    pub(super) fn is_readonly(&self) -> bool {
        self.flags.intersects(DbFlags::READONLY)
    }

    pub(super) fn is_sticky(&self) -> bool {
        self.flags.intersects(DbFlags::STICKY)
    }

    /// A packet has got its chain, or has given up.
    pub(super) fn no_longer_waits(&mut self, key: &[u8]) {
        if let Some(count) = self.waiting.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(key);
            }
        }
    }

    /// Packets held back in the queues of this database.
    pub(super) fn backlog(&self) -> usize {
        let pinned = self.sticky.values().filter_map(|sticky| sticky.pinned.as_ref());
        self.frozen.len()
            + self.committing.len()
            + self.deferred_fetches.values().map(|queue| queue.waiting.len()).sum::<usize>()
            + self.dmaster_changes.values().map(|change| change.waiting.len()).sum::<usize>()
            + self.revokes.values().map(|revoke| revoke.waiting.len()).sum::<usize>()
            + pinned.map(VecDeque::len).sum::<usize>()
            + self.leases.values().map(|lease| lease.waiting.len()).sum::<usize>()
    }

    /// Drops parked packets for which `gone` says yes.
    pub(super) fn forget(&mut self, gone: &dyn Fn(&Parked) -> bool) {
        self.frozen.retain(|parked| !gone(parked));
        for queue in self.deferred_fetches.values_mut() {
            queue.waiting.retain(|parked| !gone(parked));
        }
        for revoke in self.revokes.values_mut() {
            revoke.waiting.retain(|parked| !gone(parked));
        }
    }
}

/// Empty records that a vacuum round looks at, keyed by hash as in C: two keys of one hash cannot
/// both wait, the second is left to a later full run.
#[derive(Debug, Default)]
pub(super) struct DeleteQueue {
    entries: BTreeMap<u32, Tombstone>,
}

impl DeleteQueue {
    pub(super) fn insert(&mut self, key: &[u8], header: RecordHeader) {
        let hash = jenkins(key);
        let full = self.entries.len() >= DELETIONS_MAX;
        match self.entries.get_mut(&hash) {
            Some(known) if &*known.key == key => known.header = header,
            Some(_) => {}
            None if full => {}
            None => {
                self.entries.insert(hash, Tombstone { key: key.into(), header, came_from: None });
            }
        }
    }

    /// Who has handed over the record, if it is noted at all.
    pub(super) fn came_from(&mut self, key: &[u8], node: Pnn) {
        let known = self.entries.get_mut(&jenkins(key)).filter(|known| &*known.key == key);
        if let Some(known) = known {
            known.came_from = Some(node);
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.entries.is_empty() {
            return;
        }
        let hash = jenkins(key);
        if self.entries.get(&hash).is_some_and(|known| &*known.key == key) {
            self.entries.remove(&hash);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Tombstone> {
        std::mem::take(&mut self.entries).into_values().collect()
    }
}
