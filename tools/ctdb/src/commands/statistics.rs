//! Counters of the daemon: `statistics`, `statisticsreset`, `stats`, `dbstatistics`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.7.

mod format;

use std::ffi::OsString;

use ringmaster_protocol::control::kinds;

use super::attached::find;
use crate::arguments::atoi;
use crate::command::Outcome;
use crate::session::Session;

pub use format::{DBSTATISTICS, STATISTICS, STATS};
use format::{DbStatisticsReport, History, Snapshot};

/// `statistics`.
///
/// # Errors
/// The node does not answer.
pub fn statistics(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let counters = session.control::<kinds::Statistics, _>(session.target, &())?;
    session.output().report(&Snapshot(Box::new(counters)))?;
    Ok(0)
}

/// `statisticsreset`.
///
/// # Errors
/// The node does not answer.
pub fn statisticsreset(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    session.control::<kinds::StatisticsReset, ()>(session.target, &())?;
    Ok(0)
}

/// `stats`.
///
/// # Errors
/// The node does not answer.
pub fn stats(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let count = arguments.first().map_or(0, |word| atoi(word));
    let history = session.control::<kinds::GetStatHistory, _>(session.target, &())?;
    session.output().report(&History::new(history.0, count))?;
    Ok(0)
}

/// `dbstatistics`.
///
/// # Errors
/// No such database; the node does not answer.
pub fn dbstatistics(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let found = find(session, &arguments[0])?;
    let (target, name) = (session.target, found.name);
    let report = session
        .ask::<kinds::GetDbStatistics, _>(target, &found.id, |counters| {
            DbStatisticsReport::new(&name, &counters)
        })
        .map_err(|refused| {
            refused.explain(format_args!("Failed to get statistics for DB {name}"))
        })?;
    session.output().report(&report)?;
    Ok(0)
}
