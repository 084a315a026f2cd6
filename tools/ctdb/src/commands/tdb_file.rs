//! Handlers of the family `tdb_file`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `tfetch`.
pub const TFETCH: &[Key] = &[];

/// `tfetch`.
///
/// # Errors
/// Not part of this build.
pub fn tfetch(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("tfetch: not part of this build"))
}

/// `tstore`.
///
/// # Errors
/// Not part of this build.
pub fn tstore(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("tstore: not part of this build"))
}
