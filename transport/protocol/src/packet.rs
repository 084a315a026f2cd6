//! Whole packets: one enum over all operations.
//!
//! Role: the door of this crate for whoever sends and receives; everything else is a field of it.
//! Invariants
//! - Borrowing: payloads are slices of the received bytes and can be put into another packet as
//!   they are. Calls, dmaster packets and messages allocate nothing in either direction.
//! - Payload lengths come from the body, never from the end of the packet: padding is not payload.
//!
//! Origin: `docs/spec/wire-protocol.md` 2; `ctdb/protocol/protocol_packet.c`.

use thiserror::Error;

use crate::call::{ReplyCall, ReplyDmaster, ReplyError, ReqCall, ReqDmaster};
use crate::control_packet::{ReplyControl, ReqControl};
use crate::header::{Envelope, FrameError, PacketStyle, RequestHeader, append_packet, body};
use crate::keepalive::ReqKeepalive;
use crate::message::ReqMessage;
use crate::operation::Operation;
use crate::tunnel::ReqTunnel;
use crate::wire::{Decode, DecodeError, Encode};

/// The body of a packet, by operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Call.
    ReqCall(ReqCall<'a>),
    /// Result of a call.
    ReplyCall(ReplyCall<'a>),
    /// Record on its way to the lmaster.
    ReqDmaster(ReqDmaster<'a>),
    /// Record on its way to the new dmaster.
    ReplyDmaster(ReplyDmaster<'a>),
    /// Failure between daemons.
    ReplyError(ReplyError<'a>),
    /// Message.
    ReqMessage(ReqMessage<'a>),
    /// Control request.
    ReqControl(ReqControl<'a>),
    /// Control reply.
    ReplyControl(ReplyControl<'a>),
    /// Keepalive.
    ReqKeepalive(ReqKeepalive<'a>),
    /// Tunnel packet.
    ReqTunnel(ReqTunnel<'a>),
}

/// Why bytes are not a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Header or length.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An operation nobody knows; C logs and ignores it.
    #[error("unknown operation {operation}")]
    UnknownOperation {
        /// Its code.
        operation: u32,
    },
    /// The body does not hold what its lengths promise.
    #[error("malformed {} packet", operation.name())]
    Body {
        /// Kind of packet.
        operation: Operation,
        /// What is missing.
        #[source]
        source: DecodeError,
    },
}

impl<'a> Packet<'a> {
    /// Reads one packet from the start of `bytes`, header included.
    ///
    /// # Errors
    /// [`PacketError`]; the connection need not be closed for it (framing has done that).
    pub fn decode(bytes: &'a [u8]) -> Result<(RequestHeader, Self), PacketError> {
        let header = RequestHeader::decode(bytes)?;
        Ok((header, Self::decode_body(&header, bytes)?))
    }

    /// Reads the body of a packet whose header is known (from [`crate::header::Framing`]). `bytes`
    /// starts at the header.
    ///
    /// # Errors
    /// As [`Packet::decode`].
    pub fn decode_body(header: &RequestHeader, bytes: &'a [u8]) -> Result<Self, PacketError> {
        let operation = header.operation;
        let reader = &mut body(header, bytes)?;
        let packet = match operation {
            Operation::ReqCall => ReqCall::decode(reader).map(Self::ReqCall),
            Operation::ReplyCall => ReplyCall::decode(reader).map(Self::ReplyCall),
            Operation::ReqDmaster => ReqDmaster::decode(reader).map(Self::ReqDmaster),
            Operation::ReplyDmaster => ReplyDmaster::decode(reader).map(Self::ReplyDmaster),
            Operation::ReplyError => ReplyError::decode(reader).map(Self::ReplyError),
            Operation::ReqMessage => ReqMessage::decode(reader).map(Self::ReqMessage),
            Operation::ReqControl => ReqControl::decode(reader).map(Self::ReqControl),
            Operation::ReplyControl => ReplyControl::decode(reader).map(Self::ReplyControl),
            Operation::ReqKeepalive => ReqKeepalive::decode(reader).map(Self::ReqKeepalive),
            Operation::ReqTunnel => ReqTunnel::decode(reader).map(Self::ReqTunnel),
            Operation::Unknown(operation) => {
                return Err(PacketError::UnknownOperation { operation });
            }
        };
        packet.map_err(|source| PacketError::Body { operation, source })
    }

    /// Appends the packet to `out`, which is best reused: nothing else is allocated. Several packets
    /// may follow each other in one buffer.
    ///
    /// # Panics
    /// See [`append_packet`].
    pub fn encode_into(&self, out: &mut Vec<u8>, envelope: Envelope, style: PacketStyle) {
        append_packet(out, self.operation(), envelope, style, |out| self.encode(out));
    }

    /// Kind of packet.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::ReqCall(_) => Operation::ReqCall,
            Self::ReplyCall(_) => Operation::ReplyCall,
            Self::ReqDmaster(_) => Operation::ReqDmaster,
            Self::ReplyDmaster(_) => Operation::ReplyDmaster,
            Self::ReplyError(_) => Operation::ReplyError,
            Self::ReqMessage(_) => Operation::ReqMessage,
            Self::ReqControl(_) => Operation::ReqControl,
            Self::ReplyControl(_) => Operation::ReplyControl,
            Self::ReqKeepalive(_) => Operation::ReqKeepalive,
            Self::ReqTunnel(_) => Operation::ReqTunnel,
        }
    }
}

/// The body alone, without header and padding.
impl Encode for Packet<'_> {
    fn encoded_len(&self) -> usize {
        match self {
            Self::ReqCall(body) => body.encoded_len(),
            Self::ReplyCall(body) => body.encoded_len(),
            Self::ReqDmaster(body) => body.encoded_len(),
            Self::ReplyDmaster(body) => body.encoded_len(),
            Self::ReplyError(body) => body.encoded_len(),
            Self::ReqMessage(body) => body.encoded_len(),
            Self::ReqControl(body) => body.encoded_len(),
            Self::ReplyControl(body) => body.encoded_len(),
            Self::ReqKeepalive(body) => body.encoded_len(),
            Self::ReqTunnel(body) => body.encoded_len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::ReqCall(body) => body.encode(out),
            Self::ReplyCall(body) => body.encode(out),
            Self::ReqDmaster(body) => body.encode(out),
            Self::ReplyDmaster(body) => body.encode(out),
            Self::ReplyError(body) => body.encode(out),
            Self::ReqMessage(body) => body.encode(out),
            Self::ReqControl(body) => body.encode(out),
            Self::ReplyControl(body) => body.encode(out),
            Self::ReqKeepalive(body) => body.encode(out),
            Self::ReqTunnel(body) => body.encode(out),
        }
    }
}
