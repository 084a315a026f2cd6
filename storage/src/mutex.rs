//! The robust, process-shared mutexes in front of a mutex file.
//!
//! Role: map the area, initialise it, take and give back one mutex. In which order and what the
//! all-record word means for a chain: `lock.rs`. Sleeping on one: `wait.rs`.
//! Owner: the area is shared by all threads of the process; a *held* mutex belongs to one thread.
//! Invariants
//! - The area is mapped once and never moves or shrinks; every guard keeps it mapped, for the
//!   kernel and the C library find held mutexes by address (spec 5.9).
//! - A guard is neither sent nor shared between threads: only the thread that locked may unlock.
//! - A mutex whose owner died is made consistent at once. Nothing that it protected is repaired
//!   here: list surgery is range-checked by its readers, commits are rolled back by recovery.
//! - Other processes change every word at any time; all access to words is atomic.
//!
//! Origin: `docs/spec/tdb-format.md` 5; lib/tdb/common/mutex.c (behaviour only).

mod layout;
mod robust;
mod supported;

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use thiserror::Error;

use layout::{ALLRECORD_STATE, MUTEX_LEN};
pub(crate) use robust::Attempt;
use supported::Attributes;
pub use supported::supported;

pub use layout::{AllRecordState, OWNER, OWNER_DIED, Slot, WAITERS, area_len};

/// Why a mutex could not be taken, other than by being busy.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MutexError {
    /// This thread holds it already. A bookkeeping error of ours.
    #[error("the mutex of {slot:?} is already held by this thread")]
    AlreadyHeld {
        /// Which.
        slot: Slot,
    },
    /// Somebody unlocked it after its owner's death without repairing it: it can never be locked
    /// again, until all processes close the file and the next opener initialises the mutexes.
    #[error("the mutex of {slot:?} is unrecoverable; close the database everywhere and reopen it")]
    NotRecoverable {
        /// Which.
        slot: Slot,
    },
    /// Its word (or the all-record state word) has a value that no process writes: the area was
    /// overwritten.
    #[error("the mutex of {slot:?} is damaged; close the database everywhere and reopen it")]
    Broken {
        /// Which.
        slot: Slot,
    },
    /// The C library refused.
    #[error("cannot lock the mutex of {slot:?}")]
    System {
        /// Which.
        slot: Slot,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Why the area of a file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AreaError {
    /// This machine's C library or processor has other mutexes than the ones in the file.
    #[error("robust mutexes of this file format need glibc on x86-64 or aarch64: {reason}")]
    Unsupported {
        /// What was different.
        reason: &'static str,
    },
    /// The header's `mutex_size` is not what this machine computes.
    #[error(
        "mutex area of {found} bytes, this machine needs {expected} (other processor or page size?)"
    )]
    Size {
        /// In the header.
        found: u32,
        /// What [`area_len`] gives.
        expected: u32,
    },
    /// The file ends inside the area.
    #[error("the file of {file_len} bytes ends inside the mutex area of {area_len} bytes")]
    Truncated {
        /// Size of the file.
        file_len: u64,
        /// Size of the area.
        area_len: u32,
    },
    /// The kernel refused.
    #[error("cannot map the mutex area")]
    Map(#[source] io::Error),
    /// The C library refused to initialise a mutex.
    #[error("cannot initialise a mutex")]
    Initialise(#[source] io::Error),
}

/// The mapped area of one file.
#[derive(Debug)]
pub struct MutexArea {
    map: MmapRaw,
    hash_size: u32,
    /// Unlocks that found the mutex no longer ours (spec 11.2: an administrator's tool initialised
    /// it under us). Exclusion was lost for a moment: the caller must look.
    lost: AtomicU64,
    /// Mutexes taken over from an owner that died holding them.
    deaths: AtomicU64,
}

impl MutexArea {
    /// Maps the area of an open file whose header says `mutex_size`. The file must be open for
    /// reading and writing and must not be truncated while the area lives (hold ACTIVE).
    ///
    /// # Errors
    /// [`AreaError`].
    pub fn map(
        file: &File,
        hash_size: u32,
        mutex_size: u32,
        page_size: u32,
    ) -> Result<Arc<Self>, AreaError> {
        supported()?;
        let expected = area_len(hash_size, page_size).unwrap_or(u32::MAX);
        if mutex_size != expected {
            return Err(AreaError::Size { found: mutex_size, expected });
        }
        let file_len = file.metadata().map_err(AreaError::Map)?.len();
        if file_len < u64::from(mutex_size) {
            return Err(AreaError::Truncated { file_len, area_len: mutex_size });
        }
        let map =
            MmapOptions::new().len(mutex_size as usize).map_raw(file).map_err(AreaError::Map)?;
        Ok(Arc::new(Self::of(map, hash_size)))
    }

    fn of(map: MmapRaw, hash_size: u32) -> Self {
        Self { map, hash_size, lost: AtomicU64::new(0), deaths: AtomicU64::new(0) }
    }

    /// Number of chains.
    #[must_use]
    pub fn hash_size(&self) -> u32 {
        self.hash_size
    }

    /// How often an unlock found the mutex in other hands.
    #[must_use]
    pub fn lost_count(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How often a mutex was taken over from an owner that died holding it: each time a chain or
    /// the freelist may have been left half changed, which nothing repairs (spec 5.7).
    #[must_use]
    pub fn owner_deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    /// Makes all mutexes new and the all-record word free, byte for byte as libtdb does. Only for
    /// who holds ACTIVE for writing (nobody else has the file open): held mutexes would be lost.
    ///
    /// # Errors
    /// [`AreaError::Initialise`].
    pub fn initialise(&self) -> Result<(), AreaError> {
        let attributes = Attributes::new().map_err(AreaError::Initialise)?;
        self.initialise_slot(Slot::Freelist, &attributes)?;
        for chain in 0..self.hash_size {
            self.initialise_slot(Slot::Chain(chain), &attributes)?;
        }
        self.set_state(AllRecordState::Free);
        self.initialise_slot(Slot::AllRecords, &attributes)
    }

    fn initialise_slot(&self, slot: Slot, attributes: &Attributes) -> Result<(), AreaError> {
        // SAFETY: `mutex` points to a whole, aligned `pthread_mutex_t` inside the mapping; the
        // caller of `initialise` says that nobody uses it; the attributes are initialised.
        let code = unsafe { libc::pthread_mutex_init(self.mutex(slot), &raw const attributes.0) };
        if code == 0 { Ok(()) } else { Err(AreaError::Initialise(errno(code))) }
    }

    /// Takes the mutex if nobody has it. Forgets other sleepers: who has *slept* for the mutex
    /// must take it by `wait::FutexWait`, which knows the rule.
    ///
    /// # Errors
    /// [`MutexError`]; `None` is busy.
    pub fn try_lock(self: &Arc<Self>, slot: Slot) -> Result<Option<MutexGuard>, MutexError> {
        let code = self.try_lock_code(slot);
        self.taken(slot, code)
    }

    fn try_lock_code(&self, slot: Slot) -> i32 {
        // SAFETY: `mutex` points to a whole, aligned `pthread_mutex_t` inside the mapping, which
        // is initialised (the header announced the feature) and stays mapped: a held mutex is
        // remembered either by a guard, which keeps the area, or by the caller of
        // `try_lock_unguarded`, who does.
        unsafe { libc::pthread_mutex_trylock(self.mutex(slot)) }
    }

    /// As [`MutexArea::try_lock`] without a guard, for the path where a guard's cost shows: who is
    /// answered `true` keeps the area, stays on this thread, and calls [`MutexArea::unlock`] once.
    ///
    /// # Errors
    /// [`MutexError`]; `false` is busy.
    #[inline]
    pub(crate) fn try_lock_unguarded(self: &Arc<Self>, slot: Slot) -> Result<bool, MutexError> {
        match self.try_lock_code(slot) {
            0 => Ok(true),
            libc::EBUSY => Ok(false),
            code => {
                let guard = self.taken(slot, code)?;
                let taken = guard.is_some();
                // The mutex stays locked; only the guard's reference to the area is given back.
                if let Some(guard) = guard {
                    guard.forget();
                }
                Ok(taken)
            }
        }
    }

    /// Undoes one [`MutexArea::try_lock_unguarded`], on the same thread.
    #[inline]
    pub(crate) fn unlock(&self, slot: Slot) {
        // SAFETY: the mutex is mapped and was locked by this thread, by a guard or by the caller
        // of `try_lock_unguarded`. EPERM (spec 11.2) is answered, not undefined: the mutex is of
        // the error-checking kind.
        let code = unsafe { libc::pthread_mutex_unlock(self.mutex(slot)) };
        if code != 0 {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the mutex, sleeping as long as it takes. Never on a shard thread.
    ///
    /// # Errors
    /// [`MutexError`].
    pub fn lock(self: &Arc<Self>, slot: Slot) -> Result<MutexGuard, MutexError> {
        // SAFETY: as in `try_lock`.
        let code = unsafe { libc::pthread_mutex_lock(self.mutex(slot)) };
        let busy = || MutexError::System { slot, source: errno(libc::EBUSY) };
        self.taken(slot, code)?.ok_or_else(busy)
    }

    fn taken(self: &Arc<Self>, slot: Slot, code: i32) -> Result<Option<MutexGuard>, MutexError> {
        let owner_died = match code {
            0 => false,
            libc::EBUSY => return Ok(None),
            libc::EOWNERDEAD => {
                // SAFETY: as in `try_lock`; this thread owns the mutex (EOWNERDEAD says so).
                let repaired = unsafe { libc::pthread_mutex_consistent(self.mutex(slot)) };
                if repaired != 0 {
                    return Err(MutexError::System { slot, source: errno(repaired) });
                }
                self.deaths.fetch_add(1, Ordering::Relaxed);
                true
            }
            libc::EDEADLK => return Err(MutexError::AlreadyHeld { slot }),
            libc::ENOTRECOVERABLE => return Err(MutexError::NotRecoverable { slot }),
            code => return Err(MutexError::System { slot, source: errno(code) }),
        };
        let area = Arc::clone(self);
        Ok(Some(MutexGuard { area, slot, owner_died, locked: true, _thread: PhantomData }))
    }

    /// Tells the processor that the mutex will be wanted: a hint that reads nothing.
    #[inline]
    pub(crate) fn prefetch(&self, slot: Slot) {
        let _mutex = self.mutex(slot);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction exists on every x86-64; it accesses no memory.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                _mutex.cast_const().cast(),
            );
        }
    }

    /// The word that says who holds the mutex: [`OWNER`], [`WAITERS`], [`OWNER_DIED`].
    #[must_use]
    pub fn lock_word(&self, slot: Slot) -> u32 {
        self.word(slot).load(Ordering::Acquire)
    }

    /// `true` if nobody holds the mutex now, and whoever locks it from now on sees the all-record
    /// word that this thread has stored before. May say `false` though it is free.
    ///
    /// The word was stored in one locked instruction ([`MutexArea::set_state`]), and a mutex is
    /// taken by one, in libtdb's processes too. On x86-64 all processors see those in one order, and
    /// both are full barriers: either we see the owner here, or the owner sees the word. Elsewhere
    /// the C library's lock is an acquire only, which promises no such thing.
    pub(crate) fn is_free_for_later_readers(&self, slot: Slot) -> bool {
        cfg!(target_arch = "x86_64") && self.word(slot).load(Ordering::SeqCst) == 0
    }

    /// Sets the waiters bit if the word is still `expected`; `false` if it changed meanwhile.
    pub(crate) fn mark_waiters(&self, slot: Slot, expected: u32) -> bool {
        let marked = expected | WAITERS;
        let order = Ordering::AcqRel;
        self.word(slot).compare_exchange(expected, marked, order, Ordering::Acquire).is_ok()
    }

    /// Sets the waiters bit as long as somebody owns the mutex. A word without an owner is left
    /// alone: the bit on a free mutex would make it look locked by nobody, for ever.
    pub(crate) fn keep_waiters(&self, slot: Slot) {
        let owned = |word: u32| (word & OWNER != 0).then_some(word | WAITERS);
        // An `Err` is the word without an owner: nothing to mark.
        let _ = self.word(slot).fetch_update(Ordering::AcqRel, Ordering::Acquire, owned);
    }

    /// Wakes up to `count` sleepers of the mutex; harmless at any time. Returns how many.
    pub fn wake(&self, slot: Slot, count: i32) -> usize {
        let word = self.word(slot).as_ptr();
        // SAFETY: FUTEX_WAKE only reads the address as a key; `word` is aligned and mapped.
        let woken = unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, count) };
        usize::try_from(woken).unwrap_or(0)
    }

    /// Wakes every sleeper of every mutex, who then look again. For the opener of a file that
    /// others have open: a daemon that was killed after a wake-up reached it and before it took
    /// the mutex has left the others asleep on a free mutex, and nothing else wakes them.
    pub fn wake_everybody(&self) {
        for chain in 0..self.hash_size {
            self.wake(Slot::Chain(chain), i32::MAX);
        }
        self.wake(Slot::Freelist, i32::MAX);
        self.wake(Slot::AllRecords, i32::MAX);
    }

    /// Sleeps until the word is no longer `value`, somebody wakes us, a signal comes or the time
    /// is over. The answer says no more than "look again", except [`FutexWake::Woken`]: a wake-up
    /// was consumed and must be used or passed on.
    pub(crate) fn sleep_on(&self, slot: Slot, value: u32, at_most: Option<Duration>) -> FutexWake {
        let limit = at_most.map(|time| libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(time.subsec_nanos()),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let word = self.word(slot).as_ptr();
        // SAFETY: `word` is aligned and mapped for as long as `self` lives; `limit` is null or
        // points to a timespec that outlives the call.
        let status =
            unsafe { libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, value, limit) };
        if status == 0 { FutexWake::Woken } else { FutexWake::LookAgain }
    }

    /// Address and meaning of a lock word for somebody else's wait (the ring).
    pub(crate) fn word_address(&self, slot: Slot) -> *const u32 {
        self.word(slot).as_ptr().cast_const()
    }

    /// The all-record state word.
    #[must_use]
    pub fn state(&self) -> AllRecordState {
        AllRecordState::from_word(self.state_word().load(Ordering::SeqCst))
    }

    /// Writes the all-record state word. Only under the mutex of [`Slot::AllRecords`].
    pub(crate) fn set_state(&self, state: AllRecordState) {
        self.state_word().store(state.word(), Ordering::SeqCst);
    }

    fn state_word(&self) -> &AtomicI16 {
        let word = self.at(ALLRECORD_STATE).cast::<i16>();
        // SAFETY: inside the mapping and 2-aligned (const assert in `layout`); the mapping lives
        // as long as `&self`; this process touches the word only atomically.
        unsafe { AtomicI16::from_ptr(word) }
    }

    fn word(&self, slot: Slot) -> &AtomicU32 {
        let word = self.mutex(slot).cast::<u32>();
        // SAFETY: the lock word is the first member of a mutex (checked by `supported`), inside
        // the mapping and 8-aligned; the mapping lives as long as `&self`; the C library and the
        // kernel touch the word only atomically.
        unsafe { AtomicU32::from_ptr(word) }
    }

    fn mutex(&self, slot: Slot) -> *mut libc::pthread_mutex_t {
        let offset = slot.offset(self.hash_size).expect("chain below the hash size");
        self.at(offset).cast()
    }

    fn at(&self, offset: u32) -> *mut u8 {
        let offset = offset as usize;
        assert!(offset + MUTEX_LEN as usize <= self.map.len(), "offset inside the mutex area");
        // SAFETY: `offset` is inside the mapping (asserted).
        unsafe { self.map.as_mut_ptr().add(offset) }
    }
}

/// How a sleep on a lock word ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexWake {
    /// An unlocker (or somebody passing on) woke exactly us: use it or pass it on.
    Woken,
    /// The word had changed before, a signal, a timeout: nothing was consumed.
    LookAgain,
}

/// A held mutex. Dropping it unlocks.
#[derive(Debug)]
pub struct MutexGuard {
    area: Arc<MutexArea>,
    slot: Slot,
    owner_died: bool,
    /// `false` once the guard gave the mutex up to `try_lock_unguarded`'s caller.
    locked: bool,
    /// A mutex belongs to the thread that locked it.
    _thread: PhantomData<*const ()>,
}

impl MutexGuard {
    /// Which mutex.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// `true` if the last owner died holding it: what it protects may be half done.
    #[must_use]
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }

    /// The area the mutex lies in.
    #[must_use]
    pub fn area(&self) -> &Arc<MutexArea> {
        &self.area
    }
}

impl MutexGuard {
    /// Leaves the mutex locked; the reference to the area goes.
    pub(crate) fn forget(mut self) {
        self.locked = false;
    }
}

impl Drop for MutexGuard {
    fn drop(&mut self) {
        if self.locked {
            self.area.unlock(self.slot);
        }
    }
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[cfg(test)]
mod tests;
