//! Public addresses of this node: what it says about them, takes, gives away, and tells about their
//! connections.
//!
//! Role: the controls, by family: `takeover` and `release` move an address, `announce` tells the
//! neighbours, `tickles` keeps the connections, `observed` those that nobody registers, `configure`
//! changes the table. The table itself is `failover::addresses`.
//! Invariants
//! - One script at a time moves an address, and one control at a time decides about it.
//! - Local clients hear of an address that has gone before anybody else is told.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.1-9.7; `ctdb/server/ctdb_takeover.c`.

mod announce;
mod configure;
pub(in crate::node) mod observed;
mod release;
mod takeover;
pub(in crate::node) mod tickles;

use std::{net::IpAddr, ops::ControlFlow};

use ringmaster_protocol::{
    Destination, SockAddr, Srvid,
    connection::{Interface, InterfaceList, LinkState, PublicIpList},
    control::ControlRequest,
    control_packet::ControlFlags,
    process::RunState,
};

pub(in crate::node) use self::release::{release_all, release_all_if_recovery_lasts};
use super::answer::{Call, done, payload, refused, status, success};
use crate::{
    failover::addresses::Address,
    node::{Ask, NodeCx, Outcome, Tell, events, world::ControlAnswer},
};

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    call: &Call,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    let control = tickles::answer(cx, call, control)?;
    ControlFlow::Break(match control {
        ControlRequest::GetPublicIps => {
            payload(&public_ips(cx, call.flags.contains(ControlFlags::ONLY_AVAILABLE)))
        }
        ControlRequest::GetPublicIpInfo(address) => {
            let state = cx.state();
            let address = ip(&address).and_then(|address| state.addresses.get(address));
            address.map_or_else(refused, |address| payload(&state.addresses.info(address)))
        }
        ControlRequest::GetIfaces => {
            payload(&InterfaceList(cx.state().addresses.wire_interfaces().collect()))
        }
        ControlRequest::SetIfaceLinkState(interface) => set_link(cx, &interface),
        ControlRequest::TakeoverIp(wanted) => takeover::answer(cx, wanted).await,
        ControlRequest::ReleaseIp(wanted) => release::answer(cx, wanted).await,
        ControlRequest::SendGratuitousArp(info) => announce::on_request(cx, &info),
        ControlRequest::AddPublicIp(info) => configure::add(cx, &info).await,
        ControlRequest::DelPublicIp(info) => success(configure::delete(cx, &info.addr)),
        ControlRequest::ReloadPublicIps => configure::reload(cx).await,
        ControlRequest::StartIpreallocate => {
            if cx.state().run_state < RunState::Running {
                return ControlFlow::Break(done());
            }
            reallocated(cx, "startipreallocate", Srvid::START_IPREALLOCATE).await
        }
        ControlRequest::Ipreallocated => {
            reallocated(cx, "ipreallocated", Srvid::IPREALLOCATED).await
        }
        other => return ControlFlow::Continue(other),
    })
}

/// The address that a control is about; ports and IPv6 clothes do not matter.
fn ip(address: &SockAddr) -> Option<IpAddr> {
    address.canonical().ip()
}

fn public_ips(cx: &NodeCx, only_available: bool) -> PublicIpList {
    let state = cx.state();
    let wanted = state.addresses.iter().filter(|one| !only_available || state.offers(one));
    let offered: Vec<IpAddr> = wanted.map(|one| one.address).collect();
    let mut ips: Vec<_> = state.addresses.public_ips().collect();
    ips.retain(|listed| ip(&listed.addr).is_some_and(|address| offered.contains(&address)));
    PublicIpList(ips)
}

fn set_link(cx: &NodeCx, interface: &Interface) -> ControlAnswer {
    if !interface.name.fits_kernel() || interface.references != 0 {
        return refused();
    }
    let name = interface.name.to_string();
    let up = interface.link_state == LinkState::Up;
    success(cx.state_mut().addresses.set_link(&name, up).is_some())
}

/// Runs the event that ends, or begins, a takeover run and tells the local clients.
async fn reallocated(cx: &NodeCx, event: &'static str, srvid: Srvid) -> ControlAnswer {
    let result = events::run(cx, event).await;
    let status_of_event = events::status(result);
    if status_of_event >= 0 {
        tell_clients(cx, srvid, Vec::new());
    }
    status(status_of_event)
}

/// A message to this node's clients.
fn tell_clients(cx: &NodeCx, srvid: Srvid, data: Vec<u8>) {
    let to = Destination::Node(cx.state().pnn());
    cx.tell(Tell::Message { to, srvid, data });
}

/// What a script that moves the address is told: interface, address, bits of its mask.
fn script_words(entry: &Address) -> String {
    let address = SockAddr::new(entry.address, 0);
    format!("{} {address} {}", entry.interface_word(), entry.mask_bits)
}

/// An address as clients compare it: its text with NUL.
fn client_text(address: IpAddr) -> Vec<u8> {
    let mut text = SockAddr::new(address, 0).to_string().into_bytes();
    text.push(0);
    text
}

/// What has to go if the daemon dies, and what not.
fn guard(cx: &NodeCx, address: IpAddr, here: bool) {
    if can_see(cx) {
        cx.tell(Tell::Guard { address, here });
    }
}

/// Whether the host has the address. Whoever awaits this decides next, without any wait between:
/// nobody else asks about the same address meanwhile. `None`: it is not in the table (any more).
async fn held(cx: &NodeCx, address: IpAddr) -> Option<bool> {
    cx.until(|state| state.addresses.get(address).is_none_or(|entry| !entry.looking)).await;
    cx.state_mut().addresses.get_mut(address)?.looking = true;
    let held = is_held(cx, address).await;
    cx.state_mut().addresses.get_mut(address)?.looking = false;
    Some(held)
}

/// Whether the host has the address at this moment.
async fn is_held(cx: &NodeCx, address: IpAddr) -> bool {
    match cx.ask(Ask::Held(vec![address])).await {
        Outcome::Held(held) => held.contains(&address),
        other => {
            tracing::error!(?other, "cannot find out which addresses this host has");
            false
        }
    }
}

/// Whether it can be seen which addresses the host has: not where they are only played with.
fn can_see(cx: &NodeCx) -> bool {
    let state = cx.state();
    state.constants.real_addresses && !state.constants.failover_disabled
}
