//! Counters of one shard, as C counts them; added up by control.
//!
//! Invariant: each shard counts for itself, nothing is shared; control asks all shards and adds.
//! Origin: `docs/spec/cluster-semantics.md` 14; `ctdb/server/ctdb_statistics.c`.

use ringmaster_protocol::{
    DbId,
    statistics::{ClientPackets, LatencyCounter, LockStatistics, NodePackets, Statistics},
};

use super::store::LockCounters;
use crate::record::{DbStatistics, Latency, RecordCounters};

/// Packets of one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PacketCounters {
    /// Any packet queued to a client.
    pub client_sent: u32,
    /// Any packet read from a client, before it is looked at.
    pub client_received: u32,
    /// Each destination of a packet to nodes, this one included.
    pub node_sent: u32,
    /// Packets from TCP.
    pub node_received: u32,
    /// Keepalives to nodes.
    pub keepalive_sent: u32,
    /// Keepalives of nodes.
    pub keepalive_received: u32,
    /// Packets accepted by the node input, by operation; those to self included.
    pub node: NodePackets,
    /// Packets of clients, by operation.
    pub client: ClientPackets,
}

/// Everything one shard has counted.
#[derive(Clone, Debug, Default)]
pub struct ShardStatistics {
    /// Packets.
    pub packets: PacketCounters,
    /// Calls.
    pub records: RecordCounters,
    /// Waits for busy chains, and records, by database.
    pub databases: Vec<(DbId, LockCounters, DbStatistics)>,
    /// Clients of this shard.
    pub clients: u32,
}

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// C's latency counter: seconds.
#[must_use]
pub fn latency_counter(latency: &Latency) -> LatencyCounter {
    LatencyCounter {
        num: i32::try_from(latency.count).unwrap_or(i32::MAX),
        min: latency.min / 1_000.0,
        max: latency.max / 1_000.0,
        total: latency.total / 1_000.0,
    }
}

/// Puts two latencies together.
pub fn add_latency(sum: &mut Latency, more: &Latency) {
    if more.count == 0 {
        return;
    }
    sum.min = if sum.count == 0 { more.min } else { sum.min.min(more.min) };
    sum.max = sum.max.max(more.max);
    sum.total += more.total;
    sum.count += more.count;
}

/// Adds the counters of the shards to what `ctdb statistics` shows. Fields of other owners
/// (recovery, cluster lock, times) are left alone.
pub fn add_up(total: &mut Statistics, shards: &[ShardStatistics]) {
    let (mut calls, mut locks) = (Latency::default(), LockCounters::default());
    for shard in shards {
        let packets = &shard.packets;
        total.num_clients += shard.clients;
        total.client_packets_sent = total.client_packets_sent.wrapping_add(packets.client_sent);
        total.client_packets_recv = total.client_packets_recv.wrapping_add(packets.client_received);
        total.node_packets_sent = total.node_packets_sent.wrapping_add(packets.node_sent);
        total.node_packets_recv = total.node_packets_recv.wrapping_add(packets.node_received);
        let keepalives = &mut total.keepalive_packets_sent;
        *keepalives = keepalives.wrapping_add(packets.keepalive_sent);
        let keepalives = &mut total.keepalive_packets_recv;
        *keepalives = keepalives.wrapping_add(packets.keepalive_received);
        add_node(&mut total.node, &packets.node);
        total.client.req_call += packets.client.req_call;
        total.client.req_message += packets.client.req_message;
        total.client.req_control += packets.client.req_control;
        total.client.req_tunnel += packets.client.req_tunnel;
        let records = &shard.records;
        total.total_calls += saturated(records.total_calls);
        total.pending_calls += saturated(records.pending_calls);
        total.max_hop_count = total.max_hop_count.max(records.max_hop_count);
        for (sum, more) in total.hop_count_bucket.iter_mut().zip(records.hop_count_bucket) {
            *sum += more;
        }
        total.total_ro_delegations += saturated(records.ro_delegations);
        total.total_ro_revokes += saturated(records.ro_revokes);
        add_latency(&mut calls, &records.latency);
        for (_, more, _) in &shard.databases {
            add_locks(&mut locks, more);
        }
    }
    total.call_latency = latency_counter(&calls);
    total.locks = lock_statistics(&locks);
}

/// C's counters of locks.
#[must_use]
pub fn lock_statistics(locks: &LockCounters) -> LockStatistics {
    LockStatistics {
        num_calls: saturated(locks.calls),
        num_current: saturated(locks.current),
        num_pending: saturated(locks.pending),
        num_failed: saturated(locks.failed),
        latency: latency_counter(&locks.latency),
        buckets: locks.buckets,
    }
}

/// Adds lock counters.
pub fn add_locks(sum: &mut LockCounters, more: &LockCounters) {
    sum.calls += more.calls;
    sum.current += more.current;
    sum.pending += more.pending;
    sum.failed += more.failed;
    add_latency(&mut sum.latency, &more.latency);
    for (sum, more) in sum.buckets.iter_mut().zip(more.buckets) {
        *sum += more;
    }
}

fn add_node(sum: &mut NodePackets, more: &NodePackets) {
    sum.req_call += more.req_call;
    sum.reply_call += more.reply_call;
    sum.req_dmaster += more.req_dmaster;
    sum.reply_dmaster += more.reply_dmaster;
    sum.reply_error += more.reply_error;
    sum.req_message += more.req_message;
    sum.req_control += more.req_control;
    sum.reply_control += more.reply_control;
    sum.req_tunnel += more.req_tunnel;
}
