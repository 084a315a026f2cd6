//! Which of the two built-in hash functions a file uses.
//!
//! Role: choose and call; also the two check hashes of the header.
//! Invariants
//! - The file decides: a caller's flag is only the first guess (spec 3.3 step 8).
//!
//! Origin: `docs/spec/tdb-format.md` 1.2, 2.3 to 2.5.

use ringmaster_protocol::hash;

use super::{MAGIC_FOOD, MAGIC_LIVE};

/// Hash function of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashKind {
    /// tdb's original one; persistent CTDB databases use it.
    Old,
    /// Jenkins lookup3; volatile and replicated CTDB databases use it.
    Jenkins,
}

impl HashKind {
    /// Hash of a key.
    #[must_use]
    #[inline]
    pub fn hash(self, key: &[u8]) -> u32 {
        match self {
            Self::Old => hash::old(key),
            Self::Jenkins => hash::jenkins(key),
        }
    }

    /// `(magic1_hash, magic2_hash)` of a header; `swapped` means the file is of the foreign order.
    #[must_use]
    pub fn check_hashes(self, swapped: bool) -> (u32, u32) {
        let mut food = [0; MAGIC_FOOD.len() + 1];
        food[..MAGIC_FOOD.len()].copy_from_slice(MAGIC_FOOD);
        let magic = if swapped { MAGIC_LIVE.to_be_bytes() } else { MAGIC_LIVE.to_le_bytes() };
        (self.hash(&food), self.hash(&magic))
    }
}
