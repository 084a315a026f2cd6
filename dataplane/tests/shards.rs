//! Shards for real: threads, unix sockets, TDB files; a few lines stand in for the control thread.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ringmaster_dataplane::{
    shard::{
        ShardId,
        message::{AckToken, FromShard, Order, RegistryChange, ToShard},
        outbox::{Inbox, Outbox},
        runtime::{self, ShardParts},
        statistics::{self, ShardStatistics},
        updates::CopyUpdates,
    },
    view::{DatabaseView, NodeView},
};
use ringmaster_protocol::{
    DbId, Destination, Generation, Packet, PacketStyle, Pnn, Reqid, Rsn, Srvid,
    call::{CallFlags, CallId, ReqCall},
    capabilities::Capabilities,
    control::ControlOpcode,
    control_packet::{ControlFlags, ReplyControl, ReqControl},
    database::{DbFlags, TdbOpenFlags, VnnMap},
    header::Envelope,
    message::ReqMessage,
    node::{NodeAndFlags, NodeFlags, NodeMap},
    process::{DebugLevel, RecMode, RunState, Timeval},
    record::{Dmaster, RecBufferBuilder, RecordFlags, RecordHeader},
    statistics::Statistics,
    tunable::TunableList,
};
use ringmaster_storage::{
    chain::{StoreMode, Stored},
    flags::Flags,
    format::{MAGIC_RECOVERY, RECOVERY_HEAD},
    handle::Handle,
    lock::{FileLocks, LockKind, Locks, TryLock, Wait},
    ltdb::DatabaseKind,
    open::{OpenOptions, open},
    store::Store,
};
use ringmaster_transport::{
    local::{Ownership, listen},
    reactor::ReactorKind,
};
use rustix::event::{EventfdFlags, eventfd};

const DB: DbId = DbId(77);
const PATIENCE: Duration = Duration::from_secs(20);

fn pnn() -> Pnn {
    Pnn::new(0).expect("a number")
}

fn view(folder: &Path, databases: Vec<Arc<DatabaseView>>) -> Arc<NodeView> {
    let _ = folder;
    Arc::new(NodeView {
        pnn: pnn(),
        daemon_pid: 4242,
        vnn_map: VnnMap { generation: Generation(9), map: vec![pnn()] },
        nodes: NodeMap(vec![NodeAndFlags {
            pnn: pnn(),
            flags: NodeFlags::NONE,
            addr: std::net::SocketAddr::from(([127, 0, 0, 1], 4379)).into(),
        }]),
        run_state: RunState::Running,
        recovery_mode: RecMode::Normal,
        capabilities: Capabilities::NONE,
        tunables: TunableList::default(),
        debug_level: DebugLevel(2),
        started: Timeval::default(),
        recovery_started: Timeval::default(),
        recovery_finished: Timeval::default(),
        databases,
    })
}

/// Shards with a control thread that acknowledges what clients do and refuses all controls but the
/// registration of srvids.
struct Node {
    folder: tempfile::TempDir,
    outboxes: Vec<Outbox<ToShard>>,
    control: Arc<Inbox<FromShard>>,
    threads: Vec<JoinHandle<()>>,
    next_token: u64,
    acks: BTreeMap<AckToken, Vec<bool>>,
    statistics: Vec<ShardStatistics>,
    handle: Handle,
}

impl Node {
    fn start(shards: u16, reactor: ReactorKind, kind: DatabaseKind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bell = || eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
        let control = Inbox::new(4096, bell());
        let inboxes: Vec<_> = (0..shards).map(|_| Inbox::new(4096, bell())).collect();
        let database = Arc::new(DatabaseView {
            id: DB,
            name: "test.tdb".into(),
            path: folder.path().join("test.tdb.0"),
            flags: DbFlags::NONE,
            open_flags: TdbOpenFlags::NONE,
            generation: Generation(9),
        });
        let view = view(folder.path(), vec![database]);
        let threads = (0..shards)
            .map(|id| {
                let parts = ShardParts {
                    id: ShardId(id),
                    inboxes: inboxes.clone(),
                    control: Arc::clone(&control),
                    reactor,
                    view: Arc::clone(&view),
                };
                std::thread::spawn(move || runtime::run(parts))
            })
            .collect();
        let outboxes = inboxes.iter().map(|inbox| Outbox::new(Arc::clone(inbox), 1 << 16, 0));
        let handle = open(
            &folder.path().join("test.tdb.0"),
            &OpenOptions::create(1_001, kind.tdb_flags(true)),
        )
        .expect("a database");
        let mut node = Self {
            outboxes: outboxes.collect(),
            control,
            threads,
            next_token: 0,
            acks: BTreeMap::new(),
            statistics: Vec::new(),
            handle,
            folder,
        };
        let database = Arc::clone(node.handle.database());
        node.order(|| Order::Attach {
            db: DB,
            flags: DbFlags::NONE,
            database: Arc::clone(&database),
            max_dead: 5,
            frozen: false,
        });
        let listener = listen(&node.socket(), Ownership::Unchanged).expect("listening");
        node.outboxes[0].send(ToShard::Listen(listener));
        node
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("ctdbd.socket")
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.socket()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        Client { stream, buffer: Vec::new() }
    }

    /// Gives an order to all shards and waits until all have carried it out.
    fn order(&mut self, order: impl Fn() -> Order) {
        let token = self.give(order);
        assert!(self.acknowledged(token));
    }

    fn give(&mut self, order: impl Fn() -> Order) -> AckToken {
        self.next_token += 1;
        let token = AckToken(self.next_token);
        for outbox in &mut self.outboxes {
            outbox.send(ToShard::Order(token, order()));
        }
        token
    }

    /// Waits until all shards have acknowledged an order; whether all could do it.
    fn acknowledged(&mut self, token: AckToken) -> bool {
        let start = Instant::now();
        while self.acks.get(&token).is_none_or(|acks| acks.len() < self.outboxes.len()) {
            assert!(start.elapsed() < PATIENCE, "shards do not acknowledge");
            if self.step().is_none() {
                std::thread::yield_now();
            }
        }
        self.acks[&token].iter().all(|done| *done)
    }

    /// Takes one message of the shards and does what control would.
    fn step(&mut self) -> Option<FromShard> {
        for outbox in &mut self.outboxes {
            outbox.flush();
        }
        let message = self.control.pop()?;
        match &message {
            FromShard::Connected(client) => {
                self.tell_all(Order::Registry(RegistryChange::Connected(*client)));
            }
            FromShard::Ack { token, done, .. } => self.acks.entry(*token).or_default().push(*done),
            FromShard::Gone(id) => self.tell_all(Order::Registry(RegistryChange::Gone(*id))),
            FromShard::Statistics { statistics, .. } => {
                self.statistics.push((**statistics).clone());
            }
            FromShard::Control(control) => {
                let status = if ControlOpcode(control.opcode) == ControlOpcode::REGISTER_SRVID {
                    let id = control.client.id;
                    self.tell_all(Order::Registry(RegistryChange::Register(control.srvid, id)));
                    0
                } else {
                    -1
                };
                let mut bytes = Vec::new();
                let reply = ReplyControl { status, data: b"", error: b"refused" };
                let envelope = Envelope {
                    generation: Generation(9),
                    destination: Destination::from_raw(0),
                    source: Destination::Node(pnn()),
                    reqid: control.reqid,
                };
                Packet::ReplyControl(reply).encode_into(&mut bytes, envelope, PacketStyle::Daemon);
                let (shard, client) = (usize::from(control.client.shard.0), control.client.id);
                // Behind the registration in every shard's inbox.
                self.outboxes[shard].send(ToShard::Packet { client, bytes: bytes.into() });
            }
            FromShard::Stopped { error, .. } => assert_eq!(*error, None),
            _ => {}
        }
        Some(message)
    }

    fn tell_all(&mut self, order: Order) {
        let Order::Registry(change) = order else { panic!("only registry changes") };
        for outbox in &mut self.outboxes {
            outbox.send(ToShard::Order(AckToken(0), Order::Registry(change)));
        }
    }

    /// Runs `work` in a thread of its own while this one plays control.
    fn during<R: Send + 'static>(&mut self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let thread = std::thread::spawn(work);
        while !thread.is_finished() {
            if self.step().is_none() {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        thread.join().expect("the client's part")
    }

    fn add_up(&mut self) -> Statistics {
        self.statistics.clear();
        self.order(|| Order::Statistics);
        let mut total = Statistics::default();
        statistics::add_up(&mut total, &self.statistics);
        total
    }

    fn stop(mut self) {
        for outbox in &mut self.outboxes {
            outbox.send(ToShard::Stop);
        }
        for thread in std::mem::take(&mut self.threads) {
            thread.join().expect("a shard ends in order");
        }
        while self.step().is_some() {}
    }
}

struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    fn send(&mut self, reqid: u32, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        let envelope = Envelope {
            generation: Generation(0),
            destination: Destination::Current,
            source: Destination::Unknown,
            reqid: Reqid(reqid),
        };
        packet.encode_into(&mut bytes, envelope, PacketStyle::Exact);
        self.stream.write_all(&bytes).expect("sent");
    }

    fn control(&mut self, reqid: u32, opcode: ControlOpcode, srvid: Srvid, data: &[u8]) {
        let flags = ControlFlags::NONE;
        let control = ReqControl { opcode: opcode.0, srvid, client_id: 0, flags, data };
        self.send(reqid, &Packet::ReqControl(control));
    }

    fn call(&mut self, reqid: u32, callid: CallId, key: &[u8]) {
        let flags = CallFlags::IMMEDIATE_MIGRATION;
        let call = ReqCall { flags, db: DB, callid, hopcount: 0, key, calldata: b"" };
        self.send(reqid, &Packet::ReqCall(call));
    }

    fn message(&mut self, srvid: u64, data: &[u8]) {
        self.send(0, &Packet::ReqMessage(ReqMessage { srvid: Srvid(srvid), data }));
    }

    /// Next packet of the daemon, as bytes.
    fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Some(word) = self.buffer.first_chunk::<4>() {
                let len = u32::from_le_bytes(*word) as usize;
                if self.buffer.len() >= len {
                    return self.buffer.drain(..len).collect();
                }
            }
            let mut more = [0; 65_536];
            let len = self.stream.read(&mut more).expect("bytes in time");
            assert_ne!(len, 0, "the daemon has closed");
            self.buffer.extend_from_slice(&more[..len]);
        }
    }

    fn control_reply(&mut self) -> (u32, i32, Vec<u8>) {
        let bytes = self.packet();
        let (header, packet) = Packet::decode(&bytes).expect("a packet");
        assert_eq!(header.envelope.source, Destination::Node(pnn()));
        assert_eq!(header.envelope.destination, Destination::from_raw(0));
        let Packet::ReplyControl(reply) = packet else { panic!("{packet:?}") };
        (header.envelope.reqid.0, reply.status, reply.data.to_vec())
    }

    fn call_reply(&mut self) -> (u32, i32, Vec<u8>) {
        let bytes = self.packet();
        let (header, packet) = Packet::decode(&bytes).expect("a packet");
        let Packet::ReplyCall(reply) = packet else { panic!("{packet:?}") };
        (header.envelope.reqid.0, reply.status, reply.data.to_vec())
    }
}

/// Every number of shards on every reactor.
fn everywhere(case: fn(Node)) {
    for (shards, reactor) in [
        (1, ReactorKind::Epoll),
        (2, ReactorKind::Auto),
        (4, ReactorKind::Epoll),
        (1, ReactorKind::Auto),
    ] {
        case(Node::start(shards, reactor, DatabaseKind::Volatile));
    }
}

#[test]
fn simple_questions_are_answered_from_the_view() {
    everywhere(|mut node| {
        let mut client = node.connect();
        let client = node.during(move || {
            client.control(1, ControlOpcode::GET_PNN, Srvid(0), b"");
            assert_eq!(client.control_reply(), (1, 0, vec![]));
            client.control(2, ControlOpcode::GET_PID, Srvid(0), b"");
            assert_eq!(client.control_reply(), (2, 4242, vec![]));
            client.control(3, ControlOpcode::GET_DBNAME, Srvid(0), &DB.0.to_le_bytes());
            assert_eq!(client.control_reply(), (3, 0, b"test.tdb\0".to_vec()));
            client.control(4, ControlOpcode::GET_DBNAME, Srvid(0), &[1, 2, 3, 4]);
            assert_eq!(client.control_reply(), (4, -1, vec![]));
            client.control(5, ControlOpcode::STATISTICS, Srvid(0), b"");
            assert_eq!(client.control_reply(), (5, -1, vec![]), "control's business");
            client
        });
        let total = node.add_up();
        assert_eq!((total.num_clients, total.client.req_control), (1, 5));
        assert_eq!(total.client_packets_recv, 5);
        drop(client);
        node.stop();
    });
}

#[test]
fn calls_for_all_chains_are_answered_and_records_stored() {
    everywhere(|mut node| {
        let mut client = node.connect();
        node.during(move || {
            for number in 0..200_u32 {
                client.call(number + 1, CallId::NULL, format!("key-{number}").as_bytes());
            }
            let mut answered: Vec<u32> = (0..200).map(|_| client.call_reply().0).collect();
            answered.sort_unstable();
            assert!(answered.iter().copied().eq(1..=200));
        });
        let mut value = Vec::new();
        for number in 0..200 {
            let found = node.handle.fetch(format!("key-{number}").as_bytes(), &mut value);
            assert!(found.expect("readable"), "key-{number}");
            let (header, data) = RecordHeader::split(&value).expect("a header");
            // Invented and stored (1), stored by the call (2).
            assert_eq!((header.rsn.0, header.dmaster.raw(), data.len()), (2, 0, 0));
        }
        // As in C, a call is counted again when it had to wait for its chain.
        assert!(node.add_up().total_calls >= 200);
        node.stop();
    });
}

#[test]
fn a_call_waits_for_a_chain_that_another_process_holds() {
    for kind in [DatabaseKind::Volatile, DatabaseKind::Replicated] {
        let mut node = Node::start(2, ReactorKind::Auto, kind);
        let mut client = node.connect();
        let chain = node.handle.database().chain_of(b"busy");
        node.handle.lock_chain(chain, LockKind::Write).expect("locked").keep();
        client.call(1, CallId::NULL, b"busy");
        client.call(2, CallId::NULL, b"busy");
        // Another chain is not held up.
        client.call(3, CallId::NULL, b"other");
        let mut client = node.during(move || {
            assert_eq!(client.call_reply().0, 3);
            client
        });
        let start = Instant::now();
        while node.add_up().locks.num_current == 0 {
            assert!(start.elapsed() < PATIENCE, "nobody waits for the chain");
        }
        let header = RecordHeader {
            rsn: ringmaster_protocol::Rsn(50),
            dmaster: Dmaster::from(pnn()),
            flags: RecordFlags::NONE,
        };
        let mut locked = node.handle.resume_chain(chain);
        let stored = locked.store(b"busy", &[&header.to_array(), b"smbd"], StoreMode::Replace);
        let _ = stored.expect("stored");
        locked.unlock().expect("unlocked");
        node.during(move || {
            assert_eq!(client.call_reply().0, 1);
            assert_eq!(client.call_reply().0, 2);
            client.call(4, CallId::FETCH, b"busy");
            assert_eq!(client.call_reply(), (4, 0, b"smbd".to_vec()));
        });
        let total = node.add_up();
        assert!(total.locks.num_calls >= 1, "{:?}", total.locks);
        assert_eq!(total.locks.num_current, 0);
        node.stop();
    }
}

#[test]
fn a_frozen_database_answers_after_the_thaw() {
    everywhere(|mut node| {
        let mut client = node.connect();
        node.order(|| Order::Freeze(DB));
        for number in 0..20_u32 {
            client.call(number + 1, CallId::NULL, format!("key-{number}").as_bytes());
        }
        client.control(99, ControlOpcode::GET_PNN, Srvid(0), b"");
        let mut client = node.during(move || {
            assert_eq!(client.control_reply().0, 99, "controls are answered meanwhile");
            client
        });
        node.order(|| Order::Thaw(DB, Some(Generation(9))));
        node.during(move || {
            let mut answered: Vec<u32> = (0..20).map(|_| client.call_reply().0).collect();
            answered.sort_unstable();
            assert!(answered.iter().copied().eq(1..=20));
        });
        node.stop();
    });
}

#[test]
fn messages_of_one_client_to_another_keep_their_order() {
    everywhere(|mut node| {
        let mut receivers: Vec<Client> = (0..4).map(|_| node.connect()).collect();
        let mut sender = node.connect();
        node.during(move || {
            for receiver in &mut receivers {
                receiver.control(1, ControlOpcode::REGISTER_SRVID, Srvid(5), b"");
                assert_eq!(receiver.control_reply(), (1, 0, vec![]));
            }
            // The registration has reached the sender's shard when its own answer has come.
            sender.control(1, ControlOpcode::REGISTER_SRVID, Srvid(6), b"");
            assert_eq!(sender.control_reply().1, 0);
            for number in 0..1_000_u32 {
                sender.message(5, &number.to_le_bytes());
            }
            for receiver in &mut receivers {
                for number in 0..1_000_u32 {
                    let bytes = receiver.packet();
                    let (_, packet) = Packet::decode(&bytes).expect("a packet");
                    let Packet::ReqMessage(message) = packet else { panic!("{packet:?}") };
                    assert_eq!(
                        (message.srvid, message.data),
                        (Srvid(5), &number.to_le_bytes()[..])
                    );
                }
            }
        });
        node.stop();
    });
}

#[test]
fn garbage_costs_its_sender_the_connection_and_nobody_else() {
    everywhere(|mut node| {
        let mut good = node.connect();
        let mut bad = node.connect();
        bad.stream.write_all(&[0; 64]).expect("sent");
        let mut half = node.connect();
        half.stream.write_all(&60_u32.to_le_bytes()).expect("sent");
        drop(half);
        node.during(move || {
            let ended = bad.stream.read(&mut [0; 1]);
            assert!(ended.is_ok_and(|len| len == 0), "a length of 0 ends the stream");
            good.control(1, ControlOpcode::GET_PNN, Srvid(0), b"");
            assert_eq!(good.control_reply().0, 1);
            // A bad magic is skipped, as in C.
            let mut bytes = Vec::new();
            let envelope = Envelope {
                generation: Generation(0),
                destination: Destination::Current,
                source: Destination::Unknown,
                reqid: Reqid(7),
            };
            let control = ReqControl {
                opcode: ControlOpcode::GET_PNN.0,
                srvid: Srvid(0),
                client_id: 0,
                flags: ControlFlags::NONE,
                data: b"",
            };
            Packet::ReqControl(control).encode_into(&mut bytes, envelope, PacketStyle::Exact);
            bytes[4] ^= 0xFF;
            good.stream.write_all(&bytes).expect("sent");
            good.control(8, ControlOpcode::GET_PNN, Srvid(0), b"");
            assert_eq!(good.control_reply().0, 8);
        });
        node.stop();
    });
}

#[test]
fn clients_that_vanish_in_the_middle_leave_nothing_behind() {
    everywhere(|mut node| {
        for round in 0..50_u32 {
            let mut client = node.connect();
            client.control(1, ControlOpcode::REGISTER_SRVID, Srvid(u64::from(round)), b"");
            client.call(2, CallId::NULL, &round.to_le_bytes());
            drop(client);
        }
        let start = Instant::now();
        while node.add_up().num_clients > 0 {
            assert!(start.elapsed() < PATIENCE, "clients stay");
        }
        node.stop();
    });
}

/// smbd's flags, as `DB_OPEN_FLAGS` names them, open the same file.
#[test]
fn a_client_opens_the_file_with_the_daemons_flags() {
    let node = Node::start(1, ReactorKind::Auto, DatabaseKind::Volatile);
    let flags = node.handle.flags();
    assert!(flags.contains(Flags::CLEAR_IF_FIRST | Flags::MUTEX_LOCKING));
    let mut theirs =
        open(&node.folder.path().join("test.tdb.0"), &OpenOptions::existing(flags)).expect("open");
    assert!(!theirs.exists(b"none").expect("readable"), "the daemon's lock kept the file");
    node.stop();
}

#[test]
fn a_record_that_a_busy_freelist_keeps_out_of_the_file_is_never_lost() {
    for kind in [DatabaseKind::Volatile, DatabaseKind::Replicated] {
        let mut node = Node::start(2, ReactorKind::Auto, kind);
        let mut client = node.connect();
        let chain = node.handle.database().chain_of(b"new");
        let granted = node.handle.locks().lock_freelist(Wait::Yes).expect("locked");
        assert_eq!(granted, TryLock::Granted);
        client.call(1, CallId::NULL, b"new");
        let mut client = node.during(move || {
            assert_eq!(client.call_reply().0, 1, "the shard does not wait");
            client.call(2, CallId::NULL, b"new");
            client.control(3, ControlOpcode::GET_PNN, Srvid(0), b"");
            assert_eq!(client.control_reply().0, 3, "the second call waits, and only it");
            client
        });
        let mut stranger = node.handle.database().handle().expect("a handle");
        let tried = stranger.try_lock_chain(chain, LockKind::Read).expect("tried");
        assert!(tried.is_none(), "nobody sees the file without the record");
        drop(tried);
        node.handle.locks().unlock_freelist().expect("unlocked");
        node.during(move || {
            assert_eq!(client.call_reply().0, 2);
            client.call(4, CallId::FETCH, b"new");
            assert_eq!(client.call_reply(), (4, 0, Vec::new()));
        });
        let mut value = Vec::new();
        assert!(stranger.fetch(b"new", &mut value).expect("readable"));
        let (header, _) = RecordHeader::split(&value).expect("a header");
        // Invented and stored (1), stored by each of three calls: none has been lost.
        assert_eq!((header.rsn.0, header.dmaster.raw()), (4, 0));
        node.stop();
    }
}

#[test]
fn a_freeze_waits_for_records_that_a_busy_freelist_keeps_out_of_the_file() {
    let mut node = Node::start(1, ReactorKind::Auto, DatabaseKind::Volatile);
    let mut client = node.connect();
    let _granted = node.handle.locks().lock_freelist(Wait::Yes).expect("locked");
    client.call(1, CallId::NULL, b"new");
    node.during(move || assert_eq!(client.call_reply().0, 1));
    node.order(|| Order::Freeze(DB));
    let database = Arc::clone(node.handle.database());
    // What a worker does after the freeze of the shards.
    let found = std::thread::spawn(move || {
        let mut worker = database.handle().expect("a handle");
        let locked = worker.locks().lock_all_records(LockKind::Write, Wait::Yes);
        let _granted = locked.expect("locked");
        let found = worker.exists(b"new").expect("readable");
        worker.locks().unlock_all_records().expect("unlocked");
        found
    });
    assert!(!found.is_finished(), "the chain is still the shard's");
    node.handle.locks().unlock_freelist().expect("unlocked");
    assert!(found.join().expect("the worker's part"));
    node.stop();
}

#[test]
fn a_commit_that_somebody_died_in_is_undone_before_a_record_is_touched() {
    let mut node = Node::start(2, ReactorKind::Auto, DatabaseKind::Replicated);
    let deadline = Instant::now() + PATIENCE;
    let header = RecordHeader {
        rsn: ringmaster_protocol::Rsn(50),
        dmaster: Dmaster::from(pnn()),
        flags: RecordFlags::NONE,
    };
    let half = [&header.to_array()[..], b"half"].concat();
    node.handle
        .in_transaction(deadline, |session, handle| {
            let stored = session.store(handle, b"key", &[&half], StoreMode::Replace)?;
            assert_eq!(stored, Stored::Done);
            Ok(())
        })
        .expect("committed");
    // As if the process had died after writing and before it marked the commit as done.
    let store = node.handle.database().store();
    let area = store.read_u32(RECOVERY_HEAD).expect("readable");
    assert_ne!(area, 0, "the transaction has left its recovery area");
    store.write_u32(area + 20, MAGIC_RECOVERY).expect("written");
    let mut client = node.connect();
    client.call(1, CallId::FETCH, b"key");
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "the shard does not say that a commit crashed");
        match node.step() {
            Some(FromShard::Crashed(db)) => {
                assert_eq!(db, DB);
                break;
            }
            Some(FromShard::Broken { error, .. }) => panic!("{error}"),
            _ => std::thread::yield_now(),
        }
    }
    node.handle.recover().expect("undone");
    node.order(|| Order::Recovered(DB));
    node.during(move || assert_eq!(client.call_reply(), (1, 0, Vec::new())));
    node.stop();
}

fn copy_header(rsn: u64, flags: RecordFlags) -> RecordHeader {
    let dmaster = Dmaster::from(Pnn::new(1).expect("a number"));
    RecordHeader { rsn: Rsn(rsn), dmaster, flags }
}

/// What another node sends to call its copies back.
fn revoke(keys: &[Vec<u8>], generation: u32) -> Order {
    let mut buffer = RecBufferBuilder::new(DB);
    for key in keys {
        buffer.push_with_header(0, key, &copy_header(6, RecordFlags::NONE), b"new");
    }
    let (generation, buffer) = (Generation(generation), buffer.into_bytes());
    Order::UpdateCopies(Arc::new(CopyUpdates { db: DB, generation, buffer }))
}

fn copies(node: &mut Node, count: u32) -> Vec<Vec<u8>> {
    let keys: Vec<Vec<u8>> = (0..count).map(|number| number.to_le_bytes().to_vec()).collect();
    for key in &keys {
        let header = copy_header(5, RecordFlags::RO_HAVE_READONLY);
        let mut locked = node.handle.lock_key(key, LockKind::Write).expect("locked");
        let stored = locked.store_record(key, header, b"old").expect("stored");
        assert_eq!(stored, Stored::Done);
    }
    keys
}

fn value_of(node: &mut Node, key: &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    let record = node.handle.fetch_record(key, &mut value).expect("readable").expect("there");
    record.data.to_vec()
}

#[test]
fn copies_are_called_back_by_the_owners_of_their_chains() {
    everywhere(|mut node| {
        let keys = copies(&mut node, 40);
        let late = node.give(|| revoke(&keys, 8));
        assert!(!node.acknowledged(late), "of another generation");
        assert_eq!(value_of(&mut node, &keys[0]), b"old");
        node.order(|| revoke(&keys, 9));
        for key in &keys {
            assert_eq!(value_of(&mut node, key), b"new");
        }
        node.stop();
    });
}

#[test]
fn a_copy_whose_chain_is_busy_is_called_back_when_it_is_free_and_no_shard_waits() {
    everywhere(|mut node| {
        let keys = copies(&mut node, 8);
        let chain = node.handle.database().chain_of(&keys[0]);
        node.handle.lock_chain(chain, LockKind::Write).expect("locked").keep();
        let order = node.give(|| revoke(&keys, 9));
        node.order(|| Order::Barrier);
        node.handle.unlock_chain(chain).expect("unlocked");
        assert!(node.acknowledged(order));
        assert_eq!(value_of(&mut node, &keys[0]), b"new");
        node.stop();
    });
}

#[test]
fn a_copy_to_be_called_back_is_given_up_with_its_database() {
    everywhere(|mut node| {
        let keys = copies(&mut node, 8);
        let chain = node.handle.database().chain_of(&keys[0]);
        node.handle.lock_chain(chain, LockKind::Write).expect("locked").keep();
        let order = node.give(|| revoke(&keys, 9));
        let detach = node.give(|| Order::Detach(DB));
        assert!(!node.acknowledged(order));
        assert!(node.acknowledged(detach));
        node.handle.unlock_chain(chain).expect("unlocked");
        node.stop();
    });
}

/// The database of the name's clients is attached by another node, whose first call follows at once.
#[test]
fn a_call_of_another_node_waits_for_its_database() {
    everywhere(|mut node| {
        let late = DbId(78);
        let path = node.folder.path().join("late.tdb.0");
        let options = OpenOptions::create(1_001, DatabaseKind::Volatile.tdb_flags(true));
        let mut handle = open(&path, &options).expect("a database");
        for (number, outbox) in node.outboxes.iter_mut().enumerate() {
            let key = [b'0' + u8::try_from(number).expect("few shards")];
            let flags = CallFlags::IMMEDIATE_MIGRATION;
            let callid = CallId::NULL;
            let call = ReqCall { flags, db: late, callid, hopcount: 0, key: &key, calldata: b"" };
            let envelope = Envelope {
                generation: Generation(9),
                destination: Destination::Node(pnn()),
                source: Destination::Node(peer()),
                reqid: Reqid(5),
            };
            let mut bytes = Vec::new();
            Packet::ReqCall(call).encode_into(&mut bytes, envelope, PacketStyle::Daemon);
            outbox.send(ToShard::NodePacket(bytes.into()));
        }
        node.order(|| Order::Barrier);
        let database = Arc::clone(handle.database());
        node.order(|| Order::Attach {
            db: late,
            flags: DbFlags::NONE,
            database: Arc::clone(&database),
            max_dead: 5,
            frozen: false,
        });
        // Every call has moved its record to the node that it came from.
        let start = Instant::now();
        for number in 0..node.outboxes.len() {
            let key = [b'0' + u8::try_from(number).expect("few shards")];
            loop {
                let mut value = Vec::new();
                let record = handle.fetch_record(&key, &mut value).expect("readable");
                if record.is_some_and(|record| record.header.dmaster == Dmaster::from(peer())) {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "the call of key {number} is lost");
                node.step();
            }
        }
        node.stop();
    });
}

fn peer() -> Pnn {
    Pnn::new(1).expect("a number")
}
