//! `REQ_CONTROL` and `REPLY_CONTROL`: the fixed fields around a control's payload.
//!
//! Role: the packets; what the payload bytes mean for each opcode is in `control`.
//! Invariants: payload and error text are borrowed; no allocation in either direction.
//! Origin: `docs/spec/wire-protocol.md` 2.7, 2.8; `ctdb/protocol/protocol_control.c`.

use crate::body::{Body, encode_body};
use crate::flags::flag_set;
use crate::id::Srvid;
use crate::text::Text;
use crate::wire::{Decode, DecodeError, Put, Reader};

encode_body!(ReqControl, ReplyControl);

flag_set! {
    /// Flags of a control request. The upper half belongs to the opcode.
    pub struct ControlFlags {
        /// The sender wants no reply, not even an error.
        const NOREPLY = 1;
        /// GET_PUBLIC_IPS: only addresses this node could hold now.
        const ONLY_AVAILABLE = 0x1_0000;
        /// Attach during recovery, by the recovery helper.
        const ATTACH_RECOVERY = 0x2_0000;
    }
}

/// `REQ_CONTROL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReqControl<'a> {
    /// Which control; meaning in `control`.
    pub opcode: u32,
    /// Argument of a few controls, 0 otherwise.
    pub srvid: Srvid,
    /// The client on whose behalf, in the id space of the daemon that sent it; clients send 0.
    pub client_id: u32,
    /// NOREPLY and opcode-specific bits.
    pub flags: ControlFlags,
    /// Payload.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for ReqControl<'a> {
    fn fixed_len(&self) -> usize {
        28
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_u32(self.opcode);
        out.put_zeros(4);
        out.put_u64(self.srvid.0);
        out.put_u32(self.client_id);
        out.put_u32(self.flags.0);
        out.put_len(self.data.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.data, &[]]
    }
}

impl<'a> Decode<'a> for ReqControl<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let opcode = reader.u32("control opcode")?;
        reader.padding(4)?;
        Ok(Self {
            opcode,
            srvid: Srvid(reader.u64("control srvid")?),
            client_id: reader.u32("control client_id")?,
            flags: ControlFlags(reader.u32("control flags")?),
            data: reader.datan("control data")?,
        })
    }
}

/// `REPLY_CONTROL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyControl<'a> {
    /// 0 = success, except for controls that carry their value here.
    pub status: i32,
    /// Payload; empty when `status` says failure.
    pub data: &'a [u8],
    /// Error text as sent: C daemons without NUL, the library with one; see [`ReplyControl::text`].
    pub error: &'a [u8],
}

impl<'a> ReplyControl<'a> {
    /// A reply without error text.
    #[must_use]
    pub const fn new(status: i32, data: &'a [u8]) -> Self {
        Self { status, data, error: &[] }
    }

    /// The error text without a terminating NUL.
    #[must_use]
    pub fn text(&self) -> Text<'a> {
        Text::new(self.error)
    }
}

impl<'a> Body<'a> for ReplyControl<'a> {
    fn fixed_len(&self) -> usize {
        12
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_i32(self.status);
        out.put_len(self.data.len());
        out.put_len(self.error.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.data, self.error]
    }
}

impl<'a> Decode<'a> for ReplyControl<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let status = reader.i32("control status")?;
        let data_len = reader.u32("control reply datalen")? as usize;
        let error_len = reader.u32("control reply errorlen")? as usize;
        Ok(Self {
            status,
            data: reader.bytes("control reply data", data_len)?,
            error: reader.bytes("control reply error", error_len)?,
        })
    }
}
