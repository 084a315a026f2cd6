//! Records that move between nodes: clients of several nodes, in one thread, that change records as
//! smbd does.
//!
//! Role: makes the load and takes the times. A client locks a record's chain in its node's file; if
//! the record is not there it asks its daemon for it, waits for the answer, and looks again.
//! Invariants
//! - Closed loop: a client begins its next operation when the last one is done.
//! - Every increment is in its record at the end: [`Movers::verify`].
//! - Nobody holds a chain while anything is waited for.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_client::{Client, Database, DbKind};
use ringmaster_protocol::{
    Packet,
    call::{CallFlags, CallId, ReqCall},
};

use crate::crowd::Measured;
use crate::node::Usage;
use crate::wires::{Arrived, Home, SILENCE_MAX, Wires};

/// Keys of [`MovingLoad::Storm`].
const STORM_KEYS: u64 = 1_000;

/// A client that finds the lock of [`MovingLoad::GLock`] taken looks again after this long.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// For what the load does beside its operations.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A chain is held for microseconds only.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovingLoad {
    /// One record goes round: each client in turn adds one to it.
    Ring,
    /// Every client adds one to records of its own choice, out of a thousand.
    Storm,
    /// All clients take and give back one lock, which is a record.
    GLock,
}

impl MovingLoad {
    /// All.
    pub const ALL: [Self; 3] = [Self::Ring, Self::Storm, Self::GLock];

    /// Name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Storm => "storm",
            Self::GLock => "g_lock",
        }
    }

    /// Clients on `nodes` nodes.
    #[must_use]
    pub const fn clients(self, nodes: usize) -> usize {
        match self {
            Self::Ring => nodes,
            Self::Storm => 64,
            Self::GLock => 16 * nodes,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Adds one to its record.
    Add,
    /// Wants the lock.
    Take,
    /// Has the lock.
    GiveBack,
}

#[derive(Clone, Copy, Debug)]
struct Mover {
    step: Step,
    key: u64,
    begun: Instant,
}

/// See the module.
pub struct Movers {
    load: MovingLoad,
    homes: Vec<Home>,
    /// One connection and open file per node, for locking; calls go through `wires`.
    files: Vec<(Client, Database)>,
    wires: Wires,
    movers: Vec<Mover>,
    /// Clients that can go on at once.
    ready: VecDeque<usize>,
    /// Clients that look again later.
    pausing: BTreeSet<(Instant, usize)>,
    /// Keys of this run begin with it, so that counters begin at nothing.
    run: u64,
    seed: u64,
    added: u64,
    calls: u64,
}

impl Movers {
    /// Connects the clients, in turn to each of `homes`. `run` is another one each time.
    ///
    /// # Errors
    /// A daemon does not answer as it should.
    pub fn connect(homes: &[Home], load: MovingLoad, run: u64) -> Result<Self> {
        let count = load.clients(homes.len());
        let open = |home: &Home| -> Result<_> {
            let mut client = Client::connect_to(&home.socket, TIMEOUT)?;
            let database = client.open("bench.tdb", DbKind::Volatile)?;
            Ok((client, database))
        };
        let now = Instant::now();
        let mut movers = Self {
            load,
            homes: homes.to_vec(),
            files: homes.iter().map(open).collect::<Result<_>>()?,
            wires: Wires::connect(homes, count, |_| None)?,
            movers: vec![Mover { step: Step::Add, key: 0, begun: now }; count],
            ready: VecDeque::new(),
            pausing: BTreeSet::new(),
            run,
            seed: run.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            added: 0,
            calls: 0,
        };
        match load {
            MovingLoad::Ring => movers.begin(0),
            MovingLoad::Storm | MovingLoad::GLock => (0..count).for_each(|n| movers.begin(n)),
        }
        Ok(movers)
    }

    /// Calls made so far: each brings a record from another node (or the first time from nowhere).
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// Runs for so long; may be called again, and goes on where it was.
    ///
    /// # Errors
    /// A daemon closes a connection, gives a wrong answer or none; a file cannot be used.
    pub fn run(&mut self, length: Duration) -> Result<Measured> {
        let (begun, before) = (Instant::now(), Usage::of_this_thread());
        let mut measured = Measured::default();
        let (mut arrived, mut heard) = (Vec::new(), begun);
        while begun.elapsed() < length {
            // Once round: who completes an operation without its daemon comes again after the others.
            for _ in 0..self.ready.len() {
                let Some(number) = self.ready.pop_front() else { break };
                self.go_on(number, &mut measured)?;
            }
            let now = Instant::now();
            while self.pausing.first().is_some_and(|(at, _)| *at <= now) {
                self.ready.extend(self.pausing.pop_first().map(|(_, number)| number));
            }
            let next = self.pausing.first().map_or(SILENCE_MAX, |(at, _)| *at - now);
            let pause = if self.ready.is_empty() { next.min(length) } else { Duration::ZERO };
            self.wires.turn(pause, &mut arrived)?;
            for arrived in arrived.drain(..) {
                let now = Instant::now();
                measured.silence = measured.silence.max(now - heard);
                heard = now;
                self.answered(arrived)?;
            }
            ensure!(heard.elapsed() < SILENCE_MAX, "no answer for {SILENCE_MAX:?}");
        }
        measured.wall = begun.elapsed();
        measured.load = Usage::of_this_thread().since(before);
        measured.latencies_ns.sort_unstable();
        Ok(measured)
    }

    fn answered(&mut self, arrived: Arrived) -> Result<()> {
        let number = arrived.number;
        let asked = self.wires.last_request(number);
        let mut answered = false;
        self.wires.read(arrived, |reqid, packet| match packet {
            Packet::ReplyCall(reply) if reply.status == 0 && reqid == asked => {
                answered = true;
                Ok(())
            }
            other => bail!("a call was answered by {other:?}"),
        })?;
        if answered {
            self.ready.push_back(number);
        }
        Ok(())
    }

    /// A client's next operation.
    fn begin(&mut self, number: usize) {
        let (step, key) = match self.load {
            MovingLoad::Ring => (Step::Add, 0),
            MovingLoad::Storm => {
                self.seed ^= self.seed << 13;
                self.seed ^= self.seed >> 7;
                self.seed ^= self.seed << 17;
                (Step::Add, self.seed % STORM_KEYS)
            }
            MovingLoad::GLock => (Step::Take, 0),
        };
        self.movers[number] = Mover { step, key, begun: Instant::now() };
        self.ready.push_back(number);
    }

    fn go_on(&mut self, number: usize, measured: &mut Measured) -> Result<()> {
        let Mover { step, key, begun } = self.movers[number];
        let key = key_of(self.run, key);
        let home = number % self.homes.len();
        let (_, database) = &mut self.files[home];
        let Some(mut record) = database.lock_here(&key, CHAIN_TIMEOUT)? else {
            return self.call(number, &key);
        };
        let value = number_in(record.value())?;
        let own = number as u64 + 1;
        let done = match (step, value) {
            (Step::Add, count) => {
                record.store(&(count + 1).to_le_bytes())?;
                self.added += 1;
                true
            }
            (Step::Take, 0) => {
                record.store(&own.to_le_bytes())?;
                self.movers[number].step = Step::GiveBack;
                self.ready.push_back(number);
                false
            }
            (Step::Take, _) => {
                self.pausing.insert((Instant::now() + LOCK_PAUSE, number));
                false
            }
            (Step::GiveBack, holder) => {
                ensure!(holder == own, "client {own} holds the lock, the record says {holder}");
                record.store(&0_u64.to_le_bytes())?;
                true
            }
        };
        record.unlock()?;
        if done {
            let ns = u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX);
            measured.latencies_ns.push(ns);
            measured.operations += 1;
            let next = match self.load {
                MovingLoad::Ring => (number + 1) % self.movers.len(),
                MovingLoad::Storm | MovingLoad::GLock => number,
            };
            self.begin(next);
        }
        Ok(())
    }

    fn call(&mut self, number: usize, key: &[u8]) -> Result<()> {
        let home = number % self.homes.len();
        let db = self.files[home].1.id();
        self.calls += 1;
        let call = ReqCall {
            flags: CallFlags::IMMEDIATE_MIGRATION,
            db,
            callid: CallId::NULL,
            hopcount: 0,
            key,
            calldata: b"",
        };
        self.wires.send(number, self.homes[home].pnn, Packet::ReqCall(call))
    }

    /// Every increment is in its record, wherever it is.
    ///
    /// # Errors
    /// One is missing or there twice; or a record does not come.
    pub fn verify(mut self) -> Result<()> {
        let keys = match self.load {
            MovingLoad::Ring => 1,
            MovingLoad::Storm => STORM_KEYS,
            MovingLoad::GLock => return Ok(()), // each release has checked the holder
        };
        let (client, database) = self.files.first_mut().context("no node")?;
        let mut sum = 0;
        for key in 0..keys {
            let record = client.lock_record(database, &key_of(self.run, key))?;
            sum += number_in(record.value())?;
            record.unlock()?;
        }
        ensure!(sum == self.added, "{} increments were made, {sum} are there", self.added);
        Ok(())
    }
}

fn key_of(run: u64, key: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&run.to_be_bytes());
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// 0 for a record that does not exist.
fn number_in(value: &[u8]) -> Result<u64> {
    if value.is_empty() {
        return Ok(0);
    }
    let bytes = value.try_into().with_context(|| format!("a record of {} bytes", value.len()))?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_keys_have_their_own_records() {
        assert_ne!(key_of(1, 2), key_of(2, 1));
        assert_eq!(number_in(&[]).unwrap(), 0);
        assert_eq!(number_in(&7_u64.to_le_bytes()).unwrap(), 7);
        assert!(number_in(b"x").is_err());
    }
}
