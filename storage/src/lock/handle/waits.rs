//! Which waits for busy chains a handle has running, and how a granted chain enters its table.
//!
//! Role: one wait per chain, a limit per database, adoption of what was granted. The waiting
//! itself: `wait.rs`.
//! Invariants
//! - A chain is waited for at most once through a handle, and not while the handle holds it.
//!
//! Origin: the C daemon's `LockProcessesPerDB` and its queue of lock requests, by behaviour.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::{HandleLocks, HeldBy, Single};
use crate::lock::range::Span;
use crate::lock::{LockError, LockKind, Locks, TryLock, chain_byte};
use crate::mutex::{FutexWake, MutexError, MutexGuard, Slot};
use crate::wait::thread::{Place, Running, Shared, Target};
use crate::wait::{ChainWaiter, FutexStep, FutexWait, WaitLimit, WaitNotify, WaitState};

/// Pause between two looks at a wait that is about to end.
const ENDING_PAUSE: Duration = Duration::from_millis(1);

/// Why a wait was not started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WaitRefused {
    /// The database has as many waits running as the limit allows: keep the request queued.
    #[error("all {running} places for waits on this database are taken")]
    LimitReached {
        /// Waits running.
        running: usize,
    },
    /// The chain is waited for already (or such a wait is just ending): its end is notified.
    #[error("chain {chain} is being waited for already")]
    AlreadyWaiting {
        /// Which.
        chain: u32,
    },
    /// The handle holds something that does not go with waiting.
    #[error("cannot wait for chain {chain}: the handle holds {holding}")]
    Holding {
        /// Which.
        chain: u32,
        /// What is in the way.
        holding: &'static str,
    },
    /// The handle's chains are not locked by mutex: only a thread can wait.
    #[error("the database has no mutexes: the ring cannot wait for chain {chain}")]
    NoMutexes {
        /// Which.
        chain: u32,
    },
    /// The thread could not be started.
    #[error("cannot start a thread to wait for chain {chain}")]
    Thread {
        /// Which.
        chain: u32,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// The waits of one handle.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) limit: Arc<WaitLimit>,
    threads: Vec<Arc<Shared>>,
    rings: Vec<(u32, Arc<AtomicBool>)>,
}

impl Waits {
    pub(super) fn new(limit: Arc<WaitLimit>) -> Self {
        Self { limit, threads: Vec::new(), rings: Vec::new() }
    }

    fn forget_ended(&mut self) {
        self.threads.retain(|wait| !wait.ended());
        self.rings.retain(|(_, ended)| !ended.load(Ordering::Acquire));
    }

    /// The wait that stands in the way of locking this chain, or any chain.
    #[inline]
    pub(super) fn in_the_way_of(&mut self, chain: Option<u32>) -> Option<Running> {
        if self.threads.is_empty() && self.rings.is_empty() {
            return None;
        }
        self.forget_ended();
        let meant = |waited: u32| chain.is_none_or(|chain| chain == waited);
        let threads = self.threads.iter().filter(|wait| meant(wait.chain));
        let rings = self.rings.iter().filter(|(waited, _)| meant(*waited));
        let rings = rings.map(|_| Some(Running::Wanted));
        threads.map(|wait| wait.running()).chain(rings).max().flatten()
    }

    /// Sleeps until no given-up wait is left in the way, one tick of its thread at most.
    pub(super) fn outlast_ending(&mut self, chain: Option<u32>) {
        while self.in_the_way_of(chain) == Some(Running::Ending) {
            std::thread::sleep(ENDING_PAUSE);
        }
    }
}

/// A wait for one chain of a mutex file that the caller's ring carries out. Dropping it gives up
/// and passes a wake-up on that may have been consumed.
#[derive(Debug)]
pub struct RingWait {
    /// `None` only after the chain was acquired.
    wait: Option<FutexWait>,
    chain: u32,
    kind: LockKind,
    ended: Arc<AtomicBool>,
    _place: Place,
}

impl RingWait {
    /// The chain waited for.
    #[must_use]
    pub fn chain(&self) -> u32 {
        self.chain
    }

    /// Shared or exclusive.
    #[must_use]
    pub fn kind(&self) -> LockKind {
        self.kind
    }

    /// Goes on; see [`FutexWait::step`]. On the handle's thread.
    ///
    /// # Errors
    /// [`MutexError`]: give the wait up.
    pub fn step(&mut self, woken: FutexWake) -> Result<FutexStep, MutexError> {
        let wait = self.wait.as_mut().expect("a wait ends when it has acquired");
        let step = wait.step(woken)?;
        if matches!(step, FutexStep::Acquired(_)) {
            self.wait = None;
            self.ended.store(true, Ordering::Release);
        }
        Ok(step)
    }

    /// Gives up knowing how the last sleep ended (dropping assumes that it was woken).
    pub fn abandon(mut self, woken: FutexWake) {
        if let Some(wait) = self.wait.take() {
            wait.abandon(woken);
        }
    }
}

impl Drop for RingWait {
    fn drop(&mut self) {
        if let Some(wait) = self.wait.take() {
            wait.abandon(FutexWake::Woken);
        }
        self.ended.store(true, Ordering::Release);
    }
}

impl HandleLocks {
    fn may_wait(&mut self, chain: u32) -> Result<Place, WaitRefused> {
        let holding = |holding| WaitRefused::Holding { chain, holding };
        if chain >= self.hash_size {
            return Err(holding("a file without that chain"));
        }
        if self.all.is_some() || self.data_range_count > 0 {
            return Err(holding("all records"));
        }
        if self.singles.iter().any(|held| held.byte == chain_byte(chain)) {
            return Err(holding("the chain itself"));
        }
        if self.waits.in_the_way_of(Some(chain)).is_some() {
            return Err(WaitRefused::AlreadyWaiting { chain });
        }
        let running = self.waits.limit.running();
        self.waits.limit.enter().ok_or(WaitRefused::LimitReached { running })
    }

    /// Starts a thread that waits for the chain. The handle may hold other things meanwhile: what
    /// must not wait while holding is whoever needs the chain.
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
        let place = self.may_wait(chain)?;
        let target = match &self.mutexes {
            Some(area) => Target::Mutex(Arc::clone(area)),
            None => Target::Range(self.ranges.clone(), Span::byte(chain_byte(chain))),
        };
        let waiter = ChainWaiter::start(target, chain, kind, deadline, place, notify)
            .map_err(|source| WaitRefused::Thread { chain, source })?;
        self.waits.threads.push(waiter.shared());
        Ok(waiter)
    }

    /// Starts a wait for the chain that the caller's ring carries out (mutex files only).
    ///
    /// # Errors
    /// [`WaitRefused`].
    pub fn wait_on_ring(&mut self, chain: u32, kind: LockKind) -> Result<RingWait, WaitRefused> {
        let Some(area) = self.mutexes.clone() else {
            return Err(WaitRefused::NoMutexes { chain });
        };
        let place = self.may_wait(chain)?;
        let ended = Arc::new(AtomicBool::new(false));
        self.waits.rings.push((chain, Arc::clone(&ended)));
        let wait = Some(FutexWait::new(area, chain, kind));
        Ok(RingWait { wait, chain, kind, ended, _place: place })
    }

    /// Takes the outcome of a wait: a granted chain is held from now on, until
    /// [`Locks::unlock_chain`]; busy means that the deadline came first.
    ///
    /// # Errors
    /// What the wait failed with, or that it is not over (it is cancelled then).
    pub fn adopt(&mut self, waiter: ChainWaiter) -> Result<TryLock, LockError> {
        let (chain, kind) = (waiter.chain(), waiter.kind());
        match waiter.state() {
            WaitState::Waiting => {
                Err(LockError::Refused { what: "a chain", holding: "a wait that is not over" })
            }
            WaitState::TimedOut => Ok(TryLock::Busy),
            WaitState::Failed => Err(waiter.into_error()),
            WaitState::Granted => {
                let by = if waiter.locks_the_description() {
                    self.waits.threads.retain(|wait| wait.chain != chain);
                    waiter.hand_over();
                    HeldBy::Range
                } else {
                    HeldBy::Thread { _waiter: Box::new(waiter) }
                };
                self.singles.push(Single { byte: chain_byte(chain), kind, count: 1, by });
                Ok(TryLock::Granted)
            }
        }
    }

    /// Takes a chain that the ring waited for, until [`Locks::unlock_chain`]. `kind` is the wait's.
    ///
    /// # Errors
    /// The guard is not that of a chain this handle may add.
    pub fn adopt_mutex(&mut self, guard: MutexGuard, kind: LockKind) -> Result<(), LockError> {
        let what = "a chain";
        let Slot::Chain(chain) = guard.slot() else {
            return Err(LockError::Refused { what, holding: "another kind of mutex" });
        };
        if self.holds_all_records() {
            return Err(LockError::Refused { what, holding: "all records" });
        }
        let by = HeldBy::Mutex { _guard: Box::new(guard) };
        self.singles.push(Single { byte: chain_byte(chain), kind, count: 1, by });
        Ok(())
    }
}
