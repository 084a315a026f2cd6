//! Whether this node's addresses are as they should be; if not, the leader is asked for a run.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.10; `ctdb_recoverd.c: verify_local_ip_allocation`.

use std::{collections::BTreeSet, net::IpAddr};

use ringmaster_protocol::{Destination, Srvid, process::SrvidMessage};
use tracing::{info, warn};

use super::super::{ask::message, leader::leads};
use crate::node::{NodeCx, State, world::Ask, world::Outcome};

/// Main loop step 13. A node that does not lead forgets what only a leader answers.
pub(in super::super) async fn verify(cx: &NodeCx) {
    let now = cx.now();
    {
        let mut state = cx.state_mut();
        if !leads(&state) {
            state.recd.takeover_requests.clear();
            state.recd.rebalance.clear();
        }
        if state.constants.failover_disabled || state.recd.takeover_runs.is_disabled(now) {
            return;
        }
    }
    // All of them, so that all is said that there is to say.
    let changed = interfaces_changed(cx);
    let unassigned = has_unassigned(&cx.state());
    let differs = differs_from_host(cx).await;
    if changed || unassigned || differs {
        let request = SrvidMessage { pnn: Some(cx.state().pnn()), srvid: Srvid::NO_REPLY };
        message(cx, Destination::BroadcastConnected, Srvid::TAKEOVER_RUN, &request);
    }
}

/// Since the last time; the first time counts.
fn interfaces_changed(cx: &NodeCx) -> bool {
    let mut state = cx.state_mut();
    let now = Some(state.addresses.interfaces().to_vec());
    if state.recd.interfaces_seen == now {
        return false;
    }
    let first = state.recd.interfaces_seen.is_none();
    state.recd.interfaces_seen = now;
    if !first {
        info!("the interfaces for public addresses have changed");
    }
    true
}

/// An address that nobody hosts and this node could.
fn has_unassigned(state: &State) -> bool {
    if !state.own_flags().is_empty() {
        return false;
    }
    let unassigned = state.addresses.iter().filter(|one| one.host.is_none() && state.offers(one));
    unassigned
        .inspect(|one| warn!("Unassigned IP {} can be served by this node", one.address))
        .count()
        > 0
}

/// An address that should be here and is not, or the other way round. Not one that a script is
/// moving.
async fn differs_from_host(cx: &NodeCx) -> bool {
    let addresses: Vec<IpAddr> = {
        let state = cx.state();
        if !state.constants.real_addresses || state.addresses.is_empty() {
            return false;
        }
        state.addresses.iter().map(|one| one.address).collect()
    };
    let held: BTreeSet<IpAddr> = match cx.ask(Ask::Held(addresses)).await {
        Outcome::Held(held) => held,
        other => {
            warn!("cannot find out which addresses this host has: {other:?}");
            return false;
        }
    };
    let state = cx.state();
    let own = Some(state.pnn());
    let mut differs = false;
    for one in state.addresses.iter().filter(|one| !one.update_in_flight) {
        match (one.host == own, held.contains(&one.address)) {
            (true, false) => warn!("IP {} not on an interface", one.address),
            (false, true) => warn!("IP {} incorrectly on an interface", one.address),
            _ => continue,
        }
        differs = true;
    }
    differs
}
