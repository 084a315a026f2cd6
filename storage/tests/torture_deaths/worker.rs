//! One worker: random operations on a shared database until a point in time, or until it kills
//! itself where that must do no harm.

use std::time::{Duration, SystemTime};

use crate::history::{
    self, APPENDED, COUNTERS, Deed, Log, Stage, appended_key, counter_key, number_of,
};
use crate::peer::{Peer, Refused};

/// An appended value stops growing here.
const APPENDED_LEN_MAX: usize = 64 * 1024;

/// Random numbers from a seed (xorshift).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn small(&mut self, bound: u8) -> u8 {
        u8::try_from(self.below(u64::from(bound))).unwrap()
    }

    fn filling(&mut self) -> usize {
        usize::try_from(self.below(300)).unwrap()
    }
}

/// What this worker may do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Changes outside transactions. Not where workers are killed anywhere: a store that is cut
    /// short leaves the file as it is (spec 6.3).
    pub plain_changes: bool,
    /// Kills itself while it holds locks, between changes.
    pub dies: bool,
    /// Records may be torn and chains broken, for others are killed in the middle of a store.
    pub damaged: bool,
    /// Traverses. libtdb's hangs in mutex files when somebody locks everything (spec 4.5).
    pub traverses: bool,
}

pub struct Worker<P> {
    pub peer: P,
    pub log: Log,
    pub random: Random,
    pub rules: Rules,
}

impl<P: Peer> Worker<P> {
    /// Works until `end`. Returns the number of operations.
    pub fn run(&mut self, end: SystemTime) -> u64 {
        let mut operations = 0;
        while SystemTime::now() < end {
            // A refusal is libtdb's EDEADLK or our deadline: nothing happened.
            let _ = self.operation();
            operations += 1;
        }
        operations
    }

    fn operation(&mut self) -> Result<(), Refused> {
        let plain = self.rules.plain_changes;
        match self.random.below(100) {
            0..20 => self.read(),
            20..45 if plain => self.count(),
            45..60 if plain => self.scratch(),
            60..75 if plain => self.append(),
            75..79 if self.rules.traverses => self.traverse(),
            79..81 => self.everything(),
            81..90 => self.transaction(),
            _ if plain => self.read(),
            _ => self.transaction(),
        }
    }

    /// SIGKILL, now and then.
    fn maybe_die(&mut self) {
        if self.rules.dies && self.random.one_in(400) {
            die();
        }
    }

    fn scratch_key(&mut self) -> Vec<u8> {
        format!("scratch{}", self.random.below(24)).into_bytes()
    }

    fn read(&mut self) -> Result<(), Refused> {
        let key = match self.random.below(3) {
            0 => counter_key(self.random.small(COUNTERS)),
            1 => appended_key(self.random.small(APPENDED)),
            _ => self.scratch_key(),
        };
        if let Some(value) = self.peer.fetch(&key)? {
            self.assert_whole(&key, &value);
        }
        Ok(())
    }

    fn current(&mut self, counter: u8) -> Result<u64, Refused> {
        let Some(value) = self.peer.fetch(&counter_key(counter))? else { return Ok(0) };
        let number = number_of(&value);
        assert!(number.is_some() || self.rules.damaged, "a torn counter");
        Ok(number.unwrap_or(0))
    }

    fn advance(&mut self, counter: u8, number: u64, deed: Deed) -> Result<(), Refused> {
        let filling = self.random.filling();
        self.peer.store(&counter_key(counter), &history::value(number, deed, filling))
    }

    #[track_caller]
    fn assert_whole(&self, key: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(key);
        let whole = self.rules.damaged || history::is_whole(key, value);
        assert!(whole, "torn value of {name}: {} bytes", value.len());
    }

    /// Counts one up under the chain's lock.
    fn count(&mut self) -> Result<(), Refused> {
        let counter = self.random.small(COUNTERS);
        let key = counter_key(counter);
        self.peer.lock(&key)?;
        self.maybe_die();
        let counted = self.count_locked(counter);
        // With the chain held, a failure would be half a store.
        assert!(counted.is_ok() || self.rules.damaged, "refused under the lock");
        if self.random.one_in(50) {
            std::thread::sleep(Duration::from_micros(500));
        }
        self.maybe_die();
        self.peer.unlock(&key);
        Ok(())
    }

    fn count_locked(&mut self, counter: u8) -> Result<(), Refused> {
        let number = self.current(counter)?.saturating_add(1);
        let (deed, change) = (self.log.next(), [(counter, number)]);
        self.log.note(Stage::Intent, deed, &change);
        self.advance(counter, number, deed)?;
        self.log.note(Stage::Done, deed, &change);
        Ok(())
    }

    fn scratch(&mut self) -> Result<(), Refused> {
        let key = self.scratch_key();
        if self.random.one_in(2) {
            return self.peer.delete(&key);
        }
        let (deed, filling) = (self.log.next(), self.random.filling());
        self.peer.store(&key, &history::value(7, deed, 4 * filling))
    }

    fn append(&mut self) -> Result<(), Refused> {
        let index = self.random.small(APPENDED);
        let key = appended_key(index);
        if self.peer.fetch(&key)?.is_some_and(|value| value.len() >= APPENDED_LEN_MAX) {
            return Ok(());
        }
        let deed = self.log.next();
        self.log.note(Stage::Intent, deed, &[(index, 0)]);
        self.peer.append(&key, &history::chunk(deed))?;
        self.log.note(Stage::Done, deed, &[(index, 0)]);
        Ok(())
    }

    fn traverse(&mut self) -> Result<(), Refused> {
        let die_at = if self.rules.dies && self.random.one_in(100) { 5 } else { u32::MAX };
        let mut visited = 0;
        let damaged = self.rules.damaged;
        let traversed = self.peer.traverse(&mut |key, value| {
            visited += 1;
            assert!(damaged || history::is_whole(key, value), "torn value of {key:?}");
            if visited == die_at {
                die();
            }
        });
        if traversed.is_err() && !damaged {
            // A traverse of libtdb that failed has left its record locked (spec 4.5): everybody
            // who wants all records would wait until this process ends.
            die();
        }
        Ok(())
    }

    fn everything(&mut self) -> Result<(), Refused> {
        if !self.random.one_in(4) {
            return Ok(());
        }
        let dies = self.rules.dies && self.random.one_in(40);
        self.peer.with_everything(&mut || {
            if dies {
                die();
            }
        })
    }

    /// Counts up to three counters up, all or none.
    fn transaction(&mut self) -> Result<(), Refused> {
        self.peer.begin()?;
        let deed = self.log.next();
        let mut change = Vec::new();
        let worked = self.in_transaction(deed, &mut change);
        if worked.is_err() || self.random.one_in(10) {
            self.peer.cancel();
            return worked;
        }
        self.maybe_die();
        self.log.note(Stage::Intent, deed, &change);
        self.peer.commit()?;
        self.log.note(Stage::Done, deed, &change);
        Ok(())
    }

    fn in_transaction(&mut self, deed: Deed, change: &mut Vec<(u8, u64)>) -> Result<(), Refused> {
        let first = self.random.small(COUNTERS);
        for step in 0..=self.random.small(3) {
            let counter = (first + step) % COUNTERS;
            let number = self.current(counter)?.saturating_add(1);
            self.advance(counter, number, deed)?;
            change.push((counter, number));
        }
        let key = self.scratch_key();
        if self.random.one_in(2) {
            return self.peer.delete(&key);
        }
        let filling = self.random.filling();
        self.peer.store(&key, &history::value(8, deed, 2 * filling))
    }
}

/// SIGKILL for this process: no destructor runs, no lock is given back.
fn die() -> ! {
    // SAFETY: no preconditions.
    let own = unsafe { libc::getpid() };
    // SAFETY: signals this process only.
    unsafe { libc::kill(own, libc::SIGKILL) };
    loop {
        std::thread::park();
    }
}
