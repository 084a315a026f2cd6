//! Handlers of the family `dump`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `catdb`.
pub const CATDB: &[Key] = &[];
/// Keys of `cattdb`.
pub const CATTDB: &[Key] = &[];

/// `catdb`.
///
/// # Errors
/// Not part of this build.
pub fn catdb(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("catdb: not part of this build"))
}

/// `cattdb`.
///
/// # Errors
/// Not part of this build.
pub fn cattdb(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("cattdb: not part of this build"))
}
