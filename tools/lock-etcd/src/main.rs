//! `ctdb_mutex_etcd_helper`: holds the cluster lock as a key in etcd that lives by a lease.
//!
//! Role: say one character about the lock, keep the lease alive, and let go as soon as it is no
//! longer worth anything. The daemon's side of the contract: `docs/cluster-lock.md`.
//! Invariants
//! - Never holds for longer than etcd does: the time-to-live counts from the moment at which the last
//!   answered refresh was *sent*, and the helper gives up a margin before its end.
//! - The key is created in one transaction that demands that it is absent: two holders cannot be.
//! - Every wait for etcd has a limit.

mod arguments;
mod holder;
mod lease;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = match arguments::Arguments::parse(&words) {
        Ok(arguments) => arguments,
        Err(reason) => {
            complain(&reason);
            eprintln!("{}", arguments::USAGE);
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(holder::run(&arguments)),
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// A line on standard error, which the daemon's log gets.
pub(crate) fn complain(text: &str) {
    eprintln!("ctdb_mutex_etcd_helper: {text}");
}
