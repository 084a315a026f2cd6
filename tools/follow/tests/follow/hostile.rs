//! A node and clients that have gone mad: they send our daemon what makes no sense, while everybody
//! else works. What makes sense is left out, for a node is obeyed: another test
//! (`tools/compat/tests/hostile.rs`) sends that too, to a daemon that has nothing to lose.
//!
//! A few thousand packets; `RINGMASTER_SOAK_SECONDS` makes it longer, `RINGMASTER_SEED` repeats a run.

#[path = "../../../../transport/protocol/tests/support/corpus.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the protocol's tests")]
mod corpus;
#[path = "../../../../transport/protocol/tests/support/driver.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared with the protocol's tests")]
mod driver;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_compat::cluster::{Config, NODE_PORT, Subject};
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::Usual;
use ringmaster_protocol::Packet;
use ringmaster_protocol::control::{ControlOpcode, ControlRequest};
use ringmaster_protocol::header::{HEADER_LEN, MAGIC, VERSION};

use driver::{Family, Random, mutate};

/// Packets that each of the mad sends at least.
const PACKETS: u64 = 20_000;
/// Packets written at once; most are let in, so that a connection lives for a while.
const BURST: usize = 20;
/// A daemon that does not take what it is sent for so long hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// Memory that a daemon may have more at the end, in kilobytes: buffers that have grown.
const GROWTH_MAX: u64 = 64 * 1024;
/// The node that does not exist, but in the nodes files.
const MAD: usize = 3;

super::lives!(with_a_fourth, story, cco CCO, coo COO);

fn with_a_fourth(mut config: Config) -> Config {
    config.subjects.push(Subject::CDaemon);
    config.listed(3)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn story(life: &Life) -> Result<()> {
    life.cluster.write_nodes_files(&[Some(0), Some(1), Some(2), Some(MAD)])?;
    life.ctdb(0, &["reloadnodes"])?;
    life.cluster.settle()?;
    let seed = from_environment("RINGMASTER_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos().into())
    });
    println!("RINGMASTER_SEED={seed}");
    let ours: Vec<_> = life.nodes().into_iter().filter(|n| life.composition.is_ours(*n)).collect();
    let usual = Usual::start(life);
    usual.load.rounds(5)?;
    let pids = life.pids();
    let before: Vec<_> = ours.iter().map(|node| Size::of(pids[node])).collect::<Result<_>>()?;
    let sent = Sent::default();
    let seconds = from_environment("RINGMASTER_SOAK_SECONDS").unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| -> Result<()> {
        let mut mad = Vec::new();
        for node in &ours {
            let sent = &sent;
            mad.push(scope.spawn(move || mad_node(life, *node, seed, end, sent)));
            mad.push(scope.spawn(move || mad_client(life, *node, seed, end, sent)));
        }
        let mut served = usual.load.rounds(20);
        while served.is_ok() && mad.iter().any(|thread| !thread.is_finished()) {
            served = usual.load.rounds(5);
        }
        sent.over.store(true, Ordering::Relaxed);
        for thread in mad {
            let Ok(done) = thread.join() else { bail!("a mad thread panicked") };
            done?;
        }
        served
    })
    .with_context(|| format!("RINGMASTER_SEED={seed}"))?;
    println!("{} packets on {} connections", sent.packets(), sent.connections());
    usual.load.rounds(20)?;
    ensure!(life.pids() == pids, "RINGMASTER_SEED={seed}: a daemon has ended");
    usual.finish(life)?;
    for (node, before) in ours.iter().zip(before) {
        before.has_not_grown(life, *node, pids[node])?;
        let lines = fs::read_to_string(life.node(*node).log())?.lines().count() as u64;
        let allowed = 2_000 + 3 * sent.connections();
        ensure!(lines <= allowed, "node {node} has logged {lines} lines, {allowed} are enough");
    }
    life.cluster.write_nodes_files(&[Some(0), Some(1), Some(2), None])?;
    life.ctdb(0, &["reloadnodes"]).map(drop)
}

#[derive(Default)]
struct Sent {
    packets: AtomicU64,
    connections: AtomicU64,
    over: AtomicBool,
}

impl Sent {
    fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// What a daemon holds.
struct Size {
    resident_kb: u64,
    descriptors: usize,
}

impl Size {
    fn of(pid: i32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { resident_kb: number.context("no VmRSS")?, descriptors })
    }

    fn has_not_grown(&self, life: &Life, node: usize, pid: i32) -> Result<()> {
        // Those of a monitor event, of clients that go and of databases that came.
        let spare = 16;
        life.wait("all descriptors are closed", || {
            (Self::of(pid).ok()?.descriptors <= self.descriptors + spare).then_some(())
        })?;
        let grown = Self::of(pid)?.resident_kb.saturating_sub(self.resident_kb);
        ensure!(grown < GROWTH_MAX, "the daemon of node {node} has {grown} kB more");
        Ok(())
    }
}

/// What there is to mutate: packets of every kind, and every control with some payloads.
fn family() -> Family {
    let mut packets: Vec<Vec<u8>> = corpus::examples()
        .iter()
        .filter(|example| example.is_packet())
        .map(|example| example.bytes.clone())
        .collect();
    for opcode in 0..170_u32 {
        for len in [0_u32, 3, 4, 8, 16, 36, 200] {
            let mut packet = vec![0_u8; 60];
            packet[16..20].copy_from_slice(&7_u32.to_le_bytes());
            packet[32..36].copy_from_slice(&opcode.to_le_bytes());
            packet[56..60].copy_from_slice(&len.to_le_bytes());
            packet.resize((60 + len as usize).next_multiple_of(8), 0);
            packets.push(packet);
        }
    }
    Family { name: "hostile", corpus: packets, length_first: true, check: |_| true }
}

struct Madness {
    random: Random,
    family: Family,
    own: u32,
    to: u32,
}

impl Madness {
    fn new(seed: u64, own: u32, to: usize) -> Self {
        let to = u32::try_from(to).expect("a small number");
        Self { random: Random::new(seed), family: family(), own, to }
    }

    /// Packets that make no sense, most of them in a frame that does.
    fn burst(&mut self) -> (Vec<u8>, u64) {
        let (mut bytes, mut packet, mut count) = (Vec::new(), Vec::new(), 0);
        for _ in 0..BURST {
            mutate(&self.family, &mut self.random, &mut packet);
            let broken_frame = self.random.below(60) == 0;
            if packet.len() >= HEADER_LEN && !broken_frame {
                self.dress(&mut packet);
            }
            if !makes_sense(&packet) {
                bytes.extend_from_slice(&packet);
                count += 1;
            }
        }
        (bytes, count)
    }

    fn dress(&mut self, packet: &mut Vec<u8>) {
        packet.resize(packet.len().next_multiple_of(8), 0);
        let length = u32::try_from(packet.len()).expect("packets are short");
        packet[0..4].copy_from_slice(&length.to_le_bytes());
        packet[4..8].copy_from_slice(&MAGIC.to_le_bytes());
        packet[8..12].copy_from_slice(&VERSION.to_le_bytes());
        // Never on to another node, which may be C's.
        packet[20..24].copy_from_slice(&self.to.to_le_bytes());
        packet[24..28].copy_from_slice(&self.own.to_le_bytes());
    }
}

/// Whether somebody could mean it. Records are of another generation, databases and request ids
/// nobody's: that a daemon can tell.
fn makes_sense(packet: &[u8]) -> bool {
    match Packet::decode(packet) {
        Ok((_, Packet::ReqControl(control))) => {
            ControlRequest::decode(ControlOpcode(control.opcode), control.data).is_ok()
        }
        // A reply may answer what was asked of somebody else: nodes are believed.
        Ok((_, Packet::ReqCall(_) | Packet::ReqDmaster(_))) | Err(_) => false,
        Ok(_) => true,
    }
}

fn mad_node(life: &Life, node: usize, seed: u64, end: Instant, sent: &Sent) -> Result<()> {
    let (own, to) = (life.node(MAD).address(), life.node(node).address());
    let mad = u32::try_from(MAD).expect("a small number");
    let mut madness = Madness::new(seed.wrapping_add(node as u64), mad, node);
    // Where nodes expect the one that does not exist; several threads may want to be it.
    let place = TcpListener::bind((own, NODE_PORT)).ok();
    if let Some(place) = &place {
        place.set_nonblocking(true)?;
    }
    let mut accepted = Vec::new();
    let connect = || connect_from(own, to);
    rave(&mut madness, end, sent, connect, |_| {
        while let Some((stream, _)) = place.as_ref().and_then(|place| place.accept().ok()) {
            // The last few are kept: a node that is connected both ways is taken for one.
            accepted.push(stream);
            if accepted.len() > 8 {
                accepted.remove(0);
            }
        }
        Ok(())
    })
}

fn mad_client(life: &Life, node: usize, seed: u64, end: Instant, sent: &Sent) -> Result<()> {
    let socket = life.node(node).socket();
    let mut madness = Madness::new(seed.wrapping_add(100 + node as u64), 0, node);
    let connect = || UnixStream::connect(&socket);
    let mut answers = vec![0; 65_536];
    rave(&mut madness, end, sent, connect, |stream: &mut UnixStream| {
        // Answers are taken, as far as there are some.
        stream.set_nonblocking(true)?;
        let read = stream.read(&mut answers);
        stream.set_nonblocking(false)?;
        match read {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    })
}

trait Stream: Write + Sized {
    fn limit(&self) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn limit(&self) -> std::io::Result<()> {
        self.set_write_timeout(Some(SILENCE))
    }
}

impl Stream for UnixStream {
    fn limit(&self) -> std::io::Result<()> {
        self.set_write_timeout(Some(SILENCE))
    }
}

/// Sends on one connection after the other, each until the daemon has had enough.
fn rave<S: Stream>(
    madness: &mut Madness,
    end: Instant,
    sent: &Sent,
    connect: impl Fn() -> std::io::Result<S>,
    mut besides: impl FnMut(&mut S) -> std::io::Result<()>,
) -> Result<()> {
    let mut packets = 0;
    while (packets < PACKETS || Instant::now() < end) && !sent.over.load(Ordering::Relaxed) {
        let mut stream = connect().context("the daemon does not listen any more")?;
        stream.limit()?;
        sent.connections.fetch_add(1, Ordering::Relaxed);
        while packets < PACKETS || Instant::now() < end {
            let (bytes, count) = madness.burst();
            match stream.write_all(&bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    bail!("the daemon has taken nothing for {SILENCE:?}");
                }
                Err(_) => break,
            }
            packets += count;
            sent.packets.fetch_add(count, Ordering::Relaxed);
            if besides(&mut stream).is_err() || sent.over.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}

fn connect_from(own: IpAddr, to: IpAddr) -> std::io::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(own, 0))?;
    connect(&socket, &SocketAddr::new(to, NODE_PORT))?;
    Ok(TcpStream::from(socket))
}
