//! When vacuum rounds run, and the controls about them.
//!
//! Role: pacing (one round at a time on a node) and answers; `round` is what a round does.
//! Origin: `docs/spec/cluster-semantics.md` 3.2-3.4; `ctdb/server/ctdb_vacuum.c`.

mod round;

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId, control::ControlRequest, database::DbVacuum, process::RecMode, record::RecBuffer,
    tunable::Tunable, wire::Encode,
};

use self::round::round;
use super::answer::{Call, bytes, data, refused, success};
use crate::node::{
    Ask, NodeCx, Outcome, State,
    state::{Database, FreezeState},
    world::{ControlAnswer, DataAsk},
};

/// A round that another one keeps from running is tried again after this long, in milliseconds.
const COLLISION_MS: u64 = 500;

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::DbVacuum(DbVacuum { db, full_vacuum_run }) => {
            // C crashes when asked for a database without vacuum queues.
            let possible = possible(&cx.state(), db) && !cx.state().vacuuming;
            success(possible && round(cx, db, full_vacuum_run).await)
        }
        ControlRequest::VacuumFetch(keys) => {
            let meant = is_meant(&cx.state(), call, keys.db());
            let ask = DataAsk::VacuumFetch { db: keys.db(), buffer: keys.to_bytes() };
            success(meant && data(cx, ask).await)
        }
        ControlRequest::TryDeleteRecords(records) => try_delete(cx, call, &records).await,
        other => return ControlFlow::Continue(other),
    })
}

/// The database is here, has tombstones at all, and whoever asks knows who is its lmaster: what was
/// sent before a recovery is void (C obeys it).
fn is_meant(state: &State, call: &Call, db: DbId) -> bool {
    call.is_current(state) && state.database(db).is_some_and(Database::is_volatile)
}

async fn try_delete(cx: &NodeCx, call: &Call, records: &RecBuffer<'_>) -> ControlAnswer {
    let db = records.db();
    if !is_meant(&cx.state(), call, db) {
        return refused();
    }
    let ask = DataAsk::TryDelete { db, buffer: records.to_bytes() };
    match cx.ask(Ask::Data(ask)).await {
        Outcome::Bytes(left) => bytes(left),
        _ => refused(),
    }
}

/// A round may run: nothing else has a claim on the records.
fn possible(state: &State, id: DbId) -> bool {
    state.recovery_mode == RecMode::Normal
        && state.frozen_all == FreezeState::None
        && state.database(id).is_some_and(|db| db.is_volatile() && db.freeze == FreezeState::None)
}

/// Runs rounds for a database as long as it is attached, if it is volatile.
pub(super) fn schedule(cx: &NodeCx, id: DbId) {
    if cx.state().database(id).is_some_and(Database::is_volatile) {
        cx.spawn(pace(cx.clone(), id));
    }
}

async fn pace(cx: NodeCx, id: DbId) {
    let attached = move |state: &State| state.database(id).is_some();
    let mut fast_rounds = 0;
    let mut wait_ms = interval_ms(&cx.state());
    loop {
        let interval = interval_ms(&cx.state());
        let deadline = cx.now().plus(wait_ms);
        if cx.until_or(deadline, move |state| !attached(state)).await {
            return;
        }
        let longer = interval_ms(&cx.state()).saturating_sub(interval);
        if longer > 0 {
            // The tunable has been raised meanwhile: wait the rest.
            wait_ms = longer;
            continue;
        }
        wait_ms = interval_ms(&cx.state());
        if !possible(&cx.state(), id) {
            continue;
        }
        if cx.state().vacuuming {
            wait_ms = COLLISION_MS;
            continue;
        }
        let fast_max = cx.state().tunable(Tunable::VacuumFastPathCount);
        let full = fast_max > 0 && fast_rounds >= fast_max;
        let ended = round(&cx, id, full).await;
        fast_rounds = if full { 0 } else { fast_rounds } + u32::from(ended);
        wait_ms = interval_ms(&cx.state());
    }
}

fn interval_ms(state: &State) -> u64 {
    u64::from(state.tunable(Tunable::VacuumInterval)).max(1) * 1_000
}
