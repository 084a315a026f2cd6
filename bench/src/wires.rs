//! Connections of a crowd to daemons, all on one reactor of ours.
//!
//! Role: packets out, in batches, and whole packets in; who asks what is decided by `crowd` and
//! `migration`.
//! Invariant: a daemon that closes a connection or sends what is no packet ends the run.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringmaster_protocol::{
    Destination, Envelope, Generation, Packet, PacketStyle, Pnn, Reqid, Srvid,
    control::ControlOpcode,
    control_packet::{ControlFlags, ReqControl},
    header::{Framing, Transport},
};
use ringmaster_transport::{
    frames::Assembly,
    reactor::{AnyReactor, Event, Reactor, ReactorKind, RecvBuffer, Token, Wait},
};

/// Longest packet that is believed.
const PACKET_MAX: u32 = 1 << 20;

const FRAMING: Framing = Framing { transport: Transport::Local, packet_len_max: PACKET_MAX };

/// Nothing at all happens for this long: the daemon hangs.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A node to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its unix socket.
    pub socket: PathBuf,
    /// Its number.
    pub pnn: Pnn,
}

struct Wire {
    token: Token,
    /// The beginning of a packet that has not come whole; taken out while packets are read.
    input: Option<Assembly>,
    reqid: u32,
}

/// See the module.
pub struct Wires {
    reactor: AnyReactor,
    wires: Vec<Wire>,
    numbers: HashMap<Token, usize>,
    events: Vec<Event>,
}

/// Bytes that have come for a client.
pub struct Arrived {
    /// Whose.
    pub number: usize,
    buffer: RecvBuffer,
}

impl Wires {
    /// Connects `count` clients, in turn to each of `homes`; client `n` registers `srvid(n)` if it
    /// has one.
    ///
    /// # Errors
    /// A daemon does not accept or does not answer as it should.
    pub fn connect(
        homes: &[Home],
        count: usize,
        srvid: impl Fn(usize) -> Option<Srvid>,
    ) -> Result<Self> {
        let mut wires = Self {
            reactor: AnyReactor::new(ReactorKind::Auto).context("cannot make a reactor")?,
            wires: Vec::with_capacity(count),
            numbers: HashMap::new(),
            events: Vec::new(),
        };
        for (number, home) in homes.iter().cycle().take(count).enumerate() {
            let mut stream = UnixStream::connect(&home.socket)
                .with_context(|| format!("cannot connect to {}", home.socket.display()))?;
            if let Some(srvid) = srvid(number) {
                register(&mut stream, home.pnn, srvid)?;
            }
            let token = wires.reactor.add_stream(stream.into()).context("cannot add a stream")?;
            wires.numbers.insert(token, number);
            wires.wires.push(Wire { token, input: Some(Assembly::new(FRAMING)), reqid: 0 });
        }
        Ok(wires)
    }

    /// Request id of the last packet of a client.
    #[must_use]
    pub fn last_request(&self, number: usize) -> Reqid {
        Reqid(self.wires[number].reqid)
    }

    /// Sends a packet of client `number` under a new request id, with the next turn.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self, number: usize, to: Pnn, packet: Packet<'_>) -> Result<()> {
        let wire = &mut self.wires[number];
        wire.reqid = wire.reqid.wrapping_add(1) & 0x7FFF_FFFF;
        let envelope = envelope(to, Reqid(wire.reqid));
        let out = self.reactor.output(wire.token).context("a stream that is gone")?;
        packet.encode_into(out, envelope, PacketStyle::Exact);
        Ok(())
    }

    /// Sends what is to be sent, waits until something comes, at most `limit`, and adds it to
    /// `arrived`. `false` when nothing has happened at all.
    ///
    /// # Errors
    /// A daemon has closed a connection; or the kernel refuses.
    pub fn turn(&mut self, limit: Duration, arrived: &mut Vec<Arrived>) -> Result<bool> {
        let wait = if limit.is_zero() { Wait::No } else { Wait::Until(limit) };
        self.reactor.turn(wait, &mut self.events).context("the load's reactor")?;
        let happened = !self.events.is_empty();
        for event in self.events.drain(..) {
            match event {
                Event::Data { token, buffer } => {
                    let number = *self.numbers.get(&token).context("a stream of nobody")?;
                    arrived.push(Arrived { number, buffer });
                }
                Event::Closed { error, .. } => bail!("the daemon closed a connection: {error:?}"),
                _ => {}
            }
        }
        Ok(happened)
    }

    /// Hands on each packet of what has arrived, with its request id.
    ///
    /// # Errors
    /// The daemon has sent garbage; or those of `take`.
    pub fn read(
        &mut self,
        arrived: Arrived,
        mut take: impl FnMut(Reqid, &Packet<'_>) -> Result<()>,
    ) -> Result<()> {
        let Arrived { number, buffer } = arrived;
        let mut input = self.wires[number].input.take().context("a connection's input")?;
        let (mut taken, mut garbage) = (Ok(()), None);
        let fed = input.feed(
            &buffer,
            |header, bytes| {
                let packet = Packet::decode_body(header, bytes).context("a broken answer");
                let result = packet.and_then(|packet| take(header.envelope.reqid, &packet));
                if result.is_err() {
                    taken = result;
                }
            },
            |reason| garbage = Some(reason),
        );
        self.reactor.recycle(buffer);
        fed.context("the daemon's stream makes no sense")?;
        ensure!(garbage.is_none(), "the daemon sent garbage: {garbage:?}");
        self.wires[number].input = Some(input);
        taken
    }
}

/// Before the connection becomes the reactor's.
fn register(stream: &mut UnixStream, pnn: Pnn, srvid: Srvid) -> Result<()> {
    let control = ReqControl {
        opcode: ControlOpcode::REGISTER_SRVID.0,
        srvid,
        client_id: 0,
        flags: ControlFlags::NONE,
        data: b"",
    };
    let mut out = Vec::new();
    Packet::ReqControl(control).encode_into(&mut out, envelope(pnn, Reqid(0)), PacketStyle::Exact);
    stream.write_all(&out).context("cannot send REGISTER_SRVID")?;
    stream.set_read_timeout(Some(SILENCE_MAX)).context("a socket takes a time-out")?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).context("no answer to REGISTER_SRVID")?;
    let mut packet = vec![0; u32::from_le_bytes(head).clamp(4, PACKET_MAX) as usize];
    packet[..4].copy_from_slice(&head);
    stream.read_exact(&mut packet[4..]).context("half an answer to REGISTER_SRVID")?;
    match Packet::decode(&packet)?.1 {
        Packet::ReplyControl(reply) if reply.status == 0 => Ok(()),
        other => bail!("REGISTER_SRVID was answered by {other:?}"),
    }
}

const fn envelope(to: Pnn, reqid: Reqid) -> Envelope {
    Envelope {
        generation: Generation(0),
        // C answers controls and calls to "this node" too, but drops such messages.
        destination: Destination::Node(to),
        source: Destination::Unknown,
        reqid,
    }
}
