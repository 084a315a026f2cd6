//! Where everything lies: directories and files of an installation, or of one test node.
//!
//! Role: names only; whether a file exists is the caller's question.
//! Invariants
//! - The installed directories are Debian's, because scripts, agents and the C tools look there.
//! - With `CTDB_TEST_MODE` in the environment (any value, even empty) everything lies below
//!   `CTDB_BASE`, which must then be set; without it `CTDB_BASE` changes no path here.
//! - `CTDB_SOCKET` replaces the path of ctdbd's own socket, in both modes.
//! - Paths are put together by plain concatenation, so that they are the same bytes C prints.
//!
//! Origin: `ctdb/common/path.c`; `docs/spec/admin-interface.md` 2.5, 3.1.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use thiserror::Error;

/// Directory of the daemon's helper programs; the same in test mode.
pub const HELPER_DIR: &str = "/usr/libexec/ctdb";
/// Default of `[database] volatile database directory`; the same in test mode.
pub const VOLATILE_DIR: &str = "/var/lib/ctdb/volatile";
/// Default of `[database] persistent database directory`; the same in test mode.
pub const PERSISTENT_DIR: &str = "/var/lib/ctdb/persistent";
/// Default of `[database] state database directory`; the same in test mode.
pub const STATE_DIR: &str = "/var/lib/ctdb/state";
/// Default of `[logging] location`; the same in test mode.
pub const LOG_LOCATION: &str = "file:/var/log/ctdb/log.ctdb";

/// `CTDB_TEST_MODE` is set, `CTDB_BASE` is not. C prints this and aborts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("Broken CTDB setup, CTDB_BASE not set in test mode")]
pub struct BaseNotSet;

/// The four directories everything else is below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    data: OsString,
    etc: OsString,
    run: OsString,
    var: OsString,
    ctdbd_socket: Option<OsString>,
    test_mode: bool,
}

impl Paths {
    /// Debian's directories.
    #[must_use]
    pub fn installed() -> Self {
        Self {
            data: "/usr/share/ctdb".into(),
            etc: "/etc/ctdb".into(),
            run: "/run/ctdb".into(),
            var: "/var/lib/ctdb".into(),
            ctdbd_socket: None,
            test_mode: false,
        }
    }

    /// Directories of a test node below `base`.
    #[must_use]
    pub fn below(base: &OsStr) -> Self {
        Self {
            data: join(base, "share"),
            etc: base.to_owned(),
            run: join(base, "run"),
            var: join(base, "var"),
            ctdbd_socket: None,
            test_mode: true,
        }
    }

    /// Decides by the environment; `variable` looks one variable up.
    ///
    /// # Errors
    /// [`BaseNotSet`].
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, BaseNotSet> {
        let mut paths = if variable("CTDB_TEST_MODE").is_some() {
            Self::below(&variable("CTDB_BASE").ok_or(BaseNotSet)?)
        } else {
            Self::installed()
        };
        paths.ctdbd_socket = variable("CTDB_SOCKET");
        Ok(paths)
    }

    /// True when the paths are those of a test node.
    #[must_use]
    pub const fn is_test_mode(&self) -> bool {
        self.test_mode
    }

    /// Shipped event scripts are in `events/` below it.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data.clone().into()
    }

    /// Configuration; scripts know it as `CTDB_BASE`.
    #[must_use]
    pub fn etc_dir(&self) -> PathBuf {
        self.etc.clone().into()
    }

    /// Sockets and PID files.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run.clone().into()
    }

    /// Databases and script state.
    #[must_use]
    pub fn var_dir(&self) -> PathBuf {
        self.var.clone().into()
    }

    /// `relative` below the data directory.
    #[must_use]
    pub fn data_file(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        join(&self.data, relative).into()
    }

    /// `relative` below the configuration directory.
    #[must_use]
    pub fn etc_file(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        join(&self.etc, relative).into()
    }

    /// `relative` below the run directory.
    #[must_use]
    pub fn run_file(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        join(&self.run, relative).into()
    }

    /// `relative` below the var directory.
    #[must_use]
    pub fn var_file(&self, relative: impl AsRef<OsStr>) -> PathBuf {
        join(&self.var, relative).into()
    }

    /// `ctdb.conf`.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.etc_file("ctdb.conf")
    }

    /// `ringmaster.conf`: settings C does not know.
    #[must_use]
    pub fn native_config_file(&self) -> PathBuf {
        self.etc_file("ringmaster.conf")
    }

    /// The nodes file when `[cluster] nodes list` does not name another.
    #[must_use]
    pub fn nodes_file(&self) -> PathBuf {
        self.etc_file("nodes")
    }

    /// `public_addresses`.
    #[must_use]
    pub fn public_addresses_file(&self) -> PathBuf {
        self.etc_file("public_addresses")
    }

    /// `home_nodes`.
    #[must_use]
    pub fn home_nodes_file(&self) -> PathBuf {
        self.etc_file("home_nodes")
    }

    /// `ctdb.tunables`; read before the files of [`Paths::tunables_dir`].
    #[must_use]
    pub fn tunables_file(&self) -> PathBuf {
        self.etc_file("ctdb.tunables")
    }

    /// Directory of `*.tunables` files, read in the order of their names.
    #[must_use]
    pub fn tunables_dir(&self) -> PathBuf {
        self.etc_file("tunables.d")
    }

    /// Script started when the health of the node changes.
    #[must_use]
    pub fn notify_script(&self) -> PathBuf {
        self.etc_file("notify.sh")
    }

    /// Event scripts of `component` that came with the package.
    #[must_use]
    pub fn shipped_events_dir(&self, component: &OsStr) -> PathBuf {
        join(&join(&self.data, "events"), component).into()
    }

    /// Event scripts of `component` that are enabled or local.
    #[must_use]
    pub fn events_dir(&self, component: &OsStr) -> PathBuf {
        join(&join(&self.etc, "events"), component).into()
    }

    /// Unix socket of a daemon (`ctdbd`, `eventd`).
    #[must_use]
    pub fn socket(&self, daemon: &OsStr) -> PathBuf {
        match &self.ctdbd_socket {
            Some(socket) if daemon == "ctdbd" => socket.clone().into(),
            _ => self.run_file(with_suffix(daemon, ".socket")),
        }
    }

    /// PID file of a daemon.
    #[must_use]
    pub fn pidfile(&self, daemon: &OsStr) -> PathBuf {
        self.run_file(with_suffix(daemon, ".pid"))
    }

    /// A helper program, e.g. `ctdb_mutex_fcntl_helper`.
    #[must_use]
    pub fn helper(&self, program: &str) -> PathBuf {
        join(OsStr::new(HELPER_DIR), program).into()
    }

    /// Wiped and made anew by `00.ctdb.script` at `init`.
    #[must_use]
    pub fn script_state_dir(&self) -> PathBuf {
        self.var_file("scripts")
    }
}

fn join(directory: &OsStr, file: impl AsRef<OsStr>) -> OsString {
    let mut path = directory.to_owned();
    path.push("/");
    path.push(file);
    path
}

fn with_suffix(name: &OsStr, suffix: &str) -> OsString {
    let mut file = name.to_owned();
    file.push(suffix);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Paths, BaseNotSet> {
        Paths::from_environment(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        })
    }

    fn ctdbd(paths: &Paths) -> PathBuf {
        paths.socket(OsStr::new("ctdbd"))
    }

    #[test]
    fn base_alone_changes_nothing() {
        let paths = from(&[("CTDB_BASE", "/elsewhere")]).unwrap();
        assert_eq!(paths, Paths::installed());
        assert_eq!(paths.config_file(), PathBuf::from("/etc/ctdb/ctdb.conf"));
        assert_eq!(ctdbd(&paths), PathBuf::from("/run/ctdb/ctdbd.socket"));
    }

    #[test]
    fn test_mode_puts_everything_below_base() {
        let paths = from(&[("CTDB_TEST_MODE", ""), ("CTDB_BASE", "/t")]).unwrap();
        assert_eq!(paths.config_file(), PathBuf::from("/t/ctdb.conf"));
        assert_eq!(paths.pidfile(OsStr::new("eventd")), PathBuf::from("/t/run/eventd.pid"));
        assert_eq!(paths.data_dir(), PathBuf::from("/t/share"));
        assert_eq!(paths.var_dir(), PathBuf::from("/t/var"));
        assert_eq!(paths.events_dir(OsStr::new("legacy")), PathBuf::from("/t/events/legacy"));
    }

    #[test]
    fn test_mode_without_base_is_refused() {
        assert_eq!(from(&[("CTDB_TEST_MODE", "1")]), Err(BaseNotSet));
    }

    #[test]
    fn a_base_that_ends_in_a_slash_shows_in_the_path() {
        let paths = from(&[("CTDB_TEST_MODE", "1"), ("CTDB_BASE", "/a/")]).unwrap();
        assert_eq!(paths.var_dir().as_os_str(), "/a//var");
    }

    #[test]
    fn socket_variable_moves_only_the_daemons_socket() {
        let paths = from(&[("CTDB_SOCKET", "/s")]).unwrap();
        assert_eq!(ctdbd(&paths), PathBuf::from("/s"));
        assert_eq!(paths.socket(OsStr::new("eventd")), PathBuf::from("/run/ctdb/eventd.socket"));
    }
}
