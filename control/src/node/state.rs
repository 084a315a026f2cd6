//! What the sequences of a node share.
//!
//! Invariants
//! - Only this node's own entry of `nodes` is its own to change; DISCONNECTED of others is what
//!   this node sees (`docs/spec/cluster-semantics.md` 1.8).
//! - A run state is only replaced by a later one.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
};

use ringmaster_protocol::{
    DbId, Generation, Pnn, Srvid,
    address::SockAddr,
    capabilities::Capabilities,
    connection::Connection,
    database::{DbFlags, TdbOpenFlags, VnnMap},
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{DebugLevel, RecMode, RunState, Timeval},
    statistics::{LatencyCounter, LockStatistics, Statistics},
    tunable::{Tunable, TunableList},
};

use super::{recd::RecdState, world::ClientId};
use crate::{
    failover::addresses::{Address, Addresses},
    plane::Millis,
};

/// Settings that hold for the life of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constants {
    /// This node.
    pub pnn: Pnn,
    /// Process id of the daemon.
    pub daemon_pid: i32,
    /// `cluster lock`, as written; `None` without one.
    pub cluster_lock: Option<String>,
    /// `[cluster] leader timeout`, in seconds.
    pub leader_timeout_s: u32,
    /// `[failover] disabled`.
    pub failover_disabled: bool,
    /// `[failover] shutdown failover timeout`, in seconds; 0: none.
    pub shutdown_failover_timeout_s: u32,
    /// `[failover] shutdown extra timeout`, in seconds.
    pub shutdown_extra_timeout_s: u32,
    /// Elections and the first recovery do not wait (test mode).
    pub fast_start: bool,
    /// Public addresses are really put on interfaces, so that it can be seen whether the host has
    /// one (not in test mode).
    pub real_addresses: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct State {
    /// Settings.
    pub constants: Constants,
    /// Where the daemon is in its life.
    pub run_state: RunState,
    /// Whether a recovery is under way.
    pub recovery_mode: RecMode,
    /// lmasters and generation.
    pub vnn_map: VnnMap,
    /// Nodes that were active in this generation and are, or have been, so no longer. What they had is
    /// theirs until a recovery.
    pub departed: BTreeSet<Pnn>,
    /// All nodes, by their numbers, with the flags this node sees.
    pub nodes: Vec<NodeEntry>,
    /// Connected nodes that have said that they are of our kind.
    pub announced: BTreeSet<Pnn>,
    /// What this node may be.
    pub capabilities: Capabilities,
    /// Tunables in force.
    pub tunables: TunableList,
    /// Log level by C's numbers.
    pub debug_level: DebugLevel,
    /// Wall clock at start of the plane, and when that was: wall clock = this + what has passed.
    pub wall_clock: (Timeval, Millis),
    /// Start of the last recovery.
    pub recovery_started: Timeval,
    /// End of the last recovery.
    pub recovery_finished: Timeval,
    /// The same, by the plane's clock.
    pub recovery_finished_at: Millis,
    /// Attached databases, the most recently attached first.
    pub databases: Vec<Database>,
    /// The daemon-wide freeze (node inactive): done, under way, or not.
    pub frozen_all: FreezeState,
    /// Local clients.
    pub clients: BTreeMap<ClientId, Client>,
    /// This node's ban: until when, and for how many seconds.
    pub ban: Option<(Millis, u32)>,
    /// Controls of others being answered.
    pub requests: usize,
    /// How often SET_RECMODE has ended a recovery; deferred attaches wait for the next time.
    pub recoveries_left: u64,
    /// The generation in which this node was last out of recovery.
    pub left_in: Option<Generation>,
    /// This node has left a recovery, and the leader has not said yet that all have (END_RECOVERY):
    /// until when that is waited for.
    pub others_leave_until: Option<Millis>,
    /// Names of databases that are being attached.
    pub attaching: BTreeSet<String>,
    /// The last number given out by [`State::next_number`].
    pub last_number: u64,
    /// Traverses of local clients, by their request id.
    pub traverses: BTreeMap<u32, Traverse>,
    /// Request id of the last traverse.
    pub last_traverse: u32,
    /// This node's part of traverses, by a number of its own.
    pub local_traverses: BTreeMap<u32, LocalTraverse>,
    /// A vacuum round is under way (one at a time, whatever the database).
    pub vacuuming: bool,
    /// Statistics of the last intervals, the newest first; at most
    /// [`StatisticsHistory::SLOTS`](ringmaster_protocol::statistics::StatisticsHistory::SLOTS).
    pub history: VecDeque<Statistics>,
    /// Messages for the plane's own srvids, in order of arrival; the sequence that waits for one
    /// takes it out.
    pub mailbox: VecDeque<(Srvid, Vec<u8>)>,
    /// The cluster lock is held by this node.
    pub lock_held: bool,
    /// Who leads, as far as this node knows.
    pub leader: Option<Pnn>,
    /// Counters that the plane owns.
    pub counters: Counters,
    /// Public addresses that this node may host.
    pub addresses: Addresses,
    /// The recovery daemon's own.
    pub recd: RecdState,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Number.
    pub pnn: Pnn,
    /// Address and port.
    pub address: SockAddr,
    /// As this node sees them.
    pub flags: NodeFlags,
}

/// How far a freeze is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FreezeState {
    /// Not frozen.
    #[default]
    None,
    /// Waiting for the locks.
    Pending,
    /// Frozen.
    Frozen,
}

/// One attached database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Id.
    pub id: DbId,
    /// Name, as attached.
    pub name: String,
    /// Kind and run-time properties.
    pub flags: DbFlags,
    /// This node's file.
    pub path: PathBuf,
    /// How clients have to open it.
    pub open_flags: TdbOpenFlags,
    /// Of the last recovery.
    pub generation: Generation,
    /// Freeze.
    pub freeze: FreezeState,
    /// Recovery transaction under way, by its id.
    pub transaction: Option<Generation>,
    /// Content must not be used by the next recovery (the node was inactive).
    pub invalid_records: bool,
    /// Push under way.
    pub push: Option<Push>,
    /// Persistent: why it is not healthy.
    pub unhealthy: Option<String>,
    /// Sequence numbers are propagated: the last one seen.
    pub seqnum: Option<u64>,
    /// A transaction commit is open.
    pub commit: Option<Commit>,
    /// Counts freezes begun: an outcome that comes after a thaw is recognised by it.
    pub freezes: u64,
}

/// A push that a leader has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// Tells it from a later one with the same srvid.
    pub number: u64,
    /// Its messages.
    pub srvid: Srvid,
    /// Records stored so far.
    pub stored: u32,
    /// A batch could not be stored; those after it are not counted.
    pub failed: bool,
    /// A batch is being stored.
    pub busy: bool,
}

/// A TRANS3_COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub client: ClientId,
    /// Tells its late replies from those of a later one.
    pub number: u64,
    /// Nodes that have not confirmed.
    pub missing: u32,
    /// [`State::recoveries_left`] when it began.
    pub recovery: u64,
    /// A recovery has decided.
    pub ended: bool,
}

/// A traverse that started here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traverse {
    /// Who gets the records.
    pub client: ClientId,
    /// What.
    pub db: DbId,
    /// Where the client listens.
    pub srvid: Srvid,
    /// What the client calls it.
    pub client_reqid: u32,
    /// Nodes that have been asked and have not sent their end marker.
    pub missing: BTreeSet<Pnn>,
}

/// This node's records of a traverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalTraverse {
    /// What.
    pub db: DbId,
    /// Whose client gets the records.
    pub origin: Pnn,
    /// What the client calls it.
    pub client_reqid: u32,
    /// Where the client listens.
    pub srvid: Srvid,
    /// TRAVERSE_KILL has come.
    pub killed: bool,
}

/// What the plane keeps for a local client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Process id.
    pub pid: i32,
    /// To be sent when it goes.
    pub notify: Vec<(Srvid, Vec<u8>)>,
    /// Legacy counter of START_PERSISTENT_UPDATE.
    pub persistent_updates: u32,
    /// Connections to public addresses that it has registered.
    pub connections: BTreeSet<Connection>,
}

/// Counters that the plane owns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Completed END_RECOVERY events.
    pub num_recoveries: u32,
    /// Controls without an answer in time; the driver counts them.
    pub control_timeouts: u32,
    /// Traverses without an end in time.
    pub traverse_timeouts: u32,
    /// Lock tests at the end of recoveries.
    pub reclock_ctdbd: LatencyCounter,
    /// Takings of the lock.
    pub reclock_recd: LatencyCounter,
    /// Whole databases locked for a freeze; C's lock helpers count them among the record locks.
    pub locks: LockStatistics,
    /// UPDATE_RECORD transactions.
    pub childwrite_calls: u32,
    /// Those under way.
    pub pending_childwrite_calls: u32,
    /// Their duration.
    pub childwrite_latency: LatencyCounter,
    /// Duration of vacuum rounds, in seconds.
    pub vacuum_latency: BTreeMap<DbId, LatencyCounter>,
    /// Last reset.
    pub statistics_start: Timeval,
}

impl State {
    /// Before the start: nothing attached, in recovery, no leader known.
    #[must_use]
    pub fn new(
        constants: Constants,
        nodes: Vec<NodeEntry>,
        tunables: TunableList,
        wall_clock: (Timeval, Millis),
    ) -> Self {
        let members = nodes.iter().filter(|node| !node.flags.intersects(NodeFlags::DELETED));
        let map = members.map(|node| node.pnn).collect();
        Self {
            constants,
            run_state: RunState::Unknown,
            recovery_mode: RecMode::Active,
            vnn_map: VnnMap { generation: Generation::INVALID, map },
            departed: BTreeSet::new(),
            nodes,
            announced: BTreeSet::new(),
            capabilities: Capabilities::DEFAULT,
            tunables,
            debug_level: DebugLevel(3),
            wall_clock,
            recovery_started: wall_clock.0,
            recovery_finished: wall_clock.0,
            recovery_finished_at: wall_clock.1,
            databases: Vec::new(),
            frozen_all: FreezeState::None,
            clients: BTreeMap::new(),
            ban: None,
            requests: 0,
            recoveries_left: 0,
            left_in: None,
            others_leave_until: None,
            attaching: BTreeSet::new(),
            last_number: 0,
            traverses: BTreeMap::new(),
            last_traverse: 0,
            local_traverses: BTreeMap::new(),
            vacuuming: false,
            history: VecDeque::new(),
            mailbox: VecDeque::new(),
            lock_held: false,
            leader: None,
            addresses: Addresses::default(),
            recd: RecdState::default(),
            counters: Counters { statistics_start: wall_clock.0, ..Counters::default() },
        }
    }

    /// This node.
    #[must_use]
    pub const fn pnn(&self) -> Pnn {
        self.constants.pnn
    }

    /// Flags of a node as seen here; `None` for one that is not in the list.
    #[must_use]
    pub fn flags_of(&self, pnn: Pnn) -> Option<NodeFlags> {
        self.nodes.iter().find(|node| node.pnn == pnn).map(|node| node.flags)
    }

    /// This node's own flags.
    #[must_use]
    pub fn own_flags(&self) -> NodeFlags {
        self.flags_of(self.pnn()).unwrap_or(NodeFlags::NONE)
    }

    /// Whether this node takes part in databases.
    #[must_use]
    pub fn is_inactive(&self) -> bool {
        self.own_flags().intersects(NodeFlags::INACTIVE)
    }

    /// Whether this node could host an address now.
    #[must_use]
    pub fn offers(&self, address: &Address) -> bool {
        self.run_state == RunState::Running
            && !self.own_flags().intersects(NodeFlags::INACTIVE | NodeFlags::DISABLED)
            && self.addresses.is_hostable(address)
    }

    /// Nodes of a broadcast, in the order of their numbers.
    #[must_use]
    pub fn nodes_without(&self, flags: NodeFlags) -> Vec<Pnn> {
        let wanted = self.nodes.iter().filter(|node| !node.flags.intersects(flags));
        wanted.map(|node| node.pnn).collect()
    }

    /// Every node that is not deleted or disconnected, this one included.
    #[must_use]
    pub fn connected(&self) -> Vec<Pnn> {
        self.nodes_without(NodeFlags::DELETED | NodeFlags::DISCONNECTED)
    }

    /// Every active node, this one included if it is.
    #[must_use]
    pub fn active(&self) -> Vec<Pnn> {
        self.nodes_without(NodeFlags::INACTIVE)
    }

    /// Every active node but this one has said that it is of our kind: nobody needs C's patience.
    #[must_use]
    pub fn all_are_ours(&self) -> bool {
        let own = self.pnn();
        self.active().iter().all(|pnn| *pnn == own || self.announced.contains(pnn))
    }

    /// The list as GET_NODEMAP sends it.
    #[must_use]
    pub fn node_map(&self) -> NodeMap {
        let entry = |node: &NodeEntry| NodeAndFlags {
            pnn: node.pnn,
            flags: node.flags,
            addr: node.address,
        };
        NodeMap(self.nodes.iter().map(entry).collect())
    }

    /// The database of that id.
    #[must_use]
    pub fn database(&self, id: DbId) -> Option<&Database> {
        self.databases.iter().find(|db| db.id == id)
    }

    /// The same, to change.
    pub fn database_mut(&mut self, id: DbId) -> Option<&mut Database> {
        self.databases.iter_mut().find(|db| db.id == id)
    }

    /// Value of a tunable.
    #[must_use]
    pub const fn tunable(&self, tunable: Tunable) -> u32 {
        self.tunables.value(tunable)
    }

    /// A number that has not been used before, to tell things apart that look alike.
    pub const fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Sets the flags of another node as this one sees them; returns those it had. `None`: it is not
    /// in the list.
    pub fn set_flags(&mut self, pnn: Pnn, flags: NodeFlags) -> Option<NodeFlags> {
        let node = self.nodes.iter_mut().find(|node| node.pnn == pnn)?;
        let old = std::mem::replace(&mut node.flags, flags);
        if !old.intersects(NodeFlags::INACTIVE) && flags.intersects(NodeFlags::INACTIVE) {
            self.departed.insert(pnn);
        }
        Some(old)
    }

    /// A recovery's map: a new generation of members.
    pub fn set_vnn_map(&mut self, map: VnnMap) {
        self.vnn_map = map;
        self.departed.clear();
    }

    /// Sets or clears flags of this node itself.
    pub fn change_own_flags(&mut self, change: impl FnOnce(NodeFlags) -> NodeFlags) {
        let own = self.pnn();
        if let Some(node) = self.nodes.iter_mut().find(|node| node.pnn == own) {
            node.flags = change(node.flags);
        }
    }

    /// Goes on to a later run state; an earlier one, or the same, changes nothing.
    pub fn enter(&mut self, run_state: RunState) {
        self.run_state = self.run_state.max(run_state);
    }

    /// Wall clock at `now`.
    #[must_use]
    pub fn wall_clock_at(&self, now: Millis) -> Timeval {
        let (start, at) = self.wall_clock;
        let passed = now.0.saturating_sub(at.0);
        let micros = start.micros + i64::try_from(passed % 1_000).unwrap_or(0) * 1_000;
        let seconds = start.seconds + i64::try_from(passed / 1_000).unwrap_or(0);
        Timeval { seconds: seconds + micros / 1_000_000, micros: micros % 1_000_000 }
    }
}
