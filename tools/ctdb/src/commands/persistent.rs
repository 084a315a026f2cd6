//! Records that every node has: `pfetch`, `pstore`, `pdelete`, `ptrans`.
//!
//! Role: each change is a transaction of the client library.
//! Invariant: a value is shown as C shows it (up to the first NUL); the document has all of it.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.4; tried with the 4.17 tool.

mod input;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};

use ringmaster_client::{Database, Transaction, TransactionError};
use serde::Serialize;

use super::attached::{find_transacted, open};
use super::data::{VALUE_OF_KEY, ValueOfKey, before_nul, key_argument, value_argument};
use crate::arguments::text;
use crate::command::{Failure, Key, Outcome};
use crate::output::Report;
use crate::page::Page;
use crate::session::Session;

use input::{Change, changes};

/// Keys of `pfetch`.
pub const PFETCH: &[Key] = VALUE_OF_KEY;

#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
struct Fetched(ValueOfKey);

impl Report for Fetched {
    fn human(&self, page: &mut Page) {
        page.bytes(before_nul(&self.0.bytes));
        page.line("");
    }
}

/// `pfetch`. No transaction, unlike C: one record is read under its chain lock, and nobody has to
/// wait for a lock that somebody else keeps.
///
/// # Errors
/// No such database, or it has no transactions; no key; the file cannot be read.
pub fn pfetch(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_transacted(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let mut database = open(session, &found)?;
    let fetched = session.client.fetch(&mut database, &key).map_err(|error| {
        let word = text(arguments, 1);
        Failure::new(format_args!("{error}\nFailed to read record for key {word}"))
    })?;
    session.output().report(&Fetched(ValueOfKey::new(&key, fetched.unwrap_or_default())))?;
    Ok(0)
}

/// `pstore`.
///
/// # Errors
/// No such database, or it has no transactions; no key or value; the transaction fails.
pub fn pstore(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_transacted(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let value = value_argument(&arguments[2])?;
    let mut database = open(session, &found)?;
    transact(session, &mut database, &found.name, |transaction| {
        transaction.store(&key, &value).map_err(|error| {
            let word = text(arguments, 1);
            Failure::new(format_args!("{error}\nFailed to store record for key {word}"))
        })
    })
}

/// `pdelete`.
///
/// # Errors
/// As [`pstore`].
pub fn pdelete(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_transacted(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let mut database = open(session, &found)?;
    transact(session, &mut database, &found.name, |transaction| {
        transaction.delete(&key).map_err(|error| {
            let word = text(arguments, 1);
            Failure::new(format_args!("{error}\nFailed to delete record for key {word}"))
        })
    })
}

/// `ptrans`. Lines that make no sense are reported and skipped, as in C.
///
/// # Errors
/// As [`pstore`]; the file cannot be opened.
pub fn ptrans(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_transacted(session, &arguments[0])?;
    let mut input = open_input(arguments.get(1).map(OsString::as_os_str))?;
    let mut database = open(session, &found)?;
    let mut bytes = Vec::new();
    // Before the transaction: nobody shall wait for somebody who types. C stops reading at an error
    // as it does at the end (a directory is an empty file).
    let _read_so_far = input.read_to_end(&mut bytes);
    let mut wanted = Vec::new();
    for change in changes(&bytes) {
        match change {
            Ok(change) => wanted.push(change),
            Err(complaint) => session.complain(complaint),
        }
    }
    transact(session, &mut database, &found.name, |transaction| {
        wanted.iter().try_for_each(|Change { key, value }| {
            transaction
                .store(key, value)
                .map_err(|error| Failure::new(format_args!("{error}\nFailed to store record")))
        })
    })
}

fn open_input(name: Option<&OsStr>) -> Result<Box<dyn Read>, Failure> {
    let Some(name) = name else { return Ok(Box::new(io::stdin())) };
    let file = File::open(name).map_err(|_| {
        Failure::new(format_args!("Failed to open file {}", name.to_string_lossy()))
    })?;
    Ok(Box::new(file))
}

/// Runs `change` in a transaction and commits. After a failure nothing has changed, and the lock is
/// given back.
fn transact(
    session: &mut Session<'_>,
    database: &mut Database,
    name: &str,
    change: impl FnOnce(&mut Transaction<'_>) -> Result<(), Failure>,
) -> Outcome {
    let explain = |error: TransactionError, what: &str| {
        Failure::new(format_args!("{error}\nFailed to {what} transaction on db {name}"))
    };
    let begun = session.client.begin(database);
    let mut transaction = begun.map_err(|error| explain(error, "start"))?;
    change(&mut transaction)?;
    transaction.commit().map_err(|error| explain(error, "commit"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, json};

    #[test]
    fn a_value_is_shown_up_to_its_first_nul_and_documented_whole() {
        let fetched = Fetched(ValueOfKey::new(b"k", b"ab\0c".to_vec()));
        assert_eq!(human(&fetched), "ab\n");
        assert!(json(&fetched).contains("\"value\": \"ab\\\\00c\""), "{}", json(&fetched));
        documented(&fetched, PFETCH);
    }

    #[test]
    fn a_record_that_is_not_there_is_an_empty_line() {
        assert_eq!(human(&Fetched(ValueOfKey::new(b"k", Vec::new()))), "\n");
    }
}
