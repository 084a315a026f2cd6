//! RELEASE_IP: this node is not, or no more, to host an address; and the release of all.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.3, 9.4; `ctdb/server/ctdb_takeover.c`.

use std::net::IpAddr;

use ringmaster_protocol::{
    Pnn, Srvid,
    connection::PublicIp,
    process::{RecMode, RunState},
    tunable::Tunable,
};

use super::{announce, can_see, client_text, guard, held, ip, is_held, script_words, tell_clients};
use crate::node::{
    NodeCx, State,
    controls::answer::{done, refused},
    events,
    world::{ControlAnswer, ScriptResult},
};

pub(super) async fn answer(cx: &NodeCx, wanted: PublicIp) -> ControlAnswer {
    let Some(address) = ip(&wanted.addr) else { return done() };
    if cx.state().addresses.get(address).is_none() {
        return done();
    }
    announce::cancel(cx, address);
    let seen = can_see(cx);
    let here = if seen { held(cx, address).await } else { None };
    let Some(args) = begin(cx, address, here, wanted.pnn) else {
        guard(cx, address, false);
        return done();
    };
    let Some(args) = args else { return refused() };
    tracing::info!(%address, to = ?wanted.pnn, "Release of an IP: {args}");
    let result = events::run_with(cx, "releaseip", args).await;
    // A script that fails may have taken it away all the same, and one that succeeds need not have.
    let still_here = seen && is_held(cx, address).await;
    if let Some(entry) = cx.state_mut().addresses.get_mut(address) {
        entry.update_in_flight = false;
        entry.release_in_flight = false;
    }
    if result == ScriptResult::NotRun {
        return refused();
    }
    if still_here {
        tracing::error!(%address, "the script has not removed the address");
        return refused();
    }
    finish(cx, address, wanted.pnn);
    done()
}

/// What the script is told; `Some(None)`: the address is being moved. `None`: it is not here, which
/// is all that is wanted. `here`: whether the host has it, if that can be seen.
fn begin(
    cx: &NodeCx,
    address: IpAddr,
    here: Option<bool>,
    to: Option<Pnn>,
) -> Option<Option<String>> {
    let mut state = cx.state_mut();
    let own = state.pnn();
    let entry = state.addresses.get_mut(address)?;
    if !here.unwrap_or(entry.current.is_some()) {
        entry.host = to;
        state.addresses.unassign(address, own);
        return None;
    }
    if entry.update_in_flight {
        tracing::warn!(%address, "a script is moving the address already");
        return Some(None);
    }
    entry.update_in_flight = true;
    entry.release_in_flight = true;
    Some(Some(script_words(entry)))
}

/// The address is not here any more.
fn finish(cx: &NodeCx, address: IpAddr, to: Option<Pnn>) {
    let deleted = {
        let mut state = cx.state_mut();
        let own = state.pnn();
        let Some(entry) = state.addresses.get_mut(address) else { return };
        // A release to this node itself: it is released all the same.
        entry.host = to.filter(|host| *host != own);
        let deleted = entry.delete_pending;
        state.addresses.unassign(address, own);
        deleted
    };
    guard(cx, address, false);
    tell_clients(cx, Srvid::RELEASE_IP, client_text(address));
    if deleted {
        cx.state_mut().addresses.remove(address);
    }
}

/// Gives everything away, one address after the other: this node takes no part any more. Returns
/// when that is done.
pub(in crate::node) async fn release_all(cx: &NodeCx) {
    if cx.state().constants.failover_disabled {
        return;
    }
    let addresses: Vec<IpAddr> = cx.state().addresses.iter().map(|one| one.address).collect();
    for address in addresses {
        release_one(cx, address).await;
    }
}

async fn release_one(cx: &NodeCx, address: IpAddr) {
    announce::cancel(cx, address);
    let Some(here) = held(cx, address).await else { return };
    let args = {
        let mut state = cx.state_mut();
        let own = state.pnn();
        if !here {
            state.addresses.unassign(address, own);
            drop(state);
            return guard(cx, address, false);
        }
        let Some(entry) = state.addresses.get_mut(address) else { return };
        if entry.update_in_flight {
            tracing::warn!(%address, "not released: a script is moving the address");
            return;
        }
        entry.update_in_flight = true;
        script_words(entry)
    };
    tracing::info!(%address, "Release of an IP: {args}");
    let result = events::run_with(cx, "releaseip", args).await;
    let still_here = is_held(cx, address).await;
    if let Some(entry) = cx.state_mut().addresses.get_mut(address) {
        entry.update_in_flight = false;
    }
    if still_here || result != ScriptResult::Ok {
        tracing::error!(%address, ?result, still_here, "the address could not be released");
        return;
    }
    finish(cx, address, None);
}

/// A recovery has begun. If it lasts longer than `RecoveryDropAllIPs`, this node gives everything
/// away: clients that it cannot serve find another one.
pub(in crate::node) fn release_all_if_recovery_lasts(cx: &NodeCx) {
    let (limit_s, left) = {
        let state = cx.state();
        (state.tunable(Tunable::RecoveryDropAllIPs), state.recoveries_left)
    };
    let deadline = cx.now().plus_seconds(limit_s);
    let cx = cx.clone();
    cx.clone().spawn(async move {
        let over = move |state: &State| {
            state.recoveries_left != left
                || state.recovery_mode == RecMode::Normal
                || state.run_state == RunState::Shutdown
        };
        if !cx.until_or(deadline, over).await {
            tracing::warn!(limit_s, "the recovery takes too long; releasing all addresses");
            release_all(&cx).await;
        }
    });
}
