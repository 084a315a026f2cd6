//! A script as a process: started, read, ended, debugged.
//!
//! Origin: `docs/spec/cluster-semantics.md` 10.2, 10.3; `ctdb/common/run_proc.c`.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{io::AsyncReadExt, net::unix::pipe, process::Command};

use crate::component::{Ending, Script};

/// The running script, for whoever wants to end it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child {
    group: Pid,
}

/// The process and its output.
pub(super) struct Process {
    child: tokio::process::Child,
    output: pipe::Receiver,
}

/// Starts a script: standard output and error into one pipe, a process group of its own.
pub(super) fn spawn(script: &Script, event: &str, args: &[String]) -> io::Result<(Process, Child)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut command = std::process::Command::new(&script.path);
    command
        .arg0(&script.name)
        .arg(event)
        .args(args)
        .stdout(Stdio::from(writer.try_clone()?))
        .stderr(Stdio::from(writer))
        .process_group(0);
    let child = Command::from(command).spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let group = pid.ok_or(io::ErrorKind::NotFound)?;
    let output = pipe::Receiver::from_owned_fd(reader)?;
    Ok((Process { child, output }, Child { group }))
}

/// Reads the script's output to its end or the script's, whichever comes first (a script may leave
/// a daemon behind that keeps the pipe), and logs it line by line.
pub(super) async fn watch(process: Process, name: &str, output_max: usize) -> (Ending, Vec<u8>) {
    let Process { mut child, mut output } = process;
    let mut kept = Vec::new();
    let mut buffer = [0; 4_096];
    let mut open = true;
    let status = loop {
        tokio::select! {
            biased;
            read = output.read(&mut buffer), if open => match read {
                Ok(len) if len > 0 => {
                    let room = output_max.saturating_sub(kept.len());
                    kept.extend_from_slice(&buffer[..len.min(room)]);
                }
                _ => open = false,
            },
            status = child.wait() => break status,
        }
    };
    // What it wrote before it ended is in the pipe.
    while open && kept.len() < output_max {
        match output.try_read(&mut buffer) {
            Ok(len) if len > 0 => {
                let room = output_max.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..len.min(room)]);
            }
            _ => open = false,
        }
    }
    log_lines(name, &kept);
    let ending = match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, _) => Ending::Signalled,
        },
        Err(error) => Ending::NotRun(error.raw_os_error().unwrap_or(5)),
    };
    (ending, kept)
}

fn log_lines(name: &str, output: &[u8]) {
    for line in String::from_utf8_lossy(output).lines() {
        tracing::error!("{name}: {line}");
    }
}

impl Child {
    /// SIGKILL to the whole group.
    pub(super) fn kill(self) {
        // It may have ended by itself.
        let _ = kill_process_group(self.group, Signal::KILL);
    }

    /// Runs the debug script on a script that hangs, logs what it finds, then SIGTERM to the group.
    /// Without a debug script the hung script is left alone, as in C.
    pub(super) fn debug(self, script: Option<PathBuf>, event: String) {
        let Some(script) = script else { return };
        if rustix::process::test_kill_process(self.group).is_err() {
            return;
        }
        let pid = self.group.as_raw_nonzero().get().to_string();
        tokio::task::spawn_local(async move {
            let output = Command::new(&script).arg(pid).arg(event).stdin(Stdio::null()).output();
            match output.await {
                Ok(output) => {
                    log_lines("event_debug", &output.stdout);
                    log_lines("event_debug", &output.stderr);
                }
                Err(error) => {
                    let script = script.display();
                    tracing::error!(%script, %error, "cannot run the debug script");
                }
            }
            let _ = kill_process_group(self.group, Signal::TERM);
        });
    }
}
