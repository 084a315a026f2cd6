//! A recovery of the cluster, led by this node.
//!
//! Role: `drive` is C's `do_recovery` (may it begin, what follows it), `steps` the recovery
//! helper's sequence over all nodes; each database: `database`.
//! Invariants
//! - It ends as soon as this node does not lead any more or may not: nobody becomes dmaster of all
//!   records and inactive. Nodes stay in recovery mode then, until the next leader is done.
//! - Nodes leave recovery mode only after all databases have been recovered everywhere.
//! - The nodes that take part are chosen by their own word about themselves, and the leader is one
//!   of them.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.7, 7; `ctdb/server/ctdb_recovery_helper.c`.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use ringmaster_protocol::{
    DbId, Destination, Generation, Pnn, Srvid,
    capabilities::Capabilities,
    control::kinds,
    database::{DbFlags, VnnMap},
    node::{NodeFlagChange, NodeFlags},
    process::RecMode,
    tunable::Tunable,
};
use tracing::{info, warn};

use super::{
    ask::{Failed, control, multi, read, unless},
    bans,
    database::{self, Target},
    flags,
    leader::{ban_self, can_lead, leads},
    main_loop::refresh_capabilities,
    takeover,
};
use crate::node::{NodeCx, State, world::Tell};

/// Credits from which a node that spoilt a recovery is banned.
const BAN_CREDITS: u32 = 3;

/// Recovers the cluster if this node may do so now. A failure is tried again in the next round of
/// the main loop.
pub(super) async fn drive(cx: &NodeCx) {
    if !may_lead(&cx.state()) {
        return;
    }
    cx.state_mut().recd.need_recovery = true;
    let now = cx.now();
    if !cx.state_mut().recd.recoveries.begin(now) {
        info!("Unable to begin - recoveries are disabled");
        return;
    }
    let done = unless(cx, attempt(cx), |state| !may_lead(state)).await;
    if done == Some(true) {
        finish(cx).await;
    }
    let now = cx.now();
    let mut state = cx.state_mut();
    state.recd.recoveries.end();
    match done {
        Some(true) => {
            state.recd.need_recovery = false;
            state.recd.credits.clear();
            let pause_s = state.tunables.value(Tunable::RerecoveryTimeout);
            // Not under way any more, so this cannot be refused.
            let _ = state.recd.recoveries.disable(now, pause_s);
            info!("Resetting ban count to 0 for all nodes; recoveries pause for {pause_s} seconds");
        }
        Some(false) => {}
        None => warn!("Leader changed, aborting recovery"),
    }
}

fn may_lead(state: &State) -> bool {
    leads(state) && can_lead(state)
}

/// Steps 3 to 5 of the driver.
async fn attempt(cx: &NodeCx) -> bool {
    if cx.state().recd.election_in_progress || bans::ban_misbehaving(cx).await {
        return false;
    }
    if !lock_is_held(cx).await || refresh_capabilities(cx).await.is_none() {
        return false;
    }
    if !push_all_flags(cx).await {
        return false;
    }
    let generation = new_generation(cx);
    info!("Recovery starting, generation={}", generation.0);
    if let Err(failed) = steps(cx, generation).await {
        warn!("Recovery failed: {failed}");
        return false;
    }
    true
}

/// Steps 6 and 7: addresses, then the word to all clients. The databases are in service already;
/// a takeover run that fails is tried again by the main loop.
async fn finish(cx: &NodeCx) {
    takeover::run(cx).await;
    cx.tell(Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::RECONFIGURE,
        data: Vec::new(),
    });
    info!("Recovery complete");
}

/// Without the lock that the configuration demands nobody recovers.
async fn lock_is_held(cx: &NodeCx) -> bool {
    let (missing, own) = {
        let state = cx.state();
        (state.constants.cluster_lock.is_some() && !state.lock_held, state.pnn())
    };
    if missing {
        warn!("Cluster lock not held - abort recovery, ban node");
        ban_self(cx, own).await;
    }
    !missing
}

/// Tells all connected nodes the flags of all connected nodes. Only an active node's flags matter
/// so much that their failure stops the recovery.
async fn push_all_flags(cx: &NodeCx) -> bool {
    let nodes: Vec<_> = {
        let state = cx.state();
        let connected = |node: &&crate::node::state::NodeEntry| {
            !node.flags.intersects(NodeFlags::DISCONNECTED | NodeFlags::DELETED)
        };
        state.nodes.iter().filter(connected).map(|node| (node.pnn, node.flags)).collect()
    };
    for (pnn, flags) in nodes {
        let change = NodeFlagChange { pnn, new_flags: flags, old_flags: flags };
        if let Err(failed) = flags::push(cx, change).await {
            warn!("Unable to push flags of node {pnn}: {failed}");
            if !flags.is_inactive() {
                return false;
            }
        }
    }
    true
}

/// A number that no other node and no earlier recovery has come upon: two halves of a split cluster
/// with the same generation would not see that they differ. Node and time go into it, so that it does
/// not hang on the quality of the seed alone.
fn new_generation(cx: &NodeCx) -> Generation {
    let (current, own, clock) = {
        let state = cx.state();
        (state.vnn_map.generation, state.pnn().get(), state.wall_clock_at(cx.now()))
    };
    loop {
        let time = clock.seconds.cast_unsigned() << 20 ^ clock.micros.cast_unsigned();
        let mixed = mix(cx.random() ^ mix(time ^ u64::from(own) << 44));
        let [a, b, c, d, ..] = mixed.to_le_bytes();
        let generation = Generation(u32::from_le_bytes([a, b, c, d]));
        if generation != Generation::INVALID && generation != current {
            return generation;
        }
    }
}

/// Every bit of the result depends on every bit of the number (the finalizer of `SplitMix64`).
const fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

/// Reports about nodes within one recovery.
type Blame = Rc<RefCell<BTreeMap<Pnn, u32>>>;

async fn steps(cx: &NodeCx, generation: Generation) -> Result<(), Failed> {
    let leader = cx.state().pnn();
    let nodes = participants(cx, leader).await?;
    let lmasters = lmasters(cx, &nodes, leader).await?;
    let databases = databases(cx, &nodes, leader, generation).await?;
    multi::<kinds::SetRecMode>(cx, &nodes, &RecMode::Active).await?;
    multi::<kinds::StartRecovery>(cx, &nodes, &()).await?;
    let map = VnnMap { generation, map: lmasters };
    multi::<kinds::SetVnnMap>(cx, &nodes, &map).await?;

    let blame = Blame::default();
    let count = databases.len();
    let recoveries = databases.into_iter().map(|target| {
        let (cx, blame) = (cx.clone(), Rc::clone(&blame));
        Box::pin(async move {
            let credit = |node| *blame.borrow_mut().entry(node).or_insert(0) += 1;
            database::recover(&cx, target, credit).await
        })
    });
    let results = crate::plane::join_all(recoveries.collect()).await;
    let good = results.iter().filter(|good| **good).count();
    info!("{good} of {count} databases recovered");
    if good < count {
        ban_spoiler(cx, blame.take()).await;
        return Err(Failed::new(leader, format!("{} databases not recovered", count - good)));
    }
    multi::<kinds::SetRecMode>(cx, &nodes, &RecMode::Normal).await?;
    multi::<kinds::EndRecovery>(cx, &nodes, &()).await.map(drop)
}

/// The connected nodes that call themselves active. Who is not seen so here is told of to all
/// before it takes part: a member that others think inactive would miss what they commit. (C's
/// leader does so in its next round.)
async fn participants(cx: &NodeCx, leader: Pnn) -> Result<Vec<Pnn>, Failed> {
    let connected = cx.state().connected();
    let answers = multi::<kinds::GetNodeMap>(cx, &connected, &()).await?;
    let mut nodes = Vec::new();
    for (node, answer) in &answers {
        let map = read::<kinds::GetNodeMap>(answer).unwrap_or_default();
        let Some(own) = map.find(*node) else {
            return Err(Failed::new(*node, "the node is not in its own node map"));
        };
        if own.flags.is_inactive() {
            continue;
        }
        let seen = cx.state().flags_of(*node);
        if let Some(old_flags) = seen.filter(|seen| *seen != own.flags) {
            let new_flags = own.flags;
            flags::push(cx, NodeFlagChange { pnn: *node, new_flags, old_flags }).await?;
        }
        nodes.push(*node);
    }
    if nodes.contains(&leader) {
        Ok(nodes)
    } else {
        Err(Failed::new(leader, "the leader is inactive"))
    }
}

/// Who can be lmaster; nobody: the leader.
async fn lmasters(cx: &NodeCx, nodes: &[Pnn], leader: Pnn) -> Result<Vec<Pnn>, Failed> {
    let answers = multi::<kinds::GetCapabilities>(cx, nodes, &()).await?;
    let able = answers.iter().filter(|(_, answer)| {
        read::<kinds::GetCapabilities>(answer)
            .is_some_and(|found| found.contains(Capabilities::LMASTER))
    });
    let able: Vec<Pnn> = able.map(|(node, _)| *node).collect();
    Ok(if able.is_empty() { vec![leader] } else { able })
}

/// All databases of these nodes.
async fn databases(
    cx: &NodeCx,
    nodes: &[Pnn],
    leader: Pnn,
    generation: Generation,
) -> Result<Vec<Target>, Failed> {
    let answers = multi::<kinds::GetDbMap>(cx, nodes, &()).await?;
    let mut found: BTreeMap<DbId, (DbFlags, Vec<Pnn>)> = BTreeMap::new();
    for (node, answer) in &answers {
        for entry in read::<kinds::GetDbMap>(answer).unwrap_or_default().0 {
            let kind = entry.flags.without(DbFlags::READONLY | DbFlags::STICKY);
            let (first, holders) = found.entry(entry.db).or_insert((kind, Vec::new()));
            if *first != kind {
                let reason =
                    format!("database {} has flags {kind:?}, elsewhere {first:?}", entry.db);
                return Err(Failed::new(*node, reason));
            }
            holders.push(*node);
        }
    }
    let targets = found.into_iter().map(|(db, (kind, holders))| Target {
        db,
        kind,
        holders,
        nodes: nodes.to_vec(),
        leader,
        generation,
        name: String::new(),
    });
    Ok(targets.collect())
}

/// Bans the node that most attempts failed on, unless it has become inactive meanwhile.
async fn ban_spoiler(cx: &NodeCx, mut blame: BTreeMap<Pnn, u32>) {
    let (enabled, seconds) = {
        let state = cx.state();
        let value = |tunable| state.tunables.value(tunable);
        (value(Tunable::EnableBans) != 0, value(Tunable::RecoveryBanPeriod))
    };
    while enabled && let Some(worst) = worst(&blame) {
        let inactive = match control::<kinds::GetNodeMap>(cx, worst, &()).await {
            Ok(answer) => {
                let map = read::<kinds::GetNodeMap>(&answer).unwrap_or_default();
                map.find(worst).is_some_and(|node| node.flags.is_inactive())
            }
            Err(failed) => {
                warn!("cannot ban node {worst}: {failed}");
                return;
            }
        };
        if !inactive {
            warn!("Banning node {worst} for {seconds} seconds: it spoilt the recovery");
            bans::ban(cx, worst, seconds).await;
            return;
        }
        blame.remove(&worst);
    }
}

/// The node with most credits, the first of equals; `None` below [`BAN_CREDITS`].
fn worst(blame: &BTreeMap<Pnn, u32>) -> Option<Pnn> {
    let mut worst: Option<(Pnn, u32)> = None;
    for (node, credits) in blame {
        if *credits >= BAN_CREDITS && worst.is_none_or(|(_, most)| *credits > most) {
            worst = Some((*node, *credits));
        }
    }
    worst.map(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_do_not_mix_to_small_ones() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..2_000_u64 {
            let [a, b, c, d, ..] = mix(number).to_le_bytes();
            assert!(seen.insert(u32::from_le_bytes([a, b, c, d])), "{number}");
        }
    }
}
