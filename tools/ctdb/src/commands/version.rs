//! `version`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.3, 1.5.6.

use std::ffi::OsString;

use serde::Serialize;

use crate::command::{Key, Outcome, key};
use crate::output::Report;
use crate::page::Page;
use crate::tool::Tool;

/// The Samba version whose interfaces these are, in the form of a distributor's build. Agents
/// compare the number at its beginning (at least 4.9.0).
pub const SAMBA_VERSION: &str = "4.17.12-Ringmaster";

/// Keys of `version`.
pub const VERSION: &[Key] = &[
    key("version", "string", "Samba version that the node announces"),
    key("ringmaster_version", "string", "version of this implementation"),
];

#[derive(Clone, Copy, Debug, Serialize)]
struct Version {
    version: &'static str,
    ringmaster_version: &'static str,
}

impl Report for Version {
    fn human(&self, page: &mut Page) {
        page.line(self.version);
    }
}

/// `version`.
///
/// # Errors
/// Standard output cannot be written.
pub fn version(tool: &mut Tool<'_>, _arguments: &[OsString]) -> Outcome {
    let ringmaster_version = env!("CARGO_PKG_VERSION");
    tool.output.report(&Version { version: SAMBA_VERSION, ringmaster_version })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human};

    #[test]
    fn the_version_is_one_word_that_begins_with_the_number() {
        let version = Version { version: SAMBA_VERSION, ringmaster_version: "0.1.0" };
        assert!(human(&version).starts_with("4.17.12-"));
        documented(&version, VERSION);
    }
}
