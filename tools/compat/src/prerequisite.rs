//! What a test needs from the machine, and what it says when that is missing.
//!
//! Role: a test asks first and returns when told to skip. The reason is always printed, and CI
//! turns a skip into a failure, so that nothing is skipped unnoticed.
//! Invariants: looks only; installs and starts nothing.
//! Origin: file list of Debian's package `ctdb`.

use std::path::Path;

/// Set to `1` where a skipped test counts as a failed one (CI).
pub const REQUIRE_ALL: &str = "RINGMASTER_REQUIRE_ALL";

/// Directory of the C daemon's helper programs in Debian's package.
pub const C_HELPERS: &str = "/usr/libexec/ctdb";
/// The C daemon.
pub const C_DAEMON: &str = "/usr/sbin/ctdbd";
/// The C tool.
pub const C_TOOL: &str = "/usr/bin/ctdb";

/// Why a cluster of C daemons cannot run here; `None` when it can.
#[must_use]
pub fn missing_for_c_cluster() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a ctdbd cluster needs root".into());
    }
    let needed = [C_DAEMON, C_TOOL, C_HELPERS];
    let missing = needed.into_iter().find(|path| !Path::new(path).exists())?;
    Some(format!("{missing} is missing; install Debian's package `ctdb`"))
}

/// Prints why a test does not run, or fails it where nothing may be skipped.
///
/// # Panics
/// When the environment variable [`REQUIRE_ALL`] is `1`.
pub fn skip(reason: &str) {
    let required = std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
    assert!(!required, "{REQUIRE_ALL} is set, but: {reason}");
    println!("skipped: {reason}");
}

/// Leaves the calling test, with its reason printed, where no C cluster can run.
#[macro_export]
macro_rules! require_c_cluster {
    () => {
        if let Some(reason) = $crate::prerequisite::missing_for_c_cluster() {
            $crate::prerequisite::skip(&reason);
            return;
        }
    };
}
