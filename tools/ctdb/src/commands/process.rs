//! Processes and ports of a node: `process-exists`, `checktcpport`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.6.6, 1.9.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddrV4};

use ringmaster_protocol::Srvid;
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::process::{Pid, PidSrvid};
use rustix::net::{AddressFamily, SocketType, bind, socket};
use serde::Serialize;

use crate::arguments::{atoi, unsigned};
use crate::command::{Failure, Key, Outcome, key};
use crate::output::Report;
use crate::page::{Page, Tone};
use crate::session::Session;
use crate::tool::Tool;

/// Keys of `process-exists`.
pub const PROCESS_EXISTS: &[Key] = &[
    key("pid", "number", "process id"),
    key("srvid", "number|null", "message port asked for"),
    key("exists", "boolean", "it is a client of the daemon (and has registered the port)"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct ProcessExists {
    pid: i32,
    srvid: Option<u64>,
    exists: bool,
}

impl Report for ProcessExists {
    fn human(&self, page: &mut Page) {
        let (tone, word) =
            if self.exists { (Tone::Good, "exists") } else { (Tone::Bad, "does not exist") };
        let (pid, word) = (self.pid, page.paint(tone, word));
        match self.srvid {
            Some(srvid) => page.line(format_args!("PID {pid} with SRVID {srvid:#x} {word}")),
            None => page.line(format_args!("PID {pid} {word}")),
        }
    }
}

/// `process-exists`.
///
/// # Errors
/// The second word is no number; the node does not answer.
pub fn process_exists(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let pid = atoi(&arguments[0]);
    let srvid = match arguments.get(1) {
        Some(word) => unsigned(word).ok_or(Failure::BAD_NUMBER)?,
        None => 0,
    };
    // C takes port 0 for no port.
    let srvid = (srvid != 0).then_some(srvid);
    let node = session.target;
    let exists = match srvid {
        Some(srvid) => {
            let asked = PidSrvid { pid: Pid(pid), srvid: Srvid(srvid) };
            session.control::<kinds::CheckPidSrvid, _>(node, &asked)?.0
        }
        None => session.control::<kinds::ProcessExists, _>(node, &Pid(pid))?.0,
    };
    session.output().report(&ProcessExists { pid, srvid, exists })?;
    Ok(u8::from(!exists))
}

/// Keys of `checktcpport`.
pub const CHECKTCPPORT: &[Key] =
    &[key("port", "number", "TCP port"), key("bound", "boolean", "something is bound to it")];

/// Says nothing to people: the exit status is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct TcpPort {
    port: u16,
    bound: bool,
}

impl Report for TcpPort {
    fn human(&self, _page: &mut Page) {}
}

/// `checktcpport`. Without `SO_REUSEADDR`, which std sets: a port in TIME_WAIT counts as bound,
/// as in C.
///
/// # Errors
/// Something is bound to the port (status 98).
pub fn checktcpport(tool: &mut Tool<'_>, arguments: &[OsString]) -> Outcome {
    let number = atoi(&arguments[0]);
    let [low, high, ..] = number.to_le_bytes();
    let port = u16::from_le_bytes([low, high]);
    let tcp = socket(AddressFamily::INET, SocketType::STREAM, None)
        .map_err(|error| errno_failure(error, "Failed to open local socket".into()))?;
    let bound = bind(&tcp, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    let taken = bound == Err(rustix::io::Errno::ADDRINUSE);
    if taken || bound.is_ok() {
        tool.output.report(&TcpPort { port, bound: taken })?;
    }
    bound
        .map(|()| 0)
        .map_err(|error| errno_failure(error, format!("Failed to bind to TCP port {number}")))
}

fn errno_failure(error: rustix::io::Errno, text: String) -> Failure {
    Failure::with_status(Failure::status_of(error.raw_os_error()), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human};

    #[test]
    fn a_process_exists_alone_or_with_a_port() {
        let process = ProcessExists { pid: 77, srvid: Some(0x1234), exists: true };
        assert_eq!(human(&process), "PID 77 with SRVID 0x1234 exists\n");
        let process = ProcessExists { pid: 1, srvid: None, exists: false };
        assert_eq!(human(&process), "PID 1 does not exist\n");
        documented(&process, PROCESS_EXISTS);
        documented(&TcpPort { port: 1, bound: false }, CHECKTCPPORT);
    }
}
