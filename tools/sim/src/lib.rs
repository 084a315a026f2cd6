//! Whole clusters in one process, driven from one seed.
//!
//! Role: runs several of the daemon's record engines against a simulated network, simulated time
//! and clients that behave as smbd does (they lock chains and write records behind the daemon's
//! back), breaks things, and checks at every step that nothing has been lost or seen twice.
//! Invariants
//! - Everything that happens is an event in one queue, ordered by simulated time; every choice comes
//!   from the seed. The same seed and options give the same run.
//! - Production code: the record engines, the planes (what they ask of other nodes, vacuum rounds, what
//!   they answer in a recovery), what vacuuming decides about a record, how a leader merges. Models: the
//!   leader of a recovery, the workers, the stores, the network, the clients.
//!
//! Origin: `docs/spec/cluster-semantics.md` 2, 3 and 7.

mod actor;
mod chains;
mod checks;
mod fairness;
mod fault;
mod mutation;
mod network;
mod node;
mod plane;
mod random;
mod recovery;
mod sim;
mod store;
mod truth;
mod worker;

pub use actor::Kind;
pub use mutation::Mutation;
pub use sim::{Sim, Violation};

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes, 1 or more.
    pub nodes: usize,
    /// Clients on every node.
    pub clients: usize,
    /// Records they work on.
    pub keys: usize,
    /// Operations of all clients together.
    pub operations: u32,
    /// Seconds over which they are spread.
    pub seconds: u64,
    /// Faults within that time.
    pub faults: u32,
    /// Read-only copies are handed out.
    pub readonly: bool,
    /// Records stay for a moment where they were wanted.
    pub leases: bool,
    /// Every message takes about as long as any other.
    pub calm: bool,
    /// A deliberate mistake.
    pub mutation: Option<Mutation>,
    /// Keeps a line for everything that happens.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            clients: 2,
            keys: 3,
            operations: 200,
            seconds: 30,
            faults: 3,
            readonly: true,
            leases: true,
            calm: false,
            mutation: None,
            trace: false,
        }
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Simulated time, in microseconds.
    pub micros: u64,
    /// Events processed.
    pub events: u64,
    /// Client operations completed.
    pub operations: u64,
    /// Faults injected.
    pub faults: u64,
    /// Recoveries completed.
    pub recoveries: u64,
    /// Read-only copies used by readers.
    pub copy_reads: u64,
    /// Tombstones deleted for good.
    pub vacuumed: u64,
    /// Arrivals of records.
    pub travels: u64,
    /// Arrivals of a record at one node while another waited for it, at most.
    pub passed_over: u32,
    /// Assertions checked.
    pub checks: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.micros += other.micros;
        self.events += other.events;
        self.operations += other.operations;
        self.faults += other.faults;
        self.recoveries += other.recoveries;
        self.copy_reads += other.copy_reads;
        self.vacuumed += other.vacuumed;
        self.travels += other.travels;
        self.passed_over = self.passed_over.max(other.passed_over);
        self.checks += other.checks;
    }
}

/// Runs one seed to its end.
///
/// # Errors
/// The first violation.
pub fn run_seed(seed: u64, options: &Options) -> Result<Summary, Violation> {
    let mut sim = Sim::new(seed, options.clone());
    sim.load();
    sim.run()
}
