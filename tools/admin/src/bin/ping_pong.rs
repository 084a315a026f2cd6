//! `ping_pong`, see `ringmaster_admin::ping_pong`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{environment, ping_pong};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    ping_pong::run(&args, environment::posixly_correct())
}
