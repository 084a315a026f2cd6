//! Changes of the table while the daemon runs.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.11; `ctdb/server/ctdb_takeover.c`.

use std::net::IpAddr;

use ringmaster_protocol::{Destination, SockAddr, Srvid, connection::AddressInfo};

use super::ip;
use crate::{
    config::public_addresses::PublicAddress,
    node::{
        Ask, NodeCx, Outcome, Tell,
        controls::answer::{done, refused, status, success},
        world::ControlAnswer,
    },
};

/// What C's child that reads the file exits with when it cannot.
const NOT_READ: i32 = 1;

/// ADD_PUBLIC_IP.
pub(super) async fn add(cx: &NodeCx, info: &AddressInfo<'_>) -> ControlAnswer {
    let (Some(address), Some(interfaces)) = (ip(&info.addr), info.interfaces) else {
        return refused();
    };
    let interfaces: Vec<String> =
        interfaces.to_string().split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect();
    let there = match cx.ask(Ask::ExistingInterfaces(interfaces.clone())).await {
        Outcome::Names(Ok(names)) => names,
        other => {
            tracing::error!(?other, "cannot find out which interfaces this host has");
            return refused();
        }
    };
    if let Some(unknown) = interfaces.iter().find(|name| !there.contains(name)) {
        tracing::error!(%address, interface = unknown, "no such interface; the address is not added");
        return refused();
    }
    let configured = PublicAddress { address, mask_bits: info.mask, interfaces, line: 0 };
    let added = cx.state_mut().addresses.add(&configured).is_ok();
    if !added {
        tracing::error!(%address, "the address is public already");
    }
    success(added)
}

/// DEL_PUBLIC_IP; `false` for an address that is not in the table. One that is hosted here goes with
/// its release, until which it is offered no more.
pub(super) fn delete(cx: &NodeCx, addr: &SockAddr) -> bool {
    let Some(address) = ip(addr) else { return false };
    let mut state = cx.state_mut();
    let own = state.pnn();
    let Some(entry) = state.addresses.get_mut(address) else { return false };
    if entry.host == Some(own) {
        entry.delete_pending = true;
    } else {
        state.addresses.remove(address);
    }
    true
}

/// RELOAD_PUBLIC_IPS: the table becomes what the file says. Of addresses that are in both, nothing
/// is changed.
pub(super) async fn reload(cx: &NodeCx) -> ControlAnswer {
    let file = match cx.ask(Ask::ReadPublicAddresses).await {
        Outcome::PublicAddresses(Ok(file)) => file,
        Outcome::PublicAddresses(Err(reason)) => {
            tracing::error!(reason, "public addresses stay as they are");
            return status(NOT_READ);
        }
        other => {
            tracing::error!(?other, "cannot read the public addresses");
            return refused();
        }
    };
    let known: Vec<IpAddr> = cx.state().addresses.iter().map(|entry| entry.address).collect();
    for address in &known {
        if !file.iter().any(|line| line.address == *address) {
            tracing::info!(%address, "no longer in the file");
            delete(cx, &SockAddr::new(*address, 0));
        }
    }
    // From the last line to the first, as C: so the first stands in front afterwards.
    let new: Vec<&PublicAddress> =
        file.iter().rev().filter(|line| !known.contains(&line.address)).collect();
    if !new.is_empty() {
        balance_me(cx);
    }
    for line in new {
        // It was not in the table.
        let _ = cx.state_mut().addresses.add(line);
    }
    done()
}

/// Asks the leader to give this node addresses even if it has some.
fn balance_me(cx: &NodeCx) {
    let own = cx.state().pnn();
    cx.tell(Tell::Message {
        to: Destination::BroadcastConnected,
        srvid: Srvid::REBALANCE_NODE,
        data: own.get().to_le_bytes().to_vec(),
    });
}
