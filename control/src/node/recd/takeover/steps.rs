//! A takeover run, step by step, as C's helper does it.
//!
//! Role: asks all nodes what they know and offer, places the addresses (`failover::ipalloc`), has
//! them released where they do not belong, then taken over where they do, then tells everybody.
//! Invariants
//! - No address is taken over before everybody who is not to have it has confirmed that he has not.
//! - From the placement on all steps share one deadline.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.8; `ctdb/server/ctdb_takeover_helper.c`.

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_protocol::{
    Pnn,
    connection::{PublicIp, PublicIpList},
    control::{Control, kinds},
    control_packet::ControlFlags,
    tunable::Tunable,
};
use tracing::info;

use super::super::ask::{Failed, crowd, judge, multi_with, outgoing, read};
use crate::{
    config::home_nodes::HomeNode,
    failover::ipalloc::{Algorithm, Offer, Placement, Question, allocate, can_host},
    node::{
        NodeCx,
        world::{Ask, ControlAnswer, Outcome, OutgoingControl},
    },
    plane::Millis,
};

/// The steps after the placement have so many times `TakeoverTimeout`.
const DEADLINE_TIMEOUTS: u32 = 3;

/// A run that has failed: who is to blame, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    /// Credits by node.
    credits: BTreeMap<Pnn, u32>,
    /// For the log.
    pub(super) reason: String,
}

impl Blame {
    /// The node with most credits, the lowest number on ties.
    pub(super) fn worst(&self) -> Option<Pnn> {
        let worst = self.credits.iter().rev().max_by_key(|(_, credits)| **credits);
        worst.map(|(node, _)| *node)
    }
}

impl From<Failed> for Blame {
    fn from(failed: Failed) -> Self {
        Self { credits: BTreeMap::from([(failed.node, 1)]), reason: failed.to_string() }
    }
}

/// What the run goes by from its start to its end.
struct Run {
    connected: Vec<Pnn>,
    timeout_s: u32,
}

/// The whole run. `rebalance`: nodes that should get addresses.
pub(super) async fn run(cx: &NodeCx, rebalance: &BTreeSet<Pnn>) -> Result<(), Blame> {
    let (run, disabled) = {
        let state = cx.state();
        let timeout_s = state.tunable(Tunable::TakeoverTimeout);
        (Run { connected: state.connected(), timeout_s }, state.constants.failover_disabled)
    };
    let from_start = run.deadline(cx);
    if disabled {
        return run.announce(cx, from_start).await;
    }
    let offers = run.offers(cx).await?;
    if !can_host(&offers) {
        info!("No nodes available to host public IPs yet");
        return run.announce(cx, from_start).await;
    }
    let placements = place(cx, &offers, rebalance).await;
    let deadline = run.deadline(cx);
    run.begin(cx, deadline).await?;
    run.release(cx, deadline, &placements).await?;
    run.take_over(cx, deadline, &placements).await?;
    run.announce(cx, deadline).await
}

async fn place(cx: &NodeCx, offers: &[Offer], rebalance: &BTreeSet<Pnn>) -> Vec<Placement> {
    let algorithm = Algorithm::from_tunable(cx.state().tunable(Tunable::IPAllocAlgorithm));
    let homes: Vec<HomeNode> = match algorithm {
        Algorithm::Deterministic => match cx.ask(Ask::ReadHomeNodes).await {
            Outcome::HomeNodes(homes) => homes,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    let state = cx.state();
    allocate(&Question {
        offers,
        algorithm,
        no_takeover: state.tunable(Tunable::NoIPTakeover) != 0,
        no_failback: state.tunable(Tunable::NoIPFailback) != 0,
        rebalance,
        homes: &homes,
    })
}

impl Run {
    fn deadline(&self, cx: &NodeCx) -> Millis {
        cx.now().plus_seconds(self.timeout_s.saturating_mul(DEADLINE_TIMEOUTS))
    }

    /// What every node knows and offers, by its number.
    async fn offers(&self, cx: &NodeCx) -> Result<Vec<Offer>, Failed> {
        let (count, active) = {
            let state = cx.state();
            (state.nodes.len(), state.active())
        };
        let mut offers = vec![Offer::default(); count];
        let known = self.public_ips(cx, &self.connected, ControlFlags::NONE).await?;
        // Whoever knows none is not asked again.
        let asked: Vec<Pnn> = known
            .iter()
            .filter(|(node, ips)| !ips.0.is_empty() && active.contains(node))
            .map(|(node, _)| *node)
            .collect();
        let available = self.public_ips(cx, &asked, ControlFlags::ONLY_AVAILABLE).await?;
        for (node, ips) in known {
            if let Some(offer) = offers.get_mut(index(node)) {
                offer.known = ips.0;
            }
        }
        for (node, ips) in available {
            if let Some(offer) = offers.get_mut(index(node)) {
                offer.available = ips.0;
            }
        }
        Ok(offers)
    }

    async fn public_ips(
        &self,
        cx: &NodeCx,
        nodes: &[Pnn],
        flags: ControlFlags,
    ) -> Result<Vec<(Pnn, PublicIpList)>, Failed> {
        let change = |what: &mut OutgoingControl| {
            what.timeout_s = self.timeout_s;
            what.flags = flags;
        };
        let answers = multi_with::<kinds::GetPublicIps>(cx, nodes, &(), change).await?;
        let list = |answer: &ControlAnswer| read::<kinds::GetPublicIps>(answer).unwrap_or_default();
        Ok(answers.iter().map(|(node, answer)| (*node, list(answer))).collect())
    }

    /// START_IPREALLOCATE, which 4.17 does not know and answers with -1.
    async fn begin(&self, cx: &NodeCx, deadline: Millis) -> Result<(), Failed> {
        let control = |node: &Pnn| timed::<kinds::StartIpreallocate>(cx, *node, &(), deadline);
        let outcomes = crowd(cx, self.connected.iter().map(control).collect()).await;
        for (place, outcome) in outcomes {
            if !matches!(&outcome, Outcome::Reply(Ok(answer)) if answer.status == -1) {
                judge::<kinds::StartIpreallocate>(self.connected[place], outcome)?;
            }
        }
        Ok(())
    }

    /// RELEASE_IP to all who know an address and are not to host it. Of each address the first
    /// failure counts.
    async fn release(
        &self,
        cx: &NodeCx,
        deadline: Millis,
        placements: &[Placement],
    ) -> Result<(), Blame> {
        let mut orders = Vec::new();
        for placement in placements {
            let to_release =
                placement.known_on.iter().filter(|node| Some(**node) != placement.host);
            let ip = PublicIp { pnn: placement.host, addr: placement.address };
            orders.extend(to_release.map(|node| (*node, ip)));
        }
        let mut blamed = BTreeSet::new();
        let counts = |ip: &PublicIp| blamed.insert(ip.addr);
        order::<kinds::ReleaseIp>(cx, deadline, &orders, counts).await
    }

    /// TAKEOVER_IP to the hosts. Every failure counts.
    async fn take_over(
        &self,
        cx: &NodeCx,
        deadline: Millis,
        placements: &[Placement],
    ) -> Result<(), Blame> {
        let placed = placements.iter().filter_map(|placement| {
            let ip = PublicIp { pnn: placement.host, addr: placement.address };
            placement.host.map(|host| (host, ip))
        });
        order::<kinds::TakeoverIp>(cx, deadline, &placed.collect::<Vec<_>>(), |_| true).await
    }

    /// IPREALLOCATED to all.
    async fn announce(&self, cx: &NodeCx, deadline: Millis) -> Result<(), Blame> {
        let timeout_s = left_s(cx, deadline);
        let change = |what: &mut OutgoingControl| what.timeout_s = timeout_s;
        multi_with::<kinds::Ipreallocated>(cx, &self.connected, &(), change).await?;
        Ok(())
    }
}

/// Orders about addresses, all at once. `counts` decides whether a failure is held against its node.
async fn order<K>(
    cx: &NodeCx,
    deadline: Millis,
    orders: &[(Pnn, PublicIp)],
    mut counts: impl FnMut(&PublicIp) -> bool,
) -> Result<(), Blame>
where
    K: for<'a> Control<Request<'a> = PublicIp>,
{
    let control = |(node, ip): &(Pnn, PublicIp)| timed::<K>(cx, *node, ip, deadline);
    let outcomes = crowd(cx, orders.iter().map(control).collect()).await;
    let mut blame: Option<Blame> = None;
    for (place, outcome) in outcomes {
        let (node, ip) = &orders[place];
        let Err(failed) = judge::<K>(*node, outcome) else { continue };
        tracing::warn!("{} {}: {failed}", K::OPCODE, ip.addr);
        let blame = blame
            .get_or_insert_with(|| Blame { credits: BTreeMap::new(), reason: failed.to_string() });
        if counts(ip) {
            *blame.credits.entry(*node).or_insert(0) += 1;
        }
    }
    blame.map_or(Ok(()), Err)
}

/// A control that has to be answered by the deadline.
fn timed<K: Control>(
    cx: &NodeCx,
    to: Pnn,
    request: &K::Request<'_>,
    deadline: Millis,
) -> OutgoingControl {
    let timeout_s = left_s(cx, deadline);
    OutgoingControl { timeout_s, ..outgoing::<K>(&cx.state(), to, request) }
}

/// Seconds until then, at least one: 0 would be for ever.
fn left_s(cx: &NodeCx, deadline: Millis) -> u32 {
    let left_ms = deadline.0.saturating_sub(cx.now().0);
    u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(u32::MAX).max(1)
}

fn index(node: Pnn) -> usize {
    usize::try_from(node.get()).unwrap_or(usize::MAX)
}
