//! Where the bytes of one database live.
//!
//! Role: every algorithm of this crate (chains, freelist, transaction, check, traverse) is generic
//! over [`Store`]. Implementations: the mapped file (`backend/file.rs`), memory with crash images
//! and failing writes (`backend/memory.rs`), a transaction's overlay of changed blocks, and
//! [`Swapped`], which turns any of them into a database of the foreign byte order.
//! Invariants
//! - Offsets are *logical*: 0 is the TDB header. A mutex file's area in front of the header
//!   (`hdr_ofs`) is added by the file backend, as in libtdb.
//! - Other processes write these bytes at any time: what was read is a copy, judged after copying.
//! - Bounds are checked here; an offset outside the file is an error value, never a fault.
//! - Numbers of the format go through `*_words` and `*_u32` (byte order applies), keys, values and
//!   saved blocks through `read` and `write` (raw).
//! - A store never waits for the disk: [`Store::sync_point`] returns work for the caller.
//!
//! Origin: `docs/spec/tdb-format.md` 1.3, 6.9, 7.2.

use std::io;

use thiserror::Error;

use crate::format::SEQNUM_OFFSET;

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

    /// Extends the file by `added` bytes from `old_len` on. The new bytes read as zero.
    ///
    /// # Errors
    /// [`StoreError::Grow`], [`StoreError::ReadOnly`].
    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError>;

    /// Makes what was written to the range durable: the returned work must be done before the next
    /// write. `None` where nothing has to be done (NOSYNC, overlay).
    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint>;

    /// `true` if a process killed now leaves nothing of what was written here: a transaction's
    /// overlay. Precautions against that are left out then, for they would change further blocks.
    #[inline]
    fn is_private(&self) -> bool {
        false
    }

    /// `true` if the bytes at `offset` equal `expected`. Allocates nothing.
    ///
    /// # Errors
    /// As [`Store::read`].
    #[inline]
    fn matches(&self, offset: u32, expected: &[u8]) -> Result<bool, StoreError> {
        let mut at = offset;
        for part in expected.chunks(64) {
            let mut copy = [0; 64];
            let copy = &mut copy[..part.len()];
            self.read(at, copy)?;
            if copy != part {
                return Ok(false);
            }
            at = at.wrapping_add(64); // beyond u32 only where `read` has failed already
        }
        Ok(true)
    }

    /// Adds 1 to the sequence number; wraps. Atomic where the bytes are mapped (spec 6.8).
    ///
    /// # Errors
    /// As [`Store::write`].
    fn add_seqnum(&self) -> Result<(), StoreError> {
        let now = self.read_u32(SEQNUM_OFFSET)?;
        self.write_u32(SEQNUM_OFFSET, now.wrapping_add(1))
    }

    /// `N` words of the format that lie side by side.
    ///
    /// # Errors
    /// As [`Store::read`].
    #[inline]
    fn read_words<const N: usize>(&self, offset: u32) -> Result<[u32; N], StoreError> {
        let mut bytes = [[0_u8; 4]; N];
        self.read(offset, bytes.as_flattened_mut())?;
        Ok(bytes.map(u32::from_le_bytes))
    }

    /// `N` words of the format that lie side by side.
    ///
    /// # Errors
    /// As [`Store::write`].
    #[inline]
    fn write_words<const N: usize>(&self, offset: u32, words: [u32; N]) -> Result<(), StoreError> {
        self.write(offset, words.map(u32::to_le_bytes).as_flattened())
    }

    /// One word of the format.
    ///
    /// # Errors
    /// As [`Store::read`].
    #[inline]
    fn read_u32(&self, offset: u32) -> Result<u32, StoreError> {
        self.read_words::<1>(offset).map(|[word]| word)
    }

    /// One word of the format.
    ///
    /// # Errors
    /// As [`Store::write`].
    #[inline]
    fn write_u32(&self, offset: u32, value: u32) -> Result<(), StoreError> {
        self.write_words(offset, [value])
    }
}

/// A database of the foreign byte order: words are swapped, bytes are not.
#[derive(Debug)]
pub struct Swapped<S>(pub S);

impl<S: Store> Store for Swapped<S> {
    fn known_len(&self) -> u32 {
        self.0.known_len()
    }
    fn refresh_len(&self) -> Result<u32, StoreError> {
        self.0.refresh_len()
    }
    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError> {
        self.0.write(offset, data)
    }
    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError> {
        self.0.grow(old_len, added)
    }
    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint> {
        self.0.sync_point(offset, len)
    }
    fn is_private(&self) -> bool {
        self.0.is_private()
    }
    fn read_words<const N: usize>(&self, offset: u32) -> Result<[u32; N], StoreError> {
        self.0.read_words::<N>(offset).map(|words| words.map(u32::swap_bytes))
    }
    fn write_words<const N: usize>(&self, offset: u32, words: [u32; N]) -> Result<(), StoreError> {
        self.0.write_words(offset, words.map(u32::swap_bytes))
    }
}

impl<S: Store> Store for &S {
    #[inline]
    fn known_len(&self) -> u32 {
        (**self).known_len()
    }
    #[inline]
    fn refresh_len(&self) -> Result<u32, StoreError> {
        (**self).refresh_len()
    }
    #[inline]
    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        (**self).read(offset, buf)
    }
    #[inline]
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError> {
        (**self).write(offset, data)
    }
    #[inline]
    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError> {
        (**self).grow(old_len, added)
    }
    #[inline]
    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint> {
        (**self).sync_point(offset, len)
    }
    #[inline]
    fn is_private(&self) -> bool {
        (**self).is_private()
    }
    #[inline]
    fn matches(&self, offset: u32, expected: &[u8]) -> Result<bool, StoreError> {
        (**self).matches(offset, expected)
    }
    #[inline]
    fn add_seqnum(&self) -> Result<(), StoreError> {
        (**self).add_seqnum()
    }
    #[inline]
    fn read_words<const N: usize>(&self, offset: u32) -> Result<[u32; N], StoreError> {
        (**self).read_words(offset)
    }
    #[inline]
    fn write_words<const N: usize>(&self, offset: u32, words: [u32; N]) -> Result<(), StoreError> {
        (**self).write_words(offset, words)
    }
}
