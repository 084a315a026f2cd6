//! Whole packets: one enum over all operations.
//!
//! Role: the door of this crate for whoever sends and receives; everything else is a field of it.
//! Invariants
//! - Borrowing: payloads are slices of the received bytes and can be put into another packet as
//!   they are. Calls, dmaster packets and messages allocate nothing in either direction.
//! - Payload lengths come from the body, never from the end of the packet: padding is not payload.
//!
//! Origin: `docs/spec/wire-protocol.md` 2; `ctdb/protocol/protocol_packet.c`.

use std::ops::Range;

use thiserror::Error;

use crate::body::{Body, body_len, put_body};
use crate::call::{ReplyCall, ReplyDmaster, ReplyError, ReqCall, ReqDmaster};
use crate::control_packet::{ReplyControl, ReqControl};
use crate::header::{
    Envelope, FrameError, HEADER_LEN, PacketStyle, RequestHeader, append_packet, body,
};
use crate::keepalive::ReqKeepalive;
use crate::message::ReqMessage;
use crate::operation::Operation;
use crate::tunnel::ReqTunnel;
use crate::wire::{Decode, DecodeError, Encode, Put};

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

/// The same work for whichever body a packet has, without calls through a table: encoding a small
/// packet costs little more than those would.
macro_rules! each_body {
    ($packet:expr, $body:ident => $work:expr) => {
        match $packet {
            Packet::ReqCall($body) => $work,
            Packet::ReplyCall($body) => $work,
            Packet::ReqDmaster($body) => $work,
            Packet::ReplyDmaster($body) => $work,
            Packet::ReplyError($body) => $work,
            Packet::ReqMessage($body) => $work,
            Packet::ReqControl($body) => $work,
            Packet::ReplyControl($body) => $work,
            Packet::ReqKeepalive($body) => $work,
            Packet::ReqTunnel($body) => $work,
        }
    };
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

    /// Like [`Packet::encode_into`], but copies no payload: `out` receives what stands before and
    /// behind it. For payloads so large that the copy would cost more than two more buffers do in
    /// a gathering send.
    ///
    /// # Panics
    /// See [`append_packet`].
    pub fn encode_parts(
        &self,
        out: &mut Vec<u8>,
        envelope: Envelope,
        style: PacketStyle,
    ) -> PacketParts<'a> {
        each_body!(self, body => parts(body, self.operation(), out, envelope, style))
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

fn parts<'a>(
    body: &impl Body<'a>,
    operation: Operation,
    out: &mut Vec<u8>,
    envelope: Envelope,
    style: PacketStyle,
) -> PacketParts<'a> {
    let natural = HEADER_LEN + body_len(body);
    let total = style.packet_len(operation, natural);
    let length = u32::try_from(total).expect("senders build packets far below 4 GiB");
    let start = out.len();
    RequestHeader { length, operation, envelope }.encode(out);
    body.put_fixed(out);
    let middle = out.len();
    if let Some(word) = body.trailer() {
        out.put_u32(word);
    }
    out.put_zeros(total - natural);
    PacketParts { head: start..middle, payload: body.payload(), tail: middle..out.len() }
}

/// The body alone, without header and padding.
impl Encode for Packet<'_> {
    fn encoded_len(&self) -> usize {
        each_body!(self, body => body_len(body))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        each_body!(self, body => put_body(body, out));
    }
}

/// A packet for a gathering send: `head`, then the payload where it already is, then `tail`. Both
/// ranges are in the buffer given to [`Packet::encode_parts`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketParts<'a> {
    /// Header and fixed fields.
    pub head: Range<usize>,
    /// Key and data, data and error text, or data alone.
    pub payload: [&'a [u8]; 2],
    /// Record flags of a dmaster packet, and the padding; often empty.
    pub tail: Range<usize>,
}

impl PacketParts<'_> {
    /// Bytes of the whole packet.
    #[must_use]
    pub fn packet_len(&self) -> usize {
        let [first, second] = self.payload;
        self.head.len() + first.len() + second.len() + self.tail.len()
    }
}
