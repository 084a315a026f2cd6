//! Servers are killed in the middle of their sessions, while others work and count.
//!
//! What must hold: no session hangs, every counted number is in its record, and when all is quiet
//! again the daemon holds what it held before, no file is open, and locks are given as before.

use std::{
    fs,
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use ringmaster_e2e::{
    Lab, Subject,
    count::{self, Counter, Place},
    random::Random,
    share, size,
    usage::Usage,
};
use ringmaster_xtask::demo::{random_file, samba, wait, world::SHARED};

use crate::{PROCESSES, SESSION_S, every_database_can_be_read, torture};

/// Servers killed: in CI, in a soak.
const KILLS: (usize, usize) = (20, 500);
/// Workers that begin one session after the other.
const WORKERS: usize = 5;
/// The longest wait before a kill, in milliseconds: each hits another moment of the work.
const MOMENTS_MS: usize = 60;
/// One kill in so many hits one of smbd's helpers, and one a process that counts.
const HELPERS_EACH: usize = 10;
const COUNTERS_EACH: usize = 5;
/// What our daemon's own memory may have grown by, in KiB: what allocators keep. A leak of a few
/// kilobytes per kill is more than this in a soak. C's grows by more at times.
const GROWN_KIB_MAX: u64 = 2048;
/// Time of one session of smbtorture, in seconds. It may wait in vain when its server is killed.
const TORTURE_S: u32 = 20;
/// Databases in which dead servers leave records.
const LEFT_BEHIND: &[&str] = &[
    "locking.tdb",
    "brlock.tdb",
    "leases.tdb",
    "smbXsrv_open_global.tdb",
    "smbXsrv_session_global.tdb",
    "smbXsrv_tcon_global.tdb",
    "smbXsrv_client_global.tdb",
];

/// What workers and killer share.
struct Work<'a> {
    lab: &'a Lab,
    ended: AtomicBool,
    sessions: AtomicUsize,
}

pub(super) fn killed_smbds(lab: &Lab) -> Result<()> {
    random_file(&lab.cluster.client.own("work"), 4 << 20)?;
    let work = Work { lab, ended: AtomicBool::new(false), sessions: AtomicUsize::new(0) };
    // Everything once, so that what is made once is there before it is counted.
    for worker in 0..WORKERS {
        work.one_session(worker)?;
    }
    for place in [Place::Volatile, Place::Persistent] {
        Counter::start(lab, place)?.stop()?;
    }
    tidy(lab)?;
    let before = quiet_usage(lab, None)?;
    let kills = size(KILLS.0, KILLS.1);
    let first = [count::value(lab, Place::Volatile)?, count::value(lab, Place::Persistent)?];
    let counted = while_servers_die(&work, kills)?;
    counted.check(lab, first)?;
    tidy(lab)?;
    let after = quiet_usage(lab, Some(before))?;
    println!("    {kills} kills in {} sessions", work.sessions.load(Ordering::Relaxed));
    println!("    before: {before}\n    after:  {after}");
    println!("    records left by dead servers:{}", left_behind(lab)?);
    torture::locks(lab)?;
    every_database_can_be_read(lab)
}

/// What was counted beside the kills.
struct Counted {
    volatile: u64,
    persistent: u64,
    /// Those that count in the volatile database and were killed: each may have counted once more.
    killed: u64,
}

impl Counted {
    fn check(&self, lab: &Lab, first: [u64; 2]) -> Result<()> {
        let Self { volatile, persistent, killed } = self;
        let there = count::value(lab, Place::Volatile)? - first[0];
        let range = *volatile..=volatile + killed;
        ensure!(range.contains(&there), "counted {range:?} in the volatile record, it has {there}");
        let there = count::value(lab, Place::Persistent)? - first[1];
        ensure!(there == *persistent, "counted {persistent} persistently, the record has {there}");
        println!("    counted {volatile} (+{killed} killed) and {persistent}, all there");
        Ok(())
    }
}

/// Kills so many servers while sessions are served and others count.
fn while_servers_die(work: &Work, kills: usize) -> Result<Counted> {
    let lab = work.lab;
    let steady = [Place::Volatile, Place::Volatile, Place::Persistent, Place::Persistent]
        .map(|place| (place, Counter::start(lab, place)));
    let mut counted = Counted { volatile: 0, persistent: 0, killed: 0 };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work.serve_until_ended(worker)))
            .collect();
        let killed = kill_servers(work, kills, &mut counted);
        work.ended.store(true, Ordering::Relaxed);
        for worker in workers {
            match worker.join() {
                Ok(done) => done?,
                Err(_) => bail!("a worker panicked"),
            }
        }
        killed
    })?;
    for (place, counter) in steady {
        let said = counter?.stop()?;
        match place {
            Place::Volatile => counted.volatile += said,
            Place::Persistent => counted.persistent += said,
        }
    }
    Ok(counted)
}

fn kill_servers(work: &Work, kills: usize, counted: &mut Counted) -> Result<()> {
    let mut random = Random::seeded();
    let mut victim = Counter::start(work.lab, Place::Volatile)?;
    for number in 1..=kills {
        if number % COUNTERS_EACH == 0 {
            counted.volatile += victim.kill()?;
            counted.killed += 1;
            victim = Counter::start(work.lab, Place::Volatile)?;
        }
        let helpers = number % HELPERS_EACH == 0;
        kill_one(work, helpers, &mut random).with_context(|| format!("kill {number}"))?;
    }
    counted.volatile += victim.stop()?;
    Ok(())
}

fn kill_one(work: &Work, helpers: bool, random: &mut Random) -> Result<()> {
    wait::until("a server to be killed", PROCESSES, || {
        if work.ended.load(Ordering::Relaxed) {
            return Err("a worker gave up".into());
        }
        let servers = servers(work.lab).map_err(|error| format!("{error:#}"))?;
        let choice: Vec<u32> = if helpers { servers.helpers } else { servers.sessions };
        let chosen = choice.get(random.below(choice.len())).ok_or("none is there")?;
        thread::sleep(Duration::from_millis(u64::try_from(random.below(MOMENTS_MS)).unwrap_or(0)));
        let mut kill = wait::limited(10, "kill");
        let done = kill.args(["-KILL", &chosen.to_string()]).output();
        match done {
            Ok(done) if done.status.success() => Ok(()),
            _ => Err(format!("process {chosen} had ended")),
        }
    })
}

/// smbd's processes beside its first one.
struct Servers {
    sessions: Vec<u32>,
    helpers: Vec<u32>,
}

fn servers(lab: &Lab) -> Result<Servers> {
    let file = lab.node().own("run-samba").join("smbd.pid");
    let first = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    let first = first.trim();
    let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"))
        .with_context(|| format!("smbd, process {first}, is gone"))?;
    let mut servers = Servers { sessions: Vec::new(), helpers: Vec::new() };
    for pid in children.split_whitespace() {
        // One that has just ended has no name.
        match fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() {
            "" => {}
            "smbd" => servers.sessions.push(pid.parse()?),
            _ => servers.helpers.push(pid.parse()?),
        }
    }
    Ok(servers)
}

impl Work<'_> {
    fn serve_until_ended(&self, worker: usize) -> Result<()> {
        while !self.ended.load(Ordering::Relaxed) {
            if let Err(error) = self.one_session(worker) {
                self.ended.store(true, Ordering::Relaxed);
                return Err(error.context(format!("worker {worker}")));
            }
            self.sessions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A session of this worker's kind. It may fail, when its server is killed, but ends.
    fn one_session(&self, worker: usize) -> Result<()> {
        match worker {
            0 | 1 => self.put_and_get(worker),
            2 => self.torture(worker, &["smb2.lock"]),
            3 => self.torture(
                worker,
                &["smb2.oplock.batch1", "smb2.lease.request", "smb2.lease.upgrade"],
            ),
            _ => self.torture(worker, &["smb2.create.multi", "smb2.rename", "smb2.sharemode"]),
        }
    }

    /// Writes files that others write too, and one of its own that must come back unchanged.
    fn put_and_get(&self, worker: usize) -> Result<()> {
        let client = &self.lab.cluster.client;
        let (sent, back) = (client.own("work"), client.own(&format!("work.{worker}")));
        let common = format!("put {sent} common.0;put {sent} common.1;", sent = sent.display());
        let own =
            format!("put {} own.{worker};get own.{worker} {};", sent.display(), back.display());
        let line = format!("{}{own}{}", common.repeat(4), "rename common.0 common.2;del common.2;");
        let mut session = samba::client(&self.lab.cluster, self.lab.node(), SESSION_S, &line);
        let status = session.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(!timed_out(status), "a session hangs ({status}): {line}");
        if status.success() {
            ensure!(fs::read(&sent)? == fs::read(&back)?, "another content came back");
        }
        Ok(())
    }

    fn torture(&self, worker: usize, tests: &[&str]) -> Result<()> {
        let mut session = share::smbtorture(self.lab, TORTURE_S, worker, tests);
        session.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(())
    }
}

/// `timeout` has ended it.
fn timed_out(status: ExitStatus) -> bool {
    matches!(status.code(), Some(124 | 137))
}

/// Deletes every file, which asks about every open one, and sees that none is open for smbd.
fn tidy(lab: &Lab) -> Result<()> {
    wait::until("the end of all sessions", PROCESSES, || {
        let left = servers(lab).map_err(|error| format!("{error:#}"))?.sessions;
        if left.is_empty() { Ok(()) } else { Err(format!("still there: {left:?}")) }
    })?;
    let shares = (0..share::LANES).map(share::lane).chain([samba::SHARE.to_owned()]);
    for share in shares {
        let mut session = samba::on_share(&lab.cluster, lab.node(), SESSION_S, &share);
        session.args(["-c", "deltree *"]);
        wait::success(&format!("deleting all files of {share}"), &mut session)?;
    }
    wait::until("smbstatus to show no open file", PROCESSES, || {
        let shown = lab.node().run("smbstatus --locks").map_err(|error| format!("{error:#}"))?;
        if shown.contains(SHARED) { Err(shown) } else { Ok(()) }
    })
}

/// How many records with content each of smbd's databases about sessions and files has: what dead
/// servers leave there stays until smbd finds it, on C's daemon as on ours.
fn left_behind(lab: &Lab) -> Result<String> {
    let mut text = String::new();
    for name in LEFT_BEHIND {
        let shown = lab.node().run(&format!("ctdb cattdb {name}"))?;
        let content = |line: &&str| line.starts_with("data(") && !line.starts_with("data(0)");
        text += &format!(" {name} {}", shown.lines().filter(content).count());
    }
    Ok(text)
}

/// What the daemon holds when no session is there: `before`, or it has kept something.
fn quiet_usage(lab: &Lab, before: Option<Usage>) -> Result<Usage> {
    wait::until("the daemon to hold no more than before", PROCESSES, || {
        let now = servers(lab).map_err(|error| format!("{error:#}"))?;
        if !now.sessions.is_empty() {
            return Err(format!("sessions: {:?}", now.sessions));
        }
        let now = Usage::now(lab.node()).map_err(|error| format!("{error:#}"))?;
        let Some(before) = before else { return Ok(now) };
        let same = now.clients <= before.clients
            && now.descriptors <= before.descriptors
            && now.processes <= before.processes
            && (lab.subject == Subject::C || now.memory_kib <= before.memory_kib + GROWN_KIB_MAX);
        if same { Ok(now) } else { Err(format!("before: {before}; now: {now}")) }
    })
}
