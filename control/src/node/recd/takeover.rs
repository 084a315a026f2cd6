//! The takeover run and the wish for one.
//!
//! Role: who asks for a run (`verify` among them), who is answered, and what comes of it. The run
//! itself: `steps`.
//! Invariant: takeover runs of other leaders are switched off while one is under way.
//! Origin: `docs/spec/cluster-semantics.md` 9.8, 9.10; `ctdb_recoverd.c: do_takeover_run`.

mod steps;
mod verify;

use ringmaster_protocol::{Destination, Srvid, process::DisableMessage, tunable::Tunable};
use tracing::{info, warn};

use self::steps::Blame;
pub(super) use self::verify::verify;
use super::{
    ask::{message, unless},
    bans,
    leader::leads,
    messages::reply,
};
use crate::node::NodeCx;

/// For how long other nodes keep from takeover runs, in seconds; switched on again at the end.
const DISABLE_S: u32 = 60;

/// Main loop step 27: a run if somebody wants one, and the answers.
pub(super) async fn serve_requests(cx: &NodeCx) {
    let now = cx.now();
    let requests = {
        let mut state = cx.state_mut();
        let wanted = state.recd.need_takeover_run || !state.recd.takeover_requests.is_empty();
        if !wanted || state.recd.takeover_runs.is_disabled(now) {
            return;
        }
        std::mem::take(&mut state.recd.takeover_requests)
    };
    let done = run(cx).await;
    let result = if done { cx.state().pnn().get().cast_signed() } else { -1 };
    for request in requests {
        reply(cx, request.pnn, request.srvid, result);
    }
}

/// One takeover run; whether it succeeded.
pub(super) async fn run(cx: &NodeCx) -> bool {
    let now = cx.now();
    let forced = {
        let mut state = cx.state_mut();
        if !state.recd.takeover_runs.begin(now) {
            state.recd.need_takeover_run = true;
            return false;
        }
        state.recd.rebalance.clone()
    };
    info!("Takeover run starting");
    switch_others(cx, DISABLE_S);
    let result = unless(cx, steps::run(cx, &forced), |state| !leads(state)).await;
    switch_others(cx, 0);
    if let Some(Err(blame)) = &result {
        report(cx, blame);
    }
    let mut state = cx.state_mut();
    state.recd.takeover_runs.end();
    match result {
        Some(Ok(())) => {
            info!("Takeover run completed successfully");
            state.recd.need_takeover_run = false;
            if state.recd.rebalance == forced {
                state.recd.rebalance.clear();
            }
            true
        }
        Some(Err(blame)) => {
            warn!("Takeover run unsuccessful: {}", blame.reason);
            state.recd.need_takeover_run = true;
            false
        }
        None => {
            warn!("Leader changed, aborting takeover");
            state.recd.need_takeover_run = true;
            false
        }
    }
}

/// Keeps the other connected nodes from takeover runs for so long; 0: no more.
fn switch_others(cx: &NodeCx, timeout: u32) {
    let (own, connected) = {
        let state = cx.state();
        (state.pnn(), state.connected())
    };
    let request = DisableMessage { pnn: None, srvid: Srvid::NO_REPLY, timeout };
    for node in connected.into_iter().filter(|node| *node != own) {
        message(cx, Destination::Node(node), Srvid::DISABLE_TAKEOVER_RUNS, &request);
    }
}

/// Whose failures have ended a run is reported, as by C's helper: two such runs and it is banned.
fn report(cx: &NodeCx, blame: &Blame) {
    let (enabled, count) = {
        let state = cx.state();
        (state.tunables.value(Tunable::EnableBans) != 0, state.nodes.len())
    };
    if let Some(node) = blame.worst().filter(|_| enabled) {
        bans::report(cx, node, u32::try_from(count).unwrap_or(u32::MAX));
    }
}
