//! Telling neighbours and clients where an address is now.
//!
//! Role: when; how is the driver's.
//! Invariant: an announcement ends when the address goes, or is announced anew.
//! Origin: `docs/spec/cluster-semantics.md` 9.5; `ctdb/server/ctdb_takeover.c`.

use std::net::IpAddr;

use ringmaster_protocol::connection::AddressInfo;

use super::ip;
use crate::node::{
    NodeCx, Tell,
    controls::answer::{done, refused},
    world::ControlAnswer,
};

/// How often: a neighbour may miss one.
const ROUNDS: u32 = 3;
/// Between two rounds after a takeover, in milliseconds.
const TAKEOVER_PAUSE_MS: u64 = 1_100;
/// Between two rounds of SEND_GRATUITOUS_ARP, in milliseconds.
const REQUEST_PAUSE_MS: u64 = 1_000;

/// The address has come here. The connections that it had on its former host are reset; the list
/// begins anew.
pub(super) fn after_takeover(cx: &NodeCx, address: IpAddr) {
    let (serial, connections) = {
        let mut state = cx.state_mut();
        let real = state.constants.real_addresses;
        let serial = state.next_number();
        let Some(entry) = state.addresses.get_mut(address) else { return };
        if !real {
            return;
        }
        entry.announcement = serial;
        let connections = entry.tickles.take();
        entry.tickles.update_needed |= !connections.is_empty();
        (serial, connections)
    };
    let cx = cx.clone();
    cx.clone().spawn(async move {
        for round in 1..=ROUNDS {
            let current = {
                let state = cx.state();
                let entry = state.addresses.get(address);
                let entry = entry.filter(|entry| entry.announcement == serial);
                entry.and_then(|entry| entry.current.clone())
            };
            let Some(interface) = current else { return };
            cx.tell(Tell::Announce { address, interface });
            if !connections.is_empty() {
                tracing::info!(%address, round, connections = connections.len(), "sending tickles");
                cx.tell(Tell::Tickle(connections.clone()));
            }
            if round < ROUNDS {
                cx.sleep(TAKEOVER_PAUSE_MS).await;
            }
        }
    });
}

/// Ends what is under way.
pub(super) fn cancel(cx: &NodeCx, address: IpAddr) {
    if let Some(entry) = cx.state_mut().addresses.get_mut(address) {
        entry.announcement = 0;
    }
}

/// SEND_GRATUITOUS_ARP: whatever the address, whoever hosts it.
pub(super) fn on_request(cx: &NodeCx, info: &AddressInfo<'_>) -> ControlAnswer {
    let Some(address) = ip(&info.addr) else { return refused() };
    let interface = info.interfaces.map(|name| name.to_string()).unwrap_or_default();
    let cx = cx.clone();
    cx.clone().spawn(async move {
        for round in 1..=ROUNDS {
            cx.tell(Tell::Announce { address, interface: interface.clone() });
            if round < ROUNDS {
                cx.sleep(REQUEST_PAUSE_MS).await;
            }
        }
    });
    done()
}
