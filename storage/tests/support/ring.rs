//! Carries out a [`FutexSleep`] on an io_uring, as a shard's reactor does.
//!
//! Role: the driver of [`ringmaster_storage::wait::FutexWait`] that tests run; the product's is in
//! the transport crate, which storage does not know.
//! Invariants
//! - A sleep has ended only when its completion was reaped: a cancel may come after the wake-up.
//!
//! Origin: io_uring_prep_futex_wait(3); Linux 6.7.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io;
use std::time::Duration;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode};
use ringmaster_storage::mutex::FutexWake;
use ringmaster_storage::wait::FutexSleep;

/// `FUTEX2_SIZE_U32` without `FUTEX2_PRIVATE`: a 32-bit word that processes share.
const FUTEX_FLAGS: u32 = 2;
/// Matches every waker.
const ANY: u64 = 0xFFFF_FFFF;
const SLEEP: u64 = 1;
const CANCEL: u64 = 2;

/// A ring for one sleep at a time.
pub struct FutexRing {
    ring: IoUring,
}

/// How a sleep on the ring ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// To be told to the wait.
    Ended(FutexWake),
    /// The time was over; the sleep was cancelled, and this is how it ended.
    TimedOut(FutexWake),
}

impl FutexRing {
    /// `None` with a skip line where the kernel lacks `FutexWait`; a panic where the run must be
    /// complete (`RINGMASTER_REQUIRE_ALL=1`).
    pub fn new() -> Option<Self> {
        match Self::open() {
            Ok(ring) => Some(ring),
            Err(error) => {
                let reason = format!("io_uring cannot wait for futexes here: {error}");
                assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "skipped: {reason}");
                println!("skipped: {reason}");
                None
            }
        }
    }

    fn open() -> io::Result<Self> {
        let ring = IoUring::new(4)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::FutexWait::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { ring })
    }

    /// Submits the sleep and reaps its end.
    ///
    /// # Errors
    /// The ring refuses.
    pub fn sleep(&mut self, sleep: &FutexSleep, at_most: Duration) -> io::Result<Slept> {
        let value = u64::from(sleep.value());
        let entry = opcode::FutexWait::new(sleep.address(), value, ANY, FUTEX_FLAGS);
        self.push(&entry.build().user_data(SLEEP))?;
        if let Some(ended) = self.reap(Some(at_most))? {
            return Ok(Slept::Ended(ended));
        }
        let cancel = opcode::AsyncCancel::new(SLEEP).build().user_data(CANCEL);
        self.push(&cancel)?;
        loop {
            if let Some(ended) = self.reap(None)? {
                return Ok(Slept::TimedOut(ended));
            }
        }
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) -> io::Result<()> {
        // SAFETY: the word a sleep points to stays mapped while its `FutexSleep` lives, which is
        // borrowed until the completion was reaped; a cancel points nowhere.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(io::Error::other)
    }

    /// How the sleep ended; `None` if it has not (time over, or only the cancel completed).
    fn reap(&mut self, at_most: Option<Duration>) -> io::Result<Option<FutexWake>> {
        let submitted = match at_most {
            None => self.ring.submit_and_wait(1),
            Some(time) => {
                let limit = Timespec::from(time);
                let args = SubmitArgs::new().timespec(&limit);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match submitted {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR) => {}
                _ => return Err(error),
            },
        }
        let mut ended = None;
        for completion in self.ring.completion() {
            if completion.user_data() == SLEEP {
                ended = Some(match completion.result() {
                    0 => FutexWake::Woken,
                    _ => FutexWake::LookAgain, // changed before (EAGAIN), cancelled
                });
            }
        }
        Ok(ended)
    }
}
