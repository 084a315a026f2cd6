//! A crowd of clients in one thread: each has one request under way.
//!
//! Role: makes the load and takes the times. All connections hang on one reactor of ours, which sends
//! in batches, so that the load costs less than the daemon it measures; what it costs is reported.
//! Invariants
//! - Closed loop: a client sends its next request when the answer to the last one is in.
//! - An answer that is not the expected one ends the run with an error: nothing wrong is counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmaster_protocol::{
    DbId, Encode, Packet, Pnn, Srvid,
    call::{CallFlags, CallId, ReqCall},
    control::ControlOpcode,
    control_packet::{ControlFlags, ReqControl},
    message::ReqMessage,
    text::Text,
};

use crate::node::Usage;
use crate::wires::{Arrived, Home, SILENCE_MAX, Wires};

/// Bytes of a message of [`Load::Message`]; the first 8 say when it was sent.
const MESSAGE_LEN: usize = 64;

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

#[derive(Clone, Copy, Debug)]
struct Request {
    sent_at: Instant,
    busy: bool,
}

/// Connected clients of one daemon, or of several, in turn.
pub struct Crowd {
    load: Load,
    records: Option<Records>,
    name: String,
    homes: Vec<Home>,
    wires: Wires,
    requests: Vec<Request>,
    started: Instant,
    /// Requests ever made: the next key, the next database's name.
    issued: u64,
}

impl Crowd {
    /// Connects `clients` clients, in turn to each of `homes`; for [`Load::Message`] each registers
    /// its srvid. `name` is unique among the crowds of a daemon, for the names of new databases.
    ///
    /// # Errors
    /// A daemon does not accept or does not answer as it should.
    pub fn connect(
        homes: &[Home],
        load: Load,
        clients: usize,
        records: Option<Records>,
        name: &str,
    ) -> Result<Self> {
        ensure!(load != Load::Call || records.is_some(), "calls need records");
        let started = Instant::now();
        let registered = |number| (load == Load::Message).then(|| srvid(number));
        Ok(Self {
            load,
            records,
            name: name.to_owned(),
            homes: homes.to_vec(),
            wires: Wires::connect(homes, clients, registered)?,
            requests: vec![Request { sent_at: started, busy: false }; clients],
            started,
            issued: 0,
        })
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
        for number in 0..self.requests.len() {
            if left > 0 && !self.requests[number].busy {
                self.send(number)?;
                left -= 1;
            }
        }
        let mut arrived = Vec::new();
        let mut heard = begun;
        while measured.operations < operations && deadline.is_none_or(|end| Instant::now() < end) {
            let happened = self.wires.turn(SILENCE_MAX, &mut arrived)?;
            let now = Instant::now();
            ensure!(happened || now - heard < SILENCE_MAX, "no answer for {SILENCE_MAX:?}");
            if happened {
                measured.silence = measured.silence.max(now - heard);
                heard = now;
            }
            for arrived in arrived.drain(..) {
                let number = arrived.number;
                for _ in 0..self.read(arrived, &mut measured)? {
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

    /// Reads what has come; says how many answers that were.
    fn read(&mut self, arrived: Arrived, measured: &mut Measured) -> Result<usize> {
        let number = arrived.number;
        let (load, started, request) = (self.load, self.started, self.requests[number]);
        let asked = self.wires.last_request(number);
        let mut answers = 0;
        self.wires.read(arrived, |reqid, packet| {
            let latency = match judge(load, number, packet)? {
                Judged::Sent(at) => started.elapsed().saturating_sub(at),
                Judged::Answer => {
                    ensure!(reqid == asked, "an answer to another request");
                    request.sent_at.elapsed()
                }
            };
            measured.latencies_ns.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
            measured.operations += 1;
            answers += 1;
            Ok(())
        })?;
        if load != Load::Message && answers > 0 {
            self.requests[number].busy = false;
        }
        Ok(answers)
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
                let next = (number + 1) % self.requests.len();
                let to = self.homes[next % self.homes.len()].pnn;
                let message = ReqMessage { srvid: srvid(next), data: &data };
                self.write_to(number, to, Packet::ReqMessage(message))
            }
        }
    }

    fn write(&mut self, number: usize, packet: Packet<'_>) -> Result<()> {
        self.write_to(number, self.homes[number % self.homes.len()].pnn, packet)
    }

    fn write_to(&mut self, number: usize, to: Pnn, packet: Packet<'_>) -> Result<()> {
        self.requests[number] = Request { sent_at: Instant::now(), busy: true };
        self.wires.send(number, to, packet)
    }
}

/// What an expected packet is.
enum Judged {
    /// The answer to the client's request.
    Answer,
    /// A message, sent so long after the start of the crowd.
    Sent(Duration),
}

fn judge(load: Load, number: usize, packet: &Packet<'_>) -> Result<Judged> {
    let expected = match (load, packet) {
        (Load::Message, Packet::ReqMessage(message)) => {
            let sent = message.data.first_chunk::<8>().context("a message without a time")?;
            ensure!(message.srvid == srvid(number), "a message to somebody else");
            return Ok(Judged::Sent(Duration::from_nanos(u64::from_le_bytes(*sent))));
        }
        (Load::Control | Load::Attach, Packet::ReplyControl(reply)) => reply.status == 0,
        (Load::Call, Packet::ReplyCall(reply)) => reply.status == 0,
        _ => false,
    };
    ensure!(expected, "{} was answered by {packet:?}", load.name());
    Ok(Judged::Answer)
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
