//! Runs commands as named steps, counts their tests, and reports minutes per suite.
//!
//! Role: one way to run, time and count. Invariant: a step that fails never hides a later one;
//! the verdict is the conjunction of all.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// The folder with the workspace's `Cargo.toml`.
pub(crate) fn workspace_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// Tests that libtest reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Adds what one line of output says, if it is one of libtest's closing lines.
    pub(crate) fn read_line(&mut self, line: &str) {
        let Some(summary) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in summary.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What came of one command.
pub(crate) struct Outcome {
    pub(crate) ok: bool,
    pub(crate) counts: Counts,
    pub(crate) took: Duration,
    /// Everything printed on stdout (stderr goes straight through).
    pub(crate) output: String,
}

/// Runs a command, passing its output through while counting tests in it.
pub(crate) fn run(command: &mut Command) -> Result<Outcome> {
    let start = Instant::now();
    let shown = show(command);
    println!("$ {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start: {shown}"))?;
    let stdout = child.stdout.take().context("stdout was piped")?;
    let (mut counts, mut output) = (Counts::default(), String::new());
    let mut lines = BufReader::new(stdout);
    let mut raw = Vec::new();
    while lines.read_until(b'\n', &mut raw).context("reading a step's output")? > 0 {
        let line = String::from_utf8_lossy(&raw);
        counts.read_line(&line);
        print!("{line}");
        output.push_str(&line);
        raw.clear();
    }
    std::io::stdout().flush()?;
    let ok = child.wait().with_context(|| format!("waiting for: {shown}"))?.success();
    Ok(Outcome { ok, counts, took: start.elapsed(), output })
}

fn show(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        shown.push(' ');
        shown.push_str(&arg.to_string_lossy());
    }
    shown
}

/// `cargo ARGS…` with the workspace's settings; arguments split at blanks.
pub(crate) fn cargo(args: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args.split_whitespace());
    command
}

/// The ledger of a run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<(String, bool, Counts, Duration)>,
}

impl Report {
    /// Runs the command as part of `suite` and notes the outcome; an error to start is a failure.
    pub(crate) fn step(&mut self, suite: &str, command: &mut Command) -> bool {
        println!("\n== {suite}");
        match run(command) {
            Ok(outcome) => {
                self.note(suite, outcome.ok, outcome.counts, outcome.took);
                outcome.ok
            }
            Err(error) => {
                eprintln!("xtask: {error:#}");
                self.note(suite, false, Counts::default(), Duration::ZERO);
                false
            }
        }
    }

    /// Notes something that was not a command.
    pub(crate) fn note(&mut self, suite: &str, ok: bool, counts: Counts, took: Duration) {
        if !ok {
            println!("FAILED: {suite}");
        }
        match self.rows.iter_mut().find(|row| row.0 == suite) {
            Some(row) => {
                row.1 &= ok;
                row.2.add(counts);
                row.3 += took;
            }
            None => self.rows.push((suite.to_owned(), ok, counts, took)),
        }
    }

    /// Prints minutes per suite and the closing line; true when nothing failed.
    pub(crate) fn close(&self) -> bool {
        println!(
            "\n{:<28} {:>8} {:>8} {:>8} {:>8}",
            "suite", "minutes", "passed", "failed", "skipped"
        );
        let mut total = Counts::default();
        let mut ok = true;
        let mut took_all = Duration::ZERO;
        for (suite, row_ok, counts, took) in &self.rows {
            let mut counts = *counts;
            // A step that fails without a failed test (fmt, clippy, a build) counts as one failure.
            if !row_ok && counts.failed == 0 {
                counts.failed = 1;
            }
            println!(
                "{suite:<28} {:>8.1} {:>8} {:>8} {:>8}",
                took.as_secs_f64() / 60.0,
                counts.passed,
                counts.failed,
                counts.skipped
            );
            total.add(counts);
            ok &= *row_ok;
            took_all += *took;
        }
        println!("{:<28} {:>8.1}", "all", took_all.as_secs_f64() / 60.0);
        println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
        ok && total.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_summaries_are_added_up() {
        let mut counts = Counts::default();
        counts.read_line(
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 1 filtered out\n",
        );
        counts.read_line(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        );
        counts.read_line("12 passed in a sentence of a test");
        assert_eq!(counts, Counts { passed: 13, failed: 2, skipped: 3 });
    }

    #[test]
    fn a_failed_lint_makes_the_whole_run_fail() {
        let mut report = Report::default();
        report.note("tests", true, Counts { passed: 4, ..Counts::default() }, Duration::ZERO);
        assert!(report.close());
        report.note("lint", false, Counts::default(), Duration::ZERO);
        assert!(!report.close());
    }
}
