//! INT and TERM passed on to running children.
//!
//! Invariants
//! - The handler only stores a number and writes one byte; a thread does the rest.
//! - A child is signalled only while it is in the list, and it leaves the list, under the same lock,
//!   before it is reaped: a process id that was given to somebody else is never hit.
#![allow(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

static CAUGHT: AtomicI32 = AtomicI32::new(0);
static WAKE_FD: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: libc::c_int) {
    CAUGHT.store(signal, Ordering::Relaxed);
    let byte = 0u8;
    // SAFETY: `write` may be called in a signal handler; the pointer is to one readable byte; a
    // descriptor of -1 only fails.
    let _ = unsafe { libc::write(WAKE_FD.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
}

/// Children that get the signal; shared between threads.
#[derive(Clone, Debug, Default)]
pub struct Register {
    pids: Arc<Mutex<Vec<i32>>>,
}

impl Register {
    /// Waits for a child that may be signalled meanwhile.
    ///
    /// # Errors
    /// That of waiting.
    pub fn wait(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let pid = i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.lock().push(pid);
        if CAUGHT.load(Ordering::Relaxed) != 0 {
            terminate(pid);
        }
        let ended = await_end(pid);
        self.lock().retain(|other| *other != pid);
        ended?;
        child.wait()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<i32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the child has ended and leaves it to be reaped.
fn await_end(pid: i32) -> io::Result<()> {
    let id = libc::id_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        // SAFETY: an all-zero `siginfo_t` is a valid value of this plain C structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is writable for the duration of the call; WNOWAIT leaves the child.
        let status =
            unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | libc::WNOWAIT) };
        if status == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn terminate(pid: i32) {
    // SAFETY: `kill` takes numbers only; the caller holds a child that is not reaped yet.
    let _ = unsafe { libc::kill(pid, libc::SIGTERM) };
}

/// INT and TERM no longer end this process.
#[derive(Debug)]
pub struct Forwarder {
    register: Register,
}

impl Forwarder {
    /// Installs the handlers; at most once in a process. `None` when the system refuses: then the
    /// signals keep their default effect.
    #[must_use]
    pub fn install() -> Option<Self> {
        let (mut wake, waker) = UnixStream::pair().ok()?;
        waker.set_nonblocking(true).ok()?;
        WAKE_FD.store(waker.as_raw_fd(), Ordering::Relaxed);
        // Kept open for the life of the process: the handler writes to it.
        let _ = waker.into_raw_fd();
        let register = Register::default();
        let children = register.clone();
        std::thread::spawn(move || {
            let mut byte = [0];
            while matches!(wake.read(&mut byte), Ok(count) if count > 0) {
                // Held while signalling: see the invariants.
                let pids = children.lock();
                pids.iter().copied().for_each(terminate);
            }
        });
        [libc::SIGINT, libc::SIGTERM].into_iter().all(handle).then_some(Self { register })
    }

    /// The list to wait with.
    #[must_use]
    pub fn register(&self) -> Register {
        self.register.clone()
    }

    /// The last signal that came.
    #[must_use]
    pub fn caught(&self) -> Option<u8> {
        let signal = CAUGHT.load(Ordering::Relaxed);
        u8::try_from(signal).ok().filter(|&signal| signal != 0)
    }
}

fn handle(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero `sigaction` is a valid value: no flags, empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = on_signal;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised and its handler calls only what a handler may call; the old
    // action is not asked for.
    let status = unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    status == 0
}
