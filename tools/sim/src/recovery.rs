//! Recovery as C does it, in phases that reach the nodes at different times.
//!
//! Model: the new map reaches every node, then the freeze (which waits for clients that hold a
//! chain); then, in one moment, collect, merge and commit; then the thaw. A cut-off node freezes
//! itself too, as one that has lost its quorum does, and its records are used no more. What C does not
//! guard against (a leader that dies between the commits of two nodes) is not simulated.
//! Origin: `docs/spec/cluster-semantics.md` 7.

use std::collections::{BTreeMap, BTreeSet};

use ringmaster_protocol::{
    Generation,
    database::VnnMap,
    record::{Dmaster, RecordFlags, RecordHeader},
};

use crate::{
    actor::Actor,
    mutation::Mutation,
    node::{DB, pnn},
    sim::{Event, Sim},
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Start,
    /// SETVNNMAP and SET_RECMODE ACTIVE.
    Map(usize),
    Freeze(usize),
    /// Are all frozen?
    Collect,
    Thaw(usize),
}

impl Step {
    pub(crate) const fn node(self) -> Option<usize> {
        match self {
            Self::Map(node) | Self::Freeze(node) | Self::Thaw(node) => Some(node),
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
    /// Nodes that the phase has not reached.
    left: BTreeSet<usize>,
}

type Copies = BTreeMap<Vec<u8>, (RecordHeader, Vec<u8>)>;

impl Sim {
    /// Starts a recovery soon. One under way fails and starts again.
    pub fn want_recovery(&mut self, reason: &str) {
        if let Some(known) = &self.recovery
            && known.members.is_empty()
        {
            return; // one is about to start
        }
        self.note(|| format!("recovery wanted: {reason}"));
        self.attempts += 1;
        let attempt = self.attempts;
        let (generation, members, left) = (Generation::INVALID, Vec::new(), BTreeSet::new());
        self.recovery = Some(Recovery { attempt, generation, members, left });
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
            Step::Freeze(node) => self.freeze(node),
            Step::Collect => self.collect(),
            Step::Thaw(node) => self.thaw(node),
        }
    }

    fn phase(&mut self, nodes: &[usize], step: fn(usize) -> Step) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.left = nodes.iter().copied().collect();
        let attempt = recovery.attempt;
        for node in nodes {
            let delay = self.random.range(20, 4_000);
            self.after(delay, Event::Recovery { attempt, step: step(*node) });
        }
    }

    /// Notes that a phase has reached `node`; `true` when it was the last one.
    fn reached(&mut self, node: usize) -> bool {
        let Some(recovery) = &mut self.recovery else { return false };
        recovery.left.remove(&node);
        recovery.left.is_empty()
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].alive).collect()
    }

    fn begin_recovery(&mut self) {
        self.generations += 1;
        let alive = self.alive();
        let members: Vec<usize> =
            alive.iter().copied().filter(|node| !self.nodes[*node].cut).collect();
        if members.is_empty() {
            self.recovery = None; // the node that comes back wants one
            return;
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.generation = Generation(self.generations);
            recovery.members.clone_from(&members);
        }
        self.note(|| format!("recovery of {members:?}"));
        self.phase(&alive, Step::Map);
    }

    fn enter(&mut self, node: usize) {
        let Some(recovery) = &self.recovery else { return };
        let member = recovery.members.contains(&node);
        let generation = if member { recovery.generation } else { Generation::INVALID };
        let map = recovery.members.iter().copied().map(pnn).collect();
        self.nodes[node].recovering = true;
        self.nodes[node].deletions.clear();
        self.nodes[node].engine.set_vnn_map(VnnMap { generation, map });
        if self.reached(node) {
            let alive = self.alive();
            self.phase(&alive, Step::Freeze);
        }
    }

    fn freeze(&mut self, node: usize) {
        let member = self.recovery.as_ref().is_some_and(|known| known.members.contains(&node));
        let known = &mut self.nodes[node];
        known.frozen = true;
        known.invalid |= !member;
        known.store.memory.set_frozen(DB, true);
        let tickets: Vec<_> = known.waiting.drain(..).map(|(_, ticket)| ticket).collect();
        known.engine.waits_given_up(&tickets);
        if self.reached(node) {
            self.collect_soon();
        }
    }

    fn collect_soon(&mut self) {
        let Some(recovery) = &self.recovery else { return };
        let attempt = recovery.attempt;
        self.after(300, Event::Recovery { attempt, step: Step::Collect });
    }

    fn collect(&mut self) {
        if self.actors.iter().any(Actor::holds) {
            return self.collect_soon();
        }
        let Some(recovery) = self.recovery.clone() else { return };
        let merged = self.merge(&recovery.members);
        self.check_merged(&recovery.members, &merged);
        for node in &recovery.members {
            self.push(*node, &recovery, &merged);
        }
        self.phase(&recovery.members, Step::Thaw);
    }

    /// Highest rsn wins; on equal ones the first, unless that claims the leader as dmaster.
    fn merge(&self, members: &[usize]) -> Copies {
        let leader = pnn(members[0]);
        let mut merged = Copies::new();
        for node in members.iter().filter(|node| !self.nodes[**node].invalid) {
            for (key, header, value) in self.nodes[*node].store.memory.records(DB) {
                let keep = merged.get(key).is_some_and(|(old, _)| {
                    self.is(Mutation::RecoveryIgnoresRsn)
                        || header.rsn < old.rsn
                        || (header.rsn == old.rsn && !old.dmaster.is(leader))
                });
                if !keep {
                    merged.insert(key.to_vec(), (header, value.to_vec()));
                }
            }
        }
        merged.retain(|_, (_, value)| !value.is_empty());
        merged
    }

    /// Nothing is lost that a surviving node had; what died with its node goes back in time.
    fn check_merged(&mut self, members: &[usize], merged: &Copies) {
        let usable: Vec<usize> =
            members.iter().copied().filter(|node| !self.nodes[*node].invalid).collect();
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

    fn push(&mut self, node: usize, recovery: &Recovery, merged: &Copies) {
        let leader = recovery.members[0];
        let known = &mut self.nodes[node];
        known.store.memory.wipe(DB);
        for (key, (header, value)) in merged {
            let flags = header.flags.without(RecordFlags::RO_ALL) | RecordFlags::MIGRATED_WITH_DATA;
            let mut header = RecordHeader { dmaster: Dmaster::from(pnn(leader)), flags, ..*header };
            if node == leader {
                header.rsn = header.rsn.advanced(1).expect("far from the last rsn");
            }
            known.store.memory.put(DB, key, header, value);
        }
        known.store.changed = true;
        known.invalid = false;
        known.generation = recovery.generation;
        known.engine.replaced(DB);
        known.engine.set_generation(DB, recovery.generation);
        self.carry_out(node);
    }

    fn thaw(&mut self, node: usize) {
        let known = &mut self.nodes[node];
        known.frozen = false;
        known.recovering = false;
        known.store.memory.set_frozen(DB, false);
        if !self.is(Mutation::ResendForgotten) {
            self.nodes[node].engine.thawed(DB);
        }
        self.carry_out(node);
        if self.reached(node) {
            self.note(|| "recovered".to_owned());
            self.recovery = None;
            self.summary.recoveries += 1;
        }
    }
}
