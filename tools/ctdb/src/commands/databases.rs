//! Handlers of the family `databases`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `getdbmap`.
pub const GETDBMAP: &[Key] = &[];
/// Keys of `getdbstatus`.
pub const GETDBSTATUS: &[Key] = &[];
/// Keys of `getdbseqnum`.
pub const GETDBSEQNUM: &[Key] = &[];

/// `getdbmap`.
///
/// # Errors
/// Not part of this build.
pub fn getdbmap(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("getdbmap: not part of this build"))
}

/// `getdbstatus`.
///
/// # Errors
/// Not part of this build.
pub fn getdbstatus(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("getdbstatus: not part of this build"))
}

/// `attach`.
///
/// # Errors
/// Not part of this build.
pub fn attach(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("attach: not part of this build"))
}

/// `detach`.
///
/// # Errors
/// Not part of this build.
pub fn detach(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("detach: not part of this build"))
}

/// `setdbreadonly`.
///
/// # Errors
/// Not part of this build.
pub fn setdbreadonly(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("setdbreadonly: not part of this build"))
}

/// `setdbsticky`.
///
/// # Errors
/// Not part of this build.
pub fn setdbsticky(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("setdbsticky: not part of this build"))
}

/// `getdbseqnum`.
///
/// # Errors
/// Not part of this build.
pub fn getdbseqnum(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("getdbseqnum: not part of this build"))
}
