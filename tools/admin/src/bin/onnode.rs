//! `onnode`, see `ringmaster_admin::onnode`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    ringmaster_admin::onnode::run(&args)
}
