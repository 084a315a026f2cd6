//! Clients of our own that count, while others are killed: what was counted must be there.
//!
//! Role: processes on the node that add one to a record again and again, in a volatile database
//! under the record's lock, or in a persistent one by transactions, and say so each time. A number
//! that was said is in the record; of one killed the last may be there without having been said.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_client::{Client, Database, DbKind};
use ringmaster_xtask::demo::cluster;

use crate::Lab;

/// First argument of a process that counts.
pub(crate) const ARGUMENT: &str = "--count";
/// Second argument of a process that only shows what the records say.
const SHOW: &str = "show";
/// The record.
const KEY: &[u8] = b"counter";
/// The longest life of a process that counts, in seconds.
const LIFE_S: u32 = 4 * 3600;
/// Between two steps, so that counting is not all that happens.
const PAUSE: Duration = Duration::from_millis(3);

/// Where is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a volatile database.
    Volatile,
    /// In a persistent database.
    Persistent,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Volatile => "volatile",
            Self::Persistent => "persistent",
        }
    }

    fn open(self, client: &mut Client) -> Result<Database> {
        Ok(match self {
            Self::Volatile => client.open("counted.tdb", DbKind::Volatile)?,
            Self::Persistent => client.open("counted_persistent.tdb", DbKind::Persistent)?,
        })
    }
}

/// A process that counts.
pub struct Counter {
    child: Child,
    pid: u32,
    said: JoinHandle<u64>,
}

impl Counter {
    /// Starts one on the lab's node; returns when it has counted once.
    ///
    /// # Errors
    /// When it cannot.
    pub fn start(lab: &Lab, place: Place) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = lab.node().command(LIFE_S, &program.to_string_lossy());
        command.args([ARGUMENT, place.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("a process that counts")?;
        let mut lines = BufReader::new(child.stdout.take().context("stdout was piped")?);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        let pid = first.trim().parse().with_context(|| format!("it said '{first}'"))?;
        ensure!(lines.read_line(&mut first)? > 0, "the process that counts ended at once");
        let said = thread::spawn(move || {
            // A line that was cut off has no end.
            let lines = lines.split(b'\n').map_while(Result::ok);
            1 + u64::try_from(lines.count()).unwrap_or(u64::MAX)
        });
        Ok(Self { child, pid, said })
    }

    /// Ends it in good order: how often it said that it had counted.
    ///
    /// # Errors
    /// When it had failed.
    pub fn stop(mut self) -> Result<u64> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "a process that counts: {status}");
        self.heard()
    }

    /// Kills it: how often it said that it had counted. It may have done so once more.
    ///
    /// # Errors
    /// When it had failed before.
    pub fn kill(mut self) -> Result<u64> {
        cluster::kill(self.pid)?;
        let status = self.child.wait()?;
        // Its keeper passes on that it was killed.
        ensure!(!status.success(), "a process that counts ended before it was killed");
        self.heard()
    }

    fn heard(self) -> Result<u64> {
        match self.said.join() {
            Ok(said) => Ok(said),
            Err(_) => bail!("the reader of a process that counts panicked"),
        }
    }
}

/// What the record says.
///
/// # Errors
/// When it cannot be read.
pub fn value(lab: &Lab, place: Place) -> Result<u64> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let line = format!("{} {ARGUMENT} {} {SHOW}", program.display(), place.name());
    let shown = lab.node().run(&line)?;
    shown.trim().parse().with_context(|| format!("it said '{shown}'"))
}

/// The process itself, on the node.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut words = args.iter().map(String::as_str);
    let place = match words.next() {
        Some("volatile") => Place::Volatile,
        Some("persistent") => Place::Persistent,
        other => bail!("nothing can be counted in {other:?}"),
    };
    let mut client = Client::connect()?;
    let mut database = place.open(&mut client)?;
    if words.next() == Some(SHOW) {
        let value = match place {
            Place::Volatile => client.fetch(&mut database, KEY)?,
            Place::Persistent => client.begin(&mut database)?.fetch(KEY)?,
        };
        println!("{}", number(&value.unwrap_or_default()));
        return Ok(());
    }
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        end.store(true, Ordering::Relaxed);
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", std::process::id())?;
    while !ended.load(Ordering::Relaxed) {
        let counted = count_once(&mut client, &mut database, place)?;
        writeln!(out, "{counted}")?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn count_once(client: &mut Client, database: &mut Database, place: Place) -> Result<u64> {
    match place {
        Place::Volatile => {
            let mut record = client.lock_record(database, KEY)?;
            let next = number(record.value()) + 1;
            record.store(&next.to_le_bytes())?;
            record.unlock()?;
            Ok(next)
        }
        Place::Persistent => {
            let mut transaction = client.begin(database)?;
            let next = number(&transaction.fetch(KEY)?.unwrap_or_default()) + 1;
            transaction.store(KEY, &next.to_le_bytes())?;
            transaction.commit()?;
            Ok(next)
        }
    }
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_le_bytes)
}
