//! Handlers of the family `debug`.

use std::ffi::OsString;

use crate::command::{Failure, Key, Outcome};
use crate::session::Session;

/// Keys of `getdebug`.
pub const GETDEBUG: &[Key] = &[];
/// Keys of `dumpmemory`.
pub const DUMPMEMORY: &[Key] = &[];
/// Keys of `rddumpmemory`.
pub const RDDUMPMEMORY: &[Key] = &[];

/// `setdebug`.
///
/// # Errors
/// Not part of this build.
pub fn setdebug(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("setdebug: not part of this build"))
}

/// `getdebug`.
///
/// # Errors
/// Not part of this build.
pub fn getdebug(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("getdebug: not part of this build"))
}

/// `dumpmemory`.
///
/// # Errors
/// Not part of this build.
pub fn dumpmemory(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("dumpmemory: not part of this build"))
}

/// `rddumpmemory`.
///
/// # Errors
/// Not part of this build.
pub fn rddumpmemory(_session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    Err(Failure::new("rddumpmemory: not part of this build"))
}
