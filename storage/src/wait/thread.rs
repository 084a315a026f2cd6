//! A thread that waits for a busy chain in the place of a shard.
//!
//! Role: sleep in the kernel until the chain is granted, the deadline is over or nobody wants it
//! any more; tell the shard through its notifier. What the handle makes of it: `lock/handle.rs`.
//! Invariants
//! - Files with byte-range locks: the thread locks the shard's own description, so the shard owns
//!   the lock afterwards and the thread ends. Files with mutexes: the mutex belongs to the thread,
//!   which keeps it until the shard lets go.
//! - From start to end of the thread the chain counts as busy for the shard: both lock through one
//!   description, where they would not exclude each other.
//! - Cancelling never blocks; a lock that is granted too late is given back by the thread.
//!
//! Origin: the C daemon's ctdb_lock_helper (a process per wait), by behaviour.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use super::{FutexWait, Patience};
use crate::limits::{SLEEP_SLICE_MAX, WAITERS_PER_DATABASE_MAX};
use crate::lock::range::{Ranges, Span};
use crate::lock::tick::Tick;
use crate::lock::{LockError, LockKind};
use crate::mutex::MutexArea;

/// Told when a wait changes: granted, over, failed, and when the chain may be asked for again
/// after a cancel or release. Called on the waiting thread; must not block. A call may come after
/// the waiter was adopted or dropped already: look, and find nothing to do.
pub trait WaitNotify: Send + Sync {
    /// Look at the waiter of this chain.
    fn wait_changed(&self, chain: u32);
}

impl<F: Fn(u32) + Send + Sync> WaitNotify for F {
    fn wait_changed(&self, chain: u32) {
        self(chain);
    }
}

/// A notifier that adds 1 to an eventfd (made by the caller, not blocking).
#[derive(Debug)]
pub struct EventFd(std::fs::File);

impl EventFd {
    /// Notifies through this eventfd.
    #[must_use]
    pub fn new(eventfd: std::os::fd::OwnedFd) -> Self {
        Self(eventfd.into())
    }
}

impl WaitNotify for EventFd {
    fn wait_changed(&self, _chain: u32) {
        // A full counter (EAGAIN) has been noticed anyway; nothing else can be done here.
        let _ = io::Write::write(&mut &self.0, &1_u64.to_ne_bytes());
    }
}

/// Counts the waits of one database over all its handles.
#[derive(Debug)]
pub struct WaitLimit {
    running: AtomicUsize,
    max: usize,
}

impl WaitLimit {
    /// At most `max` waits at a time (the tunable `LockProcessesPerDB`).
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { running: AtomicUsize::new(0), max })
    }

    /// Waits running now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(self: &Arc<Self>) -> Option<Place> {
        let more = |running| (running < self.max).then_some(running + 1);
        let order = Ordering::Relaxed;
        self.running.fetch_update(order, order, more).ok()?;
        Some(Place(Arc::clone(self)))
    }
}

/// One wait's place under the limit.
#[derive(Debug)]
pub(crate) struct Place(Arc<WaitLimit>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `LockProcessesPerDB`'s default.
impl Default for WaitLimit {
    fn default() -> Self {
        Self { running: AtomicUsize::new(0), max: WAITERS_PER_DATABASE_MAX }
    }
}

/// Where a wait stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitState {
    /// Still asleep.
    Waiting,
    /// The chain is held for whoever has the [`ChainWaiter`].
    Granted,
    /// The deadline came first.
    TimedOut,
    /// Locking failed; `adopt` tells how.
    Failed,
}

/// A wait whose thread has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Running {
    /// Given up, and about to end.
    Ending,
    /// Somebody is waiting for its outcome.
    Wanted,
}

const WAITING: u8 = 0;
const GRANTED: u8 = 1;
const TIMED_OUT: u8 = 2;
const FAILED: u8 = 3;
/// Nobody wants the chain (any more): the thread gives it back if it has it.
const UNWANTED: u8 = 4;

/// What the thread and the handle share.
pub(crate) struct Shared {
    pub(crate) chain: u32,
    kind: LockKind,
    state: AtomicU8,
    unwanted: AtomicBool,
    locks_the_description: bool,
    /// The thread touches neither lock nor state any more.
    ended: AtomicBool,
    error: Mutex<Option<LockError>>,
    keeper: OnceLock<Thread>,
    notify: Arc<dyn WaitNotify>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ended = self.ended();
        out.debug_struct("Shared").field("chain", &self.chain).field("ended", &ended).finish()
    }
}

impl Shared {
    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Does the wait keep the handle from locking the chain by itself?
    pub(crate) fn running(&self) -> Option<Running> {
        if self.ended() {
            None
        } else if !self.unwanted.load(Ordering::Acquire) {
            Some(Running::Wanted)
        } else {
            // A mutex that the thread still has excludes us as anybody; a range does not.
            self.locks_the_description.then_some(Running::Ending)
        }
    }

    /// The thread's last word on the outcome; `false` if nobody wants it any more.
    fn settle(&self, outcome: u8) -> bool {
        let order = Ordering::AcqRel;
        let wanted = self.state.compare_exchange(WAITING, outcome, order, Ordering::Acquire);
        wanted.is_ok()
    }
}

/// What the thread locks.
pub(crate) enum Target {
    Range(Ranges, Span),
    Mutex(Arc<MutexArea>),
}

/// A wait for one chain, done by a thread. Dropping it cancels the wait or gives the chain back.
pub struct ChainWaiter {
    shared: Arc<Shared>,
    /// Where the lock is once granted; `None` after adoption or if the thread holds it.
    range: Option<(Ranges, Span)>,
}

impl std::fmt::Debug for ChainWaiter {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (chain, state) = (self.shared.chain, self.state());
        out.debug_struct("ChainWaiter").field("chain", &chain).field("state", &state).finish()
    }
}

impl ChainWaiter {
    /// Starts the thread.
    pub(crate) fn start(
        target: Target,
        chain: u32,
        kind: LockKind,
        deadline: Option<Instant>,
        place: Place,
        notify: Arc<dyn WaitNotify>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            chain,
            kind,
            state: AtomicU8::new(WAITING),
            unwanted: AtomicBool::new(false),
            locks_the_description: matches!(target, Target::Range(..)),
            ended: AtomicBool::new(false),
            error: Mutex::new(None),
            keeper: OnceLock::new(),
            notify,
        });
        let range = match &target {
            Target::Range(ranges, span) => Some((ranges.clone(), *span)),
            Target::Mutex(_) => None,
        };
        let theirs = Arc::clone(&shared);
        let work = move || {
            match target {
                Target::Range(ranges, span) => theirs.wait_for_range(&ranges, span, deadline),
                Target::Mutex(area) => theirs.wait_for_mutex(area, deadline),
            }
            theirs.ended.store(true, Ordering::Release);
            drop(place);
            theirs.notify.wait_changed(chain);
        };
        let thread = std::thread::Builder::new().name("chain-waiter".into()).spawn(work)?;
        // Set once, here; the thread itself does not need it.
        let _ = shared.keeper.set(thread.thread().clone());
        Ok(Self { shared, range })
    }

    /// The chain waited for.
    #[must_use]
    pub fn chain(&self) -> u32 {
        self.shared.chain
    }

    /// Shared or exclusive.
    #[must_use]
    pub fn kind(&self) -> LockKind {
        self.shared.kind
    }

    /// Where the wait stands, without blocking.
    #[must_use]
    pub fn state(&self) -> WaitState {
        match self.shared.state.load(Ordering::Acquire) {
            WAITING => WaitState::Waiting,
            GRANTED => WaitState::Granted,
            FAILED => WaitState::Failed,
            _ => WaitState::TimedOut,
        }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Is the lock on the handle's own description (and not with the thread)?
    pub(crate) fn locks_the_description(&self) -> bool {
        self.range.is_some()
    }

    /// The handle takes over a granted byte-range lock: nothing is given back here any more.
    pub(crate) fn hand_over(mut self) {
        self.range = None;
    }

    /// Why the wait failed.
    pub(crate) fn into_error(self) -> LockError {
        let mut error = self.shared.error.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = || LockError::System { what: "a chain", source: io::ErrorKind::Other.into() };
        error.take().unwrap_or_else(unknown)
    }
}

impl Drop for ChainWaiter {
    fn drop(&mut self) {
        self.shared.unwanted.store(true, Ordering::Release);
        let before = self.shared.state.swap(UNWANTED, Ordering::AcqRel);
        if before != GRANTED {
            return; // the thread sees the flag in time, or has ended
        }
        match self.range.take() {
            // Granted to the description: the thread is done with it. An unlock of one's own
            // lock fails only for want of kernel memory; the next unlock of the range repeats it.
            Some((ranges, span)) => drop(ranges.unlock(span)),
            None => {
                if let Some(keeper) = self.shared.keeper.get() {
                    keeper.unpark();
                }
            }
        }
    }
}

impl Shared {
    fn wait_for_range(&self, ranges: &Ranges, span: Span, deadline: Option<Instant>) {
        let patience = Patience { deadline, cancelled: Some(&self.unwanted) };
        let outcome = Tick::start(SLEEP_SLICE_MAX).and_then(|_tick| {
            while patience.slice().is_some() {
                if ranges.lock_until_signal(span, self.kind)? {
                    return Ok(true);
                }
            }
            Ok(false)
        });
        match outcome {
            Ok(true) => {
                if !self.settle(GRANTED) {
                    // Nobody wants it any more. As in `drop` above.
                    drop(ranges.unlock(span));
                }
            }
            Ok(false) => drop(self.settle(TIMED_OUT)),
            Err(source) => self.fail(LockError::System { what: "a chain", source }),
        }
    }

    fn wait_for_mutex(&self, area: Arc<MutexArea>, deadline: Option<Instant>) {
        let patience = Patience { deadline, cancelled: Some(&self.unwanted) };
        let wait = FutexWait::new(area, self.chain, self.kind);
        match wait.on_this_thread(&patience) {
            Ok(Some(guard)) => {
                if self.settle(GRANTED) {
                    self.notify.wait_changed(self.chain);
                    while !self.unwanted.load(Ordering::Acquire) {
                        std::thread::park();
                    }
                }
                drop(guard);
            }
            Ok(None) => drop(self.settle(TIMED_OUT)),
            Err(error) => self.fail(LockError::Mutex(error)),
        }
    }

    fn fail(&self, error: LockError) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        let _ = self.settle(FAILED);
    }
}
