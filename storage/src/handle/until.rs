//! Waiting for a chain, but not for ever: for programs that own their thread.
//!
//! Role: [`Handle::lock_chain_until`]. A mutex is waited for on the calling thread; a byte-range
//! lock, for which the kernel knows no time-out, by a thread of its own.
//! Invariants
//! - As everywhere: a granted chain whose file needs recovery is given back, the file recovered,
//!   and the chain asked for again.
//!
//! Origin: `docs/spec/tdb-format.md` 4.6, 5.5, 7.6.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::{Handle, Locked};
use crate::engine::AccessError;
use crate::lock::{HandleLocks, LockError, LockKind, Locks, TryLock, Wait, WaitRefused};
use crate::recovery::needs_recovery;
use crate::wait::{FutexWait, Patience, WaitState};

/// Pause between two tries when no wait can be started, because all places are taken.
const PAUSE: Duration = Duration::from_millis(5);

impl Handle {
    /// Locks a chain, waiting for it at most until `deadline`; `None` if it was busy so long. The
    /// handle must hold nothing else. Undoing a crashed commit, if one is found, takes its time
    /// regardless of the deadline.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn lock_chain_until(
        &mut self,
        chain: u32,
        kind: LockKind,
        deadline: Instant,
    ) -> Result<Option<Locked<'_>>, AccessError> {
        loop {
            match self.engine().lock_chain_checked(chain, kind, Wait::No) {
                Ok(TryLock::Granted) => return Ok(Some(Locked::new(self, chain))),
                Ok(TryLock::Busy) => {}
                Err(AccessError::NeedsRecovery) => {
                    self.recover()?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            // Without locks nothing is ever busy.
            let Some(locks) = self.locks.file_locks() else { return Ok(None) };
            if wait(locks, chain, kind, deadline)? == TryLock::Busy {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                continue;
            }
            if !needs_recovery(&self.database.store).unwrap_or(true) {
                return Ok(Some(Locked::new(self, chain)));
            }
            self.locks.unlock_chain(chain)?;
            self.recover()?;
        }
    }
}

fn wait(
    locks: &mut HandleLocks,
    chain: u32,
    kind: LockKind,
    deadline: Instant,
) -> Result<TryLock, LockError> {
    let Some(area) = locks.mutexes() else { return wait_on_thread(locks, chain, kind, deadline) };
    let wait = FutexWait::new(Arc::clone(area), chain, kind);
    match wait.on_this_thread(&Patience::until(deadline))? {
        Some(guard) => locks.adopt_mutex(guard, kind).map(|()| TryLock::Granted),
        None => Ok(TryLock::Busy),
    }
}

fn wait_on_thread(
    locks: &mut HandleLocks,
    chain: u32,
    kind: LockKind,
    deadline: Instant,
) -> Result<TryLock, LockError> {
    let (changed, changes) = channel();
    // The receiver is there until the wait is over; later news interest nobody.
    let notify = Arc::new(move |_chain: u32| {
        let _ = changed.send(());
    });
    let waiter = match locks.wait_for_chain(chain, kind, Some(deadline), notify) {
        Ok(waiter) => waiter,
        Err(WaitRefused::Holding { holding, .. }) => {
            return Err(LockError::Refused { what: "a chain", holding });
        }
        Err(WaitRefused::Thread { source, .. }) => {
            return Err(LockError::System { what: "a chain", source });
        }
        // All places taken, or the former wait for this chain is just ending: soon over.
        Err(_) => {
            std::thread::sleep(PAUSE);
            return Ok(TryLock::Busy);
        }
    };
    while waiter.state() == WaitState::Waiting {
        if changes.recv_timeout(PAUSE) == Err(RecvTimeoutError::Disconnected) {
            break;
        }
    }
    locks.adopt(waiter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::Flags;
    use crate::handle::Database;
    use crate::open::{OpenOptions, open};
    use std::sync::mpsc::Sender;

    const LONG: Duration = Duration::from_secs(60);

    fn database(mutexes: bool) -> (tempfile::TempDir, Handle) {
        let directory = tempfile::tempdir().unwrap();
        let flags = if mutexes {
            Flags::MUTEX_LOCKING | Flags::INCOMPATIBLE_HASH | Flags::CLEAR_IF_FIRST
        } else {
            Flags::DEFAULT
        };
        let handle = open(&directory.path().join("t.tdb"), &OpenOptions::create(3, flags)).unwrap();
        (directory, handle)
    }

    /// Holds chain 1 until told; says when it does.
    fn hold(database: Arc<Database>) -> (Sender<()>, std::thread::JoinHandle<()>) {
        let (release, released) = channel();
        let (holding, holds) = channel();
        let holder = std::thread::spawn(move || {
            let mut handle = database.handle().unwrap();
            let locked = handle.lock_chain(1, LockKind::Write).unwrap();
            holding.send(()).unwrap();
            released.recv().unwrap();
            locked.unlock().unwrap();
        });
        holds.recv().unwrap();
        (release, holder)
    }

    fn is_free_elsewhere(database: &Arc<Database>) -> bool {
        let database = Arc::clone(database);
        let elsewhere = std::thread::spawn(move || {
            let mut handle = database.handle().unwrap();
            handle.try_lock_chain(1, LockKind::Write).unwrap().is_some()
        });
        elsewhere.join().unwrap()
    }

    #[test]
    fn a_busy_chain_costs_the_deadline_and_no_more() {
        for mutexes in [false, true] {
            let (_directory, mut handle) = database(mutexes);
            let (release, holder) = hold(Arc::clone(handle.database()));
            let soon = Instant::now() + Duration::from_millis(30);
            assert!(handle.lock_chain_until(1, LockKind::Write, soon).unwrap().is_none());
            // Another chain is not concerned.
            assert!(handle.lock_chain_until(2, LockKind::Write, soon).unwrap().is_some());
            release.send(()).unwrap();
            holder.join().unwrap();
            let long = Instant::now() + LONG;
            let locked = handle.lock_chain_until(1, LockKind::Write, long).unwrap();
            locked.unwrap().unlock().unwrap();
        }
    }

    #[test]
    fn a_chain_given_back_in_time_is_ours_and_only_ours() {
        for mutexes in [false, true] {
            let (_directory, mut handle) = database(mutexes);
            let database = Arc::clone(handle.database());
            let (release, holder) = hold(Arc::clone(&database));
            let releaser = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                release.send(()).unwrap();
            });
            let long = Instant::now() + LONG;
            let locked = handle.lock_chain_until(1, LockKind::Write, long).unwrap().unwrap();
            assert!(!is_free_elsewhere(&database));
            locked.unlock().unwrap();
            assert!(is_free_elsewhere(&database));
            holder.join().unwrap();
            releaser.join().unwrap();
        }
    }
}
