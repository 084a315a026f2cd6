//! A relay between the nodes of a cluster that keeps every packet.
//!
//! Role: node `i` finds node `j` at an address of the relay; what it writes there is cut into
//! packets, noted, and written on to node `j` from the address under which `j` expects `i`.
//! Owner: threads of this process; they end when the relay is dropped.
//! Invariants
//! - A packet is noted before it is passed on: the order of the notes is one in which things can
//!   have happened.
//! - Bytes are passed on as they came, also those that make no packet.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.6 (who connects to whom), `wire-protocol.md` 1.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::loopback::{NODE_PORT, Subnet};

/// Pause of a thread that has nothing to do before it looks whether the relay still lives.
const LOOK: Duration = Duration::from_millis(50);

/// Most bytes of packets that are kept. Beyond it nothing more is noted and
/// [`Relay::take`] says so by an error: a test of this length needs no packets.
const KEPT_MAX: usize = 256 << 20;

/// Longest packet that is believed; behind a longer one nothing of the connection is noted.
const PACKET_MAX: usize = 64 << 20;

/// A packet on its way between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// When the relay had it whole.
    pub at: Instant,
    /// Node that wrote it.
    pub from: usize,
    /// Node it is written to.
    pub to: usize,
    /// The whole packet.
    pub bytes: Vec<u8>,
}

/// The relay of one cluster.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    packets: Vec<Passed>,
    len: usize,
    lost: u64,
}

/// One direction between two nodes: the relay listens at `entrance`, and goes to `target` from
/// `exit`.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: usize,
    to: usize,
    source: Ipv4Addr,
    exit: Ipv4Addr,
    target: Ipv4Addr,
}

impl Relay {
    /// Listens for all pairs of `nodes`.
    pub(super) fn start(subnet: &Subnet, nodes: &[Ipv4Addr]) -> Result<Self> {
        let mut relay = Self { shared: Arc::default(), threads: Vec::new() };
        for (from, source) in nodes.iter().enumerate() {
            for (to, target) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                let entrance = SocketAddrV4::new(subnet.via(from, to), NODE_PORT);
                let listener = TcpListener::bind(entrance)
                    .with_context(|| format!("cannot listen on {entrance}"))?;
                listener.set_nonblocking(true).context("a listener that does not block")?;
                let exit = subnet.via(to, from);
                let way = Way { from, to, source: *source, exit, target: *target };
                let shared = Arc::clone(&relay.shared);
                relay.threads.push(thread::spawn(move || serve(&listener, way, &shared)));
            }
        }
        Ok(relay)
    }

    /// The packets noted since the last call, oldest first.
    ///
    /// # Errors
    /// More have passed than are kept.
    pub fn take(&self) -> Result<Vec<Passed>> {
        let mut notes = self.shared.notes();
        let lost = std::mem::take(&mut notes.lost);
        notes.len = 0;
        let packets = std::mem::take(&mut notes.packets);
        anyhow::ensure!(lost == 0, "{lost} packets have passed that could not be kept");
        Ok(packets)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn notes(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn note(&self, way: Way, bytes: &[u8]) {
        let mut notes = self.notes();
        if notes.len + bytes.len() > KEPT_MAX {
            notes.lost += 1;
            return;
        }
        notes.len += bytes.len();
        let (at, bytes) = (Instant::now(), bytes.to_vec());
        notes.packets.push(Passed { at, from: way.from, to: way.to, bytes });
    }
}

/// Accepts until the relay ends; a node has one connection to another at a time, but a broken one
/// may still be open when the next comes.
fn serve(listener: &TcpListener, way: Way, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    while !shared.is_over() {
        match listener.accept() {
            Ok((stream, SocketAddr::V4(peer))) if *peer.ip() == way.source => {
                let shared = Arc::clone(shared);
                connections.push(thread::spawn(move || connection(&stream, way, &shared)));
            }
            // Strangers are not passed on.
            Ok(_) => {}
            Err(_) => thread::sleep(LOOK),
        }
        connections.retain(|connection| !connection.is_finished());
    }
    for connection in connections {
        let _ = connection.join();
    }
}

fn connection(input: &TcpStream, way: Way, shared: &Shared) {
    // An accepted socket blocks, whatever its listener does.
    let ready = input.set_read_timeout(Some(LOOK)).is_ok() && input.set_nodelay(true).is_ok();
    let Some(output) = ready.then(|| reach(input, way, shared)).flatten() else { return };
    pass(input, &output, way, shared);
    // A broken half breaks the whole, so that both nodes notice.
    let _ = (input.shutdown(Shutdown::Both), output.shutdown(Shutdown::Both));
}

/// Connects to the target as soon as that listens; nobody else could tell the node that its peer
/// is not there without it trying again at once.
fn reach(input: &TcpStream, way: Way, shared: &Shared) -> Option<TcpStream> {
    loop {
        if shared.is_over() || has_ended(input) {
            return None;
        }
        match connect_from(way.exit, way.target) {
            Ok(output) => return Some(output),
            Err(_) => thread::sleep(LOOK),
        }
    }
}

fn has_ended(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(len) => len == 0,
        Err(error) => !is_pause(&error),
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn connect_from(own: Ipv4Addr, target: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrV4::new(own, 0))?;
    connect(&socket, &SocketAddrV4::new(target, NODE_PORT))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    Ok(stream)
}

fn pass(mut input: &TcpStream, mut output: &TcpStream, way: Way, shared: &Shared) {
    let (mut pending, mut chunk) = (Some(Vec::new()), vec![0; 1 << 16]);
    while !shared.is_over() {
        let len = match input.read(&mut chunk) {
            Ok(0) => return,
            Ok(len) => len,
            // The target never writes; when it ends, so does the source's connection.
            Err(error) if is_pause(&error) && !has_ended(output) => continue,
            Err(_) => return,
        };
        if let Some(bytes) = &mut pending {
            bytes.extend_from_slice(&chunk[..len]);
            if !note_packets(bytes, way, shared) {
                pending = None;
            }
        }
        if output.write_all(&chunk[..len]).is_err() {
            return;
        }
    }
}

/// Notes the whole packets at the beginning of `bytes` and removes them. False when what stands
/// there is no packet.
fn note_packets(bytes: &mut Vec<u8>, way: Way, shared: &Shared) -> bool {
    let mut done = 0;
    while let Some(head) = bytes.get(done..done + 4) {
        let len = head.try_into().map_or(0, u32::from_le_bytes) as usize;
        if !(4..=PACKET_MAX).contains(&len) {
            return false;
        }
        let Some(packet) = bytes.get(done..done + len) else { break };
        shared.note(way, packet);
        done += len;
    }
    bytes.drain(..done);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_arrive_from_the_expected_address_and_are_noted_whole() {
        let subnet = Subnet::take().unwrap();
        let nodes = [subnet.host(1), subnet.host(2)];
        let relay = Relay::start(&subnet, &nodes).unwrap();
        let mut source = connect_from(nodes[0], subnet.via(0, 1)).unwrap();
        // Node 1 is not there yet: what node 0 writes waits.
        source.write_all(&[8, 0, 0, 0, 1, 2]).unwrap();
        let target = TcpListener::bind((nodes[1], NODE_PORT)).unwrap();
        let (mut accepted, peer) = target.accept().unwrap();
        assert_eq!(peer.ip(), subnet.via(1, 0));
        source.write_all(&[3, 4, 4, 0, 0]).unwrap();
        source.write_all(&[0]).unwrap();
        let mut arrived = [0; 12];
        accepted.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived, [8, 0, 0, 0, 1, 2, 3, 4, 4, 0, 0, 0]);
        let noted: Vec<_> =
            relay.take().unwrap().into_iter().map(|p| (p.from, p.to, p.bytes)).collect();
        assert_eq!(noted, [(0, 1, vec![8, 0, 0, 0, 1, 2, 3, 4]), (0, 1, vec![4, 0, 0, 0])]);
        // The end of one half is the end of the other.
        drop(accepted);
        let mut rest = Vec::new();
        source.set_read_timeout(None).unwrap();
        assert_eq!(source.read_to_end(&mut rest).unwrap_or(0), 0);
    }
}
