//! The file format: layout, magics, header, record header, hash, growth. Pure.
//!
//! Role: say where everything lies and what its bytes mean. Reading and changing: `chain.rs`,
//! `freelist.rs`.
//! Invariants
//! - No I/O, no unsafe; arithmetic on file contents is checked, for the file is outside input.
//! - Offsets and lengths are logical bytes in `u32`, as in the file.
//!
//! Origin: `docs/spec/tdb-format.md` 1 and 2.

mod growth;
mod hash;
mod header;
mod record;

pub use growth::{MAX_JUMP_NEED, expansion};
pub use hash::HashKind;
pub use header::{ByteOrder, Header, HeaderError};
pub use record::{Magic, RecordHeader};

/// First bytes of every file; the 32-byte field is filled up with zeros.
pub const MAGIC_FOOD: &[u8; 9] = b"TDB file\n";
/// `version` in a file of our byte order.
pub const VERSION: u32 = 0x2601_196D;
/// `magic` of a live record.
pub const MAGIC_LIVE: u32 = 0x2601_1999;
/// `magic` of a free record.
pub const MAGIC_FREE: u32 = 0xD9FE_E666;
/// `magic` of a dead record: deleted, still in its chain.
pub const MAGIC_DEAD: u32 = 0xFEE1_DEAD;
/// `magic` of a recovery area that must be played back.
pub const MAGIC_RECOVERY: u32 = 0xF53B_C0E7;
/// `magic` of an idle recovery area.
pub const MAGIC_RECOVERY_IDLE: u32 = 0;
/// `rwlocks` of a file created with the Jenkins hash.
pub const RWLOCK_HASH: u32 = 0x0BAD_1A51;
/// `rwlocks` of a file whose `feature_flags` count.
pub const RWLOCK_FEATURES: u32 = 0x0BAD_1A52;
/// `feature_flags`: robust mutexes in front of the logical file.
pub const FEATURE_MUTEX: u32 = 1;
/// Every record offset and length is a multiple of this.
pub const ALIGNMENT: u32 = 4;
/// Size of the header at logical offset 0.
pub const HEADER_LEN: u32 = 168;
/// Size of a record header.
pub const RECORD_LEN: u32 = 24;
/// Size of a record's tailer, its last word: the record's whole size.
pub const TAILER_LEN: u32 = 4;
/// A free block is split only if what remains holds at least this.
pub const MIN_RECORD_LEN: u32 = RECORD_LEN + ALIGNMENT + 8;
/// Where the header keeps the offset of the recovery area.
pub const RECOVERY_HEAD: u32 = 44;
/// Where the header keeps the sequence number.
pub const SEQNUM_OFFSET: u32 = 48;
/// Where the offset of the first free record lies.
pub const FREELIST_TOP: u32 = HEADER_LEN;
/// What libtdb writes into new space when it cannot use `fallocate`.
pub const PAD_WORD: u32 = 0x4242_4242;
/// Number of hash chains when the creator asks for 0.
pub const DEFAULT_HASH_SIZE: u32 = 131;
/// Dead records kept per chain by handles opened VOLATILE, and by ctdbd.
pub const VOLATILE_MAX_DEAD: u32 = 5;

/// What the algorithms must know about a file: constant while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of hash chains; at least 1, and all heads lie inside the file.
    pub hash_size: u32,
    /// Which function the keys are hashed with.
    pub hash: HashKind,
    /// Growth is rounded up to this: the page size of this process, a power of two.
    pub page_size: u32,
}

impl Layout {
    /// Chain of a key with this hash.
    #[must_use]
    #[inline]
    pub fn chain_of(&self, full_hash: u32) -> u32 {
        // The hash size is at least 1 (checked when the header was read).
        full_hash % self.hash_size.max(1)
    }

    /// Offset of the head slot of a chain (below `hash_size`, else the result is clamped and will
    /// be out of bounds of every file).
    #[must_use]
    #[inline]
    pub fn head_of(&self, chain: u32) -> u32 {
        chain.saturating_mul(4).saturating_add(FREELIST_TOP + 4)
    }

    /// First byte behind the heads: the first record lies here.
    #[must_use]
    #[inline]
    pub fn data_start(&self) -> u32 {
        self.head_of(self.hash_size)
    }
}

/// `len` rounded up to [`ALIGNMENT`]; `None` beyond 4 GiB.
#[must_use]
#[inline]
pub fn align(len: u32) -> Option<u32> {
    len.checked_next_multiple_of(ALIGNMENT)
}

/// Bytes of a new logical file: header, empty freelist, empty chains. `None` if the heads do not
/// fit into 4 GiB.
#[must_use]
pub fn create_image(header: &Header) -> Option<Vec<u8>> {
    let heads = header.hash_size.checked_mul(4)?.checked_add(4)?;
    let len = heads.checked_add(HEADER_LEN)?;
    let mut image = header.encode().to_vec();
    image.resize(len as usize, 0);
    Some(image)
}

#[cfg(test)]
mod tests;
