//! The plane's state as the shards are shown it.

use std::sync::Arc;

use ringmaster_control::node::State;
use ringmaster_dataplane::view::{DatabaseView, NodeView};

/// A snapshot.
pub(crate) fn view_of(state: &State) -> NodeView {
    let database = |db: &ringmaster_control::node::state::Database| {
        Arc::new(DatabaseView {
            id: db.id,
            name: db.name.clone(),
            path: db.path.clone(),
            flags: db.flags,
            open_flags: db.open_flags,
            generation: db.generation,
        })
    };
    NodeView {
        pnn: state.pnn(),
        daemon_pid: state.constants.daemon_pid,
        vnn_map: state.vnn_map.clone(),
        nodes: state.node_map(),
        run_state: state.run_state,
        recovery_mode: state.recovery_mode,
        capabilities: state.capabilities,
        tunables: state.tunables.clone(),
        debug_level: state.debug_level,
        started: state.wall_clock.0,
        recovery_started: state.recovery_started,
        recovery_finished: state.recovery_finished,
        databases: state.databases.iter().map(database).collect(),
    }
}
