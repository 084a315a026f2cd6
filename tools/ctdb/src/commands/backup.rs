//! Handlers of the family `backup`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;
use crate::tool::Tool;

/// Keys of `dumpdbbackup`.
pub const DUMPDBBACKUP: &[Key] = &[];

/// `backupdb`.
///
/// # Errors
/// Not part of this build.
pub fn backupdb(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("backupdb: not part of this build"))
}

/// `restoredb`.
///
/// # Errors
/// Not part of this build.
pub fn restoredb(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("restoredb: not part of this build"))
}

/// `dumpdbbackup`.
///
/// # Errors
/// Not part of this build.
pub fn dumpdbbackup(_tool: &mut Tool<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("dumpdbbackup: not part of this build"))
}

/// `wipedb`.
///
/// # Errors
/// Not part of this build.
pub fn wipedb(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("wipedb: not part of this build"))
}
