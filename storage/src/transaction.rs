//! Transactions: all changes of a commit survive a crash, or none.
//!
//! Role: collect changed blocks ([`Overlay`]), then bring them into the file behind an undo log:
//! save old blocks in the recovery area, sync, mark it valid, sync, write the new blocks, sync, mark
//! it invalid, sync. Placing and filling the area: `transaction/area.rs`. Undoing: `recovery.rs`.
//! Invariants
//! - Until the magic of the area is durable nothing outside the area changes but the pointer to it,
//!   and new space is durable before that pointer is written.
//! - After it, whatever happens leads to the old state ([`Recovery`]) or, once the magic is gone, to
//!   the new one.
//! - Locks are the caller's: spec 7.2 says which are held when. So are the syncs: every
//!   [`Step::Sync`] is work that must be finished before the next call, and not by a shard thread.
//! - The bytes after a commit are those libtdb leaves after the same operations.
//!
//! Never here: waiting, locks, the clock.
//! Origin: `docs/spec/tdb-format.md` 7; lib/tdb/common/transaction.c.

mod area;
mod overlay;
mod repack;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use overlay::Overlay;

use crate::engine::AccessError;
use crate::format::{Layout, MAGIC_RECOVERY, MAGIC_RECOVERY_IDLE};
use crate::lock::LockError;
use crate::recovery::{MAGIC_FIELD, Recovery, RecoveryError};
use crate::repair::RepairError;
use crate::store::{Store, StoreError, SyncPoint};
use overlay::Cache;

/// What the caller has to do before it calls again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the order of writes on disk depends on this sync"]
pub enum Step {
    /// Make the file durable, then call again.
    Sync(SyncPoint),
    /// Nothing left to do.
    Done,
}

/// Why a transaction cannot be prepared, committed or cancelled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// An operation inside it failed half-way, or an inner transaction was cancelled. Cancel it.
    #[error("an operation inside the transaction failed; cancel it and start again")]
    Spoiled,
    /// A write after `prepare`, or a second transaction while one is prepared.
    #[error("the transaction is already prepared; only commit or cancel may follow")]
    Prepared,
    /// The database is not in a transaction (any more).
    #[error("no transaction is open")]
    NotOpen,
    /// A nested start where the database does not allow it.
    #[error("nested transactions are not allowed on this handle")]
    Nesting,
    /// The undo log would not fit in a file of 4 GiB.
    #[error("no room for a recovery area of {needed} bytes in a file of {file_len}")]
    TooLarge {
        /// Bytes of undo log.
        needed: u64,
        /// Logical size of the file.
        file_len: u32,
    },
    /// A lock could not be had or given back.
    #[error("cannot lock the database")]
    Lock(#[from] LockError),
    /// Others were reading, writing or opening the database until the deadline.
    #[error("the database is busy; try again later")]
    Busy,
    /// An operation on records failed, or the release of the old recovery area. Cancel the
    /// transaction.
    #[error("cannot change the database inside the transaction")]
    Access(#[from] AccessError),
    /// The database has more wrong with it than leaked space.
    #[error("cannot repair the database")]
    Repair(#[from] RepairError),
    /// The file could not be read, written or extended. Cancel the transaction.
    #[error("cannot access the database")]
    Store(#[from] StoreError),
    /// A commit failed and undoing it failed too; the next open of the database will undo it.
    #[error("cannot undo the failed commit")]
    Recovery(#[from] RecoveryError),
}

/// Where a transaction stands: what the *next* step has to do.
#[derive(Debug)]
enum Phase {
    /// Operations collect changes.
    Body,
    /// The area's space is durable: point to it, fill it.
    Fill(area::Place),
    /// The undo log is durable: mark it valid.
    Mark(area::Place),
    /// The mark is durable: make room for the new blocks.
    Extend(area::Place),
    /// Prepared: write the new blocks. `None`: nothing was changed.
    Prepared(Option<area::Place>),
    /// The new blocks are durable (or the transaction was given up): take the mark away.
    Unmark(area::Place),
    /// The mark was put in and the new blocks only partly.
    Torn,
    /// Undoing a failed commit.
    Undo(Recovery),
    Closed,
}

/// One transaction on one database. Operations run on [`Transaction::view`].
#[derive(Debug)]
pub struct Transaction {
    cache: Cache,
    layout: Layout,
    phase: Phase,
    /// Inner transactions open.
    depth: u32,
    spoiled: bool,
}

impl Transaction {
    /// Starts one over `store`, whose locks for a transaction's start the caller holds (TRANSACTION
    /// W, ALLRECORD R). Blocks have the page size of `layout`.
    ///
    /// # Errors
    /// [`TransactionError::Store`]: the file's size cannot be told.
    pub fn start<S: Store>(store: &S, layout: Layout) -> Result<Self, TransactionError> {
        let len = store.refresh_len()?;
        let cache = Cache::new(len, layout.page_size);
        Ok(Self { cache, layout, phase: Phase::Body, depth: 0, spoiled: false })
    }

    /// The database as the transaction sees it: changed blocks in memory over `store`, which must
    /// be the one it was started on.
    pub fn view<'t, S: Store>(&'t self, store: &'t S) -> Overlay<'t, S> {
        Overlay::new(&self.cache, store)
    }

    /// Starts an inner transaction: counted only (spec 7.3).
    ///
    /// # Errors
    /// [`TransactionError::Prepared`].
    pub fn nest(&mut self) -> Result<(), TransactionError> {
        self.expect_body()?;
        self.depth += 1;
        Ok(())
    }

    /// Commits the innermost transaction if it is an inner one, and says so.
    pub fn commit_inner(&mut self) -> bool {
        let inner = self.depth > 0;
        self.depth = self.depth.saturating_sub(1);
        inner
    }

    /// Cancels the innermost transaction if it is an inner one, and says so. The outer one can
    /// then only be cancelled.
    pub fn cancel_inner(&mut self) -> bool {
        let inner = self.depth > 0;
        self.spoiled |= inner;
        self.commit_inner()
    }

    /// An operation failed half-way: nothing of this transaction may be committed.
    pub fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// `true` once [`Transaction::prepare`] is through.
    pub fn is_prepared(&self) -> bool {
        matches!(self.phase, Phase::Prepared(_))
    }

    /// `true` if an operation inside the transaction made the file grow (libtdb then looks whether
    /// a repack is worth while, spec 7.2).
    pub fn has_expanded(&self) -> bool {
        self.cache.has_expanded()
    }

    /// `true` if nothing was written: a commit then needs no further lock.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    fn expect_body(&self) -> Result<(), TransactionError> {
        match self.phase {
            Phase::Body => Ok(()),
            Phase::Closed => Err(TransactionError::NotOpen),
            _ => Err(TransactionError::Prepared),
        }
    }

    /// Writes the undo log and marks it valid. From here on the commit can only fail by the disk
    /// failing. The caller has upgraded ALLRECORD to W and holds OPEN.
    ///
    /// # Errors
    /// [`TransactionError`]; then call [`Transaction::cancel`].
    pub fn prepare<S: Store>(&mut self, store: &S) -> Result<Step, TransactionError> {
        loop {
            let sync = match &self.phase {
                Phase::Body => self.place(store)?,
                Phase::Fill(place) => {
                    let place = *place;
                    area::fill(&self.cache, store, &place)?;
                    self.phase = Phase::Mark(place);
                    store.sync_point(place.offset, place.used())
                }
                Phase::Mark(place) => {
                    let place = *place;
                    let magic = place.offset + MAGIC_FIELD;
                    // The phase first: should the write fail, cancelling must still unmark.
                    self.phase = Phase::Extend(place);
                    store.write_u32(magic, MAGIC_RECOVERY)?;
                    self.cache.overwrite(magic, &MAGIC_RECOVERY.to_le_bytes());
                    store.sync_point(magic, 4)
                }
                Phase::Extend(place) => {
                    let place = *place;
                    self.cache.grow_file(store)?;
                    self.phase = Phase::Prepared(Some(place));
                    None
                }
                Phase::Prepared(_) => return Ok(Step::Done),
                Phase::Closed => return Err(TransactionError::NotOpen),
                Phase::Unmark(_) | Phase::Torn | Phase::Undo(_) => {
                    return Err(TransactionError::Prepared);
                }
            };
            if let Some(point) = sync {
                return Ok(Step::Sync(point));
            }
        }
    }

    /// First part of `prepare`: finds room for the undo log.
    fn place<S: Store>(&mut self, store: &S) -> Result<Option<SyncPoint>, TransactionError> {
        if self.spoiled || self.depth > 0 || self.cache.is_spoiled() {
            return Err(TransactionError::Spoiled);
        }
        if self.cache.is_empty() {
            self.cache.freeze();
            self.phase = Phase::Prepared(None);
            return Ok(None);
        }
        let (place, grown) = area::place(&self.cache, store, &self.layout)?;
        self.cache.freeze();
        self.phase = Phase::Fill(place);
        // libtdb has no sync here. Without it the pointer can reach the disk before the growth;
        // libtdb would then refuse to open the file. Only when a new area is made.
        Ok(if grown { store.sync_point(0, store.known_len()) } else { None })
    }

    /// Prepares if that was not done, and puts the new blocks in place. After [`Step::Done`] the
    /// caller touches the file's time and releases the locks.
    ///
    /// # Errors
    /// [`TransactionError`]; then call [`Transaction::cancel`], which undoes what was written.
    pub fn commit<S: Store>(&mut self, store: &S) -> Result<Step, TransactionError> {
        loop {
            match self.phase {
                Phase::Body | Phase::Fill(_) | Phase::Mark(_) | Phase::Extend(_) => {
                    let step = self.prepare(store)?;
                    if let Step::Sync(_) = step {
                        return Ok(step);
                    }
                }
                Phase::Prepared(None) => self.phase = Phase::Closed,
                Phase::Prepared(Some(place)) => {
                    if self.spoiled || self.cache.is_spoiled() {
                        return Err(TransactionError::Spoiled);
                    }
                    self.phase = Phase::Torn;
                    self.cache.write_back(store)?;
                    self.phase = Phase::Unmark(place);
                    if let Some(point) = store.sync_point(0, store.known_len()) {
                        return Ok(Step::Sync(point));
                    }
                }
                Phase::Unmark(place) => {
                    // On failure the mark stays: cancelling then undoes the commit.
                    self.phase = Phase::Torn;
                    let magic = place.offset + MAGIC_FIELD;
                    store.write_u32(magic, MAGIC_RECOVERY_IDLE)?;
                    self.phase = Phase::Closed;
                    if let Some(point) = store.sync_point(magic, 4) {
                        return Ok(Step::Sync(point));
                    }
                }
                Phase::Closed => return Ok(Step::Done),
                Phase::Torn | Phase::Undo(_) => return Err(TransactionError::Spoiled),
            }
        }
    }

    /// Gives the transaction up at whatever point it stands, undoing a commit that failed. The
    /// caller keeps the locks it holds until [`Step::Done`].
    ///
    /// # Errors
    /// [`TransactionError`]: the mark could not be taken away; the next open will undo the rest.
    pub fn cancel<S: Store>(&mut self, store: &S) -> Result<Step, TransactionError> {
        loop {
            match &mut self.phase {
                Phase::Body | Phase::Fill(_) | Phase::Mark(_) | Phase::Prepared(None) => {
                    self.phase = Phase::Closed;
                }
                // No block was written yet: taking the mark away is enough.
                Phase::Extend(place) | Phase::Prepared(Some(place)) => {
                    let magic = place.offset + MAGIC_FIELD;
                    store.write_u32(magic, MAGIC_RECOVERY_IDLE)?;
                    self.phase = Phase::Closed;
                    if let Some(point) = store.sync_point(magic, 4) {
                        return Ok(Step::Sync(point));
                    }
                }
                Phase::Unmark(_) | Phase::Torn => {
                    self.phase = match Recovery::begin(store)? {
                        Some(recovery) => Phase::Undo(recovery),
                        None => Phase::Closed,
                    };
                }
                Phase::Undo(recovery) => match recovery.step(store)? {
                    Step::Sync(point) => return Ok(Step::Sync(point)),
                    Step::Done => self.phase = Phase::Closed,
                },
                Phase::Closed => return Ok(Step::Done),
            }
        }
    }
}
