//! Dumps of records: `catdb`, `cattdb`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.8.3, A.1.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::time::Duration;

use super::attached::{attach_found, find, open};
use super::record::{RECORDS, Shown, Sink};
use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// The daemon ends a traverse after `TraverseTimeout` (20 s); a pause longer than that is its end.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Keys of `catdb`.
pub const CATDB: &[Key] = RECORDS;
/// Keys of `cattdb`.
pub const CATTDB: &[Key] = RECORDS;

/// `catdb`: every record once, from the node that owns it.
///
/// # Errors
/// No such database; the traverse breaks off.
pub fn catdb(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    attach_found(session, &found)?;
    let pause = session.timeout().max(PAUSE_MAX);
    let Session { tool, client, .. } = session;
    let mut sink = Sink::new(&mut tool.output);
    let walked = client.traverse(found.id, false, pause, |record| match record.header {
        Some(header) => sink.put(&Shown { key: record.key, header, value: record.value }),
        None => ControlFlow::Continue(()),
    });
    let dump = sink.finish(walked.is_ok().then_some("records"))?;
    walked.map_err(Failure::new)?;
    if let Some(dump) = dump {
        tool.output.report(&dump)?;
    }
    Ok(0)
}

/// `cattdb`: what this node's file holds.
///
/// # Errors
/// No such database; its file cannot be read.
pub fn cattdb(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    let mut database = open(session, &found)?;
    let timeout = session.timeout();
    let mut sink = Sink::new(session.output());
    let walked = database.for_each_local(timeout, |key, header, value| {
        sink.put(&Shown { key, header, value }).is_continue()
    });
    let dump = sink.finish(walked.is_ok().then_some("record(s)"))?;
    walked.map_err(Failure::new)?;
    if let Some(dump) = dump {
        session.output().report(&dump)?;
    }
    Ok(0)
}
