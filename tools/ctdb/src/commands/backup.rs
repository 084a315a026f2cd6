//! Whole databases to files and back: `backupdb`, `restoredb`, `dumpdbbackup`, `wipedb`.
//!
//! Role: `file` knows the format, `rewrite` replaces the contents of a database on all nodes.
//! Invariants
//! - A backup holds the records as they were at one moment: if a transaction was committed while
//!   the file was read, reading starts again.
//! - A backup is read to its end before the database it goes into is touched.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.6; controls traced with the 4.17 tool.

mod file;
mod rewrite;

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ringmaster_client::{Database, DbKind};
use ringmaster_protocol::database::DbFlags;
use ringmaster_protocol::record::RecordHeader;
use serde::Serialize;

use super::attached::{find, open, open_named};
use super::record::{Dump, RECORDS, Shown, Sink};
use crate::arguments::text;
use crate::command::{Failure, Key, Outcome, key};
use crate::output::{Mode, Report};
use crate::page::Page;
use crate::session::Session;
use crate::tool::Tool;

use file::{Header, ReadError, Reader, Writer};

/// Keys of `dumpdbbackup`: where it is from, then those of every dump.
pub const DUMPDBBACKUP: &[Key] = &[
    key("name", "string", "database that was backed up"),
    key("time", "number", "when, seconds since 1970"),
    RECORDS[0],
    RECORDS[1],
    RECORDS[2],
    RECORDS[3],
    RECORDS[4],
    RECORDS[5],
    RECORDS[6],
    RECORDS[7],
    RECORDS[8],
    RECORDS[9],
];
const _: () = assert!(RECORDS.len() == 10, "every key of a dump is listed");

/// The document of `dumpdbbackup`.
#[derive(Clone, Debug, Serialize)]
struct BackupDump {
    name: String,
    time: i64,
    #[serde(flatten)]
    dump: Dump,
}

impl Report for BackupDump {
    /// Never used: as text, records are printed as they come.
    fn human(&self, _page: &mut Page) {}
}

/// How often reading starts again because a transaction was committed meanwhile.
const TRIES_MAX: u32 = 20;
/// Key of the sequence number's record, with its NUL.
const SEQNUM_KEY: &[u8] = b"__db_sequence_number__\0";

fn errno(error: &io::Error) -> u8 {
    const EIO: i32 = 5;
    Failure::status_of(error.raw_os_error().unwrap_or(EIO))
}

/// `backupdb`.
///
/// # Errors
/// No such database; its file cannot be read; the backup cannot be written.
pub fn backupdb(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    let mut database = open(session, &found)?;
    let name = text(arguments, 1);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&arguments[1]).map_err(|error| {
        Failure::with_status(errno(&error), format_args!("Failed to open file {name} for writing"))
    })?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let header = Header {
        timestamp: i64::try_from(seconds).unwrap_or(i64::MAX),
        flags: u64::from(found.flags.0),
        buffers: 0,
        records: 0,
        name: found.name.clone().into_bytes(),
    };
    let failed = |error: BackupError| match error {
        BackupError::Write(error) => Failure::with_status(
            errno(&error),
            format_args!("Failed to write records to backup file {name}: {error}"),
        ),
        BackupError::Read(reason) => {
            Failure::new(format_args!("{reason}\nFailed to collect records from DB {}", found.name))
        }
    };
    collect(&mut database, session.timeout(), &file, &header).map_err(failed)?;
    session.output().notice(format_args!("Database backed up to {name}"))?;
    Ok(0)
}

/// Why there is no backup.
enum BackupError {
    Read(String),
    Write(io::Error),
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Writes the records of this node's file, as they were at one moment if the database has
/// transactions.
fn collect(
    database: &mut Database,
    timeout: Duration,
    file: &File,
    header: &Header,
) -> Result<(), BackupError> {
    let unreadable = |error: ringmaster_client::RecordError| BackupError::Read(error.to_string());
    let id = database.id();
    for _ in 0..TRIES_MAX {
        let before = database.fetch_local(SEQNUM_KEY, timeout).map_err(unreadable)?;
        let mut writer = Writer::new(BufWriter::new(file), header.clone(), id)?;
        let mut written = Ok(());
        let walked = database.for_each_local(timeout, |key, header, value| {
            written = writer.push(key, &header, value);
            written.is_ok()
        });
        walked.map_err(unreadable)?;
        written?;
        writer.finish()?;
        let after = database.fetch_local(SEQNUM_KEY, timeout).map_err(unreadable)?;
        if before == after || database.attached().kind == DbKind::Volatile {
            file.sync_all().or_else(ignore_unsupported)?;
            return Ok(());
        }
        // Somebody committed: the file may hold half of it. Again from the beginning.
        file.set_len(0)?;
        (&mut &*file).seek(SeekFrom::Start(0))?;
    }
    let reason = format!("transactions are committed faster than {TRIES_MAX} readings");
    Err(BackupError::Read(reason))
}

/// Pipes and terminals cannot be synced.
fn ignore_unsupported(error: io::Error) -> io::Result<()> {
    const EINVAL: i32 = 22;
    if error.raw_os_error() == Some(EINVAL) { Ok(()) } else { Err(error) }
}

/// `dumpdbbackup`.
///
/// # Errors
/// The file cannot be read, is of another version, or ends too early.
pub fn dumpdbbackup(tool: &mut Tool<'_>, arguments: &[OsString]) -> Outcome {
    let (mut reader, header) = open_backup(&arguments[0])?;
    let (name, time) = (header.name_text(), time_text(header.timestamp));
    if tool.output.form.mode != Mode::Json {
        tool.output.notice(format_args!("Dumping database {name} from backup @ {time}"))?;
    }
    let mut sink = Sink::new(&mut tool.output);
    let mut broken = None;
    for _ in 0..header.buffers {
        let dumped = reader.next_buffer().and_then(|buffer| {
            buffer.each(|record| {
                let (header, value) = RecordHeader::split(record.data)?;
                Some(sink.put(&Shown { key: record.key, header, value }).is_continue())
            })
        });
        if let Err(error) = dumped {
            broken = Some(error);
            break;
        }
    }
    let dump = sink.finish(broken.is_none().then_some("record(s)"))?;
    if let Some(error) = broken {
        let what = if matches!(error, ReadError::Records(_)) { "dump" } else { "read" };
        return Err(Failure::with_status(error.status(), format_args!("Failed to {what} records")));
    }
    if let Some(dump) = dump {
        tool.output.report(&BackupDump { name, time: header.timestamp, dump })?;
    }
    Ok(0)
}

/// `restoredb`. The cluster is left alone unless the whole backup can be read.
///
/// # Errors
/// The file cannot be read, is of another version, or ends too early; no database of that name and
/// kind can be attached; a node does not take part.
pub fn restoredb(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let (mut reader, header) = open_backup(&arguments[0])?;
    let (name, time) = (header.name_text(), time_text(header.timestamp));
    let name = arguments.get(1).map_or(name, |word| word.to_string_lossy().into_owned());
    session.output().notice(format_args!("Restoring database {name} from backup @ {time}"))?;
    let [flags, ..] = header.flags.to_le_bytes();
    let database = open_named(session, &name, DbFlags(flags))?;
    let status = |error: ReadError| Failure::Status(error.status());
    let records = reader.check(&header).map_err(status)?;
    reader.rewind().map_err(status)?;
    if records != header.records {
        // C finds out when the first node has counted; then it has wiped the database already.
        let (node, expected) = (session.own, header.records);
        session.complain(format_args!("Node {node} received {records} of {expected} records"));
        return Ok(0);
    }
    rewrite::restore(session, database.id(), &mut reader, &header)?;
    session.output().notice(format_args!("Database {name} restored"))?;
    Ok(0)
}

/// `wipedb`.
///
/// # Errors
/// No such database; a node does not take part.
pub fn wipedb(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    let database = open(session, &found)?;
    rewrite::wipe(session, database.id())?;
    session.output().notice(format_args!("Database {} wiped", found.name))?;
    Ok(0)
}

fn open_backup(name: &OsStr) -> Result<(Reader<BufReader<File>>, Header), Failure> {
    let shown = name.to_string_lossy();
    let file = File::open(name).map_err(|error| {
        Failure::with_status(errno(&error), format_args!("Failed to open file {shown} for reading"))
    })?;
    Reader::new(BufReader::new(file)).map_err(|error| match error {
        ReadError::Version { found } => Failure::with_status(
            error.status(),
            format_args!("Wrong version of backup file, expected {}, got {found}", file::VERSION),
        ),
        other => {
            let text = format_args!("Failed to read db header from file {shown}");
            Failure::with_status(other.status(), text)
        }
    })
}

/// `2026/11/20 02:50:46`, local time.
fn time_text(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y/%m/%d %H:%M:%S").to_string(),
        Err(_) => seconds.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::documented;

    #[test]
    fn the_document_of_a_backup_says_where_it_is_from() {
        let dump = Dump::sample();
        documented(&BackupDump { name: "pers.tdb".into(), time: 1, dump }, DUMPDBBACKUP);
    }

    #[test]
    fn a_time_that_is_none_is_shown_as_its_number() {
        assert_eq!(time_text(i64::MAX), i64::MAX.to_string());
        assert_eq!(time_text(0).len(), "1970/01/01 00:00:00".len());
    }
}
