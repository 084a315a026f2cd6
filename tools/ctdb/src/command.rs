//! What the tool knows about one sub-command, and what a handler gives back.
//!
//! Role: the types of the command table (`table.rs`). Every other property of a command (its
//! usage line, its place in completions and manual pages, its argument check, whether it may be
//! watched) is derived from its row.
//! Invariants
//! - A handler runs only when its row allows the number of arguments and the options given.
//! - A [`Failure`] has been, or will be once, explained on standard error, exactly as C does it.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2, 1.4.

use std::ffi::OsString;
use std::fmt::Display;
use std::io;

use crate::session::Session;
use crate::tool::Tool;

/// Handler of a command that needs no daemon.
pub type LocalHandler = fn(&mut Tool<'_>, &[OsString]) -> Outcome;
/// Handler of a command that talks to the daemon.
pub type Handler = fn(&mut Session<'_>, &[OsString]) -> Outcome;

/// How a command runs, and what `-n` means to it.
#[derive(Clone, Copy)]
pub enum Run {
    /// Without a daemon; `-n` is refused.
    Local(LocalHandler),
    /// With the daemon of this node; `-n` may only name it.
    Own(Handler),
    /// With the daemon of any node.
    Any(Handler),
}

/// What a command is for.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Reports; `--json` prints these keys, and `--watch` repeats it.
    Report { json: &'static [Key] },
    /// Changes something. Neither `--json` nor `--watch` is accepted.
    Act,
}

/// One key of a command's JSON document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted path; `[]` stands for each element of a list, `*` for each key of a map.
    pub path: &'static str,
    /// Type as JSON names it, with `|null` where it may be absent.
    pub kind: &'static str,
    pub meaning: &'static str,
}

/// Shorthand for the lists of keys beside the reports.
#[must_use]
pub const fn key(path: &'static str, kind: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, meaning }
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arity {
    pub min: usize,
    /// `None`: any number; surplus ones are ignored.
    pub max: Option<usize>,
}

impl Arity {
    /// Whether `count` arguments are right.
    #[must_use]
    pub fn accepts(self, count: usize) -> bool {
        count >= self.min && self.max.is_none_or(|max| count <= max)
    }
}

/// One row of the command table.
#[derive(Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    /// As the usage text prints them.
    pub arguments: &'static str,
    /// As the usage text prints it.
    pub help: &'static str,
    /// For the manual page.
    pub about: &'static str,
    pub arity: Arity,
    pub effect: Effect,
    pub run: Run,
    /// In the usage text of the 4.17 tool. The others are shown to people only.
    pub classic: bool,
    /// Wrong arguments show the line of this command instead (an accident of C's).
    pub usage_of: Option<&'static str>,
    /// A wrong number of arguments prints the list of all commands (an accident of C's).
    pub misuse_lists_all: bool,
}

impl Command {
    /// A command that takes no arguments and changes something.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str, run: Run) -> Self {
        Self {
            name,
            arguments: "",
            help,
            about: "",
            arity: Arity { min: 0, max: Some(0) },
            effect: Effect::Act,
            run,
            classic: true,
            usage_of: None,
            misuse_lists_all: false,
        }
    }

    /// See [`Command::usage_of`].
    #[must_use]
    pub const fn usage_of(mut self, name: &'static str) -> Self {
        self.usage_of = Some(name);
        self
    }

    /// Takes between `min` and `max` arguments, written like this in the usage text.
    #[must_use]
    pub const fn arguments(mut self, text: &'static str, min: usize, max: usize) -> Self {
        self.arguments = text;
        self.arity = Arity { min, max: Some(max) };
        self
    }

    /// Takes `min` arguments or more.
    #[must_use]
    pub const fn arguments_from(mut self, text: &'static str, min: usize) -> Self {
        self.arguments = text;
        self.arity = Arity { min, max: None };
        self
    }

    /// Reports, in JSON with these keys.
    #[must_use]
    pub const fn reports(mut self, json: &'static [Key]) -> Self {
        self.effect = Effect::Report { json };
        self
    }

    /// Text of the manual page.
    #[must_use]
    pub const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    /// Not in the 4.17 tool.
    #[must_use]
    pub const fn newer(mut self) -> Self {
        self.classic = false;
        self
    }

    /// See [`Command::misuse_lists_all`].
    #[must_use]
    pub const fn misuse_lists_all(mut self) -> Self {
        self.misuse_lists_all = true;
        self
    }

    /// Whether the command reports.
    #[must_use]
    pub const fn is_report(&self) -> bool {
        matches!(self.effect, Effect::Report { .. })
    }
}

/// Exit status of a command that did its work, or why it did not.
pub type Outcome = Result<u8, Failure>;

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong arguments: print the command's usage on standard output.
    #[error("wrong arguments")]
    Usage,
    /// Everything has been said: exit with this status.
    #[error("exit status {0}")]
    Status(u8),
    /// Say this on standard error, then exit with `status`.
    #[error("{text}")]
    Message { status: u8, text: String },
    /// Standard output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// A message and the usual exit status, 1.
    #[must_use]
    pub fn new(text: impl Display) -> Self {
        Self::with_status(1, text)
    }

    /// A message and an exit status.
    #[must_use]
    pub fn with_status(status: u8, text: impl Display) -> Self {
        Self::Message { status, text: text.to_string() }
    }

    /// Wrong number in an argument: C says nothing and exits with EINVAL.
    pub const BAD_NUMBER: Self = Self::Status(22);

    /// Exit status of the C tool for a handler's return value: −1 becomes 1, the rest is cut to
    /// eight bits.
    #[must_use]
    pub fn status_of(code: i32) -> u8 {
        if code == -1 { 1 } else { code.to_le_bytes()[0] }
    }
}
