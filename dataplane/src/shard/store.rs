//! The shard's records: TDB files that smbd maps and locks at the same moment.
//!
//! Role: [`RecordStore`] over one storage handle per database; waits for busy chains.
//! Invariants
//! - Between two turns no chain is locked by this shard, except one whose record waits for the
//!   freelist (`deferred`).
//! - One wait per chain, whatever the number of packets; they are served in their order under one
//!   grant.
//! - A frozen database is not touched: its packets come back with the thaw. `Frozen` is only
//!   acknowledged when no wait for one of its chains is left.
//! - A crashed commit of somebody else is undone by the database's worker; until then its packets
//!   wait like those of a busy chain.
//! - A file that turns out to be broken is reported once; from then on it counts as frozen here,
//!   until a recovery has rebuilt it. The daemon lives on.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.8 (what C does with a helper process per wait).

mod deferred;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use ringmaster_protocol::{
    DbId,
    record::{RECORD_HEADER_LEN, RecordHeader},
};
use ringmaster_storage::{
    chain::{StoreMode, Stored},
    engine::AccessError,
    handle::{Database, Handle, HandleError, Locked},
    lock::{LockKind, WaitRefused},
    wait::{ChainWaiter, WaitNotify, WaitState},
};

use self::deferred::Deferred;
use super::limits::{FREELIST_TRIES, SLOW_LOCK};
use crate::record::{FetchError, Latency, LockOutcome, RecordStore, Ticket};

/// Packets that wait for a chain.
struct ChainWait {
    waiter: Option<ChainWaiter>,
    tickets: VecDeque<(Ticket, Instant)>,
    /// When to say that it takes long.
    complain: Instant,
}

impl ChainWait {
    fn new(tickets: VecDeque<(Ticket, Instant)>) -> Self {
        Self { waiter: None, tickets, complain: Instant::now() + SLOW_LOCK }
    }
}

struct Slot {
    handle: Handle,
    frozen: bool,
    broken: bool,
    /// The worker undoes a crashed commit: no chain is handed out.
    recovering: bool,
    waits: BTreeMap<u32, ChainWait>,
    deferred: Deferred,
    locks: LockCounters,
}

/// Counters of lock requests that had to wait, as C counts its helpers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LockCounters {
    /// Waits that ended, either way.
    pub calls: u64,
    /// Waits under way.
    pub current: u64,
    /// Waits that have not got a place yet.
    pub pending: u64,
    /// Waits that failed.
    pub failed: u64,
    /// Duration of successful waits, in milliseconds.
    pub latency: Latency,
    /// Successful waits by duration (C's bounds).
    pub buckets: [u32; 16],
}

impl LockCounters {
    /// Upper bounds of the buckets, in milliseconds; longer waits go into the next one.
    const BOUNDS_MS: [u128; 10] = [1, 10, 100, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000];

    fn granted(&mut self, waited: Duration) {
        let millis = waited.as_millis();
        let bucket = Self::BOUNDS_MS.iter().position(|bound| millis < *bound);
        self.buckets[bucket.unwrap_or(Self::BOUNDS_MS.len())] += 1;
        self.latency.add(waited.as_secs_f64() * 1_000.0);
    }
}

/// A chain that was waited for is locked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Of which database.
    pub db: DbId,
    /// Which chain.
    pub chain: u32,
}

/// See the module.
pub struct ShardStore {
    slots: BTreeMap<DbId, Slot>,
    /// The chain that is locked now, and how often.
    held: Option<(DbId, u32, u32)>,
    notify: Arc<dyn WaitNotify>,
    broken: Vec<(DbId, AccessError)>,
    crashed: Vec<DbId>,
    scratch: Vec<u8>,
}

impl ShardStore {
    /// `notify` wakes the shard when a wait has changed.
    #[must_use]
    pub fn new(notify: Arc<dyn WaitNotify>) -> Self {
        Self {
            slots: BTreeMap::new(),
            held: None,
            notify,
            broken: Vec::new(),
            crashed: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Opens a handle of this shard's own. On the shard's thread.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn attach(
        &mut self,
        id: DbId,
        database: &Arc<Database>,
        max_dead: u32,
        frozen: bool,
    ) -> Result<(), HandleError> {
        let mut handle = database.handle()?;
        handle.set_max_dead(max_dead);
        handle.never_wait();
        let slot = Slot {
            handle,
            frozen,
            broken: false,
            recovering: false,
            waits: BTreeMap::new(),
            deferred: Deferred::default(),
            locks: LockCounters::default(),
        };
        self.slots.insert(id, slot);
        Ok(())
    }

    /// Closes this shard's handle; what it has locked is free then.
    pub fn detach(&mut self, id: DbId) {
        self.slots.remove(&id);
    }

    /// The handle, for work that needs no chain of the record path (sequence number).
    pub fn handle(&mut self, id: DbId) -> Option<&mut Handle> {
        self.slots.get_mut(&id).map(|slot| &mut slot.handle)
    }

    /// From now on the database is left alone. Waits under way are given up; their tickets are
    /// returned: the packets belong to the thaw now.
    pub fn freeze(&mut self, id: DbId) -> Vec<Ticket> {
        let Some(slot) = self.slots.get_mut(&id) else { return Vec::new() };
        slot.frozen = true;
        let waits = std::mem::take(&mut slot.waits);
        slot.locks.current = 0;
        slot.locks.pending = 0;
        waits.into_values().flat_map(|wait| wait.tickets).map(|(ticket, _)| ticket).collect()
    }

    /// The database may be used again.
    pub fn thaw(&mut self, id: DbId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.frozen = false;
            slot.broken = false;
        }
    }

    /// Files that have turned out to be broken since the last call, with what was found.
    pub fn take_broken(&mut self) -> Vec<(DbId, AccessError)> {
        std::mem::take(&mut self.broken)
    }

    /// Databases with a crashed commit, since the last call: to be undone by their workers, then
    /// [`Self::recovered`].
    pub fn take_crashed(&mut self) -> Vec<DbId> {
        std::mem::take(&mut self.crashed)
    }

    /// The crashed commit has been undone: who waits gets another try.
    pub fn recovered(&mut self, id: DbId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.recovering = false;
        }
        self.start_waits(id);
    }

    fn crashed(&mut self, id: DbId) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !slot.recovering
        {
            slot.recovering = true;
            self.crashed.push(id);
        }
    }

    /// When to call [`Self::try_deferred`], while a record waits for the freelist, or
    /// [`Self::take_slow`], while a packet waits for a chain.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let complaints = |slot: &Slot| slot.waits.values().map(|wait| wait.complain).min();
        let slots = self.slots.values();
        slots
            .filter_map(|slot| slot.deferred.next_try().into_iter().chain(complaints(slot)).min())
            .min()
    }

    /// Databases with waits that have become `SLOW_LOCK` longer since they were last told, with the
    /// longest wait.
    pub fn take_slow(&mut self, now: Instant) -> Vec<(DbId, Duration)> {
        let mut slow = Vec::new();
        for (id, slot) in &mut self.slots {
            if slot.waits.is_empty() {
                continue;
            }
            let mut longest = None;
            for wait in slot.waits.values_mut().filter(|wait| now >= wait.complain) {
                wait.complain = now + SLOW_LOCK;
                let since = wait.tickets.front().map(|(_, since)| now.duration_since(*since));
                longest = longest.max(since);
            }
            slow.extend(longest.map(|waited| (*id, waited)));
        }
        slow
    }

    /// Tries again to write what waits for the freelist.
    pub fn try_deferred(&mut self) {
        let now = Instant::now();
        let due = |slot: &Slot| slot.deferred.next_try().is_some_and(|at| now >= at);
        let ids = self.slots.iter().filter(|(_, slot)| due(slot)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            let (chains, mut failed) = slot.deferred.try_again(&mut slot.handle, now);
            for chain in chains {
                if let Err(error) = slot.handle.unlock_chain(chain) {
                    failed = Some(error);
                }
            }
            if let Some(error) = failed {
                self.report(id, error);
            }
            self.start_waits(id);
        }
    }

    /// Counters of waits, per database.
    pub fn lock_counters(&self) -> impl Iterator<Item = (DbId, &LockCounters)> {
        self.slots.iter().map(|(id, slot)| (*id, &slot.locks))
    }

    /// Zeroes the counters.
    pub fn reset_counters(&mut self) {
        for slot in self.slots.values_mut() {
            slot.locks = LockCounters::default();
        }
    }

    /// Waits for the chain of `key` on behalf of `ticket`.
    pub fn wait(&mut self, id: DbId, key: &[u8], ticket: Ticket) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let chain = slot.handle.database().chain_of(key);
        let wait = slot.waits.entry(chain).or_insert_with(|| ChainWait::new(VecDeque::new()));
        wait.tickets.push_back((ticket, Instant::now()));
        self.start_waits(id);
    }

    /// Starts the waits that have no waiter yet, as far as the limit of the database allows.
    fn start_waits(&mut self, id: DbId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        for (chain, wait) in &mut slot.waits {
            // What is ours has no wait: the end of the deferral or of the worker's job starts it.
            if wait.waiter.is_some() || slot.recovering || slot.deferred.holds(*chain) {
                continue;
            }
            let Some(locks) = slot.handle.locks().file_locks() else { return };
            let notify = Arc::clone(&self.notify);
            match locks.wait_for_chain(*chain, LockKind::Write, None, notify) {
                Ok(waiter) => wait.waiter = Some(waiter),
                // Its end, or the end of another one, is notified: tried again then.
                Err(WaitRefused::LimitReached { .. } | WaitRefused::AlreadyWaiting { .. }) => {}
                Err(refused) => tracing::warn!(db = %id, chain, error = %refused, "cannot wait"),
            }
        }
        let started = slot.waits.values().filter(|wait| wait.waiter.is_some()).count() as u64;
        slot.locks.current = started;
        slot.locks.pending = slot.waits.len() as u64 - started;
    }

    /// After a notification: the next wait that is over, if any. A granted chain is locked then,
    /// until [`Self::end_grant`]; its packets are in the returned order.
    pub fn next_grant(&mut self) -> Option<(Granted, Vec<Ticket>)> {
        assert!(self.held.is_none(), "grants are taken between turns");
        let ids: Vec<DbId> = self.slots.keys().copied().collect();
        for id in ids {
            self.start_waits(id);
            let slot = self.slots.get_mut(&id)?;
            let over = slot.waits.iter().find_map(|(chain, wait)| {
                let state = wait.waiter.as_ref()?.state();
                (state != WaitState::Waiting).then_some(*chain)
            });
            let Some(chain) = over else { continue };
            let mut wait = slot.waits.remove(&chain)?;
            let waiter = wait.waiter.take()?;
            slot.locks.calls += 1;
            slot.locks.current = slot.locks.current.saturating_sub(1);
            match slot.handle.adopt(waiter).map(|locked| locked.map(Locked::keep)) {
                Ok(Some(())) => {
                    for (_, since) in &wait.tickets {
                        slot.locks.granted(since.elapsed());
                    }
                    self.held = Some((id, chain, 1));
                    let tickets = wait.tickets.into_iter().map(|(ticket, _)| ticket).collect();
                    return Some((Granted { db: id, chain }, tickets));
                }
                Ok(None) => {
                    slot.waits.insert(chain, ChainWait { waiter: None, ..wait });
                }
                Err(AccessError::NeedsRecovery) => {
                    slot.waits.insert(chain, ChainWait { waiter: None, ..wait });
                    self.crashed(id);
                }
                Err(error) => {
                    slot.locks.failed += 1;
                    let waiter = None;
                    slot.waits.insert(chain, ChainWait { waiter, ..wait });
                    self.report(id, error);
                }
            }
        }
        None
    }

    /// One more lock for a ticket of a grant: the engine gives each one back.
    pub fn grant_again(&mut self) {
        if let Some((_, _, depth)) = &mut self.held {
            *depth += 1;
        }
    }

    /// Gives the granted chain back.
    pub fn end_grant(&mut self, granted: Granted) {
        self.release(granted.db, granted.chain);
        self.start_waits(granted.db);
    }

    fn release(&mut self, id: DbId, chain: u32) {
        match &mut self.held {
            Some((db, locked, depth)) if (*db, *locked) == (id, chain) => {
                *depth -= 1;
                if *depth > 0 {
                    return;
                }
            }
            other => panic!("unlock of {id} chain {chain} while {other:?} is held"),
        }
        self.held = None;
        if self.slots.get(&id).is_some_and(|slot| slot.deferred.holds(chain)) {
            return;
        }
        let unlocked = self.slots.get_mut(&id).map(|slot| slot.handle.unlock_chain(chain));
        if let Some(Err(error)) = unlocked {
            self.report(id, error);
        }
    }

    fn report(&mut self, id: DbId, error: AccessError) {
        if let Some(slot) = self.slots.get_mut(&id)
            && !slot.broken
        {
            slot.broken = true;
            slot.frozen = true;
            self.broken.push((id, error));
        }
    }

    /// Whether that database is attached.
    #[must_use]
    pub fn knows(&self, id: DbId) -> bool {
        self.slots.contains_key(&id)
    }

    /// Chain of a key in that database's file; `None` for an unknown database.
    #[must_use]
    pub fn chain_of(&self, id: DbId, key: &[u8]) -> Option<u32> {
        Some(self.slots.get(&id)?.handle.database().chain_of(key))
    }

    fn slot_of(&mut self, id: DbId, key: &[u8]) -> Option<(&mut Slot, u32)> {
        let slot = self.slots.get_mut(&id)?;
        let chain = slot.handle.database().chain_of(key);
        Some((slot, chain))
    }

    /// Runs `work` on the chain of `key`, which is locked.
    fn on_chain<T>(
        &mut self,
        id: DbId,
        key: &[u8],
        work: impl FnOnce(&mut Locked<'_>) -> Result<T, AccessError>,
    ) -> Result<T, FetchError> {
        let chain = self.chain_of(id, key).ok_or(FetchError)?;
        assert!(
            matches!(self.held, Some((db, locked, _)) if (db, locked) == (id, chain)),
            "work on a chain needs its lock"
        );
        let slot = self.slots.get_mut(&id).ok_or(FetchError)?;
        let mut locked = slot.handle.resume_chain(chain);
        let done = work(&mut locked);
        locked.keep();
        done.map_err(|error| {
            self.report(id, error);
            FetchError
        })
    }
}

impl RecordStore for ShardStore {
    fn try_lock(&mut self, db: DbId, key: &[u8]) -> LockOutcome {
        let Some(slot) = self.slots.get_mut(&db) else { return LockOutcome::Failed };
        let chain = slot.handle.database().chain_of(key);
        if let Some((held_db, held_chain, depth)) = &mut self.held {
            assert_eq!((*held_db, *held_chain), (db, chain), "one chain at a time");
            *depth += 1;
            return LockOutcome::Locked;
        }
        if slot.frozen {
            return LockOutcome::Frozen;
        }
        if slot.recovering || slot.deferred.holds(chain) {
            return LockOutcome::Busy;
        }
        // Who waits already comes first.
        if !slot.waits.is_empty() && slot.waits.contains_key(&chain) {
            return LockOutcome::Busy;
        }
        let locked = slot.handle.try_lock_chain(chain, LockKind::Write);
        match locked.map(|locked| locked.map(Locked::keep)) {
            Ok(Some(())) => {
                self.held = Some((db, chain, 1));
                LockOutcome::Locked
            }
            Ok(None) => LockOutcome::Busy,
            Err(AccessError::NeedsRecovery) => {
                self.crashed(db);
                LockOutcome::Busy
            }
            Err(error) => {
                self.report(db, error);
                LockOutcome::Frozen
            }
        }
    }

    fn unlock(&mut self, db: DbId, key: &[u8]) {
        if let Some(chain) = self.chain_of(db, key) {
            self.release(db, chain);
        }
    }

    fn fetch(
        &mut self,
        db: DbId,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<Option<RecordHeader>, FetchError> {
        value.clear();
        let deferred = self.slots.get(&db).and_then(|slot| {
            let chain = slot.handle.database().chain_of(key);
            slot.deferred.record(chain, key)
        });
        if let Some((header, data)) = deferred.and_then(RecordHeader::split) {
            value.extend_from_slice(data);
            return Ok(Some(header));
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let found = self.on_chain(db, key, |locked| locked.fetch(key, &mut scratch));
        let header = match found {
            Ok(true) => RecordHeader::split(&scratch).map(|(header, data)| {
                value.extend_from_slice(data);
                header
            }),
            Ok(false) | Err(FetchError) => None,
        };
        self.scratch = scratch;
        found.map(|_| header)
    }

    fn store(
        &mut self,
        db: DbId,
        key: &[u8],
        header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        let bytes: [u8; RECORD_HEADER_LEN] = header.to_array();
        let stored = self.on_chain(db, key, |locked| {
            let mut stored = locked.store(key, &[&bytes, value], StoreMode::Replace)?;
            for _ in 0..FREELIST_TRIES {
                if stored != Stored::Busy {
                    break;
                }
                std::thread::yield_now();
                stored = locked.store(key, &[&bytes, value], StoreMode::Replace)?;
            }
            Ok(stored)
        })?;
        if let Some((slot, chain)) = self.slot_of(db, key) {
            match stored {
                Stored::Busy => slot.deferred.put(chain, key, &bytes, value),
                Stored::Done => slot.deferred.forget(chain, key),
                Stored::Exists | Stored::Missing => return Err(FetchError),
            }
        }
        Ok(())
    }

    fn delete(&mut self, db: DbId, key: &[u8]) -> Result<(), FetchError> {
        // A busy freelist does not delay this: the record stays behind, dead.
        self.on_chain(db, key, |locked| locked.delete(key))?;
        if let Some((slot, chain)) = self.slot_of(db, key) {
            slot.deferred.forget(chain, key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_storage::{ltdb::DatabaseKind, open::OpenOptions};

    use super::*;

    const DB: DbId = DbId(77);

    struct Nobody;

    impl WaitNotify for Nobody {
        fn wait_changed(&self, _: u32) {}
    }

    #[test]
    fn a_long_wait_is_told_again_and_again_and_no_longer_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let flags = DatabaseKind::Volatile.tdb_flags(false);
        let options = OpenOptions::create(101, flags);
        let path = folder.path().join("test.tdb.0");
        let mut stranger = ringmaster_storage::open::open(&path, &options).unwrap();
        let mut store = ShardStore::new(Arc::new(Nobody));
        store.attach(DB, stranger.database(), 5, false).unwrap();
        let chain = stranger.database().chain_of(b"key");
        stranger.lock_chain(chain, LockKind::Write).unwrap().keep();
        assert_eq!(store.try_lock(DB, b"key"), LockOutcome::Busy);
        assert_eq!(store.next_deadline(), None);
        store.wait(DB, b"key", Ticket(1));
        let soon = store.next_deadline().expect("somebody waits");
        assert_eq!(store.take_slow(Instant::now()), []);
        for round in 1..4 {
            let told = store.take_slow(soon + SLOW_LOCK * round);
            assert_eq!(told.len(), 1, "{told:?}");
            assert!(told[0].1 >= SLOW_LOCK * round, "{told:?}");
            assert_eq!(store.take_slow(soon + SLOW_LOCK * round), []);
        }
        assert_eq!(store.freeze(DB), [Ticket(1)]);
        assert_eq!(store.take_slow(soon + SLOW_LOCK * 9), []);
        stranger.unlock_chain(chain).unwrap();
    }
}
