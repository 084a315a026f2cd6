//! Which mutexes the file format has, and whether this machine's are the same.
//!
//! Role: the attributes of libtdb's mutexes, and a trial of them once per process.
//! Invariants
//! - Nothing here touches a file.
//!
//! Origin: `docs/spec/tdb-format.md` 5.3, 5.8.

use std::io;
use std::sync::Arc;

use memmap2::MmapOptions;

use super::{AreaError, MutexArea, MutexError, Slot, area_len, errno};

/// Attributes of libtdb's mutexes: error-checking, process-shared, robust.
pub(super) struct Attributes(pub(super) libc::pthread_mutexattr_t);

impl Attributes {
    pub(super) fn new() -> io::Result<Self> {
        let mut raw = std::mem::MaybeUninit::uninit();
        // SAFETY: initialises the value `raw` points to.
        checked(unsafe { libc::pthread_mutexattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut this = Self(unsafe { raw.assume_init() });
        let attributes = &raw mut this.0;
        // SAFETY: `attributes` points to initialised attributes, here and in the next two calls.
        checked(unsafe {
            libc::pthread_mutexattr_settype(attributes, libc::PTHREAD_MUTEX_ERRORCHECK)
        })?;
        // SAFETY: see above.
        checked(unsafe {
            libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: see above.
        checked(unsafe {
            libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST)
        })?;
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::pthread_mutexattr_destroy(&raw mut self.0) };
    }
}

/// Says once per process whether the mutexes of this machine are those of the file format: a
/// thread dies holding one, and the lock word is looked at on the way. (libtdb forks a child for
/// this question and leaves a signal handler behind.)
///
/// # Errors
/// [`AreaError::Unsupported`] with what was different.
pub fn supported() -> Result<(), AreaError> {
    static ANSWER: std::sync::OnceLock<Result<(), &'static str>> = std::sync::OnceLock::new();
    ANSWER.get_or_init(probe).map_err(|reason| AreaError::Unsupported { reason })
}

fn probe() -> Result<(), &'static str> {
    if !cfg!(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        return Err("this program was built for another C library or processor");
    }
    let len = area_len(1, 4096).ok_or("no area size")?;
    let map = MmapOptions::new().len(len as usize).map_anon().map_err(|_| "no memory")?;
    let area = Arc::new(MutexArea::of(map.into(), 1));
    area.initialise().map_err(|_| "robust shared mutexes cannot be made")?;
    let slot = Slot::Chain(0);
    let guard = area.try_lock(slot).map_err(|_| "lock failed")?.ok_or("new mutex is busy")?;
    // SAFETY: no preconditions.
    let own_id = unsafe { libc::gettid() };
    if u32::try_from(own_id) != Ok(area.lock_word(slot)) {
        return Err("the lock word is not where it should be");
    }
    if !matches!(area.try_lock(slot), Err(MutexError::AlreadyHeld { .. })) {
        return Err("relocking is not detected");
    }
    drop(guard);
    if area.lock_word(slot) != 0 {
        return Err("the lock word of a free mutex is not 0");
    }
    let other = Arc::clone(&area);
    let died = std::thread::spawn(move || other.try_lock(slot).map(std::mem::forget)).join();
    if !matches!(died, Ok(Ok(()))) {
        return Err("a second thread could not lock");
    }
    match area.lock(slot) {
        Ok(guard) if guard.owner_died() => Ok(()),
        _ => Err("an owner's death is not noticed"),
    }
}

fn checked(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(errno(code)) }
}
