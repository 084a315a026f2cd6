//! `ctdb-path`, see `ringmaster_admin::path_tool`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{environment, path_tool};

fn main() -> ExitCode {
    let args = environment::args();
    path_tool::run(&args, environment::posixly_correct(), environment::paths).deliver()
}
