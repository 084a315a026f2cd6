//! Processes, messaging helpers, times and daemon states.
//!
//! Origin: `docs/spec/wire-protocol.md` 4.8, 3.3 (run states, debug levels).

use std::fmt;

use crate::id::{Pnn, Srvid};
use crate::layout::{Fixed, fixed_codec, fixed_newtype, read_elements, wire_enum, wire_struct};
use crate::node::NodeFlags;
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

/// A process id of the host the packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub i32);

/// Samba's numeric debug level: 0 ERROR, 1–2 WARNING, 3–4 NOTICE, 5–9 INFO, 10 DEBUG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DebugLevel(pub i32);

/// Latency in seconds of taking the cluster lock (RECD_RECLOCK_LATENCY).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct ReclockLatency(pub f64);

fixed_newtype!(Pid(i32), DebugLevel(i32), ReclockLatency(f64));

wire_struct! {
    /// C's `struct timeval` on a 64-bit host: seconds and microseconds since 1970.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Timeval = 16 bytes {
        /// Seconds.
        pub seconds: i64;
        /// Microseconds, 0..=999999 from well-behaved senders.
        pub micros: i64;
    }
}

wire_struct! {
    /// Request of CHECK_PID_SRVID (`ctdb_pid_srvid`); packed, so 12 bytes and not 16.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PidSrvid = 12 bytes {
        /// A client of the daemon asked.
        pub pid: Pid;
        /// Is it registered for this address?
        pub srvid: Srvid;
    }
}

/// Request of REGISTER_NOTIFY (`ctdb_notify_data`): message to send when this client goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyData<'a> {
    /// Receiver of the message, on every node.
    pub srvid: Srvid,
    /// The message.
    pub data: &'a [u8],
}

impl Encode for NotifyData<'_> {
    fn encoded_len(&self) -> usize {
        12 + self.data.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.srvid.0);
        out.put_datan(self.data);
    }
}

impl<'a> Decode<'a> for NotifyData<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let srvid = Srvid(reader.u64("notify_data.srvid")?);
        let data = reader.datan("notify_data.data")?;
        Ok(Self { srvid, data })
    }
}

wire_struct! {
    /// Where to send the answer to a message (`ctdb_srvid_message`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SrvidMessage = 16 bytes {
        /// The asking node; `None` (0xFFFFFFFF) when no answer is wanted.
        pub pnn: Option<Pnn>, pad 4;
        /// The address that waits; 0 when no answer is wanted.
        pub srvid: Srvid;
    }
}

wire_struct! {
    /// Suspends recoveries or takeover runs (`ctdb_disable_message`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DisableMessage = 24 bytes {
        /// The asking node; `None` (0xFFFFFFFF) when no answer is wanted.
        pub pnn: Option<Pnn>, pad 4;
        /// The address that waits; 0 when no answer is wanted.
        pub srvid: Srvid;
        /// Seconds; 0 re-enables.
        pub timeout: u32, pad 4;
    }
}

wire_struct! {
    /// A vote in a leader election (`ctdb_election_message`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ElectionMessage = 32 bytes {
        /// Nodes the candidate is connected to, itself included.
        pub num_connected: u32, pad 4;
        /// When the candidate's recovery daemon started: the older one wins.
        pub priority_time: Timeval;
        /// The candidate.
        pub pnn: Pnn;
        /// The candidate's flags.
        pub node_flags: NodeFlags;
    }
}

wire_struct! {
    /// Samba's name of one process in the cluster (`server_id`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct ServerId = 24 bytes {
        /// Process id.
        pub pid: u64;
        /// Task within the process; the tool puts its own meaning here.
        pub task_id: u32;
        /// Node number; 0xFFFFFFFF outside a cluster. Written by strangers, hence not a `Pnn`.
        pub vnn: u32;
        /// Tells a reused pid from the process meant.
        pub unique_id: u64;
    }
}

wire_enum! {
    /// Kind of a lock in `g_lock.tdb`, tool's format.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum GLockType: u32 {
        /// Shared.
        Read = 0,
        /// Exclusive.
        Write = 1,
    }
}

wire_struct! {
    /// One holder or waiter of a lock (`ctdb_g_lock`), as the tool writes it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GLock = 32 bytes {
        /// Shared or exclusive.
        pub kind: GLockType, pad 4;
        /// Who.
        pub server_id: ServerId;
    }
}

/// Value of a record in `g_lock.tdb`, tool's format (`ctdb_g_lock_list`): no count, so the value
/// is consumed whole; smbd writes another format (spec 7.11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GLockList(pub Vec<GLock>);

impl Encode for GLockList {
    fn encoded_len(&self) -> usize {
        self.0.len() * GLock::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        for lock in &self.0 {
            lock.write(out);
        }
    }
}

/// Trailing bytes short of one entry are ignored, as in C.
impl Decode<'_> for GLockList {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.remaining() / GLock::SIZE;
        let list = read_elements(reader, "g_lock_list", count)?;
        reader.take_rest();
        Ok(Self(list))
    }
}

/// Request and reply of ECHO_DATA (`ctdb_echo_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoData<'a> {
    /// Delay in milliseconds that C parses and does not honour.
    pub timeout: u32,
    /// What comes back.
    pub data: &'a [u8],
}

impl Encode for EchoData<'_> {
    fn encoded_len(&self) -> usize {
        8 + self.data.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.timeout);
        out.put_datan(self.data);
    }
}

impl<'a> Decode<'a> for EchoData<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let timeout = reader.u32("echo_data.timeout")?;
        let data = reader.datan("echo_data.data")?;
        Ok(Self { timeout, data })
    }
}

wire_struct! {
    /// Reply of UPTIME (`ctdb_uptime`): exactly 64 bytes, smbd checks.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Uptime = 64 bytes {
        /// Now.
        pub current_time: Timeval;
        /// Start of the daemon; constant for its life.
        pub ctdbd_start_time: Timeval;
        /// Begin of the last recovery.
        pub last_recovery_started: Timeval;
        /// End of the last recovery.
        pub last_recovery_finished: Timeval;
    }
}

wire_enum! {
    /// Phase of a daemon's life (GET_RUNSTATE).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum RunState: u32 {
        /// Not known.
        Unknown = 0,
        /// Initialising.
        Init = 1,
        /// Event `setup`.
        Setup = 2,
        /// Waiting for the first recovery.
        FirstRecovery = 3,
        /// Event `startup`.
        Startup = 4,
        /// In service.
        Running = 5,
        /// Going down.
        Shutdown = 6,
    }
}

/// C's upper-case name.
impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "UNKNOWN",
            Self::Init => "INIT",
            Self::Setup => "SETUP",
            Self::FirstRecovery => "FIRST_RECOVERY",
            Self::Startup => "STARTUP",
            Self::Running => "RUNNING",
            Self::Shutdown => "SHUTDOWN",
        })
    }
}

wire_enum! {
    /// Recovery mode (SET_RECMODE; GET_RECMODE answers it in the status).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum RecMode: u32 {
        /// In service.
        Normal = 0,
        /// A recovery is running or wanted.
        Active = 1,
    }
}

/// Switch of SET_LMASTERROLE and SET_RECMASTERROLE; C takes every number but 0 for "on".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Gives the capability up.
    Off,
    /// Takes the capability.
    On,
}

impl Fixed for Role {
    const SIZE: usize = 4;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        Ok(if reader.u32(what)? == 0 { Self::Off } else { Self::On })
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_u32(u32::from(*self == Self::On));
    }
}

fixed_codec!(Role);
