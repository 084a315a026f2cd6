//! One client of a cluster as a process of its own: changes records as smbd does, until its time is
//! over.
//!
//! Role: the load itself. `migration` starts these processes, tells them when to begin, and adds up.
//! A client of its own process can lose its processor while it holds a chain lock, as a real one.
//! Invariants
//! - Closed loop: a client begins its next operation when the last one is done.
//! - An operation that was begun is finished, so that at the end every increment that was counted is
//!   in its record and nobody holds the lock.
//!
//! Origin: `ctdb/tests/src/fetch_ring.c` (a client's turn comes by a message),
//! `ctdb/client/client_db.c` (`g_lock`: docs/spec/cluster-semantics.md 4.1,
//! docs/spec/wire-protocol.md 7.11).

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringmaster_client::{Client, ControlOptions, Database, DbKind, LockedRecord, ReceiveError};
use ringmaster_protocol::call::{CallFlags, CallId};
use ringmaster_protocol::control::{kinds, payloads::Pid};
use ringmaster_protocol::process::{GLock, GLockList, GLockType, ServerId};
use ringmaster_protocol::record::KeyData;
use ringmaster_protocol::{Decode, Destination, Encode, Pnn, Srvid};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::histogram::{Latencies, Moments};
use crate::migration::MovingLoad;
use crate::node::Usage;
use crate::witness::Witness;

/// Name of the sub-command that makes a process a client: for the bench itself, not for people.
pub const SUBCOMMAND: &str = "bench-client";

/// The database of the load.
pub(crate) const DATABASE: &str = "bench.tdb";

/// What a client says when it is ready to begin.
pub(crate) const READY: &str = "ready";

/// Keys of [`MovingLoad::Storm`].
pub(crate) const STORM_KEYS: u64 = 1_000;

/// A client that finds the lock of [`MovingLoad::GLock`] taken looks again after this long, as C's
/// client library.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// For each request to the daemon: a collapse is to be measured, not to end the run.
const TIMEOUT: Duration = Duration::from_secs(60);

/// For each chain lock, which holders may keep while they wait for a daemon.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// An operation that is not done so long after the end is never done: the record does not stay.
const OVERTIME_MAX: Duration = Duration::from_secs(60);

/// Messages of a ring go to srvids from here on: the run's number in the middle, the client's below.
const SRVID_BASE: u64 = 0xBEED_0000_0000_0000;

/// When what is to be done; all by the clock that the processes of a machine share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phases {
    /// The load begins.
    pub(crate) begin: Duration,
    /// From here on operations count.
    pub(crate) from: Duration,
    /// They count no more, but the load goes on while the daemons' processor time is read.
    pub(crate) until: Duration,
    /// No operation begins any more.
    pub(crate) end: Duration,
}

impl Phases {
    fn all(self) -> [Duration; 4] {
        [self.begin, self.from, self.until, self.end]
    }

    pub(crate) fn to_text(self) -> String {
        self.all().map(|at| at.as_nanos().to_string()).join(" ")
    }

    fn from_text(text: &str) -> Option<Self> {
        let number = |part: &str| part.parse().ok().map(Duration::from_nanos);
        let numbers: Option<Vec<_>> = text.split_whitespace().map(number).collect();
        let [begin, from, until, end] = numbers?.try_into().ok()?;
        Some(Self { begin, from, until, end })
    }
}

/// The time that all processes of this machine agree on.
pub(crate) fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(now).unwrap_or_default()
}

/// What a client is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which load.
    pub(crate) load: MovingLoad,
    /// Its daemon.
    pub(crate) socket: PathBuf,
    /// Which of the clients it is.
    pub(crate) number: usize,
    /// How many there are.
    pub(crate) clients: usize,
    /// Keys and srvids of this run begin with it, so that counters begin at nothing.
    pub(crate) run: u64,
    /// File of the witness.
    pub(crate) witness: PathBuf,
    /// The nodes, in the order in which clients are spread over them.
    pub(crate) nodes: Vec<Pnn>,
}

impl Order {
    /// Name of the load.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.load.name()
    }

    /// As arguments of a command line.
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let Self { load, socket, number, clients, run, witness, nodes } = self;
        let numbers = [number.to_string(), clients.to_string(), run.to_string()];
        let nodes = nodes.iter().map(ToString::to_string);
        let mut args = vec![load.name().into(), socket.into(), witness.into()];
        args.extend(numbers.into_iter().chain(nodes).map(OsString::from));
        args
    }

    /// From those arguments.
    ///
    /// # Errors
    /// They are not what `Order::to_args` makes.
    pub fn from_args(args: &[OsString]) -> Result<Self> {
        let [load, socket, witness, numbers @ ..] = args else { bail!("too few arguments") };
        let load = MovingLoad::ALL.into_iter().find(|known| load == known.name());
        let number = |arg: &OsString| arg.to_str()?.parse::<u64>().ok();
        let numbers: Option<Vec<u64>> = numbers.iter().map(number).collect();
        let numbers = numbers.context("an argument is no number")?;
        let [number, clients, run, nodes @ ..] = &numbers[..] else { bail!("too few numbers") };
        let pnn = |number: &u64| u32::try_from(*number).ok().and_then(Pnn::new);
        let nodes: Option<Vec<_>> = nodes.iter().map(pnn).collect();
        let nodes = nodes.filter(|nodes| !nodes.is_empty());
        Ok(Self {
            load: load.context("an unknown load")?,
            socket: socket.into(),
            number: usize::try_from(*number)?,
            clients: usize::try_from(*clients)?,
            run: *run,
            witness: witness.into(),
            nodes: nodes.context("no nodes")?,
        })
    }
}

/// What a client has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Operations that count.
    pub(crate) operations: u64,
    /// Calls while operations counted: each asks for a record that is elsewhere.
    pub(crate) calls: u64,
    /// Increments, or times that the lock was held, counting or not.
    pub(crate) added: u64,
    /// Of the operations that count.
    pub(crate) latencies: Latencies,
    /// The same.
    pub(crate) moments: Moments,
    /// From begin to end.
    pub(crate) wall: Duration,
    /// Of this process in that time.
    pub(crate) usage: Usage,
}

impl Done {
    fn to_text(&self) -> String {
        let Self { operations, calls, added, latencies, moments, wall, usage } = self;
        let numbers = [wall, &usage.busy, &usage.waiting].map(|time| time.as_nanos().to_string());
        let numbers = format!("{operations} {calls} {added} {}", numbers.join(" "));
        format!("{numbers};{};{}", latencies.to_text(), moments.to_text())
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let [numbers, latencies, moments] = text.split(';').collect::<Vec<_>>().try_into().ok()?;
        let numbers: Option<Vec<u64>> =
            numbers.split_whitespace().map(|number| number.parse().ok()).collect();
        let [operations, calls, added, wall, busy, waiting] = numbers?.try_into().ok()?;
        let [wall, busy, waiting] = [wall, busy, waiting].map(Duration::from_nanos);
        Some(Self {
            operations,
            calls,
            added,
            latencies: Latencies::from_text(latencies)?,
            moments: Moments::from_text(moments)?,
            wall,
            usage: Usage { busy, waiting },
        })
    }
}

/// Is a client: says "ready" on standard output, reads from standard input when to begin, works,
/// and says what it has done.
///
/// # Errors
/// A daemon gives a wrong answer or none; a record is not what it must be; the bench is gone.
pub fn work(order: &Order) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot die with the bench")?;
    let mut mover = Mover::connect(order)?;
    let mut output = std::io::stdout();
    writeln!(output, "{READY}").context("the bench is gone")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("the bench is gone")?;
    mover.phases = Phases::from_text(&line).context("the bench does not say when to begin")?;
    std::thread::sleep(mover.phases.begin.saturating_sub(now()));
    let (begun, before) = (now(), Usage::of_this_thread());
    match order.load {
        MovingLoad::Ring => mover.ring()?,
        MovingLoad::Storm => mover.storm()?,
        MovingLoad::GLock => mover.g_lock()?,
    }
    mover.done.wall = now() - begun;
    mover.done.usage = Usage::of_this_thread().since(before);
    writeln!(output, "{}", mover.done.to_text()).context("the bench is gone")
}

struct Mover<'o> {
    order: &'o Order,
    client: Client,
    database: Database,
    phases: Phases,
    done: Done,
}

impl<'o> Mover<'o> {
    fn connect(order: &'o Order) -> Result<Self> {
        let mut client = Client::connect_to(&order.socket, TIMEOUT)?;
        let database = client.open(DATABASE, DbKind::Volatile)?;
        if order.load == MovingLoad::Ring {
            client.register(srvid(order.run, order.number))?;
        }
        let never = Duration::ZERO;
        let phases = Phases { begin: never, from: never, until: never, end: never };
        Ok(Self { order, client, database, phases, done: Done::default() })
    }

    /// A client adds one to the record when the one before it says so, and tells the next one. A
    /// message, and not a look at the record, because looking would bring the record too.
    fn ring(&mut self) -> Result<()> {
        let Order { run, number, clients, .. } = *self.order;
        let next = (number + 1) % clients;
        let next_node = self.order.nodes[next % self.order.nodes.len()];
        let mut own_turn = number == 0;
        while now() < self.phases.end {
            if !own_turn {
                let left = self.phases.end.saturating_sub(now());
                match self.client.receive_to(srvid(run, number), left) {
                    Ok(_) => {}
                    Err(ReceiveError::TimedOut { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            own_turn = false;
            let begun = now();
            self.add_one(0)?;
            self.completed(begun);
            self.client.send_message(Destination::Node(next_node), srvid(run, next), b"")?;
        }
        Ok(())
    }

    /// Adds one to records of its own choice.
    fn storm(&mut self) -> Result<()> {
        let mut seed =
            (self.order.run ^ self.order.number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        while now() < self.phases.end {
            // xorshift64
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let begun = now();
            self.add_one(seed % STORM_KEYS)?;
            self.completed(begun);
        }
        Ok(())
    }

    /// Takes the lock and gives it back.
    fn g_lock(&mut self) -> Result<()> {
        let witness = Witness::open(&self.order.witness)?;
        let node = self.client.pnn();
        let (pid, task_id) = (u64::from(std::process::id()), self.database.id().0);
        let unique_id = u64::from(task_id) << 32 | pid;
        let own = ServerId { pid, task_id, vnn: node.get(), unique_id };
        while now() < self.phases.end {
            let begun = now();
            while !self.try_lock(own)? {
                if now() >= self.phases.end {
                    return Ok(());
                }
                std::thread::sleep(LOCK_PAUSE);
            }
            witness.enter(pid)?;
            self.done.added += 1;
            witness.leave(pid)?;
            self.give_back(own)?;
            self.completed(begun);
        }
        Ok(())
    }

    fn add_one(&mut self, key: u64) -> Result<()> {
        self.with_record(key, |mut record, _| {
            let value = number_in(record.value())?;
            record.store(&(value + 1).to_le_bytes())?;
            Ok(record.unlock()?)
        })?;
        self.done.added += 1;
        Ok(())
    }

    /// `false`: somebody else has it. His life is asked for while the record is held, as C's client
    /// library and smbd do: who holds the record may wait for a daemon.
    fn try_lock(&mut self, own: ServerId) -> Result<bool> {
        self.with_record(0, |mut record, client| {
            let GLockList(mut list) = GLockList::from_bytes(record.value()).context("the lock")?;
            if let Some(holder) = list.first() {
                let id = holder.server_id;
                ensure!(id != own, "the lock is free, the record names this client");
                let node = Pnn::new(id.vnn).context("a holder on no node")?;
                let lives = client.process_exists(node, Pid(i32::try_from(id.pid)?))?;
                ensure!(
                    lives,
                    "process {} of node {node} holds the lock, dead, it is said",
                    id.pid
                );
                record.unlock()?;
                return Ok(false);
            }
            list.push(GLock { kind: GLockType::Write, server_id: own });
            record.store(&GLockList(list).to_bytes())?;
            record.unlock()?;
            Ok(true)
        })
    }

    /// Deletes the record, and keeps it until the daemon has been told, as C's client library.
    fn give_back(&mut self, own: ServerId) -> Result<()> {
        let db = self.database.id();
        self.with_record(0, |mut record, client| {
            let GLockList(list) = GLockList::from_bytes(record.value()).context("the lock")?;
            let alone = matches!(&list[..], [lock] if lock.server_id == own);
            ensure!(alone, "process {} holds the lock, the record says {list:?}", own.pid);
            record.store(&[])?;
            let request = KeyData { db, header: record.header(), key: record.key() };
            let options = ControlOptions::srvid(Srvid(u64::from(db.0)));
            let daemon = client.own_node();
            client.control_with::<kinds::ScheduleForDeletion>(daemon, &request, options)?;
            Ok(record.unlock()?)
        })
    }

    /// Locks a record's chain; if the record is elsewhere, unlocks, asks the daemon for it, and looks
    /// again. `work` unlocks.
    fn with_record<T>(
        &mut self,
        key: u64,
        work: impl FnOnce(LockedRecord<'_>, &mut Client) -> Result<T>,
    ) -> Result<T> {
        let key = key_of(self.order.run, key);
        let db = self.database.id();
        loop {
            if let Some(record) = self.database.lock_here(&key, CHAIN_TIMEOUT)? {
                return work(record, &mut self.client);
            }
            let now = now();
            let in_time = now < self.phases.end + OVERTIME_MAX;
            ensure!(in_time, "a record has not stayed {OVERTIME_MAX:?} after the end");
            if self.counts(now) {
                self.done.calls += 1;
            }
            self.client.call(db, &key, CallId::NULL, CallFlags::IMMEDIATE_MIGRATION)?;
        }
    }

    fn counts(&self, at: Duration) -> bool {
        (self.phases.from..self.phases.until).contains(&at)
    }

    fn completed(&mut self, begun: Duration) {
        let now = now();
        if self.counts(now) {
            self.done.operations += 1;
            self.done.latencies.add(now - begun);
            self.done.moments.mark(now - self.phases.from);
        }
    }
}

fn srvid(run: u64, number: usize) -> Srvid {
    Srvid(SRVID_BASE | (run & 0xFFFF_FFFF) << 16 | number as u64)
}

/// Key `key` of a run.
pub(crate) fn key_of(run: u64, key: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&run.to_be_bytes());
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// 0 for a record that does not exist.
pub(crate) fn number_in(value: &[u8]) -> Result<u64> {
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

    #[test]
    fn an_order_survives_the_command_line() {
        let order = Order {
            load: MovingLoad::GLock,
            socket: "/some where/socket".into(),
            number: 3,
            clients: 32,
            run: u64::MAX,
            witness: "/witness".into(),
            nodes: [1, 2].map(|pnn| Pnn::new(pnn).unwrap()).to_vec(),
        };
        assert_eq!(Order::from_args(&order.to_args()).unwrap(), order);
        let args = order.to_args();
        assert!(Order::from_args(&args[..6]).is_err(), "no nodes");
        assert!(Order::from_args(&args[1..]).is_err(), "no load");
    }

    #[test]
    fn times_and_results_survive_the_pipe() {
        let at = Duration::from_nanos;
        let phases = Phases { begin: at(1), from: at(2), until: at(3), end: at(u64::MAX) };
        assert_eq!(Phases::from_text(&phases.to_text()), Some(phases));
        assert_eq!(Phases::from_text(""), None);
        let mut done = Done { operations: 7, calls: 3, added: 9, wall: at(5), ..Done::default() };
        assert_eq!(Done::from_text(&done.to_text()), Some(done.clone()));
        done.latencies.add(at(1234));
        done.moments.mark(Duration::from_millis(200));
        done.usage = Usage { busy: at(4), waiting: at(5) };
        assert_eq!(Done::from_text(&done.to_text()), Some(done));
        assert_eq!(Done::from_text("7 3;;"), None);
    }
}
