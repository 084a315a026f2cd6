//! Usage texts.
//!
//! Role: the option table and the command table as the C tool prints them; pure.
//! Invariant: what goes to anything but a terminal holds exactly the options and commands of the
//! 4.17 tool; people also see the newer ones.
//!
//! Origin: `docs/spec/admin-interface.md` 1.1; captured from the 4.17 tool.

use crate::command::Command;
use crate::options::{OPTIONS, OptionSpec, Origin};
use crate::page::Page;
use crate::table::{self, COMMANDS};

/// `--usage`, as popt breaks it into lines.
const SYNOPSIS: &str = "\
Usage: [-?YXv] [-?|--help] [--usage] [-d|--debug=STRING]
        [-t|--timelimit=INT] [-n|--node=INT] [-Y] [-x|--separator=CHAR]
        [-X] [-v|--verbose] [-T|--maxruntime=INT]
";

/// `--usage`.
pub fn synopsis(page: &mut Page) {
    page.put(SYNOPSIS);
}

/// `--help`; `people`: the reader is a person.
pub fn options(page: &mut Page, people: bool) {
    page.line("Usage: [OPTION...]");
    let is_help = |spec: &OptionSpec| matches!(spec.long, Some("help" | "usage"));
    for spec in OPTIONS.iter().filter(|spec| spec.origin == Origin::Classic && !is_help(spec)) {
        option(page, spec);
    }
    if people {
        page.line("\nNewer options:");
        for spec in OPTIONS.iter().filter(|spec| spec.origin != Origin::Classic) {
            option(page, spec);
        }
    }
    page.line("\nHelp options:");
    for spec in OPTIONS.iter().filter(|spec| is_help(spec)) {
        option(page, spec);
    }
}

fn option(page: &mut Page, spec: &OptionSpec) {
    let value =
        if spec.placeholder.is_empty() { String::new() } else { format!("={}", spec.placeholder) };
    let names = match (spec.short, spec.long) {
        (Some(short), Some(long)) => format!("-{short}, --{long}{value}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("    --{long}{value}"),
        (None, None) => value,
    };
    page.line(format_args!("  {names:<25}{}", spec.help));
}

/// The tool without a command: all options, all commands.
pub fn everything(page: &mut Page, people: bool) {
    options(page, people);
    page.line("\nCommands:");
    for command in COMMANDS.iter().filter(|command| command.classic || people) {
        line(page, command);
    }
}

/// A command with wrong arguments.
pub fn command(page: &mut Page, command: &Command) {
    synopsis(page);
    page.line("\nCommands:");
    line(page, command.usage_of.and_then(table::find).unwrap_or(command));
}

fn line(page: &mut Page, command: &Command) {
    page.line(format_args!("  {:<15} {:<27}  {}", command.name, command.arguments, command.help));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::find;

    fn page() -> Page {
        Page::new("|", false)
    }

    fn text(page: &Page) -> &str {
        std::str::from_utf8(page.as_bytes()).unwrap()
    }

    #[test]
    fn scripts_see_the_help_of_the_4_17_tool() {
        let mut help = page();
        options(&mut help, false);
        let expected = "\
Usage: [OPTION...]
  -d, --debug=STRING       debug level
  -t, --timelimit=INT      timelimit (in seconds)
  -n, --node=INT           node specification - integer
  -Y                       enable machine readable output
  -x, --separator=CHAR     specify separator for machine readable output
  -X                       enable machine parsable output with separator |
  -v, --verbose            enable verbose output
  -T, --maxruntime=INT     die if runtime exceeds this limit (in seconds)

Help options:
  -?, --help               Show this help message
      --usage              Display brief usage message
";
        assert_eq!(text(&help), expected);
    }

    #[test]
    fn people_also_see_what_is_newer() {
        let (mut scripts, mut people) = (page(), page());
        everything(&mut scripts, false);
        everything(&mut people, true);
        assert!(!text(&scripts).contains("--json") && !text(&scripts).contains("pushrecord"));
        assert!(text(&people).contains("\n  -j, --json               enable JSON output\n"));
        assert!(text(&people).contains("\n  pushrecord      <dbname|dbid> <key> <value>"));
    }

    #[test]
    fn wrong_arguments_show_the_line_of_the_command() {
        let mut usage = page();
        command(&mut usage, find("setifacelink").unwrap());
        let expected = "\
Usage: [-?YXv] [-?|--help] [--usage] [-d|--debug=STRING]
        [-t|--timelimit=INT] [-n|--node=INT] [-Y] [-x|--separator=CHAR]
        [-X] [-v|--verbose] [-T|--maxruntime=INT]

Commands:
  setifacelink    <iface> up|down              set interface link status
";
        assert_eq!(text(&usage), expected);
    }
}
