//! Handlers of the family `tunables`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `getvar`.
pub const GETVAR: &[Key] = &[];
/// Keys of `listvars`.
pub const LISTVARS: &[Key] = &[];

/// `getvar`.
///
/// # Errors
/// Not part of this build.
pub fn getvar(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("getvar: not part of this build"))
}

/// `setvar`.
///
/// # Errors
/// Not part of this build.
pub fn setvar(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("setvar: not part of this build"))
}

/// `listvars`.
///
/// # Errors
/// Not part of this build.
pub fn listvars(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("listvars: not part of this build"))
}
