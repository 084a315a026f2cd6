//! The event loop.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
};

use ringmaster_control::node::{controls, world::ControlFailure};
use ringmaster_dataplane::record::{Context, Micros, RecordEngine};
use ringmaster_protocol::{control::ControlRequest, database::DbFlags, record::RecordHeader};

use crate::{
    Options, Summary,
    actor::Actor,
    fairness::Travels,
    mutation::Mutation,
    network::{Message, Outstanding},
    node::{DB, DB_NAME, Node, Recorder, pnn},
    plane::Waiter,
    random::Random,
    recovery::{Recovery, Step},
    store::SimStore,
    truth::Truth,
};

/// A promise that was broken: what, when, and the seed that shows it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Replays it.
    pub seed: u64,
    /// Simulated time, in microseconds.
    pub at: u64,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: at {} us: {}", self.seed, self.at, self.what)
    }
}

impl std::error::Error for Violation {}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The oldest message of a link arrives.
    Deliver {
        from: usize,
        to: usize,
    },
    /// A node's plane wants to be called.
    Plane {
        node: usize,
        life: u32,
    },
    /// A node's worker does its next job.
    Work {
        node: usize,
        life: u32,
    },
    /// A control has not been answered in time.
    ControlTimeout {
        control: u64,
    },
    Turn {
        node: usize,
        life: u32,
    },
    /// A waiter of the daemon may get its chain.
    Grant {
        node: usize,
        life: u32,
        key: Vec<u8>,
    },
    /// A client does its next step, unless it has done another one since.
    Client {
        actor: usize,
        step: u64,
    },
    Fault,
    Restart {
        node: usize,
    },
    Heal {
        node: usize,
    },
    /// A connection that broke stands again.
    Reconnect {
        a: usize,
        b: usize,
    },
    Recovery {
        attempt: u64,
        step: Step,
    },
    /// [`Mutation::DmasterStoredLate`]
    LateStore {
        node: usize,
        life: u32,
        key: Vec<u8>,
        header: RecordHeader,
        value: Vec<u8>,
    },
}

/// Seconds that a run may take after its last operation was due: then something hangs.
const PATIENCE_S: u64 = 60;

/// A cluster, its clients, and all that is going to happen.
pub struct Sim {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) truths: Vec<Truth>,
    pub(crate) travels: Vec<Travels>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) attempts: u64,
    pub(crate) generations: u32,
    pub(crate) written: u32,
    pub(crate) faults_left: u32,
    pub(crate) healing: u32,
    pub(crate) summary: Summary,
    pub(crate) links: BTreeMap<(usize, usize), VecDeque<Message>>,
    /// Pairs of nodes whose connection is broken.
    pub(crate) broken: BTreeSet<(usize, usize)>,
    /// Controls between nodes that have no answer yet.
    pub(crate) outstanding: BTreeMap<u64, Outstanding>,
    /// How many there have been.
    pub(crate) controls: u64,
    /// Requests that planes are answering: which plane, and for whom.
    pub(crate) waiters: BTreeMap<u64, (usize, Waiter)>,
    pub(crate) requests: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    failure: Option<String>,
    trace: Vec<String>,
}

impl Sim {
    /// A cluster whose nodes have just been started; the first recovery is about to come.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> Self {
        let mut sim = Self {
            seed,
            random: Random::new(seed),
            now: 0,
            nodes: Vec::new(),
            keys: (0..options.keys).map(|key| format!("key-{key}").into_bytes()).collect(),
            truths: (0..options.keys).map(|_| Truth::new()).collect(),
            travels: vec![Travels::default(); options.keys],
            actors: Vec::new(),
            recovery: None,
            attempts: 0,
            generations: 100,
            written: 0,
            faults_left: 0,
            healing: 0,
            summary: Summary::default(),
            links: BTreeMap::new(),
            broken: BTreeSet::new(),
            outstanding: BTreeMap::new(),
            controls: 0,
            waiters: BTreeMap::new(),
            requests: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            failure: None,
            trace: Vec::new(),
            options,
        };
        for number in 0..sim.options.nodes {
            let node = sim.new_node(number, 1);
            sim.nodes.push(node);
        }
        for number in 0..sim.options.nodes {
            sim.start_node(number);
        }
        sim.want_recovery("start of the cluster");
        sim
    }

    pub(crate) fn new_node(&self, number: usize, life: u32) -> Node {
        let now = self.plane_now();
        Node::start(number, self.options.nodes, life, now, self.options.mutation)
    }

    /// The daemon of a node runs: it sees who is there, and attaches its databases.
    pub(crate) fn start_node(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.connected(node, other) {
                self.meet(node, other);
            } else {
                self.event(node, |cx| controls::node_gone(cx, pnn(other)));
            }
        }
        self.attach(node, DB_NAME, DbFlags::NONE);
        if self.options.readonly {
            self.order(node, 0, &ControlRequest::SetDbReadonly(DB));
        }
        self.order(node, 0, &ControlRequest::DbFreeze(DB));
    }

    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.options.mutation == Some(mutation)
    }

    /// What happened, one line each, if a trace was asked for.
    #[must_use]
    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    /// Simulated time, in microseconds.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// What has happened so far.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Messages under way between nodes.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.links.values().map(VecDeque::len).sum()
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.trace {
            let line = format!("{:>10} {}", self.now, line());
            self.trace.push(line);
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        self.failure.get_or_insert(what);
    }

    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.summary.checks += 1;
        if !holds {
            self.fail(what());
        }
    }

    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + micros, self.scheduled), event);
    }

    /// Runs until nothing is left to do.
    ///
    /// # Errors
    /// The first violation.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        let limit = self.now + (self.options.seconds + PATIENCE_S) * 1_000_000;
        while !self.is_done() {
            self.step()?;
            if self.now > limit {
                let what = self.what_hangs();
                return Err(Violation { seed: self.seed, at: self.now, what });
            }
        }
        self.check_rest();
        self.summary.micros = self.now;
        self.verdict().map(|()| self.summary)
    }

    /// Runs until `wanted` holds.
    ///
    /// # Errors
    /// The first violation, or that `wanted` does not come.
    pub fn run_until(&mut self, wanted: impl Fn(&Self) -> bool) -> Result<(), Violation> {
        let limit = self.now + PATIENCE_S * 1_000_000;
        while !wanted(self) {
            self.step()?;
            if self.now > limit {
                let what = "what the scenario waits for does not come".to_owned();
                return Err(Violation { seed: self.seed, at: self.now, what });
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return Err(Violation {
                seed: self.seed,
                at: self.now,
                what: format!("nothing is left to happen, but {}", self.what_hangs()),
            });
        };
        self.now = self.now.max(at);
        self.summary.events += 1;
        if let Some(until) = self.paused_until(&event) {
            let delay = until - self.now;
            self.after(delay, event);
            return Ok(());
        }
        self.handle(event);
        self.check_dmasters();
        self.verdict()
    }

    fn verdict(&self) -> Result<(), Violation> {
        match &self.failure {
            None => Ok(()),
            Some(what) => Err(Violation { seed: self.seed, at: self.now, what: what.clone() }),
        }
    }

    fn paused_until(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Deliver { to: node, .. }
            | Event::Plane { node, .. }
            | Event::Work { node, .. }
            | Event::Turn { node, .. }
            | Event::Grant { node, .. }
            | Event::LateStore { node, .. } => *node,
            Event::Recovery { step, .. } => step.node()?,
            Event::Client { .. }
            | Event::ControlTimeout { .. }
            | Event::Fault
            | Event::Restart { .. }
            | Event::Heal { .. }
            | Event::Reconnect { .. } => return None,
        };
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to } => self.deliver(from, to),
            Event::Plane { node, life } => {
                let known = &mut self.nodes[node];
                let due = known.plane_at.is_some_and(|at| at <= self.now);
                if known.life == life && known.alive && due {
                    known.plane_at = None;
                    self.event(node, |_| {});
                }
            }
            Event::Work { node, life } => {
                if self.nodes[node].life == life && self.nodes[node].alive {
                    self.work(node);
                }
            }
            Event::ControlTimeout { control } => {
                self.answer_arrived(control, Err(ControlFailure::TimedOut));
            }
            Event::Turn { node, life } => {
                let known = &mut self.nodes[node];
                if known.life == life
                    && known.alive
                    && known.turn_at.is_some_and(|at| at <= self.now)
                {
                    known.turn_at = None;
                    self.with(node, RecordEngine::turn);
                }
            }
            Event::Grant { node, life, key } => self.grant(node, life, &key),
            Event::Client { actor, step } => self.client_step(actor, step),
            Event::Fault => self.fault(),
            Event::Restart { node } => self.restart(node),
            Event::Heal { node } => self.heal(node),
            Event::Reconnect { a, b } => self.reconnect(a, b),
            Event::Recovery { attempt, step } => self.recovery_step(attempt, step),
            Event::LateStore { node, life, key, header, value } => {
                let known = &mut self.nodes[node];
                let mine =
                    known.store.memory.get(DB, &key).is_some_and(|old| old.0.dmaster.is(pnn(node)));
                if known.life == life && mine && !known.frozen {
                    known.store.memory.put(DB, &key, header, &value);
                }
            }
        }
    }

    /// Calls into a node's engine, and carries out what it asks for.
    pub(crate) fn with<R>(
        &mut self,
        node: usize,
        f: impl FnOnce(&mut RecordEngine, &mut Context<'_, SimStore, Recorder>) -> R,
    ) -> R {
        let now = Micros(self.now);
        let Node { engine, store, out, .. } = &mut self.nodes[node];
        let result = f(engine, &mut Context { now, store, out });
        self.carry_out(node);
        result
    }

    /// Carries out what the engine of `node` has asked for.
    pub(crate) fn carry_out(&mut self, node: usize) {
        let unlocked = self.nodes[node].store.memory.is_unlocked();
        self.check(unlocked, || format!("node {node} does not give its chain locks back"));
        let asked = std::mem::take(&mut self.nodes[node].out);
        let life = self.nodes[node].life;
        for (client, reqid, data) in asked.replies {
            self.client_reply(client, reqid, data);
        }
        for (to, bytes) in asked.packets {
            self.send(node, to, Message::Packet(bytes));
        }
        for (key, ticket) in asked.waits {
            self.wait(node, key, ticket);
        }
        for (to, token, payload) in asked.updates {
            self.update_record(node, to, token, payload);
        }
        for (key, header, value) in std::mem::take(&mut self.nodes[node].store.late) {
            let delay = self.random.range(1_000, 10_000);
            self.after(delay, Event::LateStore { node, life, key, header, value });
        }
        for (name, status) in asked.updated {
            self.updated(node, name, status);
        }
        for reason in asked.recoveries {
            self.event(node, controls::force_recovery);
            self.want_recovery(reason);
        }
        self.arm_turn(node);
        let backlog = self.nodes[node].engine.backlog();
        let limit = 8 * (self.actors.len() + self.keys.len() * self.nodes.len()) + 8;
        self.check(backlog <= limit, || format!("node {node} has {backlog} packets put aside"));
    }

    fn arm_turn(&mut self, node: usize) {
        let Some(Micros(deadline)) = self.nodes[node].engine.next_deadline() else { return };
        let soon = self.now + self.random.range(10, 300);
        let at = soon.max(deadline);
        let life = self.nodes[node].life;
        if self.nodes[node].turn_at.is_none_or(|known| at < known) {
            self.nodes[node].turn_at = Some(at);
            self.after(at - self.now, Event::Turn { node, life });
        }
    }
}
