//! `ctdb_mutex_fcntl_helper`, see `ringmaster_admin::mutex_fcntl`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    ringmaster_admin::mutex_fcntl::run(&args)
}
