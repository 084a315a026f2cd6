//! ctdb-guard.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ringmaster_guard::main()
}
