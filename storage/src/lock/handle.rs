//! What one handle holds, and how it gets it: byte ranges, and mutexes where the file has them.
//!
//! Role: the implementation of [`Locks`] and [`FileLocks`] for a file that others use, and the
//! start and end of waits for busy chains. System calls: `range.rs`, `mutex.rs`.
//! Owner: one shard or worker; the value stays on its thread, for held mutexes belong to it.
//! Invariants
//! - One entry per lock byte, one kernel lock (or mutex) per entry; nested requests count.
//! - A chain that is being waited for through this handle counts as busy: the waiting thread locks
//!   the same description, which would not exclude us.
//! - Who sleeps for a chain holds no other chain and not the freelist.
//! - ALLRECORD never swallows a lock of this handle: it is refused while chains, freelist or waits
//!   are there, and record positions survive its end.
//!
//! Origin: `docs/spec/tdb-format.md` 4.3 to 4.6, 5.4 to 5.6.

mod all;
mod waits;

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use waits::{RingWait, WaitRefused};

use super::range::{Blocker, Ranges, Span};
use super::{
    ACTIVE_BYTE, CHAIN_0_BYTE, FREELIST_BYTE, FileLocks, LockError, LockKind, Locks, OPEN_BYTE,
    TRANSACTION_BYTE, TryLock, Wait, chain_byte,
};
use crate::mutex::{MutexArea, MutexError, MutexGuard, OWNER, Slot};
use crate::wait::thread::Running;
use crate::wait::{ChainWaiter, FutexWait, Patience, WaitLimit, settle_all_records};
use all::AllRecords;
use waits::Waits;

/// Rounds in which a chain may be found free and all records busy before the answer is "busy":
/// each round means that a holder of all records came or went meanwhile.
const ROUNDS_MAX: u32 = 8;

/// How long a nested request may try to turn a shared lock into an exclusive one.
const UPGRADE_PATIENCE: Duration = Duration::from_millis(100);

/// The locks of one handle on one file.
#[derive(Debug)]
pub struct HandleLocks {
    ranges: Ranges,
    hash_size: u32,
    writable: bool,
    /// Present if chains and freelist are locked by mutex.
    mutexes: Option<Arc<MutexArea>>,
    singles: Vec<Single>,
    active: Option<LockKind>,
    all: Option<AllRecords>,
    data_range_count: u32,
    positions: Vec<Position>,
    waits: Waits,
}

/// One held lock byte.
#[derive(Debug)]
struct Single {
    byte: u64,
    kind: LockKind,
    count: u32,
    by: HeldBy,
}

/// What makes a lock byte ours. Guards give their mutex back when dropped. Boxed where it is rare:
/// the value is moved in and out of a list by every lock and unlock.
#[derive(Debug)]
enum HeldBy {
    /// The byte is locked.
    Range,
    /// This thread has the mutex, without a guard.
    Slot(Slot),
    /// This thread has the mutex, after waiting for it.
    Mutex { _guard: Box<MutexGuard> },
    /// A waiting thread has the mutex and keeps it for us.
    Thread { _waiter: Box<ChainWaiter> },
}

/// A record a traverse stands on.
#[derive(Clone, Copy, Debug)]
struct Position {
    offset: u32,
    count: u32,
    /// The RECORD byte is locked (not so under ALLRECORD).
    locked: bool,
}

impl HandleLocks {
    /// The locks of a handle. `file` is an open file description of its own, with `writable`
    /// saying whether it is open for writing; `mutexes` is the area of a mutex file.
    #[must_use]
    pub fn new(
        file: Arc<File>,
        writable: bool,
        hash_size: u32,
        mutexes: Option<Arc<MutexArea>>,
    ) -> Self {
        Self {
            ranges: Ranges::new(file),
            hash_size,
            writable,
            mutexes,
            singles: Vec::new(),
            active: None,
            all: None,
            data_range_count: 0,
            positions: Vec::new(),
            waits: Waits::new(WaitLimit::new(crate::limits::WAITERS_PER_DATABASE_MAX)),
        }
    }

    /// Shares the limit on waits with the other handles of the database.
    #[must_use]
    pub fn with_wait_limit(mut self, limit: Arc<WaitLimit>) -> Self {
        self.waits.limit = limit;
        self
    }

    /// Tells hash size and mutexes once the header has been read (before: OPEN, ACTIVE and the
    /// data range only).
    pub fn set_layout(&mut self, hash_size: u32, mutexes: Option<Arc<MutexArea>>) {
        assert!(!self.holds_chain_or_freelist() && self.all.is_none(), "chains of another layout");
        (self.hash_size, self.mutexes) = (hash_size, mutexes);
    }

    /// The mutex area, if chains are locked by mutex.
    #[must_use]
    pub fn mutexes(&self) -> Option<&Arc<MutexArea>> {
        self.mutexes.as_ref()
    }

    /// Whom a request for the chain would wait for, as far as it can be known; for messages about
    /// stuck locks. May be gone by the time it is read.
    #[must_use]
    pub fn blocker_of_chain(&self, chain: u32, kind: LockKind) -> Option<Blocker> {
        let Some(area) = &self.mutexes else {
            return self.ranges.blocker(Span::byte(chain_byte(chain)), kind).ok().flatten();
        };
        let owner = |slot| match area.lock_word(slot) & OWNER {
            0 => None,
            thread => Some(Blocker::Thread(thread)),
        };
        let all = || {
            if area.state().admits(kind == LockKind::Write) {
                None
            } else {
                owner(Slot::AllRecords)
            }
        };
        owner(Slot::Chain(chain)).or_else(all)
    }

    fn must_be_writable(&self, kind: LockKind, what: &'static str) -> Result<(), LockError> {
        match kind {
            LockKind::Write if !self.writable => Err(LockError::ReadOnly { what }),
            _ => Ok(()),
        }
    }

    /// Locks one byte through the kernel, or counts.
    fn lock_byte(
        &mut self,
        byte: u64,
        kind: LockKind,
        wait: Wait,
        what: &'static str,
    ) -> Result<TryLock, LockError> {
        self.must_be_writable(kind, what)?;
        let span = Span::byte(byte);
        let Some(at) = self.singles.iter().position(|held| held.byte == byte) else {
            if !self.take(span, kind, wait).map_err(system(what))? {
                return Ok(TryLock::Busy);
            }
            self.singles.push(Single { byte, kind, count: 1, by: HeldBy::Range });
            return Ok(TryLock::Granted);
        };
        if self.singles[at].kind == LockKind::Read && kind == LockKind::Write {
            // Two who wait for each other's shared lock would wait for ever.
            let effort = match wait {
                Wait::No => all::Effort::Once,
                Wait::Yes => all::Effort::Until(Patience::until(Instant::now() + UPGRADE_PATIENCE)),
            };
            if !self.poll(span, kind, &effort, what)? {
                return match wait {
                    Wait::No => Ok(TryLock::Busy),
                    Wait::Yes => {
                        Err(LockError::Refused { what, holding: "it for reading, as others do" })
                    }
                };
            }
        }
        self.count_nested(at, kind);
        Ok(TryLock::Granted)
    }

    fn take(&self, span: Span, kind: LockKind, wait: Wait) -> std::io::Result<bool> {
        match wait {
            Wait::No => self.ranges.try_lock(span, kind),
            Wait::Yes => self.ranges.lock(span, kind).map(|()| true),
        }
    }

    fn count_nested(&mut self, at: usize, kind: LockKind) {
        let held = &mut self.singles[at];
        held.count += 1;
        if kind == LockKind::Write {
            held.kind = kind;
        }
    }

    fn unlock_byte(&mut self, byte: u64, what: &'static str) -> Result<(), LockError> {
        let at = self.singles.iter().position(|held| held.byte == byte);
        let at = at.ok_or(LockError::NotHeld { what })?;
        self.singles[at].count -= 1;
        if self.singles[at].count > 0 {
            return Ok(());
        }
        match self.singles.swap_remove(at).by {
            HeldBy::Range => self.ranges.unlock(Span::byte(byte)).map_err(system(what)),
            HeldBy::Slot(slot) => {
                if let Some(area) = &self.mutexes {
                    area.unlock(slot);
                }
                Ok(())
            }
            HeldBy::Mutex { .. } | HeldBy::Thread { .. } => Ok(()),
        }
    }

    fn lock_chain_mutex(
        &mut self,
        chain: u32,
        kind: LockKind,
        wait: Wait,
    ) -> Result<TryLock, LockError> {
        let what = "a chain";
        self.must_be_writable(kind, what)?;
        let Some(area) = &self.mutexes else {
            return Err(LockError::Refused { what, holding: "a file without mutexes" });
        };
        let byte = chain_byte(chain);
        if let Some(at) = self.singles.iter().position(|held| held.byte == byte) {
            let upgrade = self.singles[at].kind == LockKind::Read && kind == LockKind::Write;
            if upgrade && !area.state().admits(true) {
                // A reader of all records let us read. Waiting for its end here would keep it from
                // becoming a writer.
                return Err(LockError::Refused { what, holding: "it for reading, as all records" });
            }
            self.count_nested(at, kind);
            return Ok(TryLock::Granted);
        }
        // Trying first keeps the machinery of a wait, and its counted references, off the usual path.
        let by = if Self::try_chain_mutex(area, chain, kind)? {
            HeldBy::Slot(Slot::Chain(chain))
        } else if wait == Wait::Yes {
            let wait = FutexWait::new(Arc::clone(area), chain, kind);
            match wait.on_this_thread(&Patience::FOREVER)? {
                Some(guard) => HeldBy::Mutex { _guard: Box::new(guard) },
                None => return Ok(TryLock::Busy),
            }
        } else {
            return Ok(TryLock::Busy);
        };
        self.singles.push(Single { byte, kind, count: 1, by });
        Ok(TryLock::Granted)
    }

    /// Spec 5.5, never sleeping.
    fn try_chain_mutex(
        area: &Arc<MutexArea>,
        chain: u32,
        kind: LockKind,
    ) -> Result<bool, MutexError> {
        for _ in 0..ROUNDS_MAX {
            if !area.try_lock_unguarded(Slot::Chain(chain))? {
                return Ok(false);
            }
            // libtdb does not look if it holds another chain already, for it would have to wait
            // behind somebody who waits for that chain. We do not wait, so we can look.
            if area.state().admits(kind == LockKind::Write) {
                return Ok(true);
            }
            area.unlock(Slot::Chain(chain));
            let Some(all) = area.try_lock(Slot::AllRecords)? else { return Ok(false) };
            settle_all_records(&all)?;
        }
        Ok(false)
    }

    fn holds_chain(&self) -> bool {
        self.singles.iter().any(|held| held.byte >= CHAIN_0_BYTE)
    }

    fn holds_freelist(&self) -> bool {
        self.singles.iter().any(|held| held.byte == FREELIST_BYTE)
    }

    /// Who may sleep for a chain: nobody who holds a chain or the freelist.
    fn may_sleep_for_chain(&self, chain: u32) -> Result<(), LockError> {
        let what = "a chain";
        let byte = chain_byte(chain);
        if self.singles.iter().any(|held| held.byte >= CHAIN_0_BYTE && held.byte != byte) {
            return Err(LockError::Refused { what, holding: "another chain" });
        }
        let nested = self.singles.iter().any(|held| held.byte == byte);
        if self.holds_freelist() && !nested {
            return Err(LockError::Refused { what, holding: "the freelist" });
        }
        Ok(())
    }
}

impl Locks for HandleLocks {
    fn lock_chain(&mut self, chain: u32, kind: LockKind, wait: Wait) -> Result<TryLock, LockError> {
        let what = "a chain";
        if chain >= self.hash_size {
            return Err(LockError::Refused { what, holding: "a file without that chain" });
        }
        if let Some(all) = &self.all {
            self.must_be_writable(kind, what)?;
            return all.admit(kind, what);
        }
        let held = self.singles.iter().any(|held| held.byte == chain_byte(chain));
        if !held && let Some(running) = self.waits.in_the_way_of(Some(chain)) {
            match (wait, running) {
                (Wait::No, _) => return Ok(TryLock::Busy),
                (Wait::Yes, Running::Wanted) => {
                    return Err(LockError::Refused { what, holding: "a wait for the same chain" });
                }
                (Wait::Yes, Running::Ending) => self.waits.outlast_ending(Some(chain)),
            }
        }
        if wait == Wait::Yes {
            self.may_sleep_for_chain(chain)?;
        }
        match self.mutexes {
            Some(_) => self.lock_chain_mutex(chain, kind, wait),
            None => self.lock_byte(chain_byte(chain), kind, wait, what),
        }
    }

    fn unlock_chain(&mut self, chain: u32) -> Result<(), LockError> {
        if self.all.is_some() {
            return Ok(());
        }
        self.unlock_byte(chain_byte(chain), "a chain")
    }

    fn lock_freelist(&mut self, wait: Wait) -> Result<TryLock, LockError> {
        let (kind, what) = (LockKind::Write, "the freelist");
        if let Some(all) = &self.all {
            let _ = all.admit(kind, what)?;
        }
        self.must_be_writable(kind, what)?;
        let nested = self.singles.iter().position(|held| held.byte == FREELIST_BYTE);
        let Some(area) = &self.mutexes else {
            return self.lock_byte(FREELIST_BYTE, kind, wait, what);
        };
        if let Some(at) = nested {
            self.count_nested(at, kind);
            return Ok(TryLock::Granted);
        }
        if !area.try_lock_unguarded(Slot::Freelist)? {
            match wait {
                Wait::Yes => area.lock(Slot::Freelist)?.forget(),
                Wait::No => return Ok(TryLock::Busy),
            }
        }
        let by = HeldBy::Slot(Slot::Freelist);
        self.singles.push(Single { byte: FREELIST_BYTE, kind, count: 1, by });
        Ok(TryLock::Granted)
    }

    fn unlock_freelist(&mut self) -> Result<(), LockError> {
        self.unlock_byte(FREELIST_BYTE, "the freelist")
    }

    fn hold_record(&mut self, offset: u32) -> Result<(), LockError> {
        if let Some(held) = self.positions.iter_mut().find(|held| held.offset == offset) {
            held.count += 1;
            return Ok(());
        }
        let locked = self.all.is_none();
        if locked {
            let span = Span::byte(u64::from(offset));
            self.ranges.lock(span, LockKind::Read).map_err(system("a record"))?;
        }
        self.positions.push(Position { offset, count: 1, locked });
        Ok(())
    }

    fn release_record(&mut self, offset: u32) -> Result<(), LockError> {
        let what = "a record";
        let at = self.positions.iter().position(|held| held.offset == offset);
        let at = at.ok_or(LockError::NotHeld { what })?;
        self.positions[at].count -= 1;
        if self.positions[at].count > 0 {
            return Ok(());
        }
        let held = self.positions.swap_remove(at);
        // Under ALLRECORD the byte belongs to the larger lock, which must not get a hole.
        if held.locked && self.all.as_ref().is_none_or(|all| !all.covers_records()) {
            self.ranges.unlock(Span::byte(u64::from(offset))).map_err(system(what))?;
        }
        Ok(())
    }

    fn record_is_unheld(&mut self, offset: u32) -> Result<bool, LockError> {
        if self.positions.iter().any(|held| held.offset == offset) {
            return Ok(false);
        }
        if let Some(all) = &self.all {
            return Ok(all.is_exclusive());
        }
        // libtdb locks and unlocks. Asking costs a quarter of that, and nobody has to wait for it.
        // No traverse comes after the answer: it would need the chain, and our caller holds it.
        let span = Span::byte(u64::from(offset));
        let blocker = self.ranges.blocker(span, LockKind::Write).map_err(system("a record"))?;
        Ok(blocker.is_none())
    }

    fn holds_all_records(&self) -> bool {
        self.all.is_some()
    }
}

impl FileLocks for HandleLocks {
    fn lock_all_records(&mut self, kind: LockKind, wait: Wait) -> Result<TryLock, LockError> {
        self.take_all_records(kind, false, all::Effort::of(wait))
    }

    fn lock_all_records_upgradable(&mut self, wait: Wait) -> Result<TryLock, LockError> {
        self.take_all_records(LockKind::Read, true, all::Effort::of(wait))
    }

    fn lock_all_records_upgradable_until(
        &mut self,
        deadline: Instant,
    ) -> Result<TryLock, LockError> {
        let effort = all::Effort::Until(Patience::until(deadline));
        self.take_all_records(LockKind::Read, true, effort)
    }

    fn upgrade_all_records(&mut self, deadline: Instant) -> Result<TryLock, LockError> {
        self.upgrade(&Patience::until(deadline))
    }

    fn unlock_all_records(&mut self) -> Result<(), LockError> {
        self.release_all_records()
    }

    fn lock_transaction(&mut self, wait: Wait) -> Result<TryLock, LockError> {
        self.lock_byte(TRANSACTION_BYTE, LockKind::Write, wait, "the transaction")
    }

    fn unlock_transaction(&mut self) -> Result<(), LockError> {
        self.unlock_byte(TRANSACTION_BYTE, "the transaction")
    }

    fn lock_open(&mut self, wait: Wait) -> Result<TryLock, LockError> {
        self.lock_byte(OPEN_BYTE, LockKind::Write, wait, "opening")
    }

    fn unlock_open(&mut self) -> Result<(), LockError> {
        self.unlock_byte(OPEN_BYTE, "opening")
    }

    fn lock_active(&mut self, kind: LockKind, wait: Wait) -> Result<TryLock, LockError> {
        let (span, what) = (Span::byte(ACTIVE_BYTE), "the active mark");
        self.must_be_writable(kind, what)?;
        if !self.take(span, kind, wait).map_err(system(what))? {
            return Ok(TryLock::Busy);
        }
        self.active = Some(kind);
        Ok(TryLock::Granted)
    }

    fn unlock_active(&mut self) -> Result<(), LockError> {
        let what = "the active mark";
        self.active.take().ok_or(LockError::NotHeld { what })?;
        self.ranges.unlock(Span::byte(ACTIVE_BYTE)).map_err(system(what))
    }

    fn lock_data_range(&mut self, wait: Wait) -> Result<TryLock, LockError> {
        let what = "the data range";
        self.must_be_writable(LockKind::Write, what)?;
        if self.data_range_count == 0 {
            if let Some(holding) = self.in_the_way_of_all() {
                return Err(LockError::Refused { what, holding });
            }
            if self.positions.iter().any(|held| held.locked) {
                return Err(LockError::Refused { what, holding: "a record" });
            }
            let span = Span::from(CHAIN_0_BYTE);
            if !self.take(span, LockKind::Write, wait).map_err(system(what))? {
                return Ok(TryLock::Busy);
            }
        }
        self.data_range_count += 1;
        Ok(TryLock::Granted)
    }

    fn unlock_data_range(&mut self) -> Result<(), LockError> {
        let what = "the data range";
        let left = self.data_range_count.checked_sub(1).ok_or(LockError::NotHeld { what })?;
        self.data_range_count = left;
        if left > 0 {
            return Ok(());
        }
        self.ranges.unlock(Span::from(CHAIN_0_BYTE)).map_err(system(what))
    }

    fn holds_chain_or_freelist(&self) -> bool {
        self.holds_chain() || self.holds_freelist()
    }
}

impl Drop for HandleLocks {
    fn drop(&mut self) {
        self.all = None; // the word and its mutex before the ranges, as in an unlock
        if let Some(area) = &self.mutexes {
            for held in &self.singles {
                if let HeldBy::Slot(slot) = held.by {
                    area.unlock(slot);
                }
            }
        }
        // The description may live on (a waiting thread, a mapping), its locks must not. An error
        // means that the descriptor is gone, and the locks with it.
        let _ = self.ranges.unlock(Span::from(0));
    }
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> LockError {
    move |source| LockError::System { what, source }
}

#[cfg(test)]
mod tests;
