//! Where the daemon's socket is.
//!
//! Role: the rule that programs and daemon share. Reads the environment only through its argument.
//! Origin: `docs/spec/wire-protocol.md` 6.1, `docs/spec/cluster-semantics.md` 12.3;
//! `ctdb/common/path.c`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Socket of a daemon installed in the usual way (Debian's path).
pub const DEFAULT_SOCKET: &str = "/run/ctdb/ctdbd.socket";

/// The socket for the environment of this process, see [`socket_path_in`].
#[must_use]
pub fn socket_path() -> PathBuf {
    socket_path_in(|name| env::var_os(name))
}

/// `CTDB_SOCKET` if set and not empty (C 4.17 honours it always, newer C in test mode only); else in
/// test mode (`CTDB_TEST_MODE` set) `run/ctdbd.socket` below `CTDB_BASE`; else
/// [`DEFAULT_SOCKET`].
pub fn socket_path_in(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(socket) = set("CTDB_SOCKET") {
        return PathBuf::from(socket);
    }
    match set("CTDB_BASE") {
        Some(base) if variable("CTDB_TEST_MODE").is_some() => {
            Path::new(&base).join("run/ctdbd.socket")
        }
        _ => PathBuf::from(DEFAULT_SOCKET),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(variables: &[(&str, &str)]) -> PathBuf {
        socket_path_in(|name| {
            let (_, value) = variables.iter().find(|(candidate, _)| *candidate == name)?;
            Some(OsString::from(value))
        })
    }

    #[test]
    fn the_base_directory_counts_only_in_test_mode() {
        assert_eq!(path(&[]), Path::new(DEFAULT_SOCKET));
        assert_eq!(path(&[("CTDB_BASE", "/b")]), Path::new(DEFAULT_SOCKET));
        let test_mode = [("CTDB_BASE", "/b"), ("CTDB_TEST_MODE", "")];
        assert_eq!(path(&test_mode), Path::new("/b/run/ctdbd.socket"));
    }

    #[test]
    fn a_named_socket_comes_first() {
        let all = [("CTDB_BASE", "/b"), ("CTDB_TEST_MODE", "1"), ("CTDB_SOCKET", "/s")];
        assert_eq!(path(&all), Path::new("/s"));
        assert_eq!(path(&[("CTDB_SOCKET", "")]), Path::new(DEFAULT_SOCKET));
    }
}
