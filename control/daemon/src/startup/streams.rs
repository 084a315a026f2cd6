//! Standard output and standard error of a daemon in the background.
//!
//! Role: who started the daemon hears of a failure until it serves, and then keeps no descriptor of
//! it; later output, of children too, goes to the log line by line.
//! Invariant: whoever waits for the end of these streams (a script, a test) gets it at the start.
//! Origin: `docs/spec/cluster-semantics.md` 1.1, steps 16 and 22.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ExitStatus},
};

/// Last byte on standard error of a daemon that has started.
const STARTED: u8 = 0;

/// Passes on what the daemon in the background says until it has started or failed.
/// `None`: it has started.
///
/// # Errors
/// When the child cannot be waited for.
pub(super) fn hear(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let mut said = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_end(&mut said)?;
    }
    let started = said.last() == Some(&STARTED);
    if started {
        said.pop();
    }
    io::stderr().write_all(&said)?;
    if started { Ok(None) } else { child.wait().map(Some) }
}

/// Who waits in [`hear`], after [`leave`].
#[derive(Debug)]
pub(super) struct Starter(File);

impl Starter {
    /// The daemon serves.
    pub(super) fn started(mut self) {
        // Fails when nobody waits.
        let _ = self.0.write_all(&[STARTED]);
    }

    /// It does not.
    pub(super) fn failed(mut self, line: &str) {
        let _ = writeln!(self.0, "{line}");
    }
}

/// Turns both streams to the log, so that no child holds what the starter waits for the end of.
///
/// # Errors
/// When there is no pipe or thread to be had.
pub(super) fn leave() -> io::Result<Starter> {
    let starter = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)?;
    let (output, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let lines = BufReader::new(File::from(output));
    std::thread::Builder::new().name("streams".into()).spawn(move || log(lines))?;
    rustix::stdio::dup2_stdout(&input)?;
    rustix::stdio::dup2_stderr(&input)?;
    Ok(Starter(starter.into()))
}

/// Longest line: more of it becomes another line.
const LINE_MAX: u64 = 4096;

fn log(mut lines: impl BufRead) {
    let mut line = Vec::new();
    while lines.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        tracing::info!("{}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn heard(script: &str) -> Option<ExitStatus> {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let heard = hear(&mut child).expect("a child is waited for");
        // Fails only when it has ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        heard
    }

    #[test]
    fn a_daemon_that_serves_is_left_alone() {
        assert_eq!(heard("printf '\\0' >&2; exec 2>&-; exec sleep 1000"), None);
    }

    #[test]
    fn a_daemon_that_fails_gives_its_status() {
        assert_eq!(heard("echo no nodes >&2; exit 11").and_then(|status| status.code()), Some(11));
    }
}
