//! The 168 bytes at the start of a database.
//!
//! Role: recognise a file, its byte order, its hash and its features; write a new header.
//! Invariants
//! - What [`Header::parse`] accepts has a hash size of at least 1 and no unknown feature.
//!
//! Origin: `docs/spec/tdb-format.md` 1.2, 1.3, 3.3.

use thiserror::Error;

use super::{
    FEATURE_MUTEX, HEADER_LEN, HashKind, MAGIC_FOOD, RWLOCK_FEATURES, RWLOCK_HASH, VERSION,
};

const LEN: usize = HEADER_LEN as usize;
/// Bytes of the magic text's field.
const FOOD_LEN: usize = 32;

/// Byte order of a file, as seen from this little-endian machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Little-endian.
    Native,
    /// Big-endian: every word is swapped.
    Foreign,
}

/// Why 168 bytes are not the header of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The text at the start is missing.
    #[error("the file does not start with \"TDB file\"")]
    NotTdb,
    /// Neither byte order gives the one version there is.
    #[error("version {found:#010x} is not {VERSION:#010x} in either byte order")]
    Version {
        /// The word at offset 32, little-endian.
        found: u32,
    },
    /// `rwlocks` is none of the known values.
    #[error("rwlocks word {found:#010x} at offset 40 is unknown (a spinlock file of long ago?)")]
    Rwlocks {
        /// The word.
        found: u32,
    },
    /// No chains.
    #[error("hash size at offset 36 is 0")]
    NoChains,
    /// A feature that came after us.
    #[error("feature flags {found:#010x} at offset 60 contain an unknown feature")]
    Features {
        /// The word.
        found: u32,
    },
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Order of all words of the file.
    pub order: ByteOrder,
    /// Number of hash chains, at least 1.
    pub hash_size: u32,
    /// 0, [`RWLOCK_HASH`] or [`RWLOCK_FEATURES`].
    pub rwlocks: u32,
    /// Offset of the recovery area, 0 = none. In a mutex file only the second header's counts.
    pub recovery_start: u32,
    /// Sequence number. In a mutex file only the second header's counts.
    pub sequence_number: u32,
    /// Hash of the magic text.
    pub magic1_hash: u32,
    /// Hash of the live magic as it lies in the file.
    pub magic2_hash: u32,
    /// Features; 0 unless `rwlocks` is [`RWLOCK_FEATURES`].
    pub feature_flags: u32,
    /// Bytes in front of the logical file; 0 unless the mutex feature is there.
    pub mutex_size: u32,
}

impl Header {
    /// Header of a new file of our byte order. `mutex_size` is 0 for a file without mutexes.
    #[must_use]
    pub fn new(hash_size: u32, hash: HashKind, mutex_size: u32) -> Self {
        Self::with_order(hash_size, hash, mutex_size, ByteOrder::Native)
    }

    /// Header of a new file of the given byte order.
    #[must_use]
    pub fn with_order(hash_size: u32, hash: HashKind, mutex_size: u32, order: ByteOrder) -> Self {
        let (magic1_hash, magic2_hash) = hash.check_hashes(order == ByteOrder::Foreign);
        let rwlocks = match (mutex_size, hash) {
            (0, HashKind::Old) => 0,
            (0, HashKind::Jenkins) => RWLOCK_HASH,
            _ => RWLOCK_FEATURES,
        };
        let feature_flags = if mutex_size == 0 { 0 } else { FEATURE_MUTEX };
        Self {
            order,
            hash_size,
            rwlocks,
            recovery_start: 0,
            sequence_number: 0,
            magic1_hash,
            magic2_hash,
            feature_flags,
            mutex_size,
        }
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`] says which field is wrong.
    pub fn parse(bytes: &[u8; LEN]) -> Result<Self, HeaderError> {
        let (food, words) = bytes.split_at(FOOD_LEN);
        if &food[..MAGIC_FOOD.len()] != MAGIC_FOOD || food[MAGIC_FOOD.len()] != 0 {
            return Err(HeaderError::NotTdb);
        }
        let raw = |index: usize| {
            let at = index * 4;
            u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]])
        };
        let order = match raw(0) {
            VERSION => ByteOrder::Native,
            found if found.swap_bytes() == VERSION => ByteOrder::Foreign,
            found => return Err(HeaderError::Version { found }),
        };
        let word = |index| match order {
            ByteOrder::Native => raw(index),
            ByteOrder::Foreign => raw(index).swap_bytes(),
        };
        let rwlocks = word(2);
        if ![0, RWLOCK_HASH, RWLOCK_FEATURES].contains(&rwlocks) {
            return Err(HeaderError::Rwlocks { found: rwlocks });
        }
        let hash_size = word(1);
        if hash_size == 0 {
            return Err(HeaderError::NoChains);
        }
        let features_count = rwlocks == RWLOCK_FEATURES;
        let feature_flags = if features_count { word(7) } else { 0 };
        if feature_flags & !FEATURE_MUTEX != 0 {
            return Err(HeaderError::Features { found: feature_flags });
        }
        Ok(Self {
            order,
            hash_size,
            rwlocks,
            recovery_start: word(3),
            sequence_number: word(4),
            magic1_hash: word(5),
            magic2_hash: word(6),
            feature_flags,
            mutex_size: if feature_flags & FEATURE_MUTEX != 0 { word(8) } else { 0 },
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; LEN] {
        let words = [
            VERSION,
            self.hash_size,
            self.rwlocks,
            self.recovery_start,
            self.sequence_number,
            self.magic1_hash,
            self.magic2_hash,
            self.feature_flags,
            self.mutex_size,
        ];
        let mut bytes = [0; LEN];
        bytes[..MAGIC_FOOD.len()].copy_from_slice(MAGIC_FOOD);
        for (slot, word) in bytes[FOOD_LEN..].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *slot = match self.order {
                ByteOrder::Native => word.to_le_bytes(),
                ByteOrder::Foreign => word.to_be_bytes(),
            };
        }
        bytes
    }

    /// The built-in hash function whose check hashes the header carries; `None` for a custom one.
    /// Both check hashes 0 means a file from before they existed: the old hash.
    #[must_use]
    pub fn hash_kind(&self) -> Option<HashKind> {
        let found = (self.magic1_hash, self.magic2_hash);
        if found == (0, 0) {
            return Some(HashKind::Old);
        }
        let swapped = self.order == ByteOrder::Foreign;
        [HashKind::Old, HashKind::Jenkins]
            .into_iter()
            .find(|hash| hash.check_hashes(swapped) == found)
    }

    /// `true` if robust mutexes lie in front of the logical file.
    #[must_use]
    pub fn has_mutexes(&self) -> bool {
        self.feature_flags & FEATURE_MUTEX != 0
    }
}
