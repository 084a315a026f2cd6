//! What a recovery does to one database: freeze, transaction, pull, push, thaw.
//!
//! Invariant: an inactive node stays frozen and changes nothing. A leader that does not know yet
//! that it has been stopped or banned fails here, and recovers again without it. (C's node goes
//! along: thawed and with the records of a cluster that it is no member of.)
//! Origin: `docs/spec/cluster-semantics.md` 1.9, 7.4-7.6; `ctdb/server/ctdb_recover.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId, Generation,
    control::ControlRequest,
    database::{PullDb, RecordCount, TransDb},
    node::NodeFlags,
};

use super::{
    answer::{Call, data, done, payload, publish, refused, success},
    databases::{record_health, with_database},
};
use crate::node::{
    Ask, NodeCx, Outcome, State, Tell,
    freeze::{freeze, thaw},
    state::{Database, FreezeState, Push},
    world::{ControlAnswer, DataAsk},
};

/// Prefix of the reason of a database that no healthy node has confirmed.
const NO_HEALTHY_NODES: &str = "NO-HEALTHY-NODES - ";

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::DbFreeze(id) => success(freeze(cx, id).await),
        ControlRequest::DbThaw(id) => success(!cx.state().is_inactive() && thaw(cx, id).await),
        ControlRequest::DbTransactionStart(wanted) => start(cx, wanted).await,
        ControlRequest::DbTransactionCommit(wanted) => commit(cx, wanted).await,
        ControlRequest::DbTransactionCancel(id) => cancel(cx, id).await,
        ControlRequest::WipeDatabase(wanted) => wipe(cx, wanted).await,
        ControlRequest::DbPull(wanted) => pull(cx, call, wanted).await,
        ControlRequest::DbPushStart(wanted) => push_start(cx, wanted).await,
        ControlRequest::DbPushConfirm(id) => push_confirm(cx, id).await,
        other => return ControlFlow::Continue(other),
    })
}

fn frozen(state: &State, id: DbId) -> Option<&Database> {
    state.database(id).filter(|db| db.freeze == FreezeState::Frozen)
}

/// The frozen database of an active node.
fn to_be_changed(state: &State, id: DbId) -> Option<&Database> {
    frozen(state, id).filter(|_| !state.is_inactive())
}

/// It has this transaction open.
fn in_transaction(state: &State, wanted: TransDb) -> bool {
    to_be_changed(state, wanted.db).is_some_and(|db| db.transaction == Some(wanted.tid))
}

async fn start(cx: &NodeCx, wanted: TransDb) -> ControlAnswer {
    let Some(open) = to_be_changed(&cx.state(), wanted.db).map(|db| db.transaction) else {
        return refused();
    };
    if open.is_some() {
        cancel(cx, wanted.db).await;
    }
    let started = data(cx, DataAsk::TransactionStart(wanted.db)).await;
    let mut state = cx.state_mut();
    match state.database_mut(wanted.db).filter(|db| db.freeze == FreezeState::Frozen) {
        Some(db) if started => {
            db.transaction = Some(wanted.tid);
            done()
        }
        _ => refused(),
    }
}

async fn cancel(cx: &NodeCx, id: DbId) -> ControlAnswer {
    let open = with_database(cx, id, |db| db.transaction.take());
    match open {
        None => refused(),
        Some(None) => done(),
        Some(Some(_)) => success(data(cx, DataAsk::TransactionCancel(id)).await),
    }
}

async fn wipe(cx: &NodeCx, wanted: TransDb) -> ControlAnswer {
    if !in_transaction(&cx.state(), wanted) {
        return refused();
    }
    success(data(cx, DataAsk::Wipe(wanted.db)).await)
}

async fn commit(cx: &NodeCx, wanted: TransDb) -> ControlAnswer {
    if !in_transaction(&cx.state(), wanted) {
        return refused();
    }
    let committed = data(cx, DataAsk::TransactionCommit(wanted.db)).await;
    let taken = !cx.state().is_inactive() && committed;
    let generation: Option<Generation> = with_database(cx, wanted.db, |db| {
        db.transaction = None;
        taken.then(|| {
            db.generation = wanted.tid;
            db.invalid_records = false;
            wanted.tid
        })
    })
    .flatten();
    let Some(generation) = generation else { return refused() };
    // Nothing that was known of the records before is true any more.
    let replaced = data(cx, DataAsk::Replaced(wanted.db)).await;
    let known = data(cx, DataAsk::SetGeneration(wanted.db, generation)).await;
    update_health(cx, wanted.db).await;
    publish(cx).await;
    success(replaced && known)
}

/// A copy that comes from a recovery with a healthy node in it is healthy.
async fn update_health(cx: &NodeCx, id: DbId) {
    let (healthy_nodes, reason) = {
        let state = cx.state();
        let healthy_nodes = state.nodes.iter().any(|node| node.flags == NodeFlags::NONE);
        (healthy_nodes, state.database(id).and_then(|db| db.unhealthy.clone()))
    };
    let Some(reason) = reason else { return };
    if healthy_nodes {
        record_health(cx, id, None).await;
    } else if !reason.starts_with(NO_HEALTHY_NODES) {
        record_health(cx, id, Some(format!("{NO_HEALTHY_NODES}{reason}"))).await;
    }
}

async fn pull(cx: &NodeCx, call: &Call, wanted: PullDb) -> ControlAnswer {
    let (to, invalid) = {
        let state = cx.state();
        let Some(db) = frozen(&state, wanted.db) else { return refused() };
        (call.node(&state), db.invalid_records)
    };
    if invalid {
        tracing::info!(db = %wanted.db, "records are invalid, nothing to pull");
        return payload(&RecordCount(0));
    }
    let ask = DataAsk::Pull { db: wanted.db, srvid: wanted.srvid, to };
    match cx.ask(Ask::Data(ask)).await {
        Outcome::Count(count) => payload(&RecordCount(count)),
        _ => refused(),
    }
}

async fn push_start(cx: &NodeCx, wanted: PullDb) -> ControlAnswer {
    let PullDb { db: id, srvid, .. } = wanted;
    let Some(old) = frozen(&cx.state(), id).map(|db| db.push) else { return refused() };
    if let Some(old) = old {
        cx.state_mut().mailbox.retain(|(srvid, _)| *srvid != old.srvid);
        if old.srvid != srvid {
            cx.tell(Tell::ForgetSrvid(old.srvid));
        }
    }
    with_database(cx, id, |db| db.push = None);
    if !matches!(cx.ask(Ask::ListenSrvid(srvid)).await, Outcome::Done) {
        return refused();
    }
    let number = cx.state_mut().next_number();
    let push = Push { number, srvid, stored: 0, failed: false, busy: false };
    with_database(cx, id, |db| db.push = Some(push));
    cx.spawn(store_pushed(cx.clone(), id, push));
    done()
}

/// Stores the batches of one push, in order, until the push is over.
async fn store_pushed(cx: NodeCx, id: DbId, Push { number, srvid, .. }: Push) {
    let arrived = |state: &State| state.mailbox.iter().any(|(to, _)| *to == srvid);
    let pushing = |state: &State| {
        state.database(id).and_then(|db| db.push).is_some_and(|push| push.number == number)
    };
    loop {
        cx.until(move |state| !pushing(state) || arrived(state)).await;
        let buffer = {
            let mut state = cx.state_mut();
            if !pushing(&state) {
                return;
            }
            let Some(place) = state.mailbox.iter().position(|(to, _)| *to == srvid) else { return };
            let batch = state.mailbox.remove(place);
            let push = state.database_mut(id).and_then(|db| db.push.as_mut());
            let (Some((_, buffer)), Some(push)) = (batch, push) else { return };
            if push.failed {
                continue;
            }
            push.busy = true;
            buffer
        };
        let outcome = cx.ask(Ask::Data(DataAsk::Push { db: id, buffer })).await;
        let mut state = cx.state_mut();
        let push = state.database_mut(id).and_then(|db| db.push.as_mut());
        let Some(push) = push.filter(|push| push.number == number) else { return };
        push.busy = false;
        match outcome {
            Outcome::Count(count) => push.stored = push.stored.saturating_add(count),
            other => {
                tracing::error!(db = %id, ?other, "cannot store pushed records");
                push.failed = true;
            }
        }
    }
}

async fn push_confirm(cx: &NodeCx, id: DbId) -> ControlAnswer {
    let Some(push) = frozen(&cx.state(), id).and_then(|db| db.push) else { return refused() };
    let Push { number, srvid, .. } = push;
    // What was sent before this control has arrived before it; it may not be stored yet.
    cx.until(move |state| {
        let push = state.database(id).and_then(|db| db.push).filter(|push| push.number == number);
        let waiting = || state.mailbox.iter().any(|(to, _)| *to == srvid);
        push.is_none_or(|push| !push.busy && !waiting())
    })
    .await;
    let push = with_database(cx, id, |db| match db.push {
        Some(push) if push.number == number => db.push.take(),
        _ => None,
    });
    let Some(Some(push)) = push else { return refused() };
    cx.tell(Tell::ForgetSrvid(srvid));
    payload(&RecordCount(push.stored))
}
