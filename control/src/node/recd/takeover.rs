//! The takeover run and the wish for one.
//!
//! Role: the sequence around the allocation of public addresses. This node knows none, so nothing
//! is allocated: every run is C's "No nodes available to host public IPs", which tells all nodes
//! that the (empty) allocation stands.
//! Invariant: takeover runs of other leaders are switched off while one is under way.
//! Origin: `docs/spec/cluster-semantics.md` 9.8, 9.10; `ctdb_recoverd.c: do_takeover_run`.

use ringmaster_protocol::{
    Destination, Srvid,
    control::kinds,
    process::{DisableMessage, SrvidMessage},
    tunable::Tunable,
};
use tracing::{info, warn};

use super::{
    ask::{Failed, message, multi_timed},
    leader::leads,
    messages::reply,
};
use crate::node::NodeCx;

/// For how long other nodes keep from takeover runs, in seconds; switched on again at the end.
const DISABLE_S: u32 = 60;

/// Looks at the addresses of this node; asks the leader for a run when they first come into sight.
/// A node that does not lead forgets what only a leader answers.
pub(super) fn verify(cx: &NodeCx) {
    let now = cx.now();
    let own = {
        let mut state = cx.state_mut();
        if !leads(&state) {
            state.recd.takeover_requests.clear();
            state.recd.rebalance.clear();
        }
        if state.constants.failover_disabled || state.recd.takeover_runs.is_disabled(now) {
            return;
        }
        if std::mem::replace(&mut state.recd.addresses_seen, true) {
            return;
        }
        state.pnn()
    };
    let request = SrvidMessage { pnn: Some(own), srvid: Srvid::NO_REPLY };
    message(cx, Destination::BroadcastConnected, Srvid::TAKEOVER_RUN, &request);
}

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
    let result = super::ask::unless(cx, steps(cx), |state| !leads(state)).await;
    switch_others(cx, 0);
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
        Some(Err(failed)) => {
            warn!("Takeover run unsuccessful: {failed}");
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

async fn steps(cx: &NodeCx) -> Result<(), Failed> {
    let (connected, timeout_s) = {
        let state = cx.state();
        (state.connected(), state.tunables.value(Tunable::TakeoverTimeout).saturating_mul(3))
    };
    multi_timed::<kinds::Ipreallocated>(cx, &connected, &(), timeout_s).await.map(drop)
}
