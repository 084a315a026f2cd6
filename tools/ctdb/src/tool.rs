//! What every handler has: options, output, places, child processes.
//!
//! Role: the part of a run that needs no daemon.
//! Invariant: a helper's exit status is passed on as C does, oddities included.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2 (exit status), 2.3.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command as Process, ExitStatus, Stdio};

use crate::alarm::Alarm;
use crate::command::Command;
use crate::options::Options;
use crate::output::Output;
use crate::places::Places;

/// One run of the tool.
pub struct Tool<'a> {
    pub command: &'static Command,
    pub options: &'a Options,
    pub places: &'a Places,
    pub output: Output<'a>,
    pub alarm: &'a Alarm,
}

/// What a helper did, as the C tool sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelperResult {
    /// Exit status that the tool passes on.
    pub status: u8,
    /// What the C tool says about it on standard error.
    pub complaint: Option<String>,
}

/// The C tool runs a helper in a child that exits with 64 + errno when it cannot start it, and
/// takes every status from 64 to 254 for such a failure.
#[must_use]
pub fn judge_helper(title: &str, status: io::Result<ExitStatus>) -> HelperResult {
    const NOT_STARTED: i32 = 64;
    const INTERRUPTED: u8 = 4;
    let code = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => code,
            (None, signal) => {
                let signal = signal.unwrap_or_default();
                let complaint = format!("{title} terminated with signal {signal}");
                return HelperResult { status: INTERRUPTED, complaint: Some(complaint) };
            }
        },
        Err(error) => NOT_STARTED + error.raw_os_error().unwrap_or_default(),
    };
    let byte = |code: i32| u8::try_from(code).unwrap_or(u8::MAX);
    match code {
        NOT_STARTED..=254 => {
            let error = code - NOT_STARTED;
            let complaint = format!("{title} failed with error {error}");
            HelperResult { status: byte(error), complaint: Some(complaint) }
        }
        code => HelperResult { status: byte(code), complaint: None },
    }
}

impl Tool<'_> {
    /// Runs a helper with our streams and waits for it.
    pub fn run_helper<S: AsRef<OsStr>>(
        &mut self,
        title: &str,
        program: &Path,
        arguments: &[S],
    ) -> u8 {
        let run =
            Process::new(program).args(arguments).spawn().and_then(|child| self.attend(child));
        self.helper_status(title, run.map(|(status, _)| status))
    }

    /// Runs a helper and keeps what it writes to standard output.
    pub fn capture_helper<S: AsRef<OsStr>>(
        &mut self,
        title: &str,
        program: &Path,
        arguments: &[S],
    ) -> (u8, Vec<u8>) {
        let run = Process::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .and_then(|child| self.attend(child));
        let (status, text) = match run {
            Ok((status, text)) => (Ok(status), text),
            Err(error) => (Err(error), Vec::new()),
        };
        (self.helper_status(title, status), text)
    }

    /// Waits for a child, which the alarm ends with us.
    fn attend(&self, mut child: Child) -> io::Result<(ExitStatus, Vec<u8>)> {
        let _on_alarm = self.alarm.ends(&child);
        let mut text = Vec::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_end(&mut text)?;
        }
        Ok((child.wait()?, text))
    }

    fn helper_status(&mut self, title: &str, status: io::Result<ExitStatus>) -> u8 {
        let result = judge_helper(title, status);
        if let Some(complaint) = &result.complaint {
            self.output.complain(complaint);
        }
        result.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(raw: i32) -> (u8, Option<String>) {
        let result = judge_helper("LVS helper", Ok(ExitStatus::from_raw(raw)));
        (result.status, result.complaint)
    }

    #[test]
    fn a_helper_status_of_64_to_254_is_taken_for_a_failed_start() {
        // Captured from the 4.17 tool, with a helper that exits with each of these.
        assert_eq!(judged(0), (0, None));
        assert_eq!(judged(63 << 8), (63, None));
        assert_eq!(judged(64 << 8), (0, Some("LVS helper failed with error 0".into())));
        assert_eq!(judged(254 << 8), (190, Some("LVS helper failed with error 190".into())));
        assert_eq!(judged(255 << 8), (255, None));
        assert_eq!(judged(9), (4, Some("LVS helper terminated with signal 9".into())));
    }

    #[test]
    fn a_missing_helper_is_reported_by_its_errno() {
        let result = judge_helper("event daemon helper", Err(io::Error::from_raw_os_error(2)));
        assert_eq!(result.status, 2);
        assert_eq!(result.complaint.unwrap(), "event daemon helper failed with error 2");
    }
}
