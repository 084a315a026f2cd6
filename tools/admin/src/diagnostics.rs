//! `ctdb_diagnostics`: gathers what is needed to judge a sick cluster, from all nodes.
//!
//! Role: compare configuration files and clocks across the nodes, show state and logs of each.
//! What is shown where: `sections.rs`; files: `files.rs`; the command line: `args.rs`.
//! Invariants
//! - Changes nothing on any node.
//! - A node that cannot be reached is named and left out; a program that is missing on a node is
//!   seen in the output and is no error.
//! - What was found wrong is said where it is found (`ERROR: …`) and once more at the end; the exit
//!   status is the number of such errors, at most 255.
//!
//! Origin: `docs/spec/admin-interface.md` 2.6. Only options, error lines and exit status are an
//! interface; the rest is for human eyes and in our own words.

mod args;
mod files;
mod sections;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};

use crate::output::{complain, say};
use args::Arguments;

const RULE: &str = "--------------------------------------------------------------------";
/// A clock that differs by more breaks Kerberos before it breaks the cluster.
const CLOCK_DRIFT_MAX_S: i64 = 30;
const ERROR_STATUS_MAX: usize = 255;

/// The whole program.
#[must_use]
pub fn run(args: &[OsString]) -> ExitCode {
    let arguments = match Arguments::parse(args) {
        Ok(arguments) => arguments,
        Err(refused) => {
            if let Some(reason) = refused.reason {
                complain(format!("ctdb_diagnostics: {reason}"));
            }
            complain(args::USAGE.trim_end());
            return ExitCode::FAILURE;
        }
    };
    let reach = if arguments.local { Reach::Local } else { Reach::with_ssh() };
    let (nodes, unreachable) = split_reachable(&reach, wanted_nodes(&arguments));
    let scratch = match tempfile::tempdir() {
        Ok(scratch) => scratch,
        Err(_) => {
            say("Unable to create a temporary directory\n");
            return ExitCode::FAILURE;
        }
    };
    let mut diagnosis = Diagnosis { arguments, reach, nodes, errors: Vec::new() };
    diagnosis.everything(&unreachable, scratch.path());
    let status = diagnosis.errors.len().min(ERROR_STATUS_MAX);
    ExitCode::from(u8::try_from(status).expect("at most 255"))
}

/// How commands get to the nodes.
enum Reach {
    /// `onnode`, with `EXTRA_SSH_OPTS` for sites whose ssh wrapper looks at it.
    Onnode { ssh_opts: OsString },
    /// This node only, without ssh.
    Local,
}

impl Reach {
    /// A node that is down must not hold everything up.
    fn with_ssh() -> Self {
        let mut ssh_opts = std::env::var_os("EXTRA_SSH_OPTS").unwrap_or_default();
        if !ssh_opts.to_string_lossy().contains("ConnectTimeout=") {
            ssh_opts.push(" -o ConnectTimeout=5");
        }
        Self::Onnode { ssh_opts }
    }

    fn command(&self, nodes: &str, command: &str) -> Command {
        let mut started = match self {
            Self::Onnode { ssh_opts } => {
                let mut started = Command::new("onnode");
                started.arg(nodes).arg(command).env("EXTRA_SSH_OPTS", ssh_opts);
                started
            }
            Self::Local => {
                let mut started = Command::new("sh");
                started.args(["-c", command]);
                started
            }
        };
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":/sbin:/usr/sbin:/usr/lpp/mmfs/bin");
        started.env("PATH", path).stdin(Stdio::null());
        started
    }

    fn succeeds(&self, node: &str, command: &str) -> bool {
        let mut started = self.command(node, command);
        let status = started.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// Both streams of the command, in one.
    fn output(&self, node: &str, command: &str) -> Vec<u8> {
        let output = self.command(node, &format!("{{ {command}; }} 2>&1")).output();
        output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default()
    }

    /// Lets the command write to our standard output, both streams.
    fn show(&self, nodes: &str, command: &str) {
        let mut started = self.command(nodes, command);
        let both = || io::stdout().as_fd().try_clone_to_owned().map(Stdio::from);
        if let (Ok(stdout), Ok(stderr)) = (both(), both()) {
            let status = started.stdout(stdout).stderr(stderr).status();
            if let Err(error) = status {
                say(format!("cannot run onnode: {}\n", crate::errno::text(&error)));
            }
        }
    }
}

fn wanted_nodes(arguments: &Arguments) -> Vec<String> {
    if arguments.local {
        return vec!["this node".to_owned()];
    }
    if let Some(nodes) = &arguments.nodes {
        return nodes.split([',', ' ']).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    }
    let listed = Command::new("ctdb").args(["listnodes", "-X"]).stderr(Stdio::inherit()).output();
    let text = listed.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|row| row.split('|').nth(1).map(str::to_owned))
        .collect()
}

fn split_reachable(reach: &Reach, nodes: Vec<String>) -> (Vec<String>, Vec<String>) {
    nodes.into_iter().partition(|node| reach.succeeds(node, "true"))
}

struct Diagnosis {
    arguments: Arguments,
    reach: Reach,
    nodes: Vec<String>,
    errors: Vec<String>,
}

impl Diagnosis {
    fn everything(&mut self, unreachable: &[String], scratch: &std::path::Path) {
        let nodes = self.nodes.join(",");
        say(format!(
            "{RULE}\nctdb_diagnostics: state of the cluster and of its nodes. Send all of this with a\n\
             report about the cluster or about Samba on it.\n{RULE}\n"
        ));
        self.date();
        say(format!("Diagnosis started on these nodes:\n{nodes}\n"));
        if !unreachable.is_empty() {
            let unreachable = unreachable.join(",");
            say(format!(
                "\nNOT RUNNING DIAGNOSTICS on these uncontactable nodes:\n{unreachable}\n"
            ));
        }
        say("\nFor reference, the nodes file of the current node:\n");
        Reach::Local.show("", &files::show_command("/etc/ctdb/nodes"));
        self.headline(&format!("Comparing critical configuration files on nodes {nodes}"));
        self.compare_files(scratch);
        self.headline("Checking for clock drift");
        self.compare_clocks();
        for section in sections::SECTIONS {
            self.headline(section.title);
            for item in section.items {
                self.item(item);
            }
        }
        self.date();
        say(format!("Diagnostics finished with {} errors\n", self.errors.len()));
        for (index, error) in self.errors.iter().enumerate() {
            say(format!(" ERROR[{}]: {error}\n", index + 1));
        }
    }

    fn date(&self) {
        Reach::Local.show("", "date");
    }

    fn headline(&self, title: &str) {
        say(format!("{RULE}\n{title}\n"));
    }

    fn error(&mut self, text: String) {
        say(format!("ERROR: {text}\n"));
        self.errors.push(text);
    }

    fn item(&self, item: &sections::Item) {
        if item.active_directory && self.arguments.no_ads {
            say(format!("\nSkipping \"{}\" as requested\n\n", item.command));
        } else {
            self.show_all(item.command);
        }
    }

    fn show_all(&self, command: &str) {
        let nodes = self.nodes.join(",");
        say(format!("running {command} on nodes {nodes}\n"));
        let command = format!("hostname; date; {{ {command}; }} 2>&1 | sed 's/^/  /'");
        self.reach.show(&nodes, &command);
    }

    fn compare_clocks(&mut self) {
        let seconds =
            |text: Vec<u8>| -> Option<i64> { String::from_utf8_lossy(&text).trim().parse().ok() };
        for node in self.nodes.clone() {
            // Before and after, so that a slow connection is not taken for a wrong clock.
            let before = seconds(Reach::Local.output("", "date +%s"));
            let there = seconds(self.reach.output(&node, "date +%s"));
            let after = seconds(Reach::Local.output("", "date +%s"));
            let (Some(before), Some(there), Some(after)) = (before, there, after) else {
                self.error(format!("time on node {node} is not known"));
                continue;
            };
            let drift = there - there.clamp(before, after);
            if drift.abs() > CLOCK_DRIFT_MAX_S {
                self.error(format!("time on node {node} differs by {drift} seconds"));
            }
        }
    }

    fn compare_files(&mut self, scratch: &std::path::Path) {
        for (path, required) in files::to_compare() {
            self.compare_file(&path, required, scratch);
        }
    }

    /// The first node's file is shown, the others are held against it.
    fn compare_file(&mut self, path: &str, required: bool, scratch: &std::path::Path) {
        let nodes = self.nodes.clone();
        let Some((first, others)) = nodes.split_first() else { return };
        if !self.reach.succeeds(first, &format!("[ -r {path} ]")) {
            self.error(if required {
                format!("{path} is missing on node {first}")
            } else {
                format!("Optional file {path} is not present on node {first}")
            });
            return;
        }
        say(format!("On node {first}:\n"));
        self.reach.show(first, &files::show_command(path));
        let reference = self.reach.output(first, &format!("cat {path}"));
        for node in others {
            say(format!("Testing for same config file {path} on node {node}\n"));
            let content = self.reach.output(node, &format!("cat {path}"));
            let options = files::DiffOptions {
                ignore_comments: self.arguments.ignore_comments,
                ignore_blanks: self.arguments.ignore_blanks,
            };
            match files::difference(&reference, &content, options, scratch) {
                Ok(None) => {}
                Ok(Some(difference)) => {
                    self.error(format!("File {path} is different on node {node}"));
                    say(difference);
                }
                Err(error) => say(format!("cannot compare: {}\n", crate::errno::text(&error))),
            }
        }
    }
}

/// For messages about words of the command line.
fn lossy(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}
