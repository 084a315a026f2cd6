//! `ctdb-config`: shows and validates `ctdb.conf`.
//!
//! Origin: `ctdb/conf/conf_tool.c`; output compared with 4.17; `docs/spec/admin-interface.md` 2.4.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use ringmaster_control::config::ctdb_conf::{self, Loaded, Strictness, Surroundings};
use ringmaster_control::config::finding::c_lines;
use ringmaster_control::config::options;
use ringmaster_control::config::{LogLevel, Paths};

use crate::cmdline::{Command, Options, Tool};
use crate::output::Output;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Dump,
    Get,
    Validate,
}

const TOOL: Tool<What> = Tool {
    name: "ctdb-config",
    options: Options::DebugAndPopt,
    commands: &[
        Command {
            id: What::Dump,
            name: "dump",
            args: "",
            help: "Dump configuration",
            args_min: 0,
            args_max: 0,
        },
        Command {
            id: What::Get,
            name: "get",
            args: "<section> <key>",
            help: "Get a config value",
            args_min: 2,
            args_max: 2,
        },
        Command {
            id: What::Validate,
            name: "validate",
            args: "",
            help: "Validate configuration file",
            args_min: 0,
            args_max: 0,
        },
    ],
    bad_args_status: EINVAL,
};

const ENOENT: u8 = 2;
const EINVAL: u8 = 22;

/// Runs the tool. `paths` and `read` are asked only when needed.
pub fn run(
    args: &[OsString],
    posixly_correct: bool,
    paths: impl FnOnce() -> Paths,
    read: impl FnOnce(&Paths) -> io::Result<Vec<u8>>,
    surroundings: impl FnOnce(&Paths) -> Box<dyn Surroundings>,
) -> Output {
    let invocation = match TOOL.parse(args, posixly_correct) {
        Ok(invocation) => invocation,
        Err(output) => return output,
    };
    let paths = paths();
    let mut output = Output::default();
    if let (What::Get, [section, key]) = (invocation.command, invocation.args.as_slice())
        && options::find(section.as_bytes(), key.as_bytes()).is_none()
    {
        let text = [
            b"Configuration option [",
            section.as_bytes(),
            b"] -> \"",
            key.as_bytes(),
            b"\" not defined",
        ];
        output.err(text.concat());
        return output.with_status(ENOENT);
    }
    let strictness = match invocation.command {
        What::Validate => Strictness::Strict,
        What::Dump | What::Get => Strictness::Lenient,
    };
    let config_file = paths.config_file();
    let failed = [b"Failed to load config file ", config_file.as_os_str().as_bytes()].concat();
    if invocation.log_level >= LogLevel::Notice {
        output.err([b"Reading config file ", config_file.as_os_str().as_bytes()].concat());
    }
    let text = match read(&paths) {
        Ok(text) => text,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && strictness == Strictness::Lenient =>
        {
            Vec::new()
        }
        Err(error) => {
            output.err(failed);
            let errno = error.raw_os_error().and_then(|errno| u8::try_from(errno).ok());
            return output.with_status(errno.unwrap_or(EINVAL));
        }
    };
    let loaded = ctdb_conf::load(&text, strictness, LogLevel::Error, &*surroundings(&paths));
    for line in c_lines(&loaded.findings, invocation.log_level) {
        output.err(line);
    }
    if loaded.refused {
        output.err(failed);
        return output.with_status(EINVAL);
    }
    show(invocation.command, &invocation.args, &loaded, &mut output);
    output
}

fn show(command: What, args: &[OsString], loaded: &Loaded, output: &mut Output) {
    match (command, args) {
        (What::Dump, _) => output.stdout.extend_from_slice(&loaded.table.dump()),
        (What::Get, [section, key]) => {
            let index = options::find(section.as_bytes(), key.as_bytes());
            let found = index.and_then(|index| loaded.table.iter().nth(index));
            if let Some((_, value, _)) = found {
                output.out(value.to_bytes());
            }
        }
        (What::Get | What::Validate, _) => {}
    }
}
