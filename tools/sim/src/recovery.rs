//! Recovery as C does it: the nodes' part is production code (their planes answer the controls of a
//! recovery), the leader is a model that goes through the phases.
//!
//! Model: the recovery mode and the new map reach every node, then the freeze (which waits for
//! clients that hold a chain); then, in one moment, collect, merge (production code) and commit; then
//! the thaw, then the end. A cut-off node is stopped, as one that has lost its quorum is, and its
//! records are used no more. What C does not guard against (a leader that dies between the commits of
//! two nodes) is not simulated.
//! Origin: `docs/spec/cluster-semantics.md` 7.

use std::collections::BTreeSet;

use ringmaster_control::node::{Outcome, controls, recd::merge::MergeSet, world::DataAsk};
use ringmaster_protocol::{
    DbId, Generation, Srvid,
    control::ControlRequest,
    database::{PullDb, TransDb, VnnMap},
    process::RecMode,
    record::{RecBuffer, RecBufferBuilder, RecordFlags},
    wire::Decode,
};

use crate::{
    mutation::Mutation,
    node::{Copies, DB, pnn},
    sim::{Event, Sim},
};

/// Where pushed records come in.
const PUSH: Srvid = Srvid(0xF801_0000_0000_0000);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Start,
    /// SETVNNMAP and SET_RECMODE ACTIVE.
    Map(usize),
    Freeze(usize),
    /// All are frozen.
    Collect,
    Thaw(usize),
    /// SET_RECMODE NORMAL and END_RECOVERY.
    End(usize),
}

impl Step {
    pub(crate) const fn node(self) -> Option<usize> {
        match self {
            Self::Map(node) | Self::Freeze(node) | Self::Thaw(node) | Self::End(node) => Some(node),
            Self::Start | Self::Collect => None,
        }
    }
}

/// A recovery that is wanted or under way.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    attempt: u64,
    generation: Generation,
    members: Vec<usize>,
    phase: Phase,
    /// Nodes that the phase has not reached.
    left: BTreeSet<usize>,
    /// Controls that nodes have not answered.
    unanswered: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Wanted,
    Map,
    Freeze,
    Collect,
    Thaw,
    End,
}

impl Sim {
    /// Starts a recovery soon. One under way fails and starts again.
    pub fn want_recovery(&mut self, reason: &str) {
        if self.recovery.as_ref().is_some_and(|known| known.phase == Phase::Wanted) {
            return; // one is about to start
        }
        self.note(|| format!("recovery wanted: {reason}"));
        self.attempts += 1;
        let attempt = self.attempts;
        self.recovery = Some(Recovery {
            attempt,
            generation: Generation::INVALID,
            members: Vec::new(),
            phase: Phase::Wanted,
            left: BTreeSet::new(),
            unanswered: 0,
        });
        let delay = self.random.range(1_000, 200_000);
        self.after(delay, Event::Recovery { attempt, step: Step::Start });
    }

    pub(crate) fn recovery_step(&mut self, attempt: u64, step: Step) {
        if self.recovery.as_ref().is_none_or(|known| known.attempt != attempt) {
            return;
        }
        match step {
            Step::Start => self.begin_recovery(),
            Step::Map(node) => self.enter(node),
            Step::Freeze(node) => self.order_of_recovery(node, &ControlRequest::DbFreeze(DB)),
            Step::Collect => self.collect(),
            Step::Thaw(node) => self.order_of_recovery(node, &ControlRequest::DbThaw(DB)),
            Step::End(node) => {
                self.order_of_recovery(node, &ControlRequest::SetRecMode(RecMode::Normal));
                self.order_of_recovery(node, &ControlRequest::EndRecovery);
            }
        }
        if let Some(node) = step.node()
            && let Some(recovery) = &mut self.recovery
            && recovery.attempt == attempt
        {
            recovery.left.remove(&node);
        }
        self.next_phase(attempt);
    }

    fn order_of_recovery(&mut self, node: usize, control: &ControlRequest<'_>) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.unanswered += 1;
        let attempt = recovery.attempt;
        self.order(node, attempt, control);
    }

    pub(crate) fn recovery_answered(&mut self, attempt: u64, node: usize, status: i32) {
        let Some(recovery) = &mut self.recovery else { return };
        if recovery.attempt != attempt {
            return;
        }
        recovery.unanswered -= 1;
        let phase = recovery.phase;
        if status != 0 {
            self.note(|| format!("node {node} fails the recovery in phase {phase:?}: {status}"));
            recovery_failed(self);
        } else if phase != Phase::Collect {
            self.next_phase(attempt);
        }
    }

    /// Goes on when a phase has reached all nodes and all have answered.
    fn next_phase(&mut self, attempt: u64) {
        let Some(recovery) = &self.recovery else { return };
        let reached = recovery.left.is_empty() && recovery.unanswered == 0;
        if recovery.attempt != attempt || !reached {
            return;
        }
        match recovery.phase {
            Phase::Wanted | Phase::Collect => {}
            Phase::Map => self.phase(Phase::Freeze, Step::Freeze),
            Phase::Freeze => {
                if let Some(recovery) = &mut self.recovery {
                    recovery.phase = Phase::Collect;
                }
                self.after(300, Event::Recovery { attempt, step: Step::Collect });
            }
            Phase::Thaw => self.phase(Phase::End, Step::End),
            Phase::End => {
                self.note(|| "recovered".to_owned());
                self.recovery = None;
                self.summary.recoveries += 1;
            }
        }
    }

    fn phase(&mut self, phase: Phase, step: fn(usize) -> Step) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.phase = phase;
        let attempt = recovery.attempt;
        let members = recovery.members.clone();
        recovery.left = members.iter().copied().collect();
        for node in members {
            let delay = self.random.range(20, 4_000);
            self.after(delay, Event::Recovery { attempt, step: step(node) });
        }
    }

    fn begin_recovery(&mut self) {
        self.forget_waits();
        self.generations += 1;
        let nodes = &self.nodes;
        let members: Vec<usize> =
            (0..nodes.len()).filter(|node| nodes[*node].alive && !nodes[*node].cut).collect();
        if members.is_empty() {
            self.recovery = None; // the node that comes back wants one
            return;
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.generation = Generation(self.generations);
            recovery.members.clone_from(&members);
        }
        self.note(|| format!("recovery of {members:?}"));
        self.phase(Phase::Map, Step::Map);
    }

    fn enter(&mut self, node: usize) {
        let Some(recovery) = self.recovery.clone() else { return };
        let map = recovery.members.iter().copied().map(pnn).collect();
        self.order_of_recovery(node, &ControlRequest::SetRecMode(RecMode::Active));
        let map = VnnMap { generation: recovery.generation, map };
        self.order_of_recovery(node, &ControlRequest::SetVnnMap(map));
    }

    fn collect(&mut self) {
        let Some(recovery) = self.recovery.clone() else { return };
        let merged = self.merge(&recovery.members);
        self.check_merged(&recovery.members, &merged);
        for node in &recovery.members {
            self.push(*node, DB, &recovery, &merged);
        }
        self.forget_waits();
        self.phase(Phase::Thaw, Step::Thaw);
    }

    /// As a leader merges.
    fn merge(&self, members: &[usize]) -> Copies {
        let mut set = MergeSet::new(DB, pnn(members[0]));
        for node in members.iter().filter(|node| !self.nodes[**node].is_invalid()) {
            let mut batch = RecBufferBuilder::new(DB);
            for (key, mut header, value) in self.nodes[*node].store.memory.records(DB) {
                if self.is(Mutation::RecoveryIgnoresRsn) {
                    header.rsn = ringmaster_protocol::Rsn(7);
                }
                batch.push_with_header(0, key, &header, value);
            }
            set.add(batch.as_bytes()).expect("our own batch");
        }
        let mut merged = Copies::new();
        while let Some(batch) = set.next_batch(usize::MAX, false) {
            let batch = RecBuffer::from_bytes(batch.as_bytes()).expect("our own batch").iter();
            merged.extend(batch.filter_map(|record| {
                let (header, value) = record.split_header()?;
                Some((record.key.to_vec(), (header, value.to_vec())))
            }));
        }
        merged
    }

    /// Nothing is lost that a surviving node had; what died with its node goes back in time.
    fn check_merged(&mut self, members: &[usize], merged: &Copies) {
        let usable: Vec<usize> =
            members.iter().copied().filter(|node| !self.nodes[*node].is_invalid()).collect();
        for key in 0..self.keys.len() {
            let value = merged.get(&self.keys[key]).map_or(&[][..], |(_, value)| value);
            let truth = self.truths[key].value().to_vec();
            if value == truth {
                self.summary.checks += 1;
                continue;
            }
            let (name, value) = (self.keys[key].clone(), value.to_vec());
            let found = usable.iter().any(|node| {
                let record = self.nodes[*node].store.memory.get(DB, &name);
                !truth.is_empty() && record.is_some_and(|(_, known)| known == truth)
            });
            let writer_lives = self.truths[key].writer.is_some_and(|(node, life)| {
                usable.contains(&node) && self.nodes[node].life == life
            });
            self.check(!found && !writer_lives, || {
                format!("a recovery makes key {key} {value:?}, but {truth:?} was there")
            });
            let now = self.now;
            let known = self.truths[key].roll_back(now, &value);
            self.check(known, || format!("a recovery invents {value:?} for key {key}"));
            self.note(|| format!("key {key} goes back to {value:?}: its node is lost"));
        }
    }

    /// What a leader sends to one node: all of it is answered at once.
    fn push(&mut self, node: usize, db: DbId, recovery: &Recovery, merged: &Copies) {
        let tid = recovery.generation;
        let mut batch = RecBufferBuilder::new(db);
        for (key, (header, value)) in merged {
            batch.push_with_header(0, key, header, value);
        }
        self.order_of_recovery(node, &ControlRequest::DbTransactionStart(TransDb { db, tid }));
        self.order_of_recovery(node, &ControlRequest::WipeDatabase(TransDb { db, tid }));
        let start = PullDb { db, lmaster: PullDb::LMASTER_ANY, srvid: PUSH };
        self.order_of_recovery(node, &ControlRequest::DbPushStart(start));
        if batch.count() > 0 {
            self.event(node, |cx| controls::message(cx, PUSH, batch.into_bytes()));
        }
        self.order_of_recovery(node, &ControlRequest::DbPushConfirm(db));
        self.order_of_recovery(node, &ControlRequest::DbTransactionCommit(TransDb { db, tid }));
    }

    /// What a recovery has a node's worker do.
    pub(crate) fn recovery_job(&mut self, node: usize, ask: DataAsk) -> Outcome {
        let known = &mut self.nodes[node];
        match ask {
            DataAsk::TransactionStart(db) | DataAsk::Wipe(db) => {
                known.staged.insert(db, Copies::new());
            }
            DataAsk::TransactionCancel(db) => {
                known.staged.remove(&db);
            }
            DataAsk::Push { db, buffer } => {
                let (Ok(buffer), Some(staged)) =
                    (RecBuffer::from_bytes(&buffer), known.staged.get_mut(&db))
                else {
                    return Outcome::Failed("no transaction".to_owned());
                };
                for record in &buffer {
                    let Some((mut header, value)) = record.split_header() else { continue };
                    header.flags = header.flags.without(RecordFlags::RO_ALL);
                    // The store rule: who is dmaster raises the rsn. Only the leader is.
                    if header.dmaster.is(pnn(node)) {
                        header.rsn = header.rsn.advanced(1).expect("far from the last rsn");
                    }
                    staged.insert(record.key.to_vec(), (header, value.to_vec()));
                }
                return Outcome::Count(buffer.count());
            }
            DataAsk::TransactionCommit(db) => {
                let Some(staged) = known.staged.remove(&db) else {
                    return Outcome::Failed("no transaction".to_owned());
                };
                known.store.memory.wipe(db);
                for (key, (header, value)) in staged {
                    known.store.memory.put(db, &key, header, &value);
                }
                known.store.changed = true;
            }
            DataAsk::MergeFreeBlocks(..) => return Outcome::Count(0),
            _ => {}
        }
        Outcome::Done
    }
}

fn recovery_failed(sim: &mut Sim) {
    sim.recovery = None;
    sim.want_recovery("one has failed");
}
