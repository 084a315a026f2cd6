//! Whole-file work of one database, in a thread of its own.
//!
//! Role: freeze, recovery transaction, pull, push, persistent commits, check, sequence numbers:
//! everything that waits for other processes or the disk. Records of calls: the shards.
//! Owner: its thread; jobs come one at a time, in order.
//! Invariants
//! - Frozen means that this thread holds ALLRECORD for writing, from freeze to thaw.
//! - Until the commit of a recovery the old content stays readable: the leader may die and the
//!   next one pulls again. Volatile and replicated records are staged in memory, persistent ones
//!   written inside a real transaction, whose commit takes OPEN.
//! - A job that fails says why; nothing is half done in the file.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.9, 4.3, 7.5, 7.6; `ctdb/server/ctdb_freeze.c`,
//! `ctdb_recover.c`, `ctdb_update_record.c`.

mod recovery;
pub mod traverse;
mod update;
mod vacuum;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use ringmaster_control::node::Outcome;
use ringmaster_protocol::{
    DbId, Pnn, Srvid,
    control::ControlOpcode,
    database::{DbFlags, TdbOpenFlags},
};
use ringmaster_storage::{
    handle::{Database, Handle},
    lock::{FileLocks, LockKind, Wait},
    open::{OpenOptions, open},
    store::Store,
};

use self::{recovery::Recovery, vacuum::Round};

/// Jobs that may wait for one database. Control sends the next one when the last has ended, apart
/// from a thaw that overtakes a freeze in its wait.
const JOBS_MAX: usize = 1_024;

/// Staged records of one database: beyond it the recovery fails, and not the node.
pub const STAGED_BYTES_MAX: usize = 8 * 1024 * 1024 * 1024;

/// Key of the sequence number that transactions keep (with its NUL).
pub(crate) const SEQNUM_KEY: &[u8] = b"__db_sequence_number__\0";

/// What a vacuum round is given.
pub use ringmaster_dataplane::record::vacuum::Tombstone;

/// What a worker is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Take all locks of the file.
    Freeze,
    /// Give them back; drop a transaction that is open.
    Thaw,
    /// Undo a commit that somebody else has died in.
    Recover,
    /// Open the recovery transaction.
    TransactionStart,
    /// Drop it.
    TransactionCancel,
    /// Put it in place.
    TransactionCommit,
    /// Empty the database, in the transaction.
    Wipe,
    /// Send all records in batches of at least `batch_bytes`.
    Pull {
        /// Receiver of the messages.
        srvid: Srvid,
        /// Its node.
        to: Pnn,
        /// Tunable `RecBufferSizeLimit`.
        batch_bytes: usize,
    },
    /// Stage a batch of pushed records.
    Push(Vec<u8>),
    /// Store the records of a buffer by the rules of UPDATE_RECORD; not for a volatile database.
    Update(Vec<u8>),
    /// Store the one record of a buffer as PUSH_RECORD wants it, and sync the file.
    PushRecord(Vec<u8>),
    /// Delete records by the rules of TRY_DELETE_RECORDS.
    TryDelete(Vec<u8>),
    /// Start a vacuum round.
    VacuumBegin {
        /// What was scheduled for deletion.
        scheduled: Vec<Tombstone>,
        /// Look for empty records in the whole file too.
        full: bool,
    },
    /// Go on with it: decide about some records.
    VacuumStep,
    /// Delete records whose copies everybody has deleted.
    VacuumDelete(Vec<u8>),
    /// Merge free blocks if the freelist is as long as this (tunable `RepackLimit`; 0: never).
    MergeFreeBlocks(u32),
    /// `__db_sequence_number__`.
    DbSeqnum,
    /// Count of changes in the TDB header.
    TdbSeqnum,
    /// Raise that by one.
    BumpTdbSeqnum,
    /// Changes by this worker count too: smbd takes an unchanged number for unchanged records.
    EnableSeqnum,
    /// Full check.
    Check,
}

/// What a worker sends on the way.
#[derive(Debug)]
pub enum Sent {
    /// A batch of a pull.
    Message {
        /// Node.
        to: Pnn,
        /// Receiver.
        srvid: Srvid,
        /// A `ctdb_rec_buffer`.
        data: Vec<u8>,
    },
    /// A record of a traverse.
    Control {
        /// Node.
        to: Pnn,
        /// TRAVERSE_DATA.
        opcode: ControlOpcode,
        /// A `ctdb_rec_data`.
        data: Vec<u8>,
    },
}

impl Sent {
    /// Bytes of the payload.
    #[must_use]
    pub const fn payload_len(&self) -> usize {
        let (Self::Message { data, .. } | Self::Control { data, .. }) = self;
        data.len()
    }
}

/// Where a worker's results go. Called on the worker's thread; may block for flow control.
pub trait Report: Send + 'static {
    /// The file has been opened, or why not. Comes first.
    fn opened(&self, db: DbId, opened: Result<Opened, String>);
    /// Something is to be sent; comes before the outcome of its job.
    fn sent(&self, sent: Sent);
    /// A job has ended.
    fn done(&self, db: DbId, job: u64, outcome: Outcome);
}

/// An open database.
#[derive(Clone, Debug)]
pub struct Opened {
    /// For the handles of the shards.
    pub database: Arc<Database>,
    /// What clients are told to open it with.
    pub flags: TdbOpenFlags,
}

/// What the worker has to know of its database.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Id.
    pub id: DbId,
    /// Kind.
    pub flags: DbFlags,
    /// This node.
    pub pnn: Pnn,
    /// The vnn map, for who is lmaster; as of the last job that says otherwise.
    pub lmasters: Arc<[Pnn]>,
}

impl Facts {
    fn is_volatile(&self) -> bool {
        !self.flags.intersects(DbFlags::PERSISTENT | DbFlags::REPLICATED)
    }

    fn is_persistent(&self) -> bool {
        self.flags.intersects(DbFlags::PERSISTENT)
    }
}

/// The sender's side of a worker.
pub struct Worker {
    jobs: mpsc::SyncSender<(u64, Order)>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Job(Job),
    Lmasters(Arc<[Pnn]>),
    End,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts the thread, which opens the file: [`Report::opened`] says what came of it. A new
    /// database is empty, a persistent one must be whole.
    ///
    /// # Errors
    /// When the kernel has no thread left.
    pub fn start(
        facts: Facts,
        path: PathBuf,
        options: OpenOptions,
        report: impl Report,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel(JOBS_MAX);
        let name = format!("db-{:08x}", facts.id.0);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let id = facts.id;
            match Bench::open(facts, &path, &options) {
                Ok(bench) => {
                    let database = Arc::clone(bench.handle.database());
                    let flags = TdbOpenFlags(bench.handle.flags().bits());
                    report.opened(id, Ok(Opened { database, flags }));
                    serve(bench, &inbox, &report);
                }
                Err(reason) => report.opened(id, Err(reason)),
            }
        })?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    /// Queues a job; `number` comes back in [`Report::done`]. `false` when the worker is gone or
    /// has too many jobs waiting.
    #[must_use]
    pub fn order(&self, number: u64, job: Job) -> bool {
        self.send(number, Order::Job(job))
    }

    fn send(&self, number: u64, order: Order) -> bool {
        self.jobs.try_send((number, order)).is_ok()
    }

    /// A new map of lmasters.
    pub fn set_lmasters(&self, lmasters: Arc<[Pnn]>) {
        // A worker that is gone needs none.
        let _ = self.send(0, Order::Lmasters(lmasters));
    }

    /// Ends the thread after the jobs that wait. A freeze that waits for a stuck process cannot be
    /// waited for: the thread is left to the end of the process then.
    pub fn end(mut self) {
        let _ = self.send(0, Order::End);
        self.thread.take();
    }
}

fn serve(mut bench: Bench, inbox: &mpsc::Receiver<(u64, Order)>, report: &impl Report) {
    let id = bench.facts.id;
    while let Ok((number, order)) = inbox.recv() {
        match order {
            Order::End => return,
            Order::Lmasters(lmasters) => bench.facts.lmasters = lmasters,
            Order::Job(job) => {
                let outcome = bench.run(job, |sent| report.sent(sent));
                if let Outcome::Failed(reason) = &outcome {
                    tracing::warn!(db = %id, reason, "database job failed");
                }
                report.done(id, number, outcome);
            }
        }
    }
}

/// The thread's own side.
struct Bench {
    facts: Facts,
    handle: Handle,
    frozen: bool,
    recovery: Option<Recovery>,
    round: Option<Round>,
}

impl Bench {
    fn open(facts: Facts, path: &Path, options: &OpenOptions) -> Result<Self, String> {
        let failed = |why: &dyn fmt::Display| format!("cannot open {}: {why}", path.display());
        let mut handle = open(path, options).map_err(|error| failed(&error))?;
        let database = handle.database();
        if let Some(mutexes) = database.mutexes().filter(|_| !database.made_here()) {
            // A daemon that died may have kept a wake-up that others sleep for. One system call
            // per chain: half the price of an attach, so not for a file that is new.
            mutexes.wake_everybody();
        }
        if facts.is_persistent() {
            let checked = handle.check(|_, _| true);
            checked.map_err(|error| {
                failed(&format!("{error}; restore it from a backup (`ctdb restoredb`)"))
            })?;
        }
        Ok(Self { facts, handle, frozen: false, recovery: None, round: None })
    }

    fn run(&mut self, job: Job, mut send: impl FnMut(Sent)) -> Outcome {
        match job {
            Job::Freeze => done(self.freeze()),
            Job::Thaw => done(self.thaw()),
            Job::Recover => done(
                self.handle
                    .recover()
                    .map_err(|error| format!("cannot undo a crashed commit: {error}")),
            ),
            Job::TransactionStart => done(self.transaction_start()),
            Job::TransactionCancel => {
                self.recovery = None;
                Outcome::Done
            }
            Job::TransactionCommit => done(self.transaction_commit()),
            Job::Wipe => done(self.wipe()),
            Job::Pull { srvid, to, batch_bytes } => {
                count(self.pull(srvid, to, batch_bytes, &mut send))
            }
            Job::Push(buffer) => count(self.push(&buffer)),
            Job::Update(buffer) => done(self.update(&buffer)),
            Job::PushRecord(buffer) => done(self.push_record(&buffer)),
            Job::TryDelete(buffer) => match self.try_delete(&buffer) {
                Ok(kept) => Outcome::Bytes(kept),
                Err(reason) => Outcome::Failed(reason),
            },
            Job::VacuumBegin { scheduled, full } => done(self.vacuum_begin(scheduled, full)),
            Job::VacuumStep => match self.vacuum_step() {
                Ok(step) => Outcome::Vacuumed(step),
                Err(reason) => Outcome::Failed(reason),
            },
            Job::VacuumDelete(buffer) => count(self.vacuum_delete(&buffer)),
            Job::MergeFreeBlocks(limit) => count(self.merge_free_blocks(limit)),
            Job::DbSeqnum => seqnum(self.db_seqnum()),
            Job::TdbSeqnum => seqnum(
                self.handle.database().seqnum().map(u64::from).map_err(|error| error.to_string()),
            ),
            Job::BumpTdbSeqnum => seqnum(self.bump_tdb_seqnum()),
            Job::EnableSeqnum => {
                self.handle.enable_seqnum();
                Outcome::Done
            }
            Job::Check => {
                done(self.handle.check(|_, _| true).map(drop).map_err(|error| error.to_string()))
            }
        }
    }

    fn freeze(&mut self) -> Result<(), String> {
        self.round = None;
        if self.frozen {
            return Ok(());
        }
        let locked = self.handle.locks().lock_all_records(LockKind::Write, Wait::Yes);
        let _granted = locked.map_err(|error| format!("cannot freeze the database: {error}"))?;
        self.frozen = true;
        Ok(())
    }

    fn thaw(&mut self) -> Result<(), String> {
        self.recovery = None;
        if !self.frozen {
            return Ok(());
        }
        self.frozen = false;
        let unlocked = self.handle.locks().unlock_all_records();
        unlocked.map_err(|error| format!("cannot thaw the database: {error}"))
    }

    fn db_seqnum(&mut self) -> Result<u64, String> {
        let mut value = Vec::new();
        let record = self
            .handle
            .fetch_record(SEQNUM_KEY, &mut value)
            .map_err(|error| format!("cannot read the sequence number: {error}"))?;
        let number = record.and_then(|record| record.data.try_into().ok());
        Ok(number.map_or(0, u64::from_le_bytes))
    }

    fn bump_tdb_seqnum(&mut self) -> Result<u64, String> {
        let database = self.handle.database();
        database.store().add_seqnum().map_err(|error| error.to_string())?;
        database.seqnum().map(u64::from).map_err(|error| error.to_string())
    }
}

fn done(result: Result<(), String>) -> Outcome {
    match result {
        Ok(()) => Outcome::Done,
        Err(reason) => Outcome::Failed(reason),
    }
}

fn count(result: Result<u32, String>) -> Outcome {
    match result {
        Ok(count) => Outcome::Count(count),
        Err(reason) => Outcome::Failed(reason),
    }
}

fn seqnum(result: Result<u64, String>) -> Outcome {
    match result {
        Ok(number) => Outcome::Seqnum(number),
        Err(reason) => Outcome::Failed(reason),
    }
}

#[cfg(test)]
mod tests;
