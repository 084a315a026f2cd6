//! Handlers of the family `statistics`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `statistics`.
pub const STATISTICS: &[Key] = &[];
/// Keys of `stats`.
pub const STATS: &[Key] = &[];
/// Keys of `dbstatistics`.
pub const DBSTATISTICS: &[Key] = &[];

/// `statistics`.
///
/// # Errors
/// Not part of this build.
pub fn statistics(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("statistics: not part of this build"))
}

/// `statisticsreset`.
///
/// # Errors
/// Not part of this build.
pub fn statisticsreset(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("statisticsreset: not part of this build"))
}

/// `stats`.
///
/// # Errors
/// Not part of this build.
pub fn stats(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("stats: not part of this build"))
}

/// `dbstatistics`.
///
/// # Errors
/// Not part of this build.
pub fn dbstatistics(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("dbstatistics: not part of this build"))
}
