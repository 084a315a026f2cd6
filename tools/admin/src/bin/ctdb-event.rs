//! `ctdb-event`, see `ringmaster_admin::event_tool`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{environment, event_tool};

fn main() -> ExitCode {
    let args = environment::args();
    event_tool::run(&args, environment::posixly_correct(), environment::paths).deliver()
}
