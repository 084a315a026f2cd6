//! A node that has gone mad: connects to our daemon as its peer and sends what it likes.
//!
//! 10 seconds; `RINGMASTER_SOAK_SECONDS` makes it longer, `RINGMASTER_SEED` repeats a run.

#[path = "../../../transport/protocol/tests/support/corpus.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the protocol's tests")]
mod corpus;
#[path = "../../../transport/protocol/tests/support/driver.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the protocol's tests")]
mod driver;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmaster_compat::cluster::{Cluster, Config, NODE_PORT, Node, Subject};
use ringmaster_compat::column::our_daemon;
use ringmaster_compat::prerequisite::skip;
use ringmaster_compat::require_c_cluster;
use ringmaster_compat::run::wait_until;
use ringmaster_protocol::control::ControlOpcode;
use ringmaster_protocol::header::HEADER_LEN;
use ringmaster_protocol::keepalive::SambaVersion;
use ringmaster_protocol::{Operation, Packet, RequestHeader};

use driver::{Family, Random, mutate};

const PATIENCE: Duration = Duration::from_secs(60);

/// Memory that the daemon may have more at the end, in kilobytes: databases that the peer made it
/// open, buffers that have grown.
const GROWTH_MAX: u64 = 128 * 1024;

/// Packets written at once: some are good, so that the connection lives for a while.
const BURST: usize = 50;

/// What there is to mutate: all captured packets, and every control with some payloads.
fn corpus() -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = corpus::examples()
        .iter()
        .filter(|example| example.is_packet())
        .map(|example| example.bytes.clone())
        .collect();
    for opcode in 0..170_u32 {
        for len in [0_u32, 4, 8, 16, 36, 200] {
            let mut packet = vec![0_u8; 60];
            packet[16..20].copy_from_slice(&Operation::ReqControl.to_raw().to_le_bytes());
            packet[32..36].copy_from_slice(&opcode.to_le_bytes());
            packet[56..60].copy_from_slice(&len.to_le_bytes());
            packet.resize((60 + len as usize).next_multiple_of(8), 0);
            packets.push(packet);
        }
    }
    packets
}

struct Mad {
    random: Random,
    family: Family,
    /// As our daemon says it, so that record packets are not dropped at the door.
    generation: [u8; 4],
}

impl Mad {
    fn new(seed: u64) -> Self {
        let corpus = corpus();
        let family = Family { name: "node", corpus, length_first: true, check: |_| true };
        Self { random: Random::new(seed), family, generation: [1, 0, 0, 0] }
    }

    fn burst(&mut self) -> Vec<u8> {
        let (mut bytes, mut packet) = (Vec::new(), Vec::new());
        for _ in 0..BURST {
            mutate(&self.family, &mut self.random, &mut packet);
            if packet.len() >= HEADER_LEN && self.random.below(100) != 0 {
                self.dress(&mut packet);
            }
            if !ends_the_daemon_by_rule(&packet) {
                bytes.extend_from_slice(&packet);
            }
        }
        bytes
    }

    /// A frame that is let in; what is inside stays as it is.
    fn dress(&mut self, packet: &mut Vec<u8>) {
        packet.resize(packet.len().next_multiple_of(8), 0);
        let length = u32::try_from(packet.len()).expect("short");
        packet[0..4].copy_from_slice(&length.to_le_bytes());
        packet[4..8].copy_from_slice(b"BDTC");
        packet[8..12].copy_from_slice(&1_u32.to_le_bytes());
        packet[12..16].copy_from_slice(&self.generation);
        if self.random.below(4) != 0 {
            packet[24..28].copy_from_slice(&1_u32.to_le_bytes());
        }
    }

    /// Notes the generation in what our daemon sends.
    fn read(&mut self, from: &mut TcpStream, buffer: &mut [u8]) -> bool {
        match from.read(buffer) {
            Ok(0) => false,
            Ok(len) => {
                if let Ok(header) = RequestHeader::decode(&buffer[..len]) {
                    self.generation = header.envelope.generation.0.to_le_bytes();
                }
                true
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// SHUTDOWN is obeyed, and a keepalive of an older node with another version makes a node leave.
fn ends_the_daemon_by_rule(packet: &[u8]) -> bool {
    match Packet::decode(packet) {
        Ok((_, Packet::ReqControl(control))) => {
            ControlOpcode(control.opcode) == ControlOpcode::SHUTDOWN
        }
        Ok((_, Packet::ReqKeepalive(keepalive))) => {
            keepalive.payload.is_none_or(|says| says.version != SambaVersion::new(4, 17))
        }
        _ => false,
    }
}

/// A connection from the peer's address; `None` when our daemon does not listen just then.
fn connect(from: IpAddr, to: IpAddr) -> Option<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddr::new(from, 0)).expect("bound");
    connect(&socket, &SocketAddr::new(to, NODE_PORT)).ok()?;
    Some(TcpStream::from(socket))
}

/// Resident memory in kilobytes.
fn resident(node: Node<'_>) -> u64 {
    let pid = node.daemon_pid().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Sends for a while on one connection, or until our daemon has had enough.
fn rave(mad: &mut Mad, node: Node<'_>, peer: IpAddr, place: &TcpListener, until: Instant) -> u64 {
    let Some(mut to) = connect(peer, node.address()) else { return 0 };
    to.set_write_timeout(Some(Duration::from_secs(5))).expect("set");
    let (mut from, mut sent, mut buffer) = (None, 0, vec![0; 65_536]);
    while Instant::now() < until {
        if from.is_none() {
            from = place.accept().ok().map(|(stream, _)| stream);
            if let Some(stream) = &from {
                stream.set_nonblocking(true).expect("set");
            }
        }
        let burst = mad.burst();
        if to.write_all(&burst).is_err() {
            break;
        }
        sent += burst.len() as u64;
        if let Some(stream) = &mut from
            && !mad.read(stream, &mut buffer)
        {
            break;
        }
    }
    sent
}

#[test]
fn whatever_a_node_sends_the_daemon_lives_and_serves() {
    require_c_cluster!();
    let Some(ctdbd) = our_daemon() else {
        skip("our ctdbd is not built (cargo build -p ringmaster-daemon -p ringmaster-eventd)");
        return;
    };
    let seed = from_environment("RINGMASTER_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos())
    });
    println!("RINGMASTER_SEED={seed}");
    let ours = Subject::Ours { ctdbd };
    let cluster = Cluster::prepare(Config::new(2).node(0, ours)).unwrap();
    let (node, peer) = (cluster.node(0), cluster.node(1).address());
    let native = "[dataplane]\nshards = 2\n[transport]\nsamba version = 4.17\n";
    fs::write(node.base().join("ringmaster.conf"), native).unwrap();
    let place = TcpListener::bind((peer, NODE_PORT)).unwrap();
    place.set_nonblocking(true).unwrap();
    node.start().unwrap();
    let (mut mad, mut connections, mut sent) = (Mad::new(seed), 0_u32, 0_u64);
    let seconds = from_environment("RINGMASTER_SOAK_SECONDS").unwrap_or(10);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut before = None;
    while Instant::now() < end {
        sent += rave(&mut mad, node, peer, &place, end);
        connections += 1;
        let log = fs::read_to_string(node.log()).unwrap_or_default();
        assert!(!log.contains("panic"), "RINGMASTER_SEED={seed}: {}", node.log_tail(40));
        if !node.is_running() {
            // Some controls end a node by C's rules; anything else has no last word.
            assert!(log.contains("shutting down"), "RINGMASTER_SEED={seed}: died without a word");
            node.start().unwrap();
            before = None;
        }
        before = before.or_else(|| Some(resident(node)));
    }
    println!("{sent} bytes on {connections} connections");
    assert!(sent > 0 && connections > 1);
    let pnn = wait_until("the daemon serves", PATIENCE, || node.tool_ok(&["pnn"]).ok());
    assert_eq!(pnn.unwrap(), "0\n", "RINGMASTER_SEED={seed}");
    let grown = before.map_or(0, |before| resident(node).saturating_sub(before));
    assert!(grown < GROWTH_MAX, "RINGMASTER_SEED={seed}: {grown} kB more");
}
