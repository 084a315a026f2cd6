//! `ctdb`: see the library.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    ringmaster_ctdb::sys::end_on_broken_pipe();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    ringmaster_ctdb::run::run(&arguments).into()
}
