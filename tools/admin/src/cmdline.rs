//! Command lines of the form `TOOL [OPTIONS] COMMAND [ARGS]`, with the usage texts of C's tools.
//!
//! Role: find the command, or say why not, exactly as `ctdb-path`, `ctdb-config` and `ctdb-event`
//! do, including that the usage is printed twice when there is no command.
//! Origin: `ctdb/common/cmdline.c`; output compared with the three tools of 4.17;
//! `docs/spec/admin-interface.md` 2.3–2.5.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;

use ringmaster_control::config::LogLevel;

use crate::output::Output;
use crate::popt::{self, Opt, Parsed};

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command<Id> {
    pub id: Id,
    /// One or more words.
    pub name: &'static str,
    /// Its arguments as the usage shows them.
    pub args: &'static str,
    pub help: &'static str,
    pub args_min: usize,
    pub args_max: usize,
}

/// Which options a tool has beside `-h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Options {
    /// `-h` only.
    Help,
    /// `-h` and `-d LEVEL`.
    Debug,
    /// These and popt's own `-?` and `--usage`; here `-h` ends the run with status 0.
    DebugAndPopt,
}

/// A tool.
#[derive(Debug)]
pub struct Tool<Id: 'static> {
    pub name: &'static str,
    pub options: Options,
    pub commands: &'static [Command<Id>],
    /// Exit status when a command has too few or too many arguments.
    pub bad_args_status: u8,
}

/// A command line that names a command with the right number of arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation<Id> {
    pub command: Id,
    pub args: Vec<OsString>,
    pub log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OptionId {
    Help,
    Debug,
    PoptHelp,
    PoptUsage,
}

const OPTIONS: [Opt<OptionId>; 4] = [
    Opt { id: OptionId::Help, short: Some(b'h'), long: "help", takes_value: false },
    Opt { id: OptionId::Debug, short: Some(b'd'), long: "debug", takes_value: true },
    Opt { id: OptionId::PoptHelp, short: Some(b'?'), long: "help", takes_value: false },
    Opt { id: OptionId::PoptUsage, short: None, long: "usage", takes_value: false },
];

impl<Id: Copy> Tool<Id> {
    /// Understands `args` (without the program's name).
    ///
    /// # Errors
    /// What to print, and the exit status, when there is nothing to run.
    pub fn parse(
        &self,
        args: &[OsString],
        posixly_correct: bool,
    ) -> Result<Invocation<Id>, Output> {
        let options = match self.options {
            Options::Help => &OPTIONS[..1],
            Options::Debug => &OPTIONS[..2],
            Options::DebugAndPopt => &OPTIONS[..],
        };
        let mut help = false;
        let mut log_level = LogLevel::Error;
        let parsed = popt::parse(args, options, posixly_correct, |id, value| match id {
            OptionId::Debug => {
                log_level = LogLevel::parse(value.as_bytes()).unwrap_or(LogLevel::Error);
                ControlFlow::Continue(())
            }
            OptionId::Help if self.options != Options::DebugAndPopt => {
                help = true;
                ControlFlow::Continue(())
            }
            OptionId::Help | OptionId::PoptUsage => ControlFlow::Break(self.brief() + "\n"),
            OptionId::PoptHelp => ControlFlow::Break(self.popt_help()),
        });
        let words = match parsed {
            Ok(Parsed::Words(words)) => words,
            Ok(Parsed::Stopped(text)) => {
                return Err(Output { stdout: text.into_bytes(), ..Output::default() });
            }
            Err(bad) => {
                let mut output = self.usage_twice();
                let text = [b"Invalid option ", bad.word.as_bytes(), b": ", bad.reason.as_bytes()];
                output.err(text.concat());
                return Err(output);
            }
        };
        let Some((command, args)) = self.find(&words) else { return Err(self.usage_twice()) };
        if help {
            let stdout = self.command_usage(command) + &self.usage();
            return Err(Output { stdout: stdout.into_bytes(), stderr: Vec::new(), status: 1 });
        }
        if !(command.args_min..=command.args_max).contains(&args.len()) {
            return Err(self.bad_args(command));
        }
        Ok(Invocation { command: command.id, args: args.to_vec(), log_level })
    }

    /// The first command whose words `words` begins with, and what follows.
    fn find<'w>(&self, words: &'w [OsString]) -> Option<(&'static Command<Id>, &'w [OsString])> {
        self.commands.iter().find_map(|command| {
            let name: Vec<&OsStr> = command.name.split(' ').map(OsStr::new).collect();
            let start = words.get(..name.len())?;
            (start == name).then(|| (command, &words[name.len()..]))
        })
    }

    fn bad_args(&self, command: &Command<Id>) -> Output {
        Output {
            stdout: self.command_usage(command).into_bytes(),
            stderr: Vec::new(),
            status: self.bad_args_status,
        }
    }

    /// C prints it once where the parse fails and once more in the tool.
    fn usage_twice(&self) -> Output {
        Output { stdout: self.usage().repeat(2).into_bytes(), stderr: Vec::new(), status: 1 }
    }

    fn usage(&self) -> String {
        let mut text = format!("Usage: {} [<options>] <command> [<args>]\n", self.name);
        text += self.option_help();
        text += "\nCommands:\n";
        let width = self.commands.iter().map(command_width).max().unwrap_or(0);
        for command in self.commands {
            text += &command_line(command, width);
        }
        text
    }

    fn command_usage(&self, command: &Command<Id>) -> String {
        let line = command_line(command, command_width(command));
        format!("{} <command> [<args>]\n\n{line}", self.brief())
    }

    /// popt's one-paragraph usage without the line end.
    fn brief(&self) -> String {
        let options = match self.options {
            Options::Help => "[-h] [-h|--help]",
            Options::Debug => {
                "[-h] [-h|--help]\n        [-d|--debug=ERROR|WARNING|NOTICE|INFO|DEBUG]"
            }
            Options::DebugAndPopt => {
                "[-h?] [-h|--help] [-?|--help] [--usage]\n        \
                 [-d|--debug=ERROR|WARNING|NOTICE|INFO|DEBUG]"
            }
        };
        format!("Usage: {} {options}", self.name)
    }

    fn popt_help(&self) -> String {
        format!("Usage: {} [OPTION...]\n{}", self.name, self.option_help())
    }

    const fn option_help(&self) -> &'static str {
        match self.options {
            Options::Help => "\nHelp Options:\n  -h, --help     Show this help message\n",
            Options::Debug => {
                "
Help Options:
  -h, --help                                      Show this help message

Options:
  -d, --debug=ERROR|WARNING|NOTICE|INFO|DEBUG     debug level
"
            }
            Options::DebugAndPopt => {
                "
Help Options:
  -h, --help                                      Show this help message

Options:
  -d, --debug=ERROR|WARNING|NOTICE|INFO|DEBUG     debug level

Help options:
  -?, --help                                      Show this help message
      --usage                                     Display brief usage message
"
            }
        }
    }
}

/// Width of a command with its arguments; the blank between them counts even without arguments.
const fn command_width<Id>(command: &Command<Id>) -> usize {
    command.name.len() + 1 + command.args.len()
}

fn command_line<Id>(command: &Command<Id>, width: usize) -> String {
    let left = format!("{} {}", command.name, command.args);
    format!("  {left:width$}     {}\n", command.help)
}
/// The number at the start of a word, as `atoi` reads it before it is cut down to 32 bits: blanks, a
/// sign, digits; 0 without digits; ends at the limits of 64 bits.
pub fn leading_number(text: &OsStr) -> i64 {
    let text = text.as_bytes().trim_ascii_start();
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let mut value: i64 = 0;
    for digit in text.iter().take_while(|b| b.is_ascii_digit()) {
        value = value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
    }
    if negative { -value } else { value }
}
