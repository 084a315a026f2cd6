//! `REQ_KEEPALIVE`: a daemon's sign of life, with room for a tail C does not read.
//!
//! Role: the packet. C reads version and uptime and ignores what follows without a word, so our own
//! announcement to other nodes of ours travels there.
//! Invariants
//! - Bytes behind the payload are exposed as they are, the packet's padding included: whoever puts
//!   something there makes it self-delimiting.
//!
//! Origin: `docs/spec/wire-protocol.md` 2.9, 6.5; `ctdb/server/ctdb_keepalive.c`.

use crate::body::{Body, encode_body};
use crate::wire::{Decode, DecodeError, Put, Reader};

encode_body!(ReqKeepalive);

/// Samba version of a daemon as keepalives carry it: `(major << 16) | minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SambaVersion(pub u32);

impl SambaVersion {
    /// From the two numbers, for example 4 and 17.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self(((major as u32) << 16) | minor as u32)
    }
}

/// What a C daemon tells about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepalivePayload {
    /// Version of its Samba.
    pub version: SambaVersion,
    /// Seconds since the daemon started.
    pub uptime: u32,
}

/// A keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReqKeepalive<'a> {
    /// `None`: the historical packet of exactly 32 bytes, "version missing". Such a packet has no
    /// tail; one given anyway is not encoded.
    pub payload: Option<KeepalivePayload>,
    /// Bytes behind the payload, padding included; empty from C daemons.
    pub tail: &'a [u8],
}

impl<'a> Body<'a> for ReqKeepalive<'a> {
    fn fixed_len(&self) -> usize {
        self.payload.map_or(0, |_| 8)
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        if let Some(payload) = self.payload {
            out.put_u32(payload.version.0);
            out.put_u32(payload.uptime);
        }
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [if self.payload.is_some() { self.tail } else { &[] }, &[]]
    }
}

impl<'a> Decode<'a> for ReqKeepalive<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if reader.remaining() == 0 {
            return Ok(Self { payload: None, tail: &[] });
        }
        let version = SambaVersion(reader.u32("keepalive version")?);
        let uptime = reader.u32("keepalive uptime")?;
        Ok(Self { payload: Some(KeepalivePayload { version, uptime }), tail: reader.take_rest() })
    }
}
