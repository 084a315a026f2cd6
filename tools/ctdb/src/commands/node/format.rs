//! The reports about nodes.
//!
//! Role: pure; values in, text out. The layouts are captured from the 4.17 tool; the JSON of
//! `status` is Samba's own.
//!
//! Origin: `docs/spec/admin-interface.md` 1.3, 1.5, A.1.

use ringmaster_protocol::node::NodeFlags;
use ringmaster_protocol::process::{RunState, Timeval};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::command::{Key, key};
use crate::fields;
use crate::output::Report;
use crate::page::{Page, Painted, Tone};
use crate::time::{Elapsed, ctime, seconds};

/// One node as `status` and `nodestatus` show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    pub pnn: u32,
    pub address: String,
    pub flags: NodeFlags,
    /// No flag is set, but one of its interfaces has no link.
    pub partially_online: bool,
    pub this_node: bool,
}

impl NodeRow {
    fn human(&self, page: &mut Page) {
        let this = if self.this_node { " (THIS NODE)" } else { "" };
        let flags = self.painted_flags(page);
        page.line(format_args!("pnn:{} {:<16} {flags}{this}", self.pnn, self.address));
    }

    fn painted_flags(&self, page: &Page) -> Painted<String> {
        let tone = if self.flags.is_inactive() || self.flags.contains(NodeFlags::UNHEALTHY) {
            Tone::Bad
        } else if !self.flags.is_empty() || self.partially_online {
            Tone::Warn
        } else {
            Tone::Good
        };
        let partly = self.flags.is_empty() && self.partially_online;
        let text = if partly { "PARTIALLYONLINE".to_owned() } else { self.flags.to_string() };
        page.paint(tone, text)
    }

    fn machine(&self, page: &mut Page) {
        let has = |flag| u8::from(self.flags.intersects(flag));
        page.row(fields![
            self.pnn,
            self.address,
            has(NodeFlags::DISCONNECTED),
            has(NodeFlags::UNKNOWN),
            has(NodeFlags::BANNED),
            has(NodeFlags::PERMANENTLY_DISABLED),
            has(NodeFlags::UNHEALTHY),
            has(NodeFlags::STOPPED),
            has(NodeFlags::INACTIVE),
            u8::from(self.partially_online),
            if self.this_node { "Y" } else { "N" },
        ]);
    }
}

#[derive(Serialize)]
struct FlagsObject {
    disconnected: bool,
    unknown: bool,
    disabled: bool,
    banned: bool,
    unhealthy: bool,
    deleted: bool,
    stopped: bool,
    inactive: bool,
}

#[derive(Serialize)]
struct NodeObject<'a> {
    pnn: u32,
    address: &'a str,
    partially_online: bool,
    flags_raw: u32,
    flags_ok: bool,
    flags: FlagsObject,
    this_node: bool,
}

impl Serialize for NodeRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let has = |flag| self.flags.intersects(flag);
        NodeObject {
            pnn: self.pnn,
            address: &self.address,
            partially_online: self.partially_online,
            flags_raw: self.flags.0,
            flags_ok: self.flags.is_empty(),
            flags: FlagsObject {
                disconnected: has(NodeFlags::DISCONNECTED),
                unknown: has(NodeFlags::UNKNOWN),
                disabled: has(NodeFlags::PERMANENTLY_DISABLED),
                banned: has(NodeFlags::BANNED),
                unhealthy: has(NodeFlags::UNHEALTHY),
                deleted: has(NodeFlags::DELETED),
                stopped: has(NodeFlags::STOPPED),
                inactive: has(NodeFlags::INACTIVE),
            },
            this_node: self.this_node,
        }
        .serialize(serializer)
    }
}

/// The nodes of a report, deleted ones already left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeTable {
    /// Deleted ones included.
    pub node_count: usize,
    pub deleted_node_count: usize,
    #[serde(serialize_with = "by_pnn")]
    pub nodes: Vec<NodeRow>,
}

fn by_pnn<S: Serializer>(rows: &[NodeRow], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(rows.len()))?;
    for row in rows {
        map.serialize_entry(&row.pnn.to_string(), row)?;
    }
    map.end()
}

impl NodeTable {
    fn count_line(&self, page: &mut Page) {
        let (all, deleted) = (self.node_count, self.deleted_node_count);
        if deleted > 0 {
            page.line(format_args!("Number of nodes:{all} (including {deleted} deleted nodes)"));
        } else {
            page.line(format_args!("Number of nodes:{all}"));
        }
    }

    fn machine(&self, page: &mut Page) {
        page.row([
            "Node",
            "IP",
            "Disconnected",
            "Unknown",
            "Banned",
            "Disabled",
            "Unhealthy",
            "Stopped",
            "Inactive",
            "PartiallyOnline",
            "ThisNode",
        ]);
        for row in &self.nodes {
            row.machine(page);
        }
    }
}

macro_rules! node_keys {
    ($($more:expr),* $(,)?) => {
        &[
            key("node_status.node_count", "number", "nodes in the nodes file, deleted ones included"),
            key("node_status.deleted_node_count", "number", "deleted nodes"),
            key("node_status.nodes.*.pnn", "number", "number of the node; also the key"),
            key("node_status.nodes.*.address", "string", "private address"),
            key("node_status.nodes.*.partially_online", "boolean", "healthy, but an interface has no link"),
            key("node_status.nodes.*.flags_raw", "number", "the flags as a bit mask"),
            key("node_status.nodes.*.flags_ok", "boolean", "no flag is set"),
            key("node_status.nodes.*.flags.disconnected", "boolean", "no connection to the node"),
            key("node_status.nodes.*.flags.unknown", "boolean", "the asked daemon has just started"),
            key("node_status.nodes.*.flags.disabled", "boolean", "disabled by the administrator"),
            key("node_status.nodes.*.flags.banned", "boolean", "banned"),
            key("node_status.nodes.*.flags.unhealthy", "boolean", "monitoring says unhealthy"),
            key("node_status.nodes.*.flags.deleted", "boolean", "always false: deleted nodes are left out"),
            key("node_status.nodes.*.flags.stopped", "boolean", "stopped by the administrator"),
            key("node_status.nodes.*.flags.inactive", "boolean", "disconnected, banned or stopped"),
            key("node_status.nodes.*.this_node", "boolean", "the node that was asked"),
            $($more),*
        ]
    };
}

/// Keys of `status`.
pub const STATUS: &[Key] = node_keys![
    key("vnn_status.generation", "number|null", "generation of the databases; null when invalid"),
    key("vnn_status.size", "number", "slots of the vnn map"),
    key("vnn_status.vnn_map[].hash", "number", "slot"),
    key("vnn_status.vnn_map[].lmaster", "number", "location master of the slot"),
    key("recovery_mode", "string", "NORMAL or RECOVERY"),
    key("recovery_mode_raw", "number", "0 or 1"),
    key("leader", "number", "number of the leader; 4294967295 when unknown"),
];

/// `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub node_status: NodeTable,
    pub vnn_status: VnnStatus,
    #[serde(serialize_with = "recovery_mode_name")]
    pub recovery_mode: bool,
    #[serde(rename = "recovery_mode_raw")]
    recovery_mode_raw: u8,
    #[serde(serialize_with = "leader_number")]
    pub leader: Option<u32>,
}

/// Generation and vnn map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VnnStatus {
    /// `None`: invalid.
    pub generation: Option<u32>,
    pub size: usize,
    #[serde(serialize_with = "slots")]
    pub vnn_map: Vec<u32>,
}

#[derive(Serialize)]
struct Slot {
    hash: usize,
    lmaster: u32,
}

fn slots<S: Serializer>(map: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer
        .collect_seq(map.iter().enumerate().map(|(hash, lmaster)| Slot { hash, lmaster: *lmaster }))
}

const fn recovery_name(active: bool) -> &'static str {
    if active { "RECOVERY" } else { "NORMAL" }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn recovery_mode_name<S: Serializer>(active: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(recovery_name(*active))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn leader_number<S: Serializer>(leader: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(leader.unwrap_or(u32::MAX))
}

impl Status {
    /// Puts the parts together. `recovery`: the recovery mode is active.
    #[must_use]
    pub fn new(
        node_status: NodeTable,
        generation: Option<u32>,
        vnn_map: Vec<u32>,
        recovery: bool,
        leader: Option<u32>,
    ) -> Self {
        let vnn_status = VnnStatus { generation, size: vnn_map.len(), vnn_map };
        let recovery_mode_raw = u8::from(recovery);
        Self { node_status, vnn_status, recovery_mode: recovery, recovery_mode_raw, leader }
    }
}

impl Report for Status {
    fn human(&self, page: &mut Page) {
        self.node_status.count_line(page);
        for row in &self.node_status.nodes {
            row.human(page);
        }
        match self.vnn_status.generation {
            Some(generation) => page.line(format_args!("Generation:{generation}")),
            None => page.line(format_args!("Generation:{}", page.paint(Tone::Bad, "INVALID"))),
        }
        page.line(format_args!("Size:{}", self.vnn_status.size));
        for (hash, lmaster) in self.vnn_status.vnn_map.iter().enumerate() {
            page.line(format_args!("hash:{hash} lmaster:{lmaster}"));
        }
        let tone = if self.recovery_mode { Tone::Bad } else { Tone::Good };
        let mode = page.paint(tone, recovery_name(self.recovery_mode));
        page.line(format_args!("Recovery mode:{mode} ({})", self.recovery_mode_raw));
        match self.leader {
            Some(leader) => page.line(format_args!("Leader:{leader}")),
            None => page.line(format_args!("Leader:{}", page.paint(Tone::Bad, "UNKNOWN"))),
        }
    }

    fn machine(&self, page: &mut Page) {
        self.node_status.machine(page);
    }
}

/// Keys of `nodestatus`: those of `status` about nodes.
pub const NODESTATUS: &[Key] = node_keys![];

/// `nodestatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    pub node_status: NodeTable,
    /// All nodes were asked for: print their number.
    #[serde(skip)]
    pub all: bool,
}

impl NodeStatus {
    /// Flags of all listed nodes together.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        let all = self.node_status.nodes.iter().fold(0, |sum, row| sum | row.flags.0);
        all.to_le_bytes()[0]
    }
}

impl Report for NodeStatus {
    fn human(&self, page: &mut Page) {
        if self.all {
            self.node_status.count_line(page);
        }
        for row in &self.node_status.nodes {
            row.human(page);
        }
    }

    fn machine(&self, page: &mut Page) {
        self.node_status.machine(page);
    }
}

/// Keys of `listnodes`.
pub const LISTNODES: &[Key] = &[
    key("nodes[].pnn", "number", "number of the node"),
    key("nodes[].address", "string", "private address"),
];

/// One line of the nodes file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedNode {
    pub pnn: u32,
    pub address: String,
}

/// `listnodes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedNodes {
    pub nodes: Vec<ListedNode>,
}

impl Report for ListedNodes {
    fn human(&self, page: &mut Page) {
        for node in &self.nodes {
            page.line(&node.address);
        }
    }

    fn machine(&self, page: &mut Page) {
        for node in &self.nodes {
            page.row(fields![node.pnn, node.address]);
        }
    }
}

/// Keys of `uptime`.
pub const UPTIME: &[Key] = &[
    key("pnn", "number", "the node asked"),
    key("current_time", "number", "the node's clock, seconds since the epoch"),
    key("start_time", "number", "start of the daemon, seconds since the epoch"),
    key("last_recovery_started", "number", "seconds since the epoch; 0 before the first"),
    key("last_recovery_finished", "number", "seconds since the epoch; 0 before the first"),
    key("last_recovery_duration", "number", "seconds"),
];

/// `uptime`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UptimeReport {
    pub pnn: u32,
    pub current: Timeval,
    pub start: Timeval,
    pub recovery_started: Timeval,
    pub recovery_finished: Timeval,
}

impl UptimeReport {
    /// Seconds; from the whole parts and the fractions apart, so that no digit is lost.
    fn recovery_duration(&self) -> f64 {
        let (end, start) = (self.recovery_finished, self.recovery_started);
        let micros = i128::from(end.micros) - i128::from(start.micros)
            + (i128::from(end.seconds) - i128::from(start.seconds)) * 1_000_000;
        #[expect(clippy::cast_precision_loss, reason = "shown with six digits")]
        let micros = micros as f64;
        micros / 1e6
    }
}

impl Serialize for UptimeReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Object {
            pnn: u32,
            current_time: f64,
            start_time: f64,
            last_recovery_started: f64,
            last_recovery_finished: f64,
            last_recovery_duration: f64,
        }
        Object {
            pnn: self.pnn,
            current_time: seconds(self.current),
            start_time: seconds(self.start),
            last_recovery_started: seconds(self.recovery_started),
            last_recovery_finished: seconds(self.recovery_finished),
            last_recovery_duration: self.recovery_duration(),
        }
        .serialize(serializer)
    }
}

impl Report for UptimeReport {
    fn human(&self, page: &mut Page) {
        let now = self.current.seconds;
        let ago = |then: Timeval| Elapsed(now.saturating_sub(then.seconds));
        let (node, current) = (self.pnn, ctime(now));
        page.line(format_args!("Current time of node {node:<4}     :                {current}"));
        for (title, time) in [
            ("Ctdbd start time              ", self.start),
            ("Time of last recovery/failover", self.recovery_finished),
        ] {
            page.line(format_args!("{title}: {} {}", ago(time), ctime(time.seconds)));
        }
        let duration = self.recovery_duration();
        page.line(format_args!("Duration of last recovery/failover: {duration:.6} seconds"));
    }
}

/// Keys of `ping`.
pub const PING: &[Key] = &[
    key("pnn", "number", "the node that answered"),
    key("time", "number", "seconds from question to answer"),
    key("num_clients", "number", "clients of the daemon"),
];

/// `ping`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ping {
    pub pnn: u32,
    pub time: f64,
    pub num_clients: u32,
}

impl Report for Ping {
    fn human(&self, page: &mut Page) {
        let Self { pnn, time, num_clients } = self;
        page.line(format_args!("response from {pnn} time={time:.6} sec  ({num_clients} clients)"));
    }
}

/// Keys of `runstate`.
pub const RUNSTATE: &[Key] = &[
    key("runstate", "string", "UNKNOWN, INIT, SETUP, FIRST_RECOVERY, STARTUP, RUNNING or SHUTDOWN"),
    key("required", "boolean", "one of the states asked for; true when none was"),
];

/// `runstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunStateReport {
    pub state: RunState,
    /// It is one of the states asked for.
    pub required: bool,
}

impl Serialize for RunStateReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("runstate", &self.state.to_string())?;
        map.serialize_entry("required", &self.required)?;
        map.end()
    }
}

impl Report for RunStateReport {
    fn human(&self, page: &mut Page) {
        let tone = if self.state == RunState::Running { Tone::Good } else { Tone::Warn };
        let state = page.paint(tone, self.state);
        if self.required {
            page.line(state);
        } else {
            page.line(format_args!("CTDB not in required run state (got {state})"));
        }
    }
}

/// Keys of `pnn`.
pub const PNN: &[Key] = &[key("pnn", "number", "number of this node")];

/// `pnn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pnn {
    pub pnn: u32,
}

impl Report for Pnn {
    fn human(&self, page: &mut Page) {
        page.line(self.pnn);
    }
}

/// Keys of `leader`.
pub const LEADER: &[Key] =
    &[key("leader", "number|null", "number of the leader; null when none is heard in time")];

/// `leader`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    pub leader: Option<u32>,
}

impl Report for Leader {
    fn human(&self, page: &mut Page) {
        match self.leader {
            Some(leader) => page.line(leader),
            None => page.line(page.paint(Tone::Bad, "UNKNOWN")),
        }
    }
}

/// Keys of `getpid`.
pub const GETPID: &[Key] = &[key("pid", "number", "process id of the daemon")];

/// `getpid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GetPid {
    pub pid: i32,
}

impl Report for GetPid {
    fn human(&self, page: &mut Page) {
        page.line(self.pid);
    }
}

#[cfg(test)]
mod tests;
