//! Structures about databases: ids, maps, recovery parameters.
//!
//! Origin: `docs/spec/wire-protocol.md` 4.4.

use crate::flags::flag_set;
use crate::id::{DbId, Generation, Pnn, Srvid};
use crate::layout::{Fixed, fixed_newtype, read_list, wire_struct, write_list};
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

flag_set! {
    /// Properties of a database in [`DbIdEntry`].
    pub struct DbFlags(u8) {
        /// Replicated on every node, survives restarts, written by transactions only.
        const PERSISTENT = 0x01;
        /// Read-only delegations are enabled.
        const READONLY = 0x02;
        /// Sticky records are enabled.
        const STICKY = 0x04;
        /// Replicated on every node, volatile.
        const REPLICATED = 0x08;
    }
}

flag_set! {
    /// Flags with which clients must open the local TDB (DB_OPEN_FLAGS); an i32 on the wire whose
    /// sign bit C never sets.
    pub struct TdbOpenFlags {
        /// `TDB_CLEAR_IF_FIRST`
        const CLEAR_IF_FIRST = 0x1;
        /// `TDB_NOSYNC`
        const NOSYNC = 0x40;
        /// `TDB_SEQNUM`
        const SEQNUM = 0x80;
        /// `TDB_DISALLOW_NESTING`
        const DISALLOW_NESTING = 0x400;
        /// `TDB_INCOMPATIBLE_HASH`
        const INCOMPATIBLE_HASH = 0x800;
        /// `TDB_MUTEX_LOCKING`
        const MUTEX_LOCKING = 0x1000;
    }
}

fixed_newtype!(DbFlags(u8), TdbOpenFlags(u32));

wire_struct! {
    /// One attached database (`ctdb_dbid`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DbIdEntry = 8 bytes {
        /// Hash of the name.
        pub db: DbId;
        /// Kind and properties.
        pub flags: DbFlags, pad 3;
    }
}

/// The attached databases, newest first (`ctdb_dbid_map`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DbIdMap(pub Vec<DbIdEntry>);

impl Encode for DbIdMap {
    fn encoded_len(&self) -> usize {
        4 + self.0.len() * DbIdEntry::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        write_list(&self.0, out);
    }
}

impl Decode<'_> for DbIdMap {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_list(reader, "dbid_map").map(Self)
    }
}

wire_struct! {
    /// Parameters of DB_PULL and DB_PUSH_START (`ctdb_pulldb_ext`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PullDb = 16 bytes {
        /// The database.
        pub db: DbId;
        /// Ignored; [`PullDb::LMASTER_ANY`]. C's recovery helper sends stack garbage here in
        /// DB_PUSH_START, so it is a plain number.
        pub lmaster: u32;
        /// Where the record messages go.
        pub srvid: Srvid;
    }
}

impl PullDb {
    /// `CTDB_LMASTER_ANY`
    pub const LMASTER_ANY: u32 = 0xFFFF_FFFF;
}

wire_struct! {
    /// A database and the transaction that recovery runs on it (`ctdb_transdb`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TransDb = 8 bytes {
        /// The database.
        pub db: DbId;
        /// Transaction id: the generation the cluster will have.
        pub tid: Generation;
    }
}

wire_struct! {
    /// Request of DB_VACUUM (`ctdb_db_vacuum`); packed, so 5 bytes and not 8.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct DbVacuum = 5 bytes {
        /// The database.
        pub db: DbId;
        /// Scan the whole database instead of the queue of candidates.
        pub full_vacuum_run: bool;
    }
}

wire_struct! {
    /// Request of GET_DB_SEQNUM: the daemon insists on 8 bytes, the last 4 are unused.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GetDbSeqnum = 8 bytes {
        /// The database.
        pub db: DbId, pad 4;
    }
}

/// Sequence number of a persistent or replicated database (`__db_sequence_number__`), 0 if none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbSeqnum(pub u64);

/// Number of records sent or received by DB_PULL, DB_PUSH_CONFIRM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordCount(pub u32);

fixed_newtype!(DbSeqnum(u64), RecordCount(u32));

/// Generation and the nodes among which records' location masters are chosen (`ctdb_vnn_map`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VnnMap {
    /// Recovery epoch.
    pub generation: Generation,
    /// `map[hash % map.len()]` is the location master.
    pub map: Vec<Pnn>,
}

impl Encode for VnnMap {
    fn encoded_len(&self) -> usize {
        8 + self.map.len() * Pnn::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.generation.0);
        write_list(&self.map, out);
    }
}

impl Decode<'_> for VnnMap {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let generation = Generation(reader.u32("vnn_map.generation")?);
        let map = read_list(reader, "vnn_map.map")?;
        Ok(Self { generation, map })
    }
}
