//! Records in their hash chains: find, store, append, delete, dead records.
//!
//! Role: what a key's operations do to the bytes, as libtdb does them. Allocation: `freelist.rs`.
//! Invariants
//! - The caller holds the chain of the key: for reading to find, for writing to change.
//! - Not crash-atomic, as in libtdb: a process killed inside a store may lose the old record or leak
//!   a block. Links are written last, so no list ever leads into nowhere.
//! - Dead records may lie in any chain in any number: lookups skip them, surgery keeps them.
//!
//! Origin: `docs/spec/tdb-format.md` 2.2, 2.6, 2.8, 6.2 to 6.4.

use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{Magic, RECORD_LEN, RecordHeader, TAILER_LEN};
use crate::lock::{LockKind, Locks, TryLock, Wait};
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
struct NewRecord<'a> {
    key: &'a [u8],
    hash: u32,
    parts: &'a [&'a [u8]],
    key_len: u32,
    data_len: u32,
}

impl NewRecord<'_> {
    /// Bytes of key and value; the sum was checked when the lengths were taken.
    fn len(&self) -> u32 {
        self.key_len + self.data_len
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
    /// [`AccessError`]. If no block can be had, the old record may already be gone, as in libtdb.
    pub fn store(
        &mut self,
        key: &[u8],
        hash: u32,
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        let _ = lengths(key, parts)?;
        let found = self.find(key, hash)?;
        self.store_over(found, key, hash, parts, mode)
    }

    /// The rest of a store: `found` is what [`Engine::find`] has just said of the key.
    pub(crate) fn store_over(
        &mut self,
        found: Option<Found>,
        key: &[u8],
        hash: u32,
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        let (key_len, data_len) = lengths(key, parts)?;
        match (mode, found) {
            (StoreMode::Insert, Some(_)) => return Ok(Stored::Exists),
            (StoreMode::Modify, None) => return Ok(Stored::Missing),
            (_, Some(found)) if self.update_in_place(&found, parts, data_len)? => {
                self.count_change()?;
                return Ok(Stored::Done);
            }
            _ => {}
        }
        let new = NewRecord { key, hash, parts, key_len, data_len };
        if !self.policy.never_waits {
            return self.replace(found, &new);
        }
        if self.locks.lock_freelist(Wait::No)? == TryLock::Granted {
            let stored = self.replace(found, &new);
            self.locks.unlock_freelist()?;
            return stored;
        }
        self.replace_without_freelist(found, &new)
    }

    /// Deletes the old record, takes a block and links the new one.
    fn replace(&mut self, old: Option<Found>, new: &NewRecord<'_>) -> Result<Stored, AccessError> {
        if let Some(old) = old {
            self.delete_found(&old)?;
        }
        let (offset, block) = self.allocate(new.hash, new.len())?;
        self.link(offset, &block, new)
    }

    /// The same while somebody else has the freelist: into a dead record of the own chain, if one
    /// fits. What becomes dead stays in the chain until a later change trims it.
    fn replace_without_freelist(
        &mut self,
        old: Option<Found>,
        new: &NewRecord<'_>,
    ) -> Result<Stored, AccessError> {
        if self.policy.max_dead == 0 {
            return Ok(Stored::Busy);
        }
        let chain = self.layout.chain_of(new.hash);
        let Some((offset, block)) = self.unlink_dead(chain, new.len())? else {
            return Ok(Stored::Busy);
        };
        if let Some(old) = old {
            // The dead record may have stood right before the old one: read it anew.
            let header = self.read_chained(old.offset)?;
            self.write_header(old.offset, &RecordHeader { magic: Magic::Dead, ..header })?;
            self.count_change()?;
        }
        self.link(offset, &block, new)
    }

    /// Fills a block and puts it at the head of its chain; the link is written last.
    fn link(
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

    /// Frees the dead records of a chain beyond the first `keep`, but none that a traverse stands
    /// on. The caller may hold the freelist lock already.
    pub(crate) fn trim_dead(&mut self, chain: u32, keep: u32) -> Result<(), AccessError> {
        let mut dead = 0_u32;
        let mut freelist_locked = false;
        let mut previous = self.layout.head_of(chain);
        let mut circle = CycleGuard::new();
        let mut result = Ok(());
        let mut current = self.store.read_u32(previous)?;
        while current != 0 {
            match self.trim_one(previous, current, keep, &mut dead, &mut freelist_locked) {
                Ok((stays, next)) => {
                    if stays {
                        previous = current;
                    }
                    if let Err(error) = circle.check(current) {
                        result = Err(error);
                        break;
                    }
                    current = next;
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if freelist_locked {
            self.locks.unlock_freelist()?;
        }
        result
    }

    /// Looks at one record of a chain that is being trimmed: `(it stays, the next one)`.
    fn trim_one(
        &mut self,
        previous: u32,
        current: u32,
        keep: u32,
        dead: &mut u32,
        freelist_locked: &mut bool,
    ) -> Result<(bool, u32), AccessError> {
        let record = self.read_chained(current)?;
        if record.magic != Magic::Dead {
            return Ok((true, record.next));
        }
        *dead += 1;
        if *dead <= keep {
            return Ok((true, record.next));
        }
        if !*freelist_locked {
            let wait = self.freelist_wait();
            *freelist_locked = self.locks.lock_freelist(wait)? == TryLock::Granted;
        }
        if !*freelist_locked || !self.locks.record_is_unheld(current)? {
            return Ok((true, record.next));
        }
        self.store.write_u32(previous, record.next)?;
        self.free(current, &record)?;
        Ok((false, record.next))
    }

    /// Block for a new record: with `max_dead` a dead record of this or a neighbouring chain, else
    /// from the freelist. No 25 % are added where a dead record is used again.
    fn allocate(&mut self, hash: u32, need: u32) -> Result<(u32, RecordHeader), AccessError> {
        let own = self.layout.chain_of(hash);
        if self.policy.max_dead > 0 {
            for step in 0..self.layout.hash_size {
                let chain = self.layout.chain_of(hash.wrapping_add(step));
                if let Some(taken) = self.take_dead_from(chain, need)? {
                    return Ok(taken);
                }
                if self.locks.lock_freelist(Wait::No)? == TryLock::Granted {
                    let taken = self.purge_and_allocate(own, need);
                    self.locks.unlock_freelist()?;
                    return taken;
                }
            }
        }
        self.with_freelist(|engine| engine.purge_and_allocate(own, need))
    }

    /// Frees the chain's dead records first: they are the likeliest to fit. Freelist held.
    fn purge_and_allocate(
        &mut self,
        chain: u32,
        need: u32,
    ) -> Result<(u32, RecordHeader), AccessError> {
        self.trim_dead(chain, 0)?;
        self.allocate_from_freelist(need)
    }

    /// Unlinks the best-fitting dead record of a chain, if the chain is not busy.
    fn take_dead_from(
        &mut self,
        chain: u32,
        need: u32,
    ) -> Result<Option<(u32, RecordHeader)>, AccessError> {
        if self.locks.lock_chain(chain, LockKind::Write, Wait::No)? == TryLock::Busy {
            return Ok(None);
        }
        let taken = self.unlink_dead(chain, need);
        self.locks.unlock_chain(chain)?;
        taken
    }

    /// Unlinks the best-fitting dead record of a locked chain.
    ///
    /// libtdb takes it without asking whether a traverse stands on it; the traverse then goes on in
    /// the chain of the new record, whose lock it does not hold. We ask.
    fn unlink_dead(
        &mut self,
        chain: u32,
        need: u32,
    ) -> Result<Option<(u32, RecordHeader)>, AccessError> {
        let needed = need.checked_add(TAILER_LEN);
        let needed = needed.ok_or(AccessError::TooLarge { len: need.into() })?;
        let mut best: Option<(u32, u32, RecordHeader)> = None;
        let mut previous = self.layout.head_of(chain);
        let mut current = self.store.read_u32(previous)?;
        let mut circle = CycleGuard::new();
        while current != 0 {
            let record = self.read_chained(current)?;
            if record.magic == Magic::Dead
                && record.rec_len >= needed
                && best.is_none_or(|(_, _, best)| record.rec_len < best.rec_len)
            {
                best = Some((previous, current, record));
            }
            circle.check(current)?;
            previous = current;
            current = record.next;
        }
        let Some((previous, offset, record)) = best else { return Ok(None) };
        if !self.locks.record_is_unheld(offset)? {
            return Ok(None);
        }
        self.store.write_u32(previous, record.next)?;
        Ok(Some((offset, record)))
    }
}

/// Lengths of key and value, which together must leave room for header and tailer.
pub(crate) fn lengths(key: &[u8], parts: &[&[u8]]) -> Result<(u32, u32), AccessError> {
    let data: usize = parts.iter().fold(0, |sum, part| sum.saturating_add(part.len()));
    let both = key.len().saturating_add(data);
    len_u32(both)?;
    Ok((len_u32(key.len())?, len_u32(data)?))
}
