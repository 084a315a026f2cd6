//! Handles against handles of this process, in files with and without mutexes. Against libtdb:
//! `tests/lock_interop.rs`.
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::mutex::{WAITERS, area_len};
use crate::wait::{FutexStep, WaitState};
use crate::{mutex::FutexWake, wait::WaitNotify};

const HASH_SIZE: u32 = 3;
const PAGE: u32 = 4096;

/// A file for locking; its content beyond the mutex area does not matter here.
struct Locked {
    _dir: tempfile::TempDir,
    path: PathBuf,
    area: Option<Arc<MutexArea>>,
}

impl Locked {
    fn new(mutexes: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.tdb");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let len = area_len(HASH_SIZE, PAGE).unwrap();
        file.set_len(u64::from(len)).unwrap();
        let area = mutexes.then(|| {
            let area = MutexArea::map(&file, HASH_SIZE, len, PAGE).unwrap();
            area.initialise().unwrap();
            area
        });
        Self { _dir: dir, path, area }
    }

    fn handle(&self) -> HandleLocks {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        HandleLocks::new(Arc::new(file), true, HASH_SIZE, self.area.clone())
    }

    /// Runs `work` with another handle on another thread.
    fn elsewhere<T: Send>(&self, work: impl FnOnce(&mut HandleLocks) -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(|| work(&mut self.handle())).join().unwrap())
    }

    fn chain_elsewhere(&self, chain: u32, kind: LockKind) -> TryLock {
        self.elsewhere(|other| other.lock_chain(chain, kind, Wait::No).unwrap())
    }

    fn all_elsewhere(&self, kind: LockKind) -> TryLock {
        self.elsewhere(|other| other.lock_all_records(kind, Wait::No).unwrap())
    }
}

const MODES: [bool; 2] = [false, true];

use LockKind::{Read, Write};
use TryLock::{Busy, Granted};

fn granted(outcome: Result<TryLock, LockError>) {
    assert_eq!(outcome.unwrap(), Granted);
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn chain_excludes_other_handles_until_the_last_nested_unlock() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        granted(locks.lock_chain(1, Write, Wait::No));
        granted(locks.lock_chain(1, Read, Wait::Yes));
        locks.unlock_chain(1).unwrap();
        assert_eq!(file.chain_elsewhere(1, Read), Busy);
        assert_eq!(file.chain_elsewhere(2, Write), Granted);
        locks.unlock_chain(1).unwrap();
        assert_eq!(file.chain_elsewhere(1, Write), Granted);
        assert!(matches!(locks.unlock_chain(1), Err(LockError::NotHeld { .. })));
    }
}

#[test]
fn nested_write_request_makes_a_shared_chain_exclusive() {
    let file = Locked::new(false);
    let mut locks = file.handle();
    granted(locks.lock_chain(0, Read, Wait::No));
    assert_eq!(file.chain_elsewhere(0, Read), Granted);
    let mut other = file.handle();
    granted(other.lock_chain(0, Read, Wait::No));
    assert_eq!(locks.lock_chain(0, Write, Wait::No).unwrap(), Busy);
    let refused = locks.lock_chain(0, Write, Wait::Yes);
    assert!(matches!(refused, Err(LockError::Refused { .. })), "would sleep for ever");
    drop(other);
    granted(locks.lock_chain(0, Write, Wait::Yes));
    assert_eq!(file.chain_elsewhere(0, Read), Busy);
}

#[test]
fn chain_mutexes_have_no_readers() {
    let file = Locked::new(true);
    let mut locks = file.handle();
    granted(locks.lock_chain(0, Read, Wait::No));
    assert_eq!(file.chain_elsewhere(0, Read), Busy);
    granted(locks.lock_chain(0, Write, Wait::No));
}

#[test]
fn nobody_sleeps_for_a_chain_while_holding_another_or_the_freelist() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        granted(locks.lock_chain(0, Write, Wait::Yes));
        assert!(matches!(locks.lock_chain(1, Write, Wait::Yes), Err(LockError::Refused { .. })));
        granted(locks.lock_chain(1, Write, Wait::No));
        locks.unlock_chain(1).unwrap();
        locks.unlock_chain(0).unwrap();
        granted(locks.lock_freelist(Wait::Yes));
        assert!(matches!(locks.lock_chain(1, Write, Wait::Yes), Err(LockError::Refused { .. })));
    }
}

#[test]
fn all_records_exclude_chains_but_not_the_freelist() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        granted(locks.lock_all_records(Write, Wait::Yes));
        assert_eq!(file.chain_elsewhere(2, Read), Busy);
        assert_eq!(file.all_elsewhere(Read), Busy);
        assert_eq!(file.elsewhere(|other| other.lock_freelist(Wait::No).unwrap()), Granted);
        // Covered, not locked again.
        granted(locks.lock_chain(2, Write, Wait::No));
        locks.unlock_chain(2).unwrap();
        granted(locks.lock_freelist(Wait::No));
        assert_eq!(file.elsewhere(|other| other.lock_freelist(Wait::No).unwrap()), Busy);
        locks.unlock_freelist().unwrap();
        locks.unlock_all_records().unwrap();
        assert_eq!(file.chain_elsewhere(2, Write), Granted);
    }
}

#[test]
fn shared_all_records_admit_readers_of_chains() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        granted(locks.lock_all_records(Read, Wait::No));
        assert_eq!(file.chain_elsewhere(0, Read), Granted);
        assert_eq!(file.chain_elsewhere(0, Write), Busy);
        assert!(matches!(locks.lock_chain(0, Write, Wait::No), Err(LockError::Refused { .. })));
        granted(locks.lock_all_records(Read, Wait::No));
        assert!(matches!(locks.lock_all_records(Write, Wait::No), Err(LockError::Refused { .. })));
        locks.unlock_all_records().unwrap();
        assert_eq!(file.chain_elsewhere(0, Write), Busy);
        locks.unlock_all_records().unwrap();
        assert_eq!(file.chain_elsewhere(0, Write), Granted);
    }
}

#[test]
fn all_records_are_refused_while_chains_are_held() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        granted(locks.lock_chain(0, Read, Wait::No));
        let refused = locks.lock_all_records(Write, Wait::No);
        assert!(matches!(refused, Err(LockError::Refused { .. })));
        let refused = locks.lock_data_range(Wait::No);
        assert!(matches!(refused, Err(LockError::Refused { .. })));
    }
}

#[test]
fn failed_attempt_on_all_records_leaves_nothing_behind() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut holder = file.handle();
        granted(holder.lock_chain(2, Write, Wait::No));
        assert_eq!(file.all_elsewhere(Write), Busy);
        let mut other = file.handle();
        file.elsewhere(|third| {
            assert_eq!(third.lock_all_records(Write, Wait::No).unwrap(), Busy);
            for chain in 0..2 {
                granted(third.lock_chain(chain, Write, Wait::No));
                third.unlock_chain(chain).unwrap();
            }
        });
        granted(other.lock_chain(0, Write, Wait::No));
        if let Some(area) = &file.area {
            assert_eq!(area.state(), crate::mutex::AllRecordState::Free);
        }
    }
}

#[test]
fn freeze_gives_up_at_its_deadline_and_when_cancelled() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut holder = file.handle();
        granted(holder.lock_chain(2, Write, Wait::No));
        file.elsewhere(|worker| {
            let (now, no) = (Instant::now(), AtomicBool::new(false));
            assert_eq!(worker.lock_all_records_until(Write, now, &no).unwrap(), Busy);
            let yes = AtomicBool::new(true);
            assert_eq!(worker.lock_all_records_until(Write, soon(), &yes).unwrap(), Busy);
            assert!(!worker.holds_all_records());
        });
        holder.unlock_chain(2).unwrap();
        granted(holder.lock_all_records_until(Write, soon(), &AtomicBool::new(false)));
    }
}

#[test]
fn upgrade_waits_for_readers_until_the_deadline_and_stays_shared_if_they_stay() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        granted(locks.lock_all_records_upgradable(Wait::No));
        granted(locks.lock_chain(0, Write, Wait::No)); // inside the transaction
        std::thread::scope(|scope| {
            let let_go = held_chain(scope, &file, 1, Read);
            let deadline = Instant::now() + Duration::from_millis(30);
            assert_eq!(locks.upgrade_all_records(deadline).unwrap(), Busy);
            assert_eq!(file.chain_elsewhere(2, Read), Granted, "still shared");
            assert_eq!(file.chain_elsewhere(2, Write), Busy, "still held");
            drop(let_go);
            granted(locks.upgrade_all_records(soon()));
        });
        assert_eq!(file.chain_elsewhere(2, Read), Busy);
        locks.unlock_all_records().unwrap();
        assert_eq!(file.chain_elsewhere(2, Write), Granted);
    }
}

#[test]
fn mark_covers_chains_and_still_locks_the_freelist() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut worker = file.handle();
        granted(worker.lock_all_records(Write, Wait::No));
        file.elsewhere(|shard| {
            shard.mark_all_records().unwrap();
            granted(shard.lock_chain(0, Write, Wait::No));
            shard.unlock_chain(0).unwrap();
            assert!(shard.record_is_unheld(4000).unwrap());
            granted(shard.lock_freelist(Wait::No));
            assert_eq!(file.elsewhere(|other| other.lock_freelist(Wait::No).unwrap()), Busy);
            shard.unlock_freelist().unwrap();
            assert!(matches!(shard.unlock_all_records(), Err(LockError::NotHeld { .. })));
            shard.unmark_all_records().unwrap();
            assert_eq!(shard.lock_chain(0, Write, Wait::No).unwrap(), Busy);
        });
    }
}

#[test]
fn record_under_a_traverse_is_held_for_all_and_survives_all_records() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let mut locks = file.handle();
        for offset in [4000, 4100, 4100] {
            locks.hold_record(offset).unwrap();
        }
        let unheld = |offset| file.elsewhere(|other| other.record_is_unheld(offset).unwrap());
        assert!(!locks.record_is_unheld(4000).unwrap());
        assert!(!unheld(4000) && !unheld(4100) && unheld(4101));
        granted(locks.lock_all_records(Write, Wait::No));
        locks.unlock_all_records().unwrap();
        assert!(!unheld(4000) && !unheld(4100) && unheld(4101) && unheld(4001));
        locks.release_record(4100).unwrap();
        assert!(!unheld(4100), "held twice");
        locks.release_record(4100).unwrap();
        locks.release_record(4000).unwrap();
        assert!(unheld(4000) && unheld(4100));
        assert!(matches!(locks.release_record(4000), Err(LockError::NotHeld { .. })));
    }
}

#[test]
fn all_records_are_not_taken_by_parts_for_ever_while_a_traverse_stands() {
    // A traverse stands on a record and wants the next chain. Whoever keeps the chains while
    // sleeping for the record never meets it again.
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        let (ready, is_ready) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut traverse = file.handle();
                traverse.hold_record(4000).unwrap();
                ready.send(()).unwrap();
                for _ in 0..20 {
                    granted(traverse.lock_chain(1, Read, Wait::Yes));
                    traverse.unlock_chain(1).unwrap();
                }
                traverse.release_record(4000).unwrap();
            });
            is_ready.recv().unwrap();
            let mut worker = file.handle();
            granted(worker.lock_all_records_until(Write, soon(), &AtomicBool::new(false)));
        });
    }
}

#[test]
fn read_only_handle_may_not_lock_for_writing() {
    let file = Locked::new(false);
    let readable = Arc::new(File::open(&file.path).unwrap());
    let mut locks = HandleLocks::new(readable, false, HASH_SIZE, None);
    granted(locks.lock_chain(0, Read, Wait::No));
    assert!(matches!(locks.lock_chain(0, Write, Wait::No), Err(LockError::ReadOnly { .. })));
    assert!(matches!(locks.lock_freelist(Wait::No), Err(LockError::ReadOnly { .. })));
    assert!(matches!(locks.lock_transaction(Wait::No), Err(LockError::ReadOnly { .. })));
}

#[test]
fn locks_end_with_the_handle_even_if_its_file_lives_on() {
    let file = Locked::new(false);
    let open = Arc::new(File::options().read(true).write(true).open(&file.path).unwrap());
    let mut locks = HandleLocks::new(Arc::clone(&open), true, HASH_SIZE, None);
    granted(locks.lock_active(Write, Wait::No));
    granted(locks.lock_active(Read, Wait::No));
    granted(locks.lock_chain(1, Write, Wait::No));
    granted(locks.lock_open(Wait::No));
    assert_eq!(file.elsewhere(|other| other.lock_active(Write, Wait::No).unwrap()), Busy);
    drop(locks);
    assert_eq!(file.chain_elsewhere(1, Write), Granted);
    assert_eq!(file.elsewhere(|other| other.lock_active(Write, Wait::No).unwrap()), Granted);
    assert_eq!(file.elsewhere(|other| other.lock_open(Wait::No).unwrap()), Granted);
    drop(open);
}

/// A notifier and what it said.
fn notifier() -> (Arc<dyn WaitNotify>, Receiver<u32>) {
    let (sender, receiver) = channel();
    let sender = std::sync::Mutex::new(sender);
    let notify = move |chain| {
        let _ = sender.lock().unwrap().send(chain);
    };
    (Arc::new(notify), receiver)
}

/// Holds a chain on a thread of its own until the returned sender is dropped.
fn held_chain<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    file: &'scope Locked,
    chain: u32,
    kind: LockKind,
) -> std::sync::mpsc::Sender<()> {
    let (ready, is_ready) = channel();
    let (let_go, told) = channel::<()>();
    scope.spawn(move || {
        let mut holder = file.handle();
        granted(holder.lock_chain(chain, kind, Wait::No));
        ready.send(()).unwrap();
        let _ = told.recv();
    });
    is_ready.recv().unwrap();
    let_go
}

#[test]
fn waiter_thread_brings_the_chain_and_unlock_gives_it_back() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        std::thread::scope(|scope| {
            let let_go = held_chain(scope, &file, 1, Write);
            let mut shard = file.handle();
            let (notify, changes) = notifier();
            let waiter = shard.wait_for_chain(1, Write, None, notify).unwrap();
            assert_eq!(waiter.state(), WaitState::Waiting);
            // While the wait runs the chain is busy, even the moment after its grant.
            assert_eq!(shard.lock_chain(1, Write, Wait::No).unwrap(), Busy);
            granted(shard.lock_chain(2, Write, Wait::No));
            shard.unlock_chain(2).unwrap();
            drop(let_go);
            assert_eq!(changes.recv().unwrap(), 1);
            assert_eq!(waiter.state(), WaitState::Granted);
            granted(shard.adopt(waiter));
            assert_eq!(file.chain_elsewhere(1, Write), Busy);
            granted(shard.lock_chain(1, Write, Wait::No));
            shard.unlock_chain(1).unwrap();
            assert_eq!(file.chain_elsewhere(1, Write), Busy);
            shard.unlock_chain(1).unwrap();
            file.elsewhere(|other| granted(other.lock_chain(1, Write, Wait::Yes)));
        });
    }
}

#[test]
fn cancelled_wait_leaves_no_lock_behind() {
    for mutexes in MODES {
        for let_go_first in [false, true] {
            let file = Locked::new(mutexes);
            std::thread::scope(|scope| {
                let let_go = held_chain(scope, &file, 1, Write);
                let mut shard = file.handle();
                let (notify, changes) = notifier();
                let waiter = shard.wait_for_chain(1, Write, None, notify).unwrap();
                if let_go_first {
                    drop(let_go);
                    drop(waiter); // in the middle of the grant, or after it
                } else {
                    drop(waiter);
                    drop(let_go);
                }
                // The wait says when it is really over; from then on the chain can be had.
                while shard.waits.in_the_way_of(None).is_some() {
                    changes.recv_timeout(Duration::from_secs(60)).unwrap();
                }
                let give_up = soon();
                while shard.waits.limit.running() > 0 {
                    assert!(Instant::now() < give_up, "the waiting thread never ended");
                    std::thread::yield_now();
                }
                // The holder lets go when its thread gets to it.
                while file.chain_elsewhere(1, Write) == Busy {
                    assert!(Instant::now() < give_up, "a lock was left behind");
                }
                granted(shard.lock_chain(1, Write, Wait::No));
            });
        }
    }
}

#[test]
fn wait_ends_at_its_deadline() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        std::thread::scope(|scope| {
            let _let_go = held_chain(scope, &file, 1, Write);
            let mut shard = file.handle();
            let (notify, changes) = notifier();
            let deadline = Instant::now() + Duration::from_millis(10);
            let waiter = shard.wait_for_chain(1, Write, Some(deadline), notify).unwrap();
            assert_eq!(changes.recv().unwrap(), 1);
            assert_eq!(waiter.state(), WaitState::TimedOut);
            assert_eq!(shard.adopt(waiter).unwrap(), Busy);
            assert_eq!(shard.lock_chain(1, Write, Wait::No).unwrap(), Busy);
        });
    }
}

#[test]
fn one_wait_a_chain_and_a_limit_a_database() {
    for mutexes in MODES {
        let file = Locked::new(mutexes);
        std::thread::scope(|scope| {
            let _let_go = [0, 1].map(|chain| held_chain(scope, &file, chain, Write));
            let limit = WaitLimit::new(1);
            let mut shard = file.handle().with_wait_limit(Arc::clone(&limit));
            let mut second = file.handle().with_wait_limit(limit);
            let (notify, _changes) = notifier();
            let wait = |locks: &mut HandleLocks, chain| {
                locks.wait_for_chain(chain, Write, None, Arc::clone(&notify))
            };
            let waiter = wait(&mut shard, 0).unwrap();
            assert!(matches!(wait(&mut shard, 0), Err(WaitRefused::AlreadyWaiting { chain: 0 })));
            let refused = wait(&mut second, 1);
            assert!(matches!(refused, Err(WaitRefused::LimitReached { running: 1 })));
            let refused = shard.lock_all_records(Write, Wait::No);
            assert!(matches!(refused, Err(LockError::Refused { .. })));
            drop(waiter);
        });
    }
}

#[test]
fn ring_wait_ends_in_the_handles_table() {
    let file = Locked::new(true);
    std::thread::scope(|scope| {
        let let_go = held_chain(scope, &file, 1, Write);
        let mut shard = file.handle();
        let mut wait = shard.wait_on_ring(1, Write).unwrap();
        let FutexStep::Sleep(sleep) = wait.step(FutexWake::LookAgain).unwrap() else {
            panic!("the chain is held")
        };
        assert_ne!(sleep.value() & WAITERS, 0);
        assert_eq!(shard.lock_chain(1, Write, Wait::No).unwrap(), Busy);
        drop(let_go);
        let guard = loop {
            match wait.step(FutexWake::LookAgain).unwrap() {
                FutexStep::Acquired(guard) => break guard,
                FutexStep::Sleep(sleep) => {
                    let _ = sleep.on_this_thread(Some(Duration::from_millis(10)));
                }
            }
        };
        shard.adopt_mutex(guard, wait.kind()).unwrap();
        assert_eq!(file.chain_elsewhere(1, Read), Busy);
        shard.unlock_chain(1).unwrap();
        assert_eq!(file.chain_elsewhere(1, Read), Granted);
    });
    let plain = Locked::new(false);
    let refused = plain.handle().wait_on_ring(1, Write);
    assert!(matches!(refused, Err(WaitRefused::NoMutexes { chain: 1 })));
}

#[test]
fn blocker_is_named() {
    let file = Locked::new(false);
    let mut holder = file.handle();
    granted(holder.lock_chain(1, Write, Wait::No));
    let other = file.handle();
    assert_eq!(other.blocker_of_chain(1, Write), Some(Blocker::Description));
    assert_eq!(other.blocker_of_chain(0, Write), None);
    let file = Locked::new(true);
    let mut holder = file.handle();
    granted(holder.lock_all_records(Write, Wait::No));
    let other = file.handle();
    assert!(matches!(other.blocker_of_chain(1, Write), Some(Blocker::Thread(_))));
}
