//! Records that wait for the freelist.
//!
//! Role: what the engine has stored and another process keeps out of the file, by chain, until it
//! can be written.
//! Invariants
//! - The chain of a deferred record stays locked: nobody sees the file without the record.
//! - Whoever works under that lock reads the deferred record, not the file's.
//! - The wait is a retry with a growing pause: the freelist is held for moments, and a process that
//!   was stopped while it held it must not cost us a busy loop.
//!
//! Origin: ours; C waits for the freelist in the daemon's only thread.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use ringmaster_storage::{
    chain::{StoreMode, Stored},
    engine::AccessError,
    handle::Handle,
};

use crate::shard::limits::{FREELIST_PAUSE_MAX, FREELIST_PAUSE_MIN};

/// Deferred records of one database.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    /// Chain, key, header and value.
    chains: BTreeMap<u32, BTreeMap<Box<[u8]>, Vec<u8>>>,
    /// Next try and the pause before the one after it.
    next: Option<(Instant, Duration)>,
}

impl Deferred {
    /// Keeps a record that could not be stored.
    pub(super) fn put(&mut self, chain: u32, key: &[u8], header: &[u8], value: &[u8]) {
        let record = [header, value].concat();
        self.chains.entry(chain).or_default().insert(key.into(), record);
        if self.next.is_none() {
            self.next = Some((Instant::now() + FREELIST_PAUSE_MIN, FREELIST_PAUSE_MIN));
        }
    }

    /// The file has a newer record, or none: the deferred one is void.
    pub(super) fn forget(&mut self, chain: u32, key: &[u8]) {
        if let Some(records) = self.chains.get_mut(&chain) {
            records.remove(key);
            if records.is_empty() {
                self.chains.remove(&chain);
            }
        }
    }

    /// Header and value of a record that is not in the file yet.
    pub(super) fn record(&self, chain: u32, key: &[u8]) -> Option<&[u8]> {
        // Nearly always empty, and this is the hot path.
        if self.chains.is_empty() {
            return None;
        }
        Some(self.chains.get(&chain)?.get(key)?)
    }

    /// Does the chain have to stay locked?
    pub(super) fn holds(&self, chain: u32) -> bool {
        !self.chains.is_empty() && self.chains.contains_key(&chain)
    }

    /// The time of the next try, while there is something to try.
    pub(super) fn next_try(&self) -> Option<Instant> {
        if self.chains.is_empty() { None } else { self.next.map(|(at, _)| at) }
    }

    /// Tries again, if it is time: returns the chains that may be unlocked, and what has made it
    /// impossible to go on.
    pub(super) fn try_again(
        &mut self,
        handle: &mut Handle,
        now: Instant,
    ) -> (Vec<u32>, Option<AccessError>) {
        let Some((_, pause)) = self.next.filter(|(at, _)| now >= *at) else {
            return (Vec::new(), None);
        };
        let pause = (pause * 2).min(FREELIST_PAUSE_MAX);
        self.next = Some((now + pause, pause));
        let mut failed = None;
        let mut unlocked = BTreeSet::new();
        self.chains.retain(|chain, records| {
            match write(handle, *chain, records) {
                Ok(true) => {}
                Ok(false) => return true,
                // The file is broken: a recovery rebuilds it from the other nodes' copies.
                Err(error) => failed = Some(error),
            }
            unlocked.insert(*chain);
            false
        });
        if self.chains.is_empty() {
            self.next = None;
        }
        (unlocked.into_iter().collect(), failed)
    }
}

/// Writes the records of a chain, which is locked; `false` while the freelist is busy.
fn write(
    handle: &mut Handle,
    chain: u32,
    records: &mut BTreeMap<Box<[u8]>, Vec<u8>>,
) -> Result<bool, AccessError> {
    while let Some((key, record)) = records.first_key_value() {
        let mut locked = handle.resume_chain(chain);
        let stored = locked.store(key, &[record], StoreMode::Replace);
        locked.keep();
        if stored? == Stored::Busy {
            return Ok(false);
        }
        records.pop_first();
    }
    Ok(true)
}
