//! Traverses: of local clients through the cluster, and this node's part of anybody's.
//!
//! Role: at the origin, one entry in [`State::traverses`] from TRAVERSE_START to the end marker
//! that the client gets; at every node, one order to the data plane, which sends the records.
//! Invariants
//! - The reply to TRAVERSE_START goes before the first record: smbd loses what comes earlier.
//! - A traverse ends for its client with the end marker, at the latest after `TraverseTimeout`.
//!
//! Origin: `docs/spec/cluster-semantics.md` 5; `ctdb/server/ctdb_traverse.c`.

use std::ops::ControlFlow;

use ringmaster_protocol::{
    DbId, Destination, Pnn, Reqid, Srvid,
    control::{ControlOpcode, ControlRequest},
    record::RecData,
    traverse::{TraverseAll, TraverseAllExt, TraverseStart, TraverseStartExt},
    tunable::Tunable,
    wire::Encode,
};

use super::answer::{Call, broadcast, done, refused};
use crate::{
    node::{
        Ask, NodeCx, State, Tell,
        state::{Database, FreezeState, LocalTraverse, Traverse},
        world::{ClientId, ControlAnswer, DataAsk},
    },
    plane::first_of,
};

/// Traverses that may be under way for the clients of a node; more are refused.
const TRAVERSES_MAX: usize = 10_000;

/// This node's parts of traverses that may be under way or wait for a thaw; more are refused, and
/// end at their origin as those of a dead node do.
const PARTS_MAX: usize = 10_000;

pub(super) fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::TraverseStart(TraverseStart { db, reqid, srvid }) => {
            let wanted = TraverseStartExt { db, reqid, srvid, with_empty_records: false };
            start(cx, call, wanted)
        }
        ControlRequest::TraverseStartExt(wanted) => start(cx, call, wanted),
        ControlRequest::TraverseAll(TraverseAll { db, reqid, pnn, client_reqid, srvid }) => {
            let with_empty_records = false;
            let wanted = TraverseAllExt { db, reqid, pnn, client_reqid, srvid, with_empty_records };
            begin_here(cx, wanted)
        }
        ControlRequest::TraverseAllExt(wanted) => begin_here(cx, wanted),
        ControlRequest::TraverseData(record) => pass_on(cx, call, &record),
        ControlRequest::TraverseKill(wanted) => kill(cx, wanted),
        other => return ControlFlow::Continue(other),
    })
}

/// Records of the database may be shown.
fn readable(state: &State, id: DbId) -> bool {
    state.database(id).is_some_and(|db| {
        db.unhealthy.is_none() || state.tunable(Tunable::AllowUnhealthyDBRead) != 0
    })
}

/// Who has the records: every active node, or for a database that is the same everywhere one
/// member, this node if it is one.
fn holders(state: &State, id: DbId) -> Vec<Pnn> {
    if state.database(id).is_some_and(Database::is_volatile) {
        return state.active();
    }
    let map = &state.vnn_map.map;
    let own = state.pnn();
    let holder = if map.contains(&own) { Some(own) } else { map.first().copied() };
    vec![holder.unwrap_or(own)]
}

fn start(cx: &NodeCx, call: &Call, wanted: TraverseStartExt) -> ControlAnswer {
    let TraverseStartExt { db, reqid, srvid, .. } = wanted;
    let mut state = cx.state_mut();
    let Some(client) = call.client(&state) else { return refused() };
    if !readable(&state, db) {
        return refused();
    }
    let Some(id) = free_reqid(&state) else { return refused() };
    state.last_traverse = id;
    let nodes = holders(&state, db);
    let missing = nodes.iter().copied().collect();
    let traverse = Traverse { client, db, srvid, client_reqid: reqid.0, missing };
    state.traverses.insert(id, traverse);
    let sequence = cx.clone();
    // Polled after the reply has been sent.
    cx.spawn(async move { run(sequence, id, wanted, nodes).await });
    done()
}

fn free_reqid(state: &State) -> Option<u32> {
    if state.traverses.len() >= TRAVERSES_MAX {
        return None;
    }
    let mut id = state.last_traverse;
    loop {
        id = id.wrapping_add(1).max(1);
        if !state.traverses.contains_key(&id) {
            return Some(id);
        }
    }
}

/// From the orders to the nodes until the end marker or the timeout.
async fn run(cx: NodeCx, id: u32, wanted: TraverseStartExt, nodes: Vec<Pnn>) {
    let TraverseStartExt { db, reqid: client_reqid, srvid, with_empty_records } = wanted;
    let (pnn, deadline) = {
        let state = cx.state();
        let timeout_s = state.tunable(Tunable::TraverseTimeout);
        (state.pnn(), cx.now().plus_seconds(timeout_s))
    };
    let reqid = Reqid(id);
    if with_empty_records {
        let all = TraverseAllExt { db, reqid, pnn, client_reqid, srvid, with_empty_records };
        broadcast(&cx, nodes, ControlOpcode::TRAVERSE_ALL_EXT, &all.to_bytes());
    } else {
        let all = TraverseAll { db, reqid, pnn, client_reqid, srvid };
        broadcast(&cx, nodes, ControlOpcode::TRAVERSE_ALL, &all.to_bytes());
    }
    if cx.until_or(deadline, move |state| !state.traverses.contains_key(&id)).await {
        return;
    }
    tracing::warn!(%db, "a traverse has not ended in time");
    let traverse = {
        let mut state = cx.state_mut();
        state.counters.traverse_timeouts += 1;
        state.traverses.remove(&id)
    };
    if let Some(traverse) = traverse {
        send(&cx, &traverse, b"", b"");
        kill_everywhere(&cx, &traverse);
    }
}

fn kill_everywhere(cx: &NodeCx, traverse: &Traverse) {
    let Traverse { db, srvid, client_reqid, .. } = *traverse;
    let kill = TraverseStart { db, reqid: Reqid(client_reqid), srvid };
    let connected = cx.state().connected();
    broadcast(cx, connected, ControlOpcode::TRAVERSE_KILL, &kill.to_bytes());
}

/// A record, or the end marker, to the client.
fn send(cx: &NodeCx, traverse: &Traverse, key: &[u8], data: &[u8]) {
    let record = RecData { reqid: traverse.client_reqid, key, data };
    let to = Destination::Node(cx.state().pnn());
    cx.tell(Tell::Message { to, srvid: traverse.srvid, data: record.to_bytes() });
}

/// A record that a node has sent. They come by the million: only an end marker looks further.
fn pass_on(cx: &NodeCx, call: &Call, record: &RecData<'_>) -> ControlAnswer {
    if !record.is_end_marker() {
        let state = cx.state();
        let Some(traverse) = state.traverses.get(&record.reqid) else { return refused() };
        send(cx, traverse, record.key, record.data);
        return done();
    }
    let node = call.node(&cx.state());
    if !cx.state().traverses.contains_key(&record.reqid) {
        return refused();
    }
    nothing_more_from(cx, record.reqid, node);
    done()
}

/// A node has sent all it has, or is dead. The client gets its end marker when that was the last
/// one. Nodes are told apart: C counts markers, and a node that dies after its marker then stands
/// for one whose records are still on their way.
fn nothing_more_from(cx: &NodeCx, id: u32, node: Pnn) {
    let ended = {
        let mut state = cx.state_mut();
        let active = state.active();
        let Some(traverse) = state.traverses.get_mut(&id) else { return };
        traverse.missing.remove(&node);
        traverse.missing.retain(|pnn| active.contains(pnn));
        if traverse.missing.is_empty() { state.traverses.remove(&id) } else { None }
    };
    if let Some(traverse) = ended {
        send(cx, &traverse, b"", b"");
    }
}

/// This node's records of somebody's traverse.
fn begin_here(cx: &NodeCx, wanted: TraverseAllExt) -> ControlAnswer {
    let TraverseAllExt { db, reqid, pnn, client_reqid, srvid, with_empty_records } = wanted;
    let mut state = cx.state_mut();
    if !readable(&state, db) || state.local_traverses.len() >= PARTS_MAX {
        return refused();
    }
    let number = u32::try_from(state.next_number() & 0xFFFF_FFFF).unwrap_or(0);
    let client_reqid = client_reqid.0;
    let local = LocalTraverse { db, origin: pnn, client_reqid, srvid, killed: false };
    state.local_traverses.insert(number, local);
    let order = DataAsk::Traverse { db, reqid: reqid.0, to: pnn, with_empty: with_empty_records };
    let sequence = cx.clone();
    cx.spawn(async move {
        let killed = move |state: &State| {
            state.local_traverses.get(&number).is_none_or(|local| local.killed)
        };
        // The locks of a freeze hold C's traverse up; what a recovery is about to replace is not
        // shown here either.
        let thawed =
            move |state: &State| state.database(db).is_none_or(|db| db.freeze == FreezeState::None);
        sequence.until(move |state| killed(state) || thawed(state)).await;
        if !killed(&sequence.state()) {
            let sent = first_of(sequence.ask(Ask::Data(order)), sequence.until(killed)).await;
            tracing::debug!(%db, ?sent, "traversed");
        }
        sequence.state_mut().local_traverses.remove(&number);
    });
    done()
}

/// The first one of that client and request here ends.
fn kill(cx: &NodeCx, wanted: TraverseStart) -> ControlAnswer {
    let mut state = cx.state_mut();
    let mine = |local: &&mut LocalTraverse| is_killed_by(local, wanted.reqid, wanted.srvid);
    if let Some(local) = state.local_traverses.values_mut().find(mine) {
        local.killed = true;
    }
    done()
}

fn is_killed_by(local: &LocalTraverse, reqid: Reqid, srvid: Srvid) -> bool {
    !local.killed && local.client_reqid == reqid.0 && local.srvid == srvid
}

/// A node is dead: nobody waits for records there, and none come from there. (C's client waits for
/// the timeout.)
pub(super) fn node_gone(cx: &NodeCx, pnn: Pnn) {
    let waiting: Vec<u32> = {
        let mut state = cx.state_mut();
        for local in state.local_traverses.values_mut().filter(|local| local.origin == pnn) {
            local.killed = true;
        }
        let waits = |traverse: &Traverse| traverse.missing.contains(&pnn);
        state.traverses.iter().filter(|(_, one)| waits(one)).map(|(id, _)| *id).collect()
    };
    for id in waiting {
        nothing_more_from(cx, id, pnn);
    }
}

/// Traverses of a client that has gone.
pub(super) fn client_gone(cx: &NodeCx, id: ClientId) {
    let orphans: Vec<Traverse> = {
        let mut state = cx.state_mut();
        let orphans =
            state.traverses.values().filter(|traverse| traverse.client == id).cloned().collect();
        state.traverses.retain(|_, traverse| traverse.client != id);
        orphans
    };
    for traverse in &orphans {
        kill_everywhere(cx, traverse);
    }
}
