//! The 24 bytes in front of every record, free block and recovery area.
//!
//! Role: words to fields and back. Which values make sense where: the walkers.
//! Invariants
//! - Any 24 bytes decode; [`Magic::Other`] keeps what nobody knows.
//!
//! Origin: `docs/spec/tdb-format.md` 2.1.

use super::{
    MAGIC_DEAD, MAGIC_FREE, MAGIC_LIVE, MAGIC_RECOVERY, MAGIC_RECOVERY_IDLE, RECORD_LEN, TAILER_LEN,
};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// Holds a key and a value.
    Live,
    /// On the freelist.
    Free,
    /// Deleted, still in its chain.
    Dead,
    /// Recovery area that must be played back.
    Recovery,
    /// Idle recovery area, or bytes never written.
    RecoveryIdle,
    /// None of these: corrupt, or bytes that never were a record.
    Other(u32),
}

impl Magic {
    /// From the word in the file.
    #[must_use]
    #[inline]
    pub fn from_word(word: u32) -> Self {
        match word {
            MAGIC_LIVE => Self::Live,
            MAGIC_FREE => Self::Free,
            MAGIC_DEAD => Self::Dead,
            MAGIC_RECOVERY => Self::Recovery,
            MAGIC_RECOVERY_IDLE => Self::RecoveryIdle,
            other => Self::Other(other),
        }
    }

    /// The word in the file.
    #[must_use]
    #[inline]
    pub fn word(self) -> u32 {
        match self {
            Self::Live => MAGIC_LIVE,
            Self::Free => MAGIC_FREE,
            Self::Dead => MAGIC_DEAD,
            Self::Recovery => MAGIC_RECOVERY,
            Self::RecoveryIdle => MAGIC_RECOVERY_IDLE,
            Self::Other(word) => word,
        }
    }
}

/// A record header. For free blocks only `next`, `rec_len` and `magic` count; a recovery area uses
/// the fields for other things (spec 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Offset of the next record of the chain or freelist; 0 at the end.
    pub next: u32,
    /// Bytes of the body: key, value, padding, tailer.
    pub rec_len: u32,
    /// Bytes of the key.
    pub key_len: u32,
    /// Bytes of the value.
    pub data_len: u32,
    /// Hash of the key.
    pub full_hash: u32,
    /// What it is.
    pub magic: Magic,
}

impl RecordHeader {
    /// From the six words in the file.
    #[must_use]
    #[inline]
    pub fn from_words(words: [u32; 6]) -> Self {
        let [next, rec_len, key_len, data_len, full_hash, magic] = words;
        Self { next, rec_len, key_len, data_len, full_hash, magic: Magic::from_word(magic) }
    }

    /// The six words in the file.
    #[must_use]
    #[inline]
    pub fn words(&self) -> [u32; 6] {
        [self.next, self.rec_len, self.key_len, self.data_len, self.full_hash, self.magic.word()]
    }

    /// Size of the whole record with its header; `None` beyond 4 GiB (corrupt).
    #[must_use]
    #[inline]
    pub fn total_len(&self) -> Option<u32> {
        self.rec_len.checked_add(RECORD_LEN)
    }

    /// Offset of the first byte behind a record at `offset`.
    #[must_use]
    #[inline]
    pub fn end(&self, offset: u32) -> Option<u32> {
        self.total_len().and_then(|total| offset.checked_add(total))
    }

    /// Offset of the tailer of a record at `offset`.
    #[must_use]
    #[inline]
    pub fn tailer_offset(&self, offset: u32) -> Option<u32> {
        self.end(offset).and_then(|end| end.checked_sub(TAILER_LEN))
    }

    /// `true` if key and value lie inside the body.
    #[must_use]
    #[inline]
    pub fn lengths_fit(&self) -> bool {
        self.key_len.checked_add(self.data_len).is_some_and(|used| used <= self.rec_len)
    }
}
