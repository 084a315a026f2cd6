//! Records that this node fetches because it is their lmaster and another node wants them deleted.
//!
//! Role: the receiving end of `VACUUM_FETCH`: calls on behalf of nobody, a few at a time. What
//! arrives empty is scheduled for deletion by the store rule; the next round looks at it.
//! Invariants
//! - Nothing waits for a chain here, and no client waits for any of it: what is busy or is being
//!   fetched for a client anyway is left to a later full round of its dmaster.
//! - A recovery empties the queue, and no fetch is sent again: who is lmaster may have changed.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.3 step 3; `ctdb/server/ctdb_vacuum.c`.

use std::collections::BTreeSet;

use ringmaster_protocol::{
    DbId,
    call::{CallFlags, CallId, ReqCall},
};

use super::{
    Asker, Context, LockOutcome, Output, Parked, RecordEngine, RecordStore, Work, call::Wanted,
    vacuum::wants_fetch,
};

/// Fetches of one database under way in one shard. (C: all at once, and its round waits for the
/// slowest.)
const AT_ONCE: usize = 32;

/// Keys that wait; more are left to a later full round of their dmasters.
const WAITING_MAX: usize = 100_000;

/// Keys to be fetched.
#[derive(Debug, Default)]
pub(super) struct FetchQueue {
    waiting: BTreeSet<Box<[u8]>>,
    under_way: usize,
    /// Work for the next turn has been put aside.
    awake: bool,
}

impl FetchQueue {
    /// One under way has ended, with the record here or without it.
    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn forget(&mut self) {
        self.waiting.clear();
        self.under_way = 0;
    }
}

impl RecordEngine {
    /// Another node has a record of ours for vacuuming (`VACUUM_FETCH`). `false` for an unknown
    /// database.
    pub fn vacuum_fetch(&mut self, id: DbId, key: &[u8]) -> bool {
        let Some(db) = self.databases.get_mut(&id) else { return false };
        if db.fetches.waiting.len() < WAITING_MAX {
            db.fetches.waiting.insert(key.into());
        }
        self.wake_fetches(id);
        true
    }

    /// There is room for the next ones: they are looked at in the engine's next turn.
    pub(super) fn wake_fetches(&mut self, id: DbId) {
        let origin = self.own_origin();
        let Some(db) = self.databases.get_mut(&id) else { return };
        let fetches = &mut db.fetches;
        if fetches.awake || fetches.waiting.is_empty() || fetches.under_way >= AT_ONCE {
            return;
        }
        fetches.awake = true;
        self.injected.push_back(Parked { origin, work: Work::Fetches { db: id } });
    }

    /// Starts as many fetches as may be under way.
    pub(super) fn start_fetches<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        id: DbId,
    ) {
        // Each key is looked at once, so that a turn stays bounded.
        for _ in 0..AT_ONCE {
            let Some(db) = self.databases.get_mut(&id) else { return };
            db.fetches.awake = false;
            if db.fetches.under_way >= AT_ONCE {
                return;
            }
            let Some(key) = db.fetches.waiting.pop_first() else { return };
            if self.fetch_to_delete(cx, id, &key)
                && let Some(db) = self.databases.get_mut(&id)
            {
                db.fetches.under_way += 1;
            }
        }
        self.wake_fetches(id);
    }

    /// Whether a call has been sent.
    fn fetch_to_delete<S: RecordStore, O: Output>(
        &mut self,
        cx: &mut Context<'_, S, O>,
        db: DbId,
        key: &[u8],
    ) -> bool {
        let fetched_anyway = self.deferred_fetch_of(db, key).is_some();
        if fetched_anyway || self.is_between_epochs(db) || self.lmaster(key) != self.pnn {
            return false;
        }
        if self.try_lock(cx, db, key) != LockOutcome::Locked {
            return false;
        }
        let mut value = std::mem::take(&mut self.value);
        let known = cx.store.fetch(db, key, &mut value);
        self.value = value;
        cx.store.unlock(db, key);
        let Ok(Some(known)) = known else { return false };
        if !wants_fetch(Some(known), self.pnn) {
            return false;
        }
        self.counters.total_calls += 1;
        let flags = CallFlags::IMMEDIATE_MIGRATION | CallFlags::VACUUM_MIGRATION;
        let call = ReqCall { flags, db, callid: CallId::NULL, hopcount: 0, key, calldata: b"" };
        let wanted = Wanted { flags, callid: CallId::NULL };
        self.ask_cluster(cx, Asker::Vacuum, &call, wanted, false, known.dmaster).is_ok()
    }
}
