//! `ctdb_mutex_fcntl_helper`: holds the cluster lock as a POSIX lock on a shared file.
//!
//! Role: say one character about the lock, keep it, and let go as soon as it is no longer worth
//! anything: the parent is gone, the file has vanished or was replaced, or the file system hangs.
//! Invariants
//! - The process that holds the lock never opens the lock file a second time (see `posix_lock`):
//!   the file is watched by a child, this program started again with [`WATCH_ARG`].
//! - Every way out closes the lock file, for the process ends.
//! - The child ends when the parent does: its standard input is a pipe from it.
//!
//! Origin: `ctdb/server/ctdb_mutex_fcntl_helper.c`, `ctdb/doc/cluster_mutex_helper.txt`; behaviour
//! and texts taken from runs of 4.17; `docs/spec/admin-interface.md` 2.11. Differences: a parent
//! that is gone is noticed within one second, not five; the child's sign of life comes often enough
//! for any ping time-out (C with a time-out of one second gives up a good lock at once).

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::output::complain;
use crate::posix_lock::{self, Range};

/// First argument of the child that watches the lock file.
pub const WATCH_ARG: &str = "--watch-lock-file";
const RECHECK_DEFAULT_S: u64 = 5;
const PARENT_POLL: Duration = Duration::from_secs(1);
/// Byte that carries the lock.
const LOCK_BYTE: Range = Range::byte(0);
/// Byte that the watcher locks to see whether the file system still answers.
const PROBE_BYTE: Range = Range::byte(1);

/// What the daemon is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Held,
    Contended,
    Failed,
}

impl Verdict {
    const fn character(self) -> &'static [u8] {
        match self {
            Self::Held => b"0",
            Self::Contended => b"1",
            Self::Failed => b"3",
        }
    }

    /// The daemon may be gone; then the parent's absence is noticed a moment later.
    fn say(self) {
        let mut stdout = io::stdout();
        let _ = stdout.write_all(self.character()).and_then(|()| stdout.flush());
    }
}

/// A valid command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    pub file: PathBuf,
    /// 0: do not watch the file.
    pub recheck_s: u64,
    /// 0: wait for the watcher for ever.
    pub ping_timeout_s: u64,
}

impl Arguments {
    /// `None`: print the usage.
    #[must_use]
    pub fn parse(args: &[OsString]) -> Option<Self> {
        let (file, numbers) = args.split_first()?;
        if numbers.len() > 2 {
            return None;
        }
        let mut numbers = numbers.iter().map(|text| seconds(text));
        Some(Self {
            file: file.into(),
            recheck_s: numbers.next().unwrap_or(Some(RECHECK_DEFAULT_S))?,
            ping_timeout_s: numbers.next().unwrap_or(Some(0))?,
        })
    }
}

/// `strtoul` in base 10 without minus sign: at least one digit; what follows them is ignored.
fn seconds(text: &OsStr) -> Option<u64> {
    let text = text.as_bytes().trim_ascii_start();
    let text = text.strip_prefix(b"+").unwrap_or(text);
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..end]).ok()?.parse().ok()
}

/// Name in front of every message.
fn program_name(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// The whole program; `args` begins with the program's name.
#[must_use]
pub fn run(args: &[OsString]) -> ExitCode {
    let (program, args) = match args.split_first() {
        Some((program, args)) => (program_name(program), args),
        None => (String::from("ctdb_mutex_fcntl_helper"), args),
    };
    if let [watch, file, inode, recheck, period] = args
        && watch == WATCH_ARG
        && let (Some(inode), Some(recheck_s), Some(period_ms)) =
            (seconds(inode), seconds(recheck), seconds(period))
    {
        let period = Duration::from_millis(period_ms);
        watch_file(&program, Path::new(file), inode, Duration::from_secs(recheck_s), period);
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = Arguments::parse(args) else {
        complain(format!("Usage: {program} <file> [recheck_interval [ping_timeout]]"));
        return ExitCode::FAILURE;
    };
    // A helper whose daemon is gone already must not hold the lock.
    let parent = parent_id();
    if parent == 1 {
        complain(format!("{program}: parent == 1"));
        return ExitCode::SUCCESS;
    }
    match take_lock(&program, &arguments.file) {
        Ok(file) => {
            let inode = file.metadata().map(|found| found.ino());
            Verdict::Held.say();
            match inode {
                Ok(inode) => hold(&program, &arguments, inode, parent),
                Err(error) => complain(format!(
                    "{program}: lock lost - lock file \"{}\" stat failed (ret={})",
                    arguments.file.display(),
                    error.raw_os_error().unwrap_or(0)
                )),
            }
            drop(file);
        }
        Err(verdict) => verdict.say(),
    }
    ExitCode::SUCCESS
}

fn take_lock(program: &str, path: &Path) -> Result<File, Verdict> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| {
            let reason = reason(&error);
            complain(format!("{program}: Unable to open {} - ({reason})", path.display()));
            Verdict::Failed
        })?;
    match posix_lock::try_lock(file.as_fd(), LOCK_BYTE) {
        Ok(()) => Ok(file),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EAGAIN)) => {
            Err(Verdict::Contended)
        }
        Err(error) => {
            let reason = reason(&error);
            complain(format!("{program}: Failed to get lock on '{}' - ({reason})", path.display()));
            Err(Verdict::Failed)
        }
    }
}

/// The C library's text without Rust's error number.
fn reason(error: &io::Error) -> String {
    crate::errno::text(error)
}

/// Returns when the lock should be given up.
fn hold(program: &str, arguments: &Arguments, inode: u64, parent: u32) {
    let (signs, watcher) = if arguments.recheck_s == 0 {
        (None, None)
    } else {
        match start_watcher(arguments, inode) {
            Ok((child, signs)) => (Some(signs), Some(child)),
            Err(error) => {
                complain(format!("{program}: cannot start the watcher of the lock file: {error}"));
                return;
            }
        }
    };
    let ping_timeout =
        (arguments.ping_timeout_s > 0).then(|| Duration::from_secs(arguments.ping_timeout_s));
    let mut last_sign = Instant::now();
    loop {
        let wait = match ping_timeout {
            Some(limit) => PARENT_POLL.min(limit.saturating_sub(last_sign.elapsed())),
            None => PARENT_POLL,
        };
        match &signs {
            None => std::thread::sleep(wait),
            Some(signs) => match signs.recv_timeout(wait) {
                Ok(()) => last_sign = Instant::now(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            },
        }
        if parent_id() != parent {
            break;
        }
        if signs.is_some() && ping_timeout.is_some_and(|limit| last_sign.elapsed() >= limit) {
            complain(format!("{program}: ping timeout from lock test child"));
            break;
        }
    }
    // Not waited for: a watcher that hangs in the file system does not die before it answers, and
    // the lock must not wait for that.
    if let Some(mut watcher) = watcher {
        let _ = watcher.kill();
    }
}

/// The watcher and a channel with its signs of life, which closes when it ends.
fn start_watcher(arguments: &Arguments, inode: u64) -> io::Result<(Child, mpsc::Receiver<()>)> {
    let period_ms = match arguments.ping_timeout_s {
        0 => 1000,
        limit => 1000.min(limit.saturating_mul(1000) / 3),
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(WATCH_ARG)
        .arg(&arguments.file)
        .args([inode, arguments.recheck_s, period_ms].map(|number| number.to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while matches!(stdout.read(&mut bytes), Ok(count) if count > 0) {
            if sender.send(()).is_err() {
                break;
            }
        }
    });
    Ok((child, receiver))
}

/// The child: returns when the lock is lost or the parent has gone.
fn watch_file(program: &str, path: &Path, inode: u64, recheck: Duration, period: Duration) {
    let (sender, parent_gone) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(sender);
    });
    let mut stdout = io::stdout();
    let mut next_check = Instant::now().checked_add(recheck);
    loop {
        let until_check =
            next_check.map_or(period, |at| at.saturating_duration_since(Instant::now()));
        match parent_gone.recv_timeout(period.min(until_check)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if next_check.is_some_and(|at| at <= Instant::now()) {
            if let Err(loss) = check_file(path, inode) {
                complain(format!("{program}: {}", loss.text(path)));
                return;
            }
            next_check = Instant::now().checked_add(recheck);
        }
        if stdout.write_all(&[0]).and_then(|()| stdout.flush()).is_err() {
            return;
        }
    }
}

/// Why the lock is worth nothing any more; the number is the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Open(i32),
    Check(i32),
    Replaced,
    Probe(i32),
}

impl Loss {
    fn text(self, path: &Path) -> String {
        let path = path.display();
        match self {
            Self::Open(errno) => {
                format!("lock lost - lock file \"{path}\" open failed (ret={errno})")
            }
            Self::Check(errno) => {
                format!("lock lost - lock file \"{path}\" check failed (ret={errno})")
            }
            Self::Replaced => format!("lock lost - lock file \"{path}\" inode changed"),
            Self::Probe(errno) => {
                format!("lock fail - lock file \"{path}\" test lock error ({errno})")
            }
        }
    }
}

fn check_file(path: &Path, inode: u64) -> Result<(), Loss> {
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| Loss::Open(errno(error)))?;
    let found = file.metadata().map_err(|error| Loss::Check(errno(error)))?;
    if found.ino() != inode {
        return Err(Loss::Replaced);
    }
    posix_lock::lock(file.as_fd(), PROBE_BYTE).map_err(|error| Loss::Probe(errno(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<(u64, u64)> {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        Arguments::parse(&args).map(|a| (a.recheck_s, a.ping_timeout_s))
    }

    #[test]
    fn numbers_are_those_the_c_helper_takes() {
        assert_eq!(parse(&["f"]), Some((5, 0)));
        for (text, value) in [("0x5", 0), ("5x", 5), ("+5", 5), (" 5", 5), ("010", 10), ("09", 9)] {
            assert_eq!(parse(&["f", text]), Some((value, 0)), "{text}");
        }
        for text in ["", "x", "-1", "-0", "99999999999999999999"] {
            assert_eq!(parse(&["f", text]), None, "{text}");
        }
        assert_eq!(parse(&["f", "1", "2"]), Some((1, 2)));
        assert_eq!(parse(&["f", "1", "2", "3"]), None);
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn a_file_that_vanished_or_was_replaced_is_a_lost_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert_eq!(check_file(&path, 1), Err(Loss::Open(libc::ENOENT)));
        std::fs::write(&path, "").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        assert_eq!(check_file(&path, inode), Ok(()));
        assert_eq!(check_file(&path, inode + 1), Err(Loss::Replaced));
    }
}
