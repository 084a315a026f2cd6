//! The configuration as the daemon uses it: one typed field per option of `ctdb.conf`.
//!
//! Role: turn a validated [`Table`] into values with types, units and the few rules that join two
//! options (old and new name of the cluster lock, `!command` forms).
//! Origin: `ctdb/server/ctdbd.c`, `ctdb/server/ctdb_cluster_mutex.c`;
//! `docs/spec/admin-interface.md` 2.11, 3.2.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::ctdb_conf::Table;
use super::log_level::LogLevel;
use super::options::Value;
use super::paths::Paths;
use super::validation::script_path;

/// A path, or a program whose output or life stands for the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOrCommand {
    File(PathBuf),
    /// From `!PROGRAM ARGS`: program first; split at blanks, no quoting.
    Command(Vec<OsString>),
}

impl FileOrCommand {
    /// `None` for `!` without a program.
    #[must_use]
    pub fn parse(text: &OsStr) -> Option<Self> {
        let Some(command) = text.as_bytes().strip_prefix(b"!") else {
            return Some(Self::File(text.into()));
        };
        let words: Vec<OsString> = command
            .split(|&b| b == b' ')
            .filter(|word| !word.is_empty())
            .map(|word| OsString::from_vec(word.to_vec()))
            .collect();
        (!words.is_empty()).then_some(Self::Command(words))
    }
}

/// Every option, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[logging] location`, as written.
    pub log_location: OsString,
    pub log_level: LogLevel,
    pub node_address: Option<IpAddr>,
    /// `cluster lock`, else `recovery lock`, as written: `ctdb getreclock` prints it.
    pub cluster_lock: Option<OsString>,
    pub nodes: FileOrCommand,
    pub leader_timeout_s: u32,
    pub leader_capability: bool,
    pub volatile_dir: PathBuf,
    pub persistent_dir: PathBuf,
    pub state_dir: PathBuf,
    /// Full path.
    pub lock_debug_script: Option<PathBuf>,
    pub tdb_mutexes: bool,
    /// Full path.
    pub event_debug_script: Option<PathBuf>,
    pub failover_disabled: bool,
    pub shutdown_extra_timeout_s: u32,
    /// 0: no failover before the daemon stops.
    pub shutdown_failover_timeout_s: u32,
    pub realtime_scheduling: bool,
    pub lmaster_capability: bool,
    pub start_as_stopped: bool,
    pub start_as_disabled: bool,
    pub script_log_level: LogLevel,
}

impl Settings {
    /// Total: a table made by `ctdb_conf::load` has passed validation.
    #[must_use]
    pub fn new(table: &Table, paths: &Paths) -> Self {
        let text = |section, name| match table.get(section, name) {
            Some(Value::Text(text)) => text.clone(),
            _ => None,
        };
        let number = |section, name| match table.get(section, name) {
            Some(Value::Number(number)) => *number,
            _ => 0,
        };
        let switch = |section, name| matches!(table.get(section, name), Some(Value::Switch(true)));
        let path = |section, name| PathBuf::from(text(section, name).unwrap_or_default());
        let script = |section, name| {
            text(section, name).map(|script| script_path(&paths.etc_dir(), script.as_bytes()))
        };
        let level = |section, name| {
            text(section, name)
                .and_then(|level| LogLevel::parse(level.as_bytes()))
                .unwrap_or(LogLevel::Error)
        };
        Self {
            log_location: text("logging", "location").unwrap_or_default(),
            log_level: level("logging", "log level"),
            node_address: text("cluster", "node address")
                .and_then(|address| address.to_str()?.parse().ok()),
            cluster_lock: text("cluster", "cluster lock")
                .or_else(|| text("cluster", "recovery lock")),
            nodes: text("cluster", "nodes list")
                .and_then(|list| FileOrCommand::parse(&list))
                .unwrap_or_else(|| FileOrCommand::File(paths.nodes_file())),
            leader_timeout_s: number("cluster", "leader timeout"),
            leader_capability: switch("cluster", "leader capability"),
            volatile_dir: path("database", "volatile database directory"),
            persistent_dir: path("database", "persistent database directory"),
            state_dir: path("database", "state database directory"),
            lock_debug_script: script("database", "lock debug script"),
            tdb_mutexes: switch("database", "tdb mutexes"),
            event_debug_script: script("event", "debug script"),
            failover_disabled: switch("failover", "disabled"),
            shutdown_extra_timeout_s: number("failover", "shutdown extra timeout"),
            shutdown_failover_timeout_s: number("failover", "shutdown failover timeout"),
            realtime_scheduling: switch("legacy", "realtime scheduling"),
            lmaster_capability: switch("legacy", "lmaster capability"),
            start_as_stopped: switch("legacy", "start as stopped"),
            start_as_disabled: switch("legacy", "start as disabled"),
            script_log_level: level("legacy", "script log level"),
        }
    }

    /// Program and arguments that hold the cluster lock: the configured command, or the standard
    /// helper with the lock file. `None`: no lock configured.
    #[must_use]
    pub fn cluster_lock_command(&self, paths: &Paths) -> Option<Vec<OsString>> {
        match FileOrCommand::parse(self.cluster_lock.as_ref()?)? {
            FileOrCommand::Command(words) => Some(words),
            FileOrCommand::File(file) => {
                Some(vec![paths.helper("ctdb_mutex_fcntl_helper").into(), file.into()])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ctdb_conf::tests::{Anything, load_leniently};
    use super::*;

    fn settings(text: &str) -> Settings {
        let loaded = load_leniently(text, &Anything);
        assert!(!loaded.refused, "{text}");
        Settings::new(&loaded.table, &Paths::installed())
    }

    #[test]
    fn an_empty_file_gives_the_documented_defaults() {
        let settings = settings("");
        assert_eq!(settings.log_level, LogLevel::Notice);
        assert_eq!(settings.leader_timeout_s, 5);
        assert_eq!(settings.shutdown_failover_timeout_s, 10);
        assert!(settings.leader_capability && settings.lmaster_capability && settings.tdb_mutexes);
        assert!(!settings.start_as_stopped && !settings.failover_disabled);
        assert_eq!(settings.nodes, FileOrCommand::File("/etc/ctdb/nodes".into()));
        assert_eq!(settings.cluster_lock_command(&Paths::installed()), None);
    }

    #[test]
    fn the_new_name_of_the_cluster_lock_wins_whatever_the_order() {
        let new = settings("[cluster]\ncluster lock = /new\nrecovery lock = /old\n");
        assert_eq!(new.cluster_lock, Some("/new".into()));
        let old = settings("[cluster]\nrecovery lock = /old\n");
        let command = old.cluster_lock_command(&Paths::installed()).unwrap();
        assert_eq!(command, ["/usr/libexec/ctdb/ctdb_mutex_fcntl_helper", "/old"]);
    }

    #[test]
    fn a_lock_command_is_split_at_blanks_only() {
        let settings = settings("[cluster]\ncluster lock = !/x/helper \"a b\"  c\n");
        let command = settings.cluster_lock_command(&Paths::installed()).unwrap();
        assert_eq!(command, ["/x/helper", "\"a", "b\"", "c"]);
    }
}
