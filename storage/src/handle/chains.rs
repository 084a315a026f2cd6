//! How a handle gets a chain: at once, by waiting, or from somebody who waited for it.
//!
//! Invariants
//! - A granted chain is handed out only if no crashed commit must be undone first (spec 7.6).
//!
//! Origin: `docs/spec/tdb-format.md` 4.6, 6.6, 7.6.

use std::sync::Arc;
use std::time::Instant;

use super::{Handle, Locked};
use crate::engine::AccessError;
use crate::lock::{LockKind, Locks, TryLock, Wait, WaitRefused};
use crate::mutex::MutexGuard;
use crate::recovery::needs_recovery;
use crate::wait::{ChainWaiter, WaitNotify};

impl Handle {
    /// Locks a chain if that needs no waiting; `None` if it is busy.
    ///
    /// # Errors
    /// [`AccessError::NeedsRecovery`]: have the worker call [`Handle::recover`], then try again.
    /// Others as [`AccessError`] says.
    #[inline]
    pub fn try_lock_chain(
        &mut self,
        chain: u32,
        kind: LockKind,
    ) -> Result<Option<Locked<'_>>, AccessError> {
        self.database.prefetch_chain(chain);
        match self.engine().lock_chain_checked(chain, kind, Wait::No)? {
            TryLock::Granted => Ok(Some(Locked::new(self, chain))),
            TryLock::Busy => Ok(None),
        }
    }

    /// Locks a chain, waiting for it and undoing a crashed commit if one is found.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn lock_chain(&mut self, chain: u32, kind: LockKind) -> Result<Locked<'_>, AccessError> {
        self.database.prefetch_chain(chain);
        loop {
            match self.engine().lock_chain_checked(chain, kind, Wait::Yes) {
                Ok(TryLock::Granted) => return Ok(Locked::new(self, chain)),
                Ok(TryLock::Busy) => std::thread::yield_now(),
                Err(AccessError::NeedsRecovery) => self.recover()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Locks the chain of a key, waiting for it.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn lock_key(&mut self, key: &[u8], kind: LockKind) -> Result<Locked<'_>, AccessError> {
        self.lock_chain(self.database.chain_of(key), kind)
    }

    /// Undoes one lock that [`Locked::keep`] left behind.
    ///
    /// # Errors
    /// [`AccessError::Lock`].
    #[inline]
    pub fn unlock_chain(&mut self, chain: u32) -> Result<(), AccessError> {
        Ok(self.locks.unlock_chain(chain)?)
    }

    /// Takes up a lock that was left by [`Locked::keep`].
    #[inline]
    pub fn resume_chain(&mut self, chain: u32) -> Locked<'_> {
        Locked::new(self, chain)
    }

    /// Starts a wait for a busy chain that a thread carries out; [`Handle::adopt`] takes its
    /// outcome. See [`HandleLocks::wait_for_chain`](crate::lock::HandleLocks::wait_for_chain).
    ///
    /// # Errors
    /// [`WaitRefused`].
    pub fn wait_for_chain(
        &mut self,
        chain: u32,
        kind: LockKind,
        deadline: Option<Instant>,
        notify: Arc<dyn WaitNotify>,
    ) -> Result<ChainWaiter, WaitRefused> {
        match self.locks.file_locks() {
            Some(locks) => locks.wait_for_chain(chain, kind, deadline, notify),
            None => Err(WaitRefused::Holding { chain, holding: "no locks (NOLOCK)" }),
        }
    }

    /// Takes the outcome of a wait: the chain, or `None` if its deadline came first.
    ///
    /// # Errors
    /// As [`Handle::try_lock_chain`].
    pub fn adopt(&mut self, waiter: ChainWaiter) -> Result<Option<Locked<'_>>, AccessError> {
        let chain = waiter.chain();
        let answer = match self.locks.file_locks() {
            Some(locks) => locks.adopt(waiter)?,
            None => TryLock::Busy,
        };
        if answer == TryLock::Busy {
            return Ok(None);
        }
        self.trusted(chain).map(Some)
    }

    /// Takes a chain the ring waited for ([`HandleLocks::wait_on_ring`](crate::lock::HandleLocks::wait_on_ring)).
    ///
    /// # Errors
    /// As [`Handle::try_lock_chain`].
    pub fn adopt_mutex(
        &mut self,
        guard: MutexGuard,
        chain: u32,
        kind: LockKind,
    ) -> Result<Locked<'_>, AccessError> {
        if let Some(locks) = self.locks.file_locks() {
            locks.adopt_mutex(guard, kind)?;
        }
        self.trusted(chain)
    }

    /// A chain that was just granted, if no crashed commit must be undone first.
    fn trusted(&mut self, chain: u32) -> Result<Locked<'_>, AccessError> {
        if needs_recovery(&self.database.store).unwrap_or(true) {
            self.locks.unlock_chain(chain)?;
            return Err(AccessError::NeedsRecovery);
        }
        Ok(Locked::new(self, chain))
    }
}
