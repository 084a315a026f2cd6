//! `ltdbtool`, see `ringmaster_admin::ltdbtool`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{environment, ltdbtool};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    ExitCode::from(ltdbtool::run(&args, environment::posixly_correct()))
}
