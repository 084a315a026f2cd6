//! Databases: detach, properties, sequence numbers, health.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.2, 4.4, 4.6; `ctdb/server/ctdb_ltdb_server.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId,
    control::{ControlOpcode, ControlRequest},
    database::{DbFlags, DbSeqnum, TdbOpenFlags},
    process::{RecMode, RunState},
    statistics::DbStatistics,
    tunable::Tunable,
    wire::{Decode, Encode},
};

use super::answer::{Call, broadcast_to_others, data, done, payload, publish, refused, success};
use crate::node::{
    Ask, NodeCx, Outcome, State,
    state::Database,
    world::{ControlAnswer, DataAsk, Origin},
};

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    if let ControlRequest::DbDetach(id)
    | ControlRequest::SetDbReadonly(id)
    | ControlRequest::SetDbSticky(id) = control
    {
        no_longer_attaching(cx, id).await;
    }
    ControlFlow::Break(match control {
        ControlRequest::DbDetach(id) => detach(cx, call, id).await,
        ControlRequest::EnableSeqnum(id) => enable_seqnum(cx, id).await,
        ControlRequest::UpdateSeqnum(id) => update_seqnum(cx, call, id).await,
        ControlRequest::SetDbReadonly(id) => set_property(cx, id, DbFlags::READONLY).await,
        ControlRequest::SetDbSticky(id) => set_property(cx, id, DbFlags::STICKY).await,
        ControlRequest::GetDbSeqnum(wanted) => db_seqnum(cx, wanted.db).await,
        ControlRequest::DbSetHealthy(id) => set_healthy(cx, id).await,
        ControlRequest::GetDbStatistics(id) => db_statistics(cx, id).await,
        other => return ControlFlow::Continue(other),
    })
}

/// Another node's announcement of a database may still be under way when the next control about it
/// comes; C has carried it out by then.
async fn no_longer_attaching(cx: &NodeCx, id: DbId) {
    let attaching =
        move |state: &State| state.attaching.iter().any(|name| DbId::from_name(name) == id);
    cx.until(move |state| !attaching(state)).await;
}

/// Changes a database; `None` if it is unknown.
pub(super) fn with_database<T>(
    cx: &NodeCx,
    id: DbId,
    change: impl FnOnce(&mut Database) -> T,
) -> Option<T> {
    cx.state_mut().database_mut(id).map(change)
}

async fn detach(cx: &NodeCx, call: &Call, id: DbId) -> ControlAnswer {
    let allowed = {
        let state = cx.state();
        state.tunable(Tunable::AllowClientDBAttach) == 0
            && state.recovery_mode == RecMode::Normal
            && state.database(id).is_some_and(Database::is_volatile)
    };
    if !allowed {
        return refused();
    }
    match call.from {
        // A client asks for all nodes, this one included.
        Origin::Client(client) => {
            if !cx.state().clients.contains_key(&client) {
                return refused();
            }
            broadcast_to_others(cx, State::connected, ControlOpcode::DB_DETACH, &id.to_bytes());
            detach_here(cx, id).await
        }
        Origin::Node(_, 0) | Origin::Own => detach_here(cx, id).await,
        // A client of another node: its own daemon has to be asked.
        Origin::Node(..) => refused(),
    }
}

async fn detach_here(cx: &NodeCx, id: DbId) -> ControlAnswer {
    {
        let mut state = cx.state_mut();
        state.databases.retain(|db| db.id != id);
        state.counters.vacuum_latency.remove(&id);
        state.traverses.retain(|_, traverse| traverse.db != id);
        for traverse in state.local_traverses.values_mut().filter(|traverse| traverse.db == id) {
            traverse.killed = true;
        }
    }
    let detached = data(cx, DataAsk::Detach(id)).await;
    publish(cx).await;
    success(detached)
}

async fn enable_seqnum(cx: &NodeCx, id: DbId) -> ControlAnswer {
    if cx.state().database(id).is_none() || !data(cx, DataAsk::EnableSeqnum(id)).await {
        return refused();
    }
    let Outcome::Seqnum(seqnum) = cx.ask(Ask::Data(DataAsk::TdbSeqnum(id))).await else {
        return refused();
    };
    let new = with_database(cx, id, |db| {
        let new = db.seqnum.is_none();
        db.seqnum.get_or_insert(seqnum);
        // Clients open the file with the daemon's flags: whoever does so from now on has to count.
        db.open_flags = db.open_flags | TdbOpenFlags::SEQNUM;
        new
    });
    match new {
        None => refused(),
        Some(new) => {
            publish(cx).await;
            if new {
                cx.spawn(propagate_seqnum(cx.clone(), id));
            }
            done()
        }
    }
}

/// Tells the other nodes whenever the database has changed, as long as it is attached.
async fn propagate_seqnum(cx: NodeCx, id: DbId) {
    let known = |state: &State| state.database(id).and_then(|db| db.seqnum);
    loop {
        // A database that is detached and attached again starts a propagation of its own.
        let interval = u64::from(cx.state().tunable(Tunable::SeqnumInterval)).max(1);
        let deadline = cx.now().plus(interval);
        if cx.until_or(deadline, move |state| known(state).is_none()).await {
            return;
        }
        let outcome = cx.ask(Ask::Data(DataAsk::TdbSeqnum(id))).await;
        let Outcome::Seqnum(seqnum) = outcome else { continue };
        let changed = with_database(&cx, id, |db| match &mut db.seqnum {
            Some(last) => std::mem::replace(last, seqnum) != seqnum,
            None => false,
        });
        if changed == Some(true) {
            let data = id.to_bytes();
            broadcast_to_others(&cx, State::active, ControlOpcode::UPDATE_SEQNUM, &data);
        }
    }
}

/// Another node has changed its copy: readers here must look again.
async fn update_seqnum(cx: &NodeCx, call: &Call, id: DbId) -> ControlAnswer {
    let (own, usable) = {
        let state = cx.state();
        let usable = state.database(id).is_some_and(|db| db.unhealthy.is_none());
        (call.node(&state) == state.pnn(), usable)
    };
    if own {
        return done();
    }
    if !usable {
        return refused();
    }
    let Outcome::Seqnum(seqnum) = cx.ask(Ask::Data(DataAsk::BumpTdbSeqnum(id))).await else {
        return refused();
    };
    // Remembered, so that it is not told back.
    with_database(cx, id, |db| db.seqnum = db.seqnum.map(|_| seqnum));
    done()
}

async fn set_property(cx: &NodeCx, id: DbId, property: DbFlags) -> ControlAnswer {
    let new = match cx.state().database(id) {
        Some(db) if db.is_volatile() => !db.flags.contains(property),
        _ => return refused(),
    };
    if !new {
        return done();
    }
    if !data(cx, DataAsk::AddFlags(id, property)).await {
        return refused();
    }
    with_database(cx, id, |db| db.flags = db.flags.with(property));
    publish(cx).await;
    done()
}

async fn db_seqnum(cx: &NodeCx, id: DbId) -> ControlAnswer {
    if !cx.state().database(id).is_some_and(Database::is_accessible) {
        return refused();
    }
    match cx.ask(Ask::Data(DataAsk::DbSeqnum(id))).await {
        Outcome::Seqnum(seqnum) => payload(&DbSeqnum(seqnum)),
        _ => refused(),
    }
}

async fn set_healthy(cx: &NodeCx, id: DbId) -> ControlAnswer {
    let unhealthy = match cx.state().database(id) {
        Some(db) => db.unhealthy.is_some(),
        None => return refused(),
    };
    if !record_health(cx, id, None).await {
        return refused();
    }
    if unhealthy && cx.state().run_state == RunState::Startup {
        super::force_recovery(cx);
    }
    done()
}

/// Writes a persistent database's health down and remembers it.
pub(super) async fn record_health(cx: &NodeCx, id: DbId, reason: Option<String>) -> bool {
    let known = cx.state().database(id).map(|db| db.unhealthy == reason);
    match known {
        None => false,
        Some(true) => true,
        Some(false) => {
            let recorded = data(cx, DataAsk::RecordHealth(id, reason.clone())).await;
            if recorded {
                with_database(cx, id, |db| db.unhealthy = reason);
            }
            recorded
        }
    }
}

async fn db_statistics(cx: &NodeCx, id: DbId) -> ControlAnswer {
    if cx.state().database(id).is_none() {
        return refused();
    }
    let Outcome::Bytes(counted) = cx.ask(Ask::Data(DataAsk::DbStatistics(id))).await else {
        return refused();
    };
    let Ok(counted) = DbStatistics::from_bytes(&counted) else { return refused() };
    let latencies = &cx.state().counters.vacuum_latency;
    let vacuum_latency = latencies.get(&id).copied().unwrap_or_default();
    payload(&DbStatistics { vacuum_latency, ..counted })
}
