//! Counters: what the shards count and what the plane counts, now and by interval.
//!
//! Origin: `docs/spec/cluster-semantics.md` 14; `ctdb/server/ctdb_statistics.c`.

mod interval;

use std::ops::ControlFlow;

use ringmaster_protocol::{
    control::ControlRequest,
    process::RecMode,
    statistics::{LatencyCounter, LockStatistics, Statistics, StatisticsHistory},
    tunable::Tunable,
};

use super::answer::{data, payload, refused, success};
use crate::{
    node::{
        Ask, NodeCx, Outcome, State,
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

/// Upper ends of the buckets of lock waits, in seconds; what is above them is in the one after.
const LOCK_BUCKETS_S: [f64; 10] = [0.001, 0.01, 0.1, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// A lock under way has ended, after that many seconds.
pub(in crate::node) fn count_lock(locks: &mut LockStatistics, locked: bool, seconds: f64) {
    locks.num_current = locks.num_current.saturating_sub(1);
    locks.num_calls += 1;
    if !locked {
        locks.num_failed += 1;
        return;
    }
    add_latency(&mut locks.latency, seconds);
    let bucket = LOCK_BUCKETS_S.iter().position(|end| seconds < *end);
    locks.buckets[bucket.unwrap_or(LOCK_BUCKETS_S.len())] += 1;
}

/// Locks of the shards and of the plane.
fn add_locks(sum: &mut LockStatistics, more: &LockStatistics) {
    sum.num_calls += more.num_calls;
    sum.num_current += more.num_current;
    sum.num_failed += more.num_failed;
    for (sum, more) in sum.buckets.iter_mut().zip(more.buckets) {
        *sum += more;
    }
    if more.latency.num > 0 {
        let (sum, more) = (&mut sum.latency, &more.latency);
        sum.min = if sum.num == 0 { more.min } else { sum.min.min(more.min) };
        sum.max = sum.max.max(more.max);
        sum.total += more.total;
        sum.num = sum.num.saturating_add(more.num);
    }
}

/// Duration in seconds.
pub(in crate::node) fn seconds_between(start: Millis, end: Millis) -> f64 {
    std::time::Duration::from_millis(end.0.saturating_sub(start.0)).as_secs_f64()
}

/// Connected clients. C's recovery daemon is one of them: ours counts as one, too.
pub(super) fn client_count(state: &State) -> u32 {
    u32::try_from(state.clients.len()).unwrap_or(u32::MAX).saturating_add(1)
}

/// Everything since the last reset.
async fn total(cx: &NodeCx) -> Option<Statistics> {
    let outcome = cx.ask(Ask::Data(DataAsk::Statistics)).await;
    let Outcome::Statistics(mut total) = outcome else { return None };
    let state = cx.state();
    let counters = &state.counters;
    total.num_clients = client_count(&state);
    add_locks(&mut total.locks, &counters.locks);
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
