//! Texts made from the tables: the manual page and the JSON reference.
//!
//! Role: pure; `ctdb-gen` writes them to files that are committed, so that packages need no tool.

use std::fmt::Write;

use clap_mangen::roff::{Roff, bold, italic, roman};

use crate::command::{Command, Effect, Key};
use crate::options::{OPTIONS, OptionSpec};
use crate::table::COMMANDS;

/// `ctdb.1`.
#[must_use]
pub fn manual_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["ctdb", "1", "", "Ringmaster", "CTDB"]);
    page.control("SH", ["NAME"]);
    page.text([roman("ctdb - manage a cluster of CTDB nodes")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([
        bold("ctdb"),
        roman(" ["),
        italic("OPTION"),
        roman("...] "),
        italic("COMMAND"),
        roman(" ["),
        italic("ARGUMENT"),
        roman("...]"),
    ]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman("Shows and changes the state of the daemons of a cluster. Options are recognised anywhere on the command line; \"--\" ends them. Human readable output is the same as that of Samba's tool; --json prints a document with stable keys for every reporting command.")]);
    page.control("SH", ["OPTIONS"]);
    for spec in &OPTIONS {
        option(&mut page, spec);
    }
    page.control("SH", ["COMMANDS"]);
    for command in COMMANDS {
        page.control("TP", []);
        page.text([bold(command.name), roman(" "), italic(command.arguments)]);
        page.text([roman(command.about)]);
    }
    page.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUSES {
        page.control("TP", []);
        page.text([bold(*status)]);
        page.text([roman(*meaning)]);
    }
    page.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in ENVIRONMENT {
        page.control("TP", []);
        page.text([bold(*name)]);
        page.text([roman(*meaning)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("ctdbd"),
        roman("(1), "),
        bold("onnode"),
        roman("(1), "),
        bold("ctdb.conf"),
        roman("(5)"),
    ]);
    page.to_roff()
}

const EXIT_STATUSES: &[(&str, &str)] = &[
    ("0", "Success, or nothing to do."),
    ("1", "Failure; the daemon cannot be reached; wrong usage."),
    ("22", "An argument is no number where one is needed."),
    ("98", "checktcpport: something is bound to the port."),
    ("110", "A request was not answered in time (-t)."),
    (
        "other",
        "nodestatus: the flags of the nodes as a bit mask. event, natgw, lvs: the status of the program behind the command.",
    ),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("CTDB_TIMEOUT", "Limit of the whole run in seconds, when -T is not given."),
    ("CTDB_SOCKET", "Path of the daemon's socket."),
    ("CTDB_TEST_MODE", "When set: every path is below the directory CTDB_BASE."),
    ("NO_COLOR", "When set and not empty: no colours, unless --color=always."),
];

fn option(page: &mut Roff, spec: &OptionSpec) {
    let names: Vec<String> =
        [spec.short.map(|short| format!("-{short}")), spec.long.map(|long| format!("--{long}"))]
            .into_iter()
            .flatten()
            .collect();
    page.control("TP", []);
    let separator = if spec.placeholder.is_empty() { "" } else { " " };
    page.text([bold(names.join(", ")), roman(separator), italic(spec.placeholder)]);
    page.text([roman(spec.about)]);
}

/// `json.md`: every key of every document.
#[must_use]
pub fn json_reference() -> String {
    let mut text = String::from(
        "# JSON output of `ctdb`\n\n\
         Generated from the command table: do not edit.\n\n\
         `ctdb --json COMMAND` prints one document. Keys are stable: they are added, never renamed or \
         removed. Errors are text on standard error, and the exit status is that of the command without \
         `--json`. `version` and `status` have the keys of Samba's own `--json`, in its order. A document \
         has no newline behind it, unless standard output is a terminal; with `--watch` each document is \
         one line.\n\n\
         In a path, `[]` stands for each element of a list and `*` for each key of a map. `|null`: the key \
         is there, its value may be missing.\n",
    );
    for command in COMMANDS {
        if let Effect::Report { json } = command.effect {
            keys(&mut text, command, json);
        }
    }
    text
}

fn keys(text: &mut String, command: &Command, keys: &[Key]) {
    let blank = if command.arguments.is_empty() { "" } else { " " };
    let heading = format!("\n## `{}{blank}{}`\n\n", command.name, command.arguments);
    text.push_str(&heading);
    text.push_str("| Path | Type | Meaning |\n|---|---|---|\n");
    for key in keys {
        let kind = key.kind.replace('|', "\\|");
        writeln!(text, "| `{}` | {kind} | {} |", key.path, key.meaning)
            .expect("writing to memory does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_command_and_option() {
        let page = manual_page();
        for command in COMMANDS {
            // roff writes a hyphen in a word with a backslash.
            let name = command.name.replace('-', "\\-");
            assert!(page.contains(&format!("\\fB{name}\\fR")), "{}", command.name);
        }
        assert!(page.contains("maxruntime"));
    }

    #[test]
    fn the_json_reference_has_every_reporting_command() {
        let reference = json_reference();
        for command in COMMANDS.iter().filter(|command| command.is_report()) {
            assert!(reference.contains(&format!("\n## `{}", command.name)), "{}", command.name);
        }
        assert!(!reference.contains("## `ban"));
    }
}
