//! Freeze, thaw, and what becomes of a node that goes inactive.
//!
//! Invariants
//! - A freeze that a thaw has overtaken changes nothing when its outcome comes
//!   ([`Database::freezes`](super::state::Database::freezes)).
//! - The mark "invalid records" goes only when a recovery has replaced them: neither a freeze of
//!   everything that fails nor a thaw takes it, so that stale records never win a recovery. (In C
//!   both do.)
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.8, 1.9; `ctdb/server/ctdb_freeze.c`.

use ringmaster_protocol::{DbId, Generation, database::DbFlags, process::RecMode};

use super::{
    Ask, NodeCx, Outcome, Tell,
    controls::{
        addresses::release_all,
        statistics::{count_lock, seconds_between},
    },
    state::{Database, FreezeState},
    world::DataAsk,
};
use crate::plane::join_all;

impl Database {
    /// Neither persistent nor replicated.
    #[must_use]
    pub const fn is_volatile(&self) -> bool {
        !self.flags.intersects(DbFlags(DbFlags::PERSISTENT.0 | DbFlags::REPLICATED.0))
    }

    /// Records may be looked at: nobody has frozen it, or a recovery transaction is open.
    #[must_use]
    pub fn is_accessible(&self) -> bool {
        self.freeze == FreezeState::None || self.transaction.is_some()
    }
}

/// Freezes a database and waits until it is; `false` if it could not be frozen, has been thawed
/// meanwhile, or does not exist.
pub(super) async fn freeze(cx: &NodeCx, id: DbId) -> bool {
    let number = {
        let mut state = cx.state_mut();
        let Some(db) = state.database_mut(id) else { return false };
        if db.freeze == FreezeState::None {
            db.freeze = FreezeState::Pending;
            db.freezes += 1;
            cx.spawn(take_locks(cx.clone(), id, db.freezes));
        }
        db.freezes
    };
    let pending = move |db: &Database| db.freezes == number && db.freeze == FreezeState::Pending;
    cx.until(move |state| !state.database(id).is_some_and(pending)).await;
    let state = cx.state();
    state.database(id).is_some_and(|db| db.freezes == number && db.freeze == FreezeState::Frozen)
}

async fn take_locks(cx: NodeCx, id: DbId, number: u64) {
    let started = cx.now();
    cx.state_mut().counters.locks.num_current += 1;
    let outcome = cx.ask(Ask::Data(DataAsk::Freeze(id))).await;
    let waited = seconds_between(started, cx.now());
    let mut state = cx.state_mut();
    count_lock(&mut state.counters.locks, outcome == Outcome::Done, waited);
    let Some(db) = state.database_mut(id).filter(|db| db.freezes == number) else { return };
    db.freeze = match outcome {
        Outcome::Done => FreezeState::Frozen,
        other => {
            tracing::error!(%id, ?other, "cannot freeze the database");
            FreezeState::None
        }
    };
}

/// Ends a freeze, complete or not, with its transaction and push; `false` for an unknown database.
pub(super) async fn thaw(cx: &NodeCx, id: DbId) -> bool {
    let generation = {
        let mut state = cx.state_mut();
        let Some(db) = state.database_mut(id) else { return false };
        db.freezes += 1;
        db.freeze = FreezeState::None;
        db.transaction = None;
        if let Some(push) = db.push.take() {
            cx.tell(Tell::ForgetSrvid(push.srvid));
            state.mailbox.retain(|(srvid, _)| *srvid != push.srvid);
        }
        state.database(id).map(|db| db.generation)
    };
    let generation = generation.filter(|generation| *generation != Generation::INVALID);
    cx.ask(Ask::Data(DataAsk::Thaw(id, generation))).await;
    true
}

/// Freezes everything, because the node goes inactive: volatile records become worthless.
pub(super) async fn freeze_all(cx: &NodeCx) -> bool {
    let ids: Vec<DbId> = {
        let mut state = cx.state_mut();
        if state.frozen_all == FreezeState::None {
            state.frozen_all = FreezeState::Pending;
        }
        for db in state.databases.iter_mut().filter(|db| db.is_volatile()) {
            db.invalid_records = true;
        }
        state.databases.iter().map(|db| db.id).collect()
    };
    let freezes = ids.into_iter().map(|id| Box::pin(freeze(cx, id)));
    let all = join_all(freezes.collect()).await.into_iter().all(|frozen| frozen);
    cx.state_mut().frozen_all = if all { FreezeState::Frozen } else { FreezeState::None };
    all
}

/// Thaws everything.
pub(super) async fn thaw_all(cx: &NodeCx) {
    cx.state_mut().frozen_all = FreezeState::None;
    let ids: Vec<DbId> = cx.state().databases.iter().map(|db| db.id).collect();
    join_all(ids.into_iter().map(|id| Box::pin(thaw(cx, id))).collect()).await;
}

/// The node has been stopped or banned: its calls are void, a recovery must follow, its databases
/// are frozen from the next moment on. Published, and without public addresses, when this returns.
pub(super) async fn become_inactive(cx: &NodeCx) {
    let asks: Vec<_> = {
        let mut state = cx.state_mut();
        state.vnn_map.generation = Generation::INVALID;
        state.recovery_mode = RecMode::Active;
        let void = |db: &mut Database| {
            db.generation = Generation::INVALID;
            cx.ask(Ask::Data(DataAsk::SetGeneration(db.id, Generation::INVALID)))
        };
        state.databases.iter_mut().map(void).collect()
    };
    join_all(asks).await;
    cx.ask(Ask::Data(DataAsk::Publish)).await;
    let sequence = cx.clone();
    cx.spawn(async move {
        freeze_all(&sequence).await;
    });
    release_all(cx).await;
}
