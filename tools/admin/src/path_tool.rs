//! `ctdb-path`: prints where a file or directory of CTDB is.
//!
//! Origin: `ctdb/common/path_tool.c`; `docs/spec/admin-interface.md` 2.5.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use ringmaster_control::config::Paths;

use crate::cmdline::{Command, Options, Tool};
use crate::output::Output;

#[derive(Clone, Copy, Debug)]
enum What {
    Config,
    Pidfile,
    Socket,
    DataFile,
    DataDir,
    EtcFile,
    EtcDir,
    RunFile,
    RunDir,
    VarFile,
    VarDir,
}

const fn command(
    id: What,
    name: &'static str,
    args: &'static str,
    help: &'static str,
) -> Command<What> {
    let count = if args.is_empty() { 0 } else { 1 };
    Command { id, name, args, help, args_min: count, args_max: count }
}

const TOOL: Tool<What> = Tool {
    name: "ctdb-path",
    options: Options::Help,
    commands: &[
        command(What::Config, "config", "", "Get path of CTDB config file"),
        command(What::Pidfile, "pidfile", "<daemon>", "Get path of CTDB daemon pidfile"),
        command(What::Socket, "socket", "<daemon>", "Get path of CTDB daemon socket"),
        command(What::DataFile, "datadir append", "<path>", "Get path relative to CTDB DATADIR"),
        command(What::DataDir, "datadir", "", "Get path of CTDB DATADIR"),
        command(What::EtcFile, "etcdir append", "<path>", "Get path relative to CTDB ETCDIR"),
        command(What::EtcDir, "etcdir", "", "Get path of CTDB ETCDIR"),
        command(What::RunFile, "rundir append", "<path>", "Get path relative to CTDB RUNDIR"),
        command(What::RunDir, "rundir", "", "Get path of CTDB RUNDIR"),
        command(What::VarFile, "vardir append", "<path>", "Get path relative to CTDB VARDIR"),
        command(What::VarDir, "vardir", "", "Get path of CTDB VARDIR"),
    ],
    bad_args_status: 22,
};

/// Runs the tool. `paths` is asked only when a path is needed.
pub fn run(args: &[OsString], posixly_correct: bool, paths: impl FnOnce() -> Paths) -> Output {
    let invocation = match TOOL.parse(args, posixly_correct) {
        Ok(invocation) => invocation,
        Err(output) => return output,
    };
    let paths = paths();
    let arg = invocation.args.first().cloned().unwrap_or_default();
    let path = match invocation.command {
        What::Config => paths.config_file(),
        What::Pidfile => paths.pidfile(&arg),
        What::Socket => paths.socket(&arg),
        What::DataFile => paths.data_file(arg),
        What::DataDir => paths.data_dir(),
        What::EtcFile => paths.etc_file(arg),
        What::EtcDir => paths.etc_dir(),
        What::RunFile => paths.run_file(arg),
        What::RunDir => paths.run_dir(),
        What::VarFile => paths.var_file(arg),
        What::VarDir => paths.var_dir(),
    };
    let mut output = Output::default();
    output.out(path.as_os_str().as_bytes());
    output
}
