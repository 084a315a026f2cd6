//! Ending TCP connections that this host may know nothing of.
//!
//! Role: what `ctdb_killtcp` does. A connection with an end here is ended by the kernel; for any
//! other one an end is asked for its numbers with a tickle and reset with what it answers.
//! Invariant: ends after [`ROUNDS`] rounds, whoever answers.
//! Origin: `docs/spec/cluster-semantics.md` 9.6; `ctdb/tools/ctdb_killtcp.c`.

use std::{
    collections::BTreeSet,
    io,
    num::NonZero,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use ringmaster_protocol::connection::Connection;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with},
};

use crate::{
    connections::{HostConnection, HostConnections},
    link_address::LinkAddress,
    netlink::Conversation,
    packet::tcp::{self, Segment},
    tickle::Sender,
};

/// How often those that have not answered are asked.
pub const ROUNDS: u32 = 50;
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// So many tickles, then the answers: more would overflow the socket.
const BATCH: usize = 300;
/// `ETH_P_ALL`.
const EVERYTHING: u16 = 3;

/// Ends each connection of `pairs`: `src` finds out, and `dst` too where it is this host. Returns
/// those that live, as far as anybody knows.
///
/// # Errors
/// The kernel gives no sockets, or `interface` cannot be listened to.
pub fn kill(interface: &str, pairs: &[Connection]) -> io::Result<BTreeSet<Connection>> {
    let wanted: BTreeSet<Connection> = pairs.iter().copied().collect();
    reset(interface, end_own(&wanted)?)
}

/// The same for connections that this host has no end of: `src` finds out. Takes up to
/// [`ROUNDS`] · 100 ms for those that nobody answers for.
///
/// # Errors
/// As [`kill`].
pub fn reset(interface: &str, pairs: BTreeSet<Connection>) -> io::Result<BTreeSet<Connection>> {
    if pairs.is_empty() {
        return Ok(pairs);
    }
    Strangers::listen(interface)?.reset(pairs)
}

/// Ends those with an end here; the others.
fn end_own(wanted: &BTreeSet<Connection>) -> io::Result<BTreeSet<Connection>> {
    let mut left = wanted.clone();
    let mut kernel = HostConnections::open()?;
    for own in kernel.all()? {
        let ways = [own.connection, reverse(&own.connection)];
        if !ways.iter().any(|way| wanted.contains(way)) {
            continue;
        }
        if is_ended(&mut kernel, &own)? {
            for way in ways {
                left.remove(&way);
            }
        }
    }
    Ok(left)
}

fn is_ended(kernel: &mut HostConnections, own: &HostConnection) -> io::Result<bool> {
    match kernel.end(own) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same connection, seen from the other end.
const fn reverse(connection: &Connection) -> Connection {
    Connection { src: connection.dst, dst: connection.src }
}

/// Connections that are reset from outside.
struct Strangers {
    ear: OwnedFd,
    voice: Sender,
}

impl Strangers {
    fn listen(interface: &str) -> io::Result<Self> {
        let link = Conversation::open()?.link(interface)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {interface}"))
        })?;
        let protocol = NonZero::new(u32::from(EVERYTHING.to_be())).map(Protocol::from_raw);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let ear = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, protocol)?;
        let odd = || io::Error::new(io::ErrorKind::InvalidInput, "an interface without number");
        bind(&ear, &LinkAddress::new(link.index, EVERYTHING, &[]).ok_or_else(odd)?)?;
        Ok(Self { ear, voice: Sender::default() })
    }

    fn reset(mut self, mut left: BTreeSet<Connection>) -> io::Result<BTreeSet<Connection>> {
        for _ in 0..ROUNDS {
            let asked: Vec<Connection> = left.iter().copied().collect();
            for batch in asked.chunks(BATCH) {
                for connection in batch {
                    // One that cannot be sent is tried again in the next round.
                    let _ = self.voice.tickle(connection);
                }
                self.answers(&mut left)?;
            }
            let deadline = Instant::now() + PAUSE;
            while !left.is_empty() && self.wait(deadline)? {
                self.answers(&mut left)?;
            }
            if left.is_empty() {
                break;
            }
        }
        Ok(left)
    }

    /// Resets whoever has answered.
    fn answers(&mut self, left: &mut BTreeSet<Connection>) -> io::Result<()> {
        // The headers are all that is looked at.
        let mut buffer = [0_u8; 256];
        loop {
            let len = match recv(&self.ear, &mut buffer, RecvFlags::TRUNC) {
                Ok((len, _)) => len,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some(heard) = tcp::read(&buffer[..len]) else { continue };
            let connection = Connection { src: heard.from, dst: heard.to };
            if heard.reset || !left.contains(&connection) {
                continue;
            }
            let reset =
                Segment::Reset { sequence: heard.acknowledged, acknowledged: heard.sequence };
            if self.voice.send(connection.dst, connection.src, reset).is_ok() {
                left.remove(&connection);
            }
        }
    }

    /// Whether there is something to be heard before `deadline`.
    fn wait(&self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.ear, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(!left.is_zero()),
            Err(error) => Err(error.into()),
        }
    }
}
