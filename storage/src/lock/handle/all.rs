//! ALLRECORD: all chains and records at once.
//!
//! Role: take it without starving and without deadlock, upgrade it, give it back.
//! Invariants
//! - Nothing detects a deadlock, so nobody sleeps for the records' range while keeping the chains:
//!   a libtdb traverse that stands on a record and wants the next chain would sleep with us for
//!   ever. The attempt is given up after [`RECORDS_PATIENCE`] and begun again.
//! - The upgrade asks for everything at once for the same reason. In a mutex file it takes the
//!   records first: with them no traverse stands anywhere, so the chains drain.
//! - The all-record word says anything but "free" only while its mutex is held.
//!
//! Origin: `docs/spec/tdb-format.md` 4.4, 5.6. libtdb sleeps for the records and leaves the
//! deadlock to the kernel's detection, which does not know our locks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::{HandleLocks, system};
use crate::lock::range::Span;
use crate::lock::{CHAIN_0_BYTE, FileLocks, LockError, LockKind, TryLock, Wait, chain_byte};
use crate::mutex::{AllRecordState, MutexArea, MutexError, MutexGuard, Slot};
use crate::wait::{MutexWait, Patience, settle_all_records};

/// How long the chains are kept while a record is not to be had.
const RECORDS_PATIENCE: Duration = Duration::from_millis(20);
/// First and last pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(2);

const WHAT: &str = "all records";

/// ALLRECORD as held.
#[derive(Debug)]
pub(super) struct AllRecords {
    kind: LockKind,
    /// Counts as a write lock inside this handle although it is shared yet.
    upgradable: bool,
    count: u32,
    by: HeldBy,
}

#[derive(Debug)]
enum HeldBy {
    /// This handle has the locks.
    Locks { mutex: Option<AllMutex> },
    /// Another handle of this process has them and vouches for us.
    Another,
}

impl AllRecords {
    /// Is it strong enough for a chain or the freelist?
    pub(super) fn admit(&self, kind: LockKind, what: &'static str) -> Result<TryLock, LockError> {
        if kind == LockKind::Read || self.is_exclusive() {
            return Ok(TryLock::Granted);
        }
        Err(LockError::Refused { what, holding: "all records for reading" })
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.kind == LockKind::Write || self.upgradable
    }

    /// Are the record bytes locked through this handle's description?
    pub(super) fn covers_records(&self) -> bool {
        matches!(self.by, HeldBy::Locks { .. })
    }
}

/// How hard to try.
#[derive(Clone, Copy)]
pub(super) enum Effort<'a> {
    Once,
    Until(Patience<'a>),
}

impl Effort<'_> {
    pub(super) fn of(wait: Wait) -> Self {
        match wait {
            Wait::No => Self::Once,
            Wait::Yes => Self::Until(Patience::FOREVER),
        }
    }

    /// May another attempt be made, after a pause?
    fn again(&self, pause: &mut Duration) -> bool {
        let Self::Until(patience) = self else { return false };
        let Some(slice) = patience.slice() else { return false };
        std::thread::sleep(slice.min(*pause));
        *pause = (*pause * 2).min(PAUSE_MAX);
        true
    }
}

impl HandleLocks {
    /// Takes ALLRECORD, trying until the deadline has passed or the flag is set: what a worker
    /// that freezes a database calls.
    ///
    /// # Errors
    /// [`LockError`]; busy is a value, and nothing is held then.
    pub fn lock_all_records_until(
        &mut self,
        kind: LockKind,
        deadline: Instant,
        cancelled: &AtomicBool,
    ) -> Result<TryLock, LockError> {
        let patience = Patience::until(deadline).or_cancelled(cancelled);
        self.take_all_records(kind, false, Effort::Until(patience))
    }

    /// Notes that another handle of this process holds ALLRECORD for writing as long as the mark
    /// is there: chains and records need no lock here, the freelist does. Waits for chains go on:
    /// they are granted after that handle has let go.
    ///
    /// # Errors
    /// [`LockError::Refused`] if this handle holds anything of the file's data.
    pub fn mark_all_records(&mut self) -> Result<(), LockError> {
        let refused = |holding| Err(LockError::Refused { what: WHAT, holding });
        if self.all.is_some() || self.data_range_count > 0 {
            return refused("all records");
        }
        if self.holds_chain_or_freelist() {
            return refused("a chain or the freelist");
        }
        let kind = LockKind::Write;
        self.all = Some(AllRecords { kind, upgradable: false, count: 1, by: HeldBy::Another });
        Ok(())
    }

    /// Removes the mark.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if there is none.
    pub fn unmark_all_records(&mut self) -> Result<(), LockError> {
        match &self.all {
            Some(AllRecords { by: HeldBy::Another, .. }) => {
                self.all = None;
                Ok(())
            }
            _ => Err(LockError::NotHeld { what: WHAT }),
        }
    }

    /// What of this handle would be swallowed by a lock on everything.
    pub(super) fn in_the_way_of_all(&mut self) -> Option<&'static str> {
        if self.all.is_some() {
            Some("all records")
        } else if self.data_range_count > 0 {
            Some("the data range")
        } else if self.holds_chain_or_freelist() {
            Some("a chain or the freelist")
        } else {
            // Locks of ours are refused only while somebody wants the outcome of a wait.
            self.waits.outlast_ending(None);
            self.waits.in_the_way_of(None).map(|_| "a wait for a chain")
        }
    }

    pub(super) fn take_all_records(
        &mut self,
        kind: LockKind,
        upgradable: bool,
        effort: Effort<'_>,
    ) -> Result<TryLock, LockError> {
        self.must_be_writable(if upgradable { LockKind::Write } else { kind }, WHAT)?;
        if let Some(all) = &mut self.all {
            let same = all.kind == kind && !all.upgradable && !upgradable;
            if !same || matches!(all.by, HeldBy::Another) {
                return Err(LockError::Refused { what: WHAT, holding: "all records already" });
            }
            all.count += 1;
            return Ok(TryLock::Granted);
        }
        if let Some(holding) = self.in_the_way_of_all() {
            return Err(LockError::Refused { what: WHAT, holding });
        }
        let mut pause = PAUSE_MIN;
        loop {
            let attempt = match self.mutexes.clone() {
                Some(area) => self.attempt_by_mutex(&area, kind, &effort)?,
                None => self.attempt_by_range(kind, &effort)?.then_some(None),
            };
            if let Some(mutex) = attempt {
                let by = HeldBy::Locks { mutex };
                self.all = Some(AllRecords { kind, upgradable, count: 1, by });
                return Ok(TryLock::Granted);
            }
            if !effort.again(&mut pause) {
                return Ok(TryLock::Busy);
            }
        }
    }

    /// All chains by mutex, then the records; nothing is held if it fails.
    fn attempt_by_mutex(
        &self,
        area: &Arc<MutexArea>,
        kind: LockKind,
        effort: &Effort<'_>,
    ) -> Result<Option<Option<AllMutex>>, LockError> {
        let Some(guard) = lock_mutex(area, Slot::AllRecords, effort)? else { return Ok(None) };
        settle_all_records(&guard)?;
        let mutex = AllMutex { guard };
        mutex.set(kind);
        let all = drain(area, self.hash_size, effort)? && self.try_records(kind, effort)?;
        Ok(all.then_some(Some(mutex)))
    }

    /// All chains by range, then the records; nothing is held if it fails.
    fn attempt_by_range(&self, kind: LockKind, effort: &Effort<'_>) -> Result<bool, LockError> {
        let chains = Span { start: CHAIN_0_BYTE, len: 4 * u64::from(self.hash_size) };
        let outcome = match self.gradual(chains, kind, effort) {
            Ok(true) => self.try_records(kind, effort),
            other => other,
        };
        if !matches!(outcome, Ok(true)) {
            self.give_back_range(chains)?;
        }
        outcome
    }

    /// Halves the range until what is left is one chain's byte: short locks on other chains cannot
    /// starve us. What was locked before a failure stays locked; the caller gives it back.
    fn gradual(&self, span: Span, kind: LockKind, effort: &Effort<'_>) -> Result<bool, LockError> {
        if span.len > 4 {
            if self.ranges.try_lock(span, kind).map_err(system(WHAT))? {
                return Ok(true);
            }
            let half = span.len / 2;
            let rest = Span { start: span.start + half, len: span.len - half };
            let first = Span { start: span.start, len: half };
            return Ok(self.gradual(first, kind, effort)? && self.gradual(rest, kind, effort)?);
        }
        self.poll(span, kind, effort, WHAT)
    }

    /// Tries again and again, with pauses.
    pub(super) fn poll(
        &self,
        span: Span,
        kind: LockKind,
        effort: &Effort<'_>,
        what: &'static str,
    ) -> Result<bool, LockError> {
        let mut pause = PAUSE_MIN;
        while !self.ranges.try_lock(span, kind).map_err(system(what))? {
            if !effort.again(&mut pause) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn records(&self) -> Span {
        Span::from(chain_byte(self.hash_size))
    }

    /// The records' range, not for long: a traverse that stands there may be waiting for us.
    fn try_records(&self, kind: LockKind, effort: &Effort<'_>) -> Result<bool, LockError> {
        let (give_up, mut pause) = (Instant::now() + RECORDS_PATIENCE, PAUSE_MIN);
        loop {
            if self.ranges.try_lock(self.records(), kind).map_err(system(WHAT))? {
                return Ok(true);
            }
            if Instant::now() >= give_up || !effort.again(&mut pause) {
                return Ok(false);
            }
        }
    }

    pub(super) fn upgrade(&mut self, patience: &Patience<'_>) -> Result<TryLock, LockError> {
        let mutex = match &self.all {
            Some(AllRecords { kind: LockKind::Write, .. }) => return Ok(TryLock::Granted),
            Some(AllRecords { upgradable: true, by: HeldBy::Locks { mutex }, .. }) => mutex,
            Some(_) => {
                return Err(LockError::Refused { what: WHAT, holding: "all records for reading" });
            }
            None => return Err(LockError::NotHeld { what: WHAT }),
        };
        let (effort, mut pause) = (Effort::Until(*patience), PAUSE_MIN);
        loop {
            let upgraded = match mutex {
                Some(mutex) => self.upgrade_by_mutex(mutex, patience)?,
                None => {
                    let everything = Span::from(CHAIN_0_BYTE);
                    self.ranges.try_lock(everything, LockKind::Write).map_err(system(WHAT))?
                }
            };
            if upgraded {
                let all = self.all.as_mut().expect("looked at above, and nothing took it away");
                all.kind = LockKind::Write;
                return Ok(TryLock::Granted);
            }
            if !effort.again(&mut pause) {
                return Ok(TryLock::Busy);
            }
        }
    }

    /// Records first, then the word, then the chains; back to where it was if a chain stays busy.
    fn upgrade_by_mutex(
        &self,
        mutex: &AllMutex,
        patience: &Patience<'_>,
    ) -> Result<bool, LockError> {
        if !self.ranges.try_lock(self.records(), LockKind::Write).map_err(system(WHAT))? {
            return Ok(false);
        }
        mutex.set(LockKind::Write);
        let deadline = Patience::until(Instant::now() + RECORDS_PATIENCE);
        let area = mutex.guard.area();
        let drained = match patience.slice() {
            Some(_) => drain(area, self.hash_size, &Effort::Until(deadline)),
            None => drain(area, self.hash_size, &Effort::Once),
        };
        if matches!(drained, Ok(true)) {
            return Ok(true);
        }
        mutex.set(LockKind::Read);
        // A downgrade of one's own lock is always granted.
        self.ranges.try_lock(self.records(), LockKind::Read).map_err(system(WHAT))?;
        Ok(drained?)
    }

    pub(super) fn release_all_records(&mut self) -> Result<(), LockError> {
        let not_held = LockError::NotHeld { what: WHAT };
        let Some(all) = &mut self.all else { return Err(not_held) };
        if matches!(all.by, HeldBy::Another) {
            return Err(not_held);
        }
        all.count -= 1;
        if all.count > 0 {
            return Ok(());
        }
        self.all = None; // gives the mutex back
        self.give_back_range(Span::from(CHAIN_0_BYTE))
    }

    /// Unlocks a range, except the records that a traverse of this handle stands on: those go back
    /// to the shared lock that they had.
    fn give_back_range(&self, span: Span) -> Result<(), LockError> {
        let locked = self.positions.iter().filter(|held| held.locked);
        let mut kept: Vec<u64> = locked.map(|held| u64::from(held.offset)).collect();
        kept.sort_unstable();
        let unlock = |span| self.ranges.unlock(span).map_err(system(WHAT));
        let mut start = span.start;
        for byte in kept {
            let inside = byte >= start && (span.len == 0 || byte < span.start + span.len);
            if inside {
                // A downgrade of one's own lock is always granted.
                let byte_span = Span::byte(byte);
                self.ranges.try_lock(byte_span, LockKind::Read).map_err(system(WHAT))?;
                if byte > start {
                    unlock(Span { start, len: byte - start })?;
                }
                start = byte + 1;
            }
        }
        match span.len {
            0 => unlock(Span::from(start)),
            len if start < span.start + len => {
                unlock(Span { start, len: span.start + len - start })
            }
            _ => Ok(()),
        }
    }
}

/// The mutex of all records with its word, which says free again before the mutex is given back.
#[derive(Debug)]
struct AllMutex {
    guard: MutexGuard,
}

impl AllMutex {
    fn set(&self, kind: LockKind) {
        self.guard.area().set_state(match kind {
            LockKind::Read => AllRecordState::Read,
            LockKind::Write => AllRecordState::Write,
        });
    }
}

impl Drop for AllMutex {
    fn drop(&mut self) {
        self.guard.area().set_state(AllRecordState::Free);
    }
}

/// Waits until nobody is left who locked a chain before the word was set. `false` is busy.
fn drain(area: &Arc<MutexArea>, hash_size: u32, effort: &Effort<'_>) -> Result<bool, MutexError> {
    for chain in 0..hash_size {
        // Looking is ten times cheaper than locking, and a file has 100,001 chains.
        if area.is_free_for_later_readers(Slot::Chain(chain)) {
            continue;
        }
        if lock_mutex(area, Slot::Chain(chain), effort)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// One mutex, as hard as wanted.
fn lock_mutex(
    area: &Arc<MutexArea>,
    slot: Slot,
    effort: &Effort<'_>,
) -> Result<Option<MutexGuard>, MutexError> {
    match effort {
        Effort::Once => area.try_lock(slot),
        Effort::Until(patience) => MutexWait::new(Arc::clone(area), slot).on_this_thread(patience),
    }
}
