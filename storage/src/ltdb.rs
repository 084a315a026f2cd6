//! Records as CTDB keeps them: a 24-byte header in front of every value.
//!
//! Role: header and value in one store, names and flags of a node's files. Who may change a record
//! and when its rsn rises is the data plane's business.
//! Invariants
//! - A value shorter than a header counts as "no record", as in C.
//! - Padding is written as zero and ignored when read.
//!
//! Origin: `docs/spec/tdb-format.md` 8.1 to 8.3; ctdb/common/ctdb_ltdb.c.

use std::path::{Path, PathBuf};

use ringmaster_protocol::Pnn;
use ringmaster_protocol::record::{RECORD_HEADER_LEN, RecordHeader};

use crate::chain::{StoreMode, Stored};
use crate::engine::AccessError;
use crate::flags::Flags;
use crate::handle::{Handle, Locked};
use crate::open::OpenOptions;

/// Number of chains of a new file unless the tunable DatabaseHashSize says otherwise.
pub const DATABASE_HASH_SIZE: u32 = 100_001;
/// Dead records ctdbd keeps per chain: default of the tunable DatabaseMaxDead.
pub const DATABASE_MAX_DEAD: u32 = 5;

/// What a database is for; decides where its file lies and how it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// Lost when the node restarts; records migrate.
    Volatile,
    /// On every node, survives everything; written by transactions.
    Persistent,
    /// On every node, lost when all nodes restart.
    Replicated,
}

impl DatabaseKind {
    /// tdb flags of ctdbd's own handle, which it also tells clients to use (spec 8.3). `mutexes` is
    /// the option "tdb mutexes" of ctdb.conf.
    #[must_use]
    pub fn tdb_flags(self, mutexes: bool) -> Flags {
        let in_memory = Flags::NOSYNC
            | Flags::CLEAR_IF_FIRST
            | Flags::INCOMPATIBLE_HASH
            | Flags::DISALLOW_NESTING;
        match self {
            Self::Persistent => Flags::DISALLOW_NESTING,
            Self::Volatile if mutexes => in_memory | Flags::MUTEX_LOCKING,
            Self::Volatile | Self::Replicated => in_memory,
        }
    }

    /// How ctdbd opens the file.
    #[must_use]
    pub fn open_options(self, hash_size: u32, mutexes: bool) -> OpenOptions {
        OpenOptions::create(hash_size, self.tdb_flags(mutexes))
    }

    /// `true` if the file lies in the persistent directory.
    #[must_use]
    pub fn is_persistent(self) -> bool {
        self == Self::Persistent
    }
}

/// Where a node keeps its copy of a database: `DIRECTORY/NAME.PNN`.
#[must_use]
pub fn file_path(directory: &Path, name: &str, pnn: Pnn) -> PathBuf {
    directory.join(format!("{name}.{}", pnn.get()))
}

/// Where a node keeps the health of its persistent databases, in the state directory.
#[must_use]
pub fn health_path(directory: &Path, pnn: Pnn) -> PathBuf {
    file_path(directory, "persistent_health.tdb", pnn)
}

/// The database of a file in the persistent directory, if it is this node's: `….tdb.` and the
/// node's number in decimal digits. ctdbd attaches all of these at start.
#[must_use]
pub fn database_of_file(file_name: &str, pnn: Pnn) -> Option<&str> {
    let (name, digits) = file_name.rsplit_once('.')?;
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let is_ours = is_number && digits.parse() == Ok(pnn.get());
    (is_ours && name.ends_with(".tdb")).then_some(name)
}

/// A record as found: its header, and its value in the caller's buffer behind the header's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRecord<'b> {
    /// The header.
    pub header: RecordHeader,
    /// The value without the header.
    pub data: &'b [u8],
}

impl<'b> StoredRecord<'b> {
    /// From the bytes in the file; `None` if they are too short for a header.
    #[must_use]
    pub fn from_bytes(bytes: &'b [u8]) -> Option<Self> {
        RecordHeader::split(bytes).map(|(header, data)| Self { header, data })
    }

    /// `true` for a record without a value: stored as empty, or the tombstone of a deleted one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

impl Locked<'_> {
    /// Fetches a record of this chain into `buf`; `None` if there is none, or none with a header.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn fetch_record<'b>(
        &mut self,
        key: &[u8],
        buf: &'b mut Vec<u8>,
    ) -> Result<Option<StoredRecord<'b>>, AccessError> {
        let found = self.fetch(key, buf)?;
        Ok(if found { StoredRecord::from_bytes(buf) } else { None })
    }

    /// Reads a record's header alone.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn fetch_header(&mut self, key: &[u8]) -> Result<Option<RecordHeader>, AccessError> {
        let Some(found) = self.find(key)? else { return Ok(None) };
        if found.value_len() < RECORD_HEADER_LEN {
            return Ok(None);
        }
        let mut bytes = [0; RECORD_HEADER_LEN];
        self.value_start(&found, &mut bytes)?;
        Ok(RecordHeader::split(&bytes).map(|(header, _)| header))
    }

    /// Stores header and value as they are: no rule of CTDB is applied. On a handle that never
    /// waits the answer may be [`Stored::Busy`].
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn store_record(
        &mut self,
        key: &[u8],
        header: RecordHeader,
        data: &[u8],
    ) -> Result<Stored, AccessError> {
        self.store(key, &[&header.to_array(), data], StoreMode::Replace)
    }
}

impl Handle {
    /// Fetches a record into `buf`, waiting for its chain; `None` if there is none, or none with a
    /// header.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn fetch_record<'b>(
        &mut self,
        key: &[u8],
        buf: &'b mut Vec<u8>,
    ) -> Result<Option<StoredRecord<'b>>, AccessError> {
        let found = self.fetch(key, buf)?;
        Ok(if found { StoredRecord::from_bytes(buf) } else { None })
    }

    /// Visits every record that has a header, as a read-traverse does; stops at `false`.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn for_each_record(
        &mut self,
        mut visit: impl FnMut(&[u8], StoredRecord<'_>) -> bool,
    ) -> Result<(), AccessError> {
        self.for_each(|key, value| {
            StoredRecord::from_bytes(value).is_none_or(|record| visit(key, record))
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_ctdbd_tells_its_clients() {
        assert_eq!(DatabaseKind::Volatile.tdb_flags(true).bits(), 0x1C41);
        assert_eq!(DatabaseKind::Volatile.tdb_flags(false).bits(), 0x0C41);
        assert_eq!(DatabaseKind::Replicated.tdb_flags(true).bits(), 0x0C41);
        assert_eq!(DatabaseKind::Persistent.tdb_flags(true).bits(), 0x0400);
    }

    #[test]
    fn a_nodes_files_are_told_from_other_files() {
        let pnn = Pnn::new(12).unwrap();
        assert_eq!(file_path(Path::new("/v"), "locking.tdb", pnn), Path::new("/v/locking.tdb.12"));
        assert_eq!(database_of_file("secrets.tdb.12", pnn), Some("secrets.tdb"));
        assert_eq!(database_of_file("a.tdb.tdb.12", pnn), Some("a.tdb.tdb"));
        for other in ["secrets.tdb.1", "secrets.tdb.12.corrupted", "secrets.tdb", "x.12", "x.tdb."]
        {
            assert_eq!(database_of_file(other, pnn), None, "{other}");
        }
        assert_eq!(database_of_file("secrets.tdb.+12", pnn), None);
    }

    #[test]
    fn values_without_a_header_are_no_records() {
        assert_eq!(StoredRecord::from_bytes(&[0; 23]), None);
        let bytes = [0; 24];
        assert!(StoredRecord::from_bytes(&bytes).unwrap().is_empty());
    }
}
