//! Finds and ends the processes of a cluster.
//!
//! Role: a daemon, its forked children, event daemon and lock helpers change their parent and may
//! change their process group, but all inherit `CTDB_BASE`. That is how they are found.
//! Invariants
//! - Only processes whose `CTDB_BASE` lies under the given directory are signalled; the check is
//!   made after a pidfd pins the process, so a reused pid is never hit.
//! - A zombie has no environment left and counts as ended.
//!
//! Origin: `docs/spec/cluster-semantics.md` 12.3, 12.6.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::run::wait_until;

/// How long killed processes may take to vanish.
const VANISH: Duration = Duration::from_secs(20);

/// Process ids whose `CTDB_BASE` is `directory` or below it.
#[must_use]
pub fn under(directory: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| {
        let raw = entry.file_name().to_str()?.parse::<i32>().ok()?;
        Pid::from_raw(raw)
    });
    pids.filter(|pid| belongs(*pid, directory)).collect()
}

/// Sends `signal` to one process, if it still belongs to `directory`; says whether it did.
pub fn signal(pid: Pid, directory: &Path, signal: Signal) -> bool {
    let Ok(pinned) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    belongs(pid, directory) && pidfd_send_signal(&pinned, signal).is_ok()
}

/// Kills everything of `directory` and returns when nothing is left.
///
/// # Errors
/// Something survives SIGKILL for 20 seconds (uninterruptible in the kernel).
pub fn kill_all(directory: &Path) -> Result<()> {
    let what = format!("end of every process of {}", directory.display());
    wait_until(&what, VANISH, || {
        let left = under(directory);
        for pid in &left {
            signal(*pid, directory, Signal::KILL);
        }
        left.is_empty().then_some(())
    })
}

fn belongs(pid: Pid, directory: &Path) -> bool {
    base_of(pid).is_some_and(|base| base.starts_with(directory))
}

fn base_of(pid: Pid) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(b"CTDB_BASE="))?;
    Some(PathBuf::from(std::str::from_utf8(value).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_processes_below_the_directory_are_killed() {
        let directory = tempfile::tempdir().unwrap();
        let ours = directory.path().join("node.0");
        let beside = directory.path().with_extension("beside");
        let sleeper =
            |base: &Path| Command::new("sleep").arg("1000").env("CTDB_BASE", base).spawn().unwrap();
        let (mut inside, mut outside) = (sleeper(&ours), sleeper(&beside));
        kill_all(directory.path()).unwrap();
        assert!(!inside.wait().unwrap().success());
        assert_eq!(outside.try_wait().unwrap(), None);
        outside.kill().unwrap();
        outside.wait().unwrap();
    }
}
