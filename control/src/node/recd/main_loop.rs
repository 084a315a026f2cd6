//! The checks of every second.
//!
//! Role: one round after the other, each in C's order of steps (the numbers in the comments are
//! those of the specification). What a node finds out about itself it reads from the state of the
//! plane; only other nodes are asked. Steps that only keep C's separate process in touch with its
//! daemon (is it alive, ping, fetching tunables) have no counterpart.
//! Invariant: at most one recovery or takeover run per round.
//! Origin: `docs/spec/cluster-semantics.md` 6.6; `ctdb_recoverd.c: main_loop`.

use std::collections::BTreeMap;

use ringmaster_protocol::{
    Pnn, capabilities::Capabilities, control::kinds, database::VnnMap, node::NodeMap,
    process::RecMode, tunable::Tunable,
};
use tracing::{info, warn};

use super::{
    ask::{control, each, multi, read},
    bans, flags,
    leader::{self, leads},
    messages::reread_nodes,
    recovery, takeover,
};
use crate::{node::NodeCx, plane::Millis};

/// The shortest round, in milliseconds, whatever `RecoverInterval` says: a round that waits for
/// nobody must not follow itself at once.
const ROUND_MS_MIN: u64 = 100;

/// `None`: this round is over.
type Step<T = ()> = Option<T>;

/// Goes round for ever.
pub(super) async fn run(cx: NodeCx) {
    loop {
        let started = cx.now();
        // A round that ends early is an ordinary one.
        let _ = round(&cx).await;
        let interval_s = cx.state().tunables.value(Tunable::RecoverInterval);
        let next = Millis(started.0 + ROUND_MS_MIN.max(1_000 * u64::from(interval_s)));
        cx.until_or(next, |state| state.recd.wake).await;
        cx.state_mut().recd.wake = false;
    }
}

async fn round(cx: &NodeCx) -> Step {
    let busy = {
        let state = cx.state();
        state.recd.election_in_progress || state.recd.calling_election
    };
    if busy {
        return None; // 3
    }
    leader::start_timeout(cx); // 4
    if bans::ban_misbehaving(cx).await {
        return None; // 9
    }
    stay_inactive(cx).await?; // 11
    refresh_capabilities(cx).await?; // 12
    if cx.state().recovery_mode == RecMode::Normal {
        takeover::verify(cx).await; // 13
    }
    if !leads(&cx.state()) {
        // Whoever leads now finds reasons for a recovery without this node's wish.
        let stale = cx.state().recd.need_recovery;
        if stale {
            cx.state_mut().recd.need_recovery = false;
        }
        return None; // 14
    }
    let maps = node_maps(cx).await?; // 15
    update_flags(cx, &maps).await?; // 16
    same_nodes_list(cx).await?; // 17
    if needs_recovery(cx).await? {
        recovery::drive(cx).await; // 19-21
        return None;
    }
    if !cx.state().recd.recoveries.is_disabled(cx.now()) {
        consistent(cx, &maps).await?; // 22-26
    }
    takeover::serve_requests(cx).await; // 27
    Some(())
}

/// An inactive node keeps itself in recovery mode and frozen, and does nothing else.
async fn stay_inactive(cx: &NodeCx) -> Step {
    let (inactive, mode, frozen, own) = {
        let state = cx.state();
        (state.is_inactive(), state.recovery_mode, state.recd.frozen_inactive, state.pnn())
    };
    if !inactive {
        if frozen {
            cx.state_mut().recd.frozen_inactive = false;
        }
        return Some(());
    }
    let now = cx.state().wall_clock_at(cx.now());
    cx.state_mut().recd.priority_time = now;
    if mode == RecMode::Normal
        && let Err(failed) = control::<kinds::SetRecMode>(cx, own, &RecMode::Active).await
    {
        warn!("Failed to activate recovery mode on the inactive node: {failed}");
        return None;
    }
    if !frozen {
        match control::<kinds::Freeze>(cx, own, &()).await {
            Ok(_) => cx.state_mut().recd.frozen_inactive = true,
            Err(failed) => warn!("Failed to freeze the inactive node: {failed}"),
        }
    }
    None
}

/// The other nodes of a list.
fn others(cx: &NodeCx, mut nodes: Vec<Pnn>) -> Vec<Pnn> {
    let own = cx.state().pnn();
    nodes.retain(|node| *node != own);
    nodes
}

/// Fetches what the active nodes can do.
pub(super) async fn refresh_capabilities(cx: &NodeCx) -> Step {
    let active = cx.state().active();
    let remote = others(cx, active);
    let answers = match multi::<kinds::GetCapabilities>(cx, &remote, &()).await {
        Ok(answers) => answers,
        Err(failed) => {
            info!("cannot fetch capabilities: {failed}");
            return None;
        }
    };
    let mut capabilities: BTreeMap<Pnn, Capabilities> = answers
        .iter()
        .filter_map(|(node, answer)| Some((*node, read::<kinds::GetCapabilities>(answer)?)))
        .collect();
    let mut state = cx.state_mut();
    capabilities.insert(state.pnn(), state.capabilities);
    state.recd.capabilities = capabilities;
    Some(())
}

/// Fetches the node maps of the other connected nodes.
async fn node_maps(cx: &NodeCx) -> Step<BTreeMap<Pnn, NodeMap>> {
    let connected = cx.state().connected();
    let remote = others(cx, connected);
    let mut maps = BTreeMap::new();
    let mut complete = true;
    for (node, result) in each::<kinds::GetNodeMap>(cx, &remote, &()).await {
        let map = match &result {
            Ok(answer) => read::<kinds::GetNodeMap>(answer),
            Err(failed) => {
                warn!("cannot fetch a node map: {failed}");
                None
            }
        };
        match map {
            Some(map) => drop(maps.insert(node, map)),
            None => {
                bans::report(cx, node, 1);
                complete = false;
            }
        }
    }
    complete.then_some(maps)
}

async fn update_flags(cx: &NodeCx, maps: &BTreeMap<Pnn, NodeMap>) -> Step {
    let changes = {
        let state = cx.state();
        flags::differences(&state.node_map(), state.pnn(), maps)
    };
    for change in changes {
        if let Err(failed) = flags::push(cx, change).await {
            warn!("Unable to update flags of node {}: {failed}", change.pnn);
            return None;
        }
    }
    Some(())
}

/// The daemon's list and the recovery daemon's reading of it have the same length.
async fn same_nodes_list(cx: &NodeCx) -> Step {
    let (daemon, listed) = {
        let state = cx.state();
        (state.nodes.len(), state.recd.nodes_listed)
    };
    if daemon == listed {
        return Some(());
    }
    warn!("nodes list ({listed}) and node map ({daemon}) differ in length, reading the list again");
    reread_nodes(cx).await;
    None
}

/// Steps 19 to 21: reasons that hold even while recoveries are switched off.
async fn needs_recovery(cx: &NodeCx) -> Step<bool> {
    let (wanted, own_mode, active) = {
        let state = cx.state();
        (state.recd.need_recovery, state.recovery_mode, state.active())
    };
    if wanted {
        return Some(true);
    }
    let remote = others(cx, active);
    let answers = each::<kinds::GetRecMode>(cx, &remote, &()).await;
    let mut failures = false;
    let mut active_somewhere = own_mode == RecMode::Active;
    for (node, result) in &answers {
        match result.as_ref().ok().and_then(read::<kinds::GetRecMode>) {
            Some(mode) if mode.0 == RecMode::Active => {
                info!("Node {node} is in recovery mode, recovering");
                active_somewhere = true;
            }
            Some(_) => {}
            None => failures = true,
        }
    }
    if active_somewhere {
        return Some(true);
    }
    if failures {
        return None;
    }
    let (lock_missing, own) = {
        let state = cx.state();
        (state.constants.cluster_lock.is_some() && !state.lock_held, state.pnn())
    };
    if lock_missing {
        warn!("Failed cluster lock sanity check");
        bans::report(cx, own, 1);
    }
    Some(lock_missing)
}

/// Steps 23 to 26: the active nodes agree about nodes and lmasters.
async fn consistent(cx: &NodeCx, maps: &BTreeMap<Pnn, NodeMap>) -> Step {
    let (own, own_map, vnn_map, active, lmasters) = {
        let state = cx.state();
        let active = state.active();
        let can = |node: &&Pnn| {
            let capabilities = state.recd.capabilities.get(node);
            capabilities.is_some_and(|found| found.contains(Capabilities::LMASTER))
        };
        let lmasters: Vec<Pnn> = active.iter().filter(can).copied().collect();
        (state.pnn(), state.node_map(), state.vnn_map.clone(), active, lmasters)
    };
    let remote = others(cx, active);
    let mut culprit = remote
        .iter()
        .copied()
        .find(|node| maps.get(node).is_some_and(|map| !same_nodes(map, &own_map)));
    if culprit.is_none() && lmasters.len() != vnn_map.map.len() {
        warn!("the vnn map has {} nodes, {} can be lmaster", vnn_map.map.len(), lmasters.len());
        culprit = Some(own);
    }
    if culprit.is_none() {
        let missing = |node: &&Pnn| **node != own && !vnn_map.map.contains(node);
        culprit = lmasters.iter().find(missing).copied();
    }
    if culprit.is_none() {
        culprit = other_vnn_map(cx, &remote, &vnn_map).await?;
    }
    let Some(culprit) = culprit else { return Some(()) };
    warn!("node {culprit} disagrees about nodes or lmasters, recovering");
    bans::report(cx, culprit, 1);
    recovery::drive(cx).await;
    None
}

/// Same number of nodes with the same numbers.
fn same_nodes(one: &NodeMap, other: &NodeMap) -> bool {
    one.0.len() == other.0.len()
        && one.0.iter().zip(&other.0).all(|(one, other)| one.pnn == other.pnn)
}

/// The first node with another map of lmasters, or another generation.
async fn other_vnn_map(cx: &NodeCx, remote: &[Pnn], own: &VnnMap) -> Step<Option<Pnn>> {
    let answers = match multi::<kinds::GetVnnMap>(cx, remote, &()).await {
        Ok(answers) => answers,
        Err(failed) => {
            info!("cannot fetch a vnn map: {failed}");
            return None;
        }
    };
    let differs = |(node, answer): &(Pnn, _)| {
        (read::<kinds::GetVnnMap>(answer).as_ref() != Some(own)).then_some(*node)
    };
    Some(answers.iter().find_map(differs))
}
