//! Commands and conditions with a limit, and a word to whoever watches.
//!
//! Role: nothing in the demo waits without a limit, and nothing that lasts longer than two seconds
//! is silent. The limit of a command is kept by `timeout`, so that it holds for what it starts too.

use std::{
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// The first word about a wait comes after this.
const SILENT: Duration = Duration::from_secs(2);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Tells how long something lasts: after 2, 4, 8 … seconds.
struct Progress<'a> {
    what: &'a str,
    start: Instant,
    next: Duration,
}

impl<'a> Progress<'a> {
    fn new(what: &'a str) -> Self {
        Self { what, start: Instant::now(), next: SILENT }
    }

    fn tick(&mut self) {
        let past = self.start.elapsed();
        if past >= self.next {
            println!("    … {} ({} s)", self.what, past.as_secs());
            self.next *= 2;
        }
    }
}

/// Looks until `look` finds something.
///
/// # Errors
/// When `limit` has passed: with what was waited for, and what the last look said.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let mut progress = Progress::new(what);
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(reason) if progress.start.elapsed() >= limit => {
                bail!("{what}: not within {} s; last seen: {reason}", limit.as_secs());
            }
            Err(_) => {}
        }
        progress.tick();
        thread::sleep(LOOK_EVERY);
    }
}

/// `program`, killed with all that it started after `limit_s` seconds.
#[must_use]
pub fn limited(limit_s: u32, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &limit_s.to_string(), program]);
    command.stdin(Stdio::null());
    command
}

/// Runs to the end and gives what was printed, on both streams; says so when it lasts.
///
/// # Errors
/// When the command cannot be started.
pub fn output(what: &str, command: &mut Command) -> Result<Output> {
    let mut progress = Progress::new(what);
    thread::scope(|scope| {
        let running = scope.spawn(|| command.output());
        while !running.is_finished() {
            progress.tick();
            thread::sleep(Duration::from_millis(5));
        }
        match running.join() {
            Ok(output) => output.with_context(|| format!("{what}: cannot be started")),
            Err(_) => bail!("{what}: its thread panicked"),
        }
    })
}

/// Like [`output`], for commands that must succeed: their standard output.
///
/// # Errors
/// Also when the command fails: with its status and all that it printed.
pub fn success(what: &str, command: &mut Command) -> Result<String> {
    let output = output(what, command)?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let late = if output.status.code() == Some(124) { " (its time was up)" } else { "" };
    bail!("{what}: {}{late}\n{stdout}{stderr}", output.status);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_fails_says_what_was_seen_last() {
        let error = until::<()>("the tide", Duration::ZERO, || Err("low water".into()));
        assert_eq!(
            error.expect_err("it never comes").to_string(),
            "the tide: not within 0 s; last seen: low water"
        );
    }

    #[test]
    fn a_command_that_lasts_is_ended_with_its_children() {
        let mut command = limited(1, "sh");
        command.args(["-c", "sleep 1000; true"]);
        let error = success("sleeping", &mut command).expect_err("its time is up");
        assert!(error.to_string().contains("its time was up"), "{error}");
    }

    #[test]
    fn a_failing_command_shows_both_its_streams() {
        let mut command = limited(10, "sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = success("failing", &mut command).expect_err("it fails").to_string();
        assert!(error.contains("out\nerr"), "{error}");
    }
}
