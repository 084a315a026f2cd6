//! A locked chain and what may be done under the lock.
//!
//! Invariants
//! - The chain is held as long as the guard lives; operations on keys of other chains are refused.
//!
//! Origin: `docs/spec/tdb-format.md` 6.6.

use super::Handle;
use crate::chain::{Found, StoreMode, Stored};
use crate::engine::AccessError;
use crate::freelist::MergeStep;
use crate::lock::{Locks, TryLock, Wait};

/// A chain held by a handle. Dropping it unlocks; [`Locked::unlock`] also tells if that failed.
#[derive(Debug)]
#[must_use = "dropping the guard unlocks the chain"]
pub struct Locked<'h> {
    handle: &'h mut Handle,
    chain: u32,
}

impl<'h> Locked<'h> {
    #[inline]
    pub(super) fn new(handle: &'h mut Handle, chain: u32) -> Self {
        Self { handle, chain }
    }

    /// The chain.
    #[must_use]
    pub fn chain(&self) -> u32 {
        self.chain
    }

    /// The handle, for what needs no chain or another one (only trying, spec 4.6).
    pub fn handle(&mut self) -> &mut Handle {
        self.handle
    }

    /// Leaves the chain locked for [`Handle::unlock_chain`]: a lock that outlives a borrow, for
    /// callers that keep it across turns.
    #[inline]
    pub fn keep(self) {
        std::mem::forget(self);
    }

    /// Unlocks.
    ///
    /// # Errors
    /// [`AccessError::Lock`].
    #[inline]
    pub fn unlock(self) -> Result<(), AccessError> {
        let chain = self.chain;
        let mut this = std::mem::ManuallyDrop::new(self);
        Ok(this.handle.locks.unlock_chain(chain)?)
    }

    /// Hash of a key, if the key belongs to this chain.
    #[inline]
    fn hash_of(&self, key: &[u8]) -> u32 {
        let layout = &self.handle.database.layout;
        let hash = layout.hash.hash(key);
        assert_eq!(layout.chain_of(hash), self.chain, "the key belongs to another chain");
        hash
    }

    /// Looks a key up.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn find(&mut self, key: &[u8]) -> Result<Option<Found>, AccessError> {
        let hash = self.hash_of(key);
        self.handle.engine().find(key, hash)
    }

    /// Copies the value of a found record.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn value_into(&mut self, found: &Found, value: &mut Vec<u8>) -> Result<(), AccessError> {
        self.handle.engine().value_into(found, value)
    }

    /// Copies the first bytes of a found record's value.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn value_start(&mut self, found: &Found, buf: &mut [u8]) -> Result<(), AccessError> {
        self.handle.engine().value_start(found, buf)
    }

    /// Copies the value of a key; `false` without such a record.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn fetch(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, AccessError> {
        let hash = self.hash_of(key);
        self.handle.engine().fetch_into(key, hash, value)
    }

    /// Stores the concatenation of `parts`. The chain must be locked for writing.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn store(
        &mut self,
        key: &[u8],
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        let hash = self.hash_of(key);
        self.handle.store_held(key, hash, parts, mode)
    }

    /// Deletes a key; `false` if it was not there. The chain must be locked for writing.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, AccessError> {
        let hash = self.hash_of(key);
        self.handle.delete_held(key, hash)
    }

    /// Visits every live record of the chain; stops at `false`. The buffers are used again.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn for_each(
        &mut self,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
        visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), AccessError> {
        self.handle.engine().visit_chain(self.chain, key, value, visit)
    }

    /// One bounded step of merging free blocks; `None` if the freelist is busy. The chain must be
    /// locked for writing.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn try_merge_free_blocks(
        &mut self,
        from: u32,
        limit: u32,
    ) -> Result<Option<MergeStep>, AccessError> {
        if self.handle.locks.lock_freelist(Wait::No)? == TryLock::Busy {
            return Ok(None);
        }
        let step = self.handle.engine().merge_free_blocks(from, limit);
        self.handle.locks.unlock_freelist()?;
        step.map(Some)
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // Fails only if the mutex was taken from us (spec 11.2), which the area counts.
        let _ = self.handle.locks.unlock_chain(self.chain);
    }
}
