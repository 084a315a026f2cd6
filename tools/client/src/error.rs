//! Errors of the client, one type per kind of operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ringmaster_protocol::control::ControlOpcode;
use ringmaster_protocol::header::FrameError;
use ringmaster_protocol::{DbId, DecodeError, Destination, PacketError};
use thiserror::Error;

use crate::limits::{INBOX_BYTES_MAX, INBOX_MESSAGES_MAX, REQUESTS_MAX};

/// No connection could be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The socket refuses.
    #[error("cannot connect to {path}; is ctdbd running, and may this user reach its socket?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Connected, but the daemon does not tell its node number.
    #[error("the daemon at {path} does not answer as a CTDB daemon")]
    Handshake {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: ControlError,
    },
}

impl ConnectError {
    /// The errno that C's library reports for it.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Connect { source, .. } => source.raw_os_error().unwrap_or(EIO),
            Self::Handshake { source, .. } => source.errno(),
        }
    }
}

/// The connection is over. Every later operation on the client fails with the same kind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// End of file: the daemon has ended, or has thrown this client out.
    #[error("the daemon closed the connection at {path}; it has probably ended: see its log")]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The kernel refused to read or write.
    #[error("cannot exchange data with the daemon at {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// What arrives is no stream of packets.
    #[error("the daemon at {path} sent no packet; is this the right socket?")]
    Stream {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the bytes.
        #[source]
        source: FrameError,
    },
}

/// A control did not succeed. Messages name the control and the node.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The daemon carried it out and reports a failure.
    #[error("control {control} to node {} failed with status {status}: {}", name(*to), text_or(text))]
    Failed {
        /// Which control.
        control: ControlOpcode,
        /// To whom.
        to: Destination,
        /// Never 0; often -1.
        status: i32,
        /// What the daemon says; often nothing.
        text: String,
    },
    /// No reply in time. It may have been carried out all the same.
    #[error("control {control} to node {}: no reply within {timeout:?}", name(*to))]
    TimedOut {
        /// Which control.
        control: ControlOpcode,
        /// To whom.
        to: Destination,
        /// The time-out.
        timeout: Duration,
    },
    /// A reply that cannot be read.
    #[error("control {control} to node {}: the reply makes no sense", name(*to))]
    Malformed {
        /// Which control.
        control: ControlOpcode,
        /// To whom.
        to: Destination,
        /// What is wrong with it.
        #[source]
        source: MalformedReply,
    },
    /// Daemons answer no control to a broadcast: send it to each node, or without reply.
    #[error("control {control} to {}: nobody replies to a broadcast", name(*to))]
    Broadcast {
        /// Which control.
        control: ControlOpcode,
        /// The broadcast address.
        to: Destination,
    },
    /// More requests at a time than [`REQUESTS_MAX`].
    #[error("control {control}: {REQUESTS_MAX} requests are waiting for replies already")]
    TooManyRequests {
        /// Which control.
        control: ControlOpcode,
    },
    /// The connection is over.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Why a reply cannot be read.
#[derive(Debug, Error)]
pub enum MalformedReply {
    /// The packet itself.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// The payload in it.
    #[error(transparent)]
    Payload(#[from] DecodeError),
    /// A fetched record without its header.
    #[error("{len} bytes hold no record header")]
    NoHeader {
        /// Bytes there are.
        len: usize,
    },
    /// Another kind of packet than a reply to a control or call.
    #[error("packet {operation} instead of a reply")]
    Operation {
        /// C's name of what came.
        operation: &'static str,
    },
}

impl ControlError {
    /// The errno that C's library reports for it (`ret=` in the tool's messages); the daemon's
    /// status for [`ControlError::Failed`].
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::Failed { status, .. } => *status,
            Self::TimedOut { .. } => ETIMEDOUT,
            Self::Malformed { .. } => EPROTO,
            Self::Broadcast { .. } => EINVAL,
            Self::TooManyRequests { .. } => ENOMEM,
            Self::Connection(_) => EIO,
        }
    }
}

/// A call did not succeed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The function failed on the record.
    #[error("call on database {db} failed with status {status}")]
    Failed {
        /// The database.
        db: DbId,
        /// Never 0.
        status: i32,
    },
    /// No reply in time. C daemons never answer a call on a database they do not know, and none
    /// during a recovery.
    #[error(
        "call on database {db}: no reply within {timeout:?}; is the database attached and the \
         cluster recovered?"
    )]
    TimedOut {
        /// The database.
        db: DbId,
        /// The time-out.
        timeout: Duration,
    },
    /// A reply that cannot be read.
    #[error("call on database {db}: the reply makes no sense")]
    Malformed {
        /// The database.
        db: DbId,
        /// What is wrong with it.
        #[source]
        source: MalformedReply,
    },
    /// More requests at a time than [`REQUESTS_MAX`].
    #[error("call on database {db}: {REQUESTS_MAX} requests are waiting for replies already")]
    TooManyRequests {
        /// The database.
        db: DbId,
    },
    /// The connection is over.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// Nothing was received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// Nothing came in time.
    #[error("no message within {timeout:?}")]
    TimedOut {
        /// The time-out.
        timeout: Duration,
    },
    /// Messages came faster than they were received; those that were kept have been handed out.
    #[error(
        "{lost} messages were lost: more than {INBOX_MESSAGES_MAX} messages or {INBOX_BYTES_MAX} \
         bytes were waiting; receive more often"
    )]
    Lost {
        /// How many, since the last report.
        lost: u64,
    },
    /// The connection is over.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

/// The leader is not known.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LeaderError {
    /// The registration for its broadcasts failed.
    #[error("cannot ask for the leader")]
    Control(#[from] ControlError),
    /// No broadcast came.
    #[error("no node says that it leads")]
    Receive(#[from] ReceiveError),
}

const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const EPROTO: i32 = 71;
const ETIMEDOUT: i32 = 110;

fn name(to: Destination) -> String {
    match to {
        Destination::Node(pnn) => pnn.to_string(),
        Destination::Current => "CURRENT".into(),
        other => format!("{:#x}", other.to_raw()),
    }
}

fn text_or(text: &str) -> &str {
    if text.is_empty() { "the daemon gives no reason, see its log" } else { text }
}
