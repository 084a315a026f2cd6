//! Handlers of the family `persistent`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `pfetch`.
pub const PFETCH: &[Key] = &[];

/// `pfetch`.
///
/// # Errors
/// Not part of this build.
pub fn pfetch(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("pfetch: not part of this build"))
}

/// `pstore`.
///
/// # Errors
/// Not part of this build.
pub fn pstore(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("pstore: not part of this build"))
}

/// `pdelete`.
///
/// # Errors
/// Not part of this build.
pub fn pdelete(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("pdelete: not part of this build"))
}

/// `ptrans`.
///
/// # Errors
/// Not part of this build.
pub fn ptrans(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("ptrans: not part of this build"))
}
