//! What the control plane lets the shards know: one immutable snapshot at a time.
//!
//! Role: lets a shard answer questions about node and cluster without a hop.
//! Invariant: control publishes a new view to every shard after each change, and answers the
//! control that made the change only when all shards have acknowledged it.

use std::{path::PathBuf, sync::Arc};

use ringmaster_protocol::{
    DbId, Generation, Pnn,
    capabilities::Capabilities,
    database::{DbFlags, TdbOpenFlags, VnnMap},
    node::{NodeFlags, NodeMap},
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

    /// The database of that id.
    #[must_use]
    pub fn database(&self, id: DbId) -> Option<&Arc<DatabaseView>> {
        self.databases.iter().find(|db| db.id == id)
    }
}
