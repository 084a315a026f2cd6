//! Starts the remote commands, one after the other or all at once, and collects their statuses.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use super::args::Arguments;
use super::nodespec::Nodes;
use crate::output::complain;
use crate::signals::{Forwarder, Register};

/// Sources the administrator's file, which may set `ONNODE_SSH` to a function of its own.
const SOURCING: &str = "conf=$1 opts=$2 node=$3 command=$4
. \"$conf\"
[ -n \"$ONNODE_SSH\" ] || ONNODE_SSH=ssh
$ONNODE_SSH $opts \"$node\" \"$command\"";

/// How a node is reached.
pub(super) enum Remote {
    /// A program and its first arguments.
    Program(Vec<OsString>),
    /// `onnode.conf` exists; the second is `-n` or empty.
    Sourced { conf: PathBuf, opts: &'static str },
    /// `-P`: copy files; what `RSYNC_RSH` shall be.
    Push { shell: Option<OsString> },
}

impl Remote {
    pub(super) fn new(arguments: &Arguments, base: &Path) -> Self {
        let ssh = std::env::var_os("ONNODE_SSH").filter(|ssh| !ssh.is_empty());
        if arguments.push {
            return Self::Push { shell: ssh };
        }
        let opts = if arguments.parallel || !arguments.stdin { "-n" } else { "" };
        let mut conf = base.as_os_str().to_owned();
        conf.push("/onnode.conf");
        if std::fs::File::open(&conf).is_ok() {
            return Self::Sourced { conf: conf.into(), opts };
        }
        let ssh = ssh.unwrap_or_else(|| "ssh".into());
        let mut words: Vec<OsString> = split(ssh.as_bytes());
        if !opts.is_empty() {
            words.push(opts.into());
        }
        Self::Program(words)
    }

    /// The commands that do the work for one node, each with a line to print before it.
    fn commands(&self, host: &[u8], arguments: &Arguments) -> Vec<(Option<Vec<u8>>, Command)> {
        let host_word = OsStr::from_bytes(host);
        match self {
            Self::Program(words) => {
                let Some((program, first)) = words.split_first() else { return Vec::new() };
                let mut command = Command::new(program);
                command.args(first).arg(host_word).arg(&arguments.command);
                vec![(None, command)]
            }
            Self::Sourced { conf, opts } => {
                let mut command = Command::new("bash");
                command.args(["-c", SOURCING, "onnode"]).arg(conf).arg(opts);
                command.arg(host_word).arg(&arguments.command);
                vec![(None, command)]
            }
            Self::Push { shell } => split(arguments.command.as_bytes())
                .into_iter()
                .map(|file| {
                    let mut source = OsString::new();
                    if !file.as_bytes().starts_with(b"/") {
                        source.push(super::logical_directory());
                        source.push("/");
                    }
                    source.push(&file);
                    let mut target = OsString::from("[");
                    target.push(host_word);
                    target.push("]:");
                    target.push(&source);
                    let mut command = Command::new("rsync");
                    command.arg(source).arg(target);
                    if let Some(shell) = shell {
                        command.env("RSYNC_RSH", shell);
                    }
                    let announcement = [b"Pushing ", file.as_bytes(), b"\n"].concat();
                    (Some(announcement), command)
                })
                .collect(),
        }
    }
}

/// The shell's word splitting.
fn split(text: &[u8]) -> Vec<OsString> {
    text.split(|b| matches!(b, b' ' | b'\t' | b'\n'))
        .filter(|word| !word.is_empty())
        .map(|word| OsStr::from_bytes(word).to_owned())
        .collect()
}

/// Runs everything.
pub(super) fn run(arguments: &Arguments, nodes: &Nodes, remote: &Remote) -> ExitCode {
    let verbose = !arguments.quiet && (arguments.verbose || nodes.several);
    // From here on INT and TERM end the remote commands, not this program.
    let forwarder = Forwarder::install();
    let statuses: Vec<u8> = if arguments.parallel {
        let running = forwarder.as_ref().map(Forwarder::register);
        std::thread::scope(|scope| {
            let jobs: Vec<_> = nodes
                .hosts
                .iter()
                .map(|host| {
                    let running = running.clone();
                    scope.spawn(move || parallel(host, arguments, remote, verbose, running))
                })
                .collect();
            jobs.into_iter().map(|job| job.join().unwrap_or(1)).collect()
        })
    } else {
        nodes.hosts.iter().map(|host| sequential(host, arguments, remote, verbose)).collect()
    };
    let caught = forwarder.as_ref().and_then(Forwarder::caught).filter(|_| arguments.parallel);
    let last = statuses.into_iter().rev().find(|&status| status != 0);
    ExitCode::from(last.or(caught.map(|signal| 128 | signal)).unwrap_or(0))
}

fn sequential(host: &[u8], arguments: &Arguments, remote: &Remote, verbose: bool) -> u8 {
    if verbose {
        let _ = io::stderr().write_all(&[b"\n>> NODE: ", host, b" <<\n"].concat());
    }
    let mut last = 0;
    for (announcement, mut command) in remote.commands(host, arguments) {
        if let (Some(text), true) = (announcement, verbose) {
            print_whole(&text);
        }
        last = match command.status() {
            Ok(status) => shell_status(status),
            Err(error) => not_started(&command, &error),
        };
    }
    last
}

fn parallel(
    host: &[u8],
    arguments: &Arguments,
    remote: &Remote,
    verbose: bool,
    running: Option<Register>,
) -> u8 {
    let prefix = [b"[", host, b"] "].concat();
    let mut last = 0;
    for (announcement, mut command) in remote.commands(host, arguments) {
        command.stdin(Stdio::null());
        let outcome = if verbose {
            if let Some(text) = announcement {
                print_whole(&[prefix.as_slice(), &text].concat());
            }
            with_prefix(&mut command, &prefix, running.as_ref())
        } else {
            command.spawn().and_then(|mut child| wait(&mut child, running.as_ref()))
        };
        last = match outcome {
            Ok(status) => shell_status(status),
            Err(error) => not_started(&command, &error),
        };
    }
    last
}

fn wait(child: &mut std::process::Child, running: Option<&Register>) -> io::Result<ExitStatus> {
    match running {
        Some(running) => running.wait(child),
        None => child.wait(),
    }
}

/// Both streams of the command, line by line, each with the node's address before it.
fn with_prefix(
    command: &mut Command,
    prefix: &[u8],
    running: Option<&Register>,
) -> io::Result<ExitStatus> {
    let (reader, writer) = io::pipe()?;
    let mut child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // The ends kept in `command` would hold the pipe open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = BufReader::new(reader);
            let mut line = prefix.to_vec();
            while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
                print_whole(&line);
                line.truncate(prefix.len());
            }
        });
        wait(&mut child, running)
    })
}

/// One line at once, so that lines of several nodes do not mix.
fn print_whole(line: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(line).and_then(|()| stdout.flush());
}

/// As `$?` has it.
fn shell_status(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 | signal));
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1)
}

fn not_started(command: &Command, error: &io::Error) -> u8 {
    let program = Path::new(command.get_program());
    match error.kind() {
        io::ErrorKind::NotFound if program.components().count() == 1 => {
            complain(format!("onnode: {}: command not found", program.display()));
            127
        }
        kind => {
            complain(format!("onnode: {}: {}", program.display(), crate::errno::text(error)));
            if kind == io::ErrorKind::NotFound { 127 } else { 126 }
        }
    }
}
