//! `setdebug`, `getdebug`, `dumpmemory`, `rddumpmemory`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.9, tried with the 4.17 tool.

use std::ffi::OsString;

use ringmaster_protocol::control::kinds;
use ringmaster_protocol::process::{DebugLevel, SrvidMessage};
use ringmaster_protocol::{Destination, Encode, Pnn, Srvid};
use serde::Serialize;

use crate::arguments::{atoi, text};
use crate::command::{Failure, Key, Outcome, key};
use crate::output::Report;
use crate::page::Page;
use crate::session::Session;

/// Names, and the number that C sends for each.
const LEVELS: [(&str, i32); 5] =
    [("ERROR", 0), ("WARNING", 1), ("NOTICE", 3), ("INFO", 5), ("DEBUG", 10)];

/// Keys of `getdebug`.
pub const GETDEBUG: &[Key] = &[
    key("level", "string", "ERROR, WARNING, NOTICE, INFO or DEBUG"),
    key("level_raw", "number", "the daemon's number for it, 0 to 10"),
];
/// Keys of `dumpmemory`.
pub const DUMPMEMORY: &[Key] = &[key("report", "string", "the daemon's own report, for people")];
/// Keys of `rddumpmemory`.
pub const RDDUMPMEMORY: &[Key] = DUMPMEMORY;

#[derive(Clone, Debug, Serialize)]
struct Level {
    level: &'static str,
    level_raw: i32,
}

impl Report for Level {
    fn human(&self, page: &mut Page) {
        page.line(self.level);
    }
}

#[derive(Clone, Debug, Serialize)]
struct Memory {
    report: String,
}

impl Report for Memory {
    fn human(&self, page: &mut Page) {
        // C's report ends with a newline.
        page.line(self.report.strip_suffix('\n').unwrap_or(&self.report));
    }
}

/// The number of a level from a word: a name or the beginning of one in any case (the empty word
/// is the beginning of the first), or decimal digits with anything behind them.
fn level_number(word: &str) -> Option<i32> {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        let number = atoi(word.as_ref());
        return (0..=10).contains(&number).then_some(number);
    }
    let begins =
        |name: &str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    LEVELS.iter().find(|(name, _)| begins(name)).map(|(_, number)| *number)
}

/// The name of a number. Those between two names belong to the next one.
fn level_name(number: i32) -> &'static str {
    match number {
        ..=0 => "ERROR",
        1..=2 => "WARNING",
        3..=4 => "NOTICE",
        5..=9 => "INFO",
        10.. => "DEBUG",
    }
}

/// `setdebug`.
///
/// # Errors
/// No such level; the node does not answer.
pub fn setdebug(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let word = text(arguments, 0);
    let number = level_number(&word).ok_or_else(|| {
        let names = LEVELS.map(|(name, _)| name).join(" | ");
        Failure::new(format_args!("Invalid debug level '{word}'. Valid levels are:\n\t{names}"))
    })?;
    session.control::<kinds::SetDebug, _>(session.target, &DebugLevel(number))?;
    Ok(0)
}

/// `getdebug`.
///
/// # Errors
/// The node does not answer.
pub fn getdebug(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let level_raw = session.control::<kinds::GetDebug, _>(session.target, &())?.0;
    session.output().report(&Level { level: level_name(level_raw), level_raw })?;
    Ok(0)
}

/// `dumpmemory`.
///
/// # Errors
/// The node does not answer.
pub fn dumpmemory(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let target = session.target;
    let report = session.ask::<kinds::DumpMemory, _>(target, &(), |report| report.0.to_string())?;
    session.output().report(&Memory { report })?;
    Ok(0)
}

/// `rddumpmemory`: a message to the recovery daemon, which answers with one. A C daemon that has
/// just been started may have none yet, so only `-T` ends the wait, as in C.
///
/// # Errors
/// The connection is gone.
pub fn rddumpmemory(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let reply_id = session.reply_id();
    session.register(reply_id)?;
    // The number is that of the node to answer: the own one, where the reply id is known.
    let request = SrvidMessage { pnn: Pnn::new(session.own), srvid: reply_id };
    let to = Destination::from_raw(session.target);
    session.message(to, Srvid::MEM_DUMP, "MEM_DUMP", &request.to_bytes())?;
    let data = loop {
        if let Some(data) = session.await_message(reply_id, crate::session::NO_LIMIT)? {
            break data;
        }
    };
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let report = String::from_utf8_lossy(&data[..end]).into_owned();
    session.output().report(&Memory { report })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human};

    #[test]
    fn levels_are_names_their_beginnings_or_numbers() {
        assert_eq!(level_number("NOTICE"), Some(3));
        assert_eq!(level_number("warn"), Some(1));
        assert_eq!(level_number(""), Some(0));
        assert_eq!(level_number("3x"), Some(3));
        assert_eq!(level_number("0x3"), Some(0), "decimal only");
        for word in ["NOTICES", "11", "-1", " 3", "x"] {
            assert_eq!(level_number(word), None, "{word}");
        }
    }

    #[test]
    fn a_level_is_shown_by_name() {
        let names = [0, 1, 2, 3, 4, 5, 9, 10].map(level_name);
        let expected = ["ERROR", "WARNING", "WARNING", "NOTICE", "NOTICE", "INFO", "INFO", "DEBUG"];
        assert_eq!(names, expected);
        let level = Level { level: "INFO", level_raw: 5 };
        assert_eq!(human(&level), "INFO\n");
        documented(&level, GETDEBUG);
    }

    #[test]
    fn a_memory_report_ends_with_one_newline() {
        for report in ["x", "x\n"] {
            let memory = Memory { report: report.into() };
            assert_eq!(human(&memory), "x\n");
            documented(&memory, DUMPMEMORY);
        }
    }
}
