//! Blocking client of a CTDB daemon's unix socket and of the TDB files behind it.
//!
//! Role: what a program needs that wants to speak to the local daemon, C's or ours: controls, calls,
//! messages, tunnels, databases. Single-threaded: a [`Client`] belongs to whoever created it.
//! Invariants
//! - Nothing waits without a limit: every request has a time-out, every queue a bound
//!   ([`limits`]).
//! - The state of the connection ([`connection`]) does no I/O; `socket` does nothing else.
//! - What the daemon sends is outside input: it becomes an error, never a panic.
//!
//! Origin: `ctdb/client/*.c` (behaviour), `docs/spec/wire-protocol.md` 6, 7.
//!
//! ```no_run
//! use ringmaster_client::Client;
//! use ringmaster_protocol::control::kinds;
//!
//! let mut client = Client::connect()?;
//! let nodes = client.control::<kinds::GetNodeMap>(client.own_node(), &())?;
//! for node in &nodes.0 {
//!     println!("{} {}", node.pnn, node.flags);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod attach;
mod backoff;
pub mod client;
pub mod connection;
pub mod database;
pub mod error;
mod g_lock;
pub mod limits;
pub mod message;
pub mod path;
mod record;
mod socket;
pub mod transaction;
pub mod traverse;

pub use attach::{AttachError, Attached, DbKind};
pub use client::{Client, ControlOptions};
pub use database::{Database, LockedRecord, OpenDatabaseError, RecordError};
pub use error::{
    CallError, ConnectError, ConnectionError, ControlError, LeaderError, ReceiveError,
};
pub use message::{Message, TunnelPacket};
pub use transaction::{Transaction, TransactionError, TransactionOptions};
pub use traverse::{TraverseError, TraverseRecord};
