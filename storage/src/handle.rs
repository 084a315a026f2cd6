//! One open database: [`Database`] is shared by all threads, a [`Handle`] belongs to one.
//!
//! Role: the face of this crate. Puts store, locks, facts and policy together per call and undoes
//! crashed commits that it meets. How records lie in the file: `chain.rs`; opening: `open.rs`.
//! Invariants
//! - A handle is one lock owner with a description of its own: two handles exclude each other as
//!   two processes do. Never share one between tasks that must exclude each other.
//! - Methods without "try" may wait for other processes: never call them on a shard thread. A shard
//!   calls [`Handle::try_lock_chain`] and works on the guard.
//! - A guard or traverse borrows nothing from the file: every call copies.
//!
//! Origin: `docs/spec/tdb-format.md` 4, 6, 7.6.

mod chains;
mod locked;
mod owner;
mod reserve;
mod session;
mod until;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

pub use locked::Locked;
pub use owner::Owner;
pub use reserve::Reserve;
pub use session::{Progress, Session};

use crate::backend::file::FileStore;
use crate::chain::{StoreMode, Stored};
use crate::engine::{AccessError, Engine, Policy};
use crate::flags::Flags;
use crate::format::{Layout, SEQNUM_OFFSET, VOLATILE_MAX_DEAD};
use crate::freelist::MergeStep;
use crate::lock::{FileLocks, HandleLocks, LockError, LockKind, Locks, NoLocks, TryLock, Wait};
use crate::mutex::{MutexArea, Slot};
use crate::open::{OpenOptions, recover_now, reopened};
use crate::recovery::needs_recovery;
use crate::store::{Store, StoreError};
use crate::traverse::Cursor;
use crate::wait::WaitLimit;
use crate::whole::Summary;

/// Facts and mapping of an open file, shared by its handles.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    store: FileStore,
    layout: Layout,
    area: Option<Arc<MutexArea>>,
    flags: Flags,
    write: bool,
    wait_limit: Arc<WaitLimit>,
    pub(crate) made_here: bool,
}

/// Why another handle could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The file could not be opened again.
    #[error("cannot open {path} once more")]
    Reopen {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// ACTIVE could not be had.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LockError,
    },
}

impl Database {
    pub(crate) fn new(
        path: &Path,
        store: FileStore,
        layout: Layout,
        area: Option<Arc<MutexArea>>,
        options: &OpenOptions,
        wait_limit: Arc<WaitLimit>,
    ) -> Self {
        let (flags, write) = (options.flags, options.write);
        let path = path.to_owned();
        Self { path, store, layout, area, flags, write, wait_limit, made_here: false }
    }

    /// The file was empty before this open: nobody can have slept on its mutexes before.
    #[must_use]
    pub fn made_here(&self) -> bool {
        self.made_here
    }

    /// Another handle, for another thread: call it there (held mutexes belong to a thread). Holds
    /// ACTIVE if the database is opened CLEAR_IF_FIRST or has mutexes.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn handle(self: &Arc<Self>) -> Result<Handle, HandleError> {
        if self.flags.contains(Flags::NOLOCK) {
            let locks = Owner::Nobody(NoLocks::default());
            return Ok(Handle::new(Arc::clone(self), locks, self.flags));
        }
        let file = reopened(self.store.file(), self.write)
            .map_err(|source| HandleError::Reopen { path: self.path.clone(), source })?;
        let hash_size = self.layout.hash_size;
        let mut locks = HandleLocks::new(Arc::new(file), self.write, hash_size, self.area.clone())
            .with_wait_limit(Arc::clone(&self.wait_limit));
        if self.flags.contains(Flags::CLEAR_IF_FIRST) || self.area.is_some() {
            let _granted = locks
                .lock_active(LockKind::Read, Wait::Yes)
                .map_err(|source| HandleError::Lock { path: self.path.clone(), source })?;
        }
        let locks = Owner::File(Box::new(locks));
        Ok(Handle::new(Arc::clone(self), locks, self.flags))
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes.
    #[must_use]
    pub fn store(&self) -> &FileStore {
        &self.store
    }

    /// Facts of the file.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The robust mutexes, if chains are locked by them.
    #[must_use]
    pub fn mutexes(&self) -> Option<&Arc<MutexArea>> {
        self.area.as_ref()
    }

    /// `true` if opened for writing.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.write
    }

    /// Chain of a key.
    #[must_use]
    #[inline]
    pub fn chain_of(&self, key: &[u8]) -> u32 {
        self.layout.chain_of(self.layout.hash.hash(key))
    }

    /// Fetches what an operation on the chain is going to touch into the processor's caches, all at
    /// once: without it each miss waits for the one before, and locking waits for all of them.
    #[inline]
    pub(crate) fn prefetch_chain(&self, chain: u32) {
        if let Some(area) = &self.area {
            area.prefetch(Slot::Chain(chain));
        }
        self.store.prefetch_record_at(self.layout.head_of(chain));
    }

    /// `true` if the chain has no record at all, as seen without a lock: a wrong answer means that
    /// it is being changed at this moment. Lets walks skip empty chains.
    ///
    /// # Errors
    /// [`StoreError`].
    #[inline]
    pub fn chain_is_empty(&self, chain: u32) -> Result<bool, StoreError> {
        Ok(self.store.read_u32(self.layout.head_of(chain))? == 0)
    }

    /// `true` if no chain has a record, dead ones included: what a volatile file must look like
    /// right after it was opened.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        for chain in 0..self.layout.hash_size {
            if !self.chain_is_empty(chain)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The sequence number. Needs no lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn seqnum(&self) -> Result<u32, StoreError> {
        self.store.read_u32(SEQNUM_OFFSET)
    }

    /// Adds 1 to the sequence number without a change of the data: what ctdbd does when another
    /// node says that the database changed there. Needs no lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_change_elsewhere(&self) -> Result<(), StoreError> {
        self.store.add_seqnum()
    }
}

/// One lock owner's use of a database.
#[derive(Debug)]
pub struct Handle {
    database: Arc<Database>,
    locks: Owner,
    policy: Policy,
    flags: Flags,
    reserve: Option<Box<reserve::Buried>>,
}

impl Handle {
    /// The handle that opened the database, with the locks it already holds.
    pub(crate) fn first(database: Arc<Database>, mut locks: Owner) -> Self {
        if let Owner::File(locks) = &mut locks {
            locks.set_layout(database.layout.hash_size, database.area.clone());
        }
        let flags = database.flags;
        Self::new(database, locks, flags)
    }

    fn new(database: Arc<Database>, locks: Owner, flags: Flags) -> Self {
        let max_dead = if flags.contains(Flags::VOLATILE) { VOLATILE_MAX_DEAD } else { 0 };
        let seqnum = flags.contains(Flags::SEQNUM);
        let policy = Policy { max_dead, seqnum, never_waits: false };
        Self { database, locks, policy, flags, reserve: None }
    }

    /// What all handles share.
    #[must_use]
    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Flags as completed at open, and SEQNUM if it was enabled since: what DB_OPEN_FLAGS answers.
    #[must_use]
    pub fn flags(&self) -> Flags {
        self.flags
    }

    /// From now on this handle counts its changes.
    pub fn enable_seqnum(&mut self) {
        self.flags = self.flags | Flags::SEQNUM;
        self.policy.seqnum = true;
    }

    /// Dead records this handle leaves in a chain (the tunable DatabaseMaxDead).
    pub fn set_max_dead(&mut self, max_dead: u32) {
        self.policy.max_dead = max_dead;
    }

    /// From now on this handle serves a shard: it never sleeps for the freelist. Stores may answer
    /// [`Stored::Busy`], deletes leave dead records for later.
    pub fn never_wait(&mut self) {
        self.policy.never_waits = true;
    }

    /// The lock owner: for whole-file work (freeze, transactions) and tests.
    pub fn locks(&mut self) -> &mut Owner {
        &mut self.locks
    }

    /// Store, locks, facts and policy for algorithms that need all of them. What the handle holds
    /// decides what may be called.
    pub fn engine(&mut self) -> Engine<'_, FileStore, Owner> {
        Engine {
            store: &self.database.store,
            locks: &mut self.locks,
            layout: self.database.layout,
            policy: self.policy,
        }
    }

    /// Undoes a crashed commit, if there is one. Waits for other processes and the disk: never on
    /// a shard thread. The handle must hold no chain.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn recover(&mut self) -> Result<(), AccessError> {
        if self.locks.holds_all_records() {
            // The range is ours already; OPEN is all that is missing.
            let _granted = self.locks.lock_open(Wait::Yes)?;
            let recovered = recover_now(&self.database.store);
            self.locks.unlock_open()?;
            return Ok(recovered?);
        }
        let _granted = self.locks.lock_data_range(Wait::Yes)?;
        let recovered = match self.locks.lock_open(Wait::Yes) {
            Ok(_granted) => {
                let recovered = recover_now(&self.database.store).map_err(AccessError::from);
                recovered.and(self.locks.unlock_open().map_err(AccessError::from))
            }
            Err(error) => Err(error.into()),
        };
        self.locks.unlock_data_range()?;
        recovered
    }

    /// Copies the value of a key into `value`, whose memory is used again; `false` without such a
    /// record.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn fetch(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, AccessError> {
        self.locked(key, LockKind::Read, |engine, hash| engine.fetch_into(key, hash, value))
    }

    /// `true` if the key is there.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn exists(&mut self, key: &[u8]) -> Result<bool, AccessError> {
        self.locked(key, LockKind::Read, |engine, hash| Ok(engine.find(key, hash)?.is_some()))
    }

    /// Stores the concatenation of `parts`.
    ///
    /// # Errors
    /// [`AccessError`].
    #[inline]
    pub fn store(
        &mut self,
        key: &[u8],
        parts: &[&[u8]],
        mode: StoreMode,
    ) -> Result<Stored, AccessError> {
        if self.reserve.is_some() {
            return self.store_from_reserve(key, parts, mode);
        }
        self.locked(key, LockKind::Write, |engine, hash| engine.store(key, hash, parts, mode))
    }

    /// Adds to the end of a value, creating the record if it is missing.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn append(&mut self, key: &[u8], more: &[u8]) -> Result<Stored, AccessError> {
        self.locked(key, LockKind::Write, |engine, hash| engine.append(key, hash, more))
    }

    /// Deletes a key; `false` if it was not there.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, AccessError> {
        if self.reserve.is_some() {
            return self.delete_into_reserve(key);
        }
        self.locked(key, LockKind::Write, |engine, hash| engine.delete(key, hash))
    }

    #[inline]
    fn locked<T>(
        &mut self,
        key: &[u8],
        kind: LockKind,
        work: impl FnOnce(&mut Engine<'_, FileStore, Owner>, u32) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let hash = self.database.layout.hash.hash(key);
        let chain = self.database.layout.chain_of(hash);
        self.lock_chain(chain, kind)?.keep();
        let done = work(&mut self.engine(), hash);
        self.locks.unlock_chain(chain)?;
        done
    }

    /// Goes to the next record of a traverse and copies it; `false` at the end. `kind` is the kind
    /// of chain lock taken while stepping. For a write-traverse as libtdb's, hold TRANSACTION
    /// ([`FileLocks::lock_transaction`]). Records may be changed in between, also this one.
    ///
    /// # Errors
    /// [`AccessError`]; end the traverse then.
    pub fn traverse_next(
        &mut self,
        cursor: &mut Cursor,
        kind: LockKind,
        key: &mut Vec<u8>,
        value: &mut Vec<u8>,
    ) -> Result<bool, AccessError> {
        loop {
            match self.engine().traverse_next(cursor, kind, key, value) {
                Err(AccessError::NeedsRecovery) => self.recover()?,
                done => return done,
            }
        }
    }

    /// Lets go of the record a traverse stands on.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn end_traverse(&mut self, cursor: &mut Cursor) -> Result<(), AccessError> {
        self.engine().end_traverse(cursor)
    }

    /// Puts a cursor on a key; see [`Engine::seek`].
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn seek(&mut self, cursor: &mut Cursor, key: &[u8]) -> Result<bool, AccessError> {
        loop {
            match self.engine().seek(cursor, key) {
                Err(AccessError::NeedsRecovery) => self.recover()?,
                done => return done,
            }
        }
    }

    /// Visits every record as a write-traverse does, holding TRANSACTION: the visitor may change
    /// the database through the handle, also delete the record it is shown. Stops at `false`;
    /// returns how many were visited.
    ///
    /// # Errors
    /// [`AccessError`], also the visitor's.
    pub fn for_each_mut(
        &mut self,
        mut visit: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<bool, AccessError>,
    ) -> Result<u64, AccessError> {
        let _granted = self.locks.lock_transaction(Wait::Yes)?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut cursor = Cursor::new();
        let mut visited = 0;
        let mut wanted = Ok(true);
        while let Ok(true) = wanted {
            wanted = self.traverse_next(&mut cursor, LockKind::Write, &mut key, &mut value);
            if let Ok(true) = wanted {
                visited += 1;
                wanted = visit(self, &key, &value);
            }
        }
        let ended = self.end_traverse(&mut cursor);
        self.locks.unlock_transaction()?;
        wanted.and(ended).map(|()| visited)
    }

    /// Visits every record as a read-traverse does; stops when `visit` says `false`. Returns how
    /// many were visited.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn for_each(
        &mut self,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<u64, AccessError> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut cursor = Cursor::new();
        let mut visited = 0;
        loop {
            match self.traverse_next(&mut cursor, LockKind::Read, &mut key, &mut value) {
                Ok(true) => {
                    visited += 1;
                    if !visit(&key, &value) {
                        break;
                    }
                }
                Ok(false) => break,
                Err(error) => {
                    // The first error is the one to tell.
                    let _ = self.end_traverse(&mut cursor);
                    return Err(error);
                }
            }
        }
        self.end_traverse(&mut cursor)?;
        Ok(visited)
    }

    /// Runs `work` under ALLRECORD, waiting for it and undoing a crashed commit if one is found.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn with_all_records<T>(
        &mut self,
        kind: LockKind,
        work: impl FnOnce(&mut Engine<'_, FileStore, Owner>) -> Result<T, AccessError>,
    ) -> Result<T, AccessError> {
        let _granted = self.locks.lock_all_records(kind, Wait::Yes)?;
        let done = self.recover_if_needed().and_then(|()| work(&mut self.engine()));
        self.locks.unlock_all_records()?;
        done
    }

    fn recover_if_needed(&mut self) -> Result<(), AccessError> {
        if needs_recovery(&self.database.store).unwrap_or(true) {
            self.recover()?;
        }
        Ok(())
    }

    /// Deletes every record, under ALLRECORD. FREELIST is taken besides: ALLRECORD does not cover
    /// it (spec 11.3).
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn wipe(&mut self) -> Result<(), AccessError> {
        self.with_all_records(LockKind::Write, |engine| {
            engine.with_freelist(|engine| engine.wipe())
        })?;
        self.forget_reserve();
        Ok(())
    }

    /// What the database consists of, counted under ALLRECORD. Its text is that of `tdbtool info`.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn summary(&mut self) -> Result<Summary, AccessError> {
        let start = self.database.store.start();
        self.with_all_records(LockKind::Read, |engine| engine.summary(start))
    }

    /// Number of free blocks. Takes the freelist lock and changes nothing.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn freelist_len(&mut self) -> Result<u32, AccessError> {
        self.engine().with_freelist(|engine| engine.freelist_len())
    }

    /// The same if nobody has the freelist; `None` if it is busy.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn try_freelist_len(&mut self) -> Result<Option<u32>, AccessError> {
        if self.locks.lock_freelist(Wait::No)? == TryLock::Busy {
            return Ok(None);
        }
        let length = self.engine().freelist_len();
        self.locks.unlock_freelist()?;
        length.map(Some)
    }

    /// One bounded step of merging free blocks; see [`Engine::merge_free_blocks`]. Holds chain 0
    /// besides the freelist, so that a frozen database is left alone (spec 11.3); `None` if one of
    /// them is busy.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn try_merge_free_blocks(
        &mut self,
        from: u32,
        limit: u32,
    ) -> Result<Option<MergeStep>, AccessError> {
        let Some(mut locked) = self.try_lock_chain(0, LockKind::Write)? else { return Ok(None) };
        let step = locked.try_merge_free_blocks(from, limit);
        locked.unlock()?;
        step
    }
}

/// Threads share a database, each with a handle of its own.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Database>();
};
