//! Nodes of shards in one process, joined over loopback; the test plays their control threads.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ringmaster_dataplane::{
    shard::{
        ShardId,
        lanes::{LaneSetup, owner_of_peer},
        message::{AckToken, Credit, FromShard, Order, RegistryChange, ToShard},
        outbox::{Inbox, Outbox},
        runtime::{self, ShardParts},
        statistics::{self, ShardStatistics},
    },
    view::{DatabaseView, NodeView},
};
use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, PacketStyle, Pnn, Reqid, Srvid,
    call::{CallFlags, CallId, ReqCall},
    capabilities::Capabilities,
    control::ControlOpcode,
    control_packet::{ControlFlags, ReplyControl, ReqControl},
    database::{DbFlags, TdbOpenFlags, VnnMap},
    header::Envelope,
    keepalive::SambaVersion,
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{DebugLevel, RecMode, RunState, Timeval},
    statistics::Statistics,
    tunable::{Tunable, TunableList},
};
use ringmaster_storage::{
    handle::Handle,
    ltdb::DatabaseKind,
    open::{OpenOptions, open},
};
use ringmaster_transport::{
    local::{Ownership, listen},
    reactor::ReactorKind,
    tcp::announce::Announcement,
};
use rustix::event::{EventfdFlags, eventfd};

pub(crate) const DB: DbId = DbId(77);
pub(crate) const GENERATION: Generation = Generation(9);
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn pnn(number: u32) -> Pnn {
    Pnn::new(number).expect("a number")
}

/// Of a packet of node `from` to node `to`.
pub(crate) fn envelope(from: u32, to: u32, reqid: u32) -> Envelope {
    Envelope {
        generation: GENERATION,
        destination: Destination::Node(pnn(to)),
        source: Destination::Node(pnn(from)),
        reqid: Reqid(reqid),
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) shards: u16,
    pub(crate) reactor: ReactorKind,
}

/// What a node is started with, besides its shape.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) tunables: TunableList,
    pub(crate) output_max: usize,
}

impl Terms {
    pub(crate) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, tunables: TunableList::default(), output_max: 64 * 1024 * 1024 }
    }

    pub(crate) fn tunable(mut self, tunable: Tunable, value: u32) -> Self {
        self.tunables.set(tunable, value);
        self
    }
}

/// Free places for this many nodes: 127.0.0.1, 127.0.0.2, …, each with a port of its own.
pub(crate) fn places(count: u8) -> Vec<TcpListener> {
    (1..=count)
        .map(|host| TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).expect("bound"))
        .collect()
}

pub(crate) struct Node {
    pub(crate) number: u32,
    pub(crate) shape: Shape,
    pub(crate) handle: Handle,
    /// What the shards have said to control and no test has looked at.
    pub(crate) said: Vec<FromShard>,
    pub(crate) view: NodeView,
    outboxes: Vec<Outbox<ToShard>>,
    control: Arc<Inbox<FromShard>>,
    threads: Vec<JoinHandle<()>>,
    next_token: u64,
    acks: Vec<AckToken>,
    statistics: Vec<ShardStatistics>,
    folder: tempfile::TempDir,
}

impl Node {
    pub(crate) fn start(number: u32, shape: Shape, terms: &Terms, listener: TcpListener) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bell = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
        let control = Inbox::new(4096, bell());
        let inboxes: Vec<_> = (0..shape.shards).map(|_| Inbox::new(4096, bell())).collect();
        let path = folder.path().join(format!("test.tdb.{number}"));
        let view = view(number, terms, &path);
        let published = Arc::new(view.clone());
        let threads = (0..shape.shards).map(|id| {
            let parts = ShardParts {
                id: ShardId(id),
                inboxes: inboxes.clone(),
                control: Arc::clone(&control),
                reactor: shape.reactor,
                view: Arc::clone(&published),
            };
            std::thread::spawn(move || runtime::run(parts))
        });
        let threads = threads.collect();
        let outboxes = inboxes.iter().map(|inbox| Outbox::new(Arc::clone(inbox), 1 << 16, 0));
        let options = OpenOptions::create(1_001, DatabaseKind::Volatile.tdb_flags(true));
        let mut node = Self {
            number,
            shape,
            handle: open(&path, &options).expect("a database"),
            said: Vec::new(),
            view,
            outboxes: outboxes.collect(),
            control,
            threads,
            next_token: 0,
            acks: Vec::new(),
            statistics: Vec::new(),
            folder,
        };
        node.begin(terms, listener);
        node
    }

    fn begin(&mut self, terms: &Terms, listener: TcpListener) {
        let database = Arc::clone(self.handle.database());
        self.order(|| Order::Attach {
            db: DB,
            flags: DbFlags::NONE,
            database: Arc::clone(&database),
            max_dead: 5,
            frozen: false,
        });
        let generation = GENERATION;
        self.order(|| Order::SetGeneration(DB, generation));
        let clients = listen(&self.socket(), Ownership::Unchanged).expect("listening");
        self.send(ShardId(0), ToShard::Listen(clients));
        let setup = LaneSetup {
            own: terms.addresses[self.number as usize].ip(),
            version: SambaVersion::new(4, 17),
            announcement: Announcement {
                version: 1,
                instance: u64::from(self.number) + 100,
                shards: self.shape.shards,
                transports: 1,
            },
            output_max: terms.output_max,
        };
        for shard in 0..self.shape.shards {
            self.send(ShardId(shard), ToShard::StartLanes(setup));
            self.send(ShardId(shard), ToShard::StartKeepalive);
        }
        self.send(ShardId(0), ToShard::ListenNodes(listener.into()));
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("ctdbd.socket")
    }

    pub(crate) fn send(&mut self, shard: ShardId, message: ToShard) {
        self.outboxes[usize::from(shard.0)].send(message);
    }

    /// Sends a packet of control's to another node.
    pub(crate) fn send_node(
        &mut self,
        to: u32,
        reqid: u32,
        packet: &Packet<'_>,
        credit: Option<Credit>,
    ) {
        let mut bytes = Vec::new();
        packet.encode_into(&mut bytes, envelope(self.number, to, reqid), PacketStyle::Daemon);
        let shard = owner_of_peer(pnn(to), self.shape.shards);
        let to = pnn(to);
        self.send(shard, ToShard::ToNode { to, bytes: bytes.into(), credit });
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).expect("connected");
        stream.set_nonblocking(true).expect("set");
        Client { stream, buffer: Vec::new() }
    }

    /// Gives an order to all shards and waits until all have acknowledged it.
    pub(crate) fn order(&mut self, order: impl Fn() -> Order) {
        self.next_token += 1;
        let token = AckToken(self.next_token);
        for outbox in &mut self.outboxes {
            outbox.send(ToShard::Order(token, order()));
        }
        let start = Instant::now();
        while self.acks.iter().filter(|acked| **acked == token).count() < self.outboxes.len() {
            assert!(start.elapsed() < PATIENCE, "shards do not acknowledge");
            self.step();
        }
        self.acks.retain(|acked| *acked != token);
    }

    /// Takes what the shards have said and does what control would.
    pub(crate) fn step(&mut self) {
        for outbox in &mut self.outboxes {
            outbox.flush();
        }
        while let Some(message) = self.control.pop() {
            match message {
                FromShard::Ack { token, done, .. } => {
                    assert!(done, "a shard has refused an order");
                    self.acks.push(token);
                }
                FromShard::Connected(client) => self.change(RegistryChange::Connected(client)),
                FromShard::Gone(id) => self.change(RegistryChange::Gone(id)),
                FromShard::Statistics { statistics, .. } => self.statistics.push(*statistics),
                FromShard::Control(control) => self.client_control(&control),
                FromShard::Stopped { error, .. } => assert_eq!(error, None),
                other => self.said.push(other),
            }
        }
    }

    fn change(&mut self, change: RegistryChange) {
        for outbox in &mut self.outboxes {
            outbox.send(ToShard::Order(AckToken(0), Order::Registry(change)));
        }
    }

    /// Registrations are all that clients may ask of control here.
    fn client_control(&mut self, control: &ringmaster_dataplane::shard::message::ClientControl) {
        let id = control.client.id;
        match ControlOpcode(control.opcode) {
            ControlOpcode::REGISTER_SRVID => {
                self.change(RegistryChange::Register(control.srvid, id));
            }
            ControlOpcode::TUNNEL_REGISTER => {
                self.change(RegistryChange::RegisterTunnel(control.srvid.0, id));
            }
            other => panic!("a client asks for {other}"),
        }
        let mut bytes = Vec::new();
        let mut envelope = envelope(self.number, 0, control.reqid.0);
        envelope.destination = Destination::from_raw(0);
        let reply = Packet::ReplyControl(ReplyControl::new(0, b""));
        reply.encode_into(&mut bytes, envelope, PacketStyle::Daemon);
        // Behind the registration in every shard's inbox, and after all have seen it.
        self.order(|| Order::Barrier);
        self.send(control.client.shard, ToShard::Packet { client: id, bytes: bytes.into() });
    }

    pub(crate) fn add_up(&mut self) -> Statistics {
        self.statistics.clear();
        self.order(|| Order::Statistics);
        let mut total = Statistics::default();
        statistics::add_up(&mut total, &self.statistics);
        total
    }

    /// Takes the first thing said that is wanted.
    pub(crate) fn take<T>(&mut self, wanted: impl Fn(&FromShard) -> Option<T>) -> Option<T> {
        self.step();
        let at = self.said.iter().position(|said| wanted(said).is_some())?;
        wanted(&self.said.remove(at))
    }

    pub(crate) fn heard_up(&mut self, node: u32) -> bool {
        self.take(|said| matches!(said, FromShard::NodeUp(up) if *up == pnn(node)).then_some(()))
            .is_some()
    }

    pub(crate) fn heard_down(&mut self, node: u32) -> bool {
        self.take(|said| matches!(said, FromShard::NodeDown(up) if *up == pnn(node)).then_some(()))
            .is_some()
    }

    /// `REQ_CONTROL` or `REPLY_CONTROL` that has come in.
    pub(crate) fn heard_control(&mut self) -> Option<Box<[u8]>> {
        self.take(|said| match said {
            FromShard::NodeControl(bytes) => Some(bytes.clone()),
            _ => None,
        })
    }

    pub(crate) fn stop(mut self) {
        for outbox in &mut self.outboxes {
            outbox.send(ToShard::Stop);
        }
        while !self.threads.iter().all(JoinHandle::is_finished) {
            self.step();
            std::thread::sleep(Duration::from_millis(1));
        }
        for thread in self.threads {
            thread.join().expect("a shard ends in order");
        }
    }
}

fn view(number: u32, terms: &Terms, path: &std::path::Path) -> NodeView {
    let numbers = 0..u32::try_from(terms.addresses.len()).expect("few nodes");
    let nodes = numbers.clone().zip(&terms.addresses).map(|(number, address)| NodeAndFlags {
        pnn: pnn(number),
        flags: NodeFlags::NONE,
        addr: (*address).into(),
    });
    NodeView {
        pnn: pnn(number),
        daemon_pid: 4242,
        vnn_map: VnnMap { generation: GENERATION, map: numbers.map(pnn).collect() },
        nodes: NodeMap(nodes.collect()),
        run_state: RunState::Running,
        recovery_mode: RecMode::Normal,
        capabilities: Capabilities::NONE,
        tunables: terms.tunables.clone(),
        debug_level: DebugLevel(2),
        started: Timeval::default(),
        recovery_started: Timeval::default(),
        recovery_finished: Timeval::default(),
        databases: vec![Arc::new(DatabaseView {
            id: DB,
            name: "test.tdb".into(),
            path: path.to_path_buf(),
            flags: DbFlags::NONE,
            open_flags: TdbOpenFlags::NONE,
            generation: GENERATION,
        })],
    }
}

/// Goes round all nodes until `done` says so.
pub(crate) fn until<T>(
    nodes: &mut [Node],
    what: &str,
    mut done: impl FnMut(&mut [Node]) -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        for node in &mut *nodes {
            node.step();
        }
        if let Some(result) = done(nodes) {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: nothing came of it");
        std::thread::sleep(Duration::from_micros(200));
    }
}

pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn send(&mut self, to: Destination, reqid: u32, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        let envelope = Envelope {
            generation: Generation(0),
            destination: to,
            source: Destination::Unknown,
            reqid: Reqid(reqid),
        };
        packet.encode_into(&mut bytes, envelope, PacketStyle::Exact);
        self.stream.set_nonblocking(false).expect("set");
        self.stream.write_all(&bytes).expect("sent");
        self.stream.set_nonblocking(true).expect("set");
    }

    pub(crate) fn register(&mut self, reqid: u32, opcode: ControlOpcode, srvid: u64) {
        let control = ReqControl {
            opcode: opcode.0,
            srvid: Srvid(srvid),
            client_id: 0,
            flags: ControlFlags::NONE,
            data: b"",
        };
        self.send(Destination::Current, reqid, &Packet::ReqControl(control));
    }

    pub(crate) fn call(&mut self, reqid: u32, callid: CallId, key: &[u8]) {
        let flags = CallFlags::IMMEDIATE_MIGRATION;
        let call = ReqCall { flags, db: DB, callid, hopcount: 0, key, calldata: b"" };
        self.send(Destination::Current, reqid, &Packet::ReqCall(call));
    }

    /// The next packet of the daemon, if it is there.
    pub(crate) fn packet(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(word) = self.buffer.first_chunk::<4>() {
                let len = u32::from_le_bytes(*word) as usize;
                if self.buffer.len() >= len {
                    return Some(self.buffer.drain(..len).collect());
                }
            }
            let mut more = [0; 65_536];
            match self.stream.read(&mut more) {
                Ok(0) => panic!("the daemon has closed"),
                Ok(len) => self.buffer.extend_from_slice(&more[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}
