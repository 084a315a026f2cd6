//! A client that copies a file through a public address, whatever happens to the servers, and the
//! pause that it feels.
//!
//! Role: the client is a process of its own on the client's host (`run`, started by `watch`): smbclient
//! with `reget`, again and again until the file is there, as a file manager does it. The pause is
//! the longest time without a new byte since the fault; whoever watches looks each millisecond.
//! Invariant: an interrupted copy is kept and compared; one that nothing happened to is not, and
//! another follows until the address has moved.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{cluster::Cluster, samba, wait};

/// First argument of the client's process.
const ARGUMENT: &str = "--copier";

/// How long one attempt to connect may take before the next: an address that moves loses the first
/// packets, and TCP by itself tries again after 1, 3, 7 … s only.
const CONNECT: Duration = Duration::from_millis(200);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(10);
/// How long one session may take.
const SESSION_S: u32 = 120;
/// How long a copy may take with everything that happens to it; C misses a hung node after 25 s.
const COPY: Duration = Duration::from_secs(180);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// When the fault comes: after one part in so many of the first copy.
const FAULT_AFTER: u64 = 4;

/// What is copied, and where to.
pub struct Job<'a> {
    /// Where the client is.
    pub cluster: &'a Cluster,
    /// The server's address.
    pub address: IpAddr,
    /// Name on the share.
    pub remote: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// Where the copies go: names with a number behind.
    pub local: PathBuf,
}

/// What the client has felt.
pub struct Felt {
    /// Longest time without a byte since the fault.
    pub pause: Duration,
    /// Bytes of the first copy that had come when the fault began.
    pub before: u64,
    /// The copies to compare: those that were interrupted, and the last one.
    pub copies: Vec<PathBuf>,
    /// Sessions of the copy that was interrupted most.
    pub sessions: u32,
}

/// Copies until `moved`, and one copy to its end after that. `fault` begins in the midst of the
/// first one, on a thread of its own, and returns when the address has moved.
///
/// # Errors
/// When a copy or the fault fails.
pub fn watch(job: &Job, fault: impl FnOnce() -> Result<()> + Send) -> Result<Felt> {
    let moved = AtomicBool::new(false);
    let (begin, begun) = mpsc::channel();
    thread::scope(|scope| {
        let moved = &moved;
        let inflicting = scope.spawn(move || {
            // A copy that has failed before needs no fault.
            let done = if begun.recv().is_ok() { fault() } else { Ok(()) };
            // Also when it has failed: nobody has to wait for it.
            moved.store(true, Ordering::Release);
            done
        });
        let felt = copies(job, begin, moved);
        match inflicting.join() {
            Ok(done) => done.and(felt),
            Err(_) => bail!("the thread with the fault panicked"),
        }
    })
}

/// Progress of all copies together.
struct Progress {
    /// When the fault began.
    fault: Option<Instant>,
    last: Instant,
    longest: Duration,
}

impl Progress {
    fn advance(&mut self) {
        let now = Instant::now();
        if self.fault.is_some() {
            self.longest = self.longest.max(now - self.last);
        }
        self.last = now;
    }
}

fn copies(job: &Job, begin: mpsc::Sender<()>, moved: &AtomicBool) -> Result<Felt> {
    let mut begin = Some(begin);
    let mut progress = Progress { fault: None, last: Instant::now(), longest: Duration::ZERO };
    let mut felt = Felt { pause: Duration::ZERO, before: 0, copies: Vec::new(), sessions: 1 };
    for number in 0_u32.. {
        let local = job.local.with_extension(number.to_string());
        let after_move = moved.load(Ordering::Acquire);
        let sessions = one_copy(job, &local, &mut progress, |size, progress| {
            if size >= job.size / FAULT_AFTER
                && let Some(begin) = begin.take()
            {
                progress.fault = Some(Instant::now());
                felt.before = size;
                // Nobody listens any more only when its thread has panicked, which join() tells.
                let _ = begin.send(());
            }
        })?;
        felt.sessions = felt.sessions.max(sessions);
        if sessions > 1 || after_move {
            felt.copies.push(local);
        } else {
            fs::remove_file(&local).with_context(|| format!("{}", local.display()))?;
        }
        if after_move || (sessions > 1 && moved.load(Ordering::Acquire)) {
            break;
        }
    }
    felt.pause = progress.longest;
    Ok(felt)
}

/// One copy to its end; how many sessions it took.
fn one_copy(
    job: &Job,
    local: &Path,
    progress: &mut Progress,
    mut each: impl FnMut(u64, &mut Progress),
) -> Result<u32> {
    let mut child = start(job, local)?;
    let began = Instant::now();
    let mut seen = 0;
    let status = loop {
        let size = fs::metadata(local).map_or(0, |data| data.len());
        if size != seen {
            seen = size;
            progress.advance();
            each(size, progress);
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > COPY {
            child.kill()?;
            bail!("the copy has {seen} of {} bytes after {} s", job.size, COPY.as_secs());
        }
        thread::sleep(LOOK);
    };
    let output = child.wait_with_output()?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !status.success() {
        bail!("the copy failed: {status}\n{stdout}{}", String::from_utf8_lossy(&output.stderr));
    }
    let last = stdout.lines().last().unwrap_or_default();
    last.parse().with_context(|| format!("the copying process printed '{last}'"))
}

fn start(job: &Job, local: &Path) -> Result<Child> {
    let limit_s = u32::try_from(COPY.as_secs())?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = job.cluster.client.command(limit_s, &program.to_string_lossy());
    command.args(["demo", ARGUMENT, &job.address.to_string(), job.remote]);
    command.arg(local).arg(job.size.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("cannot start the copying process")
}

/// The arguments of [`run`], if a program has been started as a client's process. Whoever uses
/// [`watch`] asks this first of all.
#[must_use]
pub fn arguments(args: &[String]) -> Option<&[String]> {
    match args {
        [demo, first, rest @ ..] if demo == "demo" && first == ARGUMENT => Some(rest),
        _ => None,
    }
}

/// The client's process: copies to the end, prints how many sessions that took.
///
/// # Errors
/// When the server does not answer, or the file does not come, for `COPY`.
pub fn run(args: &[String]) -> Result<()> {
    let [address, remote, local, size] = args else {
        bail!("{ARGUMENT} needs an address, a name, a file and a size");
    };
    let (address, size): (IpAddr, u64) = (address.parse()?, size.parse()?);
    fs::File::create(local).with_context(|| format!("cannot write {local}"))?;
    let began = Instant::now();
    let mut sessions = 0_u32;
    loop {
        if TcpStream::connect_timeout(&SocketAddr::new(address, samba::PORT), CONNECT).is_ok() {
            sessions += 1;
            let mut command = samba::here(address, SESSION_S);
            command.args(["-c", &format!("reget {remote} {local}")]);
            let output = wait::output("smbclient", &mut command)?;
            let have = fs::metadata(local).map_or(0, |data| data.len());
            if output.status.success() && have == size {
                println!("{sessions}");
                return Ok(());
            }
            if began.elapsed() > COPY {
                bail!("{have} of {size} bytes: {}", String::from_utf8_lossy(&output.stdout));
            }
        }
        if began.elapsed() > COPY {
            bail!("{address} does not answer");
        }
        thread::sleep(AGAIN);
    }
}
