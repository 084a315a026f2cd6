//! The waiting protocol: by exhaustive search over small models, then among real threads.
use std::collections::HashSet;

use super::*;
use crate::mutex::area_len;

/// A locker of the model. Each variant is one point between two atomic steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Actor {
    /// The C library's `pthread_mutex_lock`: about to look. `assume`: it has slept, so it takes
    /// the mutex with the waiters bit.
    CLooks { assume: bool },
    /// About to set the waiters bit on this word.
    CMarks { word: u32 },
    /// About to sleep if the word is still this one.
    CSleeps { word: u32 },
    /// Ours: about to call `trylock`.
    Tries { slept: bool },
    /// About to read the word and decide by [`next`].
    Decides { slept: bool },
    /// About to set the waiters bit on this word.
    Marks { slept: bool, word: u32 },
    /// About to sleep if the word is still this one.
    Sleeps { word: u32 },
    /// Has the mutex by `trylock` and is about to set the waiters bit again.
    Keeps,
    /// In the kernel's queue.
    Asleep { ours: bool },
    /// In the critical section; about to clear the word.
    Holds,
    /// Word cleared; about to wake a sleeper.
    Wakes,
    /// Our process was killed; the next one is about to call `wake_everybody`.
    Restarts,
    /// Done, or killed.
    Gone,
}

/// Word, actors, and the queue of sleepers in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    word: u32,
    actors: Vec<Actor>,
    queue: Vec<usize>,
}

/// Which rule is left out, to see that the model notices.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    All,
    NoKeeping,
    NoRestart,
}

impl World {
    fn take(&mut self, who: usize, bit: u32) {
        assert_eq!(self.word & OWNER, 0, "two owners");
        self.word = u32::try_from(who + 1).unwrap() | bit;
    }

    fn sleep(&mut self, who: usize, word: u32, ours: bool) {
        self.actors[who] = if self.word == word {
            self.queue.push(who);
            Actor::Asleep { ours }
        } else if ours {
            Actor::Tries { slept: true }
        } else {
            Actor::CLooks { assume: true }
        };
    }

    fn wake_one(&mut self) {
        if !self.queue.is_empty() {
            let who = self.queue.remove(0);
            let ours = self.actors[who] == Actor::Asleep { ours: true };
            self.actors[who] =
                if ours { Actor::Tries { slept: true } } else { Actor::CLooks { assume: true } };
        }
    }

    /// One atomic step of one actor; `None` if it cannot move.
    fn step(&self, who: usize, rule: Rule) -> Option<Self> {
        let mut world = self.clone();
        let free = self.word & OWNER == 0;
        let actor = match self.actors[who] {
            Actor::Asleep { .. } | Actor::Gone => return None,
            Actor::CLooks { assume } if free => {
                world.take(who, if assume { WAITERS } else { self.word & WAITERS });
                Actor::Holds
            }
            Actor::CLooks { .. } if self.word & WAITERS == 0 => Actor::CMarks { word: self.word },
            Actor::CLooks { .. } => Actor::CSleeps { word: self.word },
            Actor::CMarks { word } if self.word == word => {
                world.word |= WAITERS;
                Actor::CSleeps { word: word | WAITERS }
            }
            Actor::CMarks { .. } => Actor::CLooks { assume: true },
            Actor::CSleeps { word } => {
                world.sleep(who, word, false);
                return Some(world);
            }
            Actor::Tries { slept } if free => {
                world.take(who, if self.word & OWNER_DIED != 0 { self.word & WAITERS } else { 0 });
                if slept && rule != Rule::NoKeeping { Actor::Keeps } else { Actor::Holds }
            }
            Actor::Tries { slept } => Actor::Decides { slept },
            Actor::Decides { slept } => match next(self.word) {
                Next::TryAgain => Actor::Tries { slept },
                Next::Mark(word) => Actor::Marks { slept, word },
                Next::Sleep(word) => Actor::Sleeps { word },
                Next::Broken => panic!("nobody writes {:#x}", self.word),
            },
            Actor::Marks { slept, word } => {
                if self.word == word {
                    world.word |= WAITERS;
                }
                Actor::Tries { slept }
            }
            Actor::Sleeps { word } => {
                world.sleep(who, word, true);
                return Some(world);
            }
            Actor::Keeps => {
                world.word |= WAITERS;
                Actor::Holds
            }
            Actor::Holds => {
                world.word = 0;
                if self.word & WAITERS != 0 { Actor::Wakes } else { Actor::Gone }
            }
            Actor::Wakes => {
                world.actors[who] = Actor::Gone;
                world.wake_one();
                return Some(world);
            }
            Actor::Restarts => {
                world.actors[who] = Actor::Gone;
                while !world.queue.is_empty() {
                    world.wake_one();
                }
                return Some(world);
            }
        };
        world.actors[who] = actor;
        Some(world)
    }

    /// SIGKILL. In the critical section the kernel marks the word and wakes one. Between a wake-up
    /// and the waiters bit it does not know that others sleep: whoever comes after us must.
    fn kill(&self, who: usize, rule: Rule) -> Option<Self> {
        let mut world = self.clone();
        let after = if rule == Rule::NoRestart { Actor::Gone } else { Actor::Restarts };
        world.actors[who] = match self.actors[who] {
            Actor::Holds => Actor::Gone,
            Actor::Keeps
            | Actor::Tries { slept: true }
            | Actor::Decides { slept: true }
            | Actor::Marks { slept: true, .. } => after,
            _ => return None,
        };
        if matches!(self.actors[who], Actor::Holds | Actor::Keeps) {
            world.word = OWNER_DIED | (self.word & WAITERS);
            if self.word & WAITERS != 0 {
                world.wake_one();
            }
        }
        Some(world)
    }

    /// Nobody can move, yet somebody sleeps.
    fn is_lost(&self) -> bool {
        let stuck = |actor: &Actor| matches!(actor, Actor::Asleep { .. } | Actor::Gone);
        self.actors.iter().all(stuck) && !self.queue.is_empty()
    }
}

/// Visits every reachable world; returns one with a lost wake-up, if any, and how many there are.
fn search(actors: &[Actor], rule: Rule, kills: bool) -> (Option<World>, usize) {
    let start = World { word: 0, actors: actors.to_vec(), queue: Vec::new() };
    let (mut seen, mut open) = (HashSet::from([start.clone()]), vec![start]);
    while let Some(world) = open.pop() {
        if world.is_lost() {
            return (Some(world), seen.len());
        }
        for who in 0..actors.len() {
            let killed = if kills { world.kill(who, rule) } else { None };
            for next in [world.step(who, rule), killed].into_iter().flatten() {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
    (None, seen.len())
}

const C: Actor = Actor::CLooks { assume: false };
const OURS: Actor = Actor::Tries { slept: false };

#[test]
fn no_interleaving_leaves_a_sleeper_on_a_free_mutex() {
    for actors in [&[C, C, OURS, OURS][..], &[C, C, C, OURS], &[OURS, OURS, OURS, OURS]] {
        let (lost, worlds) = search(actors, Rule::All, true);
        assert_eq!(lost, None);
        assert!(worlds > 1000, "the search is not trivial: {worlds}");
    }
}

#[test]
fn taking_the_mutex_without_the_waiters_bit_loses_a_wake_up() {
    // The model has teeth: the rule of this module's header is not decoration.
    let (lost, _) = search(&[C, C, OURS], Rule::NoKeeping, false);
    assert!(lost.is_some());
}

#[test]
fn killed_daemon_without_a_successor_loses_a_wake_up() {
    // Why an opener of a file in use calls `wake_everybody`.
    let (lost, _) = search(&[C, C, OURS], Rule::NoRestart, true);
    assert!(lost.is_some());
}

#[test]
fn c_library_alone_loses_nothing_in_the_model() {
    assert_eq!(search(&[C, C, C, C], Rule::All, true).0, None);
}

#[test]
fn lock_word_that_nobody_writes_is_broken_not_an_endless_loop() {
    assert_eq!(next(WAITERS), Next::Broken);
    assert_eq!(next(OWNER_DIED | WAITERS), Next::TryAgain);
    assert_eq!(next(77), Next::Mark(77));
    assert_eq!(next(77 | WAITERS), Next::Sleep(77 | WAITERS));
}

fn area(hash_size: u32) -> Arc<MutexArea> {
    let file = tempfile::tempfile().unwrap();
    let len = area_len(hash_size, 4096).unwrap();
    file.set_len(u64::from(len)).unwrap();
    let area = MutexArea::map(&file, hash_size, len, 4096).unwrap();
    area.initialise().unwrap();
    area
}

fn must_sleep(wait: &mut FutexWait, woken: FutexWake) -> FutexSleep {
    match wait.step(woken).unwrap() {
        FutexStep::Sleep(sleep) => sleep,
        FutexStep::Acquired(_) => panic!("acquired a mutex that is held"),
    }
}

/// A thread that holds something until told to let go.
fn holder(area: &Arc<MutexArea>, slot: Slot, state: AllRecordState) -> impl FnOnce() {
    let (area, (held, is_held)) = (Arc::clone(area), std::sync::mpsc::channel());
    let (let_go, told) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let guard = area.lock(slot).unwrap();
        if slot == Slot::AllRecords {
            area.set_state(state);
        }
        held.send(()).unwrap();
        let _ = told.recv();
        if slot == Slot::AllRecords {
            area.set_state(AllRecordState::Free);
        }
        drop(guard);
    });
    is_held.recv().unwrap();
    move || {
        drop(let_go);
        thread.join().unwrap();
    }
}

#[test]
fn wait_marks_the_word_and_sleeps_on_exactly_that_value() {
    let area = area(3);
    let release = holder(&area, Slot::Chain(1), AllRecordState::Free);
    let mut wait = FutexWait::new(Arc::clone(&area), 1, LockKind::Write);
    let sleep = must_sleep(&mut wait, FutexWake::LookAgain);
    assert_eq!(sleep.value(), area.lock_word(Slot::Chain(1)));
    assert_ne!(sleep.value() & WAITERS, 0);
    release();
    // The word changed: a sleep on the old value ends at once.
    assert_eq!(sleep.on_this_thread(None), FutexWake::LookAgain);
    let FutexStep::Acquired(guard) = wait.step(FutexWake::LookAgain).unwrap() else {
        panic!("free by now")
    };
    assert_ne!(area.lock_word(Slot::Chain(1)) & WAITERS, 0, "others may sleep still");
    drop(guard);
}

#[test]
fn wait_behind_all_records_holds_no_chain_meanwhile() {
    let area = area(3);
    let release = holder(&area, Slot::AllRecords, AllRecordState::Write);
    let mut wait = FutexWait::new(Arc::clone(&area), 2, LockKind::Read);
    let _ = must_sleep(&mut wait, FutexWake::LookAgain);
    assert_eq!(area.lock_word(Slot::Chain(2)), 0);
    release();
    assert!(matches!(wait.step(FutexWake::LookAgain).unwrap(), FutexStep::Acquired(_)));
}

#[test]
fn reader_of_a_chain_passes_a_reader_of_all_records() {
    let area = area(3);
    let release = holder(&area, Slot::AllRecords, AllRecordState::Read);
    let mut wait = FutexWait::new(Arc::clone(&area), 2, LockKind::Read);
    assert!(matches!(wait.step(FutexWake::LookAgain).unwrap(), FutexStep::Acquired(_)));
    let mut wait = FutexWait::new(Arc::clone(&area), 1, LockKind::Write);
    let _ = must_sleep(&mut wait, FutexWake::LookAgain);
    release();
}

#[test]
fn all_record_word_of_a_dead_owner_is_reset() {
    let area = area(3);
    let dying = Arc::clone(&area);
    std::thread::spawn(move || {
        std::mem::forget(dying.lock(Slot::AllRecords));
        dying.set_state(AllRecordState::Write);
    })
    .join()
    .unwrap();
    let mut wait = FutexWait::new(Arc::clone(&area), 0, LockKind::Write);
    assert!(matches!(wait.step(FutexWake::LookAgain).unwrap(), FutexStep::Acquired(_)));
    assert_eq!(area.state(), AllRecordState::Free);
}

#[test]
fn all_record_word_that_no_owner_explains_is_an_error_not_an_endless_loop() {
    let area = area(3);
    area.set_state(AllRecordState::Write);
    let mut wait = FutexWait::new(Arc::clone(&area), 0, LockKind::Write);
    let error = wait.step(FutexWake::LookAgain).unwrap_err();
    assert!(matches!(error, MutexError::Broken { slot: Slot::AllRecords }));
    assert_eq!(area.lock_word(Slot::AllRecords), 0);
}

#[test]
fn abandoned_wait_passes_its_wake_up_to_the_next_sleeper() {
    let area = area(1);
    let release = holder(&area, Slot::Chain(0), AllRecordState::Free);
    let mut first = FutexWait::new(Arc::clone(&area), 0, LockKind::Write);
    let sleep = must_sleep(&mut first, FutexWake::LookAgain);
    let sleeper = Arc::clone(&area);
    let second = std::thread::spawn(move || {
        // The C library's own lock call: it sleeps until woken, with no slices.
        drop(sleeper.lock(Slot::Chain(0)).unwrap());
    });
    let first_sleeps = std::thread::spawn(move || sleep.on_this_thread(None));
    // Both asleep, in an unknown order; the release wakes one of them. If it is `first`, which
    // then gives up, the other must be told.
    release();
    while !first_sleeps.is_finished() && !second.is_finished() {
        std::thread::yield_now();
    }
    first.abandon(FutexWake::Woken);
    second.join().unwrap();
    area.wake(Slot::Chain(0), i32::MAX);
    first_sleeps.join().unwrap();
}

#[test]
fn patience_ends_at_the_deadline_or_by_the_flag() {
    let area = area(1);
    let release = holder(&area, Slot::Chain(0), AllRecordState::Free);
    let past = Patience::until(Instant::now());
    let wait = |patience: &Patience<'_>| {
        FutexWait::new(Arc::clone(&area), 0, LockKind::Write).on_this_thread(patience).unwrap()
    };
    assert!(wait(&past).is_none());
    let flag = AtomicBool::new(true);
    assert!(wait(&Patience::FOREVER.or_cancelled(&flag)).is_none());
    release();
    assert!(wait(&past).is_some(), "a free mutex is taken however late it is");
}
