//! Byte-range locks of one open file description: the system calls and nothing else.
//!
//! Role: `F_OFD_SETLK` and its kin with types. What the bytes mean, and what is held: `handle.rs`.
//! Invariants
//! - One value is one lock owner: two locks of it never conflict, and one unlock undoes them all.
//!   Its file is never duplicated for another owner, nor inherited by a child that unlocks.
//! - Open-file-description locks: they exclude libtdb's classic locks in other processes and our
//!   other owners alike, and no close elsewhere drops them. Nothing detects a deadlock.
//!
//! Origin: fcntl(2); `docs/spec/tdb-format.md` 4.7.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::{LockKind, tick::Tick};
use crate::limits::SLEEP_SLICE_MAX;

/// A range of lock bytes (physical file offsets).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub(crate) start: u64,
    /// Bytes; 0 means to the end of the file, wherever that will be.
    pub(crate) len: u64,
}

impl Span {
    /// One byte.
    pub(crate) const fn byte(start: u64) -> Self {
        Self { start, len: 1 }
    }

    /// Everything from `start` on.
    pub(crate) const fn from(start: u64) -> Self {
        Self { start, len: 0 }
    }
}

/// Who stands in the way of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocker {
    /// A process with classic locks (libtdb).
    Process(libc::pid_t),
    /// An owner with open-file-description locks (one of us).
    Description,
    /// The thread that holds the chain's mutex.
    Thread(u32),
}

/// One lock owner.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    file: Arc<File>,
}

impl Ranges {
    /// Makes the open file description behind `file` a lock owner.
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { file }
    }

    /// Locks, or changes the kind of what this owner holds there already. `false` is busy.
    pub(crate) fn try_lock(&self, span: Span, kind: LockKind) -> io::Result<bool> {
        match self.set(libc::F_OFD_SETLK, span, kind_word(kind)) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EACCES) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Locks, sleeping as long as it takes.
    ///
    /// Asks again with every tick: a libtdb process that queued behind this wait is not entered into
    /// the kernel's deadlock search, and libtdb relies on its EDEADLK when it deadlocks with itself.
    /// It is searched for anew when the wait in front of it ends.
    pub(crate) fn lock(&self, span: Span, kind: LockKind) -> io::Result<()> {
        if self.try_lock(span, kind)? {
            return Ok(());
        }
        // Where the signal is taken or no timer is left, the wait is one piece.
        let _tick = Tick::start(SLEEP_SLICE_MAX).ok();
        while !self.lock_until_signal(span, kind)? {}
        Ok(())
    }

    /// Locks, sleeping until it is granted (`true`) or a signal handler has run (`false`).
    pub(crate) fn lock_until_signal(&self, span: Span, kind: LockKind) -> io::Result<bool> {
        match self.set(libc::F_OFD_SETLKW, span, kind_word(kind)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unlocks whatever this owner holds in the range.
    pub(crate) fn unlock(&self, span: Span) -> io::Result<()> {
        self.set(libc::F_OFD_SETLK, span, libc::F_UNLCK)
    }

    /// Somebody who keeps this owner from locking; `None` if it could.
    pub(crate) fn blocker(&self, span: Span, kind: LockKind) -> io::Result<Option<Blocker>> {
        let mut request = request(span, kind_word(kind))?;
        self.control(libc::F_OFD_GETLK, &mut request)?;
        Ok(match request.l_pid {
            _ if i32::from(request.l_type) == libc::F_UNLCK => None,
            -1 => Some(Blocker::Description),
            pid => Some(Blocker::Process(pid)),
        })
    }

    fn set(&self, command: libc::c_int, span: Span, kind: libc::c_int) -> io::Result<()> {
        self.control(command, &mut request(span, kind)?)
    }

    fn control(&self, command: libc::c_int, request: &mut libc::flock) -> io::Result<()> {
        let request = std::ptr::from_mut(request);
        // SAFETY: the descriptor is open (`file` owns it); all lock commands take a pointer to a
        // `flock`, which lives until the call returns.
        let status = unsafe { libc::fcntl(self.file.as_raw_fd(), command, request) };
        if status == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn kind_word(kind: LockKind) -> libc::c_int {
    match kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
    }
}

fn request(span: Span, kind: libc::c_int) -> io::Result<libc::flock> {
    let overflow = || io::Error::from_raw_os_error(libc::EOVERFLOW);
    Ok(libc::flock {
        l_type: libc::c_short::try_from(kind).map_err(|_| overflow())?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(|_| overflow())?,
        l_start: libc::off_t::try_from(span.start).map_err(|_| overflow())?,
        l_len: libc::off_t::try_from(span.len).map_err(|_| overflow())?,
        l_pid: 0, // anything else is EINVAL for these commands
    })
}

#[cfg(test)]
mod tests;
