//! Records in their hash chains: find, store, append, delete, dead records.
//!
//! Role: what a key's operations do to the bytes, as libtdb does them. Allocation: `freelist.rs`;
//! what becomes of dead records: `dead.rs`.
//! Invariants
//! - The caller holds the chain of the key: for reading to find, for writing to change.
//! - Not crash-atomic, as in libtdb: a process killed inside a store may lose the old record or leak
//!   a block. Links are written last, so no list ever leads into nowhere.
//! - Dead records may lie in any chain in any number: lookups skip them, surgery keeps them.
//!
//! Origin: `docs/spec/tdb-format.md` 2.2, 2.6, 2.8, 6.2 to 6.4.

use crate::dead::DeadRecord;
use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{Magic, RECORD_LEN, RecordHeader, TAILER_LEN};
use crate::lock::{Locks, TryLock, Wait};
use crate::store::Store;

/// What to do if the key is there, or is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreMode {
    /// Store in any case.
    #[default]
    Replace,
    /// Only if the key is not there.
    Insert,
    /// Only if the key is there.
    Modify,
}

/// What a store did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing is stored unless this says so"]
pub enum Stored {
    /// The record has the value now.
    Done,
    /// [`StoreMode::Insert`] met the key; nothing changed.
    Exists,
    /// [`StoreMode::Modify`] did not meet the key; nothing changed.
    Missing,
    /// The freelist is busy and the handle never waits; nothing changed. Try again.
    Busy,
}

/// A live record, as it was when it was found: good while the chain stays locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Logical offset of the record header.
    pub offset: u32,
    /// The header.
    pub header: RecordHeader,
}

impl Found {
    /// Bytes of the value.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.header.data_len as usize
    }

    /// Offset of the value; saturates (and is then out of bounds) if the header lies.
    #[inline]
    pub(crate) fn value_at(&self) -> u32 {
        self.offset.saturating_add(RECORD_LEN).saturating_add(self.header.key_len)
    }
}

/// A record about to be stored.
pub(crate) struct NewRecord<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) hash: u32,
    pub(crate) parts: &'a [&'a [u8]],
    pub(crate) key_len: u32,
    data_len: u32,
}

impl<'a> NewRecord<'a> {
    pub(crate) fn of(key: &'a [u8], hash: u32, parts: &'a [&'a [u8]]) -> Result<Self, AccessError> {
        let (key_len, data_len) = lengths(key, parts)?;
        Ok(Self { key, hash, parts, key_len, data_len })
    }

    /// Bytes of key and value; the sum was checked when the lengths were taken.
    pub(crate) fn len(&self) -> u32 {
        self.key_len + self.data_len
    }

    /// Body of the smallest record that it fits into.
    pub(crate) fn needed(&self) -> Result<u32, AccessError> {
        let len = self.len();
        len.checked_add(TAILER_LEN).ok_or(AccessError::TooLarge { len: len.into() })
    }
}

/// Length of a key or value in the file.
#[inline]
pub(crate) fn len_u32(len: usize) -> Result<u32, AccessError> {
    u32::try_from(len).map_err(|_| AccessError::TooLarge { len: len as u64 })
}

/// Resizes to `len` bytes, keeping the memory and what is in it.
#[inline]
pub(crate) fn resize(buf: &mut Vec<u8>, len: usize) {
    if buf.len() > len {
        buf.truncate(len);
    } else {
        buf.resize(len, 0);
    }
}

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// Looks a key up. `hash` is its hash by the file's function.
    ///
    /// # Errors
    /// [`AccessError::Corrupt`], [`AccessError::Store`].
    #[inline]
    pub fn find(&self, key: &[u8], hash: u32) -> Result<Option<Found>, AccessError> {
        let mut offset = self.store.read_u32(self.layout.head_of(self.layout.chain_of(hash)))?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            if header.full_hash == hash
                && header.key_len as usize == key.len()
                && header.magic == Magic::Live
                && self.store.matches(offset.saturating_add(RECORD_LEN), key)?
            {
                return Ok(Some(Found { offset, header }));
            }
            circle.check(offset)?;
            offset = header.next;
        }
        Ok(None)
    }

    /// Copies the value of a found record into `buf`, whose memory is used again.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    #[inline]
    pub fn value_into(&self, found: &Found, buf: &mut Vec<u8>) -> Result<(), AccessError> {
        self.check_range(found.value_at(), found.value_len())?;
        resize(buf, found.value_len());
        Ok(self.store.read(found.value_at(), buf)?)
    }

    /// Copies the first bytes of the value (at most `value_len` of them).
    ///
    /// # Errors
    /// [`AccessError::Store`]; a `buf` longer than the value may run out of the file.
    #[inline]
    pub fn value_start(&self, found: &Found, buf: &mut [u8]) -> Result<(), AccessError> {
        Ok(self.store.read(found.value_at(), buf)?)
    }

    /// Copies the value of a key into `buf`; `false` (and `buf` untouched) without such a record.
    ///
    /// # Errors
    /// [`AccessError::Corrupt`], [`AccessError::Store`].
    #[inline]
    pub fn fetch_into(
        &self,
        key: &[u8],
        hash: u32,
        buf: &mut Vec<u8>,
    ) -> Result<bool, AccessError> {
        match self.find(key, hash)? {
            Some(found) => self.value_into(&found, buf).map(|()| true),
            None => Ok(false),
        }
    }

    /// Stores the concatenation of `parts` under `key`.
    ///
    /// # Errors
    /// [`AccessError`]. If no block can be had, the old record stays (in libtdb it is gone).
    pub fn store(
        &mut self,
        key: &[u8],
        hash: u32,
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        let new = NewRecord::of(key, hash, parts)?;
        let (found, dead) = if self.policy.max_dead > 0 {
            self.find_or_dead(&new)?
        } else {
            (self.find(key, hash)?, None)
        };
        self.store_over(found, dead, &new, mode)
    }

    /// The rest of a store: `found` is what [`Engine::find`] has just said of the key; `dead` is
    /// the dead record of its chain for a key that is not there, if such records are used.
    pub(crate) fn store_over(
        &mut self,
        found: Option<Found>,
        dead: Option<DeadRecord>,
        new: &NewRecord<'_>,
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        match (mode, found) {
            (StoreMode::Insert, Some(_)) => return Ok(Stored::Exists),
            (StoreMode::Modify, None) => return Ok(Stored::Missing),
            (_, Some(found)) if self.update_in_place(&found, new.parts, new.data_len)? => {
                self.count_change()?;
                return Ok(Stored::Done);
            }
            (_, None) => {
                if let Some(dead) = dead
                    && self.use_again(&dead, new)?
                {
                    return Ok(Stored::Done);
                }
            }
            _ => {}
        }
        if !self.policy.never_waits {
            return self.replace(found, new);
        }
        if self.locks.lock_freelist(Wait::No)? == TryLock::Granted {
            let stored = self.replace(found, new);
            self.locks.unlock_freelist()?;
            return stored;
        }
        match found {
            Some(old) => self.replace_without_freelist(&old, new),
            None => Ok(Stored::Busy),
        }
    }

    /// Deletes the old record, takes a block and links the new one. The own chain's dead record
    /// was tried if there is no old one.
    fn replace(&mut self, old: Option<Found>, new: &NewRecord<'_>) -> Result<Stored, AccessError> {
        let Some(old) = old else {
            let (offset, block) = self.allocate(new, None)?;
            return self.link(offset, &block, new);
        };
        let chain = self.layout.chain_of(new.hash);
        if self.policy.max_dead == 0 || self.dead_in(chain)? >= self.policy.max_dead {
            // The old block is freed at once. Nobody may take it before the new record has a
            // place: without one, the old record is put back.
            return self.with_freelist(|engine| engine.exchange(&old, new));
        }
        self.exchange(&old, new)
    }

    fn exchange(&mut self, old: &Found, new: &NewRecord<'_>) -> Result<Stored, AccessError> {
        self.delete_found(old)?;
        if self.policy.max_dead > 0
            && let Some(dead) = self.best_dead(self.layout.chain_of(new.hash), new)?
            && let Some(block) = self.unlink_dead(&dead)?
        {
            return self.link(dead.offset, &block, new);
        }
        let (offset, block) = self.allocate(new, Some(old))?;
        self.link(offset, &block, new)
    }

    /// The same while somebody else has the freelist: into a dead record of the own chain, if one
    /// fits. What becomes dead stays in the chain until a later change trims it.
    fn replace_without_freelist(
        &mut self,
        old: &Found,
        new: &NewRecord<'_>,
    ) -> Result<Stored, AccessError> {
        if self.policy.max_dead == 0 {
            return Ok(Stored::Busy);
        }
        let chain = self.layout.chain_of(new.hash);
        let Some(dead) = self.best_dead(chain, new)? else { return Ok(Stored::Busy) };
        let Some(block) = self.unlink_dead(&dead)? else { return Ok(Stored::Busy) };
        // The dead record may have stood right before the old one: read it anew.
        let header = self.read_chained(old.offset)?;
        self.write_header(old.offset, &RecordHeader { magic: Magic::Dead, ..header })?;
        self.count_change()?;
        self.link(dead.offset, &block, new)
    }

    /// Fills a block and puts it at the head of its chain; the link is written last.
    pub(crate) fn link(
        &self,
        offset: u32,
        block: &RecordHeader,
        new: &NewRecord<'_>,
    ) -> Result<Stored, AccessError> {
        let head = self.layout.head_of(self.layout.chain_of(new.hash));
        let record = RecordHeader {
            next: self.store.read_u32(head)?,
            rec_len: block.rec_len,
            key_len: new.key_len,
            data_len: new.data_len,
            full_hash: new.hash,
            magic: Magic::Live,
        };
        self.write_header(offset, &record)?;
        let key_at = offset.saturating_add(RECORD_LEN);
        self.store.write(key_at, new.key)?;
        self.write_parts(key_at.saturating_add(new.key_len), new.parts)?;
        self.store.write_u32(head, offset)?;
        self.count_change()?;
        Ok(Stored::Done)
    }

    /// Adds bytes to the end of a value, creating the record if it is missing.
    ///
    /// # Errors
    /// As [`Engine::store`].
    pub fn append(&mut self, key: &[u8], hash: u32, more: &[u8]) -> Result<Stored, AccessError> {
        let mut old = Vec::new();
        if self.fetch_into(key, hash, &mut old)? {
            self.store(key, hash, &[&old, more], StoreMode::Replace)
        } else {
            self.store(key, hash, &[more], StoreMode::Replace)
        }
    }

    /// Deletes a key; `false` if it was not there.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn delete(&mut self, key: &[u8], hash: u32) -> Result<bool, AccessError> {
        if self.policy.max_dead > 0 {
            return self.delete_leaving_dead(key, hash);
        }
        match self.find(key, hash)? {
            Some(found) => self.delete_found(&found).map(|()| true),
            None => Ok(false),
        }
    }

    /// Writes the value over the old one if it fits; `true` if done. Same bytes: nothing is written.
    fn update_in_place(
        &self,
        found: &Found,
        parts: &[&[u8]],
        data_len: u32,
    ) -> Result<bool, AccessError> {
        if found.header.data_len == data_len && self.parts_match(found.value_at(), parts)? {
            return Ok(true);
        }
        let needed = found.header.key_len.checked_add(data_len);
        let needed = needed.and_then(|len| len.checked_add(TAILER_LEN));
        if needed.is_none_or(|needed| needed > found.header.rec_len) {
            return Ok(false);
        }
        self.write_parts(found.value_at(), parts)?;
        if data_len != found.header.data_len {
            self.write_header(found.offset, &RecordHeader { data_len, ..found.header })?;
        }
        Ok(true)
    }

    fn parts_match(&self, mut at: u32, parts: &[&[u8]]) -> Result<bool, AccessError> {
        for part in parts {
            if !self.store.matches(at, part)? {
                return Ok(false);
            }
            at = at.saturating_add(len_u32(part.len())?);
        }
        Ok(true)
    }

    pub(crate) fn write_parts(&self, mut at: u32, parts: &[&[u8]]) -> Result<(), AccessError> {
        for part in parts {
            self.store.write(at, part)?;
            at = at.saturating_add(len_u32(part.len())?);
        }
        Ok(())
    }

    /// Deletes the record that [`Engine::find`] has just found under the same lock.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn delete_found(&mut self, found: &Found) -> Result<(), AccessError> {
        self.write_header(found.offset, &RecordHeader { magic: Magic::Dead, ..found.header })?;
        self.count_change()?;
        self.trim_dead(self.layout.chain_of(found.header.full_hash), self.policy.max_dead)
    }
}

/// Lengths of key and value, which together must leave room for header and tailer.
pub(crate) fn lengths(key: &[u8], parts: &[&[u8]]) -> Result<(u32, u32), AccessError> {
    let data: usize = parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()));
    let both = key.len().saturating_add(data);
    len_u32(both)?;
    Ok((len_u32(key.len())?, len_u32(data)?))
}
