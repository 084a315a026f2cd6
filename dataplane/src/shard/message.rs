//! What shards and the control thread say to each other.
//!
//! Invariants
//! - An order that carries a [`AckToken`] is acknowledged when it has taken full effect in this
//!   shard; control answers whoever asked when all shards have.
//! - Packets travel encoded: the receiving shard appends them to a client's output as they are.

use std::sync::Arc;

use ringmaster_protocol::{
    DbId, Destination, Generation, Pnn, Reqid, Srvid, control_packet::ControlFlags,
    database::DbFlags, record::RecordHeader,
};
use ringmaster_storage::{engine::AccessError, handle::Database};
use rustix::fd::OwnedFd;

use super::{
    ShardId, lanes::LaneSetup, registry::ClientRef, statistics::ShardStatistics,
    updates::CopyUpdates,
};
use crate::{
    record::{ClientId, ControlToken, vacuum::Tombstone},
    view::NodeView,
};

/// Chosen by control; comes back once per shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckToken(pub u64);

/// What a stream (pull, traverse) may have under way to other nodes; goes back to its worker when
/// the packet has been given to the kernel, or has been dropped.
#[derive(Debug)]
pub struct Credit {
    bytes: usize,
    back: std::sync::mpsc::Sender<usize>,
}

impl Credit {
    /// `bytes` go back to whoever has the other end of `back`.
    #[must_use]
    pub const fn new(bytes: usize, back: std::sync::mpsc::Sender<usize>) -> Self {
        Self { bytes, back }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        // Fails when the worker is gone.
        let _ = self.back.send(self.bytes);
    }
}

/// A control of a node about single records, which must not overtake the record packets that came
/// before it: they may be on their way to other shards. Each shard takes its turn; the last one
/// hands it on. (`UPDATE_RECORD` has an order of its own: `updates`.)
#[derive(Debug)]
pub struct Relay {
    missing: std::sync::atomic::AtomicUsize,
    bytes: Box<[u8]>,
}

impl Relay {
    /// For this many shards.
    #[must_use]
    pub const fn new(shards: usize, bytes: Box<[u8]>) -> Self {
        Self { missing: std::sync::atomic::AtomicUsize::new(shards), bytes }
    }

    /// One more shard is through; the packet, if it was the last.
    #[must_use]
    pub fn pass(&self) -> Option<&[u8]> {
        let missing = self.missing.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        (missing == 1).then_some(&*self.bytes)
    }
}

/// To a shard: an order of control's, or work from another shard.
#[derive(Debug)]
pub enum ToShard {
    /// A connection that the accepting shard has given to this one.
    Adopt(OwnedFd),
    /// Control's, to be acknowledged.
    Order(AckToken, Order),
    /// Append to a client's output: a whole packet.
    Packet {
        /// A client of this shard; may be gone.
        client: ClientId,
        /// The packet.
        bytes: Box<[u8]>,
    },
    /// A client's call for a chain of this shard.
    Call {
        /// Client of another shard.
        client: ClientId,
        /// The packet as it came.
        bytes: Box<[u8]>,
    },
    /// A record packet from another node for a chain of this shard.
    NodePacket(Box<[u8]>),
    /// Sent by a shard that has got [`Order::UpdateCopies`]: what it has sent here before was first.
    UpdateMark(AckToken),
    /// A control of this shard's engine has ended.
    ControlDone {
        /// Which.
        token: ControlToken,
        /// Status of the reply; -1 when it could not be delivered.
        status: i32,
    },
    /// A message of control's or of another node's for local clients.
    Deliver {
        /// Whose.
        srvid: Srvid,
        /// Payload.
        data: Arc<[u8]>,
    },
    /// Close the connection of a client of this shard.
    CloseClient(ClientId),
    /// A client of this node wants a record looked at by the next vacuum round.
    ScheduleDeletion {
        /// Database.
        db: DbId,
        /// Header as the client saw it.
        header: RecordHeader,
        /// Key.
        key: Box<[u8]>,
    },
    /// Accept clients on this socket from now on (one shard only).
    Listen(OwnedFd),
    /// Accept nodes on this socket from now on (one shard only).
    ListenNodes(OwnedFd),
    /// Connect to all nodes that the view names, from now on.
    StartLanes(LaneSetup),
    /// Send keepalives from now on.
    StartKeepalive,
    /// A control that has to wait until every shard has done what came before it.
    Relay(Arc<Relay>),
    /// A connection of a node whose links this shard owns.
    NodeConnection(Pnn, OwnedFd),
    /// A packet for another node, encoded: to be sent if this shard owns its links, else handed on.
    ToNode {
        /// Where to.
        to: Pnn,
        /// The packet.
        bytes: Box<[u8]>,
        /// Given back when the packet has left.
        credit: Option<Credit>,
    },
    /// End: close everything and leave the thread.
    Stop,
}

/// What control orders.
#[derive(Debug)]
pub enum Order {
    /// A new view of node and cluster.
    View(Arc<NodeView>),
    /// A database has been opened.
    Attach {
        /// Id.
        db: DbId,
        /// Kind.
        flags: DbFlags,
        /// The open file; the shard makes a handle of its own.
        database: Arc<Database>,
        /// Tunable `DatabaseMaxDead`.
        max_dead: u32,
        /// Attached during a recovery: calls wait for the thaw.
        frozen: bool,
    },
    /// A database is no more.
    Detach(DbId),
    /// READONLY or STICKY has been set.
    AddFlags(DbId, DbFlags),
    /// Count changes of this database in its sequence number.
    EnableSeqnum(DbId),
    /// Leave the database alone; acknowledged when no chain of it is locked or waited for.
    Freeze(DbId),
    /// Use it again; with a generation where a recovery has given it one.
    Thaw(DbId, Option<Generation>),
    /// A crashed commit has been undone ([`FromShard::Crashed`]).
    Recovered(DbId),
    /// The database's generation: INVALID when the node goes inactive.
    SetGeneration(DbId, Generation),
    /// A recovery has replaced the database: no read-only copies are out, queues are void.
    Replaced(DbId),
    /// Hand over what is scheduled for deletion: a vacuum round takes it.
    TakeDeletions(DbId),
    /// A transaction commit is open or over.
    CommitActive(DbId, bool),
    /// Another node has records, whose lmaster this one is, for vacuuming (a `ctdb_rec_buffer`).
    VacuumFetch(DbId, Arc<[u8]>),
    /// Another node calls read-only copies back; acknowledged when it has been done.
    UpdateCopies(Arc<CopyUpdates>),
    /// A change of who wants which messages.
    Registry(RegistryChange),
    /// Send counters to control.
    Statistics,
    /// Zero the counters.
    ResetStatistics,
    /// Nothing: whoever gets the acknowledgement knows that everything before it has been done.
    Barrier,
}

/// A change that every shard makes to its copy of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryChange {
    /// A client has connected.
    Connected(ClientRef),
    /// A client has gone.
    Gone(ClientId),
    /// `REGISTER_SRVID`.
    Register(Srvid, ClientId),
    /// `DEREGISTER_SRVID`.
    Deregister(Srvid, ClientId),
    /// `TUNNEL_REGISTER`.
    RegisterTunnel(u64, ClientId),
    /// `TUNNEL_DEREGISTER`.
    DeregisterTunnel(u64, ClientId),
}

/// From a shard to control.
#[derive(Debug)]
pub enum FromShard {
    /// An order has taken full effect.
    Ack {
        /// Who.
        shard: ShardId,
        /// Which order.
        token: AckToken,
        /// What came of it: `false` when the order could not be carried out (a handle could not be
        /// opened, a registration was refused).
        done: bool,
    },
    /// A client has connected. Everything it sends comes after this.
    Connected(ClientRef),
    /// A client has gone. Nothing of it comes after this.
    Gone(ClientId),
    /// A control that the shard does not answer itself.
    Control(ClientControl),
    /// A message for the control plane itself, which is registered for its srvid.
    ControlMessage {
        /// Which.
        srvid: Srvid,
        /// Payload.
        data: Arc<[u8]>,
    },
    /// A node is connected.
    NodeUp(Pnn),
    /// A connected node is of our kind.
    NodeIsOurs(Pnn),
    /// A node is dead. What it sent before comes before this.
    NodeDown(Pnn),
    /// `REQ_CONTROL` or `REPLY_CONTROL` of a node, as it came.
    NodeControl(Box<[u8]>),
    /// This node has to leave the cluster, and why.
    Leave(String),
    /// An `UPDATE_RECORD` that the engine wants delivered.
    UpdateRecord {
        /// Whose engine.
        shard: ShardId,
        /// Where to.
        to: Pnn,
        /// Comes back in [`ToShard::ControlDone`].
        token: ControlToken,
        /// A `ctdb_rec_buffer`.
        payload: Box<[u8]>,
    },
    /// The record protocol asks for a recovery.
    ForceRecovery {
        /// Why, for the log.
        reason: &'static str,
    },
    /// Packets have waited long for a chain of this database; told again while they do.
    SlowLock {
        /// Which.
        db: DbId,
        /// The longest wait.
        waited_s: u64,
    },
    /// A transaction of another process has died in its commit: the worker has to undo it, and
    /// [`Order::Recovered`] to follow.
    Crashed(DbId),
    /// A database's file is broken here.
    Broken {
        /// Which.
        db: DbId,
        /// What was found.
        error: AccessError,
    },
    /// Answer to [`Order::Statistics`]; the acknowledgement follows.
    Statistics {
        /// Which order.
        token: AckToken,
        /// Counters of one shard.
        statistics: Box<ShardStatistics>,
    },
    /// Answer to [`Order::TakeDeletions`], when there are any; the acknowledgement follows.
    Deletions {
        /// Which database.
        db: DbId,
        /// What is empty, as it was noted.
        records: Vec<Tombstone>,
    },
    /// The shard has ended: by order, or because its reactor is broken.
    Stopped {
        /// Who.
        shard: ShardId,
        /// What went wrong; `None` by order.
        error: Option<String>,
    },
}

/// A control of a local client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientControl {
    /// Who asked.
    pub client: ClientRef,
    /// The client's request id.
    pub reqid: Reqid,
    /// Where it shall be carried out.
    pub destination: Destination,
    /// Which control.
    pub opcode: u32,
    /// Argument of a few controls.
    pub srvid: Srvid,
    /// NOREPLY and others.
    pub flags: ControlFlags,
    /// Payload.
    pub data: Box<[u8]>,
}
