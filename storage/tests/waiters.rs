//! Waiting for busy chains among libtdb processes that are killed at random: nobody sleeps on a
//! free lock, an owner's death is survived, and the file stays whole.
//!
//! `RINGMASTER_SOAK_ROUNDS` sets the number of rounds (default 30), `RINGMASTER_SEED` repeats a run.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ringmaster_storage::lock::{HandleLocks, LockKind, Locks, TryLock, Wait};
use ringmaster_storage::mutex::{FutexWake, MutexArea, OWNER, Slot, area_len};
use ringmaster_storage::wait::{FutexStep, FutexWait};

#[path = "support/libtdb.rs"]
mod libtdb;
#[path = "support/ring.rs"]
mod ring;

use libtdb::{Locker, flag};
use ring::{FutexRing, Slept};

const HASH_SIZE: u32 = 3;
const PAGE: u32 = 4096;
/// No holder holds longer than milliseconds: who has not got the chain after this sleeps on a
/// free lock, or the machine stands still.
const WATCHDOG: Duration = Duration::from_secs(20);
const LOCKERS: usize = 3;

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

/// A daemon of ours that waits on the ring again and again until it is killed.
#[test]
fn our_contender_process() {
    let Some((path, _, _)) = libtdb::locker_order() else { return };
    let arena = Arena::at(path, true);
    let mut ring = FutexRing::new().unwrap();
    libtdb::serve(Ok::<_, &str>(|_: &str| -> String {
        loop {
            assert_ne!(contend_on_ring(&arena, &mut ring, None), End::Lost);
        }
    }));
}

/// Small random numbers from a seed that is printed (xorshift).
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let given = std::env::var("RINGMASTER_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        let seed = given.unwrap_or_else(|| u64::from(now()));
        println!("RINGMASTER_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

fn rounds() -> usize {
    std::env::var("RINGMASTER_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

struct Arena {
    /// `None` in a process that was started for somebody else's file.
    _dir: Option<tempfile::TempDir>,
    path: PathBuf,
    key: String,
    chain: u32,
    mutexes: bool,
}

impl Arena {
    fn new(mutexes: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.tdb");
        Self { _dir: Some(dir), ..Self::at(path, mutexes) }
    }

    fn at(path: PathBuf, mutexes: bool) -> Self {
        let key = "contended".to_owned();
        let chain = libtdb::jenkins_hash(key.as_bytes()) % HASH_SIZE;
        Self { _dir: None, path, key, chain, mutexes }
    }

    fn flags(&self) -> i32 {
        let mutexes = if self.mutexes { flag::MUTEX_LOCKING } else { 0 };
        flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | mutexes
    }

    fn locker(&self) -> Locker {
        Locker::start(&self.path, 3, self.flags())
    }

    fn handle(&self) -> HandleLocks {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let area = self.mutexes.then(|| area(&self.path));
        HandleLocks::new(Arc::new(file), true, HASH_SIZE, area)
    }
}

fn area(path: &Path) -> Arc<MutexArea> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    MutexArea::map(&file, HASH_SIZE, area_len(HASH_SIZE, PAGE).unwrap(), PAGE).unwrap()
}

/// What became of one of our contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Held,
    GaveUp,
    /// Slept until the watchdog: a lost wake-up.
    Lost,
}

/// Takes the chain by a wait on the ring, or gives up after `patience`.
fn contend_on_ring(arena: &Arena, ring: &mut FutexRing, patience: Option<Duration>) -> End {
    let mut shard = arena.handle();
    let mut wait = shard.wait_on_ring(arena.chain, LockKind::Write).unwrap();
    let mut woken = FutexWake::LookAgain;
    loop {
        match wait.step(woken).unwrap() {
            FutexStep::Acquired(guard) => {
                shard.adopt_mutex(guard, LockKind::Write).unwrap();
                shard.unlock_chain(arena.chain).unwrap();
                return End::Held;
            }
            FutexStep::Sleep(sleep) => {
                match ring.sleep(&sleep, patience.unwrap_or(WATCHDOG)).unwrap() {
                    Slept::Ended(ended) => woken = ended,
                    Slept::TimedOut(ended) => {
                        wait.abandon(ended);
                        return if patience.is_some() { End::GaveUp } else { End::Lost };
                    }
                }
            }
        }
    }
}

/// Takes the chain by a waiting thread, or gives up after `patience`.
fn contend_by_thread(arena: &Arena, patience: Option<Duration>) -> End {
    let mut shard = arena.handle();
    let (changed, changes) = channel();
    let changed = std::sync::Mutex::new(changed);
    let notify = Arc::new(move |chain: u32| {
        let _ = changed.lock().unwrap().send(chain);
    });
    let waiter = shard.wait_for_chain(arena.chain, LockKind::Write, None, notify).unwrap();
    if changes.recv_timeout(patience.unwrap_or(WATCHDOG)).is_err() {
        drop(waiter);
        return if patience.is_some() { End::GaveUp } else { End::Lost };
    }
    assert_eq!(shard.adopt(waiter).unwrap(), TryLock::Granted);
    shard.unlock_chain(arena.chain).unwrap();
    End::Held
}

/// One round: a holder, everybody else behind it, some of ours giving up, one libtdb process
/// killed while it holds or waits. All who are left must get the chain.
fn round(arena: &Arena, lockers: &mut [Locker], ring: Option<&mut FutexRing>, random: &mut Random) {
    let lock = format!("chainlock {}", arena.key);
    let unlock = format!("chainunlock {}", arena.key);
    lockers[0].must(&lock);
    let patience =
        |random: &mut Random| random.one_in(3).then(|| Duration::from_micros(random.below(3_000)));
    let (ring_patience, thread_patience) = (patience(random), patience(random));
    let (ends, ended): (Sender<(&str, End)>, _) = channel();
    let victim = random.below(2 * LOCKERS as u64);
    std::thread::scope(|scope| {
        let mut ours = 1;
        if let Some(ring) = ring {
            ours += 1;
            let ends = ends.clone();
            scope.spawn(move || {
                ends.send(("ring", contend_on_ring(arena, ring, ring_patience))).unwrap();
            });
        }
        scope.spawn(move || {
            ends.send(("thread", contend_by_thread(arena, thread_patience))).unwrap();
        });
        for locker in &mut lockers[1..] {
            locker.send(&format!("hold {} {}", arena.key, random.below(1_000)));
        }
        std::thread::sleep(Duration::from_micros(random.below(2_000)));
        if victim == 0 {
            lockers[0].kill();
        } else {
            lockers[0].must(&unlock);
        }
        std::thread::sleep(Duration::from_micros(random.below(1_000)));
        for (index, locker) in (0..).zip(&mut *lockers).skip(1) {
            if victim == index {
                locker.kill(); // asleep, woken, holding, or done
            }
        }
        for (_, locker) in (0..).zip(&*lockers).skip(1).filter(|(index, _)| victim != *index) {
            let got = locker.reply_within(WATCHDOG);
            assert_eq!(got.as_deref(), Some("ok"), "{}", describe(arena, locker));
        }
        for _ in 0..ours {
            let (who, end) = ended.recv_timeout(2 * WATCHDOG).unwrap();
            assert_ne!(end, End::Lost, "our {who} slept on; {}", describe(arena, &lockers[0]));
        }
    });
    if let Some(victim) = usize::try_from(victim).ok().filter(|victim| *victim < lockers.len()) {
        lockers[victim] = arena.locker();
    }
}

fn describe(arena: &Arena, locker: &Locker) -> String {
    if !arena.mutexes {
        return format!("asleep in process {}", locker.pid());
    }
    let word = area(&arena.path).lock_word(Slot::Chain(arena.chain));
    let free = if word & OWNER == 0 { "FREE" } else { "held" };
    format!("asleep in process {} on a lock that is {free} (word {word:#010x})", locker.pid())
}

fn soak(mutexes: bool) {
    if !libtdb::available() {
        return;
    }
    let mut ring = if mutexes { FutexRing::new() } else { None };
    let arena = Arena::new(mutexes);
    let mut random = Random::seeded();
    let mut lockers: Vec<_> = (0..LOCKERS).map(|_| arena.locker()).collect();
    for _ in 0..rounds() {
        round(&arena, &mut lockers, ring.as_mut(), &mut random);
    }
    let locker = &mut lockers[0];
    locker.must(&format!("store {} value", arena.key));
    locker.must("check");
    locker.must("lockall");
    locker.must("unlockall");
}

#[test]
fn nobody_sleeps_on_a_free_mutex() {
    soak(true);
}

#[test]
fn nobody_sleeps_on_a_free_byte_range() {
    soak(false);
}

#[test]
fn libtdb_gets_on_after_a_daemon_was_killed_at_any_point_of_its_wait() {
    if !libtdb::available() || FutexRing::new().is_none() {
        return;
    }
    let arena = Arena::new(true);
    let mut random = Random::seeded();
    let mut lockers: Vec<_> = (0..LOCKERS).map(|_| arena.locker()).collect();
    let area = area(&arena.path);
    for _ in 0..rounds() {
        let mut daemon = Locker::start_as("our_contender_process", &arena.path, 3, arena.flags());
        daemon.send("contend");
        for locker in &mut lockers {
            locker.send(&format!("hold {} {}", arena.key, random.below(500)));
        }
        std::thread::sleep(Duration::from_micros(random.below(1_500)));
        daemon.kill();
        area.wake_everybody(); // as the next daemon does
        for locker in &lockers {
            let got = locker.reply_within(WATCHDOG);
            assert_eq!(got.as_deref(), Some("ok"), "{}", describe(&arena, locker));
        }
    }
}

/// Puts a wait of ours in front of a libtdb process in the queue of one mutex, lets go of it, and
/// has `take` use our wake-up. Says whether libtdb got the mutex afterwards.
fn libtdb_behind_us_gets_the_mutex(
    take: impl FnOnce(&Arc<MutexArea>, FutexWait, FutexWake) + Send,
) -> bool {
    let arena = Arena::new(true);
    let mut locker = arena.locker();
    let area = area(&arena.path);
    let slot = Slot::Chain(arena.chain);
    let held = area.lock(slot).unwrap();
    let mut got = false;
    std::thread::scope(|scope| {
        let (first, is_first) = channel();
        let sleeper = scope.spawn({
            let area = Arc::clone(&area);
            let chain = arena.chain;
            move || {
                let mut wait = FutexWait::new(Arc::clone(&area), chain, LockKind::Write);
                let FutexStep::Sleep(sleep) = wait.step(FutexWake::LookAgain).unwrap() else {
                    panic!("the mutex is held")
                };
                // SAFETY: no preconditions.
                first.send(unsafe { libc::gettid() }).unwrap();
                let woken = sleep.on_this_thread(Some(WATCHDOG));
                take(&area, wait, woken);
            }
        });
        let thread = u32::try_from(is_first.recv().unwrap()).unwrap();
        while !libtdb::sleeps_in(std::process::id(), thread, libc::SYS_futex) {
            std::thread::yield_now();
        }
        locker.send(&format!("chainlock {}", arena.key));
        locker.wait_asleep_in(libc::SYS_futex);
        drop(held);
        sleeper.join().unwrap();
        got = locker.reply_within(Duration::from_millis(300)).is_some();
        if !got {
            assert_eq!(area.lock_word(slot) & OWNER, 0, "libtdb sleeps on a free mutex");
            area.wake_everybody();
            assert_eq!(locker.reply(), "ok");
        }
    });
    got
}

#[test]
fn wake_up_reaches_libtdb_behind_a_wait_that_took_the_mutex_or_gave_up() {
    if !libtdb::available() {
        return;
    }
    assert!(libtdb_behind_us_gets_the_mutex(|_, mut wait, woken| {
        assert!(matches!(wait.step(woken).unwrap(), FutexStep::Acquired(_)));
    }));
    assert!(libtdb_behind_us_gets_the_mutex(|_, wait, woken| wait.abandon(woken)));
}

#[test]
fn wake_up_is_lost_without_the_rule() {
    // Why the protocol exists: trylock alone, and giving up in silence, forget libtdb.
    if !libtdb::available() {
        return;
    }
    assert!(!libtdb_behind_us_gets_the_mutex(|area, wait, _| {
        let slot = Slot::Chain(libtdb::jenkins_hash(b"contended") % HASH_SIZE);
        drop(area.try_lock(slot).unwrap().unwrap());
        drop(wait);
    }));
    assert!(!libtdb_behind_us_gets_the_mutex(|_, wait, _| drop(wait)));
}

#[test]
fn chain_is_free_after_the_last_round_for_who_does_not_wait() {
    if !libtdb::available() {
        return;
    }
    for mutexes in [false, true] {
        let arena = Arena::new(mutexes);
        let mut locker = arena.locker();
        let give_up = Instant::now() + WATCHDOG;
        assert_eq!(contend_by_thread(&arena, None), End::Held);
        let mut shard = arena.handle();
        while shard.lock_chain(arena.chain, LockKind::Write, Wait::No).unwrap() == TryLock::Busy {
            assert!(Instant::now() < give_up, "the waiting thread never let go");
            std::thread::yield_now();
        }
        shard.unlock_chain(arena.chain).unwrap();
        locker.must(&format!("chainlock_nonblock {}", arena.key));
    }
}
