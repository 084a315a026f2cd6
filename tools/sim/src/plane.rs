//! Drives the control planes: what the daemon's driver does with threads and sockets, in simulated
//! time.
//!
//! Invariant: every ask gets exactly one outcome, unless its node dies.

use ringmaster_control::{
    node::{
        Ask, NodeCx, Outcome, Tell, controls,
        world::{
            ControlAnswer, ControlFailure, DataAsk, Origin, OutgoingControl, Request, RequestId,
            ScriptResult,
        },
    },
    plane::{Action, Millis, Token},
};
use ringmaster_dataplane::record::{ControlToken, CopyUpdate, RecordTunables, UpdateToken};
use ringmaster_protocol::{
    DbId, Generation, Srvid,
    control::{ControlOpcode, ControlRequest},
    control_packet::ControlFlags,
    database::{DbFlags, TdbOpenFlags},
    node::NodeFlags,
    record::{RecBuffer, RecordFlags},
    tunable::Tunable,
    wire::{Decode, Encode},
};

use crate::{
    mutation::Mutation,
    network::{Asker, ControlMessage, Message, Outstanding},
    node::{DB, place, pnn},
    sim::{Event, Sim},
};

/// Who wants the answer to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waiter {
    /// Another node.
    Node { from: usize, control: u64 },
    /// A sequence of the same plane.
    Own(Token),
    /// The recovery that is under way.
    Recovery { attempt: u64, node: usize },
}

impl Sim {
    pub(crate) fn plane_now(&self) -> Millis {
        Millis(self.now / 1_000)
    }

    /// Something happens to a node's plane; what it asks for is carried out.
    pub(crate) fn event(&mut self, node: usize, event: impl FnOnce(&NodeCx)) {
        let mut out = Vec::new();
        let now = self.plane_now();
        self.nodes[node].plane.handle(now, event, &mut out);
        self.plane_asked(node, out);
    }

    pub(crate) fn outcome(&mut self, node: usize, token: Token, outcome: Outcome) {
        let mut out = Vec::new();
        let now = self.plane_now();
        self.nodes[node].plane.outcome(now, token, outcome, &mut out);
        self.plane_asked(node, out);
    }

    fn plane_asked(&mut self, node: usize, actions: Vec<Action<Ask, Tell>>) {
        for action in actions {
            match action {
                Action::Ask(token, ask) => self.plane_asks(node, token, ask),
                Action::Tell(tell) => self.tell(node, tell),
                // Outcomes of what nobody waits for are dropped by the plane.
                Action::Forget(_) => {}
            }
        }
        self.arm_plane(node);
    }

    fn arm_plane(&mut self, node: usize) {
        let Some(Millis(deadline)) = self.nodes[node].plane.next_deadline() else { return };
        let at = deadline.saturating_mul(1_000).max(self.now + 1);
        if self.nodes[node].plane_at.is_none_or(|known| at < known) {
            self.nodes[node].plane_at = Some(at);
            let life = self.nodes[node].life;
            self.after(at - self.now, Event::Plane { node, life });
        }
    }

    fn plane_asks(&mut self, node: usize, token: Token, ask: Ask) {
        let outcome = match ask {
            Ask::Control(control) => return self.control(node, Asker::Plane(token), control),
            Ask::Data(data) => return self.data(node, token, data),
            Ask::Script(_) => Outcome::Script(ScriptResult::Ok),
            Ask::ListenSrvid(_) => Outcome::Done,
            other => Outcome::Failed(format!("{other:?} is not simulated")),
        };
        self.outcome(node, token, outcome);
    }

    fn tell(&mut self, node: usize, tell: Tell) {
        match tell {
            Tell::Reply { request, answer } => self.replied(node, request, answer),
            Tell::Control(control) => self.control(node, Asker::Nobody, control),
            _ => {}
        }
    }

    /// A control of this node's, to itself or over the network.
    pub(crate) fn control(&mut self, node: usize, asker: Asker, control: OutgoingControl) {
        let OutgoingControl { to, opcode, srvid, flags, client, data, timeout_s } = control;
        let to = place(to);
        if to == node {
            let from = client.map_or(Origin::Own, Origin::Client);
            let waiter = match asker {
                Asker::Plane(token) => Some(Waiter::Own(token)),
                Asker::Engine(_) | Asker::Nobody => None,
            };
            let id = self.request_id(node, waiter);
            let request = Request { id, from, opcode, srvid, flags, generation: None, data };
            return self.event(node, |cx| controls::request(cx, request));
        }
        if !self.connected(node, to) {
            if self.is(Mutation::AbsentNotAsked) && opcode == ControlOpcode::TRY_DELETE_RECORDS {
                let db = data.first_chunk().map_or(DB, |id| DbId(u32::from_le_bytes(*id)));
                let none = ringmaster_protocol::record::RecBufferBuilder::new(db).into_bytes();
                let answer = ControlAnswer { data: none, ..ControlAnswer::default() };
                return self.control_ended(node, asker, Ok(answer));
            }
            return self.control_ended(node, asker, Err(ControlFailure::Disconnected));
        }
        self.controls += 1;
        let id = self.controls;
        if !matches!(asker, Asker::Nobody) {
            let life = self.nodes[node].life;
            self.outstanding.insert(id, Outstanding { from: node, life, to, asker });
            if timeout_s > 0 {
                let micros = u64::from(timeout_s) * 1_000_000;
                self.after(micros, Event::ControlTimeout { control: id });
            }
        }
        let generation = self.nodes[node].plane.cx().state().vnn_map.generation;
        let client = client.map_or(0, |client| client.0);
        let message = ControlMessage { id, opcode, srvid, flags, client, generation, data };
        self.send(node, to, Message::Control(message));
    }

    /// A control of another node has arrived.
    pub(crate) fn control_arrived(&mut self, from: usize, to: usize, control: ControlMessage) {
        let ControlMessage { id, opcode, srvid, flags, client, generation, data } = control;
        self.note(|| format!("{from} -> {to} control {opcode} {data:?}"));
        let generation = if self.is(Mutation::LateControlObeyed) { None } else { Some(generation) };
        let from_node = Origin::Node(pnn(from), client);
        let answered = !flags.contains(ControlFlags::NOREPLY);
        let waiter = answered.then_some(Waiter::Node { from, control: id });
        let id = self.request_id(to, waiter);
        let request = Request { id, from: from_node, opcode, srvid, flags, generation, data };
        self.event(to, |cx| controls::request(cx, request));
    }

    fn request_id(&mut self, node: usize, waiter: Option<Waiter>) -> RequestId {
        self.requests += 1;
        if let Some(waiter) = waiter {
            self.waiters.insert(self.requests, (node, waiter));
        }
        RequestId(self.requests)
    }

    fn replied(&mut self, node: usize, request: RequestId, answer: ControlAnswer) {
        match self.waiters.remove(&request.0).map(|(_, waiter)| waiter) {
            Some(Waiter::Own(token)) => self.outcome(node, token, Outcome::Reply(Ok(answer))),
            Some(Waiter::Node { from, control }) => {
                self.send(node, from, Message::Answer { control, answer });
            }
            Some(Waiter::Recovery { attempt, node }) => {
                self.recovery_answered(attempt, node, answer.status);
            }
            None => {}
        }
    }

    /// The answer to a control over the network, or none.
    pub(crate) fn answer_arrived(
        &mut self,
        control: u64,
        answer: Result<ControlAnswer, ControlFailure>,
    ) {
        let Some(asked) = self.outstanding.remove(&control) else { return };
        let node = &self.nodes[asked.from];
        if node.alive && node.life == asked.life {
            self.control_ended(asked.from, asked.asker, answer);
        }
    }

    fn control_ended(
        &mut self,
        node: usize,
        asker: Asker,
        answer: Result<ControlAnswer, ControlFailure>,
    ) {
        match asker {
            Asker::Plane(token) => self.outcome(node, token, Outcome::Reply(answer)),
            Asker::Engine(token) => {
                let status = answer.map_or(-1, |answer| answer.status);
                self.nodes[node].engine.control_done(token, status);
                self.carry_out(node);
            }
            Asker::Nobody => {}
        }
    }

    /// An `UPDATE_RECORD` that an engine wants sent.
    pub(crate) fn update_record(
        &mut self,
        node: usize,
        to: usize,
        token: ControlToken,
        data: Vec<u8>,
    ) {
        if self.is(Mutation::RevokeForgotten) {
            self.nodes[node].engine.control_done(token, 0);
            return self.carry_out(node);
        }
        let timeout_s = self.nodes[node].plane.cx().state().tunable(Tunable::ControlTimeout);
        let (opcode, srvid, flags) = (ControlOpcode::UPDATE_RECORD, Srvid(0), ControlFlags::NONE);
        let control =
            OutgoingControl { to: pnn(to), opcode, srvid, flags, client: None, data, timeout_s };
        self.control(node, Asker::Engine(token), control);
    }

    /// A control of the recovery's, carried out at once (the leader is not simulated).
    pub(crate) fn order(&mut self, node: usize, attempt: u64, control: &ControlRequest<'_>) {
        let id = self.request_id(node, Some(Waiter::Recovery { attempt, node }));
        let (opcode, data) = (control.opcode(), control.to_bytes());
        self.note(|| format!("{node} is ordered {control:?}"));
        let (from, srvid, flags) = (Origin::Own, Srvid(0), ControlFlags::NONE);
        let request = Request { id, from, opcode, srvid, flags, generation: None, data };
        self.event(node, |cx| controls::request(cx, request));
    }

    fn data(&mut self, node: usize, token: Token, ask: DataAsk) {
        let known = &mut self.nodes[node];
        match ask {
            DataAsk::Attach { name, flags, .. } => {
                let db = DbId::from_name(&name);
                known.engine.attach(db, flags);
                known.store.memory.set_frozen(db, true);
                let path = format!("/{name}.{node}").into();
                let outcome = Outcome::Attached { path, open_flags: TdbOpenFlags::NONE };
                return self.outcome(node, token, outcome);
            }
            DataAsk::AddFlags(db, flags) => known.engine.add_flags(db, flags),
            DataAsk::CommitActive(db, active) => known.engine.set_commit_active(db, active),
            DataAsk::SetGeneration(db, generation) => self.set_generation(node, db, generation),
            DataAsk::Replaced(db) => known.engine.replaced(db),
            DataAsk::Publish => self.publish(node),
            DataAsk::Freeze(db) => {
                self.freeze(node, db);
                return self.job(node, token, DataAsk::Freeze(db));
            }
            DataAsk::UpdateCopies { generation, buffer, .. } => {
                return self.update_copies(node, token, generation, buffer);
            }
            DataAsk::VacuumFetch { db, buffer } => {
                if let Ok(buffer) = RecBuffer::from_bytes(&buffer) {
                    for record in &buffer {
                        self.nodes[node].engine.vacuum_fetch(db, record.key);
                    }
                }
            }
            other => return self.job(node, token, other),
        }
        self.carry_out(node);
        self.outcome(node, token, Outcome::Done);
    }

    /// The shards leave a database alone.
    fn freeze(&mut self, node: usize, db: DbId) {
        let known = &mut self.nodes[node];
        known.store.memory.set_frozen(db, true);
        if db == DB {
            known.frozen = true;
            let tickets: Vec<_> = known.waiting.drain(..).map(|(_, ticket)| ticket).collect();
            known.engine.frozen(db, &tickets);
        }
        self.carry_out(node);
    }

    /// They use it again.
    pub(crate) fn thaw(&mut self, node: usize, db: DbId, generation: Option<Generation>) {
        if let Some(generation) = generation {
            self.set_generation(node, db, generation);
        }
        let known = &mut self.nodes[node];
        known.store.memory.set_frozen(db, false);
        if db == DB {
            known.frozen = false;
        }
        if !self.is(Mutation::ResendForgotten) {
            self.nodes[node].engine.thawed(db);
        }
        self.carry_out(node);
    }

    fn set_generation(&mut self, node: usize, db: DbId, generation: Generation) {
        let known = &mut self.nodes[node];
        known.engine.set_generation(db, generation);
        if db == DB {
            known.generation = generation;
            known.store.changed = true;
        }
    }

    /// What a shard takes from the view.
    fn publish(&mut self, node: usize) {
        let leases = self.options.leases;
        let known = &mut self.nodes[node];
        let (map, banned, tunables) = {
            let state = known.plane.cx().state();
            let banned = state.own_flags().intersects(NodeFlags::BANNED);
            (state.vnn_map.clone(), banned, state.tunables.clone())
        };
        known.engine.set_vnn_map(map);
        known.engine.set_banned(banned);
        let value = |tunable| tunables.value(tunable);
        known.engine.set_tunables(RecordTunables {
            fetch_collapse: value(Tunable::FetchCollapse) == 1,
            hopcount_make_sticky: value(Tunable::HopcountMakeSticky),
            sticky_duration_s: value(Tunable::StickyDuration),
            sticky_pindown_ms: value(Tunable::StickyPindown),
            control_timeout_s: value(Tunable::ControlTimeout),
            leases,
        });
    }

    /// Copies are called back: the engine's, in its order.
    fn update_copies(
        &mut self,
        node: usize,
        token: Token,
        generation: Generation,
        buffer: Vec<u8>,
    ) {
        if self.is(Mutation::LateControlObeyed) || self.is(Mutation::UpdateOvertakesCopy) {
            let db = DB;
            return self.job(node, token, DataAsk::UpdateCopies { db, generation, buffer });
        }
        let Ok(records) = RecBuffer::from_bytes(&buffer) else {
            return self.fail("an UPDATE_RECORD cannot be decoded".to_owned());
        };
        for record in &records {
            let Some((mut header, data)) = record.split_header() else { continue };
            if self.is(Mutation::CopyKeptAfterRevoke) {
                header.flags = header.flags | RecordFlags::RO_HAVE_READONLY;
            }
            self.requests += 1;
            let name = UpdateToken(self.requests);
            let life = u64::from(self.nodes[node].life);
            self.nodes[node].updates.push((name, token, life));
            let copy = CopyUpdate { db: DB, generation, key: record.key, header, data };
            self.note(|| format!("{node} UPDATE_RECORD {copy:?}"));
            self.with(node, |engine, cx| engine.update_copy(cx, name, &copy));
        }
    }

    /// The engine has answered an update.
    pub(crate) fn updated(&mut self, node: usize, name: UpdateToken, status: i32) {
        let updates = &mut self.nodes[node].updates;
        let Some(place) = updates.iter().position(|update| update.0 == name) else { return };
        let (_, token, _) = updates.remove(place);
        let outcome =
            if status == 0 { Outcome::Done } else { Outcome::Failed("refused".to_owned()) };
        self.outcome(node, token, outcome);
    }

    /// A node's daemon attaches the databases, as soon as it has been started.
    pub(crate) fn attach(&mut self, node: usize, name: &str, kind: DbFlags) {
        let name = ringmaster_protocol::text::Text::new(name);
        let control = match kind {
            DbFlags::PERSISTENT => ControlRequest::DbAttachPersistent(name),
            DbFlags::REPLICATED => ControlRequest::DbAttachReplicated(name),
            _ => ControlRequest::DbAttach(name),
        };
        self.order(node, 0, &control);
    }
}
