//! What has been counted between two readings.
//!
//! Gauges are those of the second reading. Of a latency only count and sum are known for an
//! interval; its extremes are exact when they are new extremes, and the average otherwise.

use ringmaster_protocol::statistics::{
    ClientPackets, LatencyCounter, LockStatistics, NodePackets, Statistics, Timeouts,
};

/// A counter that is smaller than before has been reset meanwhile.
const fn count(before: u32, now: u32) -> u32 {
    if now >= before { now - before } else { now }
}

fn counts<const N: usize>(before: &[u32; N], now: &[u32; N]) -> [u32; N] {
    std::array::from_fn(|index| count(before[index], now[index]))
}

fn latency(before: &LatencyCounter, now: &LatencyCounter) -> LatencyCounter {
    if now.num < before.num {
        return *now;
    }
    let (num, total) = (now.num - before.num, now.total - before.total);
    if num == 0 {
        return LatencyCounter::default();
    }
    let average = total / f64::from(num);
    let first = before.num == 0;
    let min = if first || now.min < before.min { now.min } else { average };
    let max = if first || now.max > before.max { now.max } else { average };
    LatencyCounter { num, min, max, total }
}

fn locks(before: &LockStatistics, now: &LockStatistics) -> LockStatistics {
    LockStatistics {
        num_calls: count(before.num_calls, now.num_calls),
        num_current: now.num_current,
        num_pending: now.num_pending,
        num_failed: count(before.num_failed, now.num_failed),
        latency: latency(&before.latency, &now.latency),
        buckets: counts(&before.buckets, &now.buckets),
    }
}

fn node_packets(before: &NodePackets, now: &NodePackets) -> NodePackets {
    NodePackets {
        req_call: count(before.req_call, now.req_call),
        reply_call: count(before.reply_call, now.reply_call),
        req_dmaster: count(before.req_dmaster, now.req_dmaster),
        reply_dmaster: count(before.reply_dmaster, now.reply_dmaster),
        reply_error: count(before.reply_error, now.reply_error),
        req_message: count(before.req_message, now.req_message),
        req_control: count(before.req_control, now.req_control),
        reply_control: count(before.reply_control, now.reply_control),
        req_tunnel: count(before.req_tunnel, now.req_tunnel),
    }
}

fn client_packets(before: &ClientPackets, now: &ClientPackets) -> ClientPackets {
    ClientPackets {
        req_call: count(before.req_call, now.req_call),
        req_message: count(before.req_message, now.req_message),
        req_control: count(before.req_control, now.req_control),
        req_tunnel: count(before.req_tunnel, now.req_tunnel),
    }
}

/// See the module.
pub(super) fn between(before: &Statistics, now: &Statistics) -> Statistics {
    let of = |field: fn(&Statistics) -> u32| count(field(before), field(now));
    Statistics {
        client_packets_sent: of(|s| s.client_packets_sent),
        client_packets_recv: of(|s| s.client_packets_recv),
        node_packets_sent: of(|s| s.node_packets_sent),
        node_packets_recv: of(|s| s.node_packets_recv),
        keepalive_packets_sent: of(|s| s.keepalive_packets_sent),
        keepalive_packets_recv: of(|s| s.keepalive_packets_recv),
        node: node_packets(&before.node, &now.node),
        client: client_packets(&before.client, &now.client),
        timeouts: Timeouts {
            call: of(|s| s.timeouts.call),
            control: of(|s| s.timeouts.control),
            traverse: of(|s| s.timeouts.traverse),
        },
        reclock_ctdbd: latency(&before.reclock_ctdbd, &now.reclock_ctdbd),
        reclock_recd: latency(&before.reclock_recd, &now.reclock_recd),
        locks: locks(&before.locks, &now.locks),
        total_calls: of(|s| s.total_calls),
        childwrite_calls: of(|s| s.childwrite_calls),
        hop_count_bucket: counts(&before.hop_count_bucket, &now.hop_count_bucket),
        call_latency: latency(&before.call_latency, &now.call_latency),
        childwrite_latency: latency(&before.childwrite_latency, &now.childwrite_latency),
        num_recoveries: of(|s| s.num_recoveries),
        statistics_start_time: before.statistics_current_time,
        total_ro_delegations: of(|s| s.total_ro_delegations),
        total_ro_revokes: of(|s| s.total_ro_revokes),
        ..*now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_what_has_been_added_and_gauges_as_they_are() {
        let before = Statistics { total_calls: 5, pending_calls: 3, ..Statistics::default() };
        let now = Statistics { total_calls: 9, pending_calls: 1, ..Statistics::default() };
        let slot = between(&before, &now);
        assert_eq!((slot.total_calls, slot.pending_calls), (4, 1));
    }

    #[test]
    fn after_a_reset_everything_counted_is_new() {
        let before = Statistics { total_calls: 9, ..Statistics::default() };
        let now = Statistics { total_calls: 2, ..Statistics::default() };
        assert_eq!(between(&before, &now).total_calls, 2);
    }

    #[test]
    fn a_new_extreme_is_exact_and_an_old_one_is_not_repeated() {
        let before = LatencyCounter { num: 2, min: 0.5, max: 4.0, total: 4.5 };
        let now = LatencyCounter { num: 4, min: 0.25, max: 4.0, total: 6.5 };
        let slot = LatencyCounter { num: 2, min: 0.25, max: 1.0, total: 2.0 };
        assert_eq!(latency(&before, &now), slot);
        assert_eq!(latency(&now, &now), LatencyCounter::default());
    }
}
