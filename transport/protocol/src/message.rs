//! `REQ_MESSAGE`: a one-way datagram to everybody on a node who registered a srvid.
//!
//! Role: the packet; payloads of well-known srvids are in `process`, ids in `srvid`.
//! Invariants: the payload is opaque and borrowed.
//! Origin: `docs/spec/wire-protocol.md` 2.6; `ctdb/protocol/protocol_message.c`.

use crate::body::{Body, encode_body};
use crate::id::Srvid;
use crate::wire::{Decode, DecodeError, Put, Reader};

encode_body!(ReqMessage);

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReqMessage<'a> {
    /// Receivers.
    pub srvid: Srvid,
    /// Payload.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for ReqMessage<'a> {
    fn fixed_len(&self) -> usize {
        12
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_u64(self.srvid.0);
        out.put_len(self.data.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.data, &[]]
    }
}

impl<'a> Decode<'a> for ReqMessage<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { srvid: Srvid(reader.u64("message srvid")?), data: reader.datan("message data")? })
    }
}
