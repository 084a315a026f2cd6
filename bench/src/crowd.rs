//! A crowd of clients of one daemon in one thread: each has one request under way.
//!
//! Role: makes the load and takes the times. All connections hang on one reactor of ours, which sends
//! in batches, so that the load costs less than the daemon it measures; what it costs is reported.
//! Invariants
//! - Closed loop: a client sends its next request when the answer to the last one is in.
//! - An answer that is not the expected one ends the run with an error: nothing wrong is counted.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_protocol::{
    DbId, Destination, Encode, Envelope, Generation, Packet, PacketStyle, Pnn, Reqid, Srvid,
    call::{CallFlags, CallId, ReqCall},
    control::ControlOpcode,
    control_packet::{ControlFlags, ReqControl},
    header::{Framing, Transport},
    message::ReqMessage,
    text::Text,
};
use ringmaster_transport::{
    frames::Assembly,
    reactor::{AnyReactor, Event, Reactor, ReactorKind, Token, Wait},
};

use crate::node::Usage;

/// Longest answer that is believed.
const PACKET_MAX: u32 = 1 << 20;

const FRAMING: Framing = Framing { transport: Transport::Local, packet_len_max: PACKET_MAX };

/// Nothing at all happens for this long: the daemon hangs.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Bytes of a message of [`Load::Message`]; the first 8 say when it was sent.
const MESSAGE_LEN: usize = 64;

/// The only node of the cluster.
const NODE: Pnn = Pnn::new(0).expect("0 is no reserved address");

/// Messages of the crowd go to srvids from here on, one per client.
const SRVID_BASE: u64 = 0xBEEC_0000_0000_0000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// `GET_PNN`: the shortest control.
    Control,
    /// `DB_ATTACH` of a volatile database that does not exist yet.
    Attach,
    /// A NULL call on a record that this node owns.
    Call,
    /// A message to the next client of the crowd.
    Message,
}

impl Load {
    /// All, in the order in which they run: attached databases stay, so they come last.
    pub const ALL: [Self; 4] = [Self::Control, Self::Call, Self::Message, Self::Attach];

    /// Name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Attach => "attach",
            Self::Call => "call",
            Self::Message => "message",
        }
    }
}

/// The records of [`Load::Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// Their database.
    pub db: DbId,
    /// How many: keys are those of [`record_key`] below this.
    pub count: u32,
}

/// Key of record `number`.
#[must_use]
pub fn record_key(number: u32) -> [u8; 16] {
    let mut key = *b"record----------";
    key[12..].copy_from_slice(&number.to_be_bytes());
    key
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this time; requests under way stay so.
    Elapsed(Duration),
    /// After so many requests, all of them answered.
    Operations(u64),
}

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Answers.
    pub operations: u64,
    /// From the first request to the end.
    pub wall: Duration,
    /// What the load's own thread has had.
    pub load: Usage,
    /// Longest time without any answer.
    pub silence: Duration,
    /// Time from request to answer, nanoseconds, sorted.
    pub latencies_ns: Vec<u32>,
}

impl Measured {
    /// The latency that `share` of the answers did not exceed.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies_ns.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index scaled by a share of 0 to 1 is an index"
        )]
        let index = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
        let ns = self.latencies_ns.get(index).copied().unwrap_or(0);
        Duration::from_nanos(u64::from(ns))
    }
}

struct Connection {
    token: Token,
    /// The beginning of an answer that has not come whole.
    input: Option<Assembly>,
    reqid: u32,
    sent_at: Instant,
    busy: bool,
}

/// Connected clients of one daemon.
pub struct Crowd {
    load: Load,
    records: Option<Records>,
    name: String,
    reactor: AnyReactor,
    connections: Vec<Connection>,
    numbers: HashMap<Token, usize>,
    started: Instant,
    /// Requests ever made: the next key, the next database's name.
    issued: u64,
}

impl Crowd {
    /// Connects `clients` clients; for [`Load::Message`] each registers its srvid. `name` is
    /// unique among the crowds of a daemon, for the names of new databases.
    ///
    /// # Errors
    /// The daemon does not accept or does not answer as it should.
    pub fn connect(
        socket: &Path,
        load: Load,
        clients: usize,
        records: Option<Records>,
        name: &str,
    ) -> Result<Self> {
        ensure!(load != Load::Call || records.is_some(), "calls need records");
        let mut crowd = Self {
            load,
            records,
            name: name.to_owned(),
            reactor: AnyReactor::new(ReactorKind::Auto).context("cannot make a reactor")?,
            connections: Vec::with_capacity(clients),
            numbers: HashMap::new(),
            started: Instant::now(),
            issued: 0,
        };
        for number in 0..clients {
            let mut stream = UnixStream::connect(socket)
                .with_context(|| format!("cannot connect to {}", socket.display()))?;
            if load == Load::Message {
                register(&mut stream, number)?;
            }
            let token = crowd.reactor.add_stream(stream.into()).context("cannot add a stream")?;
            crowd.numbers.insert(token, number);
            crowd.connections.push(Connection {
                token,
                input: Some(Assembly::new(FRAMING)),
                reqid: 0,
                sent_at: crowd.started,
                busy: false,
            });
        }
        Ok(crowd)
    }

    /// Runs until `until`; may be called again, and goes on where it was.
    ///
    /// # Errors
    /// The daemon closes a connection, gives a wrong answer or none.
    pub fn run(&mut self, until: Until) -> Result<Measured> {
        let (begun, before) = (Instant::now(), Usage::of_this_thread());
        let (deadline, operations) = match until {
            Until::Elapsed(time) => (Some(begun + time), u64::MAX),
            Until::Operations(count) => (None, count),
        };
        let mut measured = Measured::default();
        let mut left = operations;
        for number in 0..self.connections.len() {
            if left > 0 && !self.connections[number].busy {
                self.send(number)?;
                left -= 1;
            }
        }
        let mut events = Vec::new();
        let mut heard = begun;
        while measured.operations < operations && deadline.is_none_or(|end| Instant::now() < end) {
            self.reactor
                .turn(Wait::Until(SILENCE_MAX), &mut events)
                .context("the load's reactor")?;
            let now = Instant::now();
            ensure!(
                !events.is_empty() || now - heard < SILENCE_MAX,
                "no answer for {SILENCE_MAX:?}"
            );
            if !events.is_empty() {
                measured.silence = measured.silence.max(now - heard);
                heard = now;
            }
            for event in events.drain(..) {
                let (number, answers) = self.event(event, &mut measured)?;
                for _ in 0..answers {
                    if left > 0 {
                        self.send(number)?;
                        left -= 1;
                    }
                }
            }
        }
        measured.wall = begun.elapsed();
        measured.load = Usage::of_this_thread().since(before);
        measured.latencies_ns.sort_unstable();
        Ok(measured)
    }

    /// Takes what has happened; says on which connection how many answers have come.
    fn event(&mut self, event: Event, measured: &mut Measured) -> Result<(usize, usize)> {
        let (token, buffer) = match event {
            Event::Data { token, buffer } => (token, buffer),
            Event::Closed { error, .. } => bail!("the daemon closed a connection: {error:?}"),
            _ => return Ok((0, 0)),
        };
        let number = *self.numbers.get(&token).context("a stream of nobody")?;
        let mut input = self.connections[number].input.take().context("a connection's input")?;
        let (mut answers, mut judged, mut garbage) = (0, Ok(()), None);
        let this = &*self;
        let fed = input.feed(
            &buffer,
            |header, bytes| {
                let packet = Packet::decode_body(header, bytes).context("a broken answer");
                let reqid = header.envelope.reqid;
                match packet.and_then(|packet| this.judge(number, reqid, &packet)) {
                    Ok(latency) => {
                        let ns = u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX);
                        measured.latencies_ns.push(ns);
                        answers += 1;
                    }
                    Err(error) => judged = Err(error),
                }
            },
            |reason| garbage = Some(reason),
        );
        self.reactor.recycle(buffer);
        fed.context("the daemon's stream makes no sense")?;
        judged?;
        ensure!(garbage.is_none(), "the daemon sent garbage: {garbage:?}");
        measured.operations += answers as u64;
        let connection = &mut self.connections[number];
        connection.input = Some(input);
        if self.load != Load::Message && answers > 0 {
            connection.busy = false;
        }
        Ok((number, answers))
    }

    /// The latency of an expected answer; an error for any other.
    fn judge(&self, number: usize, reqid: Reqid, packet: &Packet<'_>) -> Result<Duration> {
        let connection = &self.connections[number];
        let expected = match (self.load, packet) {
            (Load::Message, Packet::ReqMessage(message)) => {
                let sent = message.data.first_chunk::<8>().context("a message without a time")?;
                let sent = Duration::from_nanos(u64::from_le_bytes(*sent));
                ensure!(message.srvid == srvid(number), "a message to somebody else");
                return Ok(self.started.elapsed().saturating_sub(sent));
            }
            (Load::Control | Load::Attach, Packet::ReplyControl(reply)) => reply.status == 0,
            (Load::Call, Packet::ReplyCall(reply)) => reply.status == 0,
            _ => false,
        };
        ensure!(expected, "{} was answered by {packet:?}", self.load.name());
        ensure!(reqid == Reqid(connection.reqid), "an answer to another request");
        Ok(connection.sent_at.elapsed())
    }

    fn send(&mut self, number: usize) -> Result<()> {
        let issued = self.issued;
        self.issued += 1;
        let control = |opcode: ControlOpcode, data| {
            let (opcode, srvid, flags) = (opcode.0, Srvid(0), ControlFlags::NONE);
            Packet::ReqControl(ReqControl { opcode, srvid, client_id: 0, flags, data })
        };
        match self.load {
            Load::Control => self.write(number, control(ControlOpcode::GET_PNN, b"")),
            Load::Attach => {
                let name = format!("{}.{issued}.tdb", self.name);
                let data = Text::new(&name).to_bytes();
                self.write(number, control(ControlOpcode::DB_ATTACH, &data))
            }
            Load::Call => {
                let records = self.records.context("calls need records")?;
                let count = u64::from(records.count.max(1));
                let key = record_key(u32::try_from(issued % count).context("a record's number")?);
                let (flags, callid) = (CallFlags::IMMEDIATE_MIGRATION, CallId::NULL);
                let (db, hopcount, calldata) = (records.db, 0, &b""[..]);
                let call = ReqCall { flags, db, callid, hopcount, key: &key, calldata };
                self.write(number, Packet::ReqCall(call))
            }
            Load::Message => {
                let mut data = [0; MESSAGE_LEN];
                let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
                data[..8].copy_from_slice(&now.to_le_bytes());
                let srvid = srvid((number + 1) % self.connections.len());
                self.write(number, Packet::ReqMessage(ReqMessage { srvid, data: &data }))
            }
        }
    }

    fn write(&mut self, number: usize, packet: Packet<'_>) -> Result<()> {
        let connection = &mut self.connections[number];
        connection.reqid = connection.reqid.wrapping_add(1) & 0x7FFF_FFFF;
        let envelope = envelope(Reqid(connection.reqid));
        connection.sent_at = Instant::now();
        connection.busy = true;
        let out = self.reactor.output(connection.token).context("a stream that is gone")?;
        packet.encode_into(out, envelope, PacketStyle::Exact);
        Ok(())
    }
}

/// Before the connection becomes the reactor's.
fn register(stream: &mut UnixStream, number: usize) -> Result<()> {
    let control = ReqControl {
        opcode: ControlOpcode::REGISTER_SRVID.0,
        srvid: srvid(number),
        client_id: 0,
        flags: ControlFlags::NONE,
        data: b"",
    };
    let mut out = Vec::new();
    Packet::ReqControl(control).encode_into(&mut out, envelope(Reqid(0)), PacketStyle::Exact);
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

fn envelope(reqid: Reqid) -> Envelope {
    Envelope {
        generation: Generation(0),
        // C answers controls and calls to "this node" too, but drops such messages.
        destination: Destination::Node(NODE),
        source: Destination::Unknown,
        reqid,
    }
}

fn srvid(number: usize) -> Srvid {
    Srvid(SRVID_BASE + number as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_latencies() {
        let measured = Measured { latencies_ns: (1..=101).collect(), ..Measured::default() };
        assert_eq!(measured.percentile(0.5), Duration::from_nanos(51));
        assert_eq!(measured.percentile(0.99), Duration::from_nanos(100));
        assert_eq!(Measured::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn every_record_has_its_own_key() {
        assert_ne!(record_key(1), record_key(256));
    }
}
