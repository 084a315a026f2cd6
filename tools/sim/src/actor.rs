//! Clients that work as smbd does: they lock the chain in the shared file, look at the header, and
//! write the value themselves; only when the record is elsewhere do they ask the daemon.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2.9; `source3/lib/dbwrap/dbwrap_ctdb.c`.

use ringmaster_dataplane::record::ClientId;
use ringmaster_protocol::{
    Reqid,
    call::{CallFlags, CallId, ReqCall},
    record::{RecordFlags, RecordHeader},
};

use crate::{
    mutation::Mutation,
    node::{DB, pnn},
    sim::{Event, Sim},
};

/// What a client wants to do to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Adds one to the number in it.
    Increment,
    /// Leaves the header alone, and tells the daemon.
    Delete,
    /// Reads it; a read-only copy will do.
    Read,
    /// Has the daemon read it, which moves the record here.
    Fetch,
}

#[derive(Clone, Debug)]
pub(crate) struct Op {
    kind: Kind,
    key: usize,
    begun: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    /// Between two operations.
    Idle,
    /// Wants the chain.
    Trying(Op),
    /// Has the chain, and has not yet looked at the record.
    Looking(Op),
    /// Has the chain, and will write.
    Holding { op: Op, header: RecordHeader, read: Vec<u8> },
    /// Waits for the daemon.
    Asking { op: Op, reqid: Reqid },
    /// Has got the daemon's answer, and not yet looked at it.
    Answered { op: Op, data: Vec<u8> },
}

/// A client process with one thing to do at a time.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) client: ClientId,
    pub(crate) node: usize,
    pub(crate) state: State,
    /// Operations still to do.
    left: u32,
    /// What and where, when a scenario has said so.
    scripted: Option<(Kind, usize)>,
    step: u64,
    next_reqid: u32,
}

impl Actor {
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && matches!(self.state, State::Idle)
    }

    pub(crate) const fn holds(&self) -> bool {
        matches!(self.state, State::Looking(_) | State::Holding { .. })
    }
}

impl Sim {
    /// Sets up the clients and the faults of a whole run.
    pub fn load(&mut self) {
        let clients =
            u32::try_from(self.options.nodes * self.options.clients).expect("few clients");
        let share = self.options.operations.div_ceil(clients.max(1));
        for node in 0..self.options.nodes {
            for _ in 0..self.options.clients {
                self.add_actor(node, share, None);
            }
        }
        self.plan_faults();
    }

    /// A new client on `node` does one thing to a record, as soon as it can.
    pub fn start(&mut self, node: usize, kind: Kind, key: usize) -> &mut Self {
        self.add_actor(node, 1, Some((kind, key)));
        self
    }

    /// The number that clients have counted up to in a record.
    #[must_use]
    pub fn count(&self, key: usize) -> u32 {
        number(self.truths[key].value())
    }

    fn add_actor(&mut self, node: usize, left: u32, scripted: Option<(Kind, usize)>) {
        let client = ClientId(u32::try_from(self.actors.len()).expect("few clients"));
        let state = State::Idle;
        self.actors.push(Actor { client, node, state, left, scripted, step: 0, next_reqid: 0 });
        self.next_step(self.actors.len() - 1, 1);
    }

    fn next_step(&mut self, actor: usize, delay: u64) {
        self.actors[actor].step += 1;
        let step = self.actors[actor].step;
        self.after(delay, Event::Client { actor, step });
    }

    /// The node of these clients has died, and they with it; others take their place.
    pub(crate) fn clients_die(&mut self, node: usize) {
        for actor in 0..self.actors.len() {
            if self.actors[actor].node == node {
                self.actors[actor].state = State::Idle;
                let delay = self.random.range(1_000, 100_000);
                self.next_step(actor, delay);
            }
        }
    }

    pub(crate) fn client_step(&mut self, actor: usize, step: u64) {
        if self.actors[actor].step != step {
            return;
        }
        let node = self.actors[actor].node;
        if !self.nodes[node].alive {
            return self.next_step(actor, 50_000);
        }
        match std::mem::replace(&mut self.actors[actor].state, State::Idle) {
            State::Idle => self.begin(actor),
            State::Trying(op) => self.try_record(actor, op),
            State::Looking(op) => self.look(actor, op),
            State::Holding { op, header, read } => self.write(actor, op, header, &read),
            asking @ State::Asking { .. } => self.actors[actor].state = asking,
            State::Answered { op, data } => self.answered(actor, op, &data),
        }
    }

    fn begin(&mut self, actor: usize) {
        if self.actors[actor].left == 0 {
            return;
        }
        let (kind, key) = match self.actors[actor].scripted {
            Some(scripted) => scripted,
            None => {
                let kind = match self.random.below(20) {
                    0..=9 => Kind::Increment,
                    10..=12 => Kind::Delete,
                    13..=18 => Kind::Read,
                    _ => Kind::Fetch,
                };
                (kind, self.random.index(self.keys.len()))
            }
        };
        let op = Op { kind, key, begun: self.now };
        self.actors[actor].state = State::Trying(op);
        self.next_step(actor, 1);
    }

    fn finish(&mut self, actor: usize) {
        self.summary.operations += 1;
        self.actors[actor].left -= 1;
        self.actors[actor].state = State::Idle;
        // In bursts: most of the time is spent waiting, most operations come close together.
        let each =
            self.options.seconds * 1_000_000 * (self.options.clients * self.options.nodes) as u64
                / u64::from(self.options.operations.max(1));
        let delay = if self.random.chance(80) {
            self.random.range(1, 3_000)
        } else {
            self.random.below(each * 9)
        };
        self.next_step(actor, delay);
    }

    fn again(&mut self, actor: usize, op: Op) {
        self.actors[actor].state = State::Trying(op);
        let delay = self.random.range(20, 1_000);
        self.next_step(actor, delay);
    }

    fn try_record(&mut self, actor: usize, op: Op) {
        let node = self.actors[actor].node;
        let key = self.keys[op.key].clone();
        if op.kind == Kind::Fetch {
            return self.ask(actor, op, CallFlags::NONE, CallId::FETCH);
        }
        // A freeze that waits for the last holder lets nobody else in: the fairness of fcntl is not
        // modelled.
        if self.nodes[node].frozen || !self.nodes[node].store.memory.hold(DB, &key) {
            return self.again(actor, op);
        }
        if self.random.chance(50) {
            return self.look(actor, op);
        }
        self.actors[actor].state = State::Looking(op);
        let delay = self.random.range(20, 3_000);
        self.next_step(actor, delay);
    }

    /// The chain is held.
    fn look(&mut self, actor: usize, op: Op) {
        let node = self.actors[actor].node;
        let key = self.keys[op.key].clone();
        let record = self.nodes[node].store.memory.get(DB, &key);
        let record = record.map(|(header, value)| (header, value.to_vec()));
        if op.kind == Kind::Read {
            self.let_go(node, &key);
            return self.read(actor, op, record);
        }
        let blind = self.is(Mutation::ClientIgnoresDelegations);
        match record {
            Some((header, read))
                if header.dmaster.is(pnn(node))
                    && (blind || !header.flags.intersects(RecordFlags::RO_HAVE_DELEGATIONS)) =>
            {
                self.see(actor, op.key, &read, "locked");
                self.actors[actor].state = State::Holding { op, header, read };
                let delay = self.random.range(20, 3_000);
                self.next_step(actor, delay);
            }
            _ => {
                self.let_go(node, &key);
                self.ask(actor, op, CallFlags::IMMEDIATE_MIGRATION, CallId::NULL);
            }
        }
    }

    fn read(&mut self, actor: usize, op: Op, record: Option<(RecordHeader, Vec<u8>)>) {
        let node = self.actors[actor].node;
        match record {
            Some((header, read)) if header.dmaster.is(pnn(node)) => {
                self.see(actor, op.key, &read, "read");
                self.finish(actor);
            }
            Some((header, read)) if header.flags.intersects(RecordFlags::RO_HAVE_READONLY) => {
                self.summary.copy_reads += 1;
                self.see(actor, op.key, &read, "read a copy");
                self.finish(actor);
            }
            _ => self.ask(actor, op, CallFlags::WANT_READONLY, CallId::FETCH),
        }
    }

    /// What a client sees under the chain lock must be the last value written anywhere.
    fn see(&mut self, actor: usize, key: usize, read: &[u8], how: &str) {
        let Self { truths, actors, .. } = self;
        let (truth, node) = (truths[key].value().to_vec(), actors[actor].node);
        self.note(|| format!("{node} client {actor} {how} key {key}: {read:?}"));
        self.check(read == truth, || {
            format!("client {actor} on node {node} {how} key {key}: {read:?}, not {truth:?}")
        });
    }

    fn write(&mut self, actor: usize, op: Op, header: RecordHeader, read: &[u8]) {
        let Self { nodes, keys, .. } = self;
        let node = self.actors[actor].node;
        let key = keys[op.key].clone();
        let value = if op.kind == Kind::Delete {
            Vec::new()
        } else {
            self.written += 1;
            let mut value = (number(read) + 1).to_le_bytes().to_vec();
            value.extend_from_slice(&self.written.to_le_bytes());
            value
        };
        let life = nodes[node].life;
        // Behind the daemon's back, and with the header as it was found.
        nodes[node].store.memory.put(DB, &key, header, &value);
        nodes[node].store.changed = true;
        self.see(actor, op.key, read, "still has locked");
        self.note(|| format!("{node} client {actor} writes key {}: {value:?} {header:?}", op.key));
        self.truths[op.key].write(self.now, value, (node, life));
        self.let_go(node, &key);
        if op.kind == Kind::Delete {
            self.nodes[node].engine.schedule_for_deletion(DB, &key, header);
        }
        self.finish(actor);
    }

    fn ask(&mut self, actor: usize, op: Op, flags: CallFlags, callid: CallId) {
        let Actor { client, node, next_reqid, .. } = &mut self.actors[actor];
        *next_reqid += 1;
        let (client, node, reqid) = (*client, *node, Reqid(*next_reqid));
        let key = self.keys[op.key].clone();
        self.note(|| format!("{node} client {actor} asks for key {}: {flags:?}", op.key));
        if !flags.intersects(CallFlags::WANT_READONLY) {
            self.waits_for(node, op.key);
        }
        self.actors[actor].state = State::Asking { op, reqid };
        let call = ReqCall { flags, db: DB, callid, hopcount: 0, key: &key, calldata: b"" };
        self.with(node, |engine, cx| engine.client_call(cx, client, reqid, &call));
    }

    pub(crate) fn client_reply(&mut self, client: ClientId, reqid: Reqid, data: Vec<u8>) {
        let actor = client.0 as usize;
        match &self.actors[actor].state {
            State::Asking { op, reqid: asked } if *asked == reqid => {
                self.actors[actor].state = State::Answered { op: op.clone(), data };
                let delay = self.random.range(5, 500);
                self.next_step(actor, delay);
            }
            _ => self.fail(format!("client {actor} is answered what it has not asked: {reqid:?}")),
        }
    }

    fn answered(&mut self, actor: usize, op: Op, data: &[u8]) {
        if matches!(op.kind, Kind::Increment | Kind::Delete) {
            return self.again(actor, op); // look again: it may have gone already
        }
        let fits = self.truths[op.key].was(op.begun, data);
        let node = self.actors[actor].node;
        self.note(|| format!("{node} client {actor} is told key {}: {data:?}", op.key));
        self.check(fits, || {
            format!("client {actor} on node {node} is told {data:?} of key {}", op.key)
        });
        self.finish(actor);
    }
}

fn number(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
