//! What the control plane lets the shards know: one immutable snapshot at a time.
//!
//! Role: lets a shard answer questions about node and cluster without a hop.
//! Invariant: control publishes a new view to every shard after each change, and answers the
//! control that made the change only when all shards have acknowledged it.

use std::{path::PathBuf, sync::Arc};

use ringmaster_protocol::{
    DbId, Destination, Generation, Pnn,
    capabilities::Capabilities,
    database::{DbFlags, TdbOpenFlags, VnnMap},
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{DebugLevel, RecMode, RunState, Timeval},
    tunable::TunableList,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// This node.
    pub pnn: Pnn,
    /// Process id of the daemon.
    pub daemon_pid: i32,
    /// lmasters and generation.
    pub vnn_map: VnnMap,
    /// All nodes with the flags that this node sees.
    pub nodes: NodeMap,
    /// Where the daemon is in its life.
    pub run_state: RunState,
    /// Whether a recovery is under way.
    pub recovery_mode: RecMode,
    /// What this node may be.
    pub capabilities: Capabilities,
    /// Tunables in force.
    pub tunables: TunableList,
    /// Log level by C's numbers.
    pub debug_level: DebugLevel,
    /// Start of the daemon.
    pub started: Timeval,
    /// Start of the last recovery; the daemon's start before the first.
    pub recovery_started: Timeval,
    /// End of the last recovery; the daemon's start before the first.
    pub recovery_finished: Timeval,
    /// Attached databases, the most recently attached first (C's order).
    pub databases: Vec<Arc<DatabaseView>>,
}

/// One attached database.
#[derive(Clone, Debug)]
pub struct DatabaseView {
    /// Id.
    pub id: DbId,
    /// Name, as attached.
    pub name: String,
    /// This node's file.
    pub path: PathBuf,
    /// Kind and run-time properties.
    pub flags: DbFlags,
    /// How clients have to open the file.
    pub open_flags: TdbOpenFlags,
    /// Generation of the last recovery.
    pub generation: Generation,
}

impl NodeView {
    /// Flags of a node as this one sees them; `None` for a node that is not in the list.
    #[must_use]
    pub fn flags_of(&self, pnn: Pnn) -> Option<NodeFlags> {
        self.nodes.0.iter().find(|node| node.pnn == pnn).map(|node| node.flags)
    }

    /// The other nodes that a packet of this one goes to: those of a broadcast, or the one named if
    /// it exists. In the order of their numbers.
    pub fn others(&self, to: Destination) -> impl Iterator<Item = Pnn> + '_ {
        let (named, without) = match to {
            Destination::Node(pnn) => (Some(pnn), Some(NodeFlags::DELETED)),
            Destination::BroadcastAll => (None, Some(NodeFlags::DELETED)),
            Destination::BroadcastConnected => {
                (None, Some(NodeFlags::DELETED | NodeFlags::DISCONNECTED))
            }
            Destination::BroadcastActive => (None, Some(NodeFlags::INACTIVE)),
            _ => (None, None),
        };
        let reached = move |node: &&NodeAndFlags| {
            without.is_some_and(|without| !node.flags.intersects(without))
                && named.is_none_or(|named| node.pnn == named)
                && node.pnn != self.pnn
        };
        self.nodes.0.iter().filter(reached).map(|node| node.pnn)
    }

    /// The database of that id.
    #[must_use]
    pub fn database(&self, id: DbId) -> Option<&Arc<DatabaseView>> {
        self.databases.iter().find(|db| db.id == id)
    }
}
