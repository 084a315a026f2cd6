//! The two implementations behind one face.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringmaster_storage::chain::StoreMode;
use ringmaster_storage::engine::AccessError;
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::{Database, Handle, Locked, Reserve, Session};
use ringmaster_storage::lock::{LockKind, Wait};
use ringmaster_storage::mutex::FutexWake;
use ringmaster_storage::open::{OpenOptions, open};
use ringmaster_storage::transaction::TransactionError;
use ringmaster_storage::wait::FutexStep;

use crate::libtdb::{Tdb, TdbError, error, mode};
use crate::ring::{FutexRing, Slept};

/// How long a commit of ours waits for others before it is given up.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);

/// The operation was refused for want of a lock: it did not happen.
#[derive(Debug)]
pub struct Refused;

pub trait Peer {
    fn fetch(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refused>;
    fn store(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refused>;
    fn delete(&mut self, key: &[u8]) -> Result<(), Refused>;
    fn append(&mut self, key: &[u8], more: &[u8]) -> Result<(), Refused>;
    /// Locks the chain of a key; operations on the key nest.
    fn lock(&mut self, key: &[u8]) -> Result<(), Refused>;
    fn unlock(&mut self, key: &[u8]);
    /// Calls `visit` for every record, without the chain locked.
    fn traverse(&mut self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Refused>;
    /// Locks everything, runs `work`, unlocks.
    fn with_everything(&mut self, work: &mut dyn FnMut()) -> Result<(), Refused>;
    fn begin(&mut self) -> Result<(), Refused>;
    /// `Err`: it is cancelled, or (killed meanwhile) undone by somebody.
    fn commit(&mut self) -> Result<(), Refused>;
    fn cancel(&mut self);
}

#[track_caller]
fn refused(result: Result<(), TdbError>) -> Result<(), Refused> {
    match result {
        Ok(()) => Ok(()),
        Err(TdbError(error::LOCK | error::NOLOCK)) => Err(Refused),
        // Only in a damaged file; libtdb is not what is tested there.
        Err(TdbError(error::CORRUPT | error::IO)) => Err(Refused),
        Err(error) => panic!("libtdb: {error:?}"),
    }
}

impl Peer for Tdb {
    fn fetch(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        match Tdb::fetch(self, key) {
            Some(value) => Ok(Some(value)),
            None if self.error() == error::NOEXIST => Ok(None),
            None => refused(Err(TdbError(self.error()))).map(|()| None),
        }
    }
    fn store(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refused> {
        refused(Tdb::store(self, key, value, mode::REPLACE))
    }
    fn delete(&mut self, key: &[u8]) -> Result<(), Refused> {
        match Tdb::delete(self, key) {
            Err(TdbError(error::NOEXIST)) => Ok(()),
            other => refused(other),
        }
    }
    fn append(&mut self, key: &[u8], more: &[u8]) -> Result<(), Refused> {
        refused(Tdb::append(self, key, more))
    }
    fn lock(&mut self, key: &[u8]) -> Result<(), Refused> {
        refused(self.chainlock(key))
    }
    fn unlock(&mut self, key: &[u8]) {
        self.chainunlock(key).unwrap();
    }
    fn traverse(&mut self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Refused> {
        let visited = self.traverse_read(|key, value| {
            visit(key, value);
            true
        });
        match visited {
            // A commit that must be undone: a read-traverse may not write, so it fails.
            Err(TdbError(error::RDONLY)) => Err(Refused),
            other => refused(other.map(|_| ())),
        }
    }
    fn with_everything(&mut self, work: &mut dyn FnMut()) -> Result<(), Refused> {
        refused(self.lockall())?;
        work();
        self.unlockall().unwrap();
        Ok(())
    }
    fn begin(&mut self) -> Result<(), Refused> {
        refused(self.transaction_start())
    }
    fn commit(&mut self) -> Result<(), Refused> {
        refused(self.transaction_commit())
    }
    fn cancel(&mut self) {
        self.transaction_cancel().unwrap();
    }
}

/// A handle of ours, inside a transaction or not.
pub struct Ours {
    handle: Handle,
    session: Option<Session>,
    ring: Option<FutexRing>,
    /// Which kind of wait the next busy chain gets.
    turn: u32,
    /// The file may be damaged by others.
    pub damaged: bool,
}

impl Ours {
    pub fn open(path: &Path, flags: i32) -> Self {
        let flags = Flags::from_bits(flags.cast_unsigned());
        Self::with(open(path, &OpenOptions::existing(flags)).unwrap())
    }

    pub fn second(database: &Arc<Database>) -> Self {
        Self::with(database.handle().unwrap())
    }

    fn with(handle: Handle) -> Self {
        let ring = if handle.database().mutexes().is_some() { FutexRing::new() } else { None };
        Self { handle, session: None, ring, turn: 0, damaged: false }
    }

    /// Leaves deleted records dead, but few enough that the limits are met all the time.
    pub fn set_reserve(&mut self) {
        let limits = Reserve { records_max: 12, record_len_max: 1000 };
        self.handle.set_reserve(Some(limits)).unwrap();
    }

    pub fn database(&self) -> Arc<Database> {
        Arc::clone(self.handle.database())
    }

    /// Takes a busy chain as a shard does: by a thread, or by the ring. `false`: try again.
    fn wait_for(&mut self, chain: u32) -> Result<bool, AccessError> {
        self.turn += 1;
        if let (Some(ring), 0) = (&mut self.ring, self.turn % 2) {
            let locks = self.handle.locks().file_locks().unwrap();
            let Ok(mut wait) = locks.wait_on_ring(chain, LockKind::Write) else {
                return Ok(false);
            };
            let mut woken = FutexWake::LookAgain;
            loop {
                match wait.step(woken).unwrap() {
                    FutexStep::Acquired(guard) => {
                        self.handle.adopt_mutex(guard, chain, LockKind::Write)?.keep();
                        return Ok(true);
                    }
                    FutexStep::Sleep(sleep) => {
                        let slept = ring.sleep(&sleep, Duration::from_secs(1)).unwrap();
                        let (Slept::Ended(ended) | Slept::TimedOut(ended)) = slept;
                        woken = ended;
                    }
                }
            }
        }
        let (changed, changes) = channel();
        let changed = std::sync::Mutex::new(changed);
        let notify = Arc::new(move |chain: u32| {
            let _ = changed.lock().unwrap().send(chain);
        });
        // Refused while an earlier wait for the chain is just ending: the caller tries again.
        let Ok(waiter) = self.handle.wait_for_chain(chain, LockKind::Write, None, notify) else {
            return Ok(false);
        };
        changes.recv().unwrap();
        match self.handle.adopt(waiter)? {
            Some(locked) => locked.keep(),
            None => return Ok(false),
        }
        Ok(true)
    }
}

/// A damaged file gives an error and nothing worse, and only where damage was done.
#[track_caller]
fn done<T, E: std::fmt::Debug>(result: Result<T, E>, damaged: bool) -> Result<T, Refused> {
    match result {
        Ok(value) => Ok(value),
        Err(_) if damaged => Err(Refused),
        Err(error) => panic!("ours: {error:?}"),
    }
}

impl Peer for Ours {
    fn fetch(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let mut value = Vec::new();
        let found = match &mut self.session {
            Some(session) => session.fetch(&self.handle, key, &mut value),
            None => self.handle.fetch(key, &mut value),
        };
        done(found, self.damaged).map(|found| found.then_some(value))
    }
    fn store(&mut self, key: &[u8], value: &[u8]) -> Result<(), Refused> {
        let stored = match &mut self.session {
            Some(session) => session.store(&self.handle, key, &[value], StoreMode::Replace),
            None => self.handle.store(key, &[value], StoreMode::Replace),
        };
        done(stored, self.damaged).map(|_| ())
    }
    fn delete(&mut self, key: &[u8]) -> Result<(), Refused> {
        let deleted = match &mut self.session {
            Some(session) => session.delete(&self.handle, key),
            None => self.handle.delete(key),
        };
        done(deleted, self.damaged).map(|_| ())
    }
    fn append(&mut self, key: &[u8], more: &[u8]) -> Result<(), Refused> {
        done(self.handle.append(key, more), self.damaged).map(|_| ())
    }
    fn lock(&mut self, key: &[u8]) -> Result<(), Refused> {
        let chain = self.handle.database().chain_of(key);
        loop {
            let tried = self.handle.try_lock_chain(chain, LockKind::Write);
            match tried.map(|locked| locked.map(Locked::keep)) {
                Ok(Some(())) => return Ok(()),
                Ok(None) => {}
                Err(AccessError::NeedsRecovery) => {
                    done(self.handle.recover(), self.damaged)?;
                    continue;
                }
                Err(error) => return done(Err(error), self.damaged),
            }
            match self.wait_for(chain) {
                Ok(true) => return Ok(()),
                Ok(false) => std::thread::yield_now(),
                Err(AccessError::NeedsRecovery) => done(self.handle.recover(), self.damaged)?,
                Err(error) => return done(Err(error), self.damaged),
            }
        }
    }
    fn unlock(&mut self, key: &[u8]) {
        let chain = self.handle.database().chain_of(key);
        self.handle.unlock_chain(chain).unwrap();
    }
    fn traverse(&mut self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Refused> {
        let visited = self.handle.for_each(|key, value| {
            visit(key, value);
            true
        });
        done(visited, self.damaged).map(|_| ())
    }
    fn with_everything(&mut self, work: &mut dyn FnMut()) -> Result<(), Refused> {
        let worked = self.handle.with_all_records(LockKind::Write, |_| {
            work();
            Ok(())
        });
        done(worked, self.damaged)
    }
    fn begin(&mut self) -> Result<(), Refused> {
        match self.handle.start_transaction(Wait::Yes) {
            Ok(session) => {
                self.session = session;
                self.session.is_some().then_some(()).ok_or(Refused)
            }
            Err(error) => done(Err(error), self.damaged),
        }
    }
    fn commit(&mut self) -> Result<(), Refused> {
        let session = self.session.take().unwrap();
        match session.finish(&mut self.handle, Instant::now() + COMMIT_PATIENCE) {
            Ok(()) => Ok(()),
            Err(TransactionError::Busy) => Err(Refused),
            Err(error) => done(Err(error), self.damaged),
        }
    }
    fn cancel(&mut self) {
        let mut session = self.session.take().unwrap();
        let _nothing_was_written = session.cancel(&mut self.handle).unwrap();
    }
}
