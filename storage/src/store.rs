//! Where the bytes of one database live.
//!
//! Role: every algorithm of this crate (chains, freelist, transaction, check, traverse) is generic
//! over [`Store`]. Implementations: the mapped file (`backend/file.rs`), memory with crash images
//! and failing writes (`backend/memory.rs`), and a transaction's overlay of changed blocks.
//! Invariants
//! - Offsets are *logical*: 0 is the TDB header. A mutex file's area in front of the header
//!   (`hdr_ofs`) is added by the file backend, as in libtdb.
//! - Other processes write these bytes at any time: what was read is a copy, judged after copying.
//! - Bounds are checked here; an offset outside the file is an error value, never a fault.
//! - A store never waits for the disk: [`Store::sync_point`] returns work for the caller.
//!
//! Origin: `docs/spec/tdb-format.md` 6.9, 7.2.

use std::io;

use thiserror::Error;

/// Why bytes could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The range is not inside the file, after its size was looked up afresh.
    #[error("range {offset}..{offset}+{len} is outside the file of {file_len} bytes")]
    OutOfBounds {
        /// First byte, logical.
        offset: u32,
        /// Bytes asked for.
        len: usize,
        /// Logical size of the file.
        file_len: u64,
    },
    /// The file cannot grow.
    #[error("cannot grow the file to {wanted} bytes")]
    Grow {
        /// Logical size wanted.
        wanted: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a read, write or size query.
    #[error("cannot {action} at offset {offset}")]
    Io {
        /// "read", "write", "stat".
        action: &'static str,
        /// Logical offset.
        offset: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Opened read-only.
    #[error("the database is open read-only")]
    ReadOnly,
}

/// A range whose durability the caller has to see to before going on (never on a shard thread).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the order of writes on disk depends on this sync"]
pub struct SyncPoint {
    /// First byte, logical.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// Byte access to one database. `&self` throughout: the bytes are shared with other processes, so
/// exclusive references would promise something untrue; what excludes others are the TDB locks.
pub trait Store {
    /// Logical size as known now, without asking the kernel.
    fn known_len(&self) -> u32;

    /// Asks for the size again (another process may have grown the file); returns the new size.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn refresh_len(&self) -> Result<u32, StoreError>;

    /// Copies `buf.len()` bytes out. Looks the size up afresh before calling a range out of bounds.
    ///
    /// # Errors
    /// [`StoreError::OutOfBounds`], [`StoreError::Io`].
    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError>;

    /// Copies bytes in, inside the current size.
    ///
    /// # Errors
    /// [`StoreError::OutOfBounds`], [`StoreError::Io`], [`StoreError::ReadOnly`].
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError>;

    /// Extends the file by `added` bytes from `old_len` on. Filled as libtdb fills.
    ///
    /// # Errors
    /// [`StoreError::Grow`], [`StoreError::ReadOnly`].
    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError>;

    /// Makes what was written to the range durable: the returned work must be done before the next
    /// write. `None` where nothing has to be done (NOSYNC, overlay).
    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint>;

    /// One native (little-endian) word.
    ///
    /// # Errors
    /// As [`Store::read`].
    fn read_u32(&self, offset: u32) -> Result<u32, StoreError> {
        let mut word = [0; 4];
        self.read(offset, &mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    /// One native (little-endian) word.
    ///
    /// # Errors
    /// As [`Store::write`].
    fn write_u32(&self, offset: u32, value: u32) -> Result<(), StoreError> {
        self.write(offset, &value.to_le_bytes())
    }
}
