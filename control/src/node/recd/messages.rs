//! Messages to the recovery daemon.
//!
//! Role: takes the messages of its srvids out of the mailbox, in order, and answers them.
//! Invariants
//! - Malformed messages are ignored without a reply, as in C.
//! - Batches of a recovery stream that nobody receives any more are thrown away, so that the
//!   mailbox holds only what somebody waits for.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.10, 1.8, 9.11.

use ringmaster_protocol::{
    Decode, Destination, Pnn, Srvid,
    control::kinds,
    node::{NodeFlagChange, NodeMap},
    process::{DisableMessage, SrvidMessage},
    srvid::WellKnown,
};
use tracing::{info, warn};

use super::{
    ask::{control, each, read},
    bans, leader,
    switches::Switch,
};
use crate::node::{
    NodeCx, State,
    world::{Ask, Outcome, Tell},
};

/// What it listens to.
pub(in crate::node) const SRVIDS: [Srvid; 12] = [
    Srvid::MEM_DUMP,
    Srvid::BANNING,
    Srvid::ELECTION,
    Srvid::SET_NODE_FLAGS,
    Srvid::PUSH_NODE_FLAGS,
    Srvid::RELOAD_NODES,
    Srvid::TAKEOVER_RUN,
    Srvid::DISABLE_IP_CHECK,
    Srvid::REBALANCE_NODE,
    Srvid::DISABLE_TAKEOVER_RUNS,
    Srvid::DISABLE_RECOVERIES,
    Srvid::LEADER,
];

/// Requesters of a takeover run that are remembered; later ones hear nothing and ask again, as
/// every requester does after its own timeout.
pub(super) const TAKEOVER_REQUESTS_MAX: usize = 1_000;

/// C's `-EAGAIN`.
const AGAIN: i32 = -11;

/// Listens to all srvids.
pub(super) async fn listen(cx: &NodeCx) {
    for srvid in SRVIDS {
        if let Outcome::Failed(reason) = cx.ask(Ask::ListenSrvid(srvid)).await {
            warn!("cannot listen to {}: {reason}", srvid.name().unwrap_or("a srvid"));
        }
    }
}

/// Handles messages for ever.
pub(super) async fn handle(cx: NodeCx) {
    loop {
        cx.until(|state| position(state).is_some()).await;
        let taken = {
            let at = position(&cx.state());
            at.and_then(|at| cx.state_mut().mailbox.remove(at))
        };
        if let Some((srvid, data)) = taken {
            dispatch(&cx, srvid, &data);
        }
    }
}

/// The first message that is this module's business.
fn position(state: &State) -> Option<usize> {
    state.mailbox.iter().position(|(srvid, _)| {
        SRVIDS.contains(srvid)
            || (matches!(srvid.well_known(), Some(WellKnown::Recovery(_)))
                && !state.recd.pulls.contains(srvid)
                && !state
                    .databases
                    .iter()
                    .any(|db| db.push.is_some_and(|push| push.srvid == *srvid)))
    })
}

fn dispatch(cx: &NodeCx, srvid: Srvid, data: &[u8]) {
    match srvid {
        Srvid::LEADER => leader::heard(cx, data),
        Srvid::ELECTION => leader::rival(cx, data),
        Srvid::BANNING => banning(cx, data),
        Srvid::TAKEOVER_RUN => takeover_run(cx, data),
        Srvid::REBALANCE_NODE => rebalance(cx, data),
        Srvid::DISABLE_TAKEOVER_RUNS => switch(cx, data, |state| &mut state.recd.takeover_runs),
        Srvid::DISABLE_RECOVERIES => switch(cx, data, |state| &mut state.recd.recoveries),
        Srvid::DISABLE_IP_CHECK => disable_ip_check(cx, data),
        Srvid::MEM_DUMP => memory_dump(cx, data),
        Srvid::PUSH_NODE_FLAGS => {
            if let Ok(change) = NodeFlagChange::from_bytes(data) {
                let cx = cx.clone();
                super::spawn(&cx.clone(), async move { push_node_flags(&cx, change).await });
            }
        }
        Srvid::RELOAD_NODES => {
            let cx = cx.clone();
            super::spawn(&cx.clone(), async move { reread_nodes(&cx).await });
        }
        Srvid::SET_NODE_FLAGS => info!("message SET_NODE_FLAGS is obsolete, ignored"),
        // A batch of a stream that is over.
        _ => {}
    }
}

fn pnn_of(data: &[u8]) -> Option<Pnn> {
    let raw = data.first_chunk::<4>().filter(|_| data.len() == 4)?;
    Pnn::new(u32::from_le_bytes(*raw))
}

/// Another process reports a node to the leader.
fn banning(cx: &NodeCx, data: &[u8]) {
    let Some(node) = pnn_of(data) else { return };
    if leader::leads(&cx.state()) {
        let count = u32::try_from(cx.state().nodes.len()).unwrap_or(u32::MAX);
        bans::report(cx, node, count);
    }
}

/// Queued on every node; only the leader answers.
fn takeover_run(cx: &NodeCx, data: &[u8]) {
    let Ok(request) = SrvidMessage::from_bytes(data) else { return };
    let mut state = cx.state_mut();
    if state.recd.takeover_requests.len() < TAKEOVER_REQUESTS_MAX {
        state.recd.takeover_requests.push(request);
    }
}

fn rebalance(cx: &NodeCx, data: &[u8]) {
    let Some(node) = pnn_of(data) else { return };
    // A node of the list, so the set is bounded by it.
    let wanted = leader::leads(&cx.state()) && cx.state().flags_of(node).is_some();
    if wanted {
        cx.state_mut().recd.rebalance.insert(node);
    }
}

fn switch(cx: &NodeCx, data: &[u8], which: impl Fn(&mut State) -> &mut Switch) {
    let Ok(request) = DisableMessage::from_bytes(data) else { return };
    let now = cx.now();
    let own = cx.state().pnn();
    let done = which(&mut cx.state_mut()).disable(now, request.timeout);
    let result = if done.is_ok() { own.get().cast_signed() } else { AGAIN };
    reply(cx, request.pnn, request.srvid, result);
}

fn disable_ip_check(cx: &NodeCx, data: &[u8]) {
    let Some(seconds) = data.first_chunk::<4>().filter(|_| data.len() == 4) else { return };
    let seconds = u32::from_le_bytes(*seconds);
    let now = cx.now();
    if cx.state_mut().recd.takeover_runs.disable(now, seconds).is_err() {
        info!("takeover run in progress, IP check stays enabled");
    }
}

/// Answers whoever left an address; srvid 0 wants no answer.
pub(super) fn reply(cx: &NodeCx, to: Option<Pnn>, srvid: Srvid, result: i32) {
    let Some(to) = to else { return };
    if srvid == Srvid::NO_REPLY {
        return;
    }
    let data = result.to_le_bytes().to_vec();
    cx.tell(Tell::Message { to: Destination::Node(to), srvid, data });
}

/// In the form of C's allocator report, which is what readers of this look for. There is no
/// recovery daemon with memory of its own here: what it shows are the tables of this module.
fn memory_dump(cx: &NodeCx, data: &[u8]) {
    let Ok(request) = SrvidMessage::from_bytes(data) else { return };
    let Some(to) = request.pnn else { return };
    let tables = {
        let state = cx.state();
        [
            (
                "mailbox",
                state.mailbox.iter().map(|(_, data)| data.len()).sum(),
                state.mailbox.len(),
            ),
            ("nodes", size_of_val(state.nodes.as_slice()), state.nodes.len()),
            ("databases", size_of_val(state.databases.as_slice()), state.databases.len()),
            ("clients", 0, state.clients.len()),
            ("capabilities", 0, state.recd.capabilities.len()),
            ("takeover requests", 0, state.recd.takeover_requests.len()),
            ("rebalance nodes", 0, state.recd.rebalance.len()),
            ("recovery streams", 0, state.recd.pulls.len()),
            ("traverses", 0, state.traverses.len()),
            ("nodes of the list", 0, state.recd.nodes_listed),
            ("lmasters", size_of_val(state.vnn_map.map.as_slice()), state.vnn_map.map.len()),
        ]
    };
    let (bytes, blocks) = tables
        .iter()
        .fold((0_usize, 0_usize), |(bytes, blocks), table| (bytes + table.1, blocks + table.2));
    let mut text = format!(
        "full talloc report on 'null_context' (total {bytes:6} bytes in {blocks} blocks)\n"
    );
    for (name, bytes, blocks) in tables {
        text +=
            &format!("    {name:<30} contains {bytes:6} bytes in {blocks:3} blocks (ref 0) 0x0\n");
    }
    let mut data = text.into_bytes();
    data.push(0);
    cx.tell(Tell::Message { to: Destination::Node(to), srvid: request.srvid, data });
}

/// This node's flags have changed: tells all nodes that the leader is connected to. Without a
/// leader nobody is told; whoever leads next finds the difference by itself.
async fn push_node_flags(cx: &NodeCx, change: NodeFlagChange) {
    let Some(leader) = cx.state().leader else { return };
    let map = match control::<kinds::GetNodeMap>(cx, leader, &()).await {
        Ok(answer) => read::<kinds::GetNodeMap>(&answer).unwrap_or_default(),
        Err(failed) => {
            info!("flags not pushed: {failed}");
            return;
        }
    };
    for (_, result) in each::<kinds::ModifyFlags>(cx, &connected_in(&map), &change).await {
        if let Err(failed) = result {
            info!("flags not pushed: {failed}");
        }
    }
}

/// Nodes that the owner of the map is connected to.
pub(super) fn connected_in(map: &NodeMap) -> Vec<Pnn> {
    use ringmaster_protocol::node::NodeFlags;
    let away = NodeFlags::DISCONNECTED | NodeFlags::DELETED;
    let connected = map.0.iter().filter(|node| !node.flags.intersects(away));
    connected.map(|node| node.pnn).collect()
}

/// Reads the nodes list again. C's recovery daemon exits when it cannot, and reads it when it is
/// started again: the next round finds the difference again and tries again.
pub(super) async fn reread_nodes(cx: &NodeCx) {
    match cx.ask(Ask::ReadNodes).await {
        Outcome::Nodes(Ok(nodes)) => cx.state_mut().recd.nodes_listed = nodes.0.len(),
        Outcome::Nodes(Err(reason)) => warn!("cannot read the nodes list: {reason}"),
        other => warn!("cannot read the nodes list: unexpected outcome {other:?}"),
    }
}
