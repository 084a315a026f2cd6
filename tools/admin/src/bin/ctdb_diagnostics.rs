//! `ctdb_diagnostics`, see `ringmaster_admin::diagnostics`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{diagnostics, environment};

fn main() -> ExitCode {
    diagnostics::run(&environment::args())
}
