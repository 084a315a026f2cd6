//! The guard: a process that gives up addresses and the cluster lock when this daemon dies.
//!
//! Role: starts it and tells it what there is to give up. What it does: `ringmaster-guard`.
//! Invariants
//! - The pipe to it is closed by the end of this process and by nothing else.
//! - Telling never waits: beyond [`LINES_MAX`] lines a guard that does not read misses something, and
//!   that is said.

use std::{net::IpAddr, path::PathBuf, process::Stdio};

use ringmaster_control::config::Paths;
use tokio::{io::AsyncWriteExt, process::Command, sync::mpsc};

use super::own_helper;

/// Lines that wait for the guard to read. A takeover run on a large node writes some hundred.
const LINES_MAX: usize = 4_096;

/// See the module. Without a guard its words go nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    lines: Option<mpsc::Sender<String>>,
}

impl Guard {
    /// Starts the guard. A daemon without one works as C's: what it holds stays when it dies.
    pub(crate) fn start(paths: &Paths) -> Self {
        let program = std::env::var_os("CTDB_GUARD").map(PathBuf::from);
        let Some(program) = program.or_else(|| own_helper(paths, "ctdb-guard")) else {
            tracing::warn!(
                "there is no ctdb-guard beside this program: if the daemon dies, its addresses stay"
            );
            return Self::default();
        };
        let mut command = Command::new(&program);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let started = command.spawn().and_then(|mut child| {
            let stdin = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
            Ok((child, stdin))
        });
        let (mut child, mut stdin) = match started {
            Ok(started) => started,
            Err(error) => {
                let program = program.display();
                tracing::error!("cannot start the guard {program}: {error}");
                return Self::default();
            }
        };
        let (lines, mut told) = mpsc::channel::<String>(LINES_MAX);
        tokio::task::spawn_local(async move {
            let ended = loop {
                tokio::select! {
                    line = told.recv() => {
                        let Some(line) = line else { break None };
                        // Its end says more than that it does not read.
                        let _ = stdin.write_all(line.as_bytes()).await;
                    }
                    status = child.wait() => break Some(status),
                }
            };
            if let Some(status) = ended {
                tracing::error!(
                    ?status,
                    "the guard has ended: if the daemon dies, its addresses stay"
                );
            }
        });
        Self { lines: Some(lines) }
    }

    /// An address is here, or is not any more.
    pub(crate) fn address(&self, address: IpAddr, here: bool) {
        self.say(format!("{} {address}\n", if here { "address" } else { "no-address" }));
    }

    /// A helper has the cluster lock or tries to take it, or has ended. `None`: it had ended already.
    pub(super) fn lock(&self, helper: Option<u32>, runs: bool) {
        if let Some(pid) = helper {
            self.say(format!("{} {pid}\n", if runs { "lock" } else { "no-lock" }));
        }
    }

    fn say(&self, line: String) {
        let Some(lines) = &self.lines else { return };
        if let Err(mpsc::error::TrySendError::Full(line)) = lines.try_send(line) {
            tracing::error!(line = line.trim_end(), "the guard does not read what it is told");
        }
    }
}
