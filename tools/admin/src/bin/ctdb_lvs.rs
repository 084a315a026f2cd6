//! `ctdb_lvs`, see `ringmaster_admin::groups`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use ringmaster_admin::{
    environment,
    groups::{self, Group},
};

fn main() -> ExitCode {
    let program = std::env::args_os().next().unwrap_or_default();
    groups::run(Group::Lvs, &program, &environment::args()).deliver()
}
