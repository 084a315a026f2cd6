//! Where the tool finds the daemon's socket, the configuration and the helpers.
//!
//! Role: the common paths, and the directory of the helpers that belong to this program.
//! Origin: `docs/spec/admin-interface.md` 0, 1.2, 2.5.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use ringmaster_control::config::Paths;
use ringmaster_control::config::paths::{BaseNotSet, HELPER_DIR};

/// The directories and the socket of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub paths: Paths,
    /// Programs that are run on the user's behalf.
    pub helpers: PathBuf,
}

impl Places {
    /// From environment variables; `installed_helpers` is the directory beside this program, if
    /// there is one.
    ///
    /// # Errors
    /// Test mode without `CTDB_BASE`.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
        installed_helpers: Option<PathBuf>,
    ) -> Result<Self, BaseNotSet> {
        let paths = Paths::from_environment(&variable)?;
        let installed = installed_helpers.unwrap_or_else(|| HELPER_DIR.into());
        let helpers = match variable("CTDB_TEST_HELPER_BINDIR") {
            Some(directory) if paths.is_test_mode() => directory.into(),
            _ => installed,
        };
        Ok(Self { paths, helpers })
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.paths.socket(OsStr::new("ctdbd"))
    }

    /// A helper program: the file that `variable` names, else `name` in the helpers' directory.
    #[must_use]
    pub fn helper(&self, name: &str, variable: Option<OsString>) -> PathBuf {
        variable.map_or_else(|| self.helpers.join(name), PathBuf::from)
    }
}

/// `libexec/ctdb` of the installation that `program` (`PREFIX/bin/ctdb`) belongs to.
#[must_use]
pub fn helpers_beside(program: &Path) -> Option<PathBuf> {
    let helpers = program.parent()?.parent()?.join("libexec/ctdb");
    helpers.is_dir().then_some(helpers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> Places {
        Places::from_environment(
            |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()),
            None,
        )
        .unwrap()
    }

    #[test]
    fn the_helpers_directory_can_be_named_in_test_mode_only() {
        let directory = ("CTDB_TEST_HELPER_BINDIR", "/h");
        assert_eq!(
            places(&[directory]).helper("ctdb_lvs", None),
            Path::new("/usr/libexec/ctdb/ctdb_lvs")
        );
        let test = places(&[directory, ("CTDB_TEST_MODE", ""), ("CTDB_BASE", "/b")]);
        assert_eq!(test.helper("ctdb_lvs", None), Path::new("/h/ctdb_lvs"));
        assert_eq!(test.helper("ctdb_lvs", Some("/x".into())), Path::new("/x"));
    }
}
