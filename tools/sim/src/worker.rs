//! The database workers: one order after the other, each a while after the one before.
//!
//! Role: the model of the daemon's worker threads, on records in memory. What is decided about a
//! record in vacuuming is production code.

use std::collections::VecDeque;

use ringmaster_control::{
    node::{
        Outcome,
        world::{DataAsk, VacuumStep},
    },
    plane::Token,
};
use ringmaster_dataplane::record::vacuum::{self, Known, Tombstone, lmaster_of};
use ringmaster_protocol::{
    Pnn,
    record::{RecBuffer, RecBufferBuilder, RecData, RecordFlags},
    wire::Decode,
};

use crate::{
    mutation::Mutation,
    node::{DB, pnn},
    sim::{Event, Sim},
};

/// Records that one step of a vacuum round decides about: few, so that rounds have steps.
const STEP_RECORDS: usize = 2;

/// A vacuum round under way.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    keys: VecDeque<Tombstone>,
}

impl Sim {
    /// Gives an order to a node's worker. What a recovery orders is done at once: everything is
    /// frozen then.
    pub(crate) fn job(&mut self, node: usize, token: Token, ask: DataAsk) {
        let at_once = matches!(
            ask,
            DataAsk::TransactionStart(_)
                | DataAsk::TransactionCancel(_)
                | DataAsk::TransactionCommit(_)
                | DataAsk::Wipe(_)
                | DataAsk::Push { .. }
                | DataAsk::Thaw(..)
        );
        if at_once && self.nodes[node].jobs.is_empty() {
            let outcome = self.carry_out_job(node, ask);
            return self.outcome(node, token, outcome);
        }
        let ask = match ask {
            DataAsk::VacuumBegin { db, full } => {
                let scheduled = self.nodes[node].engine.take_delete_queue(db);
                self.nodes[node].scheduled = scheduled;
                DataAsk::VacuumBegin { db, full }
            }
            other => other,
        };
        self.nodes[node].jobs.push_back((token, ask));
        self.work_soon(node);
    }

    fn work_soon(&mut self, node: usize) {
        if !self.nodes[node].working && !self.nodes[node].jobs.is_empty() {
            self.nodes[node].working = true;
            let life = self.nodes[node].life;
            let delay = self.random.range(20, 1_500);
            self.after(delay, Event::Work { node, life });
        }
    }

    pub(crate) fn work(&mut self, node: usize) {
        self.nodes[node].working = false;
        let Some((token, ask)) = self.nodes[node].jobs.pop_front() else { return };
        if self.must_wait(node, &ask) {
            self.nodes[node].jobs.push_front((token, ask));
            return self.work_soon(node);
        }
        let outcome = self.carry_out_job(node, ask);
        self.work_soon(node);
        self.outcome(node, token, outcome);
    }

    /// Somebody holds a chain that the job wants.
    fn must_wait(&self, node: usize, ask: &DataAsk) -> bool {
        match ask {
            DataAsk::Freeze(_) => {
                self.actors.iter().any(|actor| actor.node == node && actor.holds())
            }
            DataAsk::UpdateCopies { buffer, .. } => RecBuffer::from_bytes(buffer)
                .is_ok_and(|buffer| buffer.iter().any(|record| self.is_held(node, record.key))),
            _ => false,
        }
    }

    fn carry_out_job(&mut self, node: usize, ask: DataAsk) -> Outcome {
        match ask {
            DataAsk::Freeze(_) => {
                self.nodes[node].round = None;
                Outcome::Done
            }
            DataAsk::Thaw(db, generation) => {
                self.nodes[node].staged.clear();
                self.thaw(node, db, generation);
                Outcome::Done
            }
            DataAsk::VacuumBegin { full, .. } => self.vacuum_begin(node, full),
            DataAsk::VacuumStep(_) => self.vacuum_step(node),
            DataAsk::VacuumDelete { buffer, .. } => self.vacuum_delete(node, &buffer),
            DataAsk::TryDelete { buffer, .. } => self.try_delete(node, &buffer),
            DataAsk::UpdateCopies { buffer, .. } => self.update_by_worker(node, &buffer),
            other => self.recovery_job(node, other),
        }
    }

    fn may_vacuum(&self, node: usize) -> bool {
        !self.nodes[node].frozen
    }

    fn vacuum_begin(&mut self, node: usize, full: bool) -> Outcome {
        let mut keys: VecDeque<_> = std::mem::take(&mut self.nodes[node].scheduled).into();
        if !self.may_vacuum(node) {
            return Outcome::Failed("frozen".to_owned());
        }
        if full {
            let records = self.nodes[node].store.memory.records(DB);
            let candidates = records.filter(|(_, header, value)| {
                vacuum::is_candidate(Known { header: *header, empty: value.is_empty() }, pnn(node))
            });
            keys.extend(candidates.map(|(key, header, _)| Tombstone {
                key: key.into(),
                header,
                came_from: None,
            }));
        }
        self.nodes[node].round = Some(Round { keys });
        Outcome::Done
    }

    /// The record under its lock, or `None` if that is busy.
    fn look_at(&mut self, node: usize, key: &[u8]) -> Option<Option<Known>> {
        if !self.nodes[node].store.memory.hold(DB, key) {
            return None;
        }
        self.let_go(node, key);
        let found = self.nodes[node].store.memory.get(DB, key);
        Some(found.map(|(header, value)| Known { header, empty: value.is_empty() }))
    }

    fn map(&self, node: usize) -> Vec<Pnn> {
        self.nodes[node].plane.cx().state().vnn_map.map.clone()
    }

    fn vacuum_step(&mut self, node: usize) -> Outcome {
        let round = if self.may_vacuum(node) { self.nodes[node].round.take() } else { None };
        let Some(mut round) = round else { return Outcome::Failed("no round".to_owned()) };
        let map = self.map(node);
        let mut step = VacuumStep::default();
        for _ in 0..STEP_RECORDS {
            let Some(tombstone) = round.keys.pop_front() else { break };
            let Tombstone { key, header: queued, came_from } = tombstone;
            let Some(known) = self.look_at(node, &key) else { continue };
            let lmaster = lmaster_of(&map, &key, pnn(node));
            let mut verdict = vacuum::scheduled(known, queued, pnn(node), lmaster);
            if verdict == vacuum::Scheduled::Ask && self.is(Mutation::TombstoneDroppedEarly) {
                verdict = vacuum::Scheduled::Delete;
            }
            match verdict {
                vacuum::Scheduled::Leave => {}
                vacuum::Scheduled::Delete => {
                    step.deleted += 1;
                    self.vacuumed(node, &key);
                }
                vacuum::Scheduled::Fetch => {
                    let mut list = RecBufferBuilder::new(DB);
                    list.push(&RecData { reqid: 0, key: &key, data: b"" });
                    step.fetch.push((lmaster, list.into_bytes()));
                }
                vacuum::Scheduled::Ask => {
                    let mut list = RecBufferBuilder::new(DB);
                    list.push_with_header(0, &key, &queued, b"");
                    step.delete.push((came_from, list.into_bytes()));
                }
            }
        }
        step.more = !round.keys.is_empty();
        self.nodes[node].round = step.more.then_some(round);
        Outcome::Vacuumed(step)
    }

    fn vacuumed(&mut self, node: usize, key: &[u8]) {
        self.note(|| format!("{node} vacuums {key:?}"));
        self.summary.vacuumed += 1;
        self.remove(node, key);
    }

    fn remove(&mut self, node: usize, key: &[u8]) {
        self.nodes[node].store.memory.remove(DB, key);
        self.nodes[node].store.changed = true;
    }

    fn vacuum_delete(&mut self, node: usize, buffer: &[u8]) -> Outcome {
        let (Ok(buffer), true) = (RecBuffer::from_bytes(buffer), self.may_vacuum(node)) else {
            return Outcome::Failed("frozen".to_owned());
        };
        let map = self.map(node);
        let mut deleted = 0;
        for record in &buffer {
            let Some((queued, _)) = record.split_header() else { continue };
            let Some(known) = self.look_at(node, record.key) else { continue };
            let lmaster = lmaster_of(&map, record.key, pnn(node));
            if vacuum::may_delete(known, queued, pnn(node), lmaster)
                || (self.is(Mutation::TombstoneNotLookedAtAgain) && known.is_some())
            {
                self.vacuumed(node, record.key);
                deleted += 1;
            }
        }
        Outcome::Count(deleted)
    }

    fn try_delete(&mut self, node: usize, buffer: &[u8]) -> Outcome {
        let (Ok(buffer), true) = (RecBuffer::from_bytes(buffer), self.may_vacuum(node)) else {
            return Outcome::Failed("frozen".to_owned());
        };
        let map = self.map(node);
        let mut kept = RecBufferBuilder::new(DB);
        for record in &buffer {
            let Some((asked, _)) = record.split_header() else { continue };
            let lmaster = lmaster_of(&map, record.key, pnn(node));
            let known = self.look_at(node, record.key);
            let may = known.is_some_and(|known| {
                let header = known.map(|known| known.header);
                vacuum::may_delete_copy(header, asked, pnn(node), lmaster)
            });
            self.note(|| format!("{node} TRY_DELETE {:?} {asked:?}: {may}", record.key));
            if may {
                self.remove(node, record.key);
            } else {
                kept.push(&record);
            }
        }
        Outcome::Bytes(kept.into_bytes())
    }

    /// [`Mutation::UpdateOvertakesCopy`]: the worker writes the record, whatever waits for its
    /// chain. [`Mutation::LateControlObeyed`]: as in C, whatever it meets.
    fn update_by_worker(&mut self, node: usize, buffer: &[u8]) -> Outcome {
        let Ok(buffer) = RecBuffer::from_bytes(buffer) else {
            return Outcome::Failed("malformed".to_owned());
        };
        for record in &buffer {
            let Some((header, data)) = record.split_header() else { continue };
            let store = &mut self.nodes[node].store;
            let Some((known, value)) = store.memory.get(DB, record.key) else { continue };
            let copy = known.flags.intersects(RecordFlags::RO_HAVE_READONLY);
            if !copy && self.options.mutation != Some(Mutation::LateControlObeyed) {
                continue;
            }
            if known.rsn >= header.rsn && value != data {
                return Outcome::Failed("too old".to_owned());
            }
            store.memory.put(DB, record.key, header, data);
            store.changed = true;
        }
        Outcome::Done
    }
}
