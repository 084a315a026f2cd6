//! The loop of one shard: drain what has come, handle all of it, submit once.
//!
//! Role: the turn loop and the connections; `packets` takes packets of clients, `nodes` those of
//! other nodes, `orders` what other threads send, `io` is the way out. Carries packets between the reactor, the record engine, other shards and control. It
//! decides nothing about records (`record`), node or cluster (crate `control`).
//! Owner: its thread. Nothing in here is shared; other threads push into the inbox.
//! Invariants
//! - A turn is bounded: at most [`MESSAGES_PER_TURN`] messages, the reactor's events of one enter,
//!   the engine's due work. Then the ring is entered once.
//! - Input is read only while every outbox has credit for what a buffer of it may cause.
//! - Messages of one client to another take one path (this shard's outbox to the other's inbox),
//!   so that they keep their order.
//!
//! Origin: ours; `ctdb/server/ctdb_daemon.c` for what is done with each packet.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use ringmaster_storage::wait::EventFd;
use ringmaster_transport::{
    frames::Assembly,
    local::{CLIENT_FRAMING, peer_pid},
    reactor::{AnyReactor, Event, Reactor, ReactorError, ReactorKind, Token, Wait},
};
use rustix::fd::{AsFd, OwnedFd};

use super::{
    ShardId,
    clients::{Client, Clients, Sender},
    early::Early,
    io::{Io, Sink},
    lanes::Lanes,
    limits::{ACCEPT_PAUSE, IDLE_MAX, MESSAGES_PER_TURN, PARKED_MAX, PARKED_REPLIES},
    message::{AckToken, FromShard, ToShard},
    outbox::{Inbox, Outbox},
    registry::{ClientRef, Registry},
    statistics::PacketCounters,
    store::ShardStore,
    updates::Updates,
};
use crate::{
    record::{ClientId, Context, Micros, RecordEngine},
    view::NodeView,
};

/// Receives messages for the control plane; not a client.
pub const CONTROL: ClientRef =
    ClientRef { id: ClientId(u32::MAX), shard: ShardId(u16::MAX), pid: 0 };

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardParts {
    /// Which one.
    pub id: ShardId,
    /// Inboxes of all shards, this one's included.
    pub inboxes: Vec<Arc<Inbox<ToShard>>>,
    /// Control's inbox.
    pub control: Arc<Inbox<FromShard>>,
    /// Configured reactor.
    pub reactor: ReactorKind,
    /// The first view.
    pub view: Arc<NodeView>,
}

/// Runs a shard on the calling thread until it is told to stop or its reactor breaks; either way
/// control gets [`FromShard::Stopped`].
pub fn run(parts: ShardParts) {
    let shard = parts.id;
    let mut to_control = Outbox::new(Arc::clone(&parts.control), PARKED_MAX, PARKED_REPLIES);
    let error = match Shard::new(parts) {
        Ok(mut shard) => {
            let ended = shard.run();
            shard.say_last_words();
            ended.err()
        }
        Err(error) => Some(error),
    };
    let error = error.map(|error| format!("{error:#}"));
    to_control.send_reply(FromShard::Stopped { shard, error });
    while !to_control.flush() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(super) struct Shard {
    pub(super) id: ShardId,
    pub(super) shards: u16,
    pub(super) started: Instant,
    pub(super) reactor: AnyReactor,
    pub(super) inbox: Arc<Inbox<ToShard>>,
    pub(super) io: Io,
    pub(super) engine: RecordEngine,
    pub(super) store: ShardStore,
    pub(super) registry: Registry,
    pub(super) view: Arc<NodeView>,
    pub(super) listener: Option<Token>,
    pub(super) node_listener: Option<Token>,
    /// When refused connections were last reported, and how many there have been since.
    pub(super) refused: (Option<Duration>, u32),
    pub(super) accept_again: Option<Instant>,
    /// Shard that gets the next client.
    pub(super) next_home: u16,
    pub(super) events: Vec<Event>,
    /// Copies that other nodes call back.
    pub(super) updates: Updates,
    /// Packets that came before their database.
    pub(super) early: Early,
    /// Input that waits for credit.
    pub(super) backlog: VecDeque<Event>,
    /// Control replies are put together here.
    pub(super) data: Vec<u8>,
    pub(super) stopping: bool,
}

impl Shard {
    fn new(parts: ShardParts) -> Result<Self, ReactorError> {
        let ShardParts { id, inboxes, control, reactor: kind, view } = parts;
        let kernel = |action| move |source| ReactorError::Kernel { action, source };
        let shards = u16::try_from(inboxes.len()).unwrap_or(u16::MAX);
        let inbox = Arc::clone(&inboxes[usize::from(id.0)]);
        let mut reactor = AnyReactor::new(kind)?;
        let bell = inbox.wake_fd().try_clone_to_owned().map_err(kernel("copy the doorbell"))?;
        let notify = bell.try_clone().map_err(kernel("copy the doorbell"))?;
        reactor.add_doorbell(bell)?;
        tracing::info!(shard = id.0, reactor = reactor.name(), "shard runs");
        let peers = inboxes.iter().enumerate().map(|(number, peer)| {
            let other = number != usize::from(id.0);
            other.then(|| Outbox::new(Arc::clone(peer), PARKED_MAX, PARKED_REPLIES))
        });
        let io = Io {
            clients: Clients::new(id, shards),
            lanes: Lanes::default(),
            peers: peers.collect(),
            control: Outbox::new(control, PARKED_MAX, PARKED_REPLIES),
            counters: PacketCounters::default(),
            waits: Vec::new(),
            updated: Vec::new(),
            sender: Sender { pnn: view.pnn, generation: view.vnn_map.generation },
            id,
            shards,
        };
        let mut shard = Self {
            id,
            shards,
            started: Instant::now(),
            reactor,
            inbox,
            io,
            engine: RecordEngine::new(view.pnn, u8::try_from(id.0).unwrap_or(u8::MAX)),
            store: ShardStore::new(Arc::new(EventFd::new(notify))),
            registry: Registry::new(),
            view: Arc::clone(&view),
            listener: None,
            node_listener: None,
            refused: (None, 0),
            accept_again: None,
            next_home: 0,
            events: Vec::new(),
            updates: Updates::default(),
            early: Early::default(),
            backlog: VecDeque::new(),
            data: Vec::new(),
            stopping: false,
        };
        shard.registry.add_client(CONTROL);
        shard.set_view(view);
        Ok(shard)
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn run(&mut self) -> Result<(), ReactorError> {
        while !self.stopping {
            let mut events = std::mem::take(&mut self.events);
            let wait = self.wait();
            self.reactor.turn(wait, &mut events)?;
            self.inbox.awake();
            self.backlog.extend(events.drain(..));
            self.events = events;
            self.turn()?;
        }
        Ok(())
    }

    /// Sends what is queued, so that a client sees the answer to what it asked last.
    fn say_last_words(&mut self) {
        let mut events = Vec::new();
        for _ in 0..10 {
            if self.reactor.turn(Wait::Until(Duration::from_millis(1)), &mut events).is_err() {
                return;
            }
            for event in events.drain(..) {
                if let Event::Data { buffer, .. } = event {
                    self.reactor.recycle(buffer);
                }
            }
        }
        self.io.flush();
    }

    fn wait(&mut self) -> Wait {
        let flushed = self.io.flush();
        if !self.backlog.is_empty() || !flushed || self.io.lanes.owes_credit() {
            // Waits for another thread to make room, or for the kernel to take output: that does
            // not ring our bell.
            return Wait::Until(Duration::from_millis(1));
        }
        let now = self.now();
        let mut limit = IDLE_MAX;
        if let Some(deadline) = self.engine.next_deadline() {
            limit = limit.min(Duration::from_micros(deadline.since(now)));
        }
        if let Some(at) = self.io.lanes.next_deadline() {
            limit = limit.min(at.saturating_sub(self.started.elapsed()));
        }
        if let Some(at) = self.early.next_deadline() {
            limit = limit.min(at.saturating_sub(self.started.elapsed()));
        }
        if let Some(again) = self.accept_again {
            limit = limit.min(again.saturating_duration_since(Instant::now()));
        }
        if let Some(again) = self.store.next_deadline() {
            limit = limit.min(again.saturating_duration_since(Instant::now()));
        }
        if limit.is_zero() || !self.inbox.may_sleep() {
            return Wait::No;
        }
        Wait::Until(limit)
    }

    fn turn(&mut self) -> Result<(), ReactorError> {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.inbox.pop() else { break };
            self.message(message)?;
        }
        while self.io.has_credit() {
            let Some(event) = self.backlog.pop_front() else { break };
            self.event(event)?;
        }
        if self.accept_again.is_some_and(|again| Instant::now() >= again) {
            self.accept_again = None;
            for listener in self.listener.into_iter().chain(self.node_listener) {
                self.reactor.resume(listener);
            }
        }
        self.link_turn();
        for bytes in self.early.expired(self.started.elapsed()) {
            self.refuse_early(&bytes);
        }
        self.with_engine(|engine, cx| engine.turn(cx));
        self.store.try_deferred();
        self.serve_grants();
        for (db, waited) in self.store.take_slow(Instant::now()) {
            let waited_s = waited.as_secs();
            self.io.control.send_reply(FromShard::SlowLock { db, waited_s });
        }
        for db in self.store.take_crashed() {
            self.io.control.send_reply(FromShard::Crashed(db));
        }
        for (db, error) in self.store.take_broken() {
            self.io.control.send_reply(FromShard::Broken { db, error });
        }
        for client in std::mem::take(&mut self.io.clients.overfull) {
            tracing::warn!(client = client.0, "client does not read its messages: closed");
            self.close_client(client);
        }
        Ok(())
    }

    /// Calls into the engine and starts the waits that it asks for.
    pub(super) fn with_engine<R>(
        &mut self,
        work: impl FnOnce(&mut RecordEngine, &mut Context<'_, ShardStore, Sink<'_>>) -> R,
    ) -> R {
        let now = self.now();
        let mut sink = Sink { reactor: &mut self.reactor, io: &mut self.io };
        let mut cx = Context { now, store: &mut self.store, out: &mut sink };
        let result = work(&mut self.engine, &mut cx);
        for (db, key, ticket) in self.io.waits.drain(..) {
            self.store.wait(db, &key, ticket);
        }
        for (token, status) in std::mem::take(&mut self.io.updated) {
            self.record_updated(AckToken(token.0), status);
        }
        result
    }

    fn serve_grants(&mut self) {
        while let Some((granted, tickets)) = self.store.next_grant() {
            for ticket in tickets {
                self.store.grant_again();
                self.with_engine(|engine, cx| engine.chain_ready(cx, ticket));
            }
            self.store.end_grant(granted);
        }
    }

    fn event(&mut self, event: Event) -> Result<(), ReactorError> {
        match event {
            Event::Accepted { listener, stream } if self.node_listener == Some(listener) => {
                self.place_node(stream);
            }
            Event::Accepted { stream, .. } => self.place(stream)?,
            Event::Connected { token } => self.node_connected(token),
            Event::AcceptFailed { error, .. } => {
                tracing::warn!(%error, "cannot accept connections; raise the limit of open files");
                self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
            }
            Event::Data { token, buffer } => {
                if !self.node_input(token, &buffer) {
                    self.input(token, &buffer);
                }
                self.reactor.recycle(buffer);
            }
            Event::Closed { token, error } => {
                if self.node_closed(token, error.as_ref()) {
                    return Ok(());
                }
                if let Some(client) = self.io.clients.by_token.get(&token).copied() {
                    if let Some(error) = error {
                        tracing::debug!(client = client.0, %error, "client connection broke");
                    }
                    self.client_gone(client);
                }
            }
            Event::Drained { .. } => {}
            Event::Woken => {}
        }
        Ok(())
    }

    /// Gives a new connection to the next shard in turn.
    fn place(&mut self, stream: OwnedFd) -> Result<(), ReactorError> {
        let home = ShardId(self.next_home);
        self.next_home = (self.next_home + 1) % self.shards;
        match self.io.peer(home) {
            Some(peer) => peer.send_reply(ToShard::Adopt(stream)),
            None => self.adopt(stream)?,
        }
        Ok(())
    }

    pub(super) fn adopt(&mut self, stream: OwnedFd) -> Result<(), ReactorError> {
        let pid = peer_pid(stream.as_fd()).unwrap_or(0);
        let token = self.reactor.add_stream(stream)?;
        let id = self.io.clients.add(token, pid, Assembly::new(CLIENT_FRAMING));
        let client = ClientRef { id, shard: self.id, pid };
        self.registry.add_client(client);
        self.io.control.send_reply(FromShard::Connected(client));
        Ok(())
    }

    pub(super) fn close_client(&mut self, id: ClientId) {
        if let Some(Client { token, .. }) = self.io.clients.by_id.get(&id) {
            self.reactor.close(*token);
            self.client_gone(id);
        }
    }

    fn client_gone(&mut self, id: ClientId) {
        self.io.clients.remove(id);
        self.registry.remove_client(id);
        self.engine.client_gone(id);
        self.io.control.send_reply(FromShard::Gone(id));
    }
}
