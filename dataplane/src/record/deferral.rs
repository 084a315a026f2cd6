//! Queues in which calls wait for something of the same key: a migration under way, a change of
//! dmaster, a pinned record.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.4 (deferred fetch), 2.6 steps 2 and 3, 2.11 (sticky).

use std::collections::VecDeque;

use ringmaster_protocol::{DbId, Generation};

use super::{
    Micros, Parked, RecordEngine, Timer,
    database::{DeferredFetch, DmasterChange, Sticky},
};

/// A deferred-fetch queue is let go after this long even if its call is still under way.
const DEFERRED_FETCH_MS: u64 = 30_000;

impl RecordEngine {
    pub(super) fn deferred_fetch_of(&mut self, db: DbId, key: &[u8]) -> Option<&mut DeferredFetch> {
        let db = self.databases.get_mut(&db)?;
        if db.deferred_fetches.is_empty() {
            return None;
        }
        db.deferred_fetches.get_mut(key)
    }

    pub(super) fn open_deferred_fetch(&mut self, now: Micros, id: DbId, key: &[u8]) {
        let Some(db) = self.databases.get_mut(&id) else { return };
        self.next_timer += 1;
        let opened = self.next_timer;
        db.deferred_fetches.insert(key.into(), DeferredFetch { opened, waiting: VecDeque::new() });
        let at = now.plus_millis(DEFERRED_FETCH_MS);
        self.set_timer(at, Timer::DeferredFetch { db: id, key: key.into(), opened });
    }

    /// The call that others waited for has ended: they are processed in their order.
    pub(super) fn release_deferred_fetch(&mut self, db: DbId, key: &[u8]) {
        let Some(db) = self.databases.get_mut(&db) else { return };
        if let Some(queue) = db.deferred_fetches.remove(key) {
            self.injected.extend(queue.waiting);
        }
    }

    /// The queue of a change of dmaster that runs with the same generation.
    pub(super) fn dmaster_change_of(
        &mut self,
        db: DbId,
        key: &[u8],
        generation: Generation,
    ) -> Option<&mut VecDeque<Parked>> {
        let db = self.databases.get_mut(&db)?;
        if db.dmaster_changes.is_empty() {
            return None;
        }
        if db.dmaster_changes.get(key)?.generation != generation {
            db.dmaster_changes.remove(key); // of an epoch that is over: its calls are sent again
            return None;
        }
        db.dmaster_changes.get_mut(key).map(|change| &mut change.waiting)
    }

    /// A dmaster packet is about to be processed: calls for the record wait for its end.
    pub(super) fn open_dmaster_change(&mut self, db: DbId, key: &[u8], generation: Generation) {
        let Some(db) = self.databases.get_mut(&db) else { return };
        let change = DmasterChange { generation, waiting: VecDeque::new() };
        match db.dmaster_changes.get_mut(key) {
            Some(known) if known.generation == generation => {}
            Some(known) => *known = change,
            None => {
                db.dmaster_changes.insert(key.into(), change);
            }
        }
    }

    /// The dmaster packet has been processed.
    pub(super) fn close_dmaster_change(&mut self, db: DbId, key: &[u8]) {
        let Some(db) = self.databases.get_mut(&db) else { return };
        if let Some(change) = db.dmaster_changes.remove(key) {
            self.injected.extend(change.waiting);
        }
    }

    /// The queue of a record that is pinned here.
    pub(super) fn pinned_queue(&mut self, db: DbId, key: &[u8]) -> Option<&mut VecDeque<Parked>> {
        let db = self.databases.get_mut(&db)?;
        if db.sticky.is_empty() || !db.is_sticky() {
            return None;
        }
        db.sticky.get_mut(key)?.pinned.as_mut()
    }

    /// Makes a key sticky that had to be chased over many hops.
    pub(super) fn consider_sticky(&mut self, now: Micros, db: DbId, key: &[u8], hopcount: u32) {
        let limit = self.tunables.hopcount_make_sticky;
        let duration_ms = u64::from(self.tunables.sticky_duration_s) * 1_000;
        let Some(db) = self.databases.get_mut(&db) else { return };
        if !db.is_sticky() || hopcount < limit {
            return;
        }
        let until = now.plus_millis(duration_ms);
        db.sticky
            .entry(key.into())
            .and_modify(|sticky| sticky.until = until)
            .or_insert(Sticky { until, pinned: None });
    }

    /// A sticky record has arrived: it stays for a moment, so that local clients get something done.
    pub(super) fn pin_if_sticky(&mut self, now: Micros, id: DbId, key: &[u8]) {
        let pindown = u64::from(self.tunables.sticky_pindown_ms);
        let Some(db) = self.databases.get_mut(&id) else { return };
        if !db.is_sticky() {
            return;
        }
        let Some(sticky) = db.sticky.get_mut(key) else { return };
        if sticky.until <= now {
            db.sticky.remove(key);
            return;
        }
        if sticky.pinned.is_none() {
            sticky.pinned = Some(VecDeque::new());
            self.set_timer(now.plus_millis(pindown), Timer::Unpin { db: id, key: key.into() });
        }
    }

    pub(super) fn unpin(&mut self, db: DbId, key: &[u8]) {
        let Some(db) = self.databases.get_mut(&db) else { return };
        if let Some(waiting) = db.sticky.get_mut(key).and_then(|sticky| sticky.pinned.take()) {
            self.injected.extend(waiting);
        }
    }
}
