//! What the tools take from the process's environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ringmaster_control::config::Paths;
use ringmaster_control::config::ctdb_conf::{ScriptState, Surroundings};

/// Arguments without the program's name.
#[must_use]
pub fn args() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// popt and getopt stop at the first word when this is set.
#[must_use]
pub fn posixly_correct() -> bool {
    std::env::var_os("POSIXLY_CORRECT").is_some()
}

/// Directories by the environment. Prints C's message and aborts, as C does, when the test mode
/// is set up only in part.
#[must_use]
pub fn paths() -> Paths {
    match Paths::from_environment(|name| std::env::var_os(name)) {
        Ok(paths) => paths,
        Err(error) => {
            crate::output::complain(error.to_string());
            std::process::abort();
        }
    }
}

/// The real file system, for the validation of `ctdb.conf`.
#[derive(Debug)]
pub struct RealSurroundings {
    pub etc_dir: PathBuf,
}

impl Surroundings for RealSurroundings {
    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn script_state(&self, path: &Path) -> ScriptState {
        use std::os::unix::fs::PermissionsExt;
        match std::fs::metadata(path) {
            Err(_) => ScriptState::Missing,
            Ok(found) if !found.is_file() => ScriptState::NotAFile,
            Ok(found) if found.permissions().mode() & 0o100 == 0 => ScriptState::NotExecutable,
            Ok(_) => ScriptState::Executable,
        }
    }

    fn etc_dir(&self) -> PathBuf {
        self.etc_dir.clone()
    }
}
