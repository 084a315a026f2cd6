//! Waiting for a busy chain without blocking the shard that wants it.
//!
//! Role: a wait is an object that the caller parks. [`FutexWait`] is the protocol of sleeping on a
//! lock word, for whoever can sleep on one (the ring, a thread); [`ChainWaiter`] is a thread that
//! waits for the shard. Which waits a handle may start: `lock/handle.rs`.
//! Invariants
//! - A consumed wake-up is used or passed on. Who takes a mutex after having slept for it sets the
//!   waiters bit again: a lock by `pthread_mutex_trylock` alone forgets the other sleepers, and one
//!   of them then sleeps for ever on a free mutex.
//! - Nobody sleeps for a chain while holding anything else.
//! - A wait that nobody wants any more leaves no lock behind.
//!
//! Origin: `docs/spec/tdb-format.md` 5.5; futex(2). The rule about the waiters bit was found by
//! experiment; `tests` holds the model that shows it necessary.

pub(crate) mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use thread::{ChainWaiter, EventFd, WaitLimit, WaitNotify, WaitState};

use crate::limits::SLEEP_SLICE_MAX;
use crate::lock::LockKind;
use crate::mutex::{AllRecordState, Attempt, FutexWake, MutexArea, MutexError, MutexGuard};
use crate::mutex::{OWNER, OWNER_DIED, Slot, WAITERS};

/// What to do next with a mutex that `trylock` found busy, by its lock word. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It is free by now: try again.
    TryAgain,
    /// Set the waiters bit, if the word is still this one.
    Mark(u32),
    /// Sleep while the word is this one.
    Sleep(u32),
    /// Owned by nobody and not free: no process writes such a word.
    Broken,
}

fn next(word: u32) -> Next {
    if word & OWNER == 0 {
        let free = word == 0 || word & OWNER_DIED != 0;
        return if free { Next::TryAgain } else { Next::Broken };
    }
    if word & WAITERS == 0 { Next::Mark(word) } else { Next::Sleep(word) }
}

/// A sleep that the caller should arrange.
#[derive(Clone, Debug)]
pub struct FutexSleep {
    area: Arc<MutexArea>,
    slot: Slot,
    value: u32,
}

impl FutexSleep {
    /// Address of the lock word: a shared futex of 32 bits. Mapped while this value lives.
    #[must_use]
    pub fn address(&self) -> *const u32 {
        self.area.word_address(self.slot)
    }

    /// Sleep only while the word has this value.
    #[must_use]
    pub fn value(&self) -> u32 {
        self.value
    }

    /// Sleeps on the calling thread, at most this long.
    #[must_use]
    pub fn on_this_thread(&self, at_most: Option<Duration>) -> FutexWake {
        self.area.sleep_on(self.slot, self.value, at_most)
    }
}

/// Where a wait stands.
#[derive(Debug)]
#[must_use = "a mutex that was acquired is held until this is dropped"]
pub enum FutexStep {
    /// The chain is held by this thread.
    Acquired(MutexGuard),
    /// Sleep, then call [`FutexWait::step`] again.
    Sleep(FutexSleep),
}

/// The protocol of waiting for one mutex. Lives on the thread that will own it; the sleeping itself
/// may happen anywhere.
#[derive(Debug)]
pub struct MutexWait {
    area: Arc<MutexArea>,
    slot: Slot,
    /// Others may sleep on it too, so the bit must stay.
    slept: bool,
}

impl MutexWait {
    /// A wait for a mutex of the area. Nothing happens before [`MutexWait::step`].
    #[must_use]
    pub fn new(area: Arc<MutexArea>, slot: Slot) -> Self {
        Self { area, slot, slept: false }
    }

    /// Goes on: at first with [`FutexWake::LookAgain`], afterwards with how the sleep ended. A
    /// sleep that was interrupted or cancelled may be continued the same way.
    ///
    /// # Errors
    /// [`MutexError`]; a consumed wake-up has been passed on.
    pub fn step(&mut self, woken: FutexWake) -> Result<FutexStep, MutexError> {
        self.advance().inspect_err(|_| self.pass_on(woken))
    }

    fn advance(&mut self) -> Result<FutexStep, MutexError> {
        loop {
            if let Some(guard) = self.area.try_lock(self.slot)? {
                if self.slept {
                    self.area.keep_waiters(self.slot);
                }
                return Ok(FutexStep::Acquired(guard));
            }
            match next(self.area.lock_word(self.slot)) {
                Next::TryAgain => {}
                Next::Mark(word) => {
                    // Changed meanwhile: the next round sees how.
                    let _ = self.area.mark_waiters(self.slot, word);
                }
                Next::Sleep(value) => {
                    self.slept = true;
                    let area = Arc::clone(&self.area);
                    return Ok(FutexStep::Sleep(FutexSleep { area, slot: self.slot, value }));
                }
                Next::Broken => return Err(MutexError::Broken { slot: self.slot }),
            }
        }
    }

    fn pass_on(&self, woken: FutexWake) {
        if woken == FutexWake::Woken {
            self.area.wake(self.slot, 1);
        }
    }

    /// Sleeps on the calling thread until the mutex is held or the patience is over (`None`).
    ///
    /// # Errors
    /// [`MutexError`].
    pub(crate) fn on_this_thread(
        mut self,
        patience: &Patience<'_>,
    ) -> Result<Option<MutexGuard>, MutexError> {
        sleep_through(|woken| self.step(woken), patience)
    }
}

/// The protocol of waiting for one chain of a mutex file: sleeps on the chain's mutex, and behind
/// the holder of the all-record lock while there is one.
#[derive(Debug)]
pub struct FutexWait {
    /// The mutex being waited for now: the chain's or that of all records.
    current: MutexWait,
    chain: u32,
    kind: LockKind,
}

impl FutexWait {
    /// A wait for a chain below the hash size. Nothing happens before [`FutexWait::step`].
    #[must_use]
    pub fn new(area: Arc<MutexArea>, chain: u32, kind: LockKind) -> Self {
        Self { current: MutexWait::new(area, Slot::Chain(chain)), chain, kind }
    }

    /// Goes on, as [`MutexWait::step`].
    ///
    /// # Errors
    /// [`MutexError`]; a consumed wake-up has been passed on.
    pub fn step(&mut self, mut woken: FutexWake) -> Result<FutexStep, MutexError> {
        loop {
            let guard = match self.current.step(woken)? {
                FutexStep::Acquired(guard) => guard,
                FutexStep::Sleep(sleep) => return Ok(FutexStep::Sleep(sleep)),
            };
            woken = FutexWake::LookAgain; // the wake-up was used: the lock is proof
            let area = Arc::clone(guard.area());
            let then = if guard.slot() == Slot::AllRecords {
                settle_all_records(&guard)?;
                Slot::Chain(self.chain)
            } else if area.state().admits(self.kind == LockKind::Write) {
                return Ok(FutexStep::Acquired(guard));
            } else {
                // Somebody has all records: queue behind him, without the chain.
                Slot::AllRecords
            };
            drop(guard);
            self.current = MutexWait::new(area, then);
        }
    }

    /// Gives up. `woken` says how the last sleep ended; who does not know says
    /// [`FutexWake::Woken`]: a wake-up too many is harmless, one too few is not.
    pub fn abandon(self, woken: FutexWake) {
        self.current.pass_on(woken);
    }

    /// Sleeps on the calling thread until the chain is held or the patience is over (`None`).
    ///
    /// # Errors
    /// [`MutexError`].
    pub fn on_this_thread(
        mut self,
        patience: &Patience<'_>,
    ) -> Result<Option<MutexGuard>, MutexError> {
        sleep_through(|woken| self.step(woken), patience)
    }
}

/// Carries the sleeps of a wait out on the calling thread.
fn sleep_through(
    mut step: impl FnMut(FutexWake) -> Result<FutexStep, MutexError>,
    patience: &Patience<'_>,
) -> Result<Option<MutexGuard>, MutexError> {
    let (mut woken, mut attempt) = (FutexWake::LookAgain, None);
    loop {
        let next = step(woken);
        drop(attempt.take());
        let sleep = match next? {
            FutexStep::Acquired(guard) => return Ok(Some(guard)),
            FutexStep::Sleep(sleep) => sleep,
        };
        let Some(slice) = patience.slice() else { return Ok(None) };
        // Between the wake-up and the lock call the kernel must know of the attempt.
        attempt = Attempt::announce(&sleep.area, sleep.slot);
        woken = sleep.on_this_thread(Some(slice));
    }
}

/// After taking the all-record mutex: a state word left by a dead owner is reset; with a living
/// owner gone, the word must say free.
///
/// # Errors
/// [`MutexError::Broken`].
pub(crate) fn settle_all_records(guard: &MutexGuard) -> Result<(), MutexError> {
    let area = guard.area();
    if guard.owner_died() {
        area.set_state(AllRecordState::Free);
    }
    match area.state() {
        AllRecordState::Free => Ok(()),
        _ => Err(MutexError::Broken { slot: Slot::AllRecords }),
    }
}

/// How long a thread is willing to sleep.
#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    deadline: Option<Instant>,
    cancelled: Option<&'a AtomicBool>,
}

impl<'a> Patience<'a> {
    /// As long as it takes.
    pub const FOREVER: Self = Self { deadline: None, cancelled: None };

    /// Until a point in time.
    #[must_use]
    pub const fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), cancelled: None }
    }

    /// Until somebody sets the flag (noticed within [`SLEEP_SLICE_MAX`]), or `self` is over.
    #[must_use]
    pub const fn or_cancelled(self, flag: &'a AtomicBool) -> Self {
        Self { deadline: self.deadline, cancelled: Some(flag) }
    }

    /// How long the next sleep may last; `None` if it is over.
    #[must_use]
    pub fn slice(&self) -> Option<Duration> {
        if self.cancelled.is_some_and(|flag| flag.load(Ordering::Acquire)) {
            return None;
        }
        let Some(deadline) = self.deadline else { return Some(SLEEP_SLICE_MAX) };
        let left = deadline.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(SLEEP_SLICE_MAX))
    }
}

#[cfg(test)]
mod tests;
