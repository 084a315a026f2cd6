//! Databases as a whole: list, state, attach, detach, attributes, sequence number.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.1, 1.8.2, A.1; tried with the 4.17 tool.

use std::ffi::OsString;

use ringmaster_protocol::DbId;
use ringmaster_protocol::control::{Control, kinds};
use ringmaster_protocol::database::{DbFlags, GetDbSeqnum};
use ringmaster_protocol::node::NodeFlags;
use ringmaster_protocol::process::RecMode;
use ringmaster_protocol::text::Text;
use ringmaster_protocol::tunable::{Tunable, TunableName};
use serde::Serialize;

use super::attached::{self, Found, find};
use crate::arguments::text;
use crate::command::{Failure, Key, Outcome, key};
use crate::fields;
use crate::output::Report;
use crate::page::{Page, Tone};
use crate::session::{Session, connected};

/// Keys of `getdbmap`.
pub const GETDBMAP: &[Key] = &[
    key("databases[].id", "string", "id as 0x and 8 hexadecimal digits"),
    key("databases[].name", "string", "name"),
    key("databases[].path", "string", "file on the asked node"),
    key(
        "databases[].persistent",
        "boolean",
        "every node has all records, and they outlive restarts",
    ),
    key("databases[].replicated", "boolean", "every node has all records until the cluster stops"),
    key("databases[].sticky", "boolean", "hot records stay on a node for a while"),
    key("databases[].readonly", "boolean", "several nodes may hold read-only copies of a record"),
    key("databases[].unhealthy", "boolean", "the daemon found the file damaged"),
    key("databases[].health", "string|null", "what is wrong with it"),
];
/// Keys of `getdbstatus`.
pub const GETDBSTATUS: &[Key] = &[
    key("id", "string", "id as 0x and 8 hexadecimal digits"),
    key("name", "string", "name"),
    key("path", "string", "file on the asked node"),
    key("persistent", "boolean", "every node has all records, and they outlive restarts"),
    key("replicated", "boolean", "every node has all records until the cluster stops"),
    key("sticky", "boolean", "hot records stay on a node for a while"),
    key("readonly", "boolean", "several nodes may hold read-only copies of a record"),
    key("unhealthy", "boolean", "the daemon found the file damaged"),
    key("health", "string|null", "what is wrong with it"),
];
/// Keys of `getdbseqnum`.
pub const GETDBSEQNUM: &[Key] = &[
    key("id", "string", "id as 0x and 8 hexadecimal digits"),
    key("name", "string", "name"),
    key("sequence_number", "number", "how many transactions have changed the database"),
];

#[derive(Clone, Debug, Serialize)]
struct DbState {
    #[serde(serialize_with = "id_as_text")]
    id: DbId,
    name: String,
    path: String,
    persistent: bool,
    replicated: bool,
    sticky: bool,
    readonly: bool,
    unhealthy: bool,
    health: Option<String>,
}

fn id_as_text<S: serde::Serializer>(id: &DbId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

impl DbState {
    fn new(found: Found, path: String, health: Option<String>) -> Self {
        let has = |flag| found.flags.contains(flag);
        Self {
            id: found.id,
            persistent: has(DbFlags::PERSISTENT),
            replicated: has(DbFlags::REPLICATED),
            sticky: has(DbFlags::STICKY),
            readonly: has(DbFlags::READONLY),
            unhealthy: health.is_some(),
            name: found.name,
            path,
            health,
        }
    }
}

/// `getdbstatus`.
impl Report for DbState {
    fn human(&self, page: &mut Page) {
        let yes = |set: bool| if set { "yes" } else { "no" };
        page.line(format_args!("dbid: {}", self.id));
        page.line(format_args!("name: {}", self.name));
        page.line(format_args!("path: {}", self.path));
        page.line(format_args!("PERSISTENT: {}", yes(self.persistent)));
        page.line(format_args!("REPLICATED: {}", yes(self.replicated)));
        page.line(format_args!("STICKY: {}", yes(self.sticky)));
        page.line(format_args!("READONLY: {}", yes(self.readonly)));
        let tone = if self.unhealthy { Tone::Bad } else { Tone::Good };
        let health = page.paint(tone, self.health.as_deref().unwrap_or("OK"));
        page.line(format_args!("HEALTH: {health}"));
    }
}

#[derive(Clone, Debug, Serialize)]
struct DbMap {
    databases: Vec<DbState>,
}

impl Report for DbMap {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("Number of databases:{}", self.databases.len()));
        for db in &self.databases {
            page.put(format_args!("dbid:{} name:{} path:{}", db.id, db.name, db.path));
            let marks = [
                (db.persistent, "PERSISTENT"),
                (db.sticky, "STICKY"),
                (db.readonly, "READONLY"),
                (db.replicated, "REPLICATED"),
            ];
            for (_, word) in marks.iter().filter(|(set, _)| *set) {
                page.put(format_args!(" {word}"));
            }
            if db.unhealthy {
                page.put(format_args!(" {}", page.paint(Tone::Bad, "UNHEALTHY")));
            }
            page.line("");
        }
    }

    fn machine(&self, page: &mut Page) {
        page.row([
            "ID",
            "Name",
            "Path",
            "Persistent",
            "Sticky",
            "Unhealthy",
            "Readonly",
            "Replicated",
        ]);
        for db in &self.databases {
            let id = format!("0x{:08X}", db.id.0);
            let [persistent, sticky, unhealthy, readonly, replicated] =
                [db.persistent, db.sticky, db.unhealthy, db.readonly, db.replicated].map(u8::from);
            page.row(fields![
                id, db.name, db.path, persistent, sticky, unhealthy, readonly, replicated
            ]);
        }
    }
}

#[derive(Clone, Debug, Serialize)]
struct SequenceNumber {
    #[serde(serialize_with = "id_as_text")]
    id: DbId,
    name: String,
    sequence_number: u64,
}

impl Report for SequenceNumber {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("{:#x}", self.sequence_number));
    }
}

fn path_of(session: &mut Session<'_>, db: DbId) -> Result<String, Failure> {
    let path = session.ask::<kinds::GetDbPath, _>(session.target, &db, |path| path.to_string());
    path.map_err(Failure::from)
}

fn health_of(session: &mut Session<'_>, db: DbId) -> Result<Option<String>, Failure> {
    let target = session.target;
    let health = session.ask::<kinds::DbGetHealth, _>(target, &db, |reason| {
        reason.map(|reason| reason.to_string())
    });
    health.map_err(Failure::from)
}

/// `getdbmap`.
///
/// # Errors
/// The node does not answer.
pub fn getdbmap(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let mut databases = Vec::new();
    for (id, flags) in attached::list(session)? {
        let name = attached::name_of(session, id)?;
        let path = path_of(session, id)?;
        let health = health_of(session, id)?;
        databases.push(DbState::new(Found { id, name, flags }, path, health));
    }
    session.output().report(&DbMap { databases })?;
    Ok(0)
}

/// `getdbstatus`.
///
/// # Errors
/// No such database; the node does not answer.
pub fn getdbstatus(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    let path = path_of(session, found.id)?;
    let health = health_of(session, found.id)?;
    session.output().report(&DbState::new(found, path, health))?;
    Ok(0)
}

/// `attach`.
///
/// # Errors
/// Another word than those of the usage text and two older ones; the daemon refuses.
pub fn attach(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let flags = match arguments.get(1).map(|word| word.to_string_lossy()).as_deref() {
        None => DbFlags::NONE,
        Some("persistent") => DbFlags::PERSISTENT,
        Some("replicated") => DbFlags::REPLICATED,
        Some("readonly") => DbFlags::READONLY,
        Some("sticky") => DbFlags::STICKY,
        Some(_) => return Err(Failure::Usage),
    };
    let name = arguments[0].to_str().ok_or_else(|| {
        let name = text(arguments, 0);
        Failure::new(format_args!("attach: {name} failed to get db_id, ret=-1"))
    })?;
    attached::attach(session, name, flags)?;
    Ok(0)
}

/// `detach`. An unknown name among several is reported and skipped.
///
/// # Errors
/// Clients may still attach on some node; a recovery goes on; one that is not volatile.
pub fn detach(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let own = session.own;
    let mode = session.control::<kinds::GetRecMode, _>(own, &())?.0;
    if mode == RecMode::Active {
        return Err(Failure::new("Database cannot be detached when recovery is active"));
    }
    check_no_access(session)?;
    let mut status = 0;
    for word in arguments {
        let found = match find(session, word) {
            Ok(found) => found,
            Err(Failure::Message { text, .. }) => {
                session.complain(text);
                continue;
            }
            Err(_) => continue,
        };
        if !found.is_volatile() {
            return Err(Failure::new("Only volatile databases can be detached"));
        }
        if let Err(refused) = session.control::<kinds::DbDetach, ()>(own, &found.id) {
            if refused.closed {
                return Err(refused.into());
            }
            session.complain(format_args!("Database {} detach failed", found.name));
            status = refused.status();
        }
    }
    Ok(status)
}

/// No node may let clients attach: one that did right now would bring the database back.
fn check_no_access(session: &mut Session<'_>) -> Result<(), Failure> {
    let map = session.nodemap()?;
    for node in connected(&map) {
        let flags = map.0.iter().find(|entry| entry.pnn.get() == node).map(|entry| entry.flags);
        if flags.is_some_and(NodeFlags::is_inactive) {
            let text = format_args!(
                "Database cannot be detached on inactive (stopped or banned) node {node}"
            );
            return Err(Failure::new(text));
        }
        let name = TunableName(Text::new(Tunable::AllowClientDBAttach.info().name));
        let access = session.control::<kinds::GetTunable, _>(node, &name).map_err(|refused| {
            let text = format_args!("Unable to get tunable AllowClientDBAttach from node {node}");
            refused.explain(text)
        })?;
        if access.0 == 1 {
            let text = format_args!(
                "Database access is still active on node {node}. \
                 Set AllowclientDBAttach=0 on all nodes."
            );
            return Err(Failure::new(text));
        }
    }
    Ok(())
}

/// `setdbreadonly`.
///
/// # Errors
/// No such database, or not volatile; the node does not answer.
pub fn setdbreadonly(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    set_attribute::<kinds::SetDbReadonly>(session, arguments, "READONLY")
}

/// `setdbsticky`.
///
/// # Errors
/// As [`setdbreadonly`].
pub fn setdbsticky(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    set_attribute::<kinds::SetDbSticky>(session, arguments, "STICKY")
}

fn set_attribute<C>(session: &mut Session<'_>, arguments: &[OsString], word: &str) -> Outcome
where
    C: for<'r> Control<Request<'r> = DbId, Reply<'r> = ()>,
{
    let found = find(session, &arguments[0])?;
    if !found.is_volatile() {
        return Err(Failure::new(format_args!("{word} can be set only on volatile DB")));
    }
    session.control::<C, ()>(session.target, &found.id)?;
    Ok(0)
}

/// `getdbseqnum`.
///
/// # Errors
/// No such database; the node does not answer.
pub fn getdbseqnum(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    let request = GetDbSeqnum { db: found.id };
    let answer = session.control::<kinds::GetDbSeqnum, _>(session.target, &request);
    let sequence_number = answer
        .map_err(|refused| {
            let text = format_args!("Failed to get sequence number for DB {}", found.name);
            refused.explain(text)
        })?
        .0;
    let Found { id, name, .. } = found;
    session.output().report(&SequenceNumber { id, name, sequence_number })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, machine};

    fn state(flags: DbFlags, health: Option<&str>) -> DbState {
        let found = Found { id: DbId(0x3880_c3f1), name: "pers.tdb".into(), flags };
        DbState::new(found, "/p/pers.tdb.0".into(), health.map(str::to_owned))
    }

    #[test]
    fn the_map_shows_ids_in_both_cases_and_marks_in_cs_order() {
        let all = DbFlags::PERSISTENT | DbFlags::READONLY | DbFlags::STICKY | DbFlags::REPLICATED;
        let databases = vec![state(DbFlags::NONE, None), state(all, Some("bad"))];
        let map = DbMap { databases };
        assert_eq!(
            human(&map),
            "Number of databases:2\n\
             dbid:0x3880c3f1 name:pers.tdb path:/p/pers.tdb.0\n\
             dbid:0x3880c3f1 name:pers.tdb path:/p/pers.tdb.0 \
             PERSISTENT STICKY READONLY REPLICATED UNHEALTHY\n"
        );
        assert_eq!(
            machine(&map),
            "|ID|Name|Path|Persistent|Sticky|Unhealthy|Readonly|Replicated|\n\
             |0x3880C3F1|pers.tdb|/p/pers.tdb.0|0|0|0|0|0|\n\
             |0x3880C3F1|pers.tdb|/p/pers.tdb.0|1|1|1|1|1|\n"
        );
        documented(&map, GETDBMAP);
    }

    #[test]
    fn the_state_ends_with_the_health_or_what_is_wrong() {
        let text = human(&state(DbFlags::PERSISTENT, Some("ERROR: bad")));
        assert!(text.starts_with("dbid: 0x3880c3f1\nname: pers.tdb\npath: /p/pers.tdb.0\n"));
        assert!(text.contains("PERSISTENT: yes\nREPLICATED: no\nSTICKY: no\nREADONLY: no\n"));
        assert!(text.ends_with("HEALTH: ERROR: bad\n"));
        assert!(human(&state(DbFlags::NONE, None)).ends_with("HEALTH: OK\n"));
        documented(&state(DbFlags::NONE, None), GETDBSTATUS);
    }

    #[test]
    fn the_sequence_number_is_hexadecimal() {
        let report = SequenceNumber { id: DbId(1), name: "a".into(), sequence_number: 26 };
        assert_eq!(human(&report), "0x1a\n");
        documented(&report, GETDBSEQNUM);
    }
}
