//! Locks on a TDB file, shared with every process that uses it.
//!
//! Role: the vocabulary of locking ([`Locks`] for the record algorithms, [`FileLocks`] for
//! whole-file work) and its implementations. Who waits and how long: the caller.
//! Invariants
//! - All lock bytes are *physical* file offsets, never shifted by a mutex area (spec 4.1).
//! - One [`FileLocks`] value is one lock owner: one open file description, one handle.
//! - Lock order inside one file: TRANSACTION, ALLRECORD, OPEN | CHAIN, RECORD, FREELIST. Outside
//!   that order nobody waits while holding: nothing detects a deadlock.
//! - Nested requests only count; while ALLRECORD is held, chains need no lock. The freelist does:
//!   ALLRECORD does not cover it, and libtdb's `freelist_size` merges under it alone (spec 11.3).
//!
//! Origin: `docs/spec/tdb-format.md` 4 and 5.

pub mod handle;
pub(crate) mod range;
pub(crate) mod tick;

use std::io;

use thiserror::Error;

pub use handle::{HandleLocks, RingWait, WaitRefused};
pub use range::Blocker;

use crate::mutex::MutexError;

/// Lock byte of opening, creating, committing and recovering.
pub const OPEN_BYTE: u64 = 0;
/// Lock byte of "somebody uses this database"; held as a reader.
pub const ACTIVE_BYTE: u64 = 4;
/// Lock byte of the one transaction (and of a write-traverse).
pub const TRANSACTION_BYTE: u64 = 8;
/// Lock byte of the freelist: four less than where its head lies.
pub const FREELIST_BYTE: u64 = 164;
/// Lock byte of chain 0, and start of the ALLRECORD range.
pub const CHAIN_0_BYTE: u64 = 168;

/// Lock byte of a chain.
#[must_use]
#[inline]
pub fn chain_byte(chain: u32) -> u64 {
    CHAIN_0_BYTE + 4 * u64::from(chain)
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Shared with other readers (a chain *mutex* is exclusive all the same).
    Read,
    /// Exclusive.
    Write,
}

/// May the kernel put this thread to sleep?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Never: a busy lock is answered with [`TryLock::Busy`].
    No,
    /// Sleep until granted. Never on a shard thread.
    Yes,
}

/// Answer to a lock request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a busy lock is not held"]
pub enum TryLock {
    /// Held now.
    Granted,
    /// Somebody else holds it; only with [`Wait::No`].
    Busy,
}

/// Why a lock request failed other than by being busy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LockError {
    /// A write lock was asked for on a read-only handle or inside a read-traverse.
    #[error("cannot lock {what} for writing: the handle is read-only")]
    ReadOnly {
        /// Which lock.
        what: &'static str,
    },
    /// The handle holds something that does not go with the request (spec 4.4).
    #[error("cannot lock {what}: the handle holds {holding}")]
    Refused {
        /// Which lock.
        what: &'static str,
        /// What is in the way.
        holding: &'static str,
    },
    /// Unlock of something that is not held.
    #[error("cannot unlock {what}: it is not held")]
    NotHeld {
        /// Which lock.
        what: &'static str,
    },
    /// A robust mutex is unusable.
    #[error(transparent)]
    Mutex(#[from] MutexError),
    /// The kernel or the C library refused.
    #[error("cannot lock {what}")]
    System {
        /// Which lock.
        what: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// What the record algorithms (find, store, delete, allocate, traverse) ask for.
pub trait Locks {
    /// Locks a chain (below the hash size); nests.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value.
    fn lock_chain(&mut self, chain: u32, kind: LockKind, wait: Wait) -> Result<TryLock, LockError>;

    /// Undoes one [`Locks::lock_chain`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_chain(&mut self, chain: u32) -> Result<(), LockError>;

    /// Locks the freelist for writing; nests.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value.
    fn lock_freelist(&mut self, wait: Wait) -> Result<TryLock, LockError>;

    /// Undoes one [`Locks::lock_freelist`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_freelist(&mut self) -> Result<(), LockError>;

    /// Keeps the record at logical `offset` from being freed while a traverse stands on it: notes
    /// the position and, without ALLRECORD, takes the shared RECORD lock (waiting). Nests.
    ///
    /// # Errors
    /// [`LockError`].
    fn hold_record(&mut self, offset: u32) -> Result<(), LockError>;

    /// Undoes one [`Locks::hold_record`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn release_record(&mut self, offset: u32) -> Result<(), LockError>;

    /// The deleter's probe: `true` if no traverse, own (its positions are looked at first) or
    /// foreign, stands on the record. Stays true while the caller holds the record's chain. Under
    /// ALLRECORD `true` only if that is exclusive.
    ///
    /// # Errors
    /// [`LockError::System`].
    fn record_is_unheld(&mut self, offset: u32) -> Result<bool, LockError>;

    /// `true` while the handle holds ALLRECORD of any kind.
    fn holds_all_records(&self) -> bool;
}

/// What opening, freezing, transactions and recovery ask for beyond [`Locks`].
pub trait FileLocks: Locks {
    /// Locks every chain and record (not the freelist); nests with the same kind only. Refused
    /// while chains or freelist are held.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value, and nothing is held then.
    fn lock_all_records(&mut self, kind: LockKind, wait: Wait) -> Result<TryLock, LockError>;

    /// The transaction's variant of a read ALLRECORD, which [`FileLocks::upgrade_all_records`] may
    /// turn into a write lock; until then it counts as a write lock inside this handle.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value, and nothing is held then.
    fn lock_all_records_upgradable(&mut self, wait: Wait) -> Result<TryLock, LockError>;

    /// The same, giving up at `deadline`: for who holds TRANSACTION meanwhile, since somebody with
    /// all chains may be waiting for somebody who waits for TRANSACTION.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value, and nothing is held then.
    fn lock_all_records_upgradable_until(
        &mut self,
        deadline: std::time::Instant,
    ) -> Result<TryLock, LockError>;

    /// Turns the upgradable lock into a write lock. Tries until `deadline` has passed, then answers
    /// busy and still holds the upgradable lock (nothing detects a deadlock of two upgrades).
    ///
    /// # Errors
    /// [`LockError`].
    fn upgrade_all_records(&mut self, deadline: std::time::Instant) -> Result<TryLock, LockError>;

    /// Undoes one `lock_all_records*`.
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_all_records(&mut self) -> Result<(), LockError>;

    /// Locks TRANSACTION for writing; nests.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value.
    fn lock_transaction(&mut self, wait: Wait) -> Result<TryLock, LockError>;

    /// Undoes one [`FileLocks::lock_transaction`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_transaction(&mut self) -> Result<(), LockError>;

    /// Locks OPEN for writing; nests.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value.
    fn lock_open(&mut self, wait: Wait) -> Result<TryLock, LockError>;

    /// Undoes one [`FileLocks::lock_open`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_open(&mut self) -> Result<(), LockError>;

    /// Locks ACTIVE: [`LockKind::Write`] is the probe "am I the first?", [`LockKind::Read`] is held
    /// for the handle's life. A second call changes the kind.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value.
    fn lock_active(&mut self, kind: LockKind, wait: Wait) -> Result<TryLock, LockError>;

    /// Lets go of ACTIVE.
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_active(&mut self) -> Result<(), LockError>;

    /// Locks the plain range from chain 0 to the end of the file for writing, whatever the chain
    /// locks are made of: creation and crash recovery (spec 3.3 step 3, 7.6).
    ///
    /// # Errors
    /// [`LockError`]; busy is a value.
    fn lock_data_range(&mut self, wait: Wait) -> Result<TryLock, LockError>;

    /// Undoes [`FileLocks::lock_data_range`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`], [`LockError::System`].
    fn unlock_data_range(&mut self) -> Result<(), LockError>;

    /// `true` if a chain or the freelist is held.
    fn holds_chain_or_freelist(&self) -> bool;
}

/// No locks: memory databases, and the inside of a transaction (whose ALLRECORD covers all).
/// Positions of traverses are kept, for deleting under one's own feet must still be seen.
#[derive(Debug, Default)]
pub struct NoLocks {
    positions: Vec<u32>,
}

impl Locks for NoLocks {
    fn lock_chain(&mut self, _: u32, _: LockKind, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_chain(&mut self, _: u32) -> Result<(), LockError> {
        Ok(())
    }
    fn lock_freelist(&mut self, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_freelist(&mut self) -> Result<(), LockError> {
        Ok(())
    }
    fn hold_record(&mut self, offset: u32) -> Result<(), LockError> {
        self.positions.push(offset);
        Ok(())
    }
    fn release_record(&mut self, offset: u32) -> Result<(), LockError> {
        let at = self.positions.iter().rposition(|held| *held == offset);
        let at = at.ok_or(LockError::NotHeld { what: "a record" })?;
        self.positions.swap_remove(at);
        Ok(())
    }
    fn record_is_unheld(&mut self, offset: u32) -> Result<bool, LockError> {
        Ok(!self.positions.contains(&offset))
    }
    fn holds_all_records(&self) -> bool {
        true
    }
}

impl FileLocks for NoLocks {
    fn lock_all_records(&mut self, _: LockKind, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn lock_all_records_upgradable(&mut self, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn lock_all_records_upgradable_until(
        &mut self,
        _: std::time::Instant,
    ) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn upgrade_all_records(&mut self, _: std::time::Instant) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_all_records(&mut self) -> Result<(), LockError> {
        Ok(())
    }
    fn lock_transaction(&mut self, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_transaction(&mut self) -> Result<(), LockError> {
        Ok(())
    }
    fn lock_open(&mut self, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_open(&mut self) -> Result<(), LockError> {
        Ok(())
    }
    fn lock_active(&mut self, _: LockKind, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_active(&mut self) -> Result<(), LockError> {
        Ok(())
    }
    fn lock_data_range(&mut self, _: Wait) -> Result<TryLock, LockError> {
        Ok(TryLock::Granted)
    }
    fn unlock_data_range(&mut self) -> Result<(), LockError> {
        Ok(())
    }
    fn holds_chain_or_freelist(&self) -> bool {
        false
    }
}
