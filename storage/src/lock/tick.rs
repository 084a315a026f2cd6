//! A tick that interrupts the system calls of one thread.
//!
//! Role: a thread that sleeps in `F_OFD_SETLKW` has no timeout; the tick makes it look up from
//! time to time, at its deadline and at whether it is still wanted.
//! Invariants
//! - The signal goes to this thread only, its handler does nothing, and it interrupts instead of
//!   restarting. Nobody else uses it: a foreign handler is an error, not overwritten.
//!
//! Origin: timer_create(2), `SIGEV_THREAD_ID`.

use std::io;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::Duration;

/// Distance from the first real-time signal that programs may use.
const SIGNAL_OFFSET: libc::c_int = 9;

/// Interrupts the thread that made it, again and again, until it is dropped.
pub(crate) struct Tick {
    timer: libc::timer_t,
    /// Ends on the thread that it interrupts.
    _thread: PhantomData<*const ()>,
}

impl Tick {
    /// Starts ticking on the calling thread.
    ///
    /// # Errors
    /// The signal belongs to somebody else, or the kernel has no timer left (`RLIMIT_SIGPENDING`).
    pub(crate) fn start(every: Duration) -> io::Result<Self> {
        let signal = signal()?;
        receive_here(signal)?;
        // SAFETY: a `sigevent` is plain numbers and pointers; all zero is a valid value.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: no preconditions.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer: libc::timer_t = std::ptr::null_mut();
        let (event, timer_out) = (&raw mut event, &raw mut timer);
        // SAFETY: both pointers are live; the kernel copies the event.
        let status = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, event, timer_out) };
        checked(status)?;
        let tick = Self { timer, _thread: PhantomData };
        let period = libc::timespec {
            tv_sec: libc::time_t::try_from(every.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(every.subsec_nanos()),
        };
        let times = libc::itimerspec { it_interval: period, it_value: period };
        let no_old = std::ptr::null_mut();
        // SAFETY: the timer exists until `tick` is dropped; `times` is live; no old value wanted.
        let status = unsafe { libc::timer_settime(tick.timer, 0, &raw const times, no_old) };
        checked(status)?;
        Ok(tick)
    }
}

impl Drop for Tick {
    fn drop(&mut self) {
        // SAFETY: created in `start`, deleted once.
        unsafe { libc::timer_delete(self.timer) };
    }
}

/// The signal, its handler installed.
fn signal() -> io::Result<libc::c_int> {
    static INSTALLED: OnceLock<Result<libc::c_int, i32>> = OnceLock::new();
    let installed = INSTALLED
        .get_or_init(|| install().map_err(|error| error.raw_os_error().unwrap_or(libc::EBUSY)));
    installed.map_err(io::Error::from_raw_os_error)
}

fn install() -> io::Result<libc::c_int> {
    let signal = libc::SIGRTMIN() + SIGNAL_OFFSET;
    // SAFETY: a `sigaction` is plain numbers and pointers; all zero is a valid value (default).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let current = &raw mut action;
    // SAFETY: only asks; the out-pointer is live.
    checked(unsafe { libc::sigaction(signal, std::ptr::null(), current) })?;
    if action.sa_sigaction != libc::SIG_DFL {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let handler: extern "C" fn(libc::c_int) = do_nothing;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = 0; // no SA_RESTART: interrupting is the purpose
    let action = &raw const action;
    // SAFETY: `action` is live; its handler touches nothing, so it may run at any point.
    checked(unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) })?;
    Ok(signal)
}

/// A shard may have blocked all signals, and its children inherit that.
fn receive_here(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: a `sigset_t` is plain numbers; all zero is a valid value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    let set = &raw mut set;
    // SAFETY: `set` is live.
    checked(unsafe { libc::sigemptyset(set) })?;
    // SAFETY: `set` is live and initialised.
    checked(unsafe { libc::sigaddset(set, signal) })?;
    let no_old = std::ptr::null_mut();
    // SAFETY: `set` is live and initialised; no old value wanted.
    let code = unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, set, no_old) };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

fn checked(status: libc::c_int) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
