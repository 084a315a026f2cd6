//! libtdb processes and ours on one file, each doing at random whatever a client may do, some
//! killed and started again. Afterwards nothing that was done is lost, and libtdb's check and ours
//! agree.
//!
//! `RINGMASTER_SOAK_SECONDS` sets the time per mode (default 3), `RINGMASTER_SEED` repeats the
//! random choices of a run (not its interleaving).
#![allow(unreachable_pub, reason = "modules of one test")]
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmaster_storage::flags::Flags;
use ringmaster_storage::open::{OpenOptions, open};

mod history;
#[path = "../support/libtdb.rs"]
mod libtdb;
mod peer;
#[path = "../support/ring.rs"]
mod ring;
mod worker;

use history::Log;
use libtdb::{Locker, Tdb, flag};
use peer::Ours;
use worker::{Random, Rules, Worker};

const HASH_SIZE: i32 = 7;
/// A worker that has not ended so long after its time hangs.
const HANG: Duration = Duration::from_secs(30);

/// A libtdb process that has not ended so long after its time in a damaged file is killed.
const GRACE: Duration = Duration::from_secs(1);

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

/// A worker process: obeys one `run KIND SEED END WRITER PLAIN DIES TRAVERSES DAMAGED`.
#[test]
fn torture_worker() {
    let Some((path, _, flags)) = libtdb::locker_order() else { return };
    libtdb::serve(Ok::<_, &str>(|line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        let end = UNIX_EPOCH + Duration::from_millis(number(3));
        let writer = u32::try_from(number(4)).unwrap();
        let rules = Rules {
            plain_changes: number(5) == 1,
            dies: number(6) == 1,
            traverses: number(7) == 1,
            damaged: number(8) == 1,
        };
        let log = |writer| Log::open(&log_path(&path), writer);
        let random = Random::new(number(2));
        let operations = match words[1] {
            "libtdb" => {
                let peer = Tdb::open(&path, 0, flags, libc::O_RDWR).unwrap();
                Worker { peer, log: log(writer), random, rules }.run(end)
            }
            "ours" => {
                let mut peer = Ours::open(&path, flags);
                peer.damaged = rules.damaged;
                Worker { peer, log: log(writer), random, rules }.run(end)
            }
            "reserve_alone" => {
                let mut peer = Ours::open(&path, flags);
                peer.set_reserve();
                Worker { peer, log: log(writer), random, rules }.run(end)
            }
            kind => {
                let logs = [log(writer), log(writer + 1)];
                two_threads(&path, flags, logs, random, rules, end, kind == "reserve")
            }
        };
        format!("did {operations}")
    }));
}

/// Two handles of one process, as two shards have.
fn two_threads(
    path: &Path,
    flags: i32,
    logs: [Log; 2],
    mut random: Random,
    rules: Rules,
    end: SystemTime,
    reserve: bool,
) -> u64 {
    let mut first = Ours::open(path, flags);
    first.damaged = rules.damaged;
    if reserve {
        first.set_reserve();
    }
    let database = first.database();
    let [log, second_log] = logs;
    let seed = random.below(u64::MAX);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            let (mut peer, random) = (Ours::second(&database), Random::new(seed));
            peer.damaged = rules.damaged;
            if reserve {
                peer.set_reserve();
            }
            Worker { peer, log: second_log, random, rules }.run(end)
        });
        let did = Worker { peer: first, log, random, rules }.run(end);
        did + second.join().unwrap()
    })
}

fn log_path(database: &Path) -> PathBuf {
    database.with_extension("log")
}

fn seconds() -> u64 {
    let given = std::env::var("RINGMASTER_SOAK_SECONDS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A kind of file and what may happen to its users.
#[derive(Clone, Copy)]
struct Mode {
    flags: i32,
    killed: Killed,
}

/// Who dies, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Killed {
    /// By their own hand, while they hold locks, between changes.
    Harmlessly,
    /// Anybody, anywhere; all changes are transactions.
    Anywhere,
    /// libtdb processes, anywhere, also in the middle of a store: the file is damaged by it.
    InTheMiddle,
}

struct Crew {
    path: PathBuf,
    mode: Mode,
    random: Random,
    end: SystemTime,
    writers: u32,
    workers: Vec<(&'static str, Locker)>,
    deaths: u32,
    operations: u64,
}

impl Crew {
    fn start(&mut self, kind: &'static str) {
        let mut locker = Locker::start_as("torture_worker", &self.path, HASH_SIZE, self.mode.flags);
        self.writers += 2;
        let mutexes = self.mode.flags & flag::MUTEX_LOCKING != 0;
        let one_thread = !matches!(kind, "threads" | "reserve");
        let dies = self.mode.killed == Killed::Harmlessly && one_thread;
        let traverses = kind != "libtdb" || !mutexes;
        let end = self.end.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let (seed, writer) = (self.random.below(u64::MAX), self.writers);
        let plain = u8::from(self.mode.killed != Killed::Anywhere);
        let damaged = u8::from(self.mode.killed == Killed::InTheMiddle);
        let (dies, traverses) = (u8::from(dies), u8::from(traverses));
        let rules = format!("{plain} {dies} {traverses} {damaged}");
        locker.send(&format!("run {kind} {seed} {end} {writer} {rules}"));
        self.workers.push((kind, locker));
    }

    /// Looks after the workers until all have ended.
    fn supervise(&mut self) {
        while !self.workers.is_empty() {
            std::thread::sleep(Duration::from_millis(5));
            let running = SystemTime::now() < self.end;
            if running && self.mode.killed != Killed::Harmlessly && self.random.one_in(10) {
                let bound = u64::try_from(self.workers.len()).unwrap();
                let victim = usize::try_from(self.random.below(bound)).unwrap();
                let (kind, locker) = &mut self.workers[victim];
                if self.mode.killed == Killed::Anywhere || *kind == "libtdb" {
                    locker.kill();
                }
            }
            for _ in 0..self.workers.len() {
                let (kind, locker) = self.workers.remove(0);
                self.look_at(kind, locker, running);
            }
        }
    }

    fn look_at(&mut self, kind: &'static str, mut locker: Locker, running: bool) {
        if let Some(reply) = locker.reply_within(Duration::ZERO) {
            let did = reply.strip_prefix("did ").and_then(|count| count.parse::<u64>().ok());
            self.operations += did.expect("a worker says what it did");
            return;
        }
        match locker.try_wait() {
            Some(status) if status.signal() == Some(libc::SIGKILL) => {
                self.deaths += 1;
                if running {
                    self.start(kind);
                }
            }
            Some(status) => panic!("a worker ({kind}) ended with {status}"),
            None => {
                let late = SystemTime::now().duration_since(self.end).unwrap_or_default();
                if self.mode.killed == Killed::InTheMiddle && kind == "libtdb" && late > GRACE {
                    locker.kill(); // it may walk a broken chain for ever
                }
                assert!(late < HANG, "{kind} hangs: {}{}", locker.whereabouts(), self.locks());
                self.workers.push((kind, locker));
            }
        }
    }
}

impl Crew {
    /// All locks on the file and who waits for them, and where the other workers are.
    fn locks(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let inode = format!(":{} ", std::fs::metadata(&self.path).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        let ours: Vec<_> = locks.lines().filter(|line| line.contains(&inode)).collect();
        let others: Vec<_> = self
            .workers
            .iter()
            .map(|(kind, other)| format!("{kind}: {}", other.whereabouts()))
            .collect();
        format!("\n{}\n{}", ours.join("\n"), others.join("\n"))
    }
}

fn torture(name: &str, mode: Mode) {
    torture_by(name, mode, ["libtdb", "libtdb", "ours", "threads"]);
}

fn torture_by(name: &str, mode: Mode, kinds: [&'static str; 4]) {
    if !libtdb::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("torture.tdb");
    let given = std::env::var("RINGMASTER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_secs());
    println!("{name}: RINGMASTER_SEED={seed}");
    // Holds the file open throughout: nobody else is ever the first and clears it.
    let mut anchor = Locker::start(&path, HASH_SIZE, mode.flags);
    let end = SystemTime::now() + Duration::from_secs(seconds());
    let mut crew = Crew {
        path: path.clone(),
        mode,
        random: Random::new(seed),
        end,
        writers: 0,
        workers: Vec::new(),
        deaths: 0,
        operations: 0,
    };
    for kind in kinds {
        crew.start(kind);
    }
    crew.supervise();

    let options = OpenOptions::existing(Flags::from_bits(mode.flags.cast_unsigned()));
    let mut ours = open(&path, &options).unwrap();
    if mode.killed == Killed::InTheMiddle {
        let (operations, deaths, verdict) = (crew.operations, crew.deaths, ours.check(|_, _| true));
        println!("{name}: {operations} operations, {deaths} deaths, then {verdict:?}");
        // What a recovery does with such a file: everything out, the records of the cluster in.
        ours.wipe().unwrap();
        ours.check(|_, _| true).unwrap();
        assert_eq!(anchor.run("check"), "ok");
        return;
    }
    let libtdb_says = anchor.run("check");
    let we_say = ours.check(|_, _| true);
    assert_eq!(libtdb_says == "ok", we_say.is_ok(), "libtdb: {libtdb_says}, ours: {we_say:?}");
    if mode.killed == Killed::Anywhere {
        // Commits that were cut short leak space (spec 7.8).
        ours.repair(Instant::now() + HANG).unwrap();
        assert_eq!(anchor.run("check"), "ok");
    }
    ours.check(|_, _| true).unwrap();
    let mut visited = 0;
    ours.for_each(|key, value| {
        visited += 1;
        assert!(history::is_whole(key, value));
        true
    })
    .unwrap();
    let mut value = Vec::new();
    let changes = history::judge(&log_path(&path), |key| {
        ours.fetch(key, &mut value).unwrap().then(|| value.clone())
    });
    let (operations, deaths) = (crew.operations, crew.deaths);
    println!(
        "{name}: {operations} operations, {changes} changes, {deaths} deaths, {visited} records"
    );
    assert!(changes > 0, "nothing happened");
}

#[test]
fn volatile_file_with_byte_ranges_keeps_everything_that_was_done() {
    let flags = flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | flag::VOLATILE | flag::NOSYNC;
    torture("volatile, ranges", Mode { flags, killed: Killed::Harmlessly });
}

#[test]
fn volatile_file_with_mutexes_keeps_everything_that_was_done() {
    let flags = flag::CLEAR_IF_FIRST | flag::MUTEX_LOCKING | flag::VOLATILE | flag::NOSYNC;
    torture("volatile, mutexes", Mode { flags, killed: Killed::Harmlessly });
}

#[test]
fn handles_with_a_reserve_keep_everything_that_was_done_beside_libtdb() {
    let kinds = ["libtdb", "libtdb", "reserve", "reserve_alone"];
    for (name, mutexes) in [("reserve, ranges", 0), ("reserve, mutexes", flag::MUTEX_LOCKING)] {
        let flags = flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | mutexes | flag::NOSYNC;
        torture_by(name, Mode { flags, killed: Killed::Harmlessly }, kinds);
    }
}

#[test]
fn persistent_file_with_byte_ranges_keeps_every_commit_whoever_is_killed() {
    torture("persistent, ranges", Mode { flags: flag::DEFAULT, killed: Killed::Anywhere });
}

#[test]
fn persistent_file_with_mutexes_keeps_every_commit_whoever_is_killed() {
    let flags = flag::MUTEX_LOCKING | flag::NOSYNC;
    torture("persistent, mutexes", Mode { flags, killed: Killed::Anywhere });
}

#[test]
fn file_that_dying_libtdb_processes_damage_harms_none_of_ours() {
    for (name, mutexes) in [("damaged, ranges", 0), ("damaged, mutexes", flag::MUTEX_LOCKING)] {
        let flags = flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | flag::VOLATILE | mutexes;
        torture(name, Mode { flags: flags | flag::NOSYNC, killed: Killed::InTheMiddle });
    }
}
