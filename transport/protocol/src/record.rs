//! Records as they stand in databases and travel between nodes.
//!
//! Role: the 24-byte header in front of every value, and the containers records travel in.
//! Invariants
//! - A decoded [`RecBuffer`] has been walked once: iterating it cannot fail and allocates nothing.
//! - Unknown header flags are carried, never masked: they decide how the value is read
//!   (`docs/spec/wire-protocol.md` 10.1 row 6).
//! - A record's place in a container is found by its own `length` field, which may exceed what key
//!   and data need.
//!
//! Origin: `docs/spec/wire-protocol.md` 4.2, 4.3; `ctdb/protocol/protocol.h: ctdb_ltdb_header`,
//! `ctdb/protocol/protocol_types.c`.

use bytemuck::{Pod, Zeroable};

use crate::flags::flag_set;
use crate::id::{DbId, Destination, Generation, Pnn, Rsn};
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

/// Bytes of the header in front of every value.
pub const RECORD_HEADER_LEN: usize = 24;
/// Bytes of one `ctdb_rec_data` before its key.
pub const REC_DATA_FIXED_LEN: usize = 16;
/// Bytes of a `ctdb_rec_buffer` before its first record.
pub const REC_BUFFER_FIXED_LEN: usize = 8;

flag_set! {
    /// Flags of a record's header.
    pub struct RecordFlags {
        /// smbd: this record of a volatile database is persistent.
        const PERSISTENT = 0x1;
        /// smbd: the value begins with the 24-byte server id of its writer.
        const PERSISTENT_IN_PROGRESS = 0x2;
        /// Has at some time migrated, been recovered or pushed with data.
        const MIGRATED_WITH_DATA = 0x1_0000;
        /// In memory only: arrived by a vacuum migration. Never sent, never stored.
        const VACUUM_MIGRATED = 0x2_0000;
        /// In memory only: header invented by a fetch of an absent record. Never stored.
        const AUTOMATIC = 0x4_0000;
        /// On the dmaster: read-only copies exist elsewhere.
        const RO_HAVE_DELEGATIONS = 0x0100_0000;
        /// Elsewhere: this is a read-only copy.
        const RO_HAVE_READONLY = 0x0200_0000;
        /// The dmaster is calling read-only copies back.
        const RO_REVOKING_READONLY = 0x0400_0000;
        /// All copies are back; flags are cleared by the next access.
        const RO_REVOKE_COMPLETE = 0x0800_0000;
        /// All four read-only flags.
        const RO_ALL = 0x0F00_0000;
    }
}

/// The `dmaster` word of a record: a node, or one of the values that are no node (0xFFFFFFFF and
/// other reserved numbers appear in files and packets and are kept as they are).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dmaster(u32);

impl Dmaster {
    /// "No node".
    pub const UNKNOWN: Self = Self(Destination::Unknown.to_raw());

    /// From file or wire; total.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// To file or wire.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The node, `None` for a reserved value.
    #[must_use]
    pub const fn pnn(self) -> Option<Pnn> {
        Pnn::new(self.0)
    }

    /// Whether this is `pnn`.
    #[must_use]
    pub const fn is(self, pnn: Pnn) -> bool {
        self.0 == pnn.get()
    }
}

impl From<Pnn> for Dmaster {
    fn from(pnn: Pnn) -> Self {
        Self(pnn.get())
    }
}

/// Header CTDB puts before every record's value, as the rest of the code sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Sequence number: the higher copy is the newer.
    pub rsn: Rsn,
    /// Who may change the record.
    pub dmaster: Dmaster,
    /// Flags.
    pub flags: RecordFlags,
}

impl RecordHeader {
    /// Splits a stored value into header and data; `None` when it is too short to have a header
    /// (C treats such a record as absent).
    #[must_use]
    pub fn split(value: &[u8]) -> Option<(Self, &[u8])> {
        let (head, data) = value.split_first_chunk::<RECORD_HEADER_LEN>()?;
        let raw: RawRecordHeader = bytemuck::must_cast(*head);
        Some((raw.into(), data))
    }

    /// The 24 bytes, padding zeroed.
    #[must_use]
    pub fn to_array(self) -> [u8; RECORD_HEADER_LEN] {
        bytemuck::must_cast(RawRecordHeader::from(self))
    }
}

impl Encode for RecordHeader {
    fn encoded_len(&self) -> usize {
        RECORD_HEADER_LEN
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(&self.to_array());
    }
}

impl<'a> Decode<'a> for RecordHeader {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let bytes = reader.array::<RECORD_HEADER_LEN>("record header")?;
        Ok(bytemuck::must_cast::<_, RawRecordHeader>(bytes).into())
    }
}

/// The same header as bytes: exactly C's struct on the hosts this project writes (little-endian,
/// 64-bit), for whoever maps or patches files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RawRecordHeader {
    /// Sequence number, little-endian.
    pub rsn: u64,
    /// Node, little-endian.
    pub dmaster: u32,
    /// Zero; ignored.
    pub reserved: u32,
    /// Flags, little-endian.
    pub flags: u32,
    /// The C struct's tail, named so that it is zeroed and never leaks memory.
    pub padding: u32,
}

const _: () = assert!(size_of::<RawRecordHeader>() == RECORD_HEADER_LEN);
const _: () = assert!(std::mem::offset_of!(RawRecordHeader, rsn) == 0);
const _: () = assert!(std::mem::offset_of!(RawRecordHeader, dmaster) == 8);
const _: () = assert!(std::mem::offset_of!(RawRecordHeader, reserved) == 12);
const _: () = assert!(std::mem::offset_of!(RawRecordHeader, flags) == 16);
const _: () = assert!(std::mem::offset_of!(RawRecordHeader, padding) == 20);

impl From<RawRecordHeader> for RecordHeader {
    fn from(raw: RawRecordHeader) -> Self {
        Self {
            rsn: Rsn(u64::from_le(raw.rsn)),
            dmaster: Dmaster(u32::from_le(raw.dmaster)),
            flags: RecordFlags(u32::from_le(raw.flags)),
        }
    }
}

impl From<RecordHeader> for RawRecordHeader {
    fn from(header: RecordHeader) -> Self {
        Self {
            rsn: header.rsn.0.to_le(),
            dmaster: header.dmaster.0.to_le(),
            reserved: 0,
            flags: header.flags.0.to_le(),
            padding: 0,
        }
    }
}

/// One record in a container (`ctdb_rec_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecData<'a> {
    /// Meaning depends on the use: traverse id, client's number, ignored.
    pub reqid: u32,
    /// Record key.
    pub key: &'a [u8],
    /// Value, header included where the use has one (see [`RecData::split_header`]).
    pub data: &'a [u8],
}

impl<'a> RecData<'a> {
    /// Header and value; `None` when `data` is too short for a header.
    #[must_use]
    pub fn split_header(&self) -> Option<(RecordHeader, &'a [u8])> {
        RecordHeader::split(self.data)
    }

    /// Whether this is the end marker of a traverse.
    #[must_use]
    pub const fn is_end_marker(&self) -> bool {
        self.key.is_empty() && self.data.is_empty()
    }
}

impl Encode for RecData<'_> {
    fn encoded_len(&self) -> usize {
        REC_DATA_FIXED_LEN + self.key.len() + self.data.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_len(self.encoded_len());
        out.put_u32(self.reqid);
        out.put_len(self.key.len());
        out.put_len(self.data.len());
        out.put_bytes(self.key);
        out.put_bytes(self.data);
    }
}

impl<'a> Decode<'a> for RecData<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let length = reader.u32("record length")?;
        let Some(rest) = (length as usize).checked_sub(4) else {
            return Err(DecodeError::Invalid { what: "record length", value: u64::from(length) });
        };
        let mut record = Reader::new(reader.bytes("record", rest)?);
        let reqid = record.u32("record reqid")?;
        let key_len = record.u32("record keylen")? as usize;
        let data_len = record.u32("record datalen")? as usize;
        let key = record.bytes("record key", key_len)?;
        let data = record.bytes("record data", data_len)?;
        Ok(Self { reqid, key, data })
    }
}

/// Records of one database back to back (`ctdb_rec_buffer`, old name `ctdb_marshall_buffer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecBuffer<'a> {
    db: DbId,
    count: u32,
    /// Exactly `count` valid records: decoding has walked them.
    records: &'a [u8],
}

impl<'a> RecBuffer<'a> {
    /// Database.
    #[must_use]
    pub const fn db(&self) -> DbId {
        self.db
    }

    /// Number of records.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The records in order, borrowed.
    #[must_use]
    pub const fn iter(&self) -> RecBufferIter<'a> {
        RecBufferIter { left: self.count, rest: Reader::new(self.records) }
    }
}

impl<'a> IntoIterator for &RecBuffer<'a> {
    type Item = RecData<'a>;
    type IntoIter = RecBufferIter<'a>;
    fn into_iter(self) -> RecBufferIter<'a> {
        self.iter()
    }
}

impl Encode for RecBuffer<'_> {
    fn encoded_len(&self) -> usize {
        REC_BUFFER_FIXED_LEN + self.records.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.db.0);
        out.put_u32(self.count);
        out.put_bytes(self.records);
    }
}

impl<'a> Decode<'a> for RecBuffer<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let db = DbId(reader.u32("rec_buffer db_id")?);
        let count = reader.u32("rec_buffer count")?;
        let start = reader.rest();
        for _ in 0..count {
            RecData::decode(reader)?;
        }
        let records = &start[..start.len() - reader.remaining()];
        Ok(Self { db, count, records })
    }
}

/// Iterator over a [`RecBuffer`].
#[derive(Clone, Debug)]
pub struct RecBufferIter<'a> {
    left: u32,
    rest: Reader<'a>,
}

impl<'a> Iterator for RecBufferIter<'a> {
    type Item = RecData<'a>;

    fn next(&mut self) -> Option<RecData<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Walked by `RecBuffer::decode`, so this is `Some` as long as `left` was above zero.
        RecData::decode(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for RecBufferIter<'_> {}

/// Builds a `ctdb_rec_buffer` by appending; valid at any moment.
#[derive(Clone, Debug)]
pub struct RecBufferBuilder {
    bytes: Vec<u8>,
    count: u32,
}

impl RecBufferBuilder {
    /// Empty buffer for `db`.
    #[must_use]
    pub fn new(db: DbId) -> Self {
        let mut builder = Self { bytes: Vec::new(), count: 0 };
        builder.restart(db);
        builder
    }

    /// Empties the buffer and keeps its memory.
    pub fn restart(&mut self, db: DbId) {
        self.count = 0;
        self.bytes.clear();
        self.bytes.put_u32(db.0);
        self.bytes.put_u32(0);
    }

    /// Appends a record whose data is taken as it is.
    pub fn push(&mut self, record: &RecData<'_>) {
        record.encode(&mut self.bytes);
        self.counted();
    }

    /// Appends a record: header and value become its data.
    pub fn push_with_header(
        &mut self,
        reqid: u32,
        key: &[u8],
        header: &RecordHeader,
        value: &[u8],
    ) {
        let data_len = RECORD_HEADER_LEN + value.len();
        self.bytes.put_len(REC_DATA_FIXED_LEN + key.len() + data_len);
        self.bytes.put_u32(reqid);
        self.bytes.put_len(key.len());
        self.bytes.put_len(data_len);
        self.bytes.put_bytes(key);
        header.encode(&mut self.bytes);
        self.bytes.put_bytes(value);
        self.counted();
    }

    fn counted(&mut self) {
        // A record has at least 16 bytes, so memory ends long before the count does.
        self.count = self.count.saturating_add(1);
        self.bytes[4..REC_BUFFER_FIXED_LEN].copy_from_slice(&self.count.to_le_bytes());
    }

    /// Number of records so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Size so far, in bytes; compare with tunable `RecBufferSizeLimit`.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The buffer's bytes: payload of a control or message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives up the builder for its bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Payload of SCHEDULE_FOR_DELETION (`ctdb_key_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyData<'a> {
    /// Database.
    pub db: DbId,
    /// The record's header as the sender last saw it.
    pub header: RecordHeader,
    /// Record key.
    pub key: &'a [u8],
}

impl Encode for KeyData<'_> {
    fn encoded_len(&self) -> usize {
        36 + self.key.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.db.0);
        out.put_zeros(4);
        self.header.encode(out);
        out.put_datan(self.key);
    }
}

impl<'a> Decode<'a> for KeyData<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let db = DbId(reader.u32("key_data db_id")?);
        reader.padding(4)?;
        Ok(Self { db, header: RecordHeader::decode(reader)?, key: reader.datan("key_data key")? })
    }
}

/// Payload of PUSH_RECORD (`ctdb_push_record_data`; C daemons after 4.17 only). Packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushRecord<'a> {
    /// Generation of the vnn map known to the sender.
    pub generation: Generation,
    /// Database.
    pub db: DbId,
    /// The record's header.
    pub header: RecordHeader,
    /// Record key.
    pub key: &'a [u8],
    /// Value without header.
    pub data: &'a [u8],
}

impl Encode for PushRecord<'_> {
    fn encoded_len(&self) -> usize {
        40 + self.key.len() + self.data.len()
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.generation.0);
        out.put_u32(self.db.0);
        self.header.encode(out);
        out.put_datan(self.key);
        out.put_datan(self.data);
    }
}

impl<'a> Decode<'a> for PushRecord<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            generation: Generation(reader.u32("push_record generation")?),
            db: DbId(reader.u32("push_record db_id")?),
            header: RecordHeader::decode(reader)?,
            key: reader.datan("push_record key")?,
            data: reader.datan("push_record data")?,
        })
    }
}

#[cfg(test)]
mod tests;
