//! Vacuum rounds on this node's file: what empty records may go, and their going.
//!
//! Role: carries out the steps of a round, in the database's own thread. What is decided about a
//! record: `ringmaster_dataplane::record::vacuum`. When rounds run and whom they ask: the control
//! plane.
//! Invariants
//! - One chain is locked at a time, for one record, and never waited for: what is busy is left to a
//!   later full round.
//! - A step is bounded, so that a freeze never waits for more than one; it ends the round.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.3-3.5; `ctdb/server/ctdb_vacuum.c`.

use std::collections::{BTreeMap, VecDeque};

use ringmaster_control::node::world::VacuumStep;
use ringmaster_dataplane::record::vacuum::{self, Known, lmaster_of};
use ringmaster_protocol::{
    Decode, Pnn,
    record::{RECORD_HEADER_LEN, RecBuffer, RecBufferBuilder, RecData, RecordHeader},
};
use ringmaster_storage::{engine::AccessError, handle::Locked, lock::LockKind};

use super::{Bench, Tombstone};

/// Records that one step decides about.
const STEP_RECORDS: usize = 1_000;

/// Chains that one step of a full round looks at; most are empty and cost one word each.
const STEP_CHAINS: u32 = 2_000;

/// Entries of the freelist that are looked at under one hold of its lock.
const MERGE_STEP: u32 = 256;

/// Entries at the start of the freelist that one round looks at. What has been freed last is there;
/// to look further would keep others from the freelist for too long.
const MERGE_MAX: u32 = 16_384;

/// A round under way.
#[derive(Debug, Default)]
pub(super) struct Round {
    keys: VecDeque<Tombstone>,
    /// A full round: the next chain to look at.
    next_chain: Option<u32>,
}

fn failed(error: AccessError) -> String {
    format!("cannot vacuum: {error}")
}

/// The record under its lock, as vacuuming sees it.
fn look(locked: &mut Locked<'_>, key: &[u8]) -> Result<Option<Known>, AccessError> {
    let mut value = Vec::new();
    let found = locked.fetch_record(key, &mut value)?;
    Ok(found.map(|found| Known { header: found.header, empty: found.data.is_empty() }))
}

impl Bench {
    fn may_vacuum(&self) -> Result<(), String> {
        if self.frozen || !self.facts.is_volatile() {
            return Err("a frozen or permanent database is not vacuumed".into());
        }
        Ok(())
    }

    /// Starts a round; one that is under way is given up.
    pub(super) fn vacuum_begin(&mut self, keys: Vec<Tombstone>, full: bool) -> Result<(), String> {
        self.may_vacuum()?;
        self.round = Some(Round { keys: keys.into(), next_chain: full.then_some(0) });
        Ok(())
    }

    /// Goes on with a round.
    pub(super) fn vacuum_step(&mut self) -> Result<VacuumStep, String> {
        self.may_vacuum()?;
        let mut round = self.round.take().ok_or("no round is under way")?;
        if round.keys.is_empty() {
            self.find_empty(&mut round)?;
        }
        let mut fetch: BTreeMap<Pnn, RecBufferBuilder> = BTreeMap::new();
        let mut delete: BTreeMap<Option<Pnn>, RecBufferBuilder> = BTreeMap::new();
        let mut deleted = 0;
        for _ in 0..STEP_RECORDS {
            let Some(tombstone) = round.keys.pop_front() else { break };
            let Tombstone { key, header: queued, came_from } = tombstone;
            match self.scheduled(&key, queued)? {
                vacuum::Scheduled::Leave => {}
                vacuum::Scheduled::Delete => deleted += 1,
                vacuum::Scheduled::Fetch => {
                    let lmaster = lmaster_of(&self.facts.lmasters, &key, self.facts.pnn);
                    let reqid = self.facts.pnn.get();
                    let list = fetch.entry(lmaster);
                    let list = list.or_insert_with(|| RecBufferBuilder::new(self.facts.id));
                    list.push(&RecData { reqid, key: &key, data: b"" });
                }
                vacuum::Scheduled::Ask => {
                    let list = delete.entry(came_from);
                    let list = list.or_insert_with(|| RecBufferBuilder::new(self.facts.id));
                    list.push_with_header(self.facts.id.0, &key, &queued, b"");
                }
            }
        }
        let more = !round.keys.is_empty() || round.next_chain.is_some();
        self.round = more.then_some(round);
        let fetch = fetch.into_iter().map(|(to, list)| (to, list.into_bytes())).collect();
        let delete = delete.into_iter().map(|(last, list)| (last, list.into_bytes())).collect();
        Ok(VacuumStep { fetch, delete, deleted, more })
    }

    /// Empty records of the next chains of a full round.
    fn find_empty(&mut self, round: &mut Round) -> Result<(), String> {
        let Some(first) = round.next_chain else { return Ok(()) };
        let last = self.handle.database().layout().hash_size;
        let end = last.min(first.saturating_add(STEP_CHAINS));
        let pnn = self.facts.pnn;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for chain in first..end {
            let empty = self.handle.database().chain_is_empty(chain);
            if empty.map_err(|error| format!("cannot vacuum: {error}"))? {
                continue;
            }
            let locked = self.handle.try_lock_chain(chain, LockKind::Read).map_err(failed)?;
            let Some(mut locked) = locked else { continue };
            let visited = locked.for_each(&mut key, &mut value, |key, value| {
                if let Some((header, data)) = RecordHeader::split(value)
                    && vacuum::is_candidate(Known { header, empty: data.is_empty() }, pnn)
                {
                    let key = key.into();
                    round.keys.push_back(Tombstone { key, header, came_from: None });
                }
                true
            });
            visited.and_then(|()| locked.unlock()).map_err(failed)?;
        }
        round.next_chain = (end < last).then_some(end);
        Ok(())
    }

    /// Decides about a scheduled record, and deletes one that nobody has to be asked about.
    fn scheduled(&mut self, key: &[u8], queued: RecordHeader) -> Result<vacuum::Scheduled, String> {
        let (pnn, lmaster) = (self.facts.pnn, self.lmaster(key));
        self.on_chain(key, |locked| {
            let found = vacuum::scheduled(look(locked, key)?, queued, pnn, lmaster);
            if found == vacuum::Scheduled::Delete {
                locked.delete(key)?;
            }
            Ok(found)
        })
        .map(|found| found.unwrap_or(vacuum::Scheduled::Leave))
    }

    fn lmaster(&self, key: &[u8]) -> Pnn {
        lmaster_of(&self.facts.lmasters, key, self.facts.pnn)
    }

    /// Everybody has deleted its copies of these: deletes what has not changed since. How many.
    pub(super) fn vacuum_delete(&mut self, buffer: &[u8]) -> Result<u32, String> {
        self.may_vacuum()?;
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed list: {error}"))?;
        let mut deleted = 0;
        for record in &buffer {
            let Some((queued, _)) = record.split_header() else { continue };
            let (pnn, lmaster) = (self.facts.pnn, self.lmaster(record.key));
            let gone = self.on_chain(record.key, |locked| {
                let known = look(locked, record.key)?;
                let may = vacuum::may_delete(known, queued, pnn, lmaster);
                Ok(may && locked.delete(record.key)?)
            })?;
            deleted += u32::from(gone.unwrap_or(false));
        }
        Ok(deleted)
    }

    /// Deletes the copies that may go; returns a buffer of those that may not.
    pub(super) fn try_delete(&mut self, buffer: &[u8]) -> Result<Vec<u8>, String> {
        self.may_vacuum()?;
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed list: {error}"))?;
        let mut kept = RecBufferBuilder::new(buffer.db());
        for record in &buffer {
            if record.data.len() < RECORD_HEADER_LEN {
                return Err("a record to delete is shorter than its header".into());
            }
            if !self.delete_copy(&record)? {
                kept.push(&record);
            }
        }
        Ok(kept.into_bytes())
    }

    /// `false`: the record stays.
    fn delete_copy(&mut self, record: &RecData<'_>) -> Result<bool, String> {
        let Some((asked, b"")) = record.split_header() else { return Ok(false) };
        let (pnn, lmaster) = (self.facts.pnn, self.lmaster(record.key));
        let gone = self.on_chain(record.key, |locked| {
            let known = look(locked, record.key)?.map(|known| known.header);
            let may = vacuum::may_delete_copy(known, asked, pnn, lmaster);
            if may {
                // Deletes a record that is too short to be one, too.
                locked.delete(record.key)?;
            }
            Ok(may)
        })?;
        Ok(gone.unwrap_or(false))
    }

    /// Runs `work` under the key's chain lock; `None` if it is busy.
    fn on_chain<T>(
        &mut self,
        key: &[u8],
        work: impl FnOnce(&mut Locked<'_>) -> Result<T, AccessError>,
    ) -> Result<Option<T>, String> {
        let chain = self.handle.database().chain_of(key);
        let locked = self.handle.try_lock_chain(chain, LockKind::Write).map_err(failed)?;
        let Some(mut locked) = locked else { return Ok(None) };
        let done = work(&mut locked).map_err(failed)?;
        locked.unlock().map_err(failed)?;
        Ok(Some(done))
    }

    /// What C repacks the file for, at a length of the freelist that C repacks at: free blocks that
    /// lie side by side become one. How many have.
    pub(super) fn merge_free_blocks(&mut self, repack_limit: u32) -> Result<u32, String> {
        self.may_vacuum()?;
        let length = self.handle.try_freelist_len().map_err(failed)?;
        if repack_limit == 0 || length.is_none_or(|length| length < repack_limit) {
            return Ok(0);
        }
        let (mut from, mut merged) = (0, 0);
        while from < MERGE_MAX {
            let step = self.handle.try_merge_free_blocks(from, MERGE_STEP).map_err(failed)?;
            let Some(step) = step else { break }; // busy: the next round goes on
            merged += step.merged;
            match step.next {
                Some(next) => from = next,
                None => break,
            }
        }
        tracing::info!(db = %self.facts.id, ?length, merged, "merged free blocks");
        Ok(merged)
    }
}
