//! TAKEOVER_IP: this node is to host an address.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.2; `ctdb/server/ctdb_takeover.c`.

use std::net::IpAddr;

use ringmaster_protocol::{Srvid, connection::PublicIp};

use super::{announce, can_see, client_text, guard, held, ip, script_words, tell_clients};
use crate::{
    failover::addresses::NO_INTERFACE,
    node::{
        NodeCx,
        controls::{
            answer::{done, refused, status},
            ban_self,
        },
        events,
        world::ControlAnswer,
    },
};

/// What has to be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Redundant,
    /// It comes here.
    Take,
    /// It is here and goes to another interface, or just to one that this daemon knows of.
    Update,
    /// No.
    Refuse,
    /// Another node is believed to host it: this node is out of its mind.
    BanSelf,
}

pub(super) async fn answer(cx: &NodeCx, wanted: PublicIp) -> ControlAnswer {
    if wanted.pnn != Some(cx.state().pnn()) {
        tracing::warn!(address = %wanted.addr, pnn = ?wanted.pnn, "takeover for another node");
        return refused();
    }
    let Some(address) = ip(&wanted.addr) else { return done() };
    if cx.state().addresses.get(address).is_none() {
        tracing::info!(%address, "takeover of an address that is not public here");
        return done();
    }
    let here = if can_see(cx) { held(cx, address).await } else { Some(false) };
    // Deleted while we looked.
    let Some(here) = here else { return done() };
    match decide(cx, address, here) {
        Step::Redundant => done(),
        Step::Refuse => refused(),
        Step::BanSelf => {
            tracing::error!(%address, "the address is here, but believed on another node; banning self");
            ban_self(cx);
            refused()
        }
        Step::Take => take(cx, address).await,
        Step::Update => update(cx, address).await,
    }
}

/// Decides, and marks the address as being moved if it will be.
fn decide(cx: &NodeCx, address: IpAddr, here: bool) -> Step {
    let mut state = cx.state_mut();
    let own = state.pnn();
    let Some(entry) = state.addresses.get(address) else { return Step::Redundant };
    let Some(best) = state.addresses.best_interface(entry) else {
        tracing::error!(%address, "no interface for the address is up");
        return Step::Refuse;
    };
    let elsewhere = entry.host.filter(|host| *host != own);
    if here && elsewhere.is_some_and(|host| state.flags_of(host).is_some()) {
        return Step::BanSelf;
    }
    let update = (here && entry.host.is_none()) || state.addresses.is_misplaced(entry, best);
    let (step, busy) = match (here, update) {
        (false, _) => (Step::Take, entry.update_in_flight),
        (true, true) => (Step::Update, entry.update_in_flight),
        (true, false) => return Step::Redundant,
    };
    if step == Step::Take && update {
        state.addresses.unassign(address, own);
    }
    if busy {
        tracing::warn!(%address, "a script is moving the address already");
        return Step::Refuse;
    }
    if let Some(entry) = state.addresses.get_mut(address) {
        entry.update_in_flight = true;
    }
    step
}

/// Runs the script of a move; afterwards the address may be moved again.
async fn move_by(cx: &NodeCx, address: IpAddr, event: &'static str, args: String) -> i32 {
    guard(cx, address, true);
    let result = events::run_with(cx, event, args).await;
    if let Some(entry) = cx.state_mut().addresses.get_mut(address) {
        entry.update_in_flight = false;
    }
    events::status(result)
}

async fn take(cx: &NodeCx, address: IpAddr) -> ControlAnswer {
    let args = {
        let mut state = cx.state_mut();
        let own = state.pnn();
        state.addresses.assign(address, own);
        let Some(entry) = state.addresses.get(address) else { return done() };
        script_words(entry)
    };
    tracing::info!(%address, "Takeover of an IP: {args}");
    let result = move_by(cx, address, "takeip", args).await;
    // The address stays assigned all the same: only a release undoes what the script has done.
    if result != 0 {
        return status(result);
    }
    announce::after_takeover(cx, address);
    tell_clients(cx, Srvid::TAKE_IP, client_text(address));
    done()
}

async fn update(cx: &NodeCx, address: IpAddr) -> ControlAnswer {
    let (old, args) = {
        let mut state = cx.state_mut();
        let own = state.pnn();
        let old = state.addresses.get(address).and_then(|entry| entry.current.clone());
        state.addresses.unassign(address, own);
        state.addresses.assign(address, own);
        let Some(entry) = state.addresses.get_mut(address) else { return done() };
        if entry.current == old {
            entry.update_in_flight = false;
            return done();
        }
        let args = format!("{} {}", old.as_deref().unwrap_or(NO_INTERFACE), script_words(entry));
        (old, args)
    };
    tracing::info!(%address, "Update of an IP: {args}");
    let result = move_by(cx, address, "updateip", args).await;
    if result != 0
        && let Some(entry) = cx.state_mut().addresses.get_mut(address)
    {
        entry.current = old;
    }
    status(result)
}
