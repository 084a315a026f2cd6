//! Thousands of clients and very many records: what they cost our daemon beside C's.
//!
//! 1,000 clients and 20,000 records; in soak (`RINGMASTER_SOAK=1`) 5,000 and a million. Each client
//! stays connected, has registered a srvid and has had an answer, as an idle smbd.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ringmaster_client::{Client, DbKind};
use ringmaster_compat::cluster::{Cluster, Config, Subject};
use ringmaster_compat::require_our_daemon;
use ringmaster_compat::run::wait_until;
use ringmaster_compat::vitals::{Vitals, descriptors};
use ringmaster_protocol::control::ControlOpcode;
use ringmaster_protocol::control_packet::{ControlFlags, ReqControl};
use ringmaster_protocol::{Destination, Envelope, Generation, Packet, PacketStyle, Reqid, Srvid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(120);

/// What our daemon may need besides one descriptor a client: rings, doorbells, databases.
const OTHER_DESCRIPTORS: usize = 64;

/// Bytes of a record's value: an open file of smbd's has a few hundred.
const VALUE: [u8; 200] = [7; 200];

struct Size {
    clients: usize,
    records: u32,
}

fn size() -> Size {
    if std::env::var_os("RINGMASTER_SOAK").is_some() {
        Size { clients: 5_000, records: 1_000_000 }
    } else {
        Size { clients: 1_000, records: 20_000 }
    }
}

/// What one daemon held: alone, with clients, with records too, and when all clients had gone.
struct Costs {
    alone: Vitals,
    clients: Vitals,
    records: Vitals,
    after: Vitals,
}

fn control(stream: &mut UnixStream, opcode: ControlOpcode, srvid: Srvid) {
    let flags = ControlFlags::NONE;
    let request = ReqControl { opcode: opcode.0, srvid, client_id: 0, flags, data: b"" };
    let envelope = Envelope {
        generation: Generation(0),
        destination: Destination::Current,
        source: Destination::Unknown,
        reqid: Reqid(1),
    };
    let mut bytes = Vec::new();
    Packet::ReqControl(request).encode_into(&mut bytes, envelope, PacketStyle::Exact);
    stream.write_all(&bytes).expect("the daemon reads");
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("an answer in time");
    let mut answer = head.to_vec();
    answer.resize(u32::from_le_bytes(head) as usize, 0);
    stream.read_exact(&mut answer[4..]).expect("a whole answer");
    match Packet::decode(&answer).expect("a packet").1 {
        Packet::ReplyControl(reply) if reply.status >= 0 => {}
        other => panic!("{opcode} was answered by {other:?}"),
    }
}

fn connect(socket: &Path, number: usize) -> UnixStream {
    let mut stream = UnixStream::connect(socket).expect("the daemon accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    control(&mut stream, ControlOpcode::REGISTER_SRVID, Srvid(0xAA00_0000 + number as u64));
    stream
}

fn store(socket: &Path, records: u32) {
    let mut client = Client::connect_to(socket, PATIENCE).expect("the daemon answers");
    let mut database = client.open("many.tdb", DbKind::Volatile).expect("attached");
    for number in 0..records {
        let mut record =
            client.lock_record(&mut database, &number.to_be_bytes()).expect("a record");
        record.store(&VALUE).expect("stored");
    }
    for number in (0..records).step_by(997) {
        let value = client.fetch(&mut database, &number.to_be_bytes()).expect("an answer");
        assert_eq!(value.as_deref(), Some(&VALUE[..]), "record {number}");
    }
}

fn costs(subject: &Subject, size: &Size) -> Costs {
    let cluster = Cluster::start(Config::new(1).all(subject)).expect("a daemon");
    let node = cluster.node(0);
    let pid = node.daemon_pid().expect("it runs");
    let vitals = || Vitals::of(pid).expect("it lives");
    let alone = vitals();
    let mut streams: Vec<_> =
        (0..size.clients).map(|number| connect(&node.socket(), number)).collect();
    let clients = vitals();
    assert!(clients.descriptors >= size.clients, "{clients:?}");
    store(&node.socket(), size.records);
    let records = vitals();
    // They all are still served.
    for stream in &mut streams {
        control(stream, ControlOpcode::PING, Srvid(0));
    }
    drop(streams);
    let limit = alone.descriptors + OTHER_DESCRIPTORS;
    wait_until("the clients are gone", PATIENCE, || {
        (descriptors(pid).ok()? <= limit).then_some(())
    })
    .expect("descriptors are closed");
    node.tool_ok(&["ping"]).expect("it answers");
    let after = vitals();
    cluster.stop().expect("it ends in order");
    Costs { alone, clients, records, after }
}

fn print(name: &str, costs: &Costs) {
    let Costs { alone, clients, records, after } = costs;
    let phases = [("alone", alone), ("clients", clients), ("records", records), ("after", after)];
    for (phase, vitals) in phases {
        let Vitals { descriptors, resident_kb, anonymous_kb, .. } = vitals;
        println!("| {name} | {phase} | {descriptors} | {anonymous_kb} | {resident_kb} |");
    }
}

#[test]
fn clients_and_records_cost_no_more_than_with_c() {
    let ctdbd = require_our_daemon!();
    // Daemons inherit it.
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).expect("up to the maximum");
    let size = size();
    let c = costs(&Subject::CDaemon, &size);
    let ours = costs(&Subject::Ours { ctdbd }, &size);
    println!("{} clients, {} records", size.clients, size.records);
    println!(
        "| daemon | with | descriptors | heap and stacks kB | in RAM kB |\n|---|---|---|---|---|"
    );
    print("c", &c);
    print("ours", &ours);
    let bytes = |costs: &Costs| {
        let grown = costs.clients.anonymous_kb.saturating_sub(costs.alone.anonymous_kb);
        grown * 1_024 / size.clients as u64
    };
    println!("heap for a client: {} bytes, C {} bytes", bytes(&ours), bytes(&c));
    let grown = ours.clients.descriptors - ours.alone.descriptors;
    assert!(grown <= size.clients + OTHER_DESCRIPTORS, "{grown} descriptors");
    let heap = |costs: &Costs| costs.records.anonymous_kb - costs.alone.anonymous_kb;
    // In the small form fixed buffers weigh more than clients: 16 kB each are allowed.
    let allowed = heap(&c).max(16 * size.clients as u64);
    assert!(heap(&ours) <= allowed, "{} kB of heap, C {} kB", heap(&ours), heap(&c));
}
