//! Handlers of the family `volatile`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `readkey`.
pub const READKEY: &[Key] = &[];

/// `readkey`.
///
/// # Errors
/// Not part of this build.
pub fn readkey(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("readkey: not part of this build"))
}

/// `writekey`.
///
/// # Errors
/// Not part of this build.
pub fn writekey(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("writekey: not part of this build"))
}

/// `deletekey`.
///
/// # Errors
/// Not part of this build.
pub fn deletekey(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("deletekey: not part of this build"))
}

/// `pushrecord`.
///
/// # Errors
/// Not part of this build.
pub fn pushrecord(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("pushrecord: not part of this build"))
}
