//! The cluster lock: a helper process that holds it.
//!
//! Invariants
//! - The helper's first character is the verdict; its end after `0` means that the lock is lost.
//! - Dropping [`Held`] ends the helper (SIGTERM), taken or not.
//!
//! Origin: `docs/spec/cluster-semantics.md` 6.8; `ctdb/server/ctdb_cluster_mutex.c`.

use std::{
    ffi::OsString,
    process::Stdio,
    time::{Duration, Instant},
};

use ringmaster_control::{
    node::{Outcome, world::LockResult},
    plane::Token,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout, Command},
    sync::{mpsc, oneshot},
};

use super::guard::Guard;
use crate::driver::Report;

/// A lock that is held, or being taken.
#[derive(Debug)]
pub(super) struct Held {
    /// Dropped: the helper's task ends the helper.
    _release: oneshot::Sender<()>,
}

/// Without a configured lock there is nothing to take.
pub(super) fn no_lock(token: Token, report: &mpsc::Sender<Report>) {
    let report = report.clone();
    tokio::task::spawn_local(async move {
        let _ = report.send(Report::Outcome(token, Outcome::Lock(LockResult::Error))).await;
    });
}

fn start(command: &[OsString]) -> std::io::Result<(Child, ChildStdout)> {
    let mut helper = Command::new(&command[0]);
    helper
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = helper.spawn()?;
    let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    Ok((child, stdout))
}

/// Waits for the helper's verdict.
async fn verdict(stdout: &mut ChildStdout, timeout_s: u32) -> LockResult {
    let started = Instant::now();
    let mut word = [0; 1];
    let limit = Duration::from_secs(u64::from(timeout_s));
    match tokio::time::timeout(limit, stdout.read(&mut word)).await {
        Err(_) => LockResult::TimedOut,
        Ok(Ok(1)) => match word[0] {
            b'0' => LockResult::Taken(started.elapsed().as_secs_f64()),
            b'1' => LockResult::Contention(started.elapsed().as_secs_f64()),
            b'2' => LockResult::TimedOut,
            _ => LockResult::Error,
        },
        Ok(_) => LockResult::Error,
    }
}

/// SIGTERM, so that the helper can let go in order; the kernel does it if it hangs.
async fn end(mut child: Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

impl Held {
    pub(super) fn take(
        token: Token,
        command: Vec<OsString>,
        timeout_s: u32,
        report: mpsc::Sender<Report>,
        guard: Guard,
    ) -> Self {
        let (release, released) = oneshot::channel::<()>();
        tokio::task::spawn_local(async move {
            let (child, mut stdout) = match start(&command) {
                Ok(started) => started,
                Err(error) => {
                    let program = command[0].to_string_lossy();
                    tracing::error!(%program, %error, "cannot start the cluster lock helper");
                    let outcome = Outcome::Lock(LockResult::Error);
                    let _ = report.send(Report::Outcome(token, outcome)).await;
                    return;
                }
            };
            let helper = child.id();
            guard.lock(helper, true);
            let mut released = released;
            let result = tokio::select! {
                result = verdict(&mut stdout, timeout_s) => result,
                _ = &mut released => LockResult::Error,
            };
            let taken = matches!(result, LockResult::Taken(_));
            let _ = report.send(Report::Outcome(token, Outcome::Lock(result))).await;
            if taken {
                let mut word = [0; 64];
                let lost = loop {
                    tokio::select! {
                        read = stdout.read(&mut word) => match read {
                            Ok(len) if len > 0 => {} // more output means nothing
                            _ => break true,
                        },
                        _ = &mut released => break false,
                    }
                };
                if lost {
                    tracing::error!("cluster lock helper terminated");
                    let _ = report.send(Report::LockLost).await;
                }
            }
            end(child).await;
            guard.lock(helper, false);
        });
        Self { _release: release }
    }
}

/// Takes the lock and gives it back at once.
pub(super) fn test(
    token: Token,
    command: Vec<OsString>,
    timeout_s: u32,
    report: mpsc::Sender<Report>,
) {
    tokio::task::spawn_local(async move {
        let result = match start(&command) {
            Ok((child, mut stdout)) => {
                let result = verdict(&mut stdout, timeout_s).await;
                end(child).await;
                result
            }
            Err(_) => LockResult::Error,
        };
        let _ = report.send(Report::Outcome(token, Outcome::Lock(result))).await;
    });
}
