//! The PID file: who runs, and that only one does.
//!
//! Invariant: the lock is the process's (a byte-range lock, as C takes it), so no other descriptor
//! of this file may ever be closed while the daemon lives.
//!
//! Origin: `ctdb/common/pidfile.c`; `docs/spec/cluster-semantics.md` 1.1 item 18.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, fcntl_lock};

/// Why the daemon may not run.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// Another daemon runs.
    #[error("another one holds the PID file {path}: stop it first (`ctdb shutdown`)")]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("cannot write the PID file {path}: {source}; does its directory exist?")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _file: File,
}

impl PidFile {
    /// Creates, locks and writes the file.
    ///
    /// # Errors
    /// [`PidFileError`]; C's exit status is 11 then.
    pub fn create(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Write { path: path.to_path_buf(), source };
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
                return Err(PidFileError::Held { path: path.to_path_buf() });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0).map_err(failed)?;
        (&file).write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // The next start does not mind what it finds.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_the_process_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ctdbd.pid");
        std::fs::write(&path, "left behind by a longer number 999999999\n").unwrap();
        let file = PidFile::create(&path).unwrap();
        let text = std::fs::read_to_string(&path);
        assert_eq!(text.unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn an_impossible_place_is_named() {
        let error = PidFile::create(Path::new("/proc/none/ctdbd.pid")).unwrap_err();
        assert!(error.to_string().contains("/proc/none/ctdbd.pid"), "{error}");
    }
}
