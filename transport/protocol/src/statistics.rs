//! Counters of a daemon and of one database.
//!
//! Latencies are in seconds. Hop-count buckets: bit length of the hop count, at most 15. Lock
//! buckets: waiting time below 1 ms, 10 ms, 100 ms, 1, 2, 4, 8, 16, 32, 64 s and above.
//! Origin: `docs/spec/wire-protocol.md` 4.10, 4.11.

use crate::layout::{Fixed, read_elements, wire_struct};
use crate::process::Timeval;
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

wire_struct! {
    /// Number, extremes and sum of some latency (`ctdb_latency_counter`).
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub struct LatencyCounter = 32 bytes {
        /// Samples.
        pub num: i32, pad 4;
        /// Shortest, seconds.
        pub min: f64;
        /// Longest, seconds.
        pub max: f64;
        /// Sum, seconds.
        pub total: f64;
    }
}

wire_struct! {
    /// Packets from other nodes, by operation.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct NodePackets = 36 bytes {
        pub req_call: u32;
        pub reply_call: u32;
        pub req_dmaster: u32;
        pub reply_dmaster: u32;
        pub reply_error: u32;
        pub req_message: u32;
        pub req_control: u32;
        pub reply_control: u32;
        pub req_tunnel: u32;
    }
}

wire_struct! {
    /// Packets from clients, by operation.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ClientPackets = 16 bytes {
        pub req_call: u32;
        pub req_message: u32;
        pub req_control: u32;
        pub req_tunnel: u32;
    }
}

wire_struct! {
    /// Requests that ran out of time.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Timeouts = 12 bytes {
        pub call: u32;
        pub control: u32;
        pub traverse: u32;
    }
}

wire_struct! {
    /// Lock requests that had to be handed to a helper.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub struct LockStatistics = 112 bytes {
        pub num_calls: u32;
        pub num_current: u32;
        pub num_pending: u32;
        pub num_failed: u32;
        /// Waiting time.
        pub latency: LatencyCounter;
        /// Waiting time, histogram.
        pub buckets: [u32; 16];
    }
}

wire_struct! {
    /// Reply of STATISTICS (`ctdb_statistics`).
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub struct Statistics = 488 bytes {
        pub num_clients: u32;
        /// 1 while databases are frozen.
        pub frozen: u32;
        /// 1 while recovery mode is active.
        pub recovering: u32;
        pub client_packets_sent: u32;
        pub client_packets_recv: u32;
        pub node_packets_sent: u32;
        pub node_packets_recv: u32;
        pub keepalive_packets_sent: u32;
        pub keepalive_packets_recv: u32;
        pub node: NodePackets;
        pub client: ClientPackets;
        pub timeouts: Timeouts, pad 4;
        /// Cluster lock as the daemon sees it.
        pub reclock_ctdbd: LatencyCounter;
        /// Cluster lock as the recovery daemon sees it.
        pub reclock_recd: LatencyCounter;
        pub locks: LockStatistics;
        pub total_calls: u32;
        pub pending_calls: u32;
        pub childwrite_calls: u32;
        pub pending_childwrite_calls: u32;
        /// Bytes.
        pub memory_used: u32;
        /// Marks the end of the resettable counters in C; 0.
        pub last_counter: u32;
        pub max_hop_count: u32;
        pub hop_count_bucket: [u32; 16], pad 4;
        pub call_latency: LatencyCounter;
        pub childwrite_latency: LatencyCounter;
        pub num_recoveries: u32, pad 4;
        /// Last reset, or start.
        pub statistics_start_time: Timeval;
        pub statistics_current_time: Timeval;
        pub total_ro_delegations: u32;
        pub total_ro_revokes: u32;
    }
}

/// Reply of GET_STAT_HISTORY (`ctdb_statistics_list`): newest first, each slot the difference to
/// the one before. C always sends [`StatisticsHistory::SLOTS`] slots, unused ones all zero.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatisticsHistory(pub Vec<Statistics>);

impl StatisticsHistory {
    /// Slots of a C daemon (`MAX_STAT_HISTORY`).
    pub const SLOTS: usize = 100;
}

impl Encode for StatisticsHistory {
    fn encoded_len(&self) -> usize {
        8 + self.0.len() * Statistics::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_len(self.0.len());
        out.put_zeros(4);
        for slot in &self.0 {
            slot.write(out);
        }
    }
}

impl Decode<'_> for StatisticsHistory {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = "statistics_list.num";
        let num = reader.u32(what)?;
        reader.padding(4)?;
        let (left, element) = (reader.remaining(), Statistics::SIZE);
        match usize::try_from(num).ok().filter(|num| *num <= left / element) {
            Some(num) => read_elements(reader, "statistics_list.stats", num).map(Self),
            None => {
                let needed = (num as usize).saturating_mul(element);
                Err(DecodeError::Short { what, needed, left })
            }
        }
    }
}

/// Slots for hot keys, used or not (`MAX_HOT_KEYS`).
pub const HOT_KEYS: usize = 10;

/// A record that is called for often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotKey<'a> {
    /// Hops counted for it; 0 for an unused slot.
    pub count: u32,
    /// The record's key; empty for an unused slot.
    pub key: &'a [u8],
}

/// Reply of GET_DB_STATISTICS (`ctdb_db_statistics`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DbStatistics<'a> {
    pub locks: LockStatistics,
    /// Duration of vacuuming runs.
    pub vacuum_latency: LatencyCounter,
    pub ro_delegations: u32,
    pub ro_revokes: u32,
    pub hop_count_bucket: [u32; 16],
    /// All slots, used or not; the count on the wire is always 10.
    pub hot_keys: [HotKey<'a>; HOT_KEYS],
}

impl DbStatistics<'_> {
    /// Size of the fixed part; the keys follow.
    pub const FIXED_SIZE: usize = 224 + HOT_KEYS * 24;
}

impl Encode for DbStatistics<'_> {
    fn encoded_len(&self) -> usize {
        Self::FIXED_SIZE + self.hot_keys.iter().map(|hot| hot.key.len()).sum::<usize>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        self.locks.write(out);
        self.vacuum_latency.write(out);
        out.put_u32(self.ro_delegations);
        out.put_u32(self.ro_revokes);
        self.hop_count_bucket.write(out);
        out.put_len(HOT_KEYS);
        out.put_zeros(4);
        for hot in &self.hot_keys {
            out.put_u32(hot.count);
            // Four bytes of padding and C's pointer to the key, which means nothing here.
            out.put_zeros(12);
            out.put_u64(hot.key.len() as u64);
        }
        for hot in &self.hot_keys {
            out.put_bytes(hot.key);
        }
    }
}

/// Slots beyond the count on the wire have no key, whatever length they state.
impl<'a> Decode<'a> for DbStatistics<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut statistics = Self {
            locks: LockStatistics::read(reader, "db_statistics.locks")?,
            vacuum_latency: LatencyCounter::read(reader, "db_statistics.vacuum")?,
            ro_delegations: reader.u32("db_statistics.db_ro_delegations")?,
            ro_revokes: reader.u32("db_statistics.db_ro_revokes")?,
            hop_count_bucket: <[u32; 16]>::read(reader, "db_statistics.hop_count_bucket")?,
            hot_keys: [HotKey::default(); HOT_KEYS],
        };
        let what = "db_statistics.num_hot_keys";
        let used = reader.u32(what)?;
        reader.padding(4)?;
        if used as usize > HOT_KEYS {
            return Err(DecodeError::Invalid { what, value: u64::from(used) });
        }
        let mut lengths = [0; HOT_KEYS];
        for (hot, length) in statistics.hot_keys.iter_mut().zip(&mut lengths) {
            hot.count = reader.u32("hot_key.count")?;
            reader.padding(12)?;
            *length = reader.u64("hot_key.length")?;
        }
        for (hot, length) in statistics.hot_keys.iter_mut().zip(lengths).take(used as usize) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            hot.key = reader.bytes("hot_key.key", length)?;
        }
        Ok(statistics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_history_has_the_size_of_the_c_daemons() {
        let history = StatisticsHistory(vec![Statistics::default(); StatisticsHistory::SLOTS]);
        assert_eq!(history.encoded_len(), 48_808);
        assert_eq!(DbStatistics::default().encoded_len(), 464);
    }

    #[test]
    fn slots_beyond_the_count_have_no_key() {
        let mut bytes = DbStatistics {
            hot_keys: [HotKey { count: 1, key: b"k" }; HOT_KEYS],
            ..DbStatistics::default()
        }
        .to_bytes();
        bytes[216] = 2;
        let decoded = DbStatistics::from_bytes(&bytes).unwrap();
        let used: Vec<_> = decoded.hot_keys.iter().filter(|hot| !hot.key.is_empty()).collect();
        assert_eq!(used.len(), 2);
    }
}
