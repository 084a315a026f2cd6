//! `ctdb_killtcp`, see `ringmaster_admin::killtcp`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{environment, killtcp};

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    killtcp::run(&program, &environment::args(), &mut std::io::stdin().lock()).deliver()
}
