//! Nodes in tables: `status`, `nodestatus`, `listnodes`; pure.
//!
//! Origin: `docs/spec/admin-interface.md` 1.3, 1.5.2–1.5.4, A.1.

use ringmaster_protocol::node::NodeFlags;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::command::{Key, key};
use crate::fields;
use crate::output::Report;
use crate::page::{Page, Painted, Tone};

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
