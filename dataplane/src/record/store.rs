//! Where the engine's records are.
//!
//! Role: what the engine needs of a database: the chain lock, and records under it. In the daemon
//! this is a TDB file that smbd maps and locks; here is one in memory for tests and simulation.

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_protocol::{DbId, record::RecordHeader};
use thiserror::Error;

/// What came of an attempt to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// The chain is ours until `unlock`.
    Locked,
    /// Somebody else (smbd) holds it.
    Busy,
    /// The database is frozen: it comes back with the thaw.
    Frozen,
    /// It cannot be locked: the file is broken here. The store has told whoever must know.
    Failed,
}

/// The record, or the whole database here, cannot be read or written. The store has told whoever
/// must know (it asks for a recovery); the caller gives up this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the database cannot be read or written here")]
pub struct FetchError;

/// Records of the databases that are attached, one chain lock at a time.
pub trait RecordStore {
    /// Tries to lock the chain of `key`; never waits. Nests: a chain that is locked for us already
    /// (granted to a waiter) is locked again, and needs as many unlocks.
    fn try_lock(&mut self, db: DbId, key: &[u8]) -> LockOutcome;

    /// Gives up one `try_lock` or one grant.
    fn unlock(&mut self, db: DbId, key: &[u8]);

    /// Copies the record's value without its header into `value` (cleared first). `None` for a
    /// record that is not there or too short to have a header.
    ///
    /// # Errors
    /// [`FetchError`].
    fn fetch(
        &mut self,
        db: DbId,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<Option<RecordHeader>, FetchError>;

    /// Stores header and value.
    ///
    /// # Errors
    /// [`FetchError`].
    fn store(
        &mut self,
        db: DbId,
        key: &[u8],
        header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError>;

    /// Deletes the record; one that is not there is fine.
    ///
    /// # Errors
    /// [`FetchError`].
    fn delete(&mut self, db: DbId, key: &[u8]) -> Result<(), FetchError>;
}

type Chain = (DbId, Box<[u8]>);

/// Records in memory. Every key is a chain of its own.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: BTreeMap<Chain, (RecordHeader, Box<[u8]>)>,
    /// Chains that somebody else holds.
    held: BTreeSet<Chain>,
    /// Chains that the engine holds, and how often.
    ours: BTreeMap<Chain, u32>,
    frozen: BTreeSet<DbId>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another process takes the chain; `false` when it is held by anybody.
    pub fn hold(&mut self, db: DbId, key: &[u8]) -> bool {
        let chain = (db, key.into());
        !self.ours.contains_key(&chain) && self.held.insert(chain)
    }

    /// The other process lets the chain go.
    pub fn let_go(&mut self, db: DbId, key: &[u8]) {
        self.held.remove(&(db, key.into()));
    }

    /// Whether another process holds the chain.
    #[must_use]
    pub fn is_held(&self, db: DbId, key: &[u8]) -> bool {
        self.held.contains(&(db, key.into()))
    }

    /// A waiter has got the chain for the engine; `false` when it is held.
    pub fn grant(&mut self, db: DbId, key: &[u8]) -> bool {
        let chain: Chain = (db, key.into());
        if self.held.contains(&chain) || self.ours.contains_key(&chain) {
            return false;
        }
        self.ours.insert(chain, 1);
        true
    }

    /// Freezes or thaws.
    pub fn set_frozen(&mut self, db: DbId, frozen: bool) {
        if frozen {
            self.frozen.insert(db);
        } else {
            self.frozen.remove(&db);
        }
    }

    /// The record as it stands, for clients, checkers and tests.
    #[must_use]
    pub fn get(&self, db: DbId, key: &[u8]) -> Option<(RecordHeader, &[u8])> {
        self.records.get(&(db, key.into())).map(|(header, value)| (*header, &**value))
    }

    /// Puts a record, as a client does under the chain lock.
    pub fn put(&mut self, db: DbId, key: &[u8], header: RecordHeader, value: &[u8]) {
        self.records.insert((db, key.into()), (header, value.into()));
    }

    /// Removes a record, as vacuuming does under the chain lock.
    pub fn remove(&mut self, db: DbId, key: &[u8]) {
        self.records.remove(&(db, key.into()));
    }

    /// All records of a database, in the order of their keys.
    pub fn records(&self, db: DbId) -> impl Iterator<Item = (&[u8], RecordHeader, &[u8])> {
        self.records
            .iter()
            .filter(move |((of, _), _)| *of == db)
            .map(|((_, key), (header, value))| (&**key, *header, &**value))
    }

    /// Removes all records of a database.
    pub fn wipe(&mut self, db: DbId) {
        self.records.retain(|(of, _), _| *of != db);
    }

    /// Whether the engine holds no chain: true between any two calls into it, grants aside.
    #[must_use]
    pub fn is_unlocked(&self) -> bool {
        self.ours.is_empty()
    }
}

impl RecordStore for MemoryStore {
    fn try_lock(&mut self, db: DbId, key: &[u8]) -> LockOutcome {
        let chain: Chain = (db, key.into());
        if let Some(count) = self.ours.get_mut(&chain) {
            *count += 1;
            return LockOutcome::Locked;
        }
        if self.frozen.contains(&db) {
            return LockOutcome::Frozen;
        }
        if self.held.contains(&chain) {
            return LockOutcome::Busy;
        }
        self.ours.insert(chain, 1);
        LockOutcome::Locked
    }

    fn unlock(&mut self, db: DbId, key: &[u8]) {
        let chain: Chain = (db, key.into());
        match self.ours.get_mut(&chain) {
            Some(1) => {
                self.ours.remove(&chain);
            }
            Some(count) => *count -= 1,
            None => panic!("unlock of a chain that is not locked"),
        }
    }

    fn fetch(
        &mut self,
        db: DbId,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<Option<RecordHeader>, FetchError> {
        let chain: Chain = (db, key.into());
        assert!(self.ours.contains_key(&chain), "fetch needs the chain lock");
        value.clear();
        let found = self.records.get(&chain);
        Ok(found.map(|(header, stored)| {
            value.extend_from_slice(stored);
            *header
        }))
    }

    fn store(
        &mut self,
        db: DbId,
        key: &[u8],
        header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        let chain: Chain = (db, key.into());
        assert!(self.ours.contains_key(&chain), "store needs the chain lock");
        self.records.insert(chain, (header, value.into()));
        Ok(())
    }

    fn delete(&mut self, db: DbId, key: &[u8]) -> Result<(), FetchError> {
        let chain: Chain = (db, key.into());
        assert!(self.ours.contains_key(&chain), "delete needs the chain lock");
        self.records.remove(&chain);
        Ok(())
    }
}
