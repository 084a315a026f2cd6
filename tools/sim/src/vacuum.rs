//! Vacuuming: empty records go for good, after every node has agreed.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.

use ringmaster_protocol::{
    Reqid,
    call::{CallFlags, CallId, ReqCall},
    record::{RecordFlags, RecordHeader},
};

use crate::{
    actor::VACUUM,
    mutation::Mutation,
    network::Message,
    node::{DB, Deletion, pnn},
    sim::{Event, Sim},
};

impl Sim {
    pub(crate) fn vacuum(&mut self, node: usize) {
        let delay = self.random.range(200_000, 2_000_000);
        self.after(delay, Event::Vacuum { node });
        let known = &mut self.nodes[node];
        if !known.alive || known.frozen || known.recovering {
            return;
        }
        for (key, queued) in known.engine.take_delete_queue(DB) {
            self.consider(node, &key, queued);
        }
    }

    /// The record as it must be to be deleted: only a header, here, and unchanged.
    fn is_tombstone(&self, node: usize, key: &[u8], queued: RecordHeader) -> bool {
        self.nodes[node].store.memory.get(DB, key).is_some_and(|(header, value)| {
            value.is_empty()
                && header.dmaster.is(pnn(node))
                && header.rsn == queued.rsn
                && !header.flags.intersects(RecordFlags::RO_ALL)
        })
    }

    fn consider(&mut self, node: usize, key: &[u8], queued: RecordHeader) {
        if !self.nodes[node].store.memory.hold(DB, key) {
            return; // busy: left to a later run
        }
        self.let_go(node, key);
        if !self.is_tombstone(node, key, queued) {
            return;
        }
        let Some(number) = self.keys.iter().position(|known| known == key) else { return };
        let lmaster = self.nodes[node].engine.lmaster(key);
        if lmaster != pnn(node) {
            return self.send(node, lmaster.get() as usize, Message::VacuumFetch { key: number });
        }
        // All nodes of this generation, the unreachable too: one that comes back before a recovery
        // brings its old copy with it. C asks only those it is connected to.
        let map = &self.nodes[node].engine.vnn_map().map;
        let others: Vec<usize> =
            map.iter().map(|of| of.get() as usize).filter(|other| *other != node).collect();
        let (near, far): (Vec<usize>, Vec<usize>) =
            others.into_iter().partition(|other| self.connected(node, *other));
        if !far.is_empty() && !self.is(Mutation::AbsentNotAsked) {
            return;
        }
        let others = near;
        let alone = others.is_empty() || !queued.flags.intersects(RecordFlags::MIGRATED_WITH_DATA);
        if alone || self.is(Mutation::TombstoneDroppedEarly) {
            return self.delete_tombstone(node, key, queued);
        }
        let first = others[0];
        self.nodes[node].deletions.insert(key.to_vec(), Deletion { header: queued, left: others });
        self.send(node, first, Message::TryDelete { key: number, header: queued });
    }

    fn delete_tombstone(&mut self, node: usize, key: &[u8], queued: RecordHeader) {
        if self.nodes[node].frozen || !self.nodes[node].store.memory.hold(DB, key) {
            return;
        }
        if self.is_tombstone(node, key, queued) {
            self.note(|| format!("{node} vacuums {key:?} {queued:?}"));
            self.summary.vacuumed += 1;
            self.remove(node, key);
        }
        self.let_go(node, key);
    }

    fn remove(&mut self, node: usize, key: &[u8]) {
        self.nodes[node].store.memory.remove(DB, key);
        self.nodes[node].store.changed = true;
    }

    pub(crate) fn vacuum_fetch(&mut self, node: usize, key: usize) {
        let name = self.keys[key].clone();
        let known = self.nodes[node].store.memory.get(DB, &name);
        if known.is_none_or(|(header, _)| header.dmaster.is(pnn(node))) {
            return;
        }
        let reqid = Reqid(u32::try_from(key).expect("few keys"));
        let flags = CallFlags::IMMEDIATE_MIGRATION | CallFlags::VACUUM_MIGRATION;
        let callid = CallId::NULL;
        let call = ReqCall { flags, db: DB, callid, hopcount: 0, key: &name, calldata: b"" };
        self.with(node, |engine, cx| engine.client_call(cx, VACUUM, reqid, &call));
    }

    pub(crate) fn vacuum_fetched(&mut self, node: usize, reqid: Reqid) {
        let name = self.keys[reqid.0 as usize].clone();
        let known = self.nodes[node].store.memory.get(DB, &name);
        if let Some((header, [])) = known {
            self.nodes[node].engine.schedule_for_deletion(DB, &name, header);
        }
    }

    pub(crate) fn try_delete(
        &mut self,
        from: usize,
        node: usize,
        key: usize,
        header: RecordHeader,
    ) {
        let name = self.keys[key].clone();
        let mut deleted = false;
        if !self.nodes[node].frozen && self.nodes[node].store.memory.hold(DB, &name) {
            let known = self.nodes[node].store.memory.get(DB, &name).map(|(known, _)| known);
            deleted = known.is_none_or(|known| {
                known.rsn <= header.rsn
                    && !known.flags.intersects(RecordFlags::RO_ALL)
                    && !known.dmaster.is(pnn(node))
            });
            if deleted {
                self.remove(node, &name);
            }
            self.let_go(node, &name);
        }
        self.note(|| format!("{node} TRY_DELETE key {key} {header:?}: {deleted}"));
        self.send(node, from, Message::TryDeleted { key, header, deleted });
    }

    pub(crate) fn try_deleted(
        &mut self,
        from: usize,
        node: usize,
        key: usize,
        header: RecordHeader,
        deleted: bool,
    ) {
        let name = self.keys[key].clone();
        let Some(deletion) = self.nodes[node].deletions.get_mut(&name) else { return };
        if deletion.header != header || deletion.left.first() != Some(&from) {
            return; // of an earlier round
        }
        deletion.left.remove(0);
        if !deleted {
            self.nodes[node].deletions.remove(&name);
        } else if let Some(next) = deletion.left.first().copied() {
            self.send(node, next, Message::TryDelete { key, header });
        } else {
            self.nodes[node].deletions.remove(&name);
            self.delete_tombstone(node, &name, header);
        }
    }
}
