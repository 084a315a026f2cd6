//! Inserts and deletes that change no list: a deleted record stays in its chain as DEAD and comes
//! back to life when its key is stored again.
//!
//! Role: the record algorithms of the policy [`Handle::set_reserve`](crate::handle::Handle::set_reserve).
//! What may stay, and when it is given back: `handle/reserve.rs`.
//! Invariants
//! - The caller holds the record's chain for writing. No other lock is needed or taken: neither the
//!   freelist nor a traverse's record lock, for the record stays where it is and what it is linked to.
//! - After each write, in their order, `tdb_check` of libtdb is satisfied, lists and lengths are sound,
//!   and the key either is not there or has its whole old or whole new value.
//!
//! Why only the same key: a check demands for each record the hash of its key, and for each chain
//! as many links as records. No single word that is written can keep both while a record changes its
//! key or its chain; a process killed in between would leave a file that libtdb calls corrupt.
//! Origin: ours. What libtdb makes of DEAD records: `docs/spec/tdb-format.md` 2.8, 6.7.

use crate::chain::{Found, NewRecord, StoreMode, Stored, len_u32};
use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{Magic, RECORD_LEN, RecordHeader};
use crate::lock::Locks;
use crate::store::Store;

/// Where the data length lies in a record header.
const DATA_LEN_FIELD: u32 = 12;

/// What a key's chain has of it.
#[derive(Clone, Copy, Debug)]
enum Met {
    Live(Found),
    /// The smallest dead record of the key that the value fits into.
    Dead(Found),
    Nothing,
}

/// Where a store found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A dead record of the same key came back to life.
    Revived,
    /// The key was not there and got a new block, after the chain's dead records were freed.
    New,
    /// The key was there.
    Old,
}

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// As [`Engine::store`], but a key that is not there comes back to life in a dead record of its
    /// own, if one is left that is large enough. The place is meant for [`Stored::Done`].
    ///
    /// # Errors
    /// As [`Engine::store`].
    pub fn store_reviving(
        &mut self,
        key: &[u8],
        hash: u32,
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<(Stored, Place), AccessError> {
        let new = NewRecord::of(key, hash, parts)?;
        let found = match self.meet(key, hash, new.needed()?)? {
            Met::Dead(dead) if mode != StoreMode::Modify => {
                self.revive(&dead, parts)?;
                return Ok((Stored::Done, Place::Revived));
            }
            Met::Live(found) => Some(found),
            Met::Dead(_) | Met::Nothing => None,
        };
        let place = if found.is_some() { Place::Old } else { Place::New };
        let dead = match found {
            None if self.policy.max_dead > 0 => self.best_dead(self.layout.chain_of(hash), &new)?,
            _ => None,
        };
        Ok((self.store_over(found, dead, &new, mode)?, place))
    }

    /// Deletes the record that [`Engine::find`] has just found and leaves it in its chain.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub fn bury(&mut self, found: &Found) -> Result<(), AccessError> {
        self.set_magic(found.offset, Magic::Dead)?;
        self.count_change()
    }

    /// Dead records in a chain that the caller holds.
    pub(crate) fn dead_in(&self, chain: u32) -> Result<u32, AccessError> {
        let mut dead = 0_u32;
        let mut offset = self.store.read_u32(self.layout.head_of(chain))?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            dead += u32::from(header.magic == Magic::Dead);
            circle.check(offset)?;
            offset = header.next;
        }
        Ok(dead)
    }

    /// Looks for a key, live or dead.
    fn meet(&self, key: &[u8], hash: u32, needed: u32) -> Result<Met, AccessError> {
        let mut best: Option<Found> = None;
        let mut offset = self.store.read_u32(self.layout.head_of(self.layout.chain_of(hash)))?;
        let mut circle = CycleGuard::new();
        while offset != 0 {
            let header = self.read_chained(offset)?;
            let live = header.magic == Magic::Live;
            let wanted = live
                || (header.rec_len >= needed
                    && best.is_none_or(|best| header.rec_len < best.header.rec_len));
            if wanted
                && header.full_hash == hash
                && header.key_len as usize == key.len()
                && self.store.matches(offset.saturating_add(RECORD_LEN), key)?
            {
                let found = Found { offset, header };
                if live {
                    return Ok(Met::Live(found));
                }
                best = Some(found);
            }
            circle.check(offset)?;
            offset = header.next;
        }
        Ok(best.map_or(Met::Nothing, Met::Dead))
    }

    /// Fills a dead record of the key. It is visible from the last word on that is written.
    pub(crate) fn revive(&mut self, dead: &Found, parts: &[&[u8]]) -> Result<(), AccessError> {
        let mut data_len = 0_u32;
        for part in parts {
            // The caller found that all of them fit into the record.
            data_len = data_len.saturating_add(len_u32(part.len())?);
        }
        let RecordHeader { data_len: old_len, .. } = dead.header;
        self.write_parts(dead.value_at(), parts)?;
        if data_len != old_len {
            self.store.write_u32(dead.offset.saturating_add(DATA_LEN_FIELD), data_len)?;
        }
        self.set_magic(dead.offset, Magic::Live)?;
        self.count_change()
    }
}
