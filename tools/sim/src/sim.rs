//! The event loop and the network.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use ringmaster_dataplane::record::{
    ClientId, Context, ControlToken, Millis, RecordEngine, RecordTunables, Ticket,
};
use ringmaster_protocol::{
    Decode, Destination, Generation, Packet, Reqid,
    database::DbFlags,
    record::{RecBuffer, RecordFlags, RecordHeader},
};

use crate::{
    Options, Summary,
    actor::{Actor, VACUUM},
    mutation::Mutation,
    node::{DB, Node, Recorder, SimStore, pnn},
    random::Random,
    recovery::{Recovery, Step},
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

/// An `UPDATE_RECORD` that calls a read-only copy back.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    token: ControlToken,
    /// Of its packet's header: the sender's map when it was sent.
    generation: Generation,
    payload: Vec<u8>,
}

/// What travels between nodes. Controls keep their order with packets: one connection carries both.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Packet(Vec<u8>),
    Update(Update),
    Updated { token: ControlToken, status: i32 },
    VacuumFetch { key: usize },
    TryDelete { key: usize, header: RecordHeader },
    TryDeleted { key: usize, header: RecordHeader, deleted: bool },
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The oldest message of a link arrives.
    Deliver {
        from: usize,
        to: usize,
    },
    /// An `UPDATE_RECORD` has been received and wants the chain.
    Update {
        node: usize,
        life: u32,
        from: usize,
        update: Update,
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
    Vacuum {
        node: usize,
    },
    Fault,
    Restart {
        node: usize,
    },
    Heal {
        node: usize,
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

/// Messages under way on one link; more means that something multiplies.
const LINK_MAX: usize = 2_000;

/// A cluster, its clients, and all that is going to happen.
pub struct Sim {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) truths: Vec<Truth>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) attempts: u64,
    pub(crate) generations: u32,
    pub(crate) written: u32,
    pub(crate) faults_left: u32,
    pub(crate) healing: u32,
    pub(crate) summary: Summary,
    links: BTreeMap<(usize, usize), VecDeque<Message>>,
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
            actors: Vec::new(),
            recovery: None,
            attempts: 0,
            generations: 100,
            written: 0,
            faults_left: 0,
            healing: 0,
            summary: Summary::default(),
            links: BTreeMap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            failure: None,
            trace: Vec::new(),
            options,
        };
        for number in 0..sim.options.nodes {
            let node = sim.new_node(number, 1);
            sim.nodes.push(node);
            let first = sim.random.range(500_000, 2_500_000);
            sim.after(first, Event::Vacuum { node: number });
        }
        sim.want_recovery("start of the cluster");
        sim
    }

    pub(crate) fn new_node(&self, number: usize, life: u32) -> Node {
        let flags = if self.options.readonly { DbFlags::READONLY } else { DbFlags::NONE };
        let mut node = Node::start(number, life, flags, self.options.mutation);
        // A short limit, so that a revoke's timeout is part of a run.
        node.engine.set_tunables(RecordTunables { control_timeout_s: 3, ..Default::default() });
        node
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
            | Event::Update { node, .. }
            | Event::Turn { node, .. }
            | Event::Grant { node, .. }
            | Event::Vacuum { node }
            | Event::LateStore { node, .. } => *node,
            Event::Recovery { step, .. } => step.node()?,
            Event::Client { .. } | Event::Fault | Event::Restart { .. } | Event::Heal { .. } => {
                return None;
            }
        };
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to } => self.deliver(from, to),
            Event::Update { node, life, from, update } => {
                if self.nodes[node].life == life && self.nodes[node].alive {
                    self.update(node, from, update);
                }
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
            Event::Vacuum { node } => self.vacuum(node),
            Event::Fault => self.fault(),
            Event::Restart { node } => self.restart(node),
            Event::Heal { node } => self.heal(node),
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
        let now = Millis(self.now / 1_000);
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
            self.reply(node, client, reqid, data);
        }
        for (to, bytes) in asked.packets {
            self.send(node, to, Message::Packet(bytes));
        }
        for (key, ticket) in asked.waits {
            self.wait(node, key, ticket);
        }
        for (to, token, payload) in asked.updates {
            if self.is(Mutation::RevokeForgotten) {
                self.nodes[node].engine.control_done(token, 0);
            } else if self.connected(node, to) {
                self.nodes[node].updates.push((token, to));
                let generation = self.nodes[node].engine.vnn_map().generation;
                self.send(node, to, Message::Update(Update { token, generation, payload }));
            } else {
                self.nodes[node].engine.control_done(token, -1);
            }
        }
        for (key, header, value) in std::mem::take(&mut self.nodes[node].store.late) {
            let delay = self.random.range(1_000, 10_000);
            self.after(delay, Event::LateStore { node, life, key, header, value });
        }
        for reason in asked.recoveries {
            self.want_recovery(reason);
        }
        self.arm_turn(node);
        let backlog = self.nodes[node].engine.backlog();
        let limit = 8 * (self.actors.len() + self.keys.len() * self.nodes.len()) + 8;
        self.check(backlog <= limit, || format!("node {node} has {backlog} packets put aside"));
    }

    fn arm_turn(&mut self, node: usize) {
        let Some(Millis(deadline)) = self.nodes[node].engine.next_deadline() else { return };
        let soon = self.now + self.random.range(10, 300);
        let at = soon.max(deadline.saturating_mul(1_000));
        let life = self.nodes[node].life;
        if self.nodes[node].turn_at.is_none_or(|known| at < known) {
            self.nodes[node].turn_at = Some(at);
            self.after(at - self.now, Event::Turn { node, life });
        }
    }

    fn reply(&mut self, node: usize, client: ClientId, reqid: Reqid, data: Vec<u8>) {
        if client == VACUUM {
            self.vacuum_fetched(node, reqid);
        } else {
            self.client_reply(client, reqid, data);
        }
    }

    pub(crate) fn connected(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.alive && b.alive && !a.cut && !b.cut
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, message: Message) {
        if !self.connected(from, to) {
            return;
        }
        if self.is(Mutation::StrangerBelieved) {
            self.repeat_later(from, to, &message);
        }
        let delay = match self.random.below(20) {
            0 => self.random.range(5_000, 80_000),
            1..=4 => self.random.range(1_000, 5_000),
            _ => self.random.range(50, 1_000),
        };
        let link = self.links.entry((from, to)).or_default();
        link.push_back(message);
        let len = link.len();
        self.check(len <= LINK_MAX, || format!("{len} messages from {from} to {to}"));
        self.after(delay, Event::Deliver { from, to });
    }

    fn repeat_later(&mut self, from: usize, to: usize, message: &Message) {
        let Message::Packet(bytes) = message else { return };
        let is_request = matches!(Packet::decode(bytes), Ok((_, Packet::ReqDmaster(_))));
        if is_request && self.random.chance(20) {
            self.links.entry((from, to)).or_default().push_back(message.clone());
            self.after(50_000, Event::Deliver { from, to });
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(message) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return; // lost with its connection
        };
        let life = self.nodes[to].life;
        match message {
            Message::Packet(bytes) => self.packet(from, to, &bytes),
            Message::Update(update) => {
                self.handle(Event::Update { node: to, life, from, update });
            }
            Message::Updated { token, status } => {
                self.nodes[to].updates.retain(|(known, _)| *known != token);
                self.nodes[to].engine.control_done(token, status);
                self.carry_out(to);
            }
            Message::VacuumFetch { key } => self.vacuum_fetch(to, key),
            Message::TryDelete { key, header } => self.try_delete(from, to, key, header),
            Message::TryDeleted { key, header, deleted } => {
                self.try_deleted(from, to, key, header, deleted);
            }
        }
    }

    fn packet(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let Ok((mut header, packet)) = Packet::decode(bytes) else {
            return self.fail(format!("node {to} cannot decode a packet of node {from}"));
        };
        self.note(|| format!("{from} -> {to} {:?} {packet:?}", header.envelope));
        if self.is(Mutation::OldGenerationAccepted) {
            header.envelope.generation = self.nodes[to].engine.vnn_map().generation;
        }
        if let (true, Packet::ReqDmaster(request), Destination::Node(source)) =
            (self.is(Mutation::StrangerBelieved), &packet, header.envelope.source)
            && let Some((mut known, value)) = self.nodes[to].store.memory.get(DB, request.key)
        {
            let value = value.to_vec();
            known.dmaster = source.into();
            self.nodes[to].store.memory.put(DB, request.key, known, &value);
        }
        self.with(to, |engine, cx| engine.node_packet(cx, &header, &packet));
    }

    /// `UPDATE_RECORD` at the holder of a copy (`docs/spec/cluster-semantics.md` 4.3), stricter than C
    /// in two ways. One that was sent before a recovery is refused: the rsn of a record may have begun
    /// anew since. And what is no copy is left alone: nobody reads it as one.
    fn update(&mut self, node: usize, from: usize, update: Update) {
        let token = update.token;
        let known = &self.nodes[node];
        let stale = update.generation != known.engine.vnn_map().generation;
        if known.recovering || known.frozen || (stale && !self.is(Mutation::LateUpdateObeyed)) {
            return self.send(node, from, Message::Updated { token, status: -1 });
        }
        let Ok(buffer) = RecBuffer::from_bytes(&update.payload) else {
            return self.fail("an UPDATE_RECORD cannot be decoded".to_owned());
        };
        let mut status = 0;
        for record in &buffer {
            let Some((mut header, data)) = record.split_header() else { continue };
            let key = record.key.to_vec();
            if !self.nodes[node].store.memory.hold(DB, &key) {
                let delay = self.random.range(50, 500);
                let life = self.nodes[node].life;
                return self.after(delay, Event::Update { node, life, from, update });
            }
            if self.is(Mutation::CopyKeptAfterRevoke) {
                header.flags = header.flags | RecordFlags::RO_HAVE_READONLY;
            }
            let store = &mut self.nodes[node].store;
            if let Some((known, value)) = store.memory.get(DB, &key)
                && (known.flags.intersects(RecordFlags::RO_HAVE_READONLY)
                    || self.options.mutation == Some(Mutation::LateUpdateObeyed))
            {
                if known.rsn >= header.rsn && value != data {
                    status = 1;
                } else {
                    store.memory.put(DB, &key, header, data);
                    store.changed = true;
                }
            }
            self.note(|| format!("{node} UPDATE_RECORD {key:?} {header:?} {data:?}: {status}"));
            self.let_go(node, &key);
        }
        self.send(node, from, Message::Updated { token, status });
    }

    fn wait(&mut self, node: usize, key: Vec<u8>, ticket: Ticket) {
        if self.is(Mutation::WaiterLost) {
            return;
        }
        self.nodes[node].waiting.push((key.clone(), ticket));
        self.grant_soon(node, key);
    }

    fn grant_soon(&mut self, node: usize, key: Vec<u8>) {
        let life = self.nodes[node].life;
        let delay = self.random.range(10, 400);
        self.after(delay, Event::Grant { node, life, key });
    }

    fn grant(&mut self, node: usize, life: u32, key: &[u8]) {
        let known = &mut self.nodes[node];
        if known.life != life || !known.alive || known.frozen {
            return;
        }
        let Some(place) = known.waiting.iter().position(|(of, _)| of == key) else { return };
        if known.store.memory.grant(DB, key) {
            let (_, ticket) = known.waiting.remove(place);
            self.with(node, |engine, cx| engine.chain_ready(cx, ticket));
        }
        if self.nodes[node].waiting.iter().any(|(of, _)| of == key) {
            self.grant_soon(node, key.to_vec());
        }
    }

    /// A process other than the daemon gives a chain back.
    pub(crate) fn let_go(&mut self, node: usize, key: &[u8]) {
        self.nodes[node].store.memory.let_go(DB, key);
    }

    /// Everything under way between two nodes is lost.
    pub(crate) fn lose(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            if let Some(link) = self.links.get_mut(&(from, to)) {
                link.clear();
            }
            let node = &mut self.nodes[from];
            let failed: Vec<_> =
                node.updates.iter().filter(|update| update.1 == to).copied().collect();
            node.updates.retain(|update| update.1 != to);
            node.deletions.retain(|_, deletion| !deletion.left.contains(&to));
            if node.alive {
                for (token, _) in failed {
                    node.engine.control_done(token, -1);
                }
                self.carry_out(from);
            }
        }
    }

    /// At most one node of a generation is the dmaster of a record.
    fn check_dmasters(&mut self) {
        if !self.nodes.iter().any(|node| node.store.changed) {
            return;
        }
        for node in &mut self.nodes {
            node.store.changed = false;
        }
        for key in 0..self.keys.len() {
            let mut owners: Vec<(usize, Generation)> = Vec::new();
            for (number, node) in self.nodes.iter().enumerate() {
                let owns = node.alive
                    && !node.frozen
                    && node
                        .store
                        .memory
                        .get(DB, &self.keys[key])
                        .is_some_and(|(header, _)| header.dmaster.is(pnn(number)));
                if owns {
                    owners.push((number, node.generation));
                }
            }
            let twice = owners
                .iter()
                .enumerate()
                .any(|(place, owner)| owners[..place].iter().any(|other| other.1 == owner.1));
            self.check(!twice, || format!("dmasters of key {key}: {owners:?}"));
        }
    }

    fn is_done(&self) -> bool {
        self.faults_left == 0
            && self.healing == 0
            && self.recovery.is_none()
            && self.actors.iter().all(Actor::is_done)
            && self.nodes.iter().all(|node| node.engine.backlog() == 0 && node.updates.is_empty())
            && self.nodes.iter().all(|node| node.engine.counters().pending_calls == 0)
    }

    fn what_hangs(&self) -> String {
        let clients: Vec<String> = self
            .actors
            .iter()
            .filter(|actor| !actor.is_done())
            .map(|actor| {
                format!("client {} on node {}: {:?}", actor.client.0, actor.node, actor.state)
            })
            .collect();
        let backlogs: Vec<usize> = self.nodes.iter().map(|node| node.engine.backlog()).collect();
        format!(
            "it does not come to an end: {} (recovery: {}, put aside: {backlogs:?})",
            clients.join("; "),
            self.recovery.is_some()
        )
    }

    /// With everything at rest: every record that should be there is at its dmaster.
    fn check_rest(&mut self) {
        for key in 0..self.keys.len() {
            let found: Vec<Vec<u8>> = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(number, node)| {
                    let (header, value) = node.store.memory.get(DB, &self.keys[key])?;
                    (node.alive && header.dmaster.is(pnn(number))).then(|| value.to_vec())
                })
                .collect();
            let wanted = self.truths[key].value().to_vec();
            // A record that is on its way for a client that has gone is at no node's for a moment.
            let right = match &found[..] {
                [] => true,
                [value] => *value == wanted,
                _ => false,
            };
            self.check(right, || format!("key {key}: found {found:?}, not {wanted:?}"));
        }
    }
}
