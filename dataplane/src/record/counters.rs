//! Counters of the record path.

/// Counters of the record path; the shard adds them to what `ctdb statistics` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecordCounters {
    /// Client calls processed, repeated ones again.
    pub total_calls: u64,
    /// Gauge: client calls under way.
    pub pending_calls: u64,
    /// Largest hop count seen at a dmaster.
    pub max_hop_count: u32,
    /// Calls by hop count: bucket = bit length, at most 15.
    pub hop_count_bucket: [u32; 16],
    /// Read-only copies handed out.
    pub ro_delegations: u64,
    /// Revokes completed.
    pub ro_revokes: u64,
    /// Client calls for a database that is not attached: they get no answer, as in C.
    pub calls_unknown_db: u64,
    /// Latencies of client calls, in milliseconds: number, sum, minimum, maximum.
    pub latency: Latency,
}

/// A latency counter, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Sum of them.
    pub total: f64,
    /// Smallest; 0 without samples.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Latency {
    /// Adds a sample of `millis`.
    pub fn add(&mut self, millis: f64) {
        self.min = if self.count == 0 { millis } else { self.min.min(millis) };
        self.max = self.max.max(millis);
        self.total += millis;
        self.count += 1;
    }
}
