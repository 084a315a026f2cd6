//! The record algorithms of one open database, and what they share.
//!
//! Role: [`Engine`] ties together where the bytes are, how they are locked and by which policy the
//! handle works; its methods live in `chain.rs`, `freelist.rs`, `traverse.rs`, `whole.rs`. It is
//! cheap to make: handles and transactions build one per call.
//! Invariants
//! - Everything read from the file is outside input: lengths and offsets are checked before use,
//!   and walks of linked lists end even in a circle.
//! - Methods say which locks the caller holds; what they take themselves they give back, also on
//!   failure.
//! - Nothing read under a lock is used after the lock was given back.
//!
//! Origin: `docs/spec/tdb-format.md` 2 and 6.

use thiserror::Error;

use crate::format::{Layout, Magic, RecordHeader};
use crate::lock::{LockError, Locks, TryLock, Wait};
use crate::recovery::RecoveryError;
use crate::store::{Store, StoreError};

/// Why an operation on records failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// Bytes could not be read or written, or the file cannot grow.
    #[error("database access failed: {0}")]
    Store(#[from] StoreError),
    /// A lock could not be had for another reason than being busy.
    #[error("database lock failed: {0}")]
    Lock(#[from] LockError),
    /// The structure of the file is wrong at this place.
    #[error("database is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// Logical offset of the structure.
        offset: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A commit was cut short: it must be undone before the data may be trusted. Handles that may
    /// wait do so themselves; a shard has the database's worker do it and asks again.
    #[error("the database holds an unfinished transaction that must be undone first")]
    NeedsRecovery,
    /// Undoing it failed.
    #[error("cannot undo an unfinished transaction: {0}")]
    Recovery(#[from] RecoveryError),
    /// Key and value together do not fit into 32 bits.
    #[error("record of {len} bytes is too large for a database")]
    TooLarge {
        /// Bytes of key and value.
        len: u64,
    },
}

impl AccessError {
    /// A lock that was to be waited for is busy all the same.
    pub(crate) fn busy(what: &'static str) -> Self {
        let source = std::io::Error::from_raw_os_error(libc::EAGAIN);
        LockError::System { what, source }.into()
    }

    /// `true` if the file is to blame: wrong structure or an offset that leads out of it.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Store(StoreError::OutOfBounds { .. }))
    }
}

/// What belongs to a handle, not to the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Dead records that may stay in a chain: 0, or 5 for VOLATILE handles and ctdbd.
    pub max_dead: u32,
    /// The handle counts changes in the sequence number.
    pub seqnum: bool,
    /// The handle serves a shard: it never sleeps for the freelist. A store that needs it while it
    /// is busy answers [`Stored::Busy`](crate::chain::Stored::Busy), a delete leaves its dead
    /// record for later.
    pub never_waits: bool,
}

/// One database in use: bytes, locks, facts, policy.
#[derive(Debug)]
pub struct Engine<'a, S, L> {
    /// The bytes.
    pub store: &'a S,
    /// The locks of the owner that is at work.
    pub locks: &'a mut L,
    /// Facts of the file.
    pub layout: Layout,
    /// Facts of the handle.
    pub policy: Policy,
}

/// Ends a walk that has met the same offset again: Brent's cycle detection, which reads nothing
/// twice. Offset 0 ends every list, so it never is the mark of a running walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CycleGuard {
    mark: u32,
    steps: u32,
    power: u32,
}

impl Default for CycleGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl CycleGuard {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { mark: 0, steps: 0, power: 1 }
    }

    /// Call with every offset of the walk.
    ///
    /// # Errors
    /// [`AccessError::Corrupt`] at the second visit (at the latest some rounds later).
    #[inline]
    pub(crate) fn check(&mut self, offset: u32) -> Result<(), AccessError> {
        if offset == self.mark {
            return Err(AccessError::Corrupt { offset, reason: "the list runs in a circle" });
        }
        self.steps += 1;
        if self.steps == self.power {
            self.mark = offset;
            self.steps = 0;
            self.power = self.power.saturating_mul(2);
        }
        Ok(())
    }
}

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// Header of a record in a hash chain.
    #[inline]
    pub(crate) fn read_chained(&self, offset: u32) -> Result<RecordHeader, AccessError> {
        let record = RecordHeader::from_words(self.store.read_words(offset)?);
        if !matches!(record.magic, Magic::Live | Magic::Dead) {
            return Err(AccessError::Corrupt { offset, reason: "bad magic in a hash chain" });
        }
        if !record.lengths_fit() {
            return Err(AccessError::Corrupt { offset, reason: "key and value exceed the record" });
        }
        Ok(record)
    }

    /// Header of anything, unjudged.
    #[inline]
    pub(crate) fn read_header(&self, offset: u32) -> Result<RecordHeader, AccessError> {
        Ok(RecordHeader::from_words(self.store.read_words(offset)?))
    }

    #[inline]
    pub(crate) fn write_header(
        &self,
        offset: u32,
        record: &RecordHeader,
    ) -> Result<(), AccessError> {
        Ok(self.store.write_words(offset, record.words())?)
    }

    /// Refuses a range that is not inside the file, before memory is made for it.
    #[inline]
    pub(crate) fn check_range(&self, offset: u32, len: usize) -> Result<(), AccessError> {
        let end = u64::from(offset).saturating_add(len as u64);
        if end <= u64::from(self.store.known_len()) {
            return Ok(());
        }
        let file_len = u64::from(self.store.refresh_len()?);
        if end <= file_len {
            return Ok(());
        }
        Err(StoreError::OutOfBounds { offset, len, file_len }.into())
    }

    /// Counts a change, if this handle counts.
    #[inline]
    pub(crate) fn count_change(&self) -> Result<(), AccessError> {
        if self.policy.seqnum {
            self.store.add_seqnum()?;
        }
        Ok(())
    }

    /// May the handle sleep for the freelist?
    #[inline]
    pub(crate) fn freelist_wait(&self) -> Wait {
        if self.policy.never_waits { Wait::No } else { Wait::Yes }
    }

    /// Runs `work` under the freelist lock, waiting for it.
    pub(crate) fn with_freelist<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        match self.locks.lock_freelist(Wait::Yes)? {
            TryLock::Granted => {}
            TryLock::Busy => return Err(AccessError::busy("the freelist")),
        }
        let done = work(self);
        self.locks.unlock_freelist()?;
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_of_every_length_end_and_straight_walks_do_not() {
        for circle in 1..50_u32 {
            let mut guard = CycleGuard::new();
            let ended = (0..1000).any(|step| guard.check(100 + 4 * (step % circle)).is_err());
            assert!(ended, "circle of {circle}");
        }
        let mut guard = CycleGuard::new();
        for step in 1..100_000 {
            guard.check(step * 4).unwrap();
        }
    }
}
