//! A vacuum round of a cluster of one node: empty records leave the file.
//!
//! Role: decides and deletes, in the database's own thread. When rounds run: the control plane.
//! Invariants
//! - An empty record goes only if no other node may have a copy with data: this node is the only
//!   one in the vnn map, and dmaster.
//! - Everything is looked at again under the chain lock; a busy chain is left for a later full run.
//! - A full run gives way to whatever else is asked of this thread, above all to a freeze.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.3; `ctdb/server/ctdb_vacuum.c`.

use std::sync::atomic::Ordering;

use ringmaster_protocol::record::{RecordFlags, RecordHeader};
use ringmaster_storage::lock::LockKind;

use super::{Bench, Scheduled};

/// Empty records that one full run deletes; the others are left to the next.
const FOUND_MAX: usize = 100_000;

impl Bench {
    pub(super) fn vacuum(&mut self, mut keys: Vec<Scheduled>, full: bool) -> Result<(), String> {
        if self.frozen || !self.facts.is_volatile() {
            return Err("a frozen or permanent database is not vacuumed".into());
        }
        if *self.facts.lmasters != [self.facts.pnn] {
            return Err("other nodes may have copies of the records".into());
        }
        if full {
            self.find_empty(&mut keys)?;
        }
        let (seen, mut deleted) = (keys.len(), 0_usize);
        for (key, scheduled) in keys {
            deleted += usize::from(self.delete_empty(&key, scheduled)?);
        }
        if seen > 0 {
            let db = self.facts.id;
            tracing::debug!(%db, seen, deleted, full, "vacuumed");
        }
        Ok(())
    }

    fn find_empty(&mut self, found: &mut Vec<Scheduled>) -> Result<(), String> {
        let (pnn, queued) = (self.facts.pnn, &self.queued);
        self.handle
            .for_each(|key, value| {
                if let Some((header, [])) = RecordHeader::split(value)
                    && header.dmaster.is(pnn)
                {
                    found.push((key.into(), header));
                }
                found.len() < FOUND_MAX && queued.load(Ordering::Relaxed) == 0
            })
            .map(drop)
            .map_err(|error| format!("cannot look for empty records: {error}"))
    }

    /// Whether it has been deleted.
    fn delete_empty(&mut self, key: &[u8], scheduled: RecordHeader) -> Result<bool, String> {
        let pnn = self.facts.pnn;
        let failed = |error| format!("cannot delete an empty record: {error}");
        let chain = self.handle.database().chain_of(key);
        let locked = self.handle.try_lock_chain(chain, LockKind::Write).map_err(failed)?;
        let Some(mut locked) = locked else { return Ok(false) };
        let mut value = Vec::new();
        let known = locked.fetch_record(key, &mut value).map_err(failed)?;
        let goes = known.is_some_and(|known| {
            known.data.is_empty()
                && known.header.dmaster.is(pnn)
                && known.header.rsn == scheduled.rsn
                && !known.header.flags.intersects(RecordFlags::RO_ALL)
        });
        if goes {
            locked.delete(key).map_err(failed)?;
        }
        locked.unlock().map_err(failed)?;
        Ok(goes)
    }
}
