//! `REQ_TUNNEL`: opaque packets between clients that registered the same tunnel.
//!
//! Role: the packet only. C daemons lose `reqid` and origin on the way, so no reply can be matched.
//! Origin: `docs/spec/wire-protocol.md` 2.10; `ctdb/protocol/protocol_tunnel.c`.

use crate::body::{Body, encode_body};
use crate::flags::flag_set;
use crate::wire::{Decode, DecodeError, Put, Reader};

encode_body!(ReqTunnel);

flag_set! {
    /// Direction of a tunnel packet; the daemon does not look.
    pub struct TunnelFlags {
        /// A request.
        const REQUEST = 1;
        /// A reply.
        const REPLY = 2;
        /// A request that wants no reply.
        const NOREPLY = 0x10;
    }
}

/// A tunnel packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReqTunnel<'a> {
    /// Id both ends registered (control TUNNEL_REGISTER).
    pub tunnel_id: u64,
    /// Direction.
    pub flags: TunnelFlags,
    /// Payload.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for ReqTunnel<'a> {
    fn fixed_len(&self) -> usize {
        16
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_u64(self.tunnel_id);
        out.put_u32(self.flags.0);
        out.put_len(self.data.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.data, &[]]
    }
}

impl<'a> Decode<'a> for ReqTunnel<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            tunnel_id: reader.u64("tunnel id")?,
            flags: TunnelFlags(reader.u32("tunnel flags")?),
            data: reader.datan("tunnel data")?,
        })
    }
}
