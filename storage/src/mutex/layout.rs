//! Where each mutex lies in the area in front of a mutex file. Pure.
//!
//! Role: offsets, sizes and the meaning of a lock word. Touching them: `mutex.rs`.
//! Invariants
//! - Offsets are file offsets; the area starts at 0 with a copy of the TDB header.
//! - Every mutex and the state word are naturally aligned (const asserts below).
//!
//! Origin: `docs/spec/tdb-format.md` 5.2, 5.3; robust futexes: Linux `robust-futex-ABI`.

use crate::format::HEADER_LEN;

/// Size of one mutex: 40 bytes on x86-64, 48 on aarch64. A file carries it implicitly in
/// `mutex_size`, so a file does not move between the two.
#[allow(clippy::cast_possible_truncation, reason = "a pthread_mutex_t has tens of bytes")]
pub(super) const MUTEX_LEN: u32 = size_of::<libc::pthread_mutex_t>() as u32;
/// Alignment the C compiler gives a `pthread_mutex_t` (it holds pointers).
const MUTEX_ALIGN: u32 = 8;
/// Offset of `allrecord_mutex`.
const ALLRECORD_MUTEX: u32 = HEADER_LEN;
/// Offset of the 16-bit state word `allrecord_lock`.
pub(super) const ALLRECORD_STATE: u32 = ALLRECORD_MUTEX + MUTEX_LEN;
/// Offset of the freelist's mutex; the chains' follow.
const FIRST_MUTEX: u32 = (ALLRECORD_STATE + 2).next_multiple_of(MUTEX_ALIGN);

const _: () = assert!(ALLRECORD_MUTEX.is_multiple_of(MUTEX_ALIGN));
const _: () = assert!(MUTEX_LEN.is_multiple_of(MUTEX_ALIGN));
const _: () = assert!(ALLRECORD_STATE.is_multiple_of(2));
#[cfg(target_arch = "x86_64")]
const _: () = assert!(MUTEX_LEN == 40 && ALLRECORD_STATE == 208 && FIRST_MUTEX == 216);

/// Bit of a lock word: somebody sleeps on it, so its unlocker must wake one.
pub const WAITERS: u32 = 0x8000_0000;
/// Bit of a lock word: the last owner died while it held the mutex.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Part of a lock word that holds the owner's thread id; 0 = nobody.
pub const OWNER: u32 = 0x3FFF_FFFF;

/// One mutex of the area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// `allrecord_mutex`: held as long as the all-record lock; chain lockers queue on it.
    AllRecords,
    /// The freelist's.
    Freelist,
    /// A chain's; below the hash size.
    Chain(u32),
}

impl Slot {
    /// File offset of the mutex, `None` for a chain that a file of `hash_size` chains lacks.
    pub(super) fn offset(self, hash_size: u32) -> Option<u32> {
        match self {
            Self::AllRecords => Some(ALLRECORD_MUTEX),
            Self::Freelist => Some(FIRST_MUTEX),
            Self::Chain(chain) if chain < hash_size => {
                chain.checked_add(1)?.checked_mul(MUTEX_LEN)?.checked_add(FIRST_MUTEX)
            }
            Self::Chain(_) => None,
        }
    }
}

/// `mutex_size` of a file with this many chains: the area rounded up to whole pages. `None` if it
/// does not fit the header's 32 bits (no such file can exist).
#[must_use]
pub fn area_len(hash_size: u32, page_size: u32) -> Option<u32> {
    let mutexes = hash_size.checked_add(1)?.checked_mul(MUTEX_LEN)?;
    FIRST_MUTEX.checked_add(mutexes)?.checked_next_multiple_of(page_size)
}

/// What `allrecord_lock` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllRecordState {
    /// Nobody holds the all-record lock.
    Free,
    /// Held by a reader (a transaction before its commit): chains may be read.
    Read,
    /// Held by a writer.
    Write,
    /// No process writes this: the area was overwritten or never initialised.
    Unknown(i16),
}

impl AllRecordState {
    /// From the word in the file (the values of `F_UNLCK`, `F_RDLCK`, `F_WRLCK` on Linux).
    #[must_use]
    pub const fn from_word(word: i16) -> Self {
        match word {
            2 => Self::Free,
            0 => Self::Read,
            1 => Self::Write,
            other => Self::Unknown(other),
        }
    }

    /// The word in the file.
    pub(super) const fn word(self) -> i16 {
        match self {
            Self::Free => 2,
            Self::Read => 0,
            Self::Write => 1,
            Self::Unknown(word) => word,
        }
    }

    /// May a chain be held for reading (or, with `writing`, for writing) in this state?
    #[must_use]
    pub const fn admits(self, writing: bool) -> bool {
        match self {
            Self::Free => true,
            Self::Read => !writing,
            Self::Write | Self::Unknown(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn area_lengths_are_those_of_libtdb() {
        // The table of spec 5.2.
        for (hash_size, len) in
            [(3, 4096), (131, 8192), (1000, 40_960), (10_007, 401_408), (100_001, 4_001_792)]
        {
            assert_eq!(area_len(hash_size, 4096), Some(len), "hash size {hash_size}");
        }
    }

    #[test]
    fn area_that_does_not_fit_the_header_has_no_length() {
        assert_eq!(area_len(u32::MAX, 4096), None);
        assert_eq!(area_len(u32::MAX / MUTEX_LEN, 4096), None);
    }

    #[test]
    fn last_chain_ends_inside_the_area_and_the_next_does_not_exist() {
        for hash_size in [1, 3, 131, 100_001] {
            let len = area_len(hash_size, 4096).unwrap();
            let last = Slot::Chain(hash_size - 1).offset(hash_size).unwrap();
            assert!(last + MUTEX_LEN <= len);
            assert_eq!(Slot::Chain(hash_size).offset(hash_size), None);
        }
    }

    #[test]
    fn zeroed_state_word_means_read_locked() {
        assert_eq!(AllRecordState::from_word(0), AllRecordState::Read);
        assert!(!AllRecordState::from_word(7).admits(false));
    }
}
