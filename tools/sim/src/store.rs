//! A node's records: memory, with the mistakes that a store can make.

use ringmaster_dataplane::record::{FetchError, LockOutcome, MemoryStore, RecordStore};
use ringmaster_protocol::{DbId, Pnn, Rsn, record::RecordHeader};

use crate::mutation::Mutation;

/// Memory, with the mistakes that a store can make.
pub(crate) struct SimStore {
    pub(crate) memory: MemoryStore,
    me: Pnn,
    mutation: Option<Mutation>,
    /// A record has changed since the checkers looked last.
    pub(crate) changed: bool,
    /// Records whose change is held back ([`Mutation::DmasterStoredLate`]).
    pub(crate) late: Vec<(Vec<u8>, RecordHeader, Vec<u8>)>,
}

impl SimStore {
    pub(crate) fn new(me: Pnn, mutation: Option<Mutation>) -> Self {
        Self { memory: MemoryStore::new(), me, mutation, changed: false, late: Vec::new() }
    }
}

impl RecordStore for SimStore {
    fn try_lock(&mut self, db: DbId, key: &[u8]) -> LockOutcome {
        let outcome = self.memory.try_lock(db, key);
        if outcome == LockOutcome::Busy && self.mutation == Some(Mutation::ChainLockNotTaken) {
            self.memory.let_go(db, key);
            return self.memory.try_lock(db, key);
        }
        outcome
    }

    fn unlock(&mut self, db: DbId, key: &[u8]) {
        self.memory.unlock(db, key);
    }

    fn fetch(
        &mut self,
        db: DbId,
        key: &[u8],
        value: &mut Vec<u8>,
    ) -> Result<Option<RecordHeader>, FetchError> {
        self.memory.fetch(db, key, value)
    }

    fn store(
        &mut self,
        db: DbId,
        key: &[u8],
        mut header: RecordHeader,
        value: &[u8],
    ) -> Result<(), FetchError> {
        self.changed = true;
        match self.mutation {
            Some(Mutation::RsnNotRaised) => header.rsn = Rsn(header.rsn.0.min(2)),
            Some(Mutation::DmasterStoredLate) => {
                let mine = self.memory.get(db, key).is_some_and(|old| old.0.dmaster.is(self.me));
                if mine && !header.dmaster.is(self.me) {
                    self.late.push((key.to_vec(), header, value.to_vec()));
                    return Ok(());
                }
            }
            _ => {}
        }
        self.memory.store(db, key, header, value)
    }

    fn delete(&mut self, db: DbId, key: &[u8]) -> Result<(), FetchError> {
        self.changed = true;
        self.memory.delete(db, key)
    }
}
