//! One daemon under test, alone in its cluster, and what it costs.
//!
//! Role: starts it (through `ringmaster_compat::cluster`), fills the records, reads the processor
//! time of its processes and counts their system calls.
//! Origin: `/proc/PID/task/TID/schedstat` (nanoseconds on a processor, nanoseconds ready and without
//! one) is what utime and stime are scaled from, without their granularity of 10 ms. Threads that have
//! ended are only in utime and stime, processes that have ended (C forks one for each lock that it has
//! to wait for) only in cutime and cstime of the parent that waited for them: `/proc/PID/stat`. The
//! kernel sums these in nanoseconds too and rounds when they are read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, DbKind};
use ringmaster_compat::cluster::{Cluster, Config, Node, Subject, processes};
use ringmaster_protocol::Pnn;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode},
    thread::{CpuSet, sched_setaffinity},
};

use crate::crowd::{Records, record_key};
use crate::wires::Home;

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

    /// The daemon to start; `ctdbd` is ours.
    pub(crate) fn subject(self, ctdbd: &Path) -> Subject {
        match self {
            Self::C => Subject::CDaemon,
            Self::Ours | Self::OursEpoll => Subject::Ours { ctdbd: ctdbd.to_path_buf() },
        }
    }

    pub(crate) const fn ringmaster_conf(self) -> Option<&'static str> {
        match self {
            Self::C => None,
            Self::Ours => Some("[dataplane]\nreactor = io_uring\n"),
            Self::OursEpoll => Some("[dataplane]\nreactor = epoll\n"),
        }
    }
}

/// What threads have had of the processors, and what they had to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// On a processor.
    pub busy: Duration,
    /// Ready to run, but others had the processors: the machine's fault, not the thread's.
    pub waiting: Duration,
}

impl Usage {
    /// Of the calling thread.
    #[must_use]
    pub fn of_this_thread() -> Self {
        Self::of_task(Path::new("/proc/thread-self")).unwrap_or_default()
    }

    fn of_task(task: &Path) -> Option<Self> {
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
        let (busy, waiting) = (numbers.next()?, numbers.next()?);
        Some(Self { busy: Duration::from_nanos(busy), waiting: Duration::from_nanos(waiting) })
    }

    /// Both together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { busy: self.busy + other.busy, waiting: self.waiting + other.waiting }
    }

    /// What has come since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            waiting: self.waiting.saturating_sub(before.waiting),
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
        let subject = kind.subject(ctdbd);
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

    /// Where clients connect.
    #[must_use]
    pub fn home(&self) -> Home {
        const ONLY: Pnn = Pnn::new(0).expect("0 is no reserved address");
        Home { socket: self.cluster.node(0).socket(), pnn: ONLY }
    }

    /// As [`usage_of`].
    ///
    /// # Errors
    /// It runs no process.
    pub fn usage(&self) -> Result<Usage> {
        usage_of(self.cluster.node(0)).with_context(|| self.kind.name())
    }

    /// Keeps all threads of the daemon on one processor.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pin(&self, processor: usize) -> Result<()> {
        pin(self.cluster.node(0), processor)
    }

    /// Gets ready to count the system calls of all the daemon's processes; `None` where `perf` is
    /// missing or not allowed.
    #[must_use]
    pub fn call_counter(&self) -> Option<CallCounter> {
        let pids: Vec<_> = pids(self.cluster.node(0)).iter().map(ToString::to_string).collect();
        CallCounter::start(self.cluster.directory(), &pids.join(","))
    }

    /// Stops it in the orderly way.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> Result<()> {
        self.cluster.stop()
    }
}

/// What a node's processes have had of the processors, with their threads and children that have
/// ended. These are known to a clock tick (10 ms) per process, and nobody knows what they waited.
///
/// # Errors
/// It runs no process.
pub fn usage_of(node: Node<'_>) -> Result<Usage> {
    let pids = pids(node);
    ensure!(!pids.is_empty(), "the daemon has ended");
    Ok(pids.into_iter().map(of_process).fold(Usage::default(), Usage::with))
}

/// Nothing of a process that has ended meanwhile: its parent has it.
fn of_process(pid: i32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let Some(ticks) = stat.ok().and_then(|text| Ticks::read(&text)) else {
        return Usage::default();
    };
    let tasks = tasks(pid).filter_map(|task| Usage::of_task(&task));
    let living = tasks.fold(Usage::default(), Usage::with);
    Usage { busy: living.busy.max(ticks.own) + ticks.children, ..living }
}

/// Processor time in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticks {
    /// Of the process: all its threads, also those that have ended.
    own: Duration,
    /// Of its children that have ended and been waited for, and of theirs.
    children: Duration,
}

impl Ticks {
    /// Fields 14 to 17; the second is a name in parentheses that may contain anything.
    fn read(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11).map_while(|field| field.parse().ok());
        let mut time = || Some(ticks(fields.next()?) + ticks(fields.next()?));
        Some(Self { own: time()?, children: time()? })
    }
}

/// `/proc` counts hundredths of a second (`USER_HZ`) on all our architectures.
const fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(10))
}

/// Keeps all threads of a node's processes on one processor.
///
/// # Errors
/// The kernel refuses.
pub fn pin(node: Node<'_>, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    for task in pids(node).into_iter().flat_map(tasks) {
        let id = task.file_name().and_then(|name| name.to_str()?.parse().ok());
        let pinned = sched_setaffinity(id.and_then(rustix::thread::Pid::from_raw), &set);
        // A thread that has ended meanwhile runs nowhere.
        if pinned != Err(rustix::io::Errno::SRCH) {
            pinned.context("cannot pin the daemon")?;
        }
    }
    Ok(())
}

fn pids(node: Node<'_>) -> Vec<i32> {
    processes::under(node.base()).iter().map(|pid| pid.as_raw_pid()).collect()
}

fn tasks(pid: i32) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.flatten().map(|entry| entry.path())
}

/// A `perf stat` under way that counts when told to: it needs a while to attach to every thread,
/// on a busy machine longer than a measurement takes.
pub struct CallCounter {
    perf: Child,
    commands: File,
    answers: File,
    output: PathBuf,
}

impl CallCounter {
    fn start(directory: &Path, pids: &str) -> Option<Self> {
        let path = |name: &str| directory.join(name);
        let (commands, answers) = (path("perf.commands"), path("perf.answers"));
        for fifo in [&commands, &answers] {
            let _ = fs::remove_file(fifo);
            rustix::fs::mknodat(CWD, fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).ok()?;
        }
        // For both directions: opening one end alone would wait for a perf that may never come.
        let open = |fifo: &Path| File::options().read(true).write(true).open(fifo).ok();
        let output = path("calls.csv");
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "--delay", "-1", "--control"])
            .arg(format!("fifo:{},{}", commands.display(), answers.display()))
            .arg("-o")
            .arg(&output)
            .args(["-p", pids])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (commands, answers) = (open(&commands)?, open(&answers)?);
        Some(Self { perf: perf.spawn().ok()?, commands, answers, output })
    }

    /// Counts what the daemon calls while `work` runs.
    pub fn count<T>(mut self, work: impl FnOnce() -> T) -> (T, Option<u64>) {
        let begun = self.command("enable\n");
        let result = work();
        let counted = begun.and_then(|()| self.command("disable\n")).and_then(|()| self.finish());
        (result, counted)
    }

    fn command(&mut self, command: &str) -> Option<()> {
        self.commands.write_all(command.as_bytes()).ok()?;
        let limit = Timespec::try_from(TIMEOUT).ok()?;
        let answered = poll(&mut [PollFd::new(&self.answers, PollFlags::IN)], Some(&limit)).ok()?;
        (answered > 0 && self.answers.read(&mut [0; 16]).ok()? > 0).then_some(())
    }

    fn finish(&mut self) -> Option<u64> {
        let pid = rustix::process::Pid::from_child(&self.perf);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok()?;
        self.perf.wait().ok()?;
        calls(&fs::read_to_string(&self.output).ok()?)
    }
}

impl Drop for CallCounter {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// The count in the table that `perf stat -x,` writes.
fn calls(text: &str) -> Option<u64> {
    text.lines().find(|line| line.contains("raw_syscalls"))?.split(',').next()?.parse().ok()
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
    fn time_of_children_is_read_whatever_a_process_is_called() {
        let text = "12 (a) b (c) S 1 12 12 0 -1 4194560 90 80 0 0 7 3 100 50 20 0 1 0 5 6";
        let ms = Duration::from_millis;
        assert_eq!(Ticks::read(text), Some(Ticks { own: ms(100), children: ms(1500) }));
        assert_eq!(Ticks::read("12 (a) S 1"), None);
    }

    #[test]
    fn a_child_that_has_ended_counts() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = of_process(own);
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", spin]).status().unwrap().success());
        let children = Ticks::read(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(children.children >= Duration::from_millis(10), "{children:?}");
        assert!(of_process(own).since(before).busy >= children.children);
    }

    #[test]
    fn calls_come_from_the_table_of_perf() {
        let table = "# started\n\n500,,raw_syscalls:sys_enter,1000,100.00,,\n";
        assert_eq!(calls(table), Some(500));
        assert_eq!(calls("<not counted>,,raw_syscalls:sys_enter,0,,,\n"), None);
    }
}
