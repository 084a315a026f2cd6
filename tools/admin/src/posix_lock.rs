//! POSIX byte-range locks, as smbd, ctdbd's C helper and cluster file systems use them.
//!
//! Role: the four `fcntl` calls. Which byte means what is the caller's.
//! Invariants
//! - The locks belong to the *process*: closing any descriptor of the same file drops them. So a
//!   process that holds one must not open that file again. Open-file-description locks would not
//!   have the trap, but cluster file systems do not all carry them to the other nodes.
//!
//! The only unsafe code of this crate's locking; one call per block.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub start: i64,
    pub len: i64,
}

impl Range {
    /// One byte.
    #[must_use]
    pub const fn byte(start: i64) -> Self {
        Self { start, len: 1 }
    }
}

/// Who holds a lock, as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// 0 or -1 where the holder is on another node, depending on the file system.
    pub pid: i32,
    /// `F_RDLCK`, `F_WRLCK`.
    pub kind: i16,
    pub start: i64,
    pub len: i64,
}

/// Takes a write lock at once, or fails with `EAGAIN` or `EACCES`.
///
/// # Errors
/// That of `fcntl`.
pub fn try_lock(fd: BorrowedFd<'_>, range: Range) -> io::Result<()> {
    request(fd, libc::F_SETLK, libc::F_WRLCK, range).map(drop)
}

/// Waits for a write lock.
///
/// # Errors
/// That of `fcntl`; `EINTR` when a signal handler ran.
pub fn lock(fd: BorrowedFd<'_>, range: Range) -> io::Result<()> {
    request(fd, libc::F_SETLKW, libc::F_WRLCK, range).map(drop)
}

/// Gives a lock back.
///
/// # Errors
/// That of `fcntl`.
pub fn unlock(fd: BorrowedFd<'_>, range: Range) -> io::Result<()> {
    request(fd, libc::F_SETLKW, libc::F_UNLCK, range).map(drop)
}

/// Who would be in the way of a write lock; `None`: nobody.
///
/// # Errors
/// That of `fcntl`.
pub fn holder(fd: BorrowedFd<'_>, range: Range) -> io::Result<Option<Holder>> {
    let lock = request(fd, libc::F_GETLK, libc::F_WRLCK, range)?;
    let found = Holder { pid: lock.l_pid, kind: lock.l_type, start: lock.l_start, len: lock.l_len };
    Ok((found.kind != UNLOCKED).then_some(found))
}

// The constants are `c_int`, the field they go into is `c_short`; the values are 0, 1 and 2.
#[expect(clippy::cast_possible_truncation, reason = "the constants are 0, 1 and 2")]
const UNLOCKED: i16 = libc::F_UNLCK as i16;
#[expect(clippy::cast_possible_truncation, reason = "the constants are 0, 1 and 2")]
const WHENCE: i16 = libc::SEEK_SET as i16;

fn request(
    fd: BorrowedFd<'_>,
    command: libc::c_int,
    kind: libc::c_int,
    range: Range,
) -> io::Result<libc::flock> {
    let kind = i16::try_from(kind).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut lock = libc::flock {
        l_type: kind,
        l_whence: WHENCE,
        l_start: range.start,
        l_len: range.len,
        l_pid: 0,
    };
    // SAFETY: `fd` is open (it is borrowed); the commands used here take a pointer to a `flock`,
    // and `lock` is one, fully initialised, writable and alive during the call.
    let status = unsafe { libc::fcntl(fd.as_raw_fd(), command, &raw mut lock) };
    if status == -1 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_does_not_see_its_own_lock_and_can_give_it_back() {
        let file = tempfile::tempfile().unwrap();
        try_lock(file.as_fd(), Range::byte(0)).unwrap();
        assert_eq!(holder(file.as_fd(), Range::byte(0)).unwrap(), None);
        lock(file.as_fd(), Range { start: 0, len: 2 }).unwrap();
        unlock(file.as_fd(), Range::byte(0)).unwrap();
    }
}
