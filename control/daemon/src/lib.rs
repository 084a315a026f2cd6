//! ctdbd: wires the crates, carries out actions, owns children.
//!
//! Role: everything that control (pure) asks for is done here: shards, database workers, children,
//! sockets, files. If logic collects here, it belongs one level down.

mod alarm;
mod children;
mod driver;
mod health;
mod network;
mod options;
mod service_manager;
mod shards;
mod startup;
mod supervision;
mod system;
mod view;
pub mod worker;

use std::{ffi::OsString, process::ExitCode};

/// The program: everything from the command line to the exit status.
#[must_use]
pub fn main(args: &[OsString]) -> ExitCode {
    startup::run(args)
}
