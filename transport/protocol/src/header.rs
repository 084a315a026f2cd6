//! The 32 bytes in front of every packet, and finding packets in a byte stream.
//!
//! Role: split received bytes into packets by C's rules, for both transports; build a packet's
//! frame (round, zero the tail, patch the length) around whatever body the caller appends.
//! Invariants
//! - No packet is handed out before all its bytes are there; its slice is exactly `length` long.
//! - A length above the caller's limit is refused from the first four bytes, before any buffering.
//! - What C forgives on the unix socket (bad magic, too short) is [`Frame::Ignored`]; what costs
//!   the connection is an error. On TCP everything malformed costs the connection.
//!
//! Origin: `docs/spec/wire-protocol.md` 1.2–1.4; `ctdb/common/ctdb_io.c`, `ctdb/tcp/tcp_io.c`.

use thiserror::Error;

use crate::id::{Destination, Generation, Reqid};
use crate::operation::Operation;
use crate::wire::{Put, Reader};

/// Bytes of the request header.
pub const HEADER_LEN: usize = 32;
/// `CTDB` as a number; on the wire the bytes are `42 44 54 43`.
pub const MAGIC: u32 = 0x4354_4442;
/// `CTDB_PROTOCOL`, never changed.
pub const VERSION: u32 = 1;
/// Lengths are rounded up to a multiple of this by daemons and the tool, and on TCP always.
pub const ALIGNMENT: usize = 8;

/// Next multiple of [`ALIGNMENT`].
#[must_use]
pub const fn rounded(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT)
}

/// The part of the header that the sender of a packet chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Recovery epoch of the sender; clients send anything.
    pub generation: Generation,
    /// `destnode`.
    pub destination: Destination,
    /// `srcnode`: the sender's node. Not trusted from clients, who send 0, their node or "unknown".
    pub source: Destination,
    /// Echoed in replies.
    pub reqid: Reqid,
}

/// A decoded header. Magic and version are right by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Whole packet, header and padding included.
    pub length: u32,
    /// Kind of packet.
    pub operation: Operation,
    /// Addresses and ids.
    pub envelope: Envelope,
}

/// Why 32 bytes are not a header, or a stream cannot be split into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length field is zero: C takes it for a broken stream on both transports.
    #[error("packet length 0: the stream is broken")]
    Empty,
    /// Less than a header.
    #[error("packet length {length} is less than the header of 32 bytes")]
    TooShort {
        /// What the length field says.
        length: u32,
    },
    /// Above the receiver's limit.
    #[error("packet length {length} exceeds the limit of {limit} bytes")]
    TooLong {
        /// What the length field says.
        length: u32,
        /// What the receiver allows.
        limit: u32,
    },
    /// TCP only: not a multiple of 8.
    #[error("packet length {length} is not a multiple of 8")]
    Unaligned {
        /// What the length field says.
        length: u32,
    },
    /// Not CTDB's magic.
    #[error("packet magic {found:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// What is there.
        found: u32,
    },
    /// Another protocol version.
    #[error("protocol version {found}, expected {VERSION}")]
    Version {
        /// What is there.
        found: u32,
    },
    /// The slice handed in ends before the header or the packet does.
    #[error("packet of {needed} bytes, only {left} there")]
    Incomplete {
        /// Bytes the packet needs.
        needed: usize,
        /// Bytes handed in.
        left: usize,
    },
}

impl RequestHeader {
    /// Reads the header of the packet that starts `bytes`; the body need not be there.
    ///
    /// # Errors
    /// [`FrameError`]: too few bytes, a length below 32, wrong magic or version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(FrameError::Incomplete { needed: HEADER_LEN, left: bytes.len() });
        };
        let word = |index: usize| {
            let at = 4 * index;
            u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
        };
        let length = word(0);
        match length {
            0 => return Err(FrameError::Empty),
            1..32 => return Err(FrameError::TooShort { length }),
            _ => {}
        }
        if word(1) != MAGIC {
            return Err(FrameError::Magic { found: word(1) });
        }
        if word(2) != VERSION {
            return Err(FrameError::Version { found: word(2) });
        }
        Ok(Self {
            length,
            operation: Operation::from_raw(word(4)),
            envelope: Envelope {
                generation: Generation(word(3)),
                destination: Destination::from_raw(word(5)),
                source: Destination::from_raw(word(6)),
                reqid: Reqid(word(7)),
            },
        })
    }

    /// Appends the 32 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.length);
        out.put_u32(MAGIC);
        out.put_u32(VERSION);
        out.put_u32(self.envelope.generation.0);
        out.put_u32(self.operation.to_raw());
        out.put_u32(self.envelope.destination.to_raw());
        out.put_u32(self.envelope.source.to_raw());
        out.put_u32(self.envelope.reqid.0);
    }
}

/// How long a packet is made. All styles encode the same body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketStyle {
    /// As ctdbd: at least the size of its C struct, then rounded to 8.
    Daemon,
    /// As the marshalling library (tool, helpers): rounded to 8.
    Library,
    /// As smbd on the unix socket: exact. Never on TCP.
    Exact,
}

impl PacketStyle {
    /// Length of a packet that needs `natural` bytes, header included.
    #[must_use]
    pub const fn packet_len(self, operation: Operation, natural: usize) -> usize {
        match self {
            Self::Daemon if natural < operation.daemon_len_min() => operation.daemon_len_min(),
            Self::Daemon | Self::Library => rounded(natural),
            Self::Exact => natural,
        }
    }
}

/// Appends one packet to `out`: header, the bytes that `body` appends, zeroed tail. The length is
/// patched at the end, so the body need not know its size. Allocates only when `out` grows.
///
/// # Panics
/// When the packet exceeds 4 GiB. No sender builds such a packet: records and their containers are
/// limited far below by the receivers' packet limit.
pub fn append_packet(
    out: &mut Vec<u8>,
    operation: Operation,
    envelope: Envelope,
    style: PacketStyle,
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    RequestHeader { length: 0, operation, envelope }.encode(out);
    body(out);
    let natural = out.len() - start;
    let total = style.packet_len(operation, natural);
    out.resize(start + total, 0);
    let length = u32::try_from(total).expect("senders build packets far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Which rules a stream follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Unix socket: any length from 32, bad packets are skipped.
    Local,
    /// Between nodes: multiples of 8, anything wrong closes the connection.
    Tcp,
}

/// Splits a stream into packets.
#[derive(Clone, Copy, Debug)]
pub struct Framing {
    /// Whose rules.
    pub transport: Transport,
    /// Longest packet accepted, in bytes. Far above any record (`docs/spec/wire-protocol.md` 10.2).
    pub packet_len_max: u32,
}

/// What is at the front of a receive buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// One whole packet; consume `bytes.len()`.
    Packet {
        /// Its header.
        header: RequestHeader,
        /// Header and body, exactly `header.length` bytes.
        bytes: &'a [u8],
    },
    /// Unix socket only: consume `len` bytes and go on, as C does.
    Ignored {
        /// Bytes to drop.
        len: usize,
        /// What is wrong with them; worth a log line.
        reason: FrameError,
    },
    /// Read on until the buffer holds `needed` bytes in total.
    Incomplete {
        /// Total bytes from the start of the buffer.
        needed: usize,
    },
}

impl Framing {
    /// Looks at the front of `buffer`. Consumes nothing.
    ///
    /// # Errors
    /// [`FrameError`]: the connection has to be closed (the peer's node is dead, on TCP).
    pub fn next_frame<'a>(&self, buffer: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let Some((word, _)) = buffer.split_first_chunk::<4>() else {
            return Ok(Frame::Incomplete { needed: 4 });
        };
        let length = u32::from_le_bytes(*word);
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.packet_len_max {
            return Err(FrameError::TooLong { length, limit: self.packet_len_max });
        }
        let needed = length as usize;
        if self.transport == Transport::Tcp {
            if needed < HEADER_LEN {
                return Err(FrameError::TooShort { length });
            }
            if !needed.is_multiple_of(ALIGNMENT) {
                return Err(FrameError::Unaligned { length });
            }
        }
        let Some(bytes) = buffer.get(..needed) else {
            return Ok(Frame::Incomplete { needed });
        };
        if needed < HEADER_LEN {
            return Ok(Frame::Ignored { len: needed, reason: FrameError::TooShort { length } });
        }
        match (RequestHeader::decode(bytes), self.transport) {
            (Ok(header), _) => Ok(Frame::Packet { header, bytes }),
            (Err(reason), Transport::Local) => Ok(Frame::Ignored { len: needed, reason }),
            (Err(reason), Transport::Tcp) => Err(reason),
        }
    }
}

/// Reader over the body of the packet in `bytes`, limited to the header's length.
pub(crate) fn body<'a>(header: &RequestHeader, bytes: &'a [u8]) -> Result<Reader<'a>, FrameError> {
    let needed = header.length as usize;
    match bytes.get(HEADER_LEN..needed) {
        Some(body) => Ok(Reader::new(body)),
        None => Err(FrameError::Incomplete { needed, left: bytes.len() }),
    }
}

#[cfg(test)]
mod tests;
