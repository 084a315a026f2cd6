//! When vacuum rounds run, and what they ask of other nodes.
//!
//! Role: pacing (one round at a time on a node) and the controls; the rounds themselves are the
//! data plane's. A round ends with a freeze: the records are the recovery's then.
//! Origin: `docs/spec/cluster-semantics.md` 3.2-3.4; `ctdb/server/ctdb_vacuum.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId, control::ControlRequest, database::DbVacuum, process::RecMode, record::RecBuffer,
    tunable::Tunable, wire::Encode,
};

use super::answer::{bytes, data, refused, success};
use crate::{
    node::{
        Ask, NodeCx, Outcome, State,
        state::FreezeState,
        world::{ControlAnswer, DataAsk},
    },
    plane::first_of,
};

/// A round that another one keeps from running is tried again after this long, in milliseconds.
const COLLISION_MS: u64 = 500;

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::DbVacuum(DbVacuum { db, full_vacuum_run }) => {
            // C crashes when asked for a database without vacuum queues.
            let possible = possible(&cx.state(), db) && !cx.state().vacuuming;
            success(possible && round(cx, db, full_vacuum_run).await)
        }
        ControlRequest::VacuumFetch(keys) => {
            let known = cx.state().database(keys.db()).is_some();
            let ask = DataAsk::VacuumFetch { db: keys.db(), buffer: keys.to_bytes() };
            success(known && data(cx, ask).await)
        }
        ControlRequest::TryDeleteRecords(records) => try_delete(cx, &records).await,
        other => return ControlFlow::Continue(other),
    })
}

async fn try_delete(cx: &NodeCx, records: &RecBuffer<'_>) -> ControlAnswer {
    let db = records.db();
    if cx.state().database(db).is_none() {
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

/// One round; `false` if it failed, took too long, or was ended by a freeze.
async fn round(cx: &NodeCx, db: DbId, full: bool) -> bool {
    let deadline = {
        let mut state = cx.state_mut();
        state.vacuuming = true;
        cx.now().plus_seconds(state.tunable(Tunable::VacuumMaxRunTime))
    };
    let ask = cx.ask(Ask::Data(DataAsk::Vacuum { db, full }));
    let frozen = |state: &State| state.databases.iter().any(|db| db.freeze != FreezeState::None);
    let gone = move |state: &State| state.database(db).is_none();
    let ended = cx.until_or(deadline, move |state| frozen(state) || gone(state));
    let outcome = first_of(ask, ended).await;
    cx.state_mut().vacuuming = false;
    outcome == Ok(Outcome::Done)
}

/// Runs rounds for a database as long as it is attached, if it is volatile.
pub(super) fn schedule(cx: &NodeCx, id: DbId) {
    if cx.state().database(id).is_some_and(crate::node::state::Database::is_volatile) {
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
