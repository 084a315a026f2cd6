//! Our locks against libtdb's in another process, row by row of `docs/spec/tdb-format.md` 4.7, in
//! files with and without mutexes.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ringmaster_storage::flags::Flags;
use ringmaster_storage::lock::{Blocker, FileLocks, HandleLocks, LockKind, Locks, TryLock, Wait};
use ringmaster_storage::mutex::{AllRecordState, MutexArea, Slot, WAITERS, area_len};
use ringmaster_storage::open::OpenOptions;
use ringmaster_storage::traverse::Cursor;
use ringmaster_storage::wait::{WaitNotify, WaitState};

use LockKind::{Read, Write};
use TryLock::{Busy, Granted};

#[path = "support/libtdb.rs"]
mod libtdb;

use libtdb::{Locker, error, flag};

const HASH_SIZE: u32 = 3;
const PAGE: u32 = 4096;
const BUSY: &str = "error 3";

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

/// A process of ours that can be killed: `chain N`, `freelist`, `all`.
#[test]
fn our_locker_process() {
    let Some((path, _, flags)) = libtdb::locker_order() else { return };
    let mut locks = handle(&path, flags & flag::MUTEX_LOCKING != 0);
    libtdb::serve(Ok::<_, &str>(move |line: &str| {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let outcome = match command {
            "chain" => locks.lock_chain(rest.parse().unwrap(), Write, Wait::Yes),
            "freelist" => locks.lock_freelist(Wait::Yes),
            "all" => locks.lock_all_records(Write, Wait::Yes),
            other => return format!("unknown command {other}"),
        };
        format!("{:?}", outcome.unwrap())
    }));
}

fn handle(path: &Path, mutexes: bool) -> HandleLocks {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let area = mutexes.then(|| area(path));
    HandleLocks::new(Arc::new(file), true, HASH_SIZE, area)
}

fn area(path: &Path) -> Arc<MutexArea> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    MutexArea::map(&file, HASH_SIZE, area_len(HASH_SIZE, PAGE).unwrap(), PAGE).unwrap()
}

/// One database with libtdb processes on it, and a key for each chain.
struct Meeting {
    _dir: tempfile::TempDir,
    path: PathBuf,
    mutexes: bool,
    keys: Vec<String>,
}

impl Meeting {
    /// Runs `test` on a file without and on one with mutexes; the locker is its first opener.
    fn in_both_modes(test: impl Fn(&Meeting, &mut Locker)) {
        if !libtdb::available() {
            return;
        }
        for mutexes in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.tdb");
            let chain_of = |key: &String| libtdb::jenkins_hash(key.as_bytes()) % HASH_SIZE;
            let key = |chain| (0..).map(|n| format!("k{n}")).find(|key| chain_of(key) == chain);
            let keys = (0..HASH_SIZE).map(|chain| key(chain).unwrap()).collect();
            let meeting = Meeting { _dir: dir, path, mutexes, keys };
            let mut locker = meeting.locker();
            test(&meeting, &mut locker);
            // Whatever happened: the file is whole.
            let mut last = meeting.locker();
            drop(locker);
            assert_eq!(last.run("check"), "ok", "mutexes: {mutexes}");
        }
    }

    fn flags(&self) -> i32 {
        let mutexes = if self.mutexes { flag::MUTEX_LOCKING } else { 0 };
        flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | mutexes
    }

    fn locker(&self) -> Locker {
        Locker::start(&self.path, 3, self.flags())
    }

    fn ours_in_a_process(&self) -> Locker {
        Locker::start_as("our_locker_process", &self.path, 3, self.flags())
    }

    fn handle(&self) -> HandleLocks {
        handle(&self.path, self.mutexes)
    }

    /// System call in which libtdb sleeps for a chain.
    fn sleep(&self) -> libc::c_long {
        if self.mutexes { libc::SYS_futex } else { libc::SYS_fcntl }
    }

    fn command(&self, verb: &str, chain: usize) -> String {
        format!("{verb} {}", self.keys[chain])
    }

    /// Where the newest record of a chain lies (logical).
    fn first_record(&self, chain: u32) -> u32 {
        let file = File::open(&self.path).unwrap();
        let area = if self.mutexes { area_len(HASH_SIZE, PAGE).unwrap() } else { 0 };
        let mut word = [0; 4];
        file.read_exact_at(&mut word, u64::from(area + 172 + 4 * chain)).unwrap();
        u32::from_le_bytes(word)
    }
}

#[track_caller]
fn granted(outcome: Result<TryLock, impl std::fmt::Debug>) {
    assert_eq!(outcome.unwrap(), Granted);
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn notifier() -> (Arc<dyn WaitNotify>, Receiver<u32>) {
    let (sender, receiver) = channel();
    let sender = std::sync::Mutex::new(sender);
    let notify = move |chain| {
        let _ = sender.lock().unwrap().send(chain);
    };
    (Arc::new(notify), receiver)
}

#[test]
fn chain_of_libtdb_is_busy_for_us_and_the_owner_is_named() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        libtdb.must(&meeting.command("chainlock", 1));
        assert_eq!(ours.lock_chain(1, Write, Wait::No).unwrap(), Busy);
        assert_eq!(ours.lock_chain(1, Read, Wait::No).unwrap(), Busy);
        let pid = libtdb.pid();
        match ours.blocker_of_chain(1, Read) {
            Some(Blocker::Process(owner)) => assert_eq!(u32::try_from(owner), Ok(pid)),
            Some(Blocker::Thread(owner)) => assert_eq!(owner, libtdb.thread()),
            other => panic!("{other:?}"),
        }
        granted(ours.lock_chain(0, Write, Wait::No));
        libtdb.must(&meeting.command("chainunlock", 1));
        ours.unlock_chain(0).unwrap();
        granted(ours.lock_chain(1, Write, Wait::Yes));
    });
}

#[test]
fn readers_share_a_chain_where_chains_have_readers() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        libtdb.must(&meeting.command("chainlock_read", 1));
        let expected = if meeting.mutexes { Busy } else { Granted };
        assert_eq!(ours.lock_chain(1, Read, Wait::No).unwrap(), expected);
        // Ours becomes no writer while libtdb reads.
        assert_eq!(ours.lock_chain(1, Write, Wait::No).unwrap(), Busy);
    });
}

#[test]
fn libtdb_finds_our_chain_busy_and_sleeps_for_it_until_we_let_go() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        granted(ours.lock_chain(1, Write, Wait::No));
        assert_eq!(libtdb.run(&meeting.command("chainlock_nonblock", 1)), BUSY);
        assert_eq!(libtdb.run("lockall_nonblock"), BUSY);
        libtdb.must(&meeting.command("chainlock_nonblock", 0));
        libtdb.must(&meeting.command("chainunlock", 0));
        libtdb.send(&meeting.command("chainlock", 1));
        libtdb.wait_asleep_in(meeting.sleep());
        ours.unlock_chain(1).unwrap();
        assert_eq!(libtdb.reply(), "ok");
        assert_eq!(ours.lock_chain(1, Write, Wait::No).unwrap(), Busy);
    });
}

#[test]
fn lockall_of_libtdb_covers_chains_and_records_but_not_the_freelist() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        libtdb.must("lockall");
        assert_eq!(ours.lock_chain(2, Read, Wait::No).unwrap(), Busy);
        assert_eq!(ours.lock_all_records(Read, Wait::No).unwrap(), Busy);
        assert!(!ours.record_is_unheld(4000).unwrap());
        granted(ours.lock_freelist(Wait::No));
        ours.unlock_freelist().unwrap();
        libtdb.must("unlockall");
        assert!(ours.record_is_unheld(4000).unwrap());
        granted(ours.lock_all_records(Write, Wait::Yes));
        assert_eq!(libtdb.run("lockall_nonblock"), BUSY);
        assert_eq!(libtdb.run(&meeting.command("chainlock_read_nonblock", 0)), BUSY);
        libtdb.send(&meeting.command("store", 0));
        libtdb.wait_asleep_in(meeting.sleep());
        ours.unlock_all_records().unwrap();
        assert_eq!(libtdb.reply(), "ok");
    });
}

#[test]
fn shared_all_records_of_either_side_admit_readers_and_keep_writers_out() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        libtdb.must("lockall_read");
        granted(ours.lock_chain(0, Read, Wait::No));
        assert_eq!(ours.lock_chain(1, Write, Wait::No).unwrap(), Busy);
        ours.unlock_chain(0).unwrap();
        libtdb.must("unlockall_read");
        granted(ours.lock_all_records(Read, Wait::Yes));
        libtdb.must(&meeting.command("chainlock_read_nonblock", 0));
        libtdb.must(&meeting.command("chainunlock_read", 0));
        assert_eq!(libtdb.run(&meeting.command("chainlock_nonblock", 0)), BUSY);
    });
}

#[test]
fn transactions_exclude_each_other_and_a_commit_waits_for_our_readers() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        libtdb.must("start");
        assert_eq!(ours.lock_transaction(Wait::No).unwrap(), Busy);
        granted(ours.lock_chain(1, Read, Wait::No));
        libtdb.must(&format!("{} value", meeting.command("store", 1)));
        libtdb.send("commit");
        libtdb.wait_asleep_in(meeting.sleep());
        ours.unlock_chain(1).unwrap();
        assert_eq!(libtdb.reply(), "ok");
        granted(ours.lock_transaction(Wait::No));
        granted(ours.lock_all_records_upgradable(Wait::No));
        assert_eq!(libtdb.run("start_nonblock"), format!("error {}", error::NOLOCK));
        libtdb.must(&meeting.command("chainlock_read_nonblock", 1));
        let deadline = Instant::now() + Duration::from_millis(30);
        assert_eq!(ours.upgrade_all_records(deadline).unwrap(), Busy);
        libtdb.must(&meeting.command("chainunlock_read", 1));
        granted(ours.upgrade_all_records(soon()));
        assert_eq!(libtdb.run(&meeting.command("chainlock_read_nonblock", 1)), BUSY);
    });
}

#[test]
fn record_under_a_traverse_of_libtdb_is_seen_and_ours_is_spared_by_libtdb() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        libtdb.must(&format!("{} value", meeting.command("store", 1)));
        let record = meeting.first_record(1);
        libtdb.send("traverse_hold");
        assert_eq!(libtdb.reply(), "holding");
        assert!(!ours.record_is_unheld(record).unwrap());
        assert!(ours.record_is_unheld(record + 4).unwrap());
        libtdb.send("go on");
        assert_eq!(libtdb.reply(), "ok");
        assert!(ours.record_is_unheld(record).unwrap());
        // A record we stand on is deleted as DEAD: it stays in its chain.
        ours.hold_record(record).unwrap();
        libtdb.must(&meeting.command("delete", 1));
        assert_eq!(meeting.first_record(1), record);
        ours.release_record(record).unwrap();
    });
}

#[test]
fn all_records_are_had_although_a_traverse_of_libtdb_wants_the_next_chain_meanwhile() {
    // libtdb leaves this cycle to the kernel's detection of deadlocks, which does not know ours.
    Meeting::in_both_modes(|meeting, libtdb| {
        for chain in 0..3 {
            libtdb.must(&format!("{} value", meeting.command("store", chain)));
        }
        libtdb.send("traverse_hold_all");
        assert_eq!(libtdb.reply(), "holding");
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let mut ours = meeting.handle();
                let never = AtomicBool::new(false);
                ours.lock_all_records_until(Write, soon(), &never).unwrap()
            });
            for _ in 0..3 {
                libtdb.send("go on");
                let reply = libtdb.reply();
                if reply == "ok" {
                    break;
                }
            }
            assert_eq!(worker.join().unwrap(), Granted);
        });
    });
}

#[test]
fn our_traverse_meets_lockall_of_libtdb_and_both_come_through() {
    // libtdb's own traverse fails here (byte ranges) or hangs for ever (mutexes).
    Meeting::in_both_modes(|meeting, libtdb| {
        for key in 0..30 {
            libtdb.must(&format!("store key{key} value"));
        }
        let options = OpenOptions::existing(Flags::from_bits(meeting.flags().cast_unsigned()));
        let mut handle = ringmaster_storage::open::open(&meeting.path, &options).unwrap();
        let (mut cursor, mut key, mut value) = (Cursor::new(), Vec::new(), Vec::new());
        let mut seen = std::collections::BTreeSet::new();
        let mut next = |seen: &mut std::collections::BTreeSet<Vec<u8>>| {
            let more = handle.traverse_next(&mut cursor, Read, &mut key, &mut value).unwrap();
            more && seen.insert(key.clone())
        };
        assert!(next(&mut seen));
        libtdb.send("lockall");
        libtdb.wait_asleep_in(libc::SYS_fcntl);
        std::thread::scope(|scope| {
            // Answers only after our traverse has let go of its record.
            let unlock = scope.spawn(|| {
                assert_eq!(libtdb.reply(), "ok");
                libtdb.must("unlockall");
            });
            while next(&mut seen) {}
            unlock.join().unwrap();
        });
        assert_eq!(seen.len(), 30);
    });
}

#[test]
fn killed_libtdb_leaves_chain_and_all_records_to_us() {
    for command in ["chainlock", "lockall"] {
        Meeting::in_both_modes(|meeting, libtdb| {
            // Keeps the file from being initialised afresh by the next opener.
            let _second = meeting.locker();
            libtdb.must(&meeting.command(command, 1));
            let mut ours = meeting.handle();
            assert_eq!(ours.lock_chain(1, Write, Wait::No).unwrap(), Busy);
            libtdb.kill();
            granted(ours.lock_chain(1, Write, Wait::Yes));
            ours.unlock_chain(1).unwrap();
            if let Some(area) = ours.mutexes() {
                assert_eq!(area.state(), AllRecordState::Free);
            }
            granted(ours.lock_all_records(Write, Wait::Yes));
        });
    }
}

#[test]
fn killed_process_of_ours_leaves_chain_and_all_records_to_libtdb() {
    for command in ["chain 1", "all"] {
        Meeting::in_both_modes(|meeting, libtdb| {
            let mut ours = meeting.ours_in_a_process();
            assert_eq!(ours.run(command), "Granted");
            libtdb.send(&format!("{} value", meeting.command("store", 1)));
            libtdb.wait_asleep_in(meeting.sleep());
            ours.kill();
            assert_eq!(libtdb.reply(), "ok");
            libtdb.must("lockall");
            libtdb.must("unlockall");
        });
    }
}

#[test]
fn killed_holder_of_the_freelist_leaves_it_to_libtdb_and_to_us() {
    Meeting::in_both_modes(|meeting, libtdb| {
        for turn in 0..4 {
            let mut dying = meeting.ours_in_a_process();
            assert_eq!(dying.run("chain 1"), "Granted");
            assert_eq!(dying.run("freelist"), "Granted");
            let store = format!("store new{turn} value");
            let mut ours = meeting.handle();
            assert_eq!(ours.lock_freelist(Wait::No).unwrap(), Busy);
            if turn % 2 == 0 {
                dying.kill();
                granted(ours.lock_freelist(if turn == 0 { Wait::No } else { Wait::Yes }));
                ours.unlock_freelist().unwrap();
            } else {
                libtdb.send(&store);
                libtdb.wait_asleep_in(meeting.sleep());
                dying.kill();
                assert_eq!(libtdb.reply(), "ok");
            }
            granted(ours.lock_chain(1, Write, Wait::Yes));
            if let Some(area) = ours.mutexes()
                && turn % 2 == 0
            {
                assert_eq!(area.owner_deaths(), 2, "freelist and chain");
            }
            ours.unlock_chain(1).unwrap();
            libtdb.must(&store);
        }
    });
}

#[test]
fn waiting_thread_gets_the_chain_of_libtdb_and_a_killed_one() {
    for kill in [false, true] {
        Meeting::in_both_modes(|meeting, libtdb| {
            let _second = meeting.locker();
            let mut shard = meeting.handle();
            libtdb.must(&meeting.command("chainlock", 1));
            let (notify, changes) = notifier();
            let waiter = shard.wait_for_chain(1, Write, None, notify).unwrap();
            if kill {
                libtdb.kill();
            } else {
                libtdb.must(&meeting.command("chainunlock", 1));
            }
            changes.recv_timeout(Duration::from_secs(60)).unwrap();
            granted(shard.adopt(waiter));
        });
    }
}

#[test]
fn wait_survives_the_file_growing() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut grower = meeting.locker();
        let mut shard = meeting.handle();
        libtdb.must(&meeting.command("chainlock", 1));
        let (notify, changes) = notifier();
        let waiter = shard.wait_for_chain(1, Write, None, notify).unwrap();
        let before = std::fs::metadata(&meeting.path).unwrap().len();
        for round in 0..20 {
            let value = "x".repeat(10_000 * (round + 1));
            grower.must(&format!("{} {value}", meeting.command("store", 2)));
        }
        assert!(std::fs::metadata(&meeting.path).unwrap().len() > before);
        assert_eq!(waiter.state(), WaitState::Waiting);
        libtdb.must(&meeting.command("chainunlock", 1));
        changes.recv_timeout(Duration::from_secs(60)).unwrap();
        granted(shard.adopt(waiter));
        assert_eq!(grower.run(&meeting.command("chainlock_nonblock", 1)), BUSY);
    });
}

#[test]
fn waits_in_a_circle_with_libtdb_are_detected_by_nobody_and_end_by_our_deadline() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut shard = meeting.handle();
        granted(shard.lock_chain(1, Write, Wait::No));
        libtdb.must(&meeting.command("chainlock", 0));
        libtdb.send(&meeting.command("chainlock", 1));
        libtdb.wait_asleep_in(meeting.sleep());
        let (notify, changes) = notifier();
        let deadline = Instant::now() + Duration::from_millis(150);
        let waiter = shard.wait_for_chain(0, Write, Some(deadline), notify).unwrap();
        changes.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(waiter.state(), WaitState::TimedOut, "no EDEADLK");
        assert_eq!(libtdb.reply_within(Duration::ZERO), None, "still asleep");
        shard.unlock_chain(1).unwrap();
        assert_eq!(libtdb.reply(), "ok");
    });
}

#[test]
fn waits_in_a_circle_between_libtdb_processes_are_detected_by_the_kernel() {
    // The fact of spec 4.7 that makes the test above worth having.
    Meeting::in_both_modes(|meeting, first| {
        if meeting.mutexes {
            return; // futexes detect nothing
        }
        let mut second = meeting.locker();
        first.must(&meeting.command("chainlock", 0));
        second.must(&meeting.command("chainlock", 1));
        first.send(&meeting.command("chainlock", 1));
        first.wait_asleep_in(meeting.sleep());
        assert_eq!(second.run(&meeting.command("chainlock", 0)), BUSY);
        second.must(&meeting.command("chainunlock", 1));
        assert_eq!(first.reply(), "ok");
    });
}

#[test]
fn active_mark_of_ours_keeps_the_file_from_being_cleared() {
    Meeting::in_both_modes(|meeting, libtdb| {
        let mut ours = meeting.handle();
        granted(ours.lock_active(Read, Wait::Yes));
        libtdb.must(&format!("{} value", meeting.command("store", 1)));
        let fetch = meeting.command("fetch", 1);
        assert_eq!(libtdb.run(&fetch), "value");
        // The only libtdb process goes; the next is not the first as long as we are there.
        let mut next = meeting.locker();
        drop(std::mem::replace(libtdb, meeting.locker()));
        assert_eq!(next.run(&fetch), "value");
        drop(next);
        drop(std::mem::replace(libtdb, meeting.locker()));
        drop(ours);
    });
}

#[test]
#[cfg(target_arch = "x86_64")] // knows where the lock word lies
fn sleeper_abandoned_by_a_killed_daemon_is_woken_by_the_next_one() {
    Meeting::in_both_modes(|meeting, libtdb| {
        if !meeting.mutexes {
            return;
        }
        let area = area(&meeting.path);
        let slot = Slot::Chain(1);
        let guard = area.lock(slot).unwrap();
        libtdb.send(&meeting.command("chainlock", 1));
        libtdb.wait_asleep_in(meeting.sleep());
        assert_ne!(area.lock_word(slot) & WAITERS, 0);
        // What a daemon killed between wake-up and lock leaves: the mutex free, the one wake-up
        // used up, others asleep. Here the word is cleared without any wake-up.
        let file = File::options().read(true).write(true).open(&meeting.path).unwrap();
        let word_at = 216 + 40 * 2;
        file.write_all_at(&[0; 4], word_at).unwrap();
        std::mem::forget(guard);
        assert_eq!(libtdb.reply_within(Duration::from_millis(100)), None, "asleep on a free mutex");
        area.wake_everybody();
        assert_eq!(libtdb.reply(), "ok");
        libtdb.must(&meeting.command("chainunlock", 1));
    });
}
