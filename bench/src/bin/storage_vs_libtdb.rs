//! Our storage beside libtdb on the same machine, interleaved: a table of ratios.
//!
//! `storage_vs_libtdb [--rounds N] [--records N] [--traverse N] [--json FILE] [--contended] [--quick]`
//!
//! For each locking mode and number of processes, rounds alternate between ours and C; each round
//! starts fresh processes on a fresh file. A line is the median over the rounds of the time per
//! operation (the slower process counts), and the median of the rounds' ratios C / ours: above 1 we
//! are faster. Lines of one process are processor time, for the machine may be shared; lines of two
//! are wall-clock time. libtdb is called through `dlopen` in this same program.
//! Files lie in memory (`/dev/shm`) where there is such a place; the synchronous transactions use
//! the temporary directory, and what lies outside of the syncs is listed beside them.

#[path = "../contended.rs"]
mod contended;
#[path = "../../../storage/tests/support/libtdb.rs"]
mod libtdb;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtdb::{Tdb, flag, mode};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::{Handle, Progress, Reserve};
use ringmaster_storage::lock::{LockKind, Wait};
use ringmaster_storage::open::{OpenOptions, open};

const HASH_SIZE: u32 = 100_001;
const KEY_LEN: usize = 16;
const VALUE_LEN: usize = 100;
/// Transactions without sync, and with, per process.
const TRANSACTIONS: u32 = 300;
const SYNCED: u32 = 40;

/// Passes over all keys in the lines that leave everything as it was: one alone is too short.
const PASSES: u32 = 10;

/// What is measured, in this order.
const LINES: [&str; 8] =
    ["insert", "fetch", "update", "lock_pair", "locked_rmw", "traverse", "delete", "transaction"];

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "--worker") {
        return worker(&args[1..]);
    }
    let options = Options::parse(&args)?;
    if let Err(reason) = libtdb::library() {
        println!("skipped: {reason}");
        return Ok(());
    }
    if options.contended_only {
        return contended::compare(&options);
    }
    let mut results = Vec::new();
    for (mode_name, flags) in MODES {
        for processes in [1, 2] {
            results.extend(compare(&options, mode_name, flags, processes)?);
        }
    }
    results.push(compare_traverse(&options)?);
    results.extend(compare_synced(&options)?);
    print_table(&results);
    contended::compare(&options)?;
    if let Some(path) = &options.json {
        std::fs::write(path, to_json(&options, &results)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Locking modes, with the flags of the open.
const MODES: [(&str, i32); 3] = [
    ("nolock", flag::NOLOCK | flag::INCOMPATIBLE_HASH | flag::NOSYNC),
    ("fcntl", flag::INCOMPATIBLE_HASH | flag::NOSYNC),
    ("mutex", flag::MUTEX_LOCKING | flag::CLEAR_IF_FIRST | flag::NOSYNC),
];

struct Options {
    rounds: usize,
    records: u32,
    traverse: u32,
    json: Option<PathBuf>,
    contended_only: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self {
            rounds: 7,
            records: 20_000,
            traverse: 1_000_000,
            json: None,
            contended_only: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--records" => options.records = value()?.parse()?,
                "--traverse" => options.traverse = value()?.parse()?,
                "--json" => options.json = Some(PathBuf::from(value()?)),
                "--contended" => options.contended_only = true,
                "--quick" => {
                    (options.rounds, options.records, options.traverse) = (1, 500, 5_000);
                }
                other => bail!("unknown option {other}"),
            }
        }
        ensure!(options.rounds > 0 && options.records > 0, "at least one round and one record");
        Ok(options)
    }
}

/// One line of the table; times in nanoseconds per operation.
struct Line {
    mode: String,
    processes: usize,
    name: String,
    ours: f64,
    theirs: f64,
    /// C / ours, median of the rounds.
    ratio: f64,
    /// Ours, without the time spent in syncs (synchronous transactions only).
    outside_syncs: Option<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn compare(options: &Options, mode: &str, flags: i32, processes: usize) -> Result<Vec<Line>> {
    if mode == "nolock" && processes > 1 {
        return Ok(Vec::new());
    }
    let mut ours = vec![Vec::new(); LINES.len()];
    let mut theirs = vec![Vec::new(); LINES.len()];
    for round in 0..options.rounds {
        let sides = [("ours", &mut ours), ("libtdb", &mut theirs)];
        let order: Vec<_> =
            if round % 2 == 0 { sides.into() } else { sides.into_iter().rev().collect() };
        for (side, times) in order {
            let measured = run_workers(options, side, flags, processes)?;
            for (line, time) in measured.into_iter().enumerate() {
                times[line].push(time);
            }
        }
    }
    let lines = LINES.iter().zip(ours.into_iter().zip(theirs));
    Ok(lines.map(|(name, (ours, theirs))| line(mode, processes, name, ours, theirs)).collect())
}

fn line(mode: &str, processes: usize, name: &str, ours: Vec<f64>, theirs: Vec<f64>) -> Line {
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect();
    Line {
        mode: mode.to_owned(),
        processes,
        name: name.to_owned(),
        ours: median(ours),
        theirs: median(theirs),
        ratio: median(ratios),
        outside_syncs: None,
    }
}

/// A directory in memory if there is one.
fn scratch() -> Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new();
    let made = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
    made.context("cannot make a scratch directory")
}

struct Worker {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    fn start(args: &[&str]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--worker")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("stdin is piped")?;
        let stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        Ok(Self { child, stdin, stdout })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "a worker died");
        Ok(line.trim().to_owned())
    }
}

/// Runs all lines in fresh processes on a fresh file; the slower process counts.
fn run_workers(options: &Options, side: &str, flags: i32, processes: usize) -> Result<Vec<f64>> {
    let directory = scratch()?;
    let path = directory.path().join("bench.tdb");
    let path = path.to_str().context("a UTF-8 path")?;
    let (flags, records) = (flags.to_string(), options.records.to_string());
    let workers = (0..processes)
        .map(|number| {
            let clock = if processes == 1 { "cpu" } else { "wall" };
            let number = number.to_string();
            Worker::start(&["all", side, &flags, path, &records, &number, clock])
        })
        .collect::<Result<Vec<_>>>()?;
    in_step(workers, LINES.len())
}

/// Lets the workers begin each of `lines` at the same moment; the slower one counts.
fn in_step(mut workers: Vec<Worker>, lines: usize) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..lines {
        for worker in &mut workers {
            ensure!(worker.line()? == "ready", "a worker is out of step");
        }
        for worker in &mut workers {
            writeln!(worker.stdin, "go")?;
        }
        let mut slowest = 0.0_f64;
        for worker in &mut workers {
            slowest = slowest.max(worker.line()?.parse()?);
        }
        times.push(slowest);
    }
    for mut worker in workers {
        drop(worker.stdin);
        ensure!(worker.child.wait()?.success(), "a worker failed");
    }
    Ok(times)
}

/// Lines of output of a worker that needs no barrier.
fn run_alone(args: &[&str]) -> Result<Vec<f64>> {
    let mut worker = Worker::start(args)?;
    let mut numbers = Vec::new();
    for word in worker.line()?.split(' ') {
        numbers.push(word.parse()?);
    }
    ensure!(worker.child.wait()?.success(), "a worker failed");
    Ok(numbers)
}

fn compare_traverse(options: &Options) -> Result<Line> {
    let directory = scratch()?;
    let path = directory.path().join("traverse.tdb");
    let flags = flag::NOLOCK | flag::INCOMPATIBLE_HASH | flag::NOSYNC;
    let tdb = Tdb::create(&path, i32::try_from(HASH_SIZE)?, flags)?;
    for number in 0..options.traverse {
        check(tdb.store(&key(0, number), &[7; VALUE_LEN], mode::INSERT))?;
    }
    drop(tdb);
    let path = path.to_str().context("a UTF-8 path")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.max(5) {
        ours.extend(run_alone(&["traverse", "ours", path])?);
        theirs.extend(run_alone(&["traverse", "libtdb", path])?);
    }
    let name = format!("traverse {} records", options.traverse);
    Ok(line("fcntl", 1, &name, ours, theirs))
}

fn compare_synced(options: &Options) -> Result<Vec<Line>> {
    let directory = tempfile::tempdir()?;
    let (mut ours, mut theirs, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds {
        for side in ["ours", "libtdb"] {
            let path = directory.path().join(format!("{side}{round}.tdb"));
            let path = path.to_str().context("a UTF-8 path")?;
            let times = run_alone(&["synced", side, path])?;
            if side == "ours" { &mut ours } else { &mut theirs }.push(times[0]);
            if side == "ours" {
                outside.push(times[1]);
            }
        }
    }
    let mut line = line("fcntl", 1, "transaction, synchronous", ours, theirs);
    line.outside_syncs = Some(median(outside));
    Ok(vec![line])
}

fn print_table(lines: &[Line]) {
    println!(
        "{:<8}{:>3}  {:<28}{:>12}{:>12}{:>8}",
        "mode", "n", "line", "ours ns", "C ns", "C/ours"
    );
    for line in lines {
        print!(
            "{:<8}{:>3}  {:<28}{:>12.0}{:>12.0}{:>8.2}",
            line.mode, line.processes, line.name, line.ours, line.theirs, line.ratio
        );
        match line.outside_syncs {
            Some(outside) => println!("   ({outside:.0} ns outside of the syncs)"),
            None => println!(),
        }
    }
}

fn to_json(options: &Options, lines: &[Line]) -> Result<String> {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            serde_json::json!({
                "mode": line.mode, "processes": line.processes, "line": line.name,
                "ours_ns": line.ours, "libtdb_ns": line.theirs, "ratio": line.ratio,
                "outside_syncs_ns": line.outside_syncs,
            })
        })
        .collect();
    let result = serde_json::json!({
        "benchmark": "storage_vs_libtdb", "rounds": options.rounds, "records": options.records,
        "key_bytes": KEY_LEN, "value_bytes": VALUE_LEN, "hash_size": HASH_SIZE, "lines": lines,
    });
    Ok(serde_json::to_string_pretty(&result)?)
}

// The workers: one process each.

/// One side of the comparison.
enum Side {
    Ours { handle: Box<Handle>, buf: Vec<u8> },
    Theirs(Tdb),
}

fn key(process: u32, number: u32) -> [u8; KEY_LEN] {
    let mut key = [0x4B; KEY_LEN];
    key[..4].copy_from_slice(&process.to_le_bytes());
    key[4..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn check<T>(done: Result<T, libtdb::TdbError>) -> Result<T> {
    done.map_err(|libtdb::TdbError(code)| anyhow::anyhow!("libtdb: error {code}"))
}

impl Side {
    fn open(side: &str, path: &Path, flags: i32) -> Result<Self> {
        if side != "libtdb" {
            let flags = Flags::from_bits(flags.cast_unsigned());
            let mut handle = Box::new(open(path, &OpenOptions::create(HASH_SIZE, flags))?);
            if side == "reserve" {
                handle.set_reserve(Some(Reserve::default()))?;
            }
            return Ok(Self::Ours { handle, buf: Vec::new() });
        }
        Ok(Self::Theirs(Tdb::create(path, i32::try_from(HASH_SIZE)?, flags)?))
    }

    fn fetch(&mut self, key: &[u8]) -> Result<()> {
        let len = match self {
            Self::Ours { handle, buf } => handle.fetch(key, buf)?.then_some(buf.len()),
            Self::Theirs(tdb) => tdb.fetch_len(key),
        };
        ensure!(len == Some(VALUE_LEN), "a record is missing");
        Ok(())
    }

    fn store(&mut self, key: &[u8], value: &[u8], insert: bool) -> Result<()> {
        match self {
            Self::Ours { handle, .. } => {
                let how = if insert { StoreMode::Insert } else { StoreMode::Replace };
                ensure!(handle.store(key, &[value], how)? == Stored::Done, "not stored");
                Ok(())
            }
            Self::Theirs(tdb) => {
                check(tdb.store(key, value, if insert { mode::INSERT } else { mode::REPLACE }))
            }
        }
    }

    fn delete(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Ours { handle, .. } => ensure!(handle.delete(key)?, "not there"),
            Self::Theirs(tdb) => check(tdb.delete(key))?,
        }
        Ok(())
    }

    fn lock_pair(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Ours { handle, .. } => Ok(handle.lock_key(key, LockKind::Write)?.unlock()?),
            Self::Theirs(tdb) => {
                check(tdb.chainlock(key))?;
                check(tdb.chainunlock(key))
            }
        }
    }

    fn locked_rmw(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Ours { handle, buf } => {
                let mut locked = handle.lock_key(key, LockKind::Write)?;
                ensure!(locked.fetch(key, buf)?, "not there");
                let done = locked.store(key, &[value], StoreMode::Replace)?;
                ensure!(done == Stored::Done, "not stored");
                Ok(locked.unlock()?)
            }
            Self::Theirs(tdb) => {
                check(tdb.chainlock(key))?;
                ensure!(tdb.fetch_len(key).is_some(), "not there");
                check(tdb.store(key, value, mode::REPLACE))?;
                check(tdb.chainunlock(key))
            }
        }
    }

    fn count(&mut self) -> Result<u64> {
        match self {
            Self::Ours { handle, .. } => Ok(handle.for_each(|_, _| true)?),
            Self::Theirs(tdb) => Ok(u64::try_from(check(tdb.count_records())?)?),
        }
    }

    /// One replace in a transaction; returns the time spent in syncs (ours only).
    fn transaction(&mut self, key: &[u8], value: &[u8]) -> Result<Duration> {
        let mut in_syncs = Duration::ZERO;
        match self {
            Self::Ours { handle, .. } => {
                let deadline = Instant::now() + Duration::from_secs(60);
                let mut session =
                    handle.start_transaction(Wait::Yes)?.context("waiting is never busy")?;
                let done = session.store(handle, key, &[value], StoreMode::Replace)?;
                ensure!(done == Stored::Done, "not stored");
                loop {
                    match session.commit(handle, deadline)? {
                        Progress::Done => break,
                        Progress::Busy => bail!("a minute of waiting"),
                        Progress::Sync(point) => {
                            let start = Instant::now();
                            handle.database().store().sync(point)?;
                            in_syncs += start.elapsed();
                        }
                    }
                }
            }
            Self::Theirs(tdb) => {
                check(tdb.transaction_start())?;
                check(tdb.store(key, value, mode::REPLACE))?;
                check(tdb.transaction_commit())?;
            }
        }
        Ok(in_syncs)
    }
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec the call fills in.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

struct Clock {
    start: Duration,
    wall: Option<Instant>,
}

impl Clock {
    fn start(kind: &str) -> Self {
        Self { wall: (kind == "wall").then(Instant::now), start: cpu_time() }
    }

    fn nanos_per(&self, operations: u32) -> f64 {
        let elapsed = self.wall.map_or_else(|| cpu_time() - self.start, |start| start.elapsed());
        elapsed.as_secs_f64() * 1e9 / f64::from(operations.max(1))
    }
}

fn worker(args: &[String]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["all", side, flags, path, records, process, clock] => {
            let side = Side::open(side, Path::new(path), flags.parse()?)?;
            all_lines(side, records.parse()?, process.parse()?, clock)
        }
        // For a profiler: one line only, many times. `--worker loop ours 4097 FILE lock_pair 5000000`
        ["loop", side, flags, path, name, times] => {
            let mut side = Side::open(side, Path::new(path), flags.parse()?)?;
            let key = key(0, 0);
            side.store(&key, &[1; VALUE_LEN], false)?;
            let (clock, times) = (Clock::start("cpu"), times.parse()?);
            for number in 0..times {
                match name {
                    "fetch" => side.fetch(&key)?,
                    "update" => side.store(&key, &[value_byte(number); VALUE_LEN], false)?,
                    "lock_pair" => side.lock_pair(&key)?,
                    other => bail!("no line {other}"),
                }
            }
            println!("{}", clock.nanos_per(times));
            Ok(())
        }
        ["contended", side, flags, path, keys, records, process] => {
            let side = Side::open(side, Path::new(path), flags.parse()?)?;
            contended::work(side, keys, records.parse()?, process.parse()?)
        }
        ["traverse", side, path] => {
            let flags = flag::INCOMPATIBLE_HASH | flag::NOSYNC;
            let mut side = Side::open(side, Path::new(path), flags)?;
            side.count()?; // brings the file into the caches
            let clock = Clock::start("cpu");
            let count = side.count()?;
            println!("{}", clock.nanos_per(u32::try_from(count)?));
            Ok(())
        }
        ["synced", side, path] => {
            let mut side = Side::open(side, Path::new(path), flag::DEFAULT)?;
            side.transaction(&key(0, 0), &[0; VALUE_LEN])?; // makes the recovery area
            let (mut in_syncs, start) = (Duration::ZERO, Instant::now());
            for number in 0..SYNCED {
                in_syncs += side.transaction(&key(0, 0), &[value_byte(number); VALUE_LEN])?;
            }
            let elapsed = start.elapsed();
            let per = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(SYNCED);
            println!("{} {}", per(elapsed), per(elapsed.saturating_sub(in_syncs)));
            Ok(())
        }
        _ => bail!("worker arguments: {args:?}"),
    }
}

fn value_byte(number: u32) -> u8 {
    u8::try_from(number % 251).unwrap_or(0)
}

/// All of [`LINES`], with a barrier in front of each.
fn all_lines(mut side: Side, records: u32, process: u32, clock: &str) -> Result<()> {
    // A fixed stride walks all keys in an order that no cache foresees.
    let stride = (1..).map(|add| records / 2 + add).find(|stride| gcd(*stride, records) == 1);
    let stride = u64::from(stride.unwrap_or(1));
    let order: Vec<u32> = (0..u64::from(records))
        .map(|number| u32::try_from(number * stride % u64::from(records)).unwrap_or(0))
        .collect();
    let keys: Vec<_> = order.iter().map(|number| key(process, *number)).collect();
    let mut input = std::io::stdin().lines();
    for name in LINES {
        println!("ready");
        input.next().context("the parent is gone")??;
        let started = Clock::start(clock);
        let mut operations = records;
        match name {
            "insert" => each(&keys, |key| side.store(key, &[1; VALUE_LEN], true))?,
            "fetch" | "update" | "lock_pair" | "locked_rmw" => {
                operations *= PASSES;
                for pass in 0..PASSES {
                    let value = [value_byte(pass); VALUE_LEN];
                    each(&keys, |key| match name {
                        "fetch" => side.fetch(key),
                        "update" => side.store(key, &value, false),
                        "lock_pair" => side.lock_pair(key),
                        _ => side.locked_rmw(key, &value),
                    })?;
                }
            }
            "traverse" => operations = u32::try_from(side.count()?)?,
            "delete" => each(&keys, |key| side.delete(key))?,
            "transaction" => {
                operations = TRANSACTIONS;
                for number in 0..TRANSACTIONS {
                    side.transaction(&keys[0], &[value_byte(number); VALUE_LEN])?;
                }
            }
            other => bail!("no line {other}"),
        }
        println!("{}", started.nanos_per(operations));
    }
    Ok(())
}

fn each(keys: &[[u8; KEY_LEN]], mut work: impl FnMut(&[u8; KEY_LEN]) -> Result<()>) -> Result<()> {
    keys.iter().try_for_each(&mut work)
}

fn gcd(left: u32, right: u32) -> u32 {
    if right == 0 { left } else { gcd(right, left % right) }
}
