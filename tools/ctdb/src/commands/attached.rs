//! The database an argument names, and attaching to it as C's tool does.
//!
//! Role: what all families that work on databases begin with.
//! Invariants
//! - The message of a failure is C's, line for line.
//! - Attaching keeps a database's attributes: they are set on all connected nodes again, so that a
//!   node that joined later has them too.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2, 1.8; controls traced with the 4.17 tool.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;

use ringmaster_client::{AttachError, Attached, ControlError, Database, DbKind, OpenDatabaseError};
use ringmaster_protocol::DbId;
use ringmaster_protocol::control::{Control, ControlOpcode, kinds};
use ringmaster_protocol::database::DbFlags;

use crate::arguments::unsigned32;
use crate::command::Failure;
use crate::session::{Refused, Session, connected};

const EIO: u8 = 5;
const ETIMEDOUT: u8 = 110;

/// A database that the asked node has attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: DbId,
    pub(crate) name: String,
    pub(crate) flags: DbFlags,
}

impl Found {
    pub(crate) fn is_volatile(&self) -> bool {
        DbKind::from_flags(self.flags) == DbKind::Volatile
    }
}

/// The databases of the asked node, newest first.
pub(crate) fn list(session: &mut Session<'_>) -> Result<Vec<(DbId, DbFlags)>, Refused> {
    let map = session.control::<kinds::GetDbMap, _>(session.target, &())?;
    Ok(map.0.iter().map(|entry| (entry.db, entry.flags)).collect())
}

/// The name of a database.
pub(crate) fn name_of(session: &mut Session<'_>, db: DbId) -> Result<String, Refused> {
    session.ask::<kinds::GetDbName, _>(session.target, &db, |name| name.to_string())
}

/// The database that `word` names: its id behind `0x`, or its name.
///
/// # Errors
/// Explained; there is none.
pub(crate) fn find(session: &mut Session<'_>, word: &OsStr) -> Result<Found, Failure> {
    // C returns no more than "not found" from here, whatever went wrong.
    let failed = |_: Refused| Failure::Status(1);
    let databases = list(session).map_err(failed)?;
    if word.as_bytes().starts_with(b"0x") {
        let id = unsigned32(word).ok_or(Failure::Status(1))?;
        if let Some((db, flags)) = databases.into_iter().find(|(db, _)| db.0 == id) {
            let name = name_of(session, db).map_err(failed)?;
            return Ok(Found { id: db, name, flags });
        }
    } else {
        for (id, flags) in databases {
            let name = name_of(session, id).map_err(failed)?;
            if name.as_bytes() == word.as_bytes() {
                return Ok(Found { id, name, flags });
            }
        }
    }
    Err(Failure::new(format_args!("No database matching '{}' found", word.to_string_lossy())))
}

/// As [`find`], for databases that are changed record by record.
///
/// # Errors
/// Explained.
pub(crate) fn find_volatile(session: &mut Session<'_>, word: &OsStr) -> Result<Found, Failure> {
    let found = find(session, word)?;
    if found.is_volatile() {
        return Ok(found);
    }
    Err(Failure::new(format_args!("DB {} is not a volatile database", found.name)))
}

/// As [`find`], for databases that are changed in transactions.
///
/// # Errors
/// Explained.
pub(crate) fn find_transacted(session: &mut Session<'_>, word: &OsStr) -> Result<Found, Failure> {
    let found = find(session, word)?;
    if found.is_volatile() {
        let text = format_args!("Transactions not supported on DB {}", found.name);
        return Err(Failure::new(text));
    }
    Ok(found)
}

/// Attaches and opens this node's file.
///
/// # Errors
/// Explained, in two lines.
pub(crate) fn open(session: &mut Session<'_>, found: &Found) -> Result<Database, Failure> {
    open_named(session, &found.name, found.flags)
}

/// As [`open`], also creating the database.
///
/// # Errors
/// Explained, in two lines.
pub(crate) fn open_named(
    session: &mut Session<'_>,
    name: &str,
    flags: DbFlags,
) -> Result<Database, Failure> {
    let opened = check_time(session, name, flags).and_then(|()| {
        let opened = session.client.open(name, DbKind::from_flags(flags));
        let database = opened.map_err(|error| match error {
            OpenDatabaseError::Attach(error) => attach_failure(name, &error),
            _ => Failure::with_status(EIO, format_args!("attach: {name} tdb_wrap_open failed")),
        })?;
        keep_attributes(session, name, database.id(), flags)?;
        Ok(database)
    });
    also_say(session, opened, format_args!("Failed to attach to DB {name}"))
}

/// Attaches without opening.
///
/// # Errors
/// Explained, in one line.
pub(crate) fn attach(
    session: &mut Session<'_>,
    name: &str,
    flags: DbFlags,
) -> Result<Attached, Failure> {
    check_time(session, name, flags)?;
    let attached = session.client.attach(name, DbKind::from_flags(flags));
    let attached = attached.map_err(|error| attach_failure(name, &error))?;
    keep_attributes(session, name, attached.id, flags)?;
    Ok(attached)
}

/// As [`attach`], explained in two lines.
///
/// # Errors
/// Explained.
pub(crate) fn attach_found(session: &mut Session<'_>, found: &Found) -> Result<Attached, Failure> {
    let attached = attach(session, &found.name, found.flags);
    also_say(session, attached, format_args!("Failed to attach to DB {}", found.name))
}

/// Says what a failure has to say now, then one line more, and keeps its status.
pub(crate) fn also_say<T>(
    session: &mut Session<'_>,
    result: Result<T, Failure>,
    text: impl Display,
) -> Result<T, Failure> {
    result.map_err(|failure| match failure {
        Failure::Message { status, text: first } => {
            session.complain(first);
            Failure::with_status(status, text)
        }
        other => other,
    })
}

/// The limits of `-t` for what the library does in several steps. Without any time there is no
/// first step.
fn check_time(session: &mut Session<'_>, name: &str, flags: DbFlags) -> Result<(), Failure> {
    let timeout = session.timeout();
    session.client.set_timeout(timeout);
    if timeout.is_zero() {
        let control = match DbKind::from_flags(flags) {
            DbKind::Volatile => kinds::DbAttach::OPCODE,
            DbKind::Persistent => kinds::DbAttachPersistent::OPCODE,
            DbKind::Replicated => kinds::DbAttachReplicated::OPCODE,
        };
        let text = format_args!("attach: {name} {control} failed, ret={ETIMEDOUT}");
        return Err(Failure::with_status(ETIMEDOUT, text));
    }
    Ok(())
}

fn attach_failure(name: &str, error: &AttachError) -> Failure {
    match error {
        AttachError::Control { source, .. } => {
            let (text, code) = control_failure(source);
            let text = format_args!("attach: {name} {text}, ret={code}");
            Failure::with_status(Failure::status_of(code), text)
        }
        AttachError::Unhealthy { reason, .. } => {
            let text = format_args!("attach: {name} database unhealthy ({reason})");
            Failure::with_status(EIO, text)
        }
        other => Failure::new(format_args!("attach: {name} {other}")),
    }
}

fn control_failure(error: &ControlError) -> (String, i32) {
    const ATTACH: [ControlOpcode; 3] = [
        kinds::DbAttach::OPCODE,
        kinds::DbAttachPersistent::OPCODE,
        kinds::DbAttachReplicated::OPCODE,
    ];
    let code = error.errno();
    let text = match error {
        ControlError::Failed { control, .. } if ATTACH.contains(control) => {
            "failed to get db_id".to_owned()
        }
        ControlError::Failed { control, .. } | ControlError::Malformed { control, .. } => {
            format!("{control} parse failed")
        }
        ControlError::TimedOut { control, .. }
        | ControlError::Broadcast { control, .. }
        | ControlError::TooManyRequests { control } => format!("{control} failed"),
        other => other.to_string(),
    };
    (text, code)
}

fn keep_attributes(
    session: &mut Session<'_>,
    name: &str,
    db: DbId,
    flags: DbFlags,
) -> Result<(), Failure> {
    let (readonly, sticky) = (flags.contains(DbFlags::READONLY), flags.contains(DbFlags::STICKY));
    if !(readonly || sticky) {
        return Ok(());
    }
    let nodes = connected(&session.nodemap()?);
    if readonly {
        let done = session.control_all::<kinds::SetDbReadonly, ()>(&nodes, &db);
        settle(session, done, name, db, flags, kinds::SetDbReadonly::OPCODE)?;
    }
    if sticky {
        let done = session.control_all::<kinds::SetDbSticky, ()>(&nodes, &db);
        settle(session, done, name, db, flags, kinds::SetDbSticky::OPCODE)?;
    }
    Ok(())
}

fn settle(
    session: &mut Session<'_>,
    done: Vec<Result<(), Refused>>,
    name: &str,
    db: DbId,
    flags: DbFlags,
    control: ControlOpcode,
) -> Result<(), Failure> {
    let Some(refused) = done.into_iter().find_map(Result::err) else { return Ok(()) };
    let code = refused.code;
    session.complain(format_args!("set_db_flags: {db} {control} failed, ret={code}"));
    Err(refused.explain(format_args!("attach: {name} set db flags {:#010x} failed", flags.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_protocol::Destination;

    fn explained(source: ControlError) -> (String, u8) {
        let error = AttachError::Control { name: "a.tdb".into(), source };
        match attach_failure("a.tdb", &error) {
            Failure::Message { status, text } => (text, status),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_refused_attach_says_which_step_failed() {
        let to = Destination::Current;
        let failed =
            |control| ControlError::Failed { control, to, status: -1, text: String::new() };
        let refused = explained(failed(kinds::DbAttachPersistent::OPCODE));
        assert_eq!(refused, ("attach: a.tdb failed to get db_id, ret=-1".into(), 1));
        let path = explained(failed(kinds::GetDbPath::OPCODE));
        assert_eq!(path, ("attach: a.tdb GETDBPATH parse failed, ret=-1".into(), 1));
        let timeout = std::time::Duration::from_secs(1);
        let control = kinds::DbAttach::OPCODE;
        let late = explained(ControlError::TimedOut { control, to, timeout });
        assert_eq!(late, ("attach: a.tdb DB_ATTACH failed, ret=110".into(), 110));
    }

    #[test]
    fn an_unhealthy_database_is_not_attached() {
        let error = AttachError::Unhealthy { name: "a".into(), reason: "ERROR: bad".into() };
        let expected = "attach: a database unhealthy (ERROR: bad)";
        assert_eq!(attach_failure("a", &error).to_string(), expected);
    }
}
