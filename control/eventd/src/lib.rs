//! ctdb-eventd: runs the event scripts.
//!
//! Role: `component` decides (pure): which event runs, waits or is cancelled, what a script's end
//! means, what the status of an event is. `scripts` lists and switches script files. `server` acts:
//! socket, children, clocks.
//! Invariant: owns no state that matters: after a restart every event runs as before.

pub mod component;
pub mod scripts;
mod server;

use std::{ffi::OsString, process::ExitCode};

/// The program.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    server::main(args)
}
