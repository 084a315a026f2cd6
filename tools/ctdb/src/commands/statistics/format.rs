//! The layouts of the counters.
//!
//! Role: pure. One table of counters makes the lines for people, the columns for machines and the
//! document.
//! Origin: `docs/spec/admin-interface.md` 1.7, A.1; captured from the 4.17 tool.

use std::fmt;

use ringmaster_protocol::process::Timeval;
use ringmaster_protocol::statistics::{DbStatistics, LatencyCounter, LockStatistics, Statistics};
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

use crate::command::{Key, key};
use crate::commands::data::Hex;
use crate::output::Report;
use crate::page::Page;
use crate::time::{Elapsed, ctime, seconds};

/// What 4.17 says of its own format.
const VERSION: u32 = 1;

/// Keys of `statistics`.
pub const STATISTICS: &[Key] = &[
    key("current_time", "number", "when the counters were read, seconds since 1970"),
    key("since", "number", "since when they count, seconds since 1970"),
    key("counters.*", "number", "each counter by name; those of a group as in node.req_call"),
    key("hop_count_buckets[]", "number", "calls by number of hops"),
    key("lock_buckets[]", "number", "locks by time waited"),
    key("latency.*.num", "number", "how often it was measured"),
    key("latency.*.min", "number", "shortest, in seconds"),
    key("latency.*.avg", "number", "average, in seconds"),
    key("latency.*.max", "number", "longest, in seconds"),
];
/// Keys of `stats`.
pub const STATS: &[Key] = &[
    key("intervals[].current_time", "number", "end of the interval, seconds since 1970"),
    key("intervals[].since", "number", "its beginning, seconds since 1970"),
    key("intervals[].counters.*", "number", "each counter's growth; groups as in node.req_call"),
    key("intervals[].hop_count_buckets[]", "number", "calls by number of hops"),
    key("intervals[].lock_buckets[]", "number", "locks by time waited"),
    key("intervals[].latency.*.num", "number", "how often it was measured"),
    key("intervals[].latency.*.min", "number", "shortest, in seconds"),
    key("intervals[].latency.*.avg", "number", "average, in seconds"),
    key("intervals[].latency.*.max", "number", "longest, in seconds"),
];
/// Keys of `dbstatistics`.
pub const DBSTATISTICS: &[Key] = &[
    key("name", "string", "database"),
    key("counters.*", "number", "each counter by name; those of a group as in locks.num_calls"),
    key("hop_count_buckets[]", "number", "calls by number of hops"),
    key("lock_buckets[]", "number", "locks by time waited"),
    key("latency.*.num", "number", "how often it was measured"),
    key("latency.*.min", "number", "shortest, in seconds"),
    key("latency.*.avg", "number", "average, in seconds"),
    key("latency.*.max", "number", "longest, in seconds"),
    key("hot_keys[].count", "number", "hops counted for the key"),
    key("hot_keys[].key_hex", "string", "key in hexadecimal"),
];

/// Group (or "") and counters, in C's order.
type Group = (&'static str, Vec<(&'static str, u32)>);

fn groups(s: &Statistics) -> Vec<Group> {
    let (node, client) = (&s.node, &s.client);
    vec![
        (
            "",
            vec![
                ("num_clients", s.num_clients),
                ("frozen", s.frozen),
                ("recovering", s.recovering),
                ("num_recoveries", s.num_recoveries),
                ("client_packets_sent", s.client_packets_sent),
                ("client_packets_recv", s.client_packets_recv),
                ("node_packets_sent", s.node_packets_sent),
                ("node_packets_recv", s.node_packets_recv),
                ("keepalive_packets_sent", s.keepalive_packets_sent),
                ("keepalive_packets_recv", s.keepalive_packets_recv),
            ],
        ),
        (
            "node",
            vec![
                ("req_call", node.req_call),
                ("reply_call", node.reply_call),
                ("req_dmaster", node.req_dmaster),
                ("reply_dmaster", node.reply_dmaster),
                ("reply_error", node.reply_error),
                ("req_message", node.req_message),
                ("req_control", node.req_control),
                ("reply_control", node.reply_control),
                ("req_tunnel", node.req_tunnel),
            ],
        ),
        (
            "client",
            vec![
                ("req_call", client.req_call),
                ("req_message", client.req_message),
                ("req_control", client.req_control),
                ("req_tunnel", client.req_tunnel),
            ],
        ),
        (
            "timeouts",
            vec![
                ("call", s.timeouts.call),
                ("control", s.timeouts.control),
                ("traverse", s.timeouts.traverse),
            ],
        ),
        lock_group(&s.locks),
        (
            "",
            vec![
                ("total_calls", s.total_calls),
                ("pending_calls", s.pending_calls),
                ("childwrite_calls", s.childwrite_calls),
                ("pending_childwrite_calls", s.pending_childwrite_calls),
                ("memory_used", s.memory_used),
                ("max_hop_count", s.max_hop_count),
                ("total_ro_delegations", s.total_ro_delegations),
                ("total_ro_revokes", s.total_ro_revokes),
            ],
        ),
    ]
}

fn lock_group(locks: &LockStatistics) -> Group {
    (
        "locks",
        vec![
            ("num_calls", locks.num_calls),
            ("num_current", locks.num_current),
            ("num_pending", locks.num_pending),
            ("num_failed", locks.num_failed),
        ],
    )
}

/// Name as `group.counter`, and value.
fn flat(groups: &[Group]) -> impl Iterator<Item = (String, u32)> {
    groups.iter().flat_map(|(group, counters)| {
        counters.iter().map(move |(name, value)| {
            let dot = if group.is_empty() { "" } else { "." };
            (format!("{group}{dot}{name}"), *value)
        })
    })
}

fn put_groups(page: &mut Page, groups: &[Group]) {
    for (group, counters) in groups {
        let indent = if group.is_empty() { 1 } else { 5 };
        if !group.is_empty() {
            page.line(format_args!(" {group}"));
        }
        for (name, value) in counters {
            // The values of both indentations stand in one column.
            let pad = 5 - indent;
            page.line(format_args!("{:indent$}{name:<22}{:pad$}{value:>10}", "", ""));
        }
    }
}

fn put_buckets(page: &mut Page, name: &str, buckets: &[u32]) {
    page.put(format_args!(" {name}:"));
    for bucket in buckets {
        page.put(format_args!(" {bucket}"));
    }
    page.line("");
}

/// One measured time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Latency {
    num: i32,
    min: f64,
    avg: f64,
    max: f64,
}

impl From<&LatencyCounter> for Latency {
    fn from(counter: &LatencyCounter) -> Self {
        let LatencyCounter { num, min, max, total } = *counter;
        let avg = if num == 0 { 0.0 } else { total / f64::from(num) };
        Self { num, min, avg, max }
    }
}

fn put_latency(page: &mut Page, name: &str, latency: &LatencyCounter) {
    let Latency { num, min, avg, max } = latency.into();
    page.line(format_args!(
        " {name:<18} MIN/AVG/MAX     {min:.6}/{avg:.6}/{max:.6} sec out of {num}"
    ));
}

/// A map that keeps its order.
struct Map<T>(Vec<(String, T)>);

impl<T: Serialize> Serialize for Map<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// All counters at one time.
#[derive(Clone, Debug)]
pub(super) struct Snapshot(pub(super) Box<Statistics>);

impl Snapshot {
    /// Name and value of each measured time, in the order for machines; `locks` has a name of its
    /// own there.
    fn latencies(&self) -> [(&'static str, &LatencyCounter); 5] {
        [
            ("reclock_ctdbd", &self.0.reclock_ctdbd),
            ("reclock_recd", &self.0.reclock_recd),
            ("call", &self.0.call_latency),
            ("lockwait", &self.0.locks.latency),
            ("childwrite", &self.0.childwrite_latency),
        ]
    }

    fn put_header(&self, page: &mut Page) {
        let times = ["CTDB version", "Current time of statistics", "Statistics collected since"];
        put_fields(page, times);
        put_fields(page, flat(&groups(&self.0)).map(|(name, _)| name));
        for (name, _) in self.latencies() {
            put_fields(
                page,
                ["num", "min", "avg", "max"].map(|what| format!("{what}_{name}_latency")),
            );
        }
        page.line("");
    }

    fn put_row(&self, page: &mut Page) {
        let Timeval { seconds: now, .. } = self.0.statistics_current_time;
        let Timeval { seconds: since, .. } = self.0.statistics_start_time;
        put_fields(page, [i64::from(VERSION), now, since]);
        put_fields(page, flat(&groups(&self.0)).map(|(_, value)| value));
        for (_, latency) in self.latencies() {
            let Latency { num, min, avg, max } = latency.into();
            put_fields(page, [num]);
            put_fields(page, [min, avg, max].map(|value| format!("{value:.6}")));
        }
        page.line("");
    }
}

/// Fields as this one report has them: the separator behind each, none before the first.
fn put_fields<T: fmt::Display>(page: &mut Page, fields: impl IntoIterator<Item = T>) {
    for field in fields {
        page.put(field);
        page.separator();
    }
}

impl Report for Snapshot {
    fn human(&self, page: &mut Page) {
        let s = &self.0;
        let (now, since) = (s.statistics_current_time.seconds, s.statistics_start_time.seconds);
        page.line(format_args!("CTDB version {VERSION}"));
        page.line(format_args!("Current time of statistics  :                {}", ctime(now)));
        let elapsed = Elapsed(now.saturating_sub(since));
        page.line(format_args!("Statistics collected since  : {elapsed} {}", ctime(since)));
        put_groups(page, &groups(s));
        put_buckets(page, "hop_count_buckets", &s.hop_count_bucket);
        put_buckets(page, "lock_buckets", &s.locks.buckets);
        put_latency(page, "locks_latency", &s.locks.latency);
        put_latency(page, "reclock_ctdbd", &s.reclock_ctdbd);
        put_latency(page, "reclock_recd", &s.reclock_recd);
        put_latency(page, "call_latency", &s.call_latency);
        put_latency(page, "childwrite_latency", &s.childwrite_latency);
    }

    fn machine(&self, page: &mut Page) {
        self.put_header(page);
        self.put_row(page);
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let s = &self.0;
        let latency = self.latencies().map(|(name, counter)| {
            let name = if name == "lockwait" { "locks" } else { name };
            (name.to_owned(), Latency::from(counter))
        });
        let mut document = serializer.serialize_struct("Statistics", 6)?;
        document.serialize_field("current_time", &seconds(s.statistics_current_time))?;
        document.serialize_field("since", &seconds(s.statistics_start_time))?;
        document.serialize_field("counters", &Map(flat(&groups(s)).collect()))?;
        document.serialize_field("hop_count_buckets", &s.hop_count_bucket)?;
        document.serialize_field("lock_buckets", &s.locks.buckets)?;
        document.serialize_field("latency", &Map(latency.into()))?;
        document.end()
    }
}

/// What happened in past intervals, newest first.
#[derive(Clone, Debug, Serialize)]
pub(super) struct History {
    intervals: Vec<Snapshot>,
}

impl History {
    /// Of the slots, those in use, up to and including number `count` (counted from 0, so that
    /// `stats 1` shows two, as in C); all if `count` is not above 0.
    pub(super) fn new(slots: Vec<Statistics>, count: i32) -> Self {
        let last = usize::try_from(count).ok().filter(|count| *count > 0);
        let shown = last.map_or(usize::MAX, |last| last.saturating_add(1));
        let used = |slot: &Statistics| slot.statistics_start_time.seconds != 0;
        let slots = slots.into_iter().take(shown).filter(used);
        Self { intervals: slots.map(|slot| Snapshot(Box::new(slot))).collect() }
    }
}

impl Report for History {
    fn human(&self, page: &mut Page) {
        for interval in &self.intervals {
            interval.human(page);
        }
    }

    fn machine(&self, page: &mut Page) {
        if let Some(first) = self.intervals.first() {
            first.put_header(page);
        }
        for interval in &self.intervals {
            interval.put_row(page);
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct HotKey {
    count: u32,
    key_hex: String,
}

/// The counters of one database.
#[derive(Clone, Debug)]
pub(super) struct DbStatisticsReport {
    name: String,
    groups: [Group; 2],
    hop_count: [u32; 16],
    locks: LockStatistics,
    vacuum: LatencyCounter,
    hot_keys: Vec<HotKey>,
}

impl DbStatisticsReport {
    pub(super) fn new(name: &str, counters: &DbStatistics<'_>) -> Self {
        let readonly = vec![
            ("db_ro_delegations", counters.ro_delegations),
            ("db_ro_revokes", counters.ro_revokes),
        ];
        let hot_keys = counters
            .hot_keys
            .iter()
            .map(|hot| HotKey { count: hot.count, key_hex: Hex(hot.key).to_string() })
            .collect();
        Self {
            name: name.to_owned(),
            groups: [("", readonly), lock_group(&counters.locks)],
            hop_count: counters.hop_count_bucket,
            locks: counters.locks,
            vacuum: counters.vacuum_latency,
            hot_keys,
        }
    }
}

impl Report for DbStatisticsReport {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("DB Statistics {}", self.name));
        put_groups(page, &self.groups);
        put_buckets(page, "hop_count_buckets", &self.hop_count);
        put_buckets(page, "lock_buckets", &self.locks.buckets);
        put_latency(page, "locks_latency", &self.locks.latency);
        put_latency(page, "vacuum_latency", &self.vacuum);
        page.line(format_args!(" Num Hot Keys:     {}", self.hot_keys.len()));
        for HotKey { count, key_hex } in &self.hot_keys {
            page.line(format_args!("     Count:{count} Key:{key_hex}"));
        }
    }
}

impl Serialize for DbStatisticsReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let latency = vec![
            ("locks".to_owned(), Latency::from(&self.locks.latency)),
            ("vacuum".to_owned(), Latency::from(&self.vacuum)),
        ];
        // Slots that were never used say nothing.
        let hot_keys: Vec<_> = self.hot_keys.iter().filter(|hot| hot.count > 0).collect();
        let mut document = serializer.serialize_struct("DbStatistics", 6)?;
        document.serialize_field("name", &self.name)?;
        document.serialize_field("counters", &Map(flat(&self.groups).collect()))?;
        document.serialize_field("hop_count_buckets", &self.hop_count)?;
        document.serialize_field("lock_buckets", &self.locks.buckets)?;
        document.serialize_field("latency", &Map(latency))?;
        document.serialize_field("hot_keys", &hot_keys)?;
        document.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, machine};
    use ringmaster_protocol::Reader;
    use ringmaster_protocol::layout::Fixed;
    use ringmaster_protocol::statistics::HotKey as WireHotKey;

    fn sample() -> Statistics {
        let zeros = vec![0; Statistics::SIZE];
        let mut s = Statistics::read(&mut Reader::new(&zeros), "statistics").unwrap();
        s.num_clients = 2;
        s.node_packets_sent = 34_137;
        s.node.req_control = 14_211;
        s.pending_childwrite_calls = 7;
        s.locks.buckets[1] = 11;
        s.locks.latency = LatencyCounter { num: 2, min: 0.5, max: 1.5, total: 2.0 };
        s.statistics_start_time.seconds = 1_795_142_177;
        s.statistics_current_time.seconds = 1_795_143_041;
        s
    }

    #[test]
    fn counters_are_aligned_in_both_indentations() {
        let text = human(&Snapshot(Box::new(sample())));
        assert!(text.starts_with("CTDB version 1\nCurrent time of statistics  :                "));
        for line in [
            " num_clients                        2\n",
            " node_packets_sent              34137\n",
            " node\n     req_call                       0\n",
            "     req_control                14211\n",
            " pending_childwrite_calls             7\n",
            " lock_buckets: 0 11 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            " locks_latency      MIN/AVG/MAX     0.500000/1.000000/1.500000 sec out of 2\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn columns_of_header_and_row_agree_and_begin_without_separator() {
        let text = machine(&Snapshot(Box::new(sample())));
        let lines: Vec<_> = text.lines().collect();
        let count = |line: &str| line.matches('|').count();
        assert_eq!((lines.len(), count(lines[0])), (2, count(lines[1])));
        assert!(lines[0].starts_with("CTDB version|Current time of statistics|"));
        assert!(
            lines[0].contains("|node.req_call|") && lines[0].ends_with("|max_childwrite_latency|")
        );
        assert!(lines[1].starts_with("1|1795143041|1795142177|2|0|"));
        assert!(lines[1].contains("|2|0.500000|1.000000|1.500000|"));
    }

    #[test]
    fn a_count_shows_one_interval_more_and_unused_slots_are_skipped() {
        let mut empty = sample();
        empty.statistics_start_time.seconds = 0;
        let slots = vec![sample(), sample(), sample(), empty];
        let shown = |count| History::new(slots.clone(), count).intervals.len();
        assert_eq!((shown(1), shown(0), shown(-1), shown(99)), (2, 3, 3, 3));
        let history = History::new(slots, 1);
        assert_eq!(machine(&history).lines().count(), 3, "one header");
    }

    #[test]
    fn a_database_shows_ten_hot_keys_used_or_not() {
        let mut counters = DbStatistics { ro_delegations: 3, ..DbStatistics::default() };
        counters.hot_keys[0] = WireHotKey { count: 1, key: b"nokey" };
        let report = DbStatisticsReport::new("vol.tdb", &counters);
        let text = human(&report);
        assert!(text.starts_with("DB Statistics vol.tdb\n db_ro_delegations                  3\n"));
        assert!(
            text.contains(
                " Num Hot Keys:     10\n     Count:1 Key:6e6f6b6579\n     Count:0 Key:\n"
            )
        );
        documented(&report, DBSTATISTICS);
    }

    #[test]
    fn documents_have_the_documented_keys() {
        documented(&Snapshot(Box::new(sample())), STATISTICS);
        documented(&History::new(vec![sample()], 0), STATS);
    }
}
