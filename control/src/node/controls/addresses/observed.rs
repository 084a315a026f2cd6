//! Connections that the kernel knows of: those of services that register nothing.
//!
//! Role: looks at the host's connections to the addresses here, adds what is new to the lists that
//! other nodes keep (`tickles`), and removes what this file has added and is over.
//! Invariants
//! - A connection that somebody registered, or an administrator added, and that the kernel has never
//!   shown, is none of this file's business.
//! - While an address is on the move its list stays as it is: connections end because it leaves.
//!
//! Origin: ours. C's 10.interface does it from the output of `ss`, in the monitor event, since 4.20.7.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ringmaster_protocol::{
    Pnn, connection::Connection, control::ControlOpcode, process::RunState, wire::Encode,
};

use super::{can_see, ip, tickles};
use crate::{
    failover::addresses::Address,
    node::{
        NodeCx, State,
        controls::broadcast_to_others,
        world::{Ask, Outcome},
    },
};

/// Between two looks, in milliseconds. A connection that is younger when the node dies is not known
/// elsewhere; its client finds out by its own time-outs.
const LOOK_MS: u64 = 1_000;

/// So many new connections of an address are told one by one, more with the whole list.
const ONE_BY_ONE_MAX: usize = 32;

/// Looks from time to time, until the shutdown; returns at once.
pub(in crate::node) fn keep_looking(cx: &NodeCx) {
    if !can_see(cx) {
        return;
    }
    let cx = cx.clone();
    cx.clone().spawn(async move {
        let stopping = |state: &State| state.run_state == RunState::Shutdown;
        loop {
            // A node that hosts nothing has nothing to look at, and no timer.
            cx.until(move |state| {
                stopping(state) || state.addresses.iter().any(|one| rests(state.pnn(), one))
            })
            .await;
            if stopping(&cx.state()) {
                return;
            }
            look(&cx).await;
            cx.sleep(LOOK_MS).await;
        }
    });
}

/// Here, and staying.
fn rests(own: Pnn, address: &Address) -> bool {
    address.host == Some(own) && !address.update_in_flight
}

async fn look(cx: &NodeCx) {
    let addresses: Vec<IpAddr> = {
        let state = cx.state();
        state
            .addresses
            .iter()
            .filter(|one| rests(state.pnn(), one))
            .map(|one| one.address)
            .collect()
    };
    let found = match cx.ask(Ask::Connections(addresses.clone())).await {
        Outcome::Connections(found) => found,
        other => {
            tracing::warn!(?other, "cannot find out which connections this host has");
            return;
        }
    };
    let mut by_address: BTreeMap<IpAddr, BTreeSet<Connection>> =
        addresses.into_iter().map(|address| (address, BTreeSet::new())).collect();
    for connection in found {
        if let Some(list) = ip(&connection.dst).and_then(|address| by_address.get_mut(&address)) {
            list.insert(connection);
        }
    }
    let mut told = Vec::new();
    {
        let mut state = cx.state_mut();
        let own = state.pnn();
        for (address, found) in by_address {
            // It may have begun to move, or have been deleted, meanwhile.
            let entry = state.addresses.get_mut(address).filter(|entry| rests(own, entry));
            if let Some(entry) = entry {
                told.extend(take_in(entry, found));
            }
        }
    }
    for connection in told {
        let data = connection.to_bytes();
        broadcast_to_others(cx, State::connected, ControlOpcode::TCP_ADD, &data);
    }
    tickles::send_crowds(cx);
}

/// Brings the list up to date; returns what others are told one by one.
fn take_in(entry: &mut Address, found: BTreeSet<Connection>) -> Vec<Connection> {
    let mut over = false;
    for gone in entry.observed.difference(&found) {
        over |= entry.tickles.remove(gone);
    }
    let fresh = found.difference(&entry.observed).copied().collect::<Vec<_>>();
    let mut added: Vec<Connection> =
        fresh.into_iter().filter(|connection| entry.tickles.add(*connection)).collect();
    if added.len() > ONE_BY_ONE_MAX {
        added.clear();
        entry.tickles.crowd = true;
    }
    entry.tickles.update_needed |= over || entry.tickles.crowd;
    entry.observed = found;
    added
}
