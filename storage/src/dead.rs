//! Dead records: deleted, still in their chains.
//!
//! Role: which of them a new record takes, and when they go to the freelist. Marking them dead and
//! all the rest of a store: `chain.rs`. The reserve's own way with them: `reserve.rs`.
//! Invariants
//! - The caller holds the chain for writing.
//! - A dead record that a traverse stands on is neither freed nor given to another record: what the
//!   traverse looks at, `next` and key, stays as it was.
//! - Which one is taken is libtdb's choice, except where a traverse stands on that one.
//!
//! Origin: `docs/spec/tdb-format.md` 2.6, 2.8.

use crate::chain::{Found, NewRecord};
use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{Magic, RECORD_LEN, RecordHeader};
use crate::lock::{LockKind, Locks, TryLock, Wait};
use crate::store::Store;

/// A dead record in a locked chain, good while the chain is neither unlocked nor changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadRecord {
    /// Where the word lies that leads to it: the chain's head or another record.
    previous: u32,
    pub(crate) offset: u32,
    header: RecordHeader,
}

/// The one of several dead records that libtdb takes: the smallest that is large enough, the first
/// of equal ones.
struct BestFit {
    needed: u32,
    best: Option<DeadRecord>,
}

impl BestFit {
    fn of(new: &NewRecord<'_>) -> Result<Self, AccessError> {
        Ok(Self { needed: new.needed()?, best: None })
    }

    #[inline]
    fn look_at(&mut self, previous: u32, offset: u32, header: &RecordHeader) {
        if header.magic == Magic::Dead
            && header.rec_len >= self.needed
            && self.best.is_none_or(|best| header.rec_len < best.header.rec_len)
        {
            self.best = Some(DeadRecord { previous, offset, header: *header });
        }
    }
}

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// As [`Engine::find`]; for a key that is not there, the dead record of its chain that the new
    /// one would take.
    pub(crate) fn find_or_dead(
        &self,
        new: &NewRecord<'_>,
    ) -> Result<(Option<Found>, Option<DeadRecord>), AccessError> {
        let mut fit = BestFit::of(new)?;
        let mut previous = self.layout.head_of(self.layout.chain_of(new.hash));
        let mut offset = self.store.read_u32(previous)?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            if header.magic == Magic::Live && self.has_key(offset, &header, new.key, new.hash)? {
                return Ok((Some(Found { offset, header }), None));
            }
            fit.look_at(previous, offset, &header);
            circle.check(offset)?;
            (previous, offset) = (offset, header.next);
        }
        Ok((None, fit.best))
    }

    /// The dead record of a locked chain that the new one would take.
    pub(crate) fn best_dead(
        &self,
        chain: u32,
        new: &NewRecord<'_>,
    ) -> Result<Option<DeadRecord>, AccessError> {
        let mut fit = BestFit::of(new)?;
        let mut previous = self.layout.head_of(chain);
        let mut offset = self.store.read_u32(previous)?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            fit.look_at(previous, offset, &header);
            circle.check(offset)?;
            (previous, offset) = (offset, header.next);
        }
        Ok(fit.best)
    }

    #[inline]
    fn has_key(
        &self,
        offset: u32,
        header: &RecordHeader,
        key: &[u8],
        hash: u32,
    ) -> Result<bool, AccessError> {
        Ok(header.full_hash == hash
            && header.key_len as usize == key.len()
            && self.store.matches(offset.saturating_add(RECORD_LEN), key)?)
    }

    /// [`Engine::delete`] where dead records stay: counts those of the chain while it looks for
    /// the key, for hardly ever one has to go.
    pub(crate) fn delete_leaving_dead(
        &mut self,
        key: &[u8],
        hash: u32,
    ) -> Result<bool, AccessError> {
        let chain = self.layout.chain_of(hash);
        let (mut found, mut dead) = (None, 0_u32);
        let mut offset = self.store.read_u32(self.layout.head_of(chain))?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            if header.magic == Magic::Dead {
                dead += 1;
            } else if found.is_none() && self.has_key(offset, &header, key, hash)? {
                found = Some((offset, header));
            }
            circle.check(offset)?;
            offset = header.next;
        }
        let Some((offset, header)) = found else { return Ok(false) };
        self.write_header(offset, &RecordHeader { magic: Magic::Dead, ..header })?;
        self.count_change()?;
        if dead >= self.policy.max_dead {
            self.trim_dead(chain, self.policy.max_dead)?;
        }
        Ok(true)
    }

    /// `true` if the new record is what the dead one was: the same key, first in its chain, where
    /// new records are put. Its `next` is then the same, too, so who stands there goes on as if it
    /// were dead still. Where keys come and go again it is mostly so, and asking for traverses is a
    /// system call, which costs more than all the rest.
    fn returns(&self, dead: &DeadRecord, new: &NewRecord<'_>) -> Result<bool, AccessError> {
        Ok(dead.previous == self.layout.head_of(self.layout.chain_of(new.hash))
            && self.has_key(dead.offset, &dead.header, new.key, new.hash)?)
    }

    /// Stores a key that is not there in a dead record of its own chain; `false`, and nothing has
    /// changed, if a traverse stands on it.
    pub(crate) fn use_again(
        &mut self,
        dead: &DeadRecord,
        new: &NewRecord<'_>,
    ) -> Result<bool, AccessError> {
        // A transaction writes what libtdb writes, for each block that is written is logged.
        if !self.store.is_private() && self.returns(dead, new)? {
            let place = Found { offset: dead.offset, header: dead.header };
            return self.revive(&place, new.parts).map(|()| true);
        }
        match self.unlink_dead(dead)? {
            Some(block) => self.link(dead.offset, &block, new).map(|_done| true),
            None => Ok(false),
        }
    }

    /// Takes a dead record out of its chain for a new one; its header, or `None` and no change if
    /// a traverse stands on it.
    ///
    /// libtdb takes it without asking. The traverse then goes on in the chain of the new record,
    /// whose lock it does not hold, or once more from the head of its own; and `tdb_nextkey` finds
    /// another key where it stands and ends.
    pub(crate) fn unlink_dead(
        &mut self,
        dead: &DeadRecord,
    ) -> Result<Option<RecordHeader>, AccessError> {
        if !self.locks.record_is_unheld(dead.offset)? {
            return Ok(None);
        }
        self.store.write_u32(dead.previous, dead.header.next)?;
        Ok(Some(dead.header))
    }

    /// A dead record of a chain that is not the new one's, if that chain is not busy.
    fn take_dead_from(
        &mut self,
        chain: u32,
        new: &NewRecord<'_>,
    ) -> Result<Option<(u32, RecordHeader)>, AccessError> {
        if self.locks.lock_chain(chain, LockKind::Write, Wait::No)? == TryLock::Busy {
            return Ok(None);
        }
        let taken = match self.best_dead(chain, new) {
            Ok(Some(dead)) => {
                self.unlink_dead(&dead).map(|block| block.map(|block| (dead.offset, block)))
            }
            other => other.map(|_none| None),
        };
        self.locks.unlock_chain(chain)?;
        taken
    }

    /// Block for a new record whose own chain has no dead record for it: with `max_dead` a dead
    /// record of a neighbouring chain while the freelist is busy, else from the freelist. No 25 %
    /// are added where a dead record is used again. If there is no space, `old`, which was deleted
    /// for the new record, is back.
    pub(crate) fn allocate(
        &mut self,
        new: &NewRecord<'_>,
        old: Option<&Found>,
    ) -> Result<(u32, RecordHeader), AccessError> {
        if self.policy.max_dead > 0 {
            for step in 0..self.layout.hash_size {
                let chain = self.layout.chain_of(new.hash.wrapping_add(step));
                if step > 0
                    && let Some(taken) = self.take_dead_from(chain, new)?
                {
                    return Ok(taken);
                }
                if self.locks.lock_freelist(Wait::No)? == TryLock::Granted {
                    let taken = self.purge_and_allocate(new, old);
                    self.locks.unlock_freelist()?;
                    return taken;
                }
            }
        }
        self.with_freelist(|engine| engine.purge_and_allocate(new, old))
    }

    /// Frees the chain's dead records first: they are the likeliest to fit. Freelist held.
    fn purge_and_allocate(
        &mut self,
        new: &NewRecord<'_>,
        old: Option<&Found>,
    ) -> Result<(u32, RecordHeader), AccessError> {
        self.trim_dead(self.layout.chain_of(new.hash), 0)?;
        let taken = self.allocate_from_freelist(new.len());
        if let (Err(_), Some(old)) = (&taken, old) {
            // The first error is the one to tell.
            let _ = self.put_back(old, new);
        }
        taken
    }

    /// Brings a record back that was deleted for a new one of its key. It is in its chain, or was
    /// freed under the freelist lock that is still held: nothing but headers and tailers has been
    /// written there since.
    fn put_back(&mut self, old: &Found, new: &NewRecord<'_>) -> Result<(), AccessError> {
        if self.is_chained(self.layout.chain_of(new.hash), old.offset)? {
            self.set_magic(old.offset, Magic::Live)?;
            return self.count_change();
        }
        let mut value = Vec::new();
        self.value_into(old, &mut value)?;
        let (offset, block) = self.allocate_freed(old.header.rec_len)?;
        let parts: [&[u8]; 1] = [&value];
        let record = NewRecord::of(new.key, new.hash, &parts)?;
        self.link(offset, &block, &record).map(|_done| ())
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
}
