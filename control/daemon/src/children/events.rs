//! The event daemon: starting it, asking it to run events.
//!
//! Origin: `docs/spec/wire-protocol.md` 8; `docs/spec/cluster-semantics.md` 10.1, 10.4.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use ringmaster_control::{
    config::Paths,
    node::world::{ScriptResult, ScriptRun},
};
use ringmaster_protocol::{
    eventd::{EventReply, EventRequest, RunFlags, frame_len},
    text::Text,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
    sync::mpsc,
};

use super::own_helper;
use crate::driver::Report;

/// The event daemon says that it is ready within this time, or the daemon does not start.
const READY_PATIENCE: Duration = Duration::from_secs(10);

/// A reply of the event daemon is no longer than this: script output is not part of it.
const REPLY_MAX: u32 = 1024 * 1024;

/// Component whose events the daemon runs.
const COMPONENT: &[u8] = b"legacy";

/// A running event daemon.
#[derive(Debug)]
pub(crate) struct Eventd {
    child: Child,
    socket: PathBuf,
}

impl Eventd {
    /// Starts `ctdb-eventd` and waits until it is ready.
    ///
    /// # Errors
    /// What went wrong, with the program's name.
    pub(crate) async fn start(paths: &Paths, report: mpsc::Sender<Report>) -> Result<Self, String> {
        let program = match std::env::var_os("CTDB_EVENTD") {
            Some(program) => PathBuf::from(program),
            None => own_helper(paths, "ctdb-eventd").ok_or("there is no ctdb-eventd")?,
        };
        let failed = |what: &str, error: io::Error| {
            format!("cannot {what} the event daemon {}: {error}", program.display())
        };
        let socket = paths.socket(OsStr::new("eventd"));
        let pipe_failed = |errno: rustix::io::Errno| failed("make a pipe to", errno.into());
        let (ours, theirs) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(pipe_failed)?;
        // Only this end, and only this child.
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).map_err(pipe_failed)?;
        let mut command = Command::new(&program);
        command
            .arg("-P")
            .arg(std::process::id().to_string())
            .arg("-S")
            .arg(theirs.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| failed("start", error))?;
        drop(theirs);
        let ready = wait_ready(ours);
        let pipe = match tokio::time::timeout(READY_PATIENCE, ready).await {
            Ok(Ok(pipe)) => pipe,
            Ok(Err(error)) => return Err(failed("hear from", error)),
            Err(_) => return Err(failed("hear from", io::ErrorKind::TimedOut.into())),
        };
        // The pipe stays open; its end means that the event daemon is gone.
        tokio::task::spawn_local(async move {
            let mut pipe = pipe;
            let _ = pipe.read(&mut [0; 1]).await;
            let _ = report.send(Report::EventdGone).await;
        });
        Ok(Self { child, socket })
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

async fn wait_ready(pipe: OwnedFd) -> io::Result<tokio::net::unix::pipe::Receiver> {
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    let mut word = [0; 4];
    pipe.read_exact(&mut word).await?;
    if word == [0; 4] { Ok(pipe) } else { Err(io::Error::other("it reports a failure")) }
}

/// Runs one event.
pub(super) async fn run(socket: &Path, run: &ScriptRun) -> ScriptResult {
    match ask(socket, run).await {
        Ok(0) => ScriptResult::Ok,
        Ok(libc_errno) => match libc_errno {
            110 => ScriptResult::TimedOut,
            125 => ScriptResult::Cancelled,
            _ => ScriptResult::Failed,
        },
        Err(error) => {
            tracing::error!(event = run.event, %error, "cannot run the event");
            ScriptResult::NotRun
        }
    }
}

async fn ask(socket: &Path, run: &ScriptRun) -> io::Result<i32> {
    let mut stream = UnixStream::connect(socket).await?;
    let args = (!run.args.is_empty()).then(|| Text::new(run.args.as_bytes()));
    let request = EventRequest::Run {
        component: Some(Text::new(COMPONENT)),
        event: Some(Text::new(run.event.as_bytes())),
        args,
        timeout_s: run.timeout_s,
        flags: RunFlags::NONE,
    };
    let mut packet = Vec::new();
    request.append_packet(1, &mut packet);
    stream.write_all(&packet).await?;
    let mut buffer = Vec::new();
    loop {
        let len = frame_len(&buffer, REPLY_MAX).map_err(io::Error::other)?;
        if let Some(len) = len
            && buffer.len() >= len
        {
            let (_, reply) = EventReply::from_packet(&buffer[..len]).map_err(io::Error::other)?;
            return match reply {
                EventReply::Run { result } => Ok(result),
                other => Err(io::Error::other(format!("unexpected reply {other:?}"))),
            };
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
