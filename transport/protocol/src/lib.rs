//! CTDB wire protocol: ids, structures, codecs.
//!
//! Role: bytes to types at the edge and back, byte-identical to C. What a packet means is decided
//! elsewhere.
//! Invariants
//! - No I/O, no unsafe, no panic on any input, no allocation larger than the packet justifies.
//! - Hot operations (calls, dmaster packets, messages) borrow from the packet: no allocation.
//! - Encoding writes zeros into every padding byte; decoding ignores padding.
//!
//! Origin: `docs/spec/wire-protocol.md`.
#![forbid(unsafe_code)]

pub mod address;
#[cfg(test)]
mod arbitrary;
mod body;
pub mod call;
pub mod capabilities;
pub mod connection;
pub mod control;
pub mod control_packet;
pub mod database;
pub mod eventd;
pub(crate) mod flags;
pub mod hash;
pub mod header;
pub mod id;
pub mod keepalive;
pub mod layout;
pub mod message;
pub mod node;
pub mod operation;
pub mod packet;
pub mod process;
pub mod record;
pub mod srvid;
pub mod statistics;
pub mod text;
pub mod traverse;
pub mod tunable;
pub mod tunnel;
pub mod wire;

pub use address::SockAddr;
pub use header::{Envelope, PacketStyle, RequestHeader};
pub use id::{DbId, Destination, Generation, Pnn, Reqid, Rsn, Srvid};
pub use operation::Operation;
pub use packet::{Packet, PacketError, PacketParts};
pub use wire::{Decode, DecodeError, Encode, Reader};
