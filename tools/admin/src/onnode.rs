//! `onnode`: runs a command on nodes of the cluster through ssh.
//!
//! Role: the program from command line to exit status. Options: `args.rs`; which nodes are meant:
//! `nodespec.rs` (pure); starting and collecting: `jobs.rs`.
//! Invariants
//! - Nothing is started before every node of the specification is known.
//! - The exit status is the last one that is not 0, in the order of the nodes.
//!
//! Origin: the shell script `ctdb/tools/onnode` and its manual, compared by running both;
//! `docs/spec/admin-interface.md` 2.1. Differences: file names are not expanded in node
//! specifications; `onnode.conf` is sourced for every remote command instead of once, and can
//! change only how that command is started; a command that does not exist is reported in our words
//! (status 127 as ever); a signal reaches the remote commands themselves, not only shells around
//! them.

mod args;
mod jobs;
mod nodespec;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::output::complain;
use args::{Arguments, Refused};
use nodespec::{Cluster, SpecError};

const USAGE: &str = "\
Usage: onnode [OPTION] ... <NODES> <COMMAND> ...
  options:
    -c          Run in current working directory on specified nodes.
    -f          Specify nodes file, overriding default.
    -i          Keep standard input open - the default is to close it.
    -n          Allow nodes to be specified by name.
    -p          Run command in parallel on specified nodes.
    -P          Push given files to nodes instead of running commands.
    -q          Do not print node addresses (overrides -v).
    -v          Print node address even for a single node.
  <NODES>       \"all\", \"any\", \"ok\" (or \"healthy\"), \"con\" (or \"connected\") ; or
                a node number (0 base); or
                a hostname (if -n is specified); or
                list (comma separated) of <NODES>; or
                range (hyphen separated) of node numbers.
";

/// The whole program; `args` begins with the program's name.
#[must_use]
pub fn run(args: &[OsString]) -> ExitCode {
    let (program, args) = match args.split_first() {
        Some((program, args)) => (program.clone(), args),
        None => (OsString::from("onnode"), args),
    };
    let prog = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
    let mut arguments = match Arguments::parse(args) {
        Ok(arguments) => arguments,
        Err(refused) => {
            if let Refused::BadOption { reason, letter } = refused {
                let letter = char::from(letter);
                complain(format!("{}: {reason} -- {letter}", program.to_string_lossy()));
            }
            complain(USAGE.trim_end());
            return ExitCode::FAILURE;
        }
    };
    let base: PathBuf = match std::env::var_os("CTDB_BASE") {
        Some(base) if !base.is_empty() => base.into(),
        _ => "/etc/ctdb".into(),
    };
    if arguments.current_directory && !arguments.push {
        let mut command = OsString::from("cd ");
        command.push(logical_directory());
        command.push(" && ");
        command.push(&arguments.command);
        arguments.command = command;
    }
    let nodes = match find_nodes(&arguments, &base) {
        Ok(nodes) => nodes,
        Err(error) => return report(&prog, &error),
    };
    jobs::run(&arguments, &nodes, &jobs::Remote::new(&arguments, &base))
}

fn find_nodes(arguments: &Arguments, base: &Path) -> Result<nodespec::Nodes, SpecError> {
    let file = nodes_file(arguments.nodes_file.as_deref(), base);
    let text = std::fs::read(&file).map_err(|_| SpecError::NodesFile(file))?;
    nodespec::resolve(
        arguments.nodes.as_bytes(),
        &text,
        arguments.names,
        &mut RealCluster { status: None },
    )
}

/// `-f` names a file; one that is not there and is relative is looked up beside the others.
fn nodes_file(option: Option<&OsStr>, base: &Path) -> PathBuf {
    let in_base = |name: &OsStr| {
        let mut path = base.as_os_str().to_owned();
        path.push("/");
        path.push(name);
        PathBuf::from(path)
    };
    match option {
        Some(file) if !file.is_empty() => {
            let path = PathBuf::from(file);
            if path.exists() || path.is_absolute() { path } else { in_base(file) }
        }
        _ => in_base(OsStr::new("nodes")),
    }
}

fn report(prog: &str, error: &SpecError) -> ExitCode {
    let mut stderr = std::io::stderr();
    let text = match error {
        SpecError::Invalid => [b"Invalid <nodespec>\n\n", USAGE.as_bytes()].concat(),
        SpecError::NoSuchNode(number) => {
            let text = [prog.as_bytes(), b": \"node ", number, b"\" does not exist\n"];
            text.concat()
        }
        SpecError::NodesFile(path) => {
            let path = path.as_os_str().as_bytes();
            [prog.as_bytes(), b": unable to open nodes file  \"", path, b"\"\n"].concat()
        }
        SpecError::NoStatus(output) => {
            let what = b": unable to get status of CTDB nodes\n";
            [prog.as_bytes(), what, output, b"\n"].concat()
        }
        SpecError::NoneAvailable => Vec::new(),
    };
    let _ = stderr.write_all(&text);
    ExitCode::FAILURE
}

/// `$PWD` when it still names the working directory, as shells have it.
fn logical_directory() -> OsString {
    use std::os::unix::fs::MetadataExt;
    let real = std::env::current_dir().unwrap_or_default();
    let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    match std::env::var_os("PWD") {
        Some(logical)
            if Path::new(&logical).is_absolute()
                && id(Path::new(&logical)).is_some()
                && id(Path::new(&logical)) == id(&real) =>
        {
            logical
        }
        _ => real.into(),
    }
}

/// Asks the `ctdb` found in `PATH`.
struct RealCluster {
    status: Option<Vec<u8>>,
}

impl Cluster for RealCluster {
    fn status(&mut self) -> Result<Vec<u8>, Vec<u8>> {
        if let Some(status) = &self.status {
            return Ok(status.clone());
        }
        let (output, good) = merged_output(Command::new("ctdb").args(["-X", "status"]));
        if !good {
            return Err(output);
        }
        self.status = Some(output.clone());
        Ok(output)
    }

    fn pnns(&mut self) -> Vec<u8> {
        match std::env::current_exe() {
            Ok(onnode) => merged_output(Command::new(onnode).args(["-pq", "all", "ctdb", "pnn"])).0,
            Err(_) => Vec::new(),
        }
    }
}

/// Both streams in one, line ends at the end cut off, and whether it ended well.
fn merged_output(command: &mut Command) -> (Vec<u8>, bool) {
    let mut run = || -> std::io::Result<(Vec<u8>, bool)> {
        let (mut reader, writer) = std::io::pipe()?;
        let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
        // The parent's ends of the pipe live in `command`; they must go for the pipe to end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut output = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut output)?;
        Ok((output, child.wait()?.success()))
    };
    let (mut output, good) = run().unwrap_or_else(|error| {
        (format!("ctdb: {}", crate::errno::text(&error)).into_bytes(), false)
    });
    let end = output.iter().rposition(|&b| b != b'\n').map_or(0, |last| last + 1);
    output.truncate(end);
    (output, good)
}
