//! One simulated node: the production engine and plane, its records in memory, and what they asked
//! for.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
};

use ringmaster_control::{
    node::{
        NodePlane, State,
        state::{Constants, NodeEntry},
        world::DataAsk,
    },
    plane::{Millis as PlaneMillis, Token},
};
use ringmaster_dataplane::record::{
    ClientId, ControlToken, NodeEnvelope, Output, RecordEngine, Ticket, UpdateToken,
    vacuum::Tombstone,
};
use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, PacketStyle, Pnn, Reqid, SockAddr,
    header::Envelope,
    node::NodeFlags,
    process::{RunState, Timeval},
    record::RecordHeader,
    tunable::{Tunable, TunableList},
};

use crate::{mutation::Mutation, store::SimStore, worker::Round};

/// Name of the database of records that move.
pub(crate) const DB_NAME: &str = "locking.tdb";

/// Its id.
pub(crate) const DB: DbId = DbId(0x7a19_d84d);

/// The number of a node as the protocol has it.
pub(crate) fn pnn(node: usize) -> Pnn {
    u32::try_from(node).ok().and_then(Pnn::new).expect("few nodes")
}

/// The place of a node.
pub(crate) fn place(pnn: Pnn) -> usize {
    usize::try_from(pnn.get()).expect("few nodes")
}

/// What an engine asked for in one call into it.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) replies: Vec<(ClientId, Reqid, Vec<u8>)>,
    pub(crate) packets: Vec<(usize, Vec<u8>)>,
    pub(crate) waits: Vec<(Vec<u8>, Ticket)>,
    pub(crate) updates: Vec<(usize, ControlToken, Vec<u8>)>,
    pub(crate) updated: Vec<(UpdateToken, i32)>,
    /// Of the call that has been forwarded most.
    pub(crate) hops: u32,
    pub(crate) recoveries: Vec<&'static str>,
}

impl Output for Recorder {
    fn reply_client(&mut self, client: ClientId, reqid: Reqid, status: i32, data: &[u8]) {
        assert_eq!(status, 0, "a client's call is never answered with an error");
        self.replies.push((client, reqid, data.to_vec()));
    }

    fn send_node(&mut self, to: Pnn, envelope: NodeEnvelope, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        let envelope = Envelope {
            generation: envelope.generation,
            destination: Destination::Node(to),
            source: Destination::Node(envelope.source),
            reqid: envelope.reqid,
        };
        packet.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
        self.packets.push((to.get() as usize, bytes));
    }

    fn wait_for_chain(&mut self, _: DbId, key: &[u8], ticket: Ticket) {
        self.waits.push((key.to_vec(), ticket));
    }

    fn update_record(&mut self, to: Pnn, token: ControlToken, payload: &[u8]) {
        self.updates.push((to.get() as usize, token, payload.to_vec()));
    }

    fn updated(&mut self, token: UpdateToken, status: i32) {
        self.updated.push((token, status));
    }

    fn high_hop_count(&mut self, _: DbId, _: &[u8], hopcount: u32) {
        self.hops = self.hops.max(hopcount);
    }

    fn force_recovery(&mut self, reason: &'static str) {
        self.recoveries.push(reason);
    }
}

/// Records by their keys.
pub(crate) type Copies = BTreeMap<Vec<u8>, (RecordHeader, Vec<u8>)>;

/// A node.
pub(crate) struct Node {
    pub(crate) engine: RecordEngine,
    pub(crate) store: SimStore,
    pub(crate) out: Recorder,
    pub(crate) plane: NodePlane,
    /// Grows with every start of the daemon; events of an earlier life are void.
    pub(crate) life: u32,
    pub(crate) alive: bool,
    /// Cut off from all others.
    pub(crate) cut: bool,
    /// The process does nothing before this time.
    pub(crate) paused_until: u64,
    /// Frozen, or a freeze waits for the clients that hold a chain.
    pub(crate) frozen: bool,
    /// Of the database.
    pub(crate) generation: Generation,
    pub(crate) waiting: Vec<(Vec<u8>, Ticket)>,
    /// Records of an `UPDATE_RECORD` that the engine has not answered for, by the ask of the plane.
    pub(crate) updates: Vec<(UpdateToken, Token, u64)>,
    /// Orders that the database's worker has not carried out.
    pub(crate) jobs: VecDeque<(Token, DataAsk)>,
    /// What the shards have handed over for the next round.
    pub(crate) scheduled: Vec<Tombstone>,
    pub(crate) round: Option<Round>,
    /// Records that a recovery has pushed, until its commit.
    pub(crate) staged: BTreeMap<DbId, Copies>,
    pub(crate) turn_at: Option<u64>,
    pub(crate) plane_at: Option<u64>,
    /// When the worker goes on.
    pub(crate) working: bool,
}

impl Node {
    /// A daemon that has just been started, with no database yet.
    pub(crate) fn start(
        number: usize,
        nodes: usize,
        life: u32,
        now: PlaneMillis,
        mutation: Option<Mutation>,
    ) -> Self {
        let mut store = SimStore::new(pnn(number), mutation);
        store.memory.set_frozen(DB, true);
        Self {
            engine: RecordEngine::new(pnn(number), 0),
            store,
            out: Recorder::default(),
            plane: NodePlane::new(state(number, nodes, now), now, 77 + number as u64),
            life,
            alive: true,
            cut: false,
            paused_until: 0,
            frozen: true,
            generation: Generation::INVALID,
            waiting: Vec::new(),
            updates: Vec::new(),
            jobs: VecDeque::new(),
            scheduled: Vec::new(),
            round: None,
            staged: BTreeMap::new(),
            turn_at: None,
            plane_at: None,
            working: false,
        }
    }

    /// The records must not be used by the next recovery: the node was inactive.
    pub(crate) fn is_invalid(&self) -> bool {
        self.plane.cx().state().database(DB).is_none_or(|db| db.invalid_records)
    }
}

fn state(number: usize, nodes: usize, now: PlaneMillis) -> State {
    let entry = |number: usize| {
        let host = u8::try_from(number + 1).expect("few nodes");
        let address = SockAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 4379);
        NodeEntry { pnn: pnn(number), address, flags: NodeFlags::NONE }
    };
    let constants = Constants {
        pnn: pnn(number),
        daemon_pid: 1,
        cluster_lock: None,
        leader_timeout_s: 5,
        failover_disabled: true,
        shutdown_failover_timeout_s: 0,
        shutdown_extra_timeout_s: 0,
        fast_start: true,
        real_addresses: false,
    };
    // Short, so that rounds and timeouts are part of a run.
    let mut tunables = TunableList::default();
    tunables.set(Tunable::VacuumInterval, 1);
    tunables.set(Tunable::VacuumFastPathCount, 4);
    tunables.set(Tunable::ControlTimeout, 3);
    let wall_clock = (Timeval { seconds: 1_000_000, micros: 0 }, now);
    let mut state = State::new(constants, (0..nodes).map(entry).collect(), tunables, wall_clock);
    state.run_state = RunState::Running;
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_databases_are_what_their_names_say() {
        assert_eq!(DB, DbId::from_name(DB_NAME));
    }
}
