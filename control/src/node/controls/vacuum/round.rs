//! One vacuum round: what is empty goes, after everybody who may have a copy has let go of it.
//!
//! Role: whom to ask, in which order, and when to give up. What is decided about a single record is
//! the data plane's (`ringmaster_dataplane::record::vacuum`).
//! Invariants
//! - A record that others may have is deleted here only after every member of the generation has
//!   deleted its copy, absent ones too: one that comes back before a recovery brings its old copy
//!   with it. (C asks only those it is connected to.) So with a member absent such records stay.
//! - The node that the record came from has the newest copy, an empty one: it is asked last. If this
//!   node died after it had deleted that, an older copy with data could win the recovery. (C asks in
//!   the order of the numbers.)
//! - A round ends with a freeze, with a recovery, and after `VacuumMaxRunTime`: what it has not
//!   looked at is found by a later full round.
//! - A round works in steps with a pause between them, so that clients hardly notice it.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.3; `ctdb/server/ctdb_vacuum.c`.

use std::collections::BTreeSet;

use ringmaster_protocol::{
    DbId, Pnn, Srvid,
    control::ControlOpcode,
    control_packet::ControlFlags,
    process::RecMode,
    record::{RecBuffer, RecBufferBuilder},
    tunable::Tunable,
    wire::Decode,
};

use crate::{
    node::{
        Ask, NodeCx, Outcome, State,
        controls::{
            answer::data,
            statistics::{add_latency, seconds_between},
        },
        state::FreezeState,
        world::{ControlAnswer, ControlFailure, DataAsk, OutgoingControl},
    },
    plane::first_of,
};

/// Between two steps, in milliseconds: whoever was kept from a chain or the processor gets it.
const PAUSE_MS: u64 = 5;

/// One round; `false` if it failed, took too long, or was ended by a freeze or a recovery.
pub(super) async fn round(cx: &NodeCx, db: DbId, full: bool) -> bool {
    let started = cx.now();
    let deadline = {
        let mut state = cx.state_mut();
        state.vacuuming = true;
        started.plus_seconds(state.tunable(Tunable::VacuumMaxRunTime))
    };
    let frozen = |state: &State| state.databases.iter().any(|db| db.freeze != FreezeState::None);
    let recovers = |state: &State| state.recovery_mode == RecMode::Active;
    let gone = move |state: &State| state.database(db).is_none();
    let over = cx.until_or(deadline, move |state| frozen(state) || recovers(state) || gone(state));
    let ended = first_of(Box::pin(steps(cx, db, full)), over).await;
    let mut state = cx.state_mut();
    state.vacuuming = false;
    let latency = state.counters.vacuum_latency.entry(db).or_default();
    add_latency(latency, seconds_between(started, cx.now()));
    ended == Ok(true)
}

async fn steps(cx: &NodeCx, db: DbId, full: bool) -> bool {
    if !data(cx, DataAsk::VacuumBegin { db, full }).await {
        return false;
    }
    let mut deleted = 0;
    loop {
        let outcome = cx.ask(Ask::Data(DataAsk::VacuumStep(db))).await;
        let Outcome::Vacuumed(step) = outcome else { return false };
        deleted += step.deleted;
        for (lmaster, keys) in step.fetch {
            let answer = control(cx, lmaster, ControlOpcode::VACUUM_FETCH, keys).await;
            if !matches!(answer, Some(ControlAnswer { status: 0, .. })) {
                tracing::info!(%db, %lmaster, "a lmaster does not fetch records for vacuuming");
            }
        }
        for (last, records) in step.delete {
            deleted += delete(cx, db, last, records).await;
        }
        if !step.more {
            break;
        }
        cx.sleep(PAUSE_MS).await;
    }
    if deleted > 0 {
        tracing::debug!(%db, deleted, full, "vacuumed");
    }
    let repack_limit = cx.state().tunable(Tunable::RepackLimit);
    data(cx, DataAsk::MergeFreeBlocks(db, repack_limit)).await
}

/// Everybody else who may have a copy of a record; `None` if one of them cannot be asked. Nodes
/// without the lmaster capability are in no map, and have records all the same.
fn keepers(state: &State) -> Option<Vec<Pnn>> {
    let active = state.active();
    let members = state.vnn_map.map.iter().chain(&state.departed);
    let here = members.copied().all(|pnn| active.contains(&pnn));
    here.then(|| active.into_iter().filter(|pnn| *pnn != state.pnn()).collect())
}

/// Has everybody delete its copies, one after the other as in C, and then deletes what nobody has
/// refused. How many that were.
async fn delete(cx: &NodeCx, db: DbId, last: Option<Pnn>, mut records: Vec<u8>) -> u32 {
    let (generation, asked) = {
        let state = cx.state();
        let Some(mut keepers) = keepers(&state) else {
            tracing::debug!(%db, "a member is absent: records that it may have stay");
            return 0;
        };
        // A sort that keeps the order of the others.
        keepers.sort_by_key(|pnn| Some(*pnn) == last);
        (state.vnn_map.generation, keepers)
    };
    for to in &asked {
        let answer = control(cx, *to, ControlOpcode::TRY_DELETE_RECORDS, records.clone()).await;
        let refused = answer.filter(|answer| answer.status == 0).map(|answer| answer.data);
        let left = refused.and_then(|refused| without(&records, &refused));
        let Some(left) = left else {
            tracing::info!(%db, %to, "a node does not delete its copies for vacuuming");
            return 0;
        };
        records = left;
    }
    // Who has come meanwhile may have brought a copy.
    let still = keepers(&cx.state()).is_some_and(|now| now.iter().all(|pnn| asked.contains(pnn)));
    if !still || cx.state().vnn_map.generation != generation {
        return 0;
    }
    match cx.ask(Ask::Data(DataAsk::VacuumDelete { db, buffer: records })).await {
        Outcome::Count(deleted) => deleted,
        _ => 0,
    }
}

/// The records of a buffer that are not in the other one; `None` if that makes no sense.
fn without(records: &[u8], refused: &[u8]) -> Option<Vec<u8>> {
    let (records, refused) = (RecBuffer::from_bytes(records), RecBuffer::from_bytes(refused));
    let (Ok(records), Ok(refused)) = (records, refused) else { return None };
    let refused: BTreeSet<&[u8]> = refused.iter().map(|record| record.key).collect();
    let mut left = RecBufferBuilder::new(records.db());
    for record in records.iter().filter(|record| !refused.contains(record.key)) {
        left.push(&record);
    }
    Some(left.into_bytes())
}

/// Asks a node; `None` without an answer.
async fn control(
    cx: &NodeCx,
    to: Pnn,
    opcode: ControlOpcode,
    data: Vec<u8>,
) -> Option<ControlAnswer> {
    let timeout_s = cx.state().tunable(Tunable::ControlTimeout);
    let (srvid, flags) = (Srvid(0), ControlFlags::NONE);
    let control = OutgoingControl { to, opcode, srvid, flags, client: None, data, timeout_s };
    match cx.ask(Ask::Control(control)).await {
        Outcome::Reply(Ok(answer)) => Some(answer),
        Outcome::Reply(Err(ControlFailure::TimedOut)) => {
            cx.state_mut().counters.control_timeouts += 1;
            None
        }
        _ => None,
    }
}
