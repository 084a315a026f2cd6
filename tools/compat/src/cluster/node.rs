//! One node of a cluster: its files, its daemon, tools run on it.

use std::fs;
use std::io::PipeWriter;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::{Cluster, Subject, processes};
use crate::prerequisite::C_TOOL;
use crate::run::{RunOutput, run, run_with_input, wait_until};

/// Time-out of one tool run: above the tool's own 10 s per control.
const TOOL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a daemon may take to offer its socket, and to end.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(60);

/// Variables of the caller that reach daemons and tools: where programs and temporary files are, and
/// what instruments our own binaries.
const PASSED_ON: [&str; 5] =
    ["TMPDIR", "RUST_BACKTRACE", "LLVM_PROFILE_FILE", "RUSTFLAGS", "RUST_LOG"];

pub(super) fn socket_in(base: &Path) -> PathBuf {
    base.join("run/ctdbd.socket")
}

#[derive(Debug)]
pub(super) struct NodeState {
    subject: Subject,
    base: PathBuf,
    address: IpAddr,
    /// Held open as long as the daemon may run; see the header of `cluster.rs`.
    stdin: Mutex<Option<PipeWriter>>,
}

impl NodeState {
    pub(super) const fn new(subject: Subject, base: PathBuf, address: IpAddr) -> Self {
        Self { subject, base, address, stdin: Mutex::new(None) }
    }

    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }

    fn hold_stdin(&self, pipe: Option<PipeWriter>) {
        *self.stdin.lock().unwrap_or_else(PoisonError::into_inner) = pipe;
    }
}

/// A node of a [`Cluster`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    index: usize,
}

impl<'a> Node<'a> {
    pub(super) const fn new(cluster: &'a Cluster, index: usize) -> Self {
        Self { cluster, index }
    }

    fn state(&self) -> &'a NodeState {
        self.cluster.state(self.index)
    }

    /// The daemon it runs.
    #[must_use]
    pub fn subject(&self) -> &'a Subject {
        &self.cluster.config().subjects[self.index]
    }

    /// Position in the nodes file: the PNN.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// `CTDB_BASE`: configuration, logs, databases, run directory.
    #[must_use]
    pub fn base(&self) -> &'a Path {
        &self.state().base
    }

    /// The daemon's unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(self.base())
    }

    /// The node's address (port 4379).
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.state().address
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.base().join("log.ctdb")
    }

    /// Directory of the TDB files of volatile (and replicated) databases.
    #[must_use]
    pub fn volatile_directory(&self) -> PathBuf {
        self.base().join("db/volatile")
    }

    /// Directory of the TDB files of persistent databases.
    #[must_use]
    pub fn persistent_directory(&self) -> PathBuf {
        self.base().join("db/persistent")
    }

    /// Events seen by the recording script, one line each, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        let text = fs::read_to_string(self.base().join("events.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// `program` with this node's environment and nothing of the caller's but a few variables that
    /// have nothing to do with CTDB.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.cluster.program(program.as_ref());
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("CTDB_TEST_MODE", "yes")
            .env("CTDB_BASE", self.base())
            .env("CTDB_SOCKET", self.socket())
            .env("CTDB_TEST_HELPER_BINDIR", self.state().subject.helpers())
            .current_dir(self.base());
        command
    }

    /// Runs the C tool on this node.
    ///
    /// # Errors
    /// It cannot be started or hangs; an exit status other than 0 is not an error.
    pub fn tool(&self, arguments: &[&str]) -> Result<RunOutput> {
        self.run(C_TOOL, arguments)
    }

    /// As [`Node::tool`], and the exit status must be 0.
    ///
    /// # Errors
    /// As [`Node::tool`], and for any other exit status.
    pub fn tool_ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.tool(arguments)?;
        if !output.success() {
            bail!("ctdb {} on node {}: {output}", arguments.join(" "), self.index);
        }
        Ok(output.stdout)
    }

    /// Runs any program on this node, with a time-out of a minute.
    ///
    /// # Errors
    /// As [`Node::tool`].
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<RunOutput> {
        run(self.command(program).args(arguments), TOOL_TIMEOUT)
    }

    /// Starts the daemon and waits until its socket answers. Says nothing about health.
    ///
    /// # Errors
    /// It ends at once or offers no socket; the error ends with its log.
    pub fn start(&self) -> Result<()> {
        let subject = &self.state().subject;
        let (reader, writer) = std::io::pipe().context("cannot make the daemon's stdin")?;
        let mut command = self.command(subject.daemon());
        let started = run_with_input(&mut command, Stdio::from(reader), DAEMON_TIMEOUT)?;
        if !started.success() {
            bail!("node {}: {}: {started}", self.index, subject.daemon().display());
        }
        self.state().hold_stdin(Some(writer));
        // The socket is bound early and accepts late: a pid that lives and a connection that works.
        let offered = wait_until("a daemon that accepts connections", DAEMON_TIMEOUT, || {
            (UnixStream::connect(self.socket()).is_ok() && self.is_running()).then_some(())
        });
        offered.with_context(|| self.log_tail(40))
    }

    /// Process id of the running daemon, from its PID file.
    #[must_use]
    pub fn daemon_pid(&self) -> Option<i32> {
        let text = fs::read_to_string(self.base().join("run/ctdbd.pid")).ok()?;
        let pid = text.trim().parse().ok()?;
        processes::under(self.base()).iter().any(|p| p.as_raw_pid() == pid).then_some(pid)
    }

    /// Whether the daemon's process lives.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon_pid().is_some()
    }

    /// Sends a signal to the daemon's main process only.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal_daemon(&self, signal: Signal) -> Result<()> {
        let pid = self.daemon_pid().and_then(Pid::from_raw);
        let pid = pid.with_context(|| format!("node {} runs no daemon", self.index))?;
        if !processes::signal(pid, self.base(), signal) {
            bail!("node {}: daemon {} ended meanwhile", self.index, pid.as_raw_pid());
        }
        Ok(())
    }

    /// A crash: SIGKILL for the main process; its children notice by themselves. Returns when the
    /// main process is gone.
    ///
    /// # Errors
    /// It did not run.
    pub fn crash_daemon(&self) -> Result<()> {
        self.signal_daemon(Signal::KILL)?;
        wait_until("end of a killed daemon", DAEMON_TIMEOUT, || (!self.is_running()).then_some(()))
    }

    /// The end of the machine: SIGKILL for every process of the node.
    ///
    /// # Errors
    /// Something does not end.
    pub fn kill(&self) -> Result<()> {
        processes::kill_all(self.base())?;
        self.state().hold_stdin(None);
        Ok(())
    }

    /// Stops the daemon with `ctdb shutdown` and waits until all its processes have ended.
    ///
    /// # Errors
    /// They do not.
    pub fn shutdown(&self) -> Result<()> {
        self.tool_ok(&["shutdown"])?;
        wait_until("end of the daemon after shutdown", DAEMON_TIMEOUT, || {
            processes::under(self.base()).is_empty().then_some(())
        })?;
        self.state().hold_stdin(None);
        Ok(())
    }

    /// Last `count` lines of the daemon's log under a heading, without those about hot keys, of which
    /// a loaded node writes many.
    #[must_use]
    pub fn log_tail(&self, count: usize) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter(|line| !line.contains(" hot key ")).collect();
        let tail = lines[lines.len().saturating_sub(count)..].join("\n");
        format!("--- node {}: {}\n{tail}\n", self.index, self.log().display())
    }
}
