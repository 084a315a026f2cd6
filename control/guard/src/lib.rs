//! ctdb-guard: what a daemon holds goes when the daemon does.
//!
//! Role: a small process that the daemon tells which public addresses and which lock helper it has.
//! When the daemon is gone, however it went, the guard ends the connections of those addresses,
//! takes them off the host, and lets the cluster lock go: in that order, so that nobody who needs
//! the lock to lead can give an address away that is here still. C leaves addresses and lock where
//! they are.
//! - `wards` keeps what is held (pure); `letting_go` acts.
//!
//! Invariants
//! - The end of standard input is the end of the daemon: the pipe is held by nobody else.
//! - A daemon that ends in order holds nothing any more: then there is nothing to do.
//!
//! First form: a daemon that hangs is not noticed here.
#![forbid(unsafe_code)]

mod letting_go;
pub mod wards;

use std::{io::BufRead, process::ExitCode};

use ringmaster_host::logging;
use tokio::signal::unix::{SignalKind, signal};

use self::{letting_go::Lock, wards::Wards};

/// C's number of the level NOTICE.
const NOTICE: i32 = 3;
/// Longest line that a daemon writes; longer ones are none of its.
const LINE_MAX: u64 = 256;

/// The program: listens on standard input until it ends.
#[must_use]
pub fn main() -> ExitCode {
    let location = std::env::var_os("CTDB_LOGGING").unwrap_or_else(|| "file:".into());
    if let Err(error) = logging::start("ctdb-guard", &location, NOTICE, None) {
        eprintln!("ctdb-guard: {error}");
        return ExitCode::from(1);
    }
    logging::panics_end_the_process();
    if let Err(error) = outlive_the_daemon() {
        tracing::warn!(%error, "signals to all of the daemon's processes will end the guard too");
    }
    let (mut wards, mut lock) = (Wards::default(), Lock::default());
    listen(&mut std::io::stdin().lock(), &mut wards, &mut lock);
    letting_go::all(&wards, lock);
    ExitCode::SUCCESS
}

/// A service manager that finds the daemon dead asks everybody in its control group to end: just when
/// the guard is needed. It ends by itself soon after.
fn outlive_the_daemon() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        // The handler stays for the life of the process; nobody waits for it.
        drop(signal(kind)?);
    }
    Ok(())
}

/// Until the end of the daemon. A line that makes no sense is passed over: the others count all the
/// more.
fn listen(input: &mut dyn BufRead, wards: &mut Wards, lock: &mut Lock) {
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = std::io::Read::take(&mut *input, LINE_MAX);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::error!(%error, "the daemon cannot be heard; taking it to be dead");
                return;
            }
        }
        let text = String::from_utf8_lossy(&line);
        match wards.hear(text.trim_end()) {
            Ok(()) => lock.follow(wards.lock_helper()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
}
