//! Tunables: `getvar`, `setvar`, `listvars`.
//!
//! Role: asks the daemon, whose list decides what exists; a daemon of another version has others.
//! Origin: `docs/spec/admin-interface.md` 1.7.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use ringmaster_protocol::control::kinds;
use ringmaster_protocol::text::Text;
use ringmaster_protocol::tunable::{TunableName, TunableSetting};
use serde::Serialize;

use crate::arguments::{text, unsigned32};
use crate::command::{Failure, Key, Outcome, key};
use crate::output::Report;
use crate::page::Page;
use crate::session::{Refused, Session};

/// Exit status of the C tool for a number that 64 bits cannot hold.
const ERANGE: u8 = 34;
/// A daemon's answer to the name of a tunable that does nothing any more.
const OBSOLETE: i32 = 1;

/// Keys of `getvar`.
pub const GETVAR: &[Key] = &[
    key("name", "string", "tunable, spelt as on the command line"),
    key("value", "number", "its value"),
];
/// Keys of `listvars`.
pub const LISTVARS: &[Key] = &[key("tunables.*", "number", "value of each tunable, by name")];

#[derive(Clone, Debug, Serialize)]
struct Variable {
    name: String,
    value: u32,
}

impl Report for Variable {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("{:<26} = {}", self.name, self.value));
    }
}

/// In the daemon's order for people, by name in the document.
#[derive(Clone, Debug)]
struct Variables(Vec<Variable>);

impl Serialize for Variables {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Document<'a> {
            tunables: BTreeMap<&'a str, u32>,
        }
        let tunables = self.0.iter().map(|variable| (variable.name.as_str(), variable.value));
        Document { tunables: tunables.collect() }.serialize(serializer)
    }
}

impl Report for Variables {
    fn human(&self, page: &mut Page) {
        for variable in &self.0 {
            variable.human(page);
        }
    }
}

/// `getvar`.
///
/// # Errors
/// The node does not answer, or knows no such tunable.
pub fn getvar(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let name = text(arguments, 0);
    if !is_known(session, &arguments[0])? {
        return unknown(session, &name);
    }
    let value = value_of(session, arguments[0].as_bytes())?;
    session.output().report(&Variable { name, value })?;
    Ok(0)
}

/// `setvar`.
///
/// # Errors
/// The node does not answer, or knows no such tunable; the value is no number.
pub fn setvar(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let name = text(arguments, 0);
    if !is_known(session, &arguments[0])? {
        return unknown(session, &name);
    }
    let value = unsigned32(&arguments[1]).ok_or_else(|| bad_number(&arguments[1]))?;
    let setting = TunableSetting { value, name: TunableName(Text::new(arguments[0].as_bytes())) };
    let (target, timeout) = (session.target, session.timeout());
    let options = ringmaster_client::ControlOptions::timeout(timeout);
    let to = ringmaster_protocol::Destination::from_raw(target);
    match session.client.control_with::<kinds::SetTunable>(to, &setting, options) {
        Ok(()) => Ok(0),
        // Reported by its status: the value was not refused, it only has no effect.
        Err(error) if error.errno() == OBSOLETE => {
            session.complain(format_args!("Setting obsolete tunable variable '{name}'"));
            Ok(0)
        }
        Err(error) => {
            let opcode = ringmaster_protocol::control::ControlOpcode::SET_TUNABLE;
            Err(session.refused(opcode, target, &error).into())
        }
    }
}

/// `listvars`.
///
/// # Errors
/// The node does not answer.
pub fn listvars(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let mut variables = Vec::new();
    for name in names(session)? {
        let value = value_of(session, &name)?;
        variables.push(Variable { name: String::from_utf8_lossy(&name).into_owned(), value });
    }
    session.output().report(&Variables(variables))?;
    Ok(0)
}

/// What C does with a word that is no number: nothing but an exit status.
#[must_use]
pub(crate) fn bad_number(word: &OsStr) -> Failure {
    let word = word.to_string_lossy();
    let word = word.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let word = word.strip_prefix('+').unwrap_or(word);
    let too_large = word.starts_with(|c: char| c.is_ascii_digit());
    if too_large { Failure::Status(ERANGE) } else { Failure::BAD_NUMBER }
}

fn names(session: &mut Session<'_>) -> Result<Vec<Vec<u8>>, Refused> {
    session.ask::<kinds::ListTunables, _>(session.target, &(), |list| {
        list.names().map(|name| name.as_bytes().to_vec()).collect()
    })
}

fn value_of(session: &mut Session<'_>, name: &[u8]) -> Result<u32, Refused> {
    let name = TunableName(Text::new(name));
    Ok(session.control::<kinds::GetTunable, _>(session.target, &name)?.0)
}

fn is_known(session: &mut Session<'_>, name: &OsStr) -> Result<bool, Failure> {
    let target = session.target;
    let names = names(session).map_err(|refused| {
        refused.explain(format_args!("Failed to get list of variables from node {target}"))
    })?;
    Ok(names.iter().any(|known| known.eq_ignore_ascii_case(name.as_bytes())))
}

fn unknown(session: &mut Session<'_>, name: &str) -> Outcome {
    session.output().notice(format_args!("No such tunable {name}"))?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, json};

    fn variable(name: &str, value: u32) -> Variable {
        Variable { name: name.into(), value }
    }

    #[test]
    fn names_are_padded_to_one_column() {
        let variable = variable("recovertimeout", 30);
        assert_eq!(human(&variable), "recovertimeout             = 30\n");
        documented(&variable, GETVAR);
    }

    #[test]
    fn the_list_keeps_the_daemons_order_and_the_document_sorts() {
        let list = Variables(vec![variable("B", 2), variable("A", 1)]);
        assert!(human(&list).starts_with("B "));
        assert!(json(&list).find("\"A\"") < json(&list).find("\"B\""));
        documented(&list, LISTVARS);
    }

    #[test]
    fn a_number_that_is_too_large_has_a_status_of_its_own() {
        let status = |word: &str| match bad_number(OsStr::new(word)) {
            Failure::Status(status) => status,
            _ => 0,
        };
        assert_eq!(status("99999999999999999999999"), 34);
        assert_eq!((status("abc"), status(""), status("-1")), (22, 22, 22));
    }
}
