//! One program run to its end, with a time-out.
//!
//! Invariants
//! - The program gets a process group of its own: the C tool signals its whole group when its run
//!   time ends, and a time-out here kills what the program started.
//! - Output goes to files, so that a full pipe never stops the program and a grandchild that keeps
//!   the descriptor open never stops us.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2 (run-time limit).

use std::fmt;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Pause between two looks at a running program.
const POLL: Duration = Duration::from_millis(2);

/// What a program printed and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutput {
    /// Everything on stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// Everything on stderr, likewise.
    pub stderr: String,
    /// Exit status as a shell shows it: 128 + signal number after a signal.
    pub status: i32,
}

impl RunOutput {
    /// Whether the exit status is 0.
    #[must_use]
    pub const fn success(&self) -> bool {
        self.status == 0
    }
}

impl fmt::Display for RunOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n--- stdout\n{}", self.status, self.stdout)?;
        write!(f, "--- stderr\n{}---", self.stderr)
    }
}

/// Runs `command` to its end and collects its output.
///
/// # Errors
/// The program cannot be started, or is still running after `timeout`: it and its process group
/// are killed then, and the error carries the output so far.
pub fn run(command: &mut Command, timeout: Duration) -> Result<RunOutput> {
    run_with_input(command, Stdio::null(), timeout)
}

/// As [`run`], with the program's stdin.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, stdin: Stdio, timeout: Duration) -> Result<RunOutput> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut stdout = tempfile::tempfile().context("cannot make a file for stdout")?;
    let mut stderr = tempfile::tempfile().context("cannot make a file for stderr")?;
    let mut child = command
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let ended = wait(&mut child, timeout)?;
    if ended.is_none() {
        kill_group(&child);
        child.wait().with_context(|| format!("cannot wait for {name}"))?;
    }
    let collect = |file: &mut std::fs::File| -> Result<String> {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let status = ended.map_or(-1, shell_status);
    let output = RunOutput { stdout: collect(&mut stdout)?, stderr: collect(&mut stderr)?, status };
    if ended.is_none() {
        let arguments: Vec<_> = command.get_args().collect();
        bail!("{name} {arguments:?} still runs after {timeout:?}: killed\n{output}");
    }
    Ok(output)
}

fn wait(child: &mut Child, timeout: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the program")? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn kill_group(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Gone already is as good as killed.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Looks until `condition` yields a value.
///
/// # Errors
/// Nothing after `timeout`; the error says that `what` did not happen.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("not within {timeout:?}: {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_those_of_the_program() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo out; echo err >&2; exit 7"]);
        let output = run(&mut shell, Duration::from_secs(20)).unwrap();
        let expected = RunOutput { stdout: "out\n".into(), stderr: "err\n".into(), status: 7 };
        assert_eq!(output, expected);
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 1000 & echo started; wait"]);
        let error = run(&mut shell, Duration::from_millis(300)).unwrap_err().to_string();
        assert!(error.contains("still runs") && error.contains("started"), "{error}");
    }

    #[test]
    fn a_signal_shows_as_in_a_shell() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "kill -9 $$"]);
        assert_eq!(run(&mut shell, Duration::from_secs(20)).unwrap().status, 137);
    }
}
