//! A transaction of one handle, with the locks it needs.
//!
//! Role: the sequence of locks around `transaction.rs`, and the operations inside a transaction.
//! Invariants
//! - TRANSACTION and a read ALLRECORD are held from start to end, a write ALLRECORD and OPEN from
//!   before the undo log is written until its mark is gone: readers elsewhere see the old state or
//!   the new one.
//! - An operation that failed half-way can only be cancelled.
//! - Waiting for others is bounded by the caller's deadline: nothing detects a deadlock.
//! - Runs on a worker, never on a shard thread. Syncs are the caller's ([`Progress::Sync`]) unless
//!   it calls [`Session::finish`].
//!
//! Origin: `docs/spec/tdb-format.md` 7.2, 7.3; lib/tdb/common/transaction.c.

use std::time::{Duration, Instant, SystemTime};

use super::Handle;
use crate::backend::file::FileStore;
use crate::chain::{StoreMode, Stored};
use crate::check::{self, CheckError, Report};
use crate::engine::{AccessError, Engine};
use crate::flags::Flags;
use crate::lock::{FileLocks, LockKind, NoLocks, TryLock, Wait};
use crate::recovery::needs_recovery;
use crate::repair::{self, Repaired};
use crate::rescue;
use crate::store::{StoreError, SyncPoint};
use crate::transaction::{Overlay, Step, Transaction, TransactionError};
use crate::traverse::Cursor;

/// Pause between two looks at OPEN while somebody is just opening the file.
const OPEN_RETRY: Duration = Duration::from_millis(1);

/// How long TRANSACTION is kept while all records are not to be had. A libtdb traverse that failed
/// keeps its record locked (spec 4.5); if its process then wants TRANSACTION, and somebody else all
/// records, the circle is closed by us and nothing detects it.
const START_PATIENCE: Duration = Duration::from_millis(50);

/// How far a prepare or commit has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the order of writes on disk depends on this sync"]
pub enum Progress {
    /// Make the file durable, then call again.
    Sync(SyncPoint),
    /// Others still read the database or open it, and the deadline has passed. Call again with a
    /// later one, or cancel. Nothing was written.
    Busy,
    /// Nothing left to do.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// TRANSACTION and ALLRECORD for reading.
    Body,
    /// ALLRECORD for writing besides.
    Exclusive,
    /// OPEN besides.
    Commit,
    Nothing,
}

/// An open transaction. End it with [`Session::commit`], [`Session::finish`] or
/// [`Session::cancel`] on the handle that started it: dropping it leaves the locks held.
#[derive(Debug)]
#[must_use = "a transaction that is dropped leaves the database locked"]
pub struct Session {
    transaction: Transaction,
    /// Keeps the positions of traverses inside the transaction.
    locks: NoLocks,
    holds: Holds,
    repack_wanted: bool,
}

impl Handle {
    /// Starts a transaction; `None` if somebody else is at it (or writes a record) and `wait` says
    /// no. A crashed commit is undone first.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub fn start_transaction(&mut self, wait: Wait) -> Result<Option<Session>, TransactionError> {
        if !self.database.is_writable() {
            return Err(StoreError::ReadOnly.into());
        }
        loop {
            if self.locks.lock_transaction(wait)? == TryLock::Busy {
                return Ok(None);
            }
            let all = match wait {
                Wait::No => self.locks.lock_all_records_upgradable(wait),
                Wait::Yes => {
                    let deadline = Instant::now() + START_PATIENCE;
                    self.locks.lock_all_records_upgradable_until(deadline)
                }
            };
            match all {
                Ok(TryLock::Granted) => {}
                Ok(TryLock::Busy) => {
                    self.locks.unlock_transaction()?;
                    if wait == Wait::No {
                        return Ok(None);
                    }
                    std::thread::sleep(OPEN_RETRY);
                    continue;
                }
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = self.locks.unlock_transaction();
                    return Err(error.into());
                }
            }
            let started = match needs_recovery(self.database.store()) {
                Ok(false) => {
                    Transaction::start(self.database.store(), self.database.layout()).map(Some)
                }
                // What cannot be read cannot be trusted either: recovery says what is wrong.
                _ => Ok(None),
            };
            let failed = match started {
                Ok(Some(transaction)) => {
                    return Ok(Some(Session {
                        transaction,
                        locks: NoLocks::default(),
                        holds: Holds::Body,
                        repack_wanted: false,
                    }));
                }
                Ok(None) => None,
                Err(error) => Some(error),
            };
            self.locks.unlock_all_records()?;
            self.locks.unlock_transaction()?;
            match failed {
                Some(error) => return Err(error),
                None => self.recover()?,
            }
        }
    }

    /// Looks at the whole database with libtdb's eyes, under ALLRECORD for reading.
    ///
    /// # Errors
    /// [`CheckError`]: what is wrong.
    pub fn check(&mut self, visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<Report, CheckError> {
        let layout = self.database.layout();
        let mut report = None;
        let looked = self.with_all_records(LockKind::Read, |engine| {
            report = Some(check::check(engine.store, &layout, visit));
            Ok(())
        });
        match (looked, report) {
            (Ok(()), Some(report)) => report,
            (Err(error), _) => Err(CheckError::Access(error)),
            (Ok(()), None) => unreachable!("the closure ran"),
        }
    }

    /// Hands out every record that can be saved from a damaged database, locking nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rescue(&self, visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<u64, StoreError> {
        rescue::rescue(self.database.store(), &self.database.layout(), visit)
    }

    /// Returns leaked space to the freelist, in a transaction. Waits for others until `deadline`,
    /// and for the disk.
    ///
    /// # Errors
    /// [`TransactionError`]; nothing was changed.
    pub fn repair(&mut self, deadline: Instant) -> Result<Repaired, TransactionError> {
        let layout = self.database.layout();
        self.in_transaction(deadline, |session, handle| {
            let view = session.transaction.view(handle.database.store());
            Ok(repair::repair(&view, &layout)?)
        })
    }

    /// Stores all records anew so that the free space is in one piece, in a transaction; returns
    /// their number. Waits for others until `deadline`, and for the disk.
    ///
    /// # Errors
    /// [`TransactionError`]; nothing was changed.
    pub fn repack(&mut self, deadline: Instant) -> Result<u64, TransactionError> {
        self.in_transaction(deadline, |session, handle| {
            Ok(session.change(handle, |engine| engine.repack())?)
        })
    }

    /// Runs `work` in a transaction and commits it; cancels if that fails.
    ///
    /// # Errors
    /// [`TransactionError`]; nothing was changed.
    pub fn in_transaction<T>(
        &mut self,
        deadline: Instant,
        work: impl FnOnce(&mut Session, &mut Self) -> Result<T, TransactionError>,
    ) -> Result<T, TransactionError> {
        let mut session = loop {
            match self.start_transaction(Wait::No)? {
                Some(session) => break session,
                None if Instant::now() >= deadline => return Err(TransactionError::Busy),
                None => std::thread::sleep(OPEN_RETRY),
            }
        };
        let done = work(&mut session, self);
        let outcome = done.and_then(|value| session.run(self, deadline).map(|()| value));
        if outcome.is_err() && session.holds != Holds::Nothing {
            session.give_up(self)?;
        }
        outcome
    }
}

impl Session {
    /// The transaction: nesting, state.
    pub fn transaction(&mut self) -> &mut Transaction {
        &mut self.transaction
    }

    /// Starts a transaction inside this one: counted only, and undone with this one. End it with
    /// [`Transaction::commit_inner`] or [`Transaction::cancel_inner`].
    ///
    /// # Errors
    /// [`TransactionError::Nesting`] on a handle opened DISALLOW_NESTING,
    /// [`TransactionError::Prepared`].
    pub fn nest(&mut self, handle: &Handle) -> Result<(), TransactionError> {
        if handle.flags().contains(Flags::DISALLOW_NESTING) {
            return Err(TransactionError::Nesting);
        }
        self.transaction.nest()
    }

    /// Runs an operation that only reads.
    ///
    /// # Errors
    /// What `work` says.
    pub fn read<T>(
        &mut self,
        handle: &Handle,
        work: impl FnOnce(&mut Engine<'_, Overlay<'_, FileStore>, NoLocks>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let view = self.transaction.view(handle.database.store());
        work(&mut Engine {
            store: &view,
            locks: &mut self.locks,
            layout: handle.database.layout(),
            policy: handle.policy,
        })
    }

    /// Runs an operation that changes records; after an error the transaction can only be
    /// cancelled.
    ///
    /// # Errors
    /// What `work` says.
    pub fn change<T>(
        &mut self,
        handle: &Handle,
        work: impl FnOnce(&mut Engine<'_, Overlay<'_, FileStore>, NoLocks>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let done = self.read(handle, work);
        if done.is_err() {
            self.transaction.spoil();
        }
        done
    }

    /// As [`Handle::fetch`], inside the transaction.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn fetch(
        &mut self,
        handle: &Handle,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<bool, AccessError> {
        self.read(handle, |engine| engine.fetch_into(key, engine.layout.hash.hash(key), value))
    }

    /// As [`Handle::store`], inside the transaction.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn store(
        &mut self,
        handle: &Handle,
        key: &[u8],
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        let hash = handle.database.layout().hash.hash(key);
        self.change(handle, |engine| engine.store(key, hash, parts, mode))
    }

    /// As [`Handle::delete`], inside the transaction.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn delete(&mut self, handle: &Handle, key: &[u8]) -> Result<bool, AccessError> {
        let hash = handle.database.layout().hash.hash(key);
        self.change(handle, |engine| engine.delete(key, hash))
    }

    /// As [`Handle::wipe`], inside the transaction.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn wipe(&mut self, handle: &Handle) -> Result<(), AccessError> {
        self.change(handle, |engine| engine.wipe())
    }

    /// As [`Handle::for_each`], inside the transaction.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn for_each(
        &mut self,
        handle: &Handle,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<u64, AccessError> {
        self.read(handle, |engine| {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            let mut cursor = Cursor::new();
            let mut visited = 0;
            while engine.traverse_next(&mut cursor, LockKind::Read, &mut key, &mut value)? {
                visited += 1;
                if !visit(&key, &value) {
                    break;
                }
            }
            engine.end_traverse(&mut cursor)?;
            Ok(visited)
        })
    }

    /// Takes the locks of a commit, waiting for readers until `deadline`, and writes the undo log.
    ///
    /// # Errors
    /// [`TransactionError`]; then call [`Session::cancel`].
    pub fn prepare(
        &mut self,
        handle: &mut Handle,
        deadline: Instant,
    ) -> Result<Progress, TransactionError> {
        if !self.lock_for_commit(handle, deadline)? {
            return Ok(Progress::Busy);
        }
        Ok(self.transaction.prepare(handle.database.store())?.into())
    }

    /// Prepares if that was not done, puts the changes in place and lets go of the locks.
    ///
    /// # Errors
    /// [`TransactionError`]; then call [`Session::cancel`], which undoes what was written.
    pub fn commit(
        &mut self,
        handle: &mut Handle,
        deadline: Instant,
    ) -> Result<Progress, TransactionError> {
        if !self.lock_for_commit(handle, deadline)? {
            return Ok(Progress::Busy);
        }
        let changed = !self.transaction.is_empty();
        match self.transaction.commit(handle.database.store())? {
            Step::Sync(point) => Ok(Progress::Sync(point)),
            Step::Done => {
                if changed {
                    // Only a hint to others that something changed: a mapping does not touch it.
                    let _ = handle.database.store().file().set_modified(SystemTime::now());
                }
                self.unlock(handle)?;
                Ok(Progress::Done)
            }
        }
    }

    /// Gives the transaction up, undoing a commit that failed half-way, and lets go of the locks.
    ///
    /// # Errors
    /// [`TransactionError`]: what was written is still there; the next open undoes it.
    pub fn cancel(&mut self, handle: &mut Handle) -> Result<Step, TransactionError> {
        if self.holds == Holds::Nothing {
            // Without the locks nothing may be written any more.
            return Ok(Step::Done);
        }
        let step = self.transaction.cancel(handle.database.store());
        match step {
            Ok(Step::Sync(_)) => {}
            Ok(Step::Done) | Err(_) => self.unlock(handle)?,
        }
        step
    }

    /// `true` after a commit that made the file grow although there was space, only scattered:
    /// libtdb then calls [`Handle::repack`].
    #[must_use]
    pub fn is_repack_wanted(&self) -> bool {
        self.repack_wanted
    }

    /// Commits, waiting for the disk itself; repacks afterwards where libtdb does.
    ///
    /// # Errors
    /// [`TransactionError`]; the transaction was cancelled then.
    pub fn finish(
        mut self,
        handle: &mut Handle,
        deadline: Instant,
    ) -> Result<(), TransactionError> {
        if let Err(error) = self.run(handle, deadline) {
            if self.holds != Holds::Nothing {
                self.give_up(handle)?;
            }
            return Err(error);
        }
        if self.repack_wanted {
            // The commit is done whatever comes of this.
            let _ = handle.repack(deadline);
        }
        Ok(())
    }

    fn run(&mut self, handle: &mut Handle, deadline: Instant) -> Result<(), TransactionError> {
        loop {
            match self.commit(handle, deadline)? {
                Progress::Done => return Ok(()),
                Progress::Busy => return Err(TransactionError::Busy),
                Progress::Sync(point) => sync(handle, point)?,
            }
        }
    }

    fn give_up(&mut self, handle: &mut Handle) -> Result<(), TransactionError> {
        while let Step::Sync(point) = self.cancel(handle)? {
            sync(handle, point)?;
        }
        Ok(())
    }

    /// `false` if the deadline passed first.
    fn lock_for_commit(
        &mut self,
        handle: &mut Handle,
        deadline: Instant,
    ) -> Result<bool, TransactionError> {
        if self.holds == Holds::Body {
            if self.transaction.is_empty() {
                return Ok(true);
            }
            self.repack_wanted = self.transaction.has_expanded()
                && self.read(handle, |engine| engine.repack_is_worthwhile())?;
            if handle.locks.upgrade_all_records(deadline)? == TryLock::Busy {
                return Ok(false);
            }
            self.holds = Holds::Exclusive;
        }
        if self.holds == Holds::Exclusive {
            // Who opens the file holds OPEN for a moment, and may wait for what we hold if it is
            // the first opener of a CLEAR_IF_FIRST file: so never wait without an end.
            while handle.locks.lock_open(Wait::No)? == TryLock::Busy {
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                std::thread::sleep(OPEN_RETRY);
            }
            self.holds = Holds::Commit;
        }
        Ok(true)
    }

    fn unlock(&mut self, handle: &mut Handle) -> Result<(), TransactionError> {
        let held = std::mem::replace(&mut self.holds, Holds::Nothing);
        if held == Holds::Nothing {
            return Ok(());
        }
        handle.locks.unlock_all_records()?;
        handle.locks.unlock_transaction()?;
        if held == Holds::Commit {
            handle.locks.unlock_open()?;
        }
        Ok(())
    }
}

impl From<Step> for Progress {
    fn from(step: Step) -> Self {
        match step {
            Step::Sync(point) => Self::Sync(point),
            Step::Done => Self::Done,
        }
    }
}

fn sync(handle: &Handle, point: SyncPoint) -> Result<(), TransactionError> {
    handle.database.store().sync(point).map_err(|source| {
        TransactionError::Store(StoreError::Io { action: "sync", offset: point.offset, source })
    })
}
