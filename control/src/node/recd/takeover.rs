//! The takeover run and the wish for one.
//!
//! Role: the sequence around the allocation of public addresses. This node knows none and allocates
//! none: every run is C's "No nodes available to host public IPs", which tells all nodes that the
//! allocation stands. Addresses of C nodes stay where they are; the log says so.
//! Invariant: takeover runs of other leaders are switched off while one is under way.
//! Origin: `docs/spec/cluster-semantics.md` 9.8, 9.10; `ctdb_recoverd.c: do_takeover_run`.

use ringmaster_protocol::{
    Destination, Pnn, Srvid,
    control::kinds,
    process::{DisableMessage, SrvidMessage},
    tunable::Tunable,
};
use tracing::{info, warn};

use super::{
    ask::{Failed, message, multi_timed, read},
    bans,
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
    if let Some(Err(failed)) = &result {
        blame(cx, failed.node);
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
    let (connected, timeout_s, disabled) = {
        let state = cx.state();
        let timeout_s = state.tunables.value(Tunable::TakeoverTimeout);
        (state.connected(), timeout_s, state.constants.failover_disabled)
    };
    if !disabled {
        let known = multi_timed::<kinds::GetPublicIps>(cx, &connected, &(), timeout_s).await?;
        let has_any =
            |answer| read::<kinds::GetPublicIps>(answer).is_some_and(|ips| !ips.0.is_empty());
        if let Some((node, _)) = known.iter().find(|(_, answer)| has_any(answer)) {
            warn!(
                "node {node} knows public addresses, which this leader does not move; let a C \
                 node lead (`leader capability = false` here)"
            );
        }
    }
    let timeout_s = timeout_s.saturating_mul(3);
    multi_timed::<kinds::Ipreallocated>(cx, &connected, &(), timeout_s).await.map(drop)
}

/// Whose failure has ended a run is reported, as by C's helper: two such runs and it is banned.
fn blame(cx: &NodeCx, node: Pnn) {
    let (enabled, count) = {
        let state = cx.state();
        (state.tunables.value(Tunable::EnableBans) != 0, state.nodes.len())
    };
    if enabled {
        bans::report(cx, node, u32::try_from(count).unwrap_or(u32::MAX));
    }
}
