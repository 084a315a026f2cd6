//! Dead records a handle leaves behind on purpose: how many, and when they are given back.
//!
//! Role: bookkeeping of [`Handle::set_reserve`]; what happens to a record: `crate::reserve`.
//! Invariants
//! - At most [`Reserve::records_max`] records of at most [`Reserve::record_len_max`] bytes each, and
//!   [`BURIED_PER_CHAIN_MAX`] per chain, stay dead because of this handle. At a limit a delete does
//!   as libtdb does: it frees, or leaves up to `max_dead` in the chain.
//! - The count may be too high, for others purge and revive our dead records as well: giving a
//!   chain back, or finding it full, settles what was counted for it. A dead record a traverse stands on at that moment
//!   stays in its chain, as after a delete of libtdb's, and is counted no more.
//! - Giving back never waits for a chain; it waits for the freelist only where the handle may.
//!
//! A process that is killed leaves its dead records; whoever next allocates in or deletes from
//! their chains frees them, libtdb too. So a transaction or a wipe needs nothing given back first.
//! Origin: ours.

use std::collections::VecDeque;

use super::Handle;
use crate::chain::{StoreMode, Stored};
use crate::engine::AccessError;
use crate::limits::BURIED_PER_CHAIN_MAX;
use crate::lock::{FileLocks, LockKind, Locks, TryLock, Wait};
use crate::reserve::Place;

/// Chains given back under one freelist lock: others wait for it meanwhile.
const CHAINS_PER_BATCH: usize = 32;

/// How much space a handle may leave in dead records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// Dead records, over all chains.
    pub records_max: u32,
    /// Bytes of a record (without header) that may stay dead; larger ones are freed at once.
    pub record_len_max: u32,
}

impl Default for Reserve {
    /// 32,768 records of at most 4 KiB: with records of 176 bytes, as CTDB's are, 6 MB.
    fn default() -> Self {
        Self { records_max: 32_768, record_len_max: 4096 }
    }
}

/// What a chain has of ours.
#[derive(Clone, Copy, Debug, Default)]
struct Plot {
    buried: u8,
    listed: bool,
}

/// The dead records this handle has left.
#[derive(Debug)]
pub(super) struct Buried {
    limits: Reserve,
    total: u32,
    /// One per chain.
    plots: Vec<Plot>,
    /// Chains where something was buried, oldest first, each once.
    chains: VecDeque<u32>,
}

impl Buried {
    fn new(limits: Reserve, hash_size: u32) -> Self {
        let plots = vec![Plot::default(); hash_size as usize];
        // Room for all chains: no delete allocates memory.
        let chains = VecDeque::with_capacity(plots.len());
        Self { limits, total: 0, plots, chains }
    }

    fn is_full(&self) -> bool {
        self.total >= self.limits.records_max
    }

    fn plot_is_full(&self, chain: u32) -> bool {
        self.plots[chain as usize].buried >= BURIED_PER_CHAIN_MAX
    }

    /// The chain has this many dead records in all, whoever left them.
    fn at_most(&mut self, chain: u32, dead: u32) {
        let plot = &mut self.plots[chain as usize];
        let most = u8::try_from(dead).unwrap_or(u8::MAX);
        self.total -= u32::from(plot.buried.saturating_sub(most));
        plot.buried = plot.buried.min(most);
    }

    fn admits(&self, chain: u32, rec_len: u32) -> bool {
        !self.is_full() && rec_len <= self.limits.record_len_max && !self.plot_is_full(chain)
    }

    fn bury(&mut self, chain: u32) {
        let plot = &mut self.plots[chain as usize];
        plot.buried += 1;
        self.total += 1;
        if !plot.listed {
            plot.listed = true;
            self.chains.push_back(chain);
        }
    }

    /// One of the chain is alive again: ours, or one that another handle had left.
    fn revived(&mut self, chain: u32) {
        let plot = &mut self.plots[chain as usize];
        if plot.buried > 0 {
            plot.buried -= 1;
            self.total -= 1;
        }
    }

    /// The chain has no dead records any more that could be freed.
    fn purged(&mut self, chain: u32) {
        self.total -= u32::from(self.plots[chain as usize].buried);
        self.plots[chain as usize].buried = 0;
    }

    /// The chain with something buried that has waited longest. [`Buried::put_back`] it, or it is
    /// forgotten.
    fn oldest(&mut self) -> Option<u32> {
        while let Some(chain) = self.chains.pop_front() {
            let plot = &mut self.plots[chain as usize];
            plot.listed = false;
            if plot.buried > 0 {
                return Some(chain);
            }
        }
        None
    }

    fn put_back(&mut self, chain: u32) {
        self.plots[chain as usize].listed = true;
        self.chains.push_back(chain);
    }
}

impl Handle {
    /// From now on deleted records stay in their chains as DEAD, up to these limits, and come back
    /// to life when their keys are stored again: neither needs the freelist, where all processes
    /// meet. `None` gives back what was left and returns to libtdb's policy. A handle that is
    /// dropped gives back what it can.
    ///
    /// For files whose keys come and go again and again (`bench/results/contended-reserve.md`). A store of a key that has no dead record
    /// works as without a reserve, and walks over a chain pass its dead records. At the limit a
    /// delete through [`Handle::delete`] also frees some of the oldest; who works on locked chains,
    /// or with `max_dead`, calls [`Handle::give_back`] at leisure.
    ///
    /// # Errors
    /// [`AccessError`], from giving back.
    pub fn set_reserve(&mut self, limits: Option<Reserve>) -> Result<(), AccessError> {
        let given_back = self.give_back();
        let hash_size = self.database.layout.hash_size;
        self.reserve = limits.map(|limits| Box::new(Buried::new(limits, hash_size)));
        given_back
    }

    /// Dead records that count for this handle's reserve.
    #[must_use]
    pub fn reserved(&self) -> u32 {
        self.reserve.as_ref().map_or(0, |buried| buried.total)
    }

    /// Frees all dead records that this handle has left, except in chains that are busy. Does
    /// nothing while the handle holds locks.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn give_back(&mut self) -> Result<(), AccessError> {
        let wait = if self.policy.never_waits { Wait::No } else { Wait::Yes };
        let mut left = self.reserve.as_ref().map_or(0, |buried| buried.chains.len());
        while left > 0 {
            let batch = left.min(CHAINS_PER_BATCH);
            if !self.give_back_some(batch, wait)? {
                break;
            }
            left -= batch;
        }
        Ok(())
    }

    /// After a wipe: there are no dead records any more.
    pub(super) fn forget_reserve(&mut self) {
        if let Some(buried) = &mut self.reserve {
            buried.total = 0;
            buried.plots.fill(Plot::default());
            buried.chains.clear();
        }
    }

    pub(super) fn store_from_reserve(
        &mut self,
        key: &[u8],
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        let hash = self.database.layout.hash.hash(key);
        let chain = self.database.layout.chain_of(hash);
        self.lock_chain(chain, LockKind::Write)?.keep();
        let stored = self.store_held(key, hash, parts, mode);
        self.locks.unlock_chain(chain)?;
        stored
    }

    pub(super) fn delete_into_reserve(&mut self, key: &[u8]) -> Result<bool, AccessError> {
        let hash = self.database.layout.hash.hash(key);
        let chain = self.database.layout.chain_of(hash);
        self.lock_chain(chain, LockKind::Write)?.keep();
        let deleted = self.delete_held(key, hash);
        self.locks.unlock_chain(chain)?;
        // Where libtdb's policy leaves dead records as well, freeing ours would gain nothing.
        let frees = deleted.is_ok() && self.policy.max_dead == 0;
        if frees && self.reserve.as_ref().is_some_and(|buried| buried.is_full()) {
            // The record is deleted; what cannot be freed now is so later.
            let _ = self.give_back_some(CHAINS_PER_BATCH, Wait::No);
        }
        deleted
    }

    /// Stores under a lock that is held already.
    #[inline]
    pub(super) fn store_held(
        &mut self,
        key: &[u8],
        hash: u32,
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        if self.reserve.is_none() {
            return self.engine().store(key, hash, parts, mode);
        }
        let (stored, place) = self.engine().store_reviving(key, hash, parts, mode)?;
        let chain = self.database.layout.chain_of(hash);
        match (stored, place) {
            (Stored::Done, Place::Revived) => {
                if let Some(buried) = &mut self.reserve {
                    buried.revived(chain);
                }
            }
            (Stored::Done, Place::New) => self.chain_was_trimmed(chain),
            _ => {}
        }
        Ok(stored)
    }

    /// Deletes under a lock that is held already.
    #[inline]
    pub(super) fn delete_held(&mut self, key: &[u8], hash: u32) -> Result<bool, AccessError> {
        if self.reserve.is_none() {
            return self.engine().delete(key, hash);
        }
        let Some(found) = self.engine().find(key, hash)? else { return Ok(false) };
        let chain = self.database.layout.chain_of(hash);
        self.settle(chain)?;
        let keeps = self.reserve.as_ref().is_some_and(|it| it.admits(chain, found.header.rec_len));
        if !keeps {
            self.engine().delete_found(&found)?;
            self.chain_was_trimmed(chain);
            return Ok(true);
        }
        self.engine().bury(&found)?;
        if let Some(buried) = &mut self.reserve {
            buried.bury(chain);
        }
        Ok(true)
    }

    /// Others revive what this handle has left, so a chain that seems full is counted anew. Without
    /// it a chain shared with a busy process would soon count as full for good.
    fn settle(&mut self, chain: u32) -> Result<(), AccessError> {
        if !self.reserve.as_ref().is_some_and(|buried| buried.plot_is_full(chain)) {
            return Ok(());
        }
        let dead = self.engine().dead_in(chain)?;
        if let Some(buried) = &mut self.reserve {
            buried.at_most(chain, dead);
        }
        Ok(())
    }

    /// A store or delete as libtdb does them has freed the chain's dead records, if the policy is
    /// to do so at once.
    fn chain_was_trimmed(&mut self, chain: u32) {
        if let Some(buried) = &mut self.reserve
            && self.policy.max_dead == 0
            && !self.policy.never_waits
        {
            buried.purged(chain);
        }
    }

    /// Frees the dead records of the `count` chains that have waited longest, under one freelist
    /// lock. `false` if nothing can be done now.
    fn give_back_some(&mut self, count: usize, wait: Wait) -> Result<bool, AccessError> {
        if self.locks.holds_all_records() || self.locks.holds_chain_or_freelist() {
            return Ok(false);
        }
        let mut freelist = false;
        let mut result = Ok(true);
        for _ in 0..count {
            let Some(chain) = self.reserve.as_mut().and_then(|buried| buried.oldest()) else {
                break;
            };
            let purged = self.purge(chain, wait, &mut freelist);
            if let Some(buried) = &mut self.reserve {
                match purged {
                    Ok(Purged::All) => buried.purged(chain),
                    _ => buried.put_back(chain),
                }
            }
            match purged {
                Ok(Purged::All | Purged::ChainBusy) => {}
                Ok(Purged::FreelistBusy) => result = Ok(false),
                Err(error) => result = Err(error),
            }
            if !matches!(result, Ok(true)) {
                break;
            }
        }
        if freelist {
            self.locks.unlock_freelist()?;
        }
        result
    }

    /// Frees the dead records of one chain. The freelist stays locked, so from the second chain on
    /// nothing may be waited for (spec 4.6).
    fn purge(
        &mut self,
        chain: u32,
        wait: Wait,
        freelist: &mut bool,
    ) -> Result<Purged, AccessError> {
        let mut engine = self.engine();
        if engine.lock_chain_checked(chain, LockKind::Write, Wait::No)? == TryLock::Busy {
            return Ok(Purged::ChainBusy);
        }
        let mut work = || {
            if !*freelist {
                *freelist = engine.locks.lock_freelist(wait)? == TryLock::Granted;
            }
            if !*freelist {
                return Ok(Purged::FreelistBusy);
            }
            engine.trim_dead(chain, 0).map(|()| Purged::All)
        };
        let purged = work();
        self.locks.unlock_chain(chain)?;
        purged
    }
}

/// What became of a chain that was to be given back.
#[derive(Clone, Copy, Debug)]
enum Purged {
    All,
    ChainBusy,
    FreelistBusy,
}

impl Drop for Handle {
    /// Gives the reserve back.
    fn drop(&mut self) {
        if self.reserved() > 0 && !std::thread::panicking() {
            // What stays dead is no damage: whoever comes to its chain next frees it.
            let _ = self.give_back();
        }
    }
}
