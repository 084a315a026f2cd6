//! Packets that move records: calls, their replies, the two dmaster packets, errors.
//!
//! Role: the hot packets of the data plane. What is done with them: `docs/spec/wire-protocol.md` 7.5.
//! Invariants
//! - Everything variable is borrowed from the packet: no allocation in either direction.
//! - The 4 bytes of record flags behind a dmaster packet's data are always written; a packet
//!   without them (not even as padding) means flags 0.
//!
//! Origin: `docs/spec/wire-protocol.md` 2.1–2.5; `ctdb/protocol/protocol_call.c`,
//! `ctdb/server/ctdb_call.c: ctdb_send_dmaster_reply`.

use crate::body::{Body, encode_body};
use crate::flags::flag_set;
use crate::id::{DbId, Pnn, Rsn};
use crate::record::{Dmaster, RecordFlags};
use crate::text::Text;
use crate::wire::{Decode, DecodeError, Put, Reader};

encode_body!(ReqCall, ReplyCall, ReqDmaster, ReplyDmaster, ReplyError);

flag_set! {
    /// Flags of a call.
    pub struct CallFlags {
        /// Move the record to the caller's node; advisory, daemons always do.
        const IMMEDIATE_MIGRATION = 1;
        /// Set by a daemon's own vacuum fetch; only the requester acts on it.
        const VACUUM_MIGRATION = 2;
        /// A read-only copy will do; honoured for databases with the READONLY flag.
        const WANT_READONLY = 4;
    }
}

/// Function to run on a record. No other ids than the constants exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u32);

impl CallId {
    /// Empty reply: migrates the record.
    pub const NULL: Self = Self(0xFF00_0001);
    /// Record data without header.
    pub const FETCH: Self = Self(0xFF00_0002);
    /// Record header (24 bytes, always) and data.
    pub const FETCH_WITH_HEADER: Self = Self(0xFF00_0003);
}

/// `REQ_CALL`: run a function on a record, or migrate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReqCall<'a> {
    /// Wishes of the caller.
    pub flags: CallFlags,
    /// Database.
    pub db: DbId,
    /// Function.
    pub callid: CallId,
    /// Redirects so far; the origin sends 0.
    pub hopcount: u32,
    /// Record key; clients should not send an empty one.
    pub key: &'a [u8],
    /// Argument of the function; unused by all that exist.
    pub calldata: &'a [u8],
}

impl<'a> Body<'a> for ReqCall<'a> {
    fn fixed_len(&self) -> usize {
        24
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_u32(self.flags.0);
        out.put_u32(self.db.0);
        out.put_u32(self.callid.0);
        out.put_u32(self.hopcount);
        out.put_len(self.key.len());
        out.put_len(self.calldata.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.key, self.calldata]
    }
}

impl<'a> Decode<'a> for ReqCall<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = CallFlags(reader.u32("call flags")?);
        let db = DbId(reader.u32("call db_id")?);
        let callid = CallId(reader.u32("callid")?);
        let hopcount = reader.u32("call hopcount")?;
        let key_len = reader.u32("call keylen")? as usize;
        let data_len = reader.u32("calldatalen")? as usize;
        let key = reader.bytes("call key", key_len)?;
        let calldata = reader.bytes("call data", data_len)?;
        Ok(Self { flags, db, callid, hopcount, key, calldata })
    }
}

/// `REPLY_CALL`: the result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyCall<'a> {
    /// 0, or -1 when the function failed.
    pub status: i32,
    /// For [`CallId::FETCH_WITH_HEADER`] at least the 24 bytes of the record header.
    pub data: &'a [u8],
}

impl<'a> Body<'a> for ReplyCall<'a> {
    fn fixed_len(&self) -> usize {
        8
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_i32(self.status);
        out.put_len(self.data.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.data, &[]]
    }
}

impl<'a> Decode<'a> for ReplyCall<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { status: reader.i32("call status")?, data: reader.datan("call reply data")? })
    }
}

/// `REQ_DMASTER`: the current dmaster hands a record to the lmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReqDmaster<'a> {
    /// Database.
    pub db: DbId,
    /// Sequence number of the record handed over.
    pub rsn: Rsn,
    /// The new dmaster: who asked for the record.
    pub dmaster: Dmaster,
    /// Record key.
    pub key: &'a [u8],
    /// Record value without header.
    pub data: &'a [u8],
    /// Flags of the record's header: the trailer.
    pub record_flags: RecordFlags,
}

impl ReqDmaster<'_> {
    /// The new dmaster as a node, `None` for a reserved value (a confused sender).
    #[must_use]
    pub const fn new_dmaster(&self) -> Option<Pnn> {
        self.dmaster.pnn()
    }
}

impl<'a> Body<'a> for ReqDmaster<'a> {
    fn fixed_len(&self) -> usize {
        28
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_u32(self.db.0);
        out.put_zeros(4);
        out.put_u64(self.rsn.0);
        out.put_u32(self.dmaster.raw());
        out.put_len(self.key.len());
        out.put_len(self.data.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.key, self.data]
    }
    fn trailer(&self) -> Option<u32> {
        Some(self.record_flags.0)
    }
}

impl<'a> Decode<'a> for ReqDmaster<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let db = DbId(reader.u32("dmaster db_id")?);
        reader.padding(4)?;
        let rsn = Rsn(reader.u64("dmaster rsn")?);
        let dmaster = Dmaster::from_raw(reader.u32("new dmaster")?);
        let key_len = reader.u32("dmaster keylen")? as usize;
        let data_len = reader.u32("dmaster datalen")? as usize;
        let key = reader.bytes("dmaster key", key_len)?;
        let data = reader.bytes("dmaster data", data_len)?;
        let record_flags = trailer(reader)?;
        Ok(Self { db, rsn, dmaster, key, data, record_flags })
    }
}

/// `REPLY_DMASTER`: the lmaster makes the receiver dmaster of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyDmaster<'a> {
    /// Database.
    pub db: DbId,
    /// Sequence number of the record handed over.
    pub rsn: Rsn,
    /// Record key.
    pub key: &'a [u8],
    /// Record value without header.
    pub data: &'a [u8],
    /// Flags of the record's header: the trailer.
    pub record_flags: RecordFlags,
}

impl<'a> Body<'a> for ReplyDmaster<'a> {
    fn fixed_len(&self) -> usize {
        24
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_u32(self.db.0);
        out.put_zeros(4);
        out.put_u64(self.rsn.0);
        out.put_len(self.key.len());
        out.put_len(self.data.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.key, self.data]
    }
    fn trailer(&self) -> Option<u32> {
        Some(self.record_flags.0)
    }
}

impl<'a> Decode<'a> for ReplyDmaster<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let db = DbId(reader.u32("dmaster db_id")?);
        reader.padding(4)?;
        let rsn = Rsn(reader.u64("dmaster rsn")?);
        let key_len = reader.u32("dmaster keylen")? as usize;
        let data_len = reader.u32("dmaster datalen")? as usize;
        let key = reader.bytes("dmaster key", key_len)?;
        let data = reader.bytes("dmaster data", data_len)?;
        let record_flags = trailer(reader)?;
        Ok(Self { db, rsn, key, data, record_flags })
    }
}

/// The flags behind a dmaster packet's data. Unaligned, not counted in any length; absent (flags 0)
/// when the packet ends before them.
fn trailer(reader: &mut Reader<'_>) -> Result<RecordFlags, DecodeError> {
    if reader.remaining() < 4 {
        Ok(RecordFlags::NONE)
    } else {
        reader.u32("record flags").map(RecordFlags)
    }
}

/// `REPLY_ERROR`: a call or dmaster packet that could not be processed; between daemons only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyError<'a> {
    /// -1 in practice.
    pub status: i32,
    /// Text as sent; C counts a terminating NUL, see [`ReplyError::text`].
    pub message: &'a [u8],
}

impl<'a> ReplyError<'a> {
    /// The message without its terminating NUL.
    #[must_use]
    pub fn text(&self) -> Text<'a> {
        Text::new(self.message)
    }
}

impl<'a> Body<'a> for ReplyError<'a> {
    fn fixed_len(&self) -> usize {
        8
    }
    fn put_fixed(&self, out: &mut Vec<u8>) {
        out.put_i32(self.status);
        out.put_len(self.message.len());
    }
    fn payload(&self) -> [&'a [u8]; 2] {
        [self.message, &[]]
    }
}

impl<'a> Decode<'a> for ReplyError<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { status: reader.i32("error status")?, message: reader.datan("error message")? })
    }
}
