//! Counters: what the shards count and what the plane counts, now and by interval.
//!
//! Origin: `docs/spec/cluster-semantics.md` 14; `ctdb/server/ctdb_statistics.c`.

mod interval;

use std::ops::ControlFlow;

use ringmaster_protocol::{
    control::ControlRequest,
    process::RecMode,
    statistics::{LatencyCounter, Statistics, StatisticsHistory},
    tunable::Tunable,
};

use super::answer::{data, payload, refused, success};
use crate::{
    node::{
        Ask, NodeCx, Outcome,
        state::{Counters, FreezeState},
        world::{ControlAnswer, DataAsk},
    },
    plane::Millis,
};

pub(super) async fn answer<'a>(
    cx: &NodeCx,
    control: ControlRequest<'a>,
) -> ControlFlow<ControlAnswer, ControlRequest<'a>> {
    ControlFlow::Break(match control {
        ControlRequest::Statistics => match total(cx).await {
            Some(statistics) => payload(&statistics),
            None => refused(),
        },
        ControlRequest::StatisticsReset => reset(cx).await,
        ControlRequest::GetStatHistory => payload(&history(cx)),
        other => return ControlFlow::Continue(other),
    })
}

/// Adds one duration in seconds.
pub(in crate::node) fn add_latency(counter: &mut LatencyCounter, seconds: f64) {
    counter.min = if counter.num == 0 { seconds } else { counter.min.min(seconds) };
    counter.max = counter.max.max(seconds);
    counter.total += seconds;
    counter.num = counter.num.saturating_add(1);
}

/// Duration in seconds.
pub(super) fn seconds_between(start: Millis, end: Millis) -> f64 {
    std::time::Duration::from_millis(end.0.saturating_sub(start.0)).as_secs_f64()
}

/// Everything since the last reset.
async fn total(cx: &NodeCx) -> Option<Statistics> {
    let outcome = cx.ask(Ask::Data(DataAsk::Statistics)).await;
    let Outcome::Statistics(mut total) = outcome else { return None };
    let state = cx.state();
    let counters = &state.counters;
    total.num_clients = u32::try_from(state.clients.len()).unwrap_or(u32::MAX);
    total.frozen = u32::from(state.frozen_all == FreezeState::Frozen);
    total.recovering = u32::from(state.recovery_mode == RecMode::Active);
    total.timeouts.control += counters.control_timeouts;
    total.timeouts.traverse += counters.traverse_timeouts;
    total.reclock_ctdbd = counters.reclock_ctdbd;
    total.reclock_recd = counters.reclock_recd;
    total.childwrite_calls += counters.childwrite_calls;
    total.pending_childwrite_calls += counters.pending_childwrite_calls;
    total.childwrite_latency = counters.childwrite_latency;
    total.num_recoveries = counters.num_recoveries;
    total.statistics_start_time = counters.statistics_start;
    total.statistics_current_time = state.wall_clock_at(cx.now());
    Some(*total)
}

async fn reset(cx: &NodeCx) -> ControlAnswer {
    {
        let mut state = cx.state_mut();
        let statistics_start = state.wall_clock_at(cx.now());
        state.counters = Counters { statistics_start, ..Counters::default() };
    }
    success(data(cx, DataAsk::ResetStatistics).await)
}

/// Always all slots, those not yet used empty.
fn history(cx: &NodeCx) -> StatisticsHistory {
    let mut slots: Vec<Statistics> = cx.state().history.iter().copied().collect();
    slots.resize(StatisticsHistory::SLOTS, Statistics::default());
    StatisticsHistory(slots)
}

/// Keeps the history, one slot per `StatHistoryInterval`, for the life of the node.
pub(in crate::node) fn keep_history(cx: &NodeCx) {
    let cx = cx.clone();
    cx.clone().spawn(async move {
        let mut before = Statistics::default();
        loop {
            let interval_s = cx.state().tunable(Tunable::StatHistoryInterval).max(1);
            cx.sleep_until(cx.now().plus_seconds(interval_s)).await;
            let Some(now) = total(&cx).await else { continue };
            let mut state = cx.state_mut();
            state.history.truncate(StatisticsHistory::SLOTS - 1);
            state.history.push_front(interval::between(&before, &now));
            before = now;
        }
    });
}
