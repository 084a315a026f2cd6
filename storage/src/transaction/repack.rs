//! Storing all records anew, so that the free space lies in one piece.
//!
//! Role: what libtdb does after a commit that made the file grow although there was space, only
//! scattered. Not for a live volatile database: it rewrites everything inside one transaction.
//!
//! Origin: `docs/spec/tdb-format.md` 6.7, 7.2; lib/tdb/common/tdb.c: `tdb_repack`.

use crate::backend::memory::MemoryStore;
use crate::chain::StoreMode;
use crate::engine::{AccessError, CycleGuard, Engine, Policy};
use crate::format::{FREELIST_TOP, HashKind, Header, Layout};
use crate::lock::{Locks, NoLocks};
use crate::store::Store;

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// `true` if more than half of the free space lies outside the largest free block: libtdb then
    /// repacks after a commit that made the file grow.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn repack_is_worthwhile(&self) -> Result<bool, AccessError> {
        let (mut total, mut largest) = (0_u64, 0);
        let mut circle = CycleGuard::new();
        let mut offset = self.store.read_u32(FREELIST_TOP)?;
        while offset != 0 {
            let record = self.read_free(offset)?;
            total += u64::from(record.rec_len);
            largest = largest.max(record.rec_len);
            circle.check(offset)?;
            offset = record.next;
        }
        Ok(total > u64::from(largest) * 2)
    }

    /// Copies all records to memory, empties the database and stores them again; returns their
    /// number. To be run on a transaction's view.
    ///
    /// # Errors
    /// [`AccessError`]; half-way through, records are missing: cancel the transaction.
    pub fn repack(&mut self) -> Result<u64, AccessError> {
        // The order of libtdb: that of a database in memory, hashed the new way.
        let layout = Layout { hash: HashKind::Jenkins, ..self.layout };
        let mut image = Header::new(layout.hash_size, layout.hash, 0).encode().to_vec();
        image.resize(layout.data_start() as usize, 0);
        let (store, mut locks) = (MemoryStore::new(image), NoLocks::default());
        let mut copy =
            Engine { store: &store, locks: &mut locks, layout, policy: Policy::default() };
        self.copy_records_into(&mut copy)?;
        self.wipe()?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut stored = 0;
        for chain in 0..layout.hash_size {
            let mut failed = None;
            copy.visit_chain(chain, &mut key, &mut value, |key, value| {
                let hash = self.layout.hash.hash(key);
                match self.store(key, hash, &[value], StoreMode::Insert) {
                    Ok(_) => stored += 1,
                    Err(error) => failed = Some(error),
                }
                failed.is_none()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(stored)
    }
}
