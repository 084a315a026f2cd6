//! Records that live on one node at a time: `readkey`, `writekey`, `deletekey`, `pushrecord`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.5; tried with the 4.17 tool.

use std::ffi::OsString;

use ringmaster_client::{CallError, ControlOptions, Database, RecordError};
use ringmaster_protocol::Pnn;
use ringmaster_protocol::control::{Control, kinds};
use ringmaster_protocol::record::PushRecord;
use serde::Serialize;

use super::attached::{find_volatile, open};
use super::data::{VALUE_OF_KEY, ValueOfKey, before_nul, key_argument, value_argument};
use crate::arguments::text;
use crate::command::{Failure, Key, Outcome};
use crate::output::Report;
use crate::page::Page;
use crate::session::{Session, active};

const EINVAL: i32 = 22;
const EIO: i32 = 5;
const ETIMEDOUT: i32 = 110;

/// Keys of `readkey`.
pub const READKEY: &[Key] = VALUE_OF_KEY;

#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
struct ReadRecord(ValueOfKey);

impl Report for ReadRecord {
    fn human(&self, page: &mut Page) {
        page.put(format_args!("Data: size:{} ptr:[", self.0.size));
        page.bytes(before_nul(&self.0.bytes));
        page.line("]");
    }
}

/// What C's library says about a record that could not be locked, and its errno.
fn lock_failure(name: &str, error: &RecordError) -> (String, i32) {
    match error {
        RecordError::Call(CallError::Failed { status, .. }) => {
            (format!("fetch_lock: {name} CALL failed, ret={status}"), *status)
        }
        RecordError::Call(CallError::TimedOut { .. }) | RecordError::Contended { .. } => {
            (format!("fetch_lock: {name} CALL failed, ret={ETIMEDOUT}"), ETIMEDOUT)
        }
        other => (other.to_string(), EIO),
    }
}

fn explain(error: &RecordError, name: &str, text: &str) -> Failure {
    let (reason, code) = lock_failure(name, error);
    Failure::with_status(Failure::status_of(code), format_args!("{reason}\n{text}"))
}

/// Daemons do not answer calls for an empty key; C's library does not send them.
fn check_key(key: &[u8], name: &str, text: &str) -> Result<(), Failure> {
    if !key.is_empty() {
        return Ok(());
    }
    let reason = format_args!("fetch_lock: {name} CALL failed, ret={EINVAL}\n{text}");
    Err(Failure::with_status(Failure::status_of(EINVAL), reason))
}

/// `readkey`.
///
/// # Errors
/// A third word that is not `readonly`; no such database, or not volatile; no key; the record does
/// not come.
pub fn readkey(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let readonly = match arguments.get(2).map(|word| word.to_string_lossy()).as_deref() {
        None => false,
        Some("readonly") => true,
        Some(_) => return Err(Failure::Usage),
    };
    let found = find_volatile(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let mut database = open(session, &found)?;
    let text = format!("Failed to read record for key {}", text(arguments, 1));
    check_key(&key, &found.name, &text)?;
    let value = if readonly {
        session.client.fetch_readonly(&mut database, &key).map(Option::unwrap_or_default)
    } else {
        let locked = session.client.lock_record(&mut database, &key);
        locked.and_then(|record| {
            let value = record.value().to_vec();
            record.unlock().map(|()| value)
        })
    };
    let value = value.map_err(|error| explain(&error, &found.name, &text))?;
    session.output().report(&ReadRecord(ValueOfKey::new(&key, value)))?;
    Ok(0)
}

/// `writekey`.
///
/// # Errors
/// No such database, or not volatile; no key or value; the record does not come or cannot be
/// written.
pub fn writekey(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_volatile(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let value = value_argument(&arguments[2])?;
    let mut database = open(session, &found)?;
    store(session, &mut database, arguments, &key, &value)?;
    Ok(0)
}

/// Writes a record under its lock. C's message names the database where it means the key.
fn store(
    session: &mut Session<'_>,
    database: &mut Database,
    arguments: &[OsString],
    key: &[u8],
    value: &[u8],
) -> Result<(), Failure> {
    let text_of_lock = format!("Failed to lock record for key {}", text(arguments, 0));
    check_key(key, &database.attached().name, &text_of_lock)?;
    let name = database.attached().name.clone();
    let locked = session.client.lock_record(database, key);
    let mut record = locked.map_err(|error| explain(&error, &name, &text_of_lock))?;
    let stored = record.store(value).and_then(|()| record.unlock());
    stored.map_err(|error| {
        let word = text(arguments, 1);
        Failure::new(format_args!("{error}\nFailed to store record for key {word}"))
    })
}

/// `deletekey`.
///
/// # Errors
/// No such database, or not volatile; no key; the record does not come or cannot be written.
pub fn deletekey(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_volatile(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let mut database = open(session, &found)?;
    let word = text(arguments, 1);
    let text = format!("Failed to fetch record for key {word}");
    check_key(&key, &found.name, &text)?;
    let locked = session.client.lock_record(&mut database, &key);
    let record = locked.map_err(|error| explain(&error, &found.name, &text))?;
    let deleted = record.delete(&mut session.client);
    deleted.map_err(|error| {
        Failure::new(format_args!("{error}\nFailed to delete record for key {word}"))
    })?;
    Ok(0)
}

/// `pushrecord`.
///
/// # Errors
/// As [`writekey`]; a node does not take the record (4.17 daemons know no such request).
pub fn pushrecord(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find_volatile(session, &arguments[0])?;
    let key = key_argument(&arguments[1])?;
    let value = value_argument(&arguments[2])?;
    let mut database = open(session, &found)?;
    let text = format!("Failed to lock record for key {}", text(arguments, 1));
    check_key(&key, &found.name, &text)?;
    let own = session.own;
    let generation = session.control::<kinds::GetVnnMap, _>(own, &())?.generation;
    let nodes: Vec<Pnn> = active(&session.nodemap()?)
        .into_iter()
        .filter(|node| *node != own)
        .filter_map(Pnn::new)
        .collect();
    let options = ControlOptions::timeout(session.timeout());
    let locked = session.client.lock_record(&mut database, &key);
    let mut record = locked.map_err(|error| explain(&error, &found.name, &text))?;
    record.store(&value).map_err(Failure::new)?;
    let header = record.header();
    let push = PushRecord { generation, db: found.id, header, key: &key, data: &value };
    let mut refused = Vec::new();
    // Under the lock, until all have answered: a node that takes the record over meanwhile would
    // find its newer value replaced by this one. Only other nodes' daemons are waited for.
    session.client.control_each::<kinds::PushRecord>(&nodes, &push, options, |node, answer| {
        if let Err(error) = answer {
            refused.push((node.get(), error));
        }
    });
    record.unlock().map_err(Failure::new)?;
    let mut status = 0;
    for (node, error) in refused {
        let opcode = kinds::PushRecord::OPCODE;
        status = session.refused(opcode, node, &error).status();
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human};
    use ringmaster_protocol::DbId;

    #[test]
    fn a_value_is_shown_in_brackets_with_its_size() {
        let record = ReadRecord(ValueOfKey::new(b"k", b"v1".to_vec()));
        assert_eq!(human(&record), "Data: size:2 ptr:[v1]\n");
        let with_nul = ReadRecord(ValueOfKey::new(b"k", b"\0A\n\0".to_vec()));
        assert_eq!(human(&with_nul), "Data: size:4 ptr:[]\n");
        documented(&record, READKEY);
    }

    #[test]
    fn a_call_that_fails_is_reported_as_by_cs_library() {
        let error = RecordError::Call(CallError::Failed { db: DbId(1), status: 22 });
        let expected = ("fetch_lock: vol.tdb CALL failed, ret=22".to_owned(), 22);
        assert_eq!(lock_failure("vol.tdb", &error), expected);
        let failure = check_key(b"", "vol.tdb", "Failed to read record for key ").unwrap_err();
        let expected = "fetch_lock: vol.tdb CALL failed, ret=22\nFailed to read record for key ";
        assert_eq!(failure.to_string(), expected);
    }
}
