//! The files that Debian's package ships are understood, without a complaint.
//!
//! They are read where the package installs them; without the package the tests are skipped (and
//! fail with `RINGMASTER_REQUIRE_ALL=1`).

use std::path::{Path, PathBuf};

use ringmaster_control::config::check::{Contents, check};
use ringmaster_control::config::ctdb_conf::{self, ScriptState, Strictness, Surroundings};
use ringmaster_control::config::{LogLevel, Paths, Settings, tunables_file};

struct Anything;

impl Surroundings for Anything {
    fn is_directory(&self, _: &Path) -> bool {
        true
    }
    fn script_state(&self, _: &Path) -> ScriptState {
        ScriptState::Executable
    }
    fn etc_dir(&self) -> PathBuf {
        "/etc/ctdb".into()
    }
}

fn shipped(path: &str) -> Option<Vec<u8>> {
    if let Ok(content) = std::fs::read(path) {
        return Some(content);
    }
    let reason = format!("{path} is not there (Debian package ctdb)");
    assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "{reason}");
    println!("skipped: {reason}");
    None
}

fn strictly(text: &[u8]) -> Settings {
    let loaded = ctdb_conf::load(text, Strictness::Strict, LogLevel::Error, &Anything);
    assert!(!loaded.refused);
    assert_eq!(loaded.findings, []);
    Settings::new(&loaded.table, &Paths::installed())
}

#[test]
fn the_installed_configuration_logs_to_syslog_and_sets_no_lock() {
    let Some(text) = shipped("/etc/ctdb/ctdb.conf") else { return };
    let settings = strictly(&text);
    assert_eq!(settings.log_location, "syslog");
    assert_eq!(settings.log_level, LogLevel::Notice);
    assert_eq!(settings.cluster_lock, None);
}

#[test]
fn the_example_configuration_names_its_lock() {
    let Some(text) = shipped("/usr/share/doc/ctdb/examples/ctdb.conf") else { return };
    let settings = strictly(&text);
    assert_eq!(settings.cluster_lock, Some("/shared/cluster.lock".into()));
    assert_eq!(
        settings.cluster_lock_command(&Paths::installed()).unwrap_or_default(),
        ["/usr/libexec/ctdb/ctdb_mutex_fcntl_helper", "/shared/cluster.lock"]
    );
}

#[test]
fn the_installed_tunables_file_sets_nothing() {
    let Some(text) = shipped("/etc/ctdb/ctdb.tunables") else { return };
    assert_eq!(tunables_file::parse(&text), tunables_file::TunablesFile::default());
}

/// The lists that the example configuration shows in its comments.
#[test]
fn the_lists_of_the_example_configuration_are_good() {
    let Some(text) = shipped("/usr/share/doc/ctdb/examples/ctdb.conf") else { return };
    let text = String::from_utf8_lossy(&text);
    let list = |name: &str| -> Vec<u8> {
        let frame = format!("# ---------- /etc/ctdb/{name} ----------");
        text.split(&frame)
            .nth(1)
            .map(|list| list.replace("# ", "").into_bytes())
            .unwrap_or_default()
    };
    let (nodes, addresses) = (list("nodes"), list("public_addresses"));
    let contents =
        Contents { nodes: Some(&nodes), public_addresses: Some(&addresses), ..Contents::default() };
    assert_eq!(check(&contents, &Anything, |interface| interface == "eth1"), []);
    assert!(addresses.starts_with(b"\n10.1.1.101/24 eth1\n"));
}
