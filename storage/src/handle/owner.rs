//! The locks of a handle: real ones, or none at all for NOLOCK and read-only handles.
//!
//! Invariants
//! - Without locks every request is granted and nothing is excluded: as in libtdb that is for files
//!   nobody else uses, and for looking at a file without disturbing anybody.
//!
//! Origin: `docs/spec/tdb-format.md` 3.1, 3.2.

use std::time::Instant;

use crate::lock::{FileLocks, HandleLocks, LockError, LockKind, Locks, NoLocks, TryLock, Wait};

/// What a handle locks with.
#[derive(Debug)]
pub enum Owner {
    /// Locks that other processes respect.
    File(Box<HandleLocks>),
    /// None.
    Nobody(NoLocks),
}

impl Owner {
    /// The real locks, if there are any: for waiting on busy chains.
    pub fn file_locks(&mut self) -> Option<&mut HandleLocks> {
        match self {
            Self::File(locks) => Some(locks),
            Self::Nobody(_) => None,
        }
    }
}

macro_rules! forward {
    ($($method:ident($($arg:ident: $kind:ty),*) -> $ret:ty;)*) => { $(
        #[inline]
        fn $method(&mut self, $($arg: $kind),*) -> $ret {
            match self {
                Self::File(locks) => locks.$method($($arg),*),
                Self::Nobody(locks) => locks.$method($($arg),*),
            }
        }
    )* };
}

impl Locks for Owner {
    forward! {
        lock_chain(chain: u32, kind: LockKind, wait: Wait) -> Result<TryLock, LockError>;
        unlock_chain(chain: u32) -> Result<(), LockError>;
        lock_freelist(wait: Wait) -> Result<TryLock, LockError>;
        unlock_freelist() -> Result<(), LockError>;
        hold_record(offset: u32) -> Result<(), LockError>;
        release_record(offset: u32) -> Result<(), LockError>;
        record_is_unheld(offset: u32) -> Result<bool, LockError>;
    }

    #[inline]
    fn holds_all_records(&self) -> bool {
        match self {
            Self::File(locks) => locks.holds_all_records(),
            Self::Nobody(locks) => locks.holds_all_records(),
        }
    }
}

impl FileLocks for Owner {
    forward! {
        lock_all_records(kind: LockKind, wait: Wait) -> Result<TryLock, LockError>;
        lock_all_records_upgradable(wait: Wait) -> Result<TryLock, LockError>;
        lock_all_records_upgradable_until(deadline: Instant) -> Result<TryLock, LockError>;
        upgrade_all_records(deadline: Instant) -> Result<TryLock, LockError>;
        unlock_all_records() -> Result<(), LockError>;
        lock_transaction(wait: Wait) -> Result<TryLock, LockError>;
        unlock_transaction() -> Result<(), LockError>;
        lock_open(wait: Wait) -> Result<TryLock, LockError>;
        unlock_open() -> Result<(), LockError>;
        lock_active(kind: LockKind, wait: Wait) -> Result<TryLock, LockError>;
        unlock_active() -> Result<(), LockError>;
        lock_data_range(wait: Wait) -> Result<TryLock, LockError>;
        unlock_data_range() -> Result<(), LockError>;
    }

    fn holds_chain_or_freelist(&self) -> bool {
        match self {
            Self::File(locks) => locks.holds_chain_or_freelist(),
            Self::Nobody(locks) => locks.holds_chain_or_freelist(),
        }
    }
}
