//! What the recovery daemon's sequences share.
//!
//! Invariant: nothing here survives the daemon.
//! Origin: `docs/spec/cluster-semantics.md` 6.1, 6.9, 6.10.

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_protocol::{
    Pnn, Srvid,
    capabilities::Capabilities,
    process::{SrvidMessage, Timeval},
};

use super::{bans::Credits, switches::Switch};
use crate::{failover::addresses::Interface, plane::Millis};

/// See the module. `default()` is the state before the start.
#[derive(Clone, Debug, Default)]
pub struct RecdState {
    /// Everything ends.
    pub(super) stopped: bool,
    /// The main loop goes round at once.
    pub(super) wake: bool,

    /// An election is under way here or was called by somebody.
    pub(super) election_in_progress: bool,
    /// This node is about to call one: the cluster is being put into recovery mode.
    pub(super) calling_election: bool,
    /// End of the election by messages.
    pub(super) election_ends: Option<Millis>,
    /// When the own election message goes out.
    pub(super) election_send_at: Option<Millis>,
    /// No leader heard until then: an election. `None` while it is not running.
    pub(super) leader_deadline: Option<Millis>,
    /// The first election has been held (test mode hurries until then).
    pub(super) elected_once: bool,
    /// Start of this node's candidature: the older wins.
    pub(super) priority_time: Timeval,

    /// Of the active nodes, as last fetched by the main loop or a recovery.
    pub(super) capabilities: BTreeMap<Pnn, Capabilities>,
    /// Frozen since this node became inactive.
    pub(super) frozen_inactive: bool,
    /// Nodes in the recovery daemon's own reading of the nodes list.
    pub(super) nodes_listed: usize,
    /// Reports about other nodes.
    pub(super) credits: Credits,

    /// A recovery has been decided and has not succeeded yet.
    pub(super) need_recovery: bool,
    /// A takeover run has failed.
    pub(super) need_takeover_run: bool,
    /// Who waits for a takeover run; at most
    /// [`TAKEOVER_REQUESTS_MAX`](super::messages::TAKEOVER_REQUESTS_MAX).
    pub(super) takeover_requests: Vec<SrvidMessage>,
    /// Nodes that should get addresses in the next takeover run.
    pub(super) rebalance: BTreeSet<Pnn>,
    /// Interfaces for public addresses, as they were when they were last looked at.
    pub(super) interfaces_seen: Option<Vec<Interface>>,
    /// DISABLE_RECOVERIES.
    pub(super) recoveries: Switch,
    /// DISABLE_TAKEOVER_RUNS.
    pub(super) takeover_runs: Switch,

    /// Streams being received.
    pub(super) pulls: BTreeSet<Srvid>,
    /// The last stream's number.
    pub(super) stream: u64,
}

#[cfg(test)]
impl RecdState {
    /// Whether an election is under way, as far as this node knows.
    pub(in crate::node) const fn election_in_progress(&self) -> bool {
        self.election_in_progress
    }
}
