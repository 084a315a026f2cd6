//! Telling the kernel that a thread is about to take a mutex.
//!
//! Role: the window between being woken and having the mutex, for threads that sleep on the lock
//! word themselves. The C library guards the same window inside its own lock call.
//! Invariants
//! - The thread's list head is touched by its thread only, and never while a lock call runs.
//!
//! Origin: Linux `Documentation/locking/robust-futex-ABI.rst`, `get_robust_list(2)`.

use std::sync::Arc;

use super::{MutexArea, Slot};

/// While this lives, the kernel knows that the calling thread is about to take the mutex: if the
/// thread dies with the mutex free, it wakes the next sleeper, so a wake-up that had reached the
/// thread is not lost. The C library does the same inside its own lock call.
pub(crate) struct Attempt {
    /// Also says: stay on this thread.
    head: *mut RobustList,
    /// What `head` points into stays mapped.
    _area: Arc<MutexArea>,
}

/// `struct robust_list_head` of the kernel's interface.
#[repr(C)]
struct RobustList {
    list: *mut RobustList,
    /// From an entry to its lock word.
    futex_offset: libc::c_long,
    /// Entry being locked or unlocked.
    pending: *mut RobustList,
}

impl Attempt {
    /// Announces the attempt. `None` if the kernel does not tell the list (then the protection is
    /// missing, nothing else). A lock call of the C library on this thread takes it over, and ends
    /// it when it returns.
    pub(crate) fn announce(area: &Arc<MutexArea>, slot: Slot) -> Option<Self> {
        let mut head: *mut RobustList = std::ptr::null_mut();
        let mut len: libc::size_t = 0;
        let this_thread: libc::c_long = 0;
        let (head_out, len_out) = (&raw mut head, &raw mut len);
        // SAFETY: the two out-pointers are live; thread 0 is the caller.
        let status =
            unsafe { libc::syscall(libc::SYS_get_robust_list, this_thread, head_out, len_out) };
        if status != 0 || head.is_null() || len != size_of::<RobustList>() {
            return None;
        }
        // SAFETY: the kernel gave the head that the C library registered for this thread; it
        // lives as long as the thread and only this thread writes it.
        let offset = unsafe { (*head).futex_offset };
        let entry = area.mutex(slot).cast::<u8>().wrapping_offset(isize::try_from(-offset).ok()?);
        // SAFETY: as above. The C library sets this field at the start of its own lock calls and
        // clears it at their end, so between its calls the field is ours to use.
        unsafe { (*head).pending = entry.cast() };
        Some(Self { head, _area: Arc::clone(area) })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // SAFETY: `head` is this thread's own list head (the value cannot leave the thread).
        unsafe { (*self.head).pending = std::ptr::null_mut() };
    }
}
