//! Records that move between nodes, wanted by clients that are processes of their own.
//!
//! Role: starts the clients (`mover`), lets them begin together, adds up what they have done, and
//! checks that nothing was lost. One process of many clients would not do: real ones lose their
//! processor while they hold a chain, and contend for chains in the kernel.
//! Invariants
//! - All clients are connected before the first one begins.
//! - Every increment is in its record at the end; the lock was never held by two.
//! - No client outlives the run, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringmaster_client::{Client, DbKind};
use ringmaster_protocol::Pnn;

use crate::histogram::{Latencies, Moments};
use crate::mover::{
    DATABASE, Done, Order, Phases, READY, STORM_KEYS, SUBCOMMAND, key_of, now, number_in,
};
use crate::node::Usage;
use crate::wires::{Home, SILENCE_MAX};
use crate::witness::Witness;

/// For what is asked after the run.
const TIMEOUT: Duration = Duration::from_secs(30);

/// From the order to begin until the beginning: every client has read the order by then, or begins
/// late by so much as it was read late.
const BARRIER: Duration = Duration::from_millis(50);

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

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moved {
    /// Operations.
    pub operations: u64,
    /// Calls: each asks for a record of another node (or the first time from nowhere).
    pub calls: u64,
    /// Times of the operations.
    pub latencies: Latencies,
    /// Longest time without any.
    pub silence: Duration,
    /// What all clients had of the processors, as shares of one.
    pub load: Shares,
    /// The same of the daemons.
    pub daemons: Shares,
}

/// Shares of one processor.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// On it.
    pub busy: f64,
    /// Ready, but others had it.
    pub waiting: f64,
}

impl Shares {
    fn add(&mut self, usage: Usage, wall: Duration) {
        let wall = wall.as_secs_f64().max(f64::MIN_POSITIVE);
        self.busy += usage.busy.as_secs_f64() / wall;
        self.waiting += usage.waiting.as_secs_f64() / wall;
    }
}

/// How long what takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    /// Load before and after the measurement, which counts for nothing.
    pub around: Duration,
    /// The measurement.
    pub measured: Duration,
}

/// Clients, connected in turn to each of some nodes.
pub struct Movers<'h> {
    load: MovingLoad,
    homes: &'h [Home],
    run: u64,
    witness: tempfile::NamedTempFile,
    clients: Vec<Process>,
}

impl<'h> Movers<'h> {
    /// Starts the clients: `program` with [`SUBCOMMAND`]. `run` is another number each time.
    ///
    /// # Errors
    /// A client does not start, or its daemon does not answer as it should.
    pub fn start(program: &Path, homes: &'h [Home], load: MovingLoad, run: u64) -> Result<Self> {
        let witness = tempfile::NamedTempFile::new().context("cannot make a file")?;
        let nodes: Vec<Pnn> = homes.iter().map(|home| home.pnn).collect();
        let clients = load.clients(homes.len());
        let start = |(number, home): (usize, &Home)| {
            let order = Order {
                load,
                socket: home.socket.clone(),
                number,
                clients,
                run,
                witness: witness.path().to_path_buf(),
                nodes: nodes.clone(),
            };
            Process::start(program, &order)
        };
        let started = homes.iter().cycle().take(clients).enumerate().map(start);
        let clients = started.collect::<Result<_>>()?;
        Ok(Self { load, homes, run, witness, clients })
    }

    /// Runs once, reads `usage` of the daemons at the beginning and the end of the measurement, and
    /// checks what the clients have left behind.
    ///
    /// # Errors
    /// A daemon gives a wrong answer or none; an increment is lost or made twice; a lock had two
    /// holders.
    pub fn run(mut self, lengths: Lengths, usage: impl Fn() -> Result<Usage>) -> Result<Moved> {
        for client in &mut self.clients {
            let line = client.line()?;
            ensure!(line == READY, "a client said '{line}'");
        }
        let begin = now() + BARRIER;
        let from = begin + lengths.around;
        let until = from + lengths.measured;
        let phases = Phases { begin, from, until, end: until + lengths.around };
        for client in &mut self.clients {
            writeln!(client.input, "{}", phases.to_text()).context("a client is gone")?;
        }
        let read_at = |at: Duration| {
            std::thread::sleep(at.saturating_sub(now()));
            Ok::<_, anyhow::Error>((now(), usage()?))
        };
        let (first, last) = (read_at(from)?, read_at(until)?);
        let mut moved = Moved::default();
        moved.daemons.add(last.1.since(first.1), last.0 - first.0);
        let (mut moments, mut added) = (Moments::default(), 0);
        for client in &mut self.clients {
            let line = client.line()?;
            let done = Done::from_text(&line).with_context(|| format!("a client said '{line}'"))?;
            moved.operations += done.operations;
            moved.calls += done.calls;
            moved.latencies.merge(&done.latencies);
            moved.load.add(done.usage, done.wall);
            moments.merge(&done.moments);
            added += done.added;
            client.end()?;
        }
        moved.silence = moments.silence(lengths.measured);
        ensure!(moved.silence < SILENCE_MAX, "no operation for {:?}", moved.silence);
        self.verify(added)?;
        Ok(moved)
    }

    /// Every increment is in its record, wherever it is; nobody holds the lock.
    fn verify(&self, added: u64) -> Result<()> {
        let keys = if self.load == MovingLoad::Storm { STORM_KEYS } else { 1 };
        let home = self.homes.first().context("no node")?;
        let mut client = Client::connect_to(&home.socket, TIMEOUT)?;
        let mut database = client.open(DATABASE, DbKind::Volatile)?;
        let mut sum = 0;
        for key in 0..keys {
            let record = client.lock_record(&mut database, &key_of(self.run, key))?;
            sum += number_in(record.value()).context("after the run")?;
            record.unlock()?;
        }
        if self.load == MovingLoad::GLock {
            ensure!(sum == 0, "the lock is not free");
            sum = Witness::open(self.witness.path())?.times()?;
        }
        ensure!(sum == added, "clients counted {added}, {sum} are there");
        Ok(())
    }
}

/// A client's process; ends with the value.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(program: &Path, order: &Order) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            .args(order.to_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start a client: {}", program.display()))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => {
                Ok(Self { child, input, output: BufReader::new(output) })
            }
            _ => bail!("a child without pipes"),
        }
    }

    /// What it says next. Each of its waits has a limit, so something comes.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot hear a client")?;
        ensure!(!line.is_empty(), "a client failed; its reason is above");
        Ok(line.trim_end().to_owned())
    }

    fn end(&mut self) -> Result<()> {
        let status = self.child.wait().context("cannot wait for a client")?;
        ensure!(status.success(), "a client ended with {status}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
