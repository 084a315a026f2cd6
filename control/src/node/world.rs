//! What a node's control plane asks of the world around it, and what it hears.
//!
//! Role: the whole contract with the driver. The daemon carries an [`Ask`] out with shards,
//! database workers, children and sockets; the simulator plays it. An ask always ends: with its
//! outcome, or (a node that dies, a timeout) with a failure.
//! Invariant: an outcome means that everybody concerned has done it (all shards, the worker).
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.4, 1.9, 2.2, 4, 7, 9, 10.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

use ringmaster_protocol::{
    DbId, Destination, Generation, Pnn, Srvid,
    connection::Connection,
    control::ControlOpcode,
    control_packet::ControlFlags,
    database::{DbFlags, TdbOpenFlags},
    node::NodeMap,
    statistics::Statistics,
};

use super::State;
use crate::{
    config::{home_nodes::HomeNode, public_addresses::PublicAddress},
    plane::World,
};

/// Ties the types together.
#[derive(Clone, Copy, Debug)]
pub struct NodeWorld;

impl World for NodeWorld {
    type State = State;
    type Ask = Ask;
    type Outcome = Outcome;
    type Tell = Tell;
}

/// A local client, by the data plane's number for it. 0 is never a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// Something with an outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Sends a control to one node and waits for the reply. A control to this node is handed back
    /// to the plane as a request (`controls::request`). Outcome: [`Outcome::Reply`].
    Control(OutgoingControl),
    /// Data plane: see [`DataAsk`].
    Data(DataAsk),
    /// Runs an event's scripts through the event daemon. Outcome: [`Outcome::Script`].
    Script(ScriptRun),
    /// Takes the cluster lock and keeps it. Outcome: [`Outcome::Lock`].
    TakeLock {
        /// Gives up after this long, in seconds.
        timeout_s: u32,
    },
    /// Tries to take the cluster lock and gives it back at once (the check when a recovery ends).
    /// Outcome: [`Outcome::Lock`].
    TestLock {
        /// Gives up after this long, in seconds.
        timeout_s: u32,
    },
    /// Reads the nodes list (file or command). Outcome: [`Outcome::Nodes`].
    ReadNodes,
    /// Reads the `public_addresses` file and checks that its interfaces exist; no file is an empty
    /// one. Outcome: [`Outcome::PublicAddresses`].
    ReadPublicAddresses,
    /// Reads the `home_nodes` file; no file, or one with a mistake, is an empty one. Outcome:
    /// [`Outcome::HomeNodes`].
    ReadHomeNodes,
    /// Which of these addresses the host has, on whatever interface, at this moment: what a script
    /// that has ended has done is seen. Outcome: [`Outcome::Held`].
    Held(Vec<IpAddr>),
    /// The established TCP connections that end at one of these addresses on this host, IPv4 in IPv6
    /// clothes as IPv4. Outcome: [`Outcome::Connections`].
    Connections(Vec<IpAddr>),
    /// Which of these interfaces the host has. Outcome: [`Outcome::Names`].
    ExistingInterfaces(Vec<String>),
    /// Names of the databases whose files of this node stand in the persistent directory
    /// (`NAME.PNN`, without the number), sorted. Outcome: [`Outcome::Names`].
    ListPersistent,
    /// Waits for messages of a pull or push stream: registered before the stream starts. Messages
    /// come in through `controls::message`. Outcome: [`Outcome::Done`] once registered in all
    /// shards.
    ListenSrvid(Srvid),
}

/// A control to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingControl {
    /// Which node; a driver answers [`ControlFailure::Disconnected`] for one it cannot reach.
    pub to: Pnn,
    /// Which control.
    pub opcode: ControlOpcode,
    /// Argument of a few controls.
    pub srvid: Srvid,
    /// Flags; with NOREPLY use [`Tell::Control`].
    pub flags: ControlFlags,
    /// On whose behalf; `None` for the plane's own.
    pub client: Option<ClientId>,
    /// Payload, encoded.
    pub data: Vec<u8>,
    /// Fails after this long, in seconds; 0: never.
    pub timeout_s: u32,
}

/// Orders to the data plane of this node (shards and database workers).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataAsk {
    /// Opens or creates the file and attaches it to all shards. Outcome: [`Outcome::Attached`].
    Attach {
        /// Name, as clients say it.
        name: String,
        /// PERSISTENT, REPLICATED or neither.
        flags: DbFlags,
        /// Calls wait for a thaw (attached during a recovery or at start).
        frozen: bool,
    },
    /// Closes it in all shards. Outcome: Done.
    Detach(DbId),
    /// Takes the whole file away from everybody: shards leave it alone, the worker holds all its
    /// locks. Waits as long as it takes. Outcome: Done.
    Freeze(DbId),
    /// Ends a freeze; with a generation if a recovery has given one. Void staged records. Outcome:
    /// Done.
    Thaw(DbId, Option<Generation>),
    /// Opens the recovery transaction of a frozen database. Outcome: Done.
    TransactionStart(DbId),
    /// Drops it. Outcome: Done.
    TransactionCancel(DbId),
    /// Puts everything staged or written in place. Outcome: Done.
    TransactionCommit(DbId),
    /// Empties the database inside its transaction. Outcome: Done.
    Wipe(DbId),
    /// Sends the records of a frozen database as messages to `srvid` at `to`, in batches of the
    /// tunable `RecBufferSizeLimit`. Outcome: Count, after the last message has been handed over.
    Pull {
        /// Which.
        db: DbId,
        /// Receiver.
        srvid: Srvid,
        /// Its node.
        to: Pnn,
    },
    /// Stages a batch of pushed records (payload of a push message). Outcome: Count of records
    /// stored, or Failed.
    Push {
        /// Which.
        db: DbId,
        /// A `ctdb_rec_buffer`.
        buffer: Vec<u8>,
    },
    /// A recovery has replaced the records: read-only copies and queues are void. Outcome: Done.
    Replaced(DbId),
    /// The generation of the shards' packets. Outcome: Done.
    SetGeneration(DbId, Generation),
    /// READONLY or STICKY. Outcome: Done.
    AddFlags(DbId, DbFlags),
    /// Counts changes from now on. Outcome: Done.
    EnableSeqnum(DbId),
    /// Sequence number of the TDB file (changes). Outcome: Seqnum.
    TdbSeqnum(DbId),
    /// Raises the TDB sequence number by one. Outcome: Seqnum after it.
    BumpTdbSeqnum(DbId),
    /// Sequence number of a persistent or replicated database (`__db_sequence_number__`). Outcome:
    /// Seqnum; 0 for a missing or wrong record.
    DbSeqnum(DbId),
    /// Calls read-only copies of a volatile database back, by the rules of UPDATE_RECORD and in order
    /// with the packets that brought them. Outcome: Done or Failed.
    UpdateCopies {
        /// Which.
        db: DbId,
        /// Of the sender's map when it sent this.
        generation: Generation,
        /// A `ctdb_rec_buffer`.
        buffer: Vec<u8>,
    },
    /// One local transaction of a persistent or replicated database with the records of a buffer, by
    /// the rules of UPDATE_RECORD. Outcome: Done or Failed.
    UpdateRecords {
        /// Which.
        db: DbId,
        /// A `ctdb_rec_buffer`.
        buffer: Vec<u8>,
    },
    /// A commit is open (calls of other nodes are not migrated) or over. Outcome: Done.
    CommitActive(DbId, bool),
    /// Deletes records by the rules of TRY_DELETE_RECORDS. Outcome: Bytes (those not deleted).
    TryDelete {
        /// Which.
        db: DbId,
        /// A `ctdb_rec_buffer`.
        buffer: Vec<u8>,
    },
    /// Migrates the keys of a buffer here, for vacuuming; a few at a time, from now on. Outcome:
    /// Done.
    VacuumFetch {
        /// Which.
        db: DbId,
        /// A `ctdb_rec_buffer`.
        buffer: Vec<u8>,
    },
    /// Starts a vacuum round: takes what is scheduled for deletion. Outcome: Done or Failed.
    VacuumBegin {
        /// Which.
        db: DbId,
        /// Look at every record, not only at scheduled ones.
        full: bool,
    },
    /// Goes on with the round: decides about some records, and deletes those that nobody has to be
    /// asked about. A freeze ends the round. Outcome: Vacuumed or Failed.
    VacuumStep(DbId),
    /// Deletes records whose copies every other node has deleted, unless they have changed. Outcome:
    /// Count or Failed.
    VacuumDelete {
        /// Which.
        db: DbId,
        /// A `ctdb_rec_buffer`.
        buffer: Vec<u8>,
    },
    /// What C repacks a file for, without locking it: merges free blocks that lie side by side, if
    /// the freelist has this length (tunable `RepackLimit`; 0: never). Outcome: Count or Failed.
    MergeFreeBlocks(DbId, u32),
    /// Sends this node's records of a traverse, one TRAVERSE_DATA control each, to the origin, and
    /// the end marker. A [`Forget`](crate::plane::Action::Forget) ends it early, without marker.
    /// Outcome: Count.
    Traverse {
        /// Which.
        db: DbId,
        /// Traverse id at the origin.
        reqid: u32,
        /// Origin.
        to: Pnn,
        /// Empty records too.
        with_empty: bool,
    },
    /// Copy of the persistent database is consistent. Outcome: Done or Failed with the reason.
    Check(DbId),
    /// Writes down why a persistent database is not healthy, or that it is. Outcome: Done or
    /// Failed.
    RecordHealth(DbId, Option<String>),
    /// Stores the one record of a buffer as PUSH_RECORD wants it (MIGRATED_WITH_DATA added, file
    /// synced). Outcome: Done or Failed.
    PushRecord {
        /// Which.
        db: DbId,
        /// A `ctdb_rec_buffer` with one record, its data with the header.
        buffer: Vec<u8>,
    },
    /// Counters of all shards, added up; the plane fills in what it owns. Outcome: Statistics.
    Statistics,
    /// Counters of one database, encoded as the reply of GET_DB_STATISTICS; the plane fills in the
    /// latency of vacuum rounds. Outcome: Bytes.
    DbStatistics(DbId),
    /// Zeroes all counters. Outcome: Done.
    ResetStatistics,
    /// A client's registration, in all shards. Outcome: Done or Failed (refused).
    Register(Registration),
    /// Publishes the state to all shards (as it is at this moment). Outcome: Done.
    Publish,
}

/// What a client registers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// `REGISTER_SRVID`.
    Srvid(Srvid, ClientId),
    /// `DEREGISTER_SRVID`.
    NoSrvid(Srvid, ClientId),
    /// `TUNNEL_REGISTER`.
    Tunnel(u64, ClientId),
    /// `TUNNEL_DEREGISTER`.
    NoTunnel(u64, ClientId),
}

/// An event to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptRun {
    /// Name of the event.
    pub event: &'static str,
    /// Arguments, blank-separated; empty for none.
    pub args: String,
    /// The event daemon gives up after this long, in seconds.
    pub timeout_s: u32,
}

/// What a step of a vacuum round has found to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VacuumStep {
    /// Records that these lmasters have to fetch (payload of VACUUM_FETCH).
    pub fetch: Vec<(Pnn, Vec<u8>)>,
    /// Records that every other node has to delete its copy of first (payload of
    /// TRY_DELETE_RECORDS), and the node that is asked last, because its copies are the newest.
    pub delete: Vec<(Option<Pnn>, Vec<u8>)>,
    /// Records that have been deleted.
    pub deleted: u32,
    /// The round is not over.
    pub more: bool,
}

/// What came of an ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Done.
    Done,
    /// It could not be done; the reason is for the log (and for health records).
    Failed(String),
    /// Reply to a control.
    Reply(Result<ControlAnswer, ControlFailure>),
    /// A number.
    Count(u32),
    /// A sequence number.
    Seqnum(u64),
    /// A `ctdb_rec_buffer`, or other bytes.
    Bytes(Vec<u8>),
    /// Counters.
    Statistics(Box<Statistics>),
    /// A step of a vacuum round.
    Vacuumed(VacuumStep),
    /// The database is open.
    Attached {
        /// Its file.
        path: PathBuf,
        /// How clients have to open it.
        open_flags: TdbOpenFlags,
    },
    /// How an event ended.
    Script(ScriptResult),
    /// The cluster lock helper's word.
    Lock(LockResult),
    /// The nodes list as it stands, or why it cannot be read.
    Nodes(Result<NodeMap, String>),
    /// Names, or why they cannot be read.
    Names(Result<Vec<String>, String>),
    /// The file, or what is wrong with it.
    PublicAddresses(Result<Vec<PublicAddress>, String>),
    /// The file.
    HomeNodes(Vec<HomeNode>),
    /// Those that the host has.
    Held(BTreeSet<IpAddr>),
    /// Those that there are; the client's end is `src`.
    Connections(BTreeSet<Connection>),
}

/// How an event ended (`docs/spec/wire-protocol.md` 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptResult {
    /// All scripts succeeded, or there are none.
    Ok,
    /// A script failed.
    Failed,
    /// A script took too long.
    TimedOut,
    /// Another event came first (monitor only).
    Cancelled,
    /// The event daemon could not be asked.
    NotRun,
}

/// The lock helper's word, with the time it took in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LockResult {
    /// `0`: taken.
    Taken(f64),
    /// `1`: somebody else has it.
    Contention(f64),
    /// `2`.
    TimedOut,
    /// `3`, anything else, or silence.
    Error,
}

/// A reply to a control.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControlAnswer {
    /// 0, a value, or a failure.
    pub status: i32,
    /// Payload.
    pub data: Vec<u8>,
    /// Error text.
    pub error: String,
}

/// Why there is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFailure {
    /// The node is not, or no more, connected.
    Disconnected,
    /// No answer in time.
    TimedOut,
}

/// Something without an outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum Tell {
    /// Answers a request that came in through `controls::request`.
    Reply {
        /// Which request.
        request: RequestId,
        /// The answer.
        answer: ControlAnswer,
    },
    /// A control that nobody answers (NOREPLY), to any destination; broadcasts are expanded by the
    /// plane, so this is one node.
    Control(OutgoingControl),
    /// A message, to one node (this one included: local receivers get it, the plane too if it is
    /// registered).
    Message {
        /// Where to; broadcasts are expanded by the driver.
        to: Destination,
        /// Whom.
        srvid: Srvid,
        /// Payload.
        data: Vec<u8>,
    },
    /// Undoes [`Ask::ListenSrvid`]; messages already in the mailbox stay there.
    ForgetSrvid(Srvid),
    /// Lets go of the cluster lock, or of the attempt to take it.
    ReleaseLock,
    /// Closes a client's connection.
    CloseClient(ClientId),
    /// Closes and forgets the connections of a node, or connects to a new one (reloadnodes).
    NodesChanged,
    /// Runs the notification script with this word.
    Notify(&'static str),
    /// Starts accepting clients and connecting to nodes.
    StartTransport,
    /// Sends the keepalives from now on.
    StartKeepalive,
    /// Sets the log level by C's number.
    SetLogLevel(i32),
    /// Tells the neighbours once, by ARP or neighbour advertisement, that this host has the address
    /// now. Not on an interface that has no neighbours (loopback).
    Announce {
        /// The address.
        address: IpAddr,
        /// Where it is.
        interface: String,
    },
    /// Sends each client once a segment that makes it find out that its connection is gone: an
    /// acknowledgement from the server's end, which this host knows nothing of.
    Tickle(Vec<Connection>),
    /// This host has the address from now on, or is about to; or has it no more: who gives up what
    /// a dead daemon leaves has to know.
    Guard {
        /// The address.
        address: IpAddr,
        /// It is here.
        here: bool,
    },
    /// Stops the daemon: shards, children, event daemon; then leaves with this status.
    Exit(i32),
}

/// Names a request for as long as it is under way; chosen by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A control to be answered by this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Goes back in [`Tell::Reply`], unless the flags say NOREPLY.
    pub id: RequestId,
    /// Who asks.
    pub from: Origin,
    /// Which control.
    pub opcode: ControlOpcode,
    /// Argument of a few controls.
    pub srvid: Srvid,
    /// Flags.
    pub flags: ControlFlags,
    /// Of the map that the asking node had when it sent this; `None` for this node's own clients,
    /// which write anything there.
    pub generation: Option<Generation>,
    /// Payload.
    pub data: Vec<u8>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of this node.
    Client(ClientId),
    /// Another node, on behalf of one of its clients (by its own number) or for itself (0).
    Node(Pnn, u32),
    /// This node's own plane.
    Own,
}
