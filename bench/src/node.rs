//! One daemon under test, alone in its cluster, and what it costs.
//!
//! Role: starts it (through `ringmaster_compat::cluster`), fills the records, reads the processor
//! time of its processes and counts their system calls.
//! Origin: `/proc/PID/task/TID/schedstat` (nanoseconds on a processor) is what utime and stime are
//! scaled from, without their granularity of 10 ms.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, DbKind};
use ringmaster_compat::cluster::{Cluster, Config, Subject, processes};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::crowd::{Records, record_key};

/// Bytes of a record's value.
const VALUE_LEN: usize = 100;

/// For the setup's own requests.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Debian's `ctdbd`.
    C,
    /// Ours on io_uring.
    Ours,
    /// Ours on epoll.
    OursEpoll,
}

impl Kind {
    /// The first one is what the others are compared with.
    pub const ALL: [Self; 3] = [Self::C, Self::Ours, Self::OursEpoll];

    /// Name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Ours => "ours",
            Self::OursEpoll => "ours-epoll",
        }
    }

    const fn ringmaster_conf(self) -> Option<&'static str> {
        match self {
            Self::C => None,
            Self::Ours => Some("[dataplane]\nreactor = io_uring\n"),
            Self::OursEpoll => Some("[dataplane]\nreactor = epoll\n"),
        }
    }
}

/// A running daemon.
pub struct Running {
    /// Which one.
    pub kind: Kind,
    /// Its records for calls.
    pub records: Records,
    cluster: Cluster,
}

impl Running {
    /// Starts a node and waits until it is healthy; `ctdbd` is our daemon's binary.
    ///
    /// # Errors
    /// It does not become healthy, or the records cannot be stored.
    pub fn start(kind: Kind, ctdbd: &Path, records: u32) -> Result<Self> {
        let subject = match kind {
            Kind::C => Subject::CDaemon,
            Kind::Ours | Kind::OursEpoll => Subject::Ours { ctdbd: ctdbd.to_path_buf() },
        };
        let cluster = Cluster::prepare(Config::new(1).all(&subject))?;
        let node = cluster.node(0);
        if let Some(text) = kind.ringmaster_conf() {
            fs::write(node.base().join("ringmaster.conf"), text)
                .context("cannot write ringmaster.conf")?;
        }
        node.start()?;
        cluster.settle()?;
        let records = store(&node.socket(), records)
            .with_context(|| format!("cannot fill the database of {}", kind.name()))?;
        Ok(Self { kind, records, cluster })
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.cluster.node(0).socket()
    }

    /// Processor time of the daemon's processes that live now.
    ///
    /// # Errors
    /// It runs no process.
    pub fn cpu(&self) -> Result<Duration> {
        let pids = self.pids();
        ensure!(!pids.is_empty(), "{} has ended", self.kind.name());
        let tasks = pids.iter().flat_map(|pid| tasks(*pid));
        let nanos = tasks.filter_map(|task| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Ok(Duration::from_nanos(nanos.sum()))
    }

    /// Keeps all threads of the daemon on one processor.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin(&self, processor: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(processor);
        for task in self.pids().into_iter().flat_map(tasks) {
            let id = task.file_name().and_then(|name| name.to_str()?.parse().ok());
            let pinned = sched_setaffinity(id.and_then(rustix::thread::Pid::from_raw), &set);
            // A thread that has ended meanwhile runs nowhere.
            if pinned != Err(rustix::io::Errno::SRCH) {
                pinned.context("cannot pin the daemon")?;
            }
        }
        Ok(())
    }

    /// Counts system calls of all the daemon's processes for `time` from now, if `perf` can.
    #[must_use]
    pub fn count_calls(&self, time: Duration) -> CallCounter {
        let output = self.cluster.directory().join("calls.csv");
        // Nothing of an earlier count is taken for this one's.
        let _ = fs::remove_file(&output);
        let pids: Vec<_> = self.pids().iter().map(ToString::to_string).collect();
        let perf = Command::new("perf")
            .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter,duration_time", "-o"])
            .arg(&output)
            .args(["-p", &pids.join(","), "sleep", &time.as_secs_f64().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        CallCounter { perf: perf.ok(), output }
    }

    fn pids(&self) -> Vec<i32> {
        processes::under(self.cluster.node(0).base()).iter().map(|pid| pid.as_raw_pid()).collect()
    }

    /// Stops it in the orderly way.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.cluster.stop()
    }
}

fn tasks(pid: i32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

/// A `perf stat` under way; it ends by itself.
pub struct CallCounter {
    perf: Option<Child>,
    output: PathBuf,
}

impl CallCounter {
    /// System calls per second; `None` where `perf` is missing or not allowed.
    #[must_use]
    pub fn per_second(self) -> Option<f64> {
        let ended = self.perf?.wait().ok()?;
        let text = fs::read_to_string(&self.output).ok()?;
        ended.success().then(|| calls_per_second(&text)).flatten()
    }
}

/// Out of the table that `perf stat -x,` writes.
fn calls_per_second(text: &str) -> Option<f64> {
    let value = |name: &str| -> Option<f64> {
        let line = text.lines().find(|line| line.contains(name))?;
        line.split(',').next()?.parse().ok()
    };
    let nanos = value("duration_time")?;
    (nanos > 0.0).then_some(value("raw_syscalls")? * 1e9 / nanos)
}

fn store(socket: &Path, count: u32) -> Result<Records> {
    let mut client = Client::connect_to(socket, TIMEOUT)?;
    let mut database = client.open("bench.tdb", DbKind::Volatile)?;
    for number in 0..count {
        client.lock_record(&mut database, &record_key(number))?.store(&[7; VALUE_LEN])?;
    }
    Ok(Records { db: database.id(), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_per_second_come_from_the_table_of_perf() {
        let table = "# started\n\n500,,raw_syscalls:sys_enter,1000,100.00,,\n\
                     250000000,ns,duration_time,250000000,100.00,,\n";
        assert_eq!(calls_per_second(table), Some(2000.0));
        assert_eq!(calls_per_second("<not counted>,,raw_syscalls:sys_enter,0,,,\n"), None);
    }
}
