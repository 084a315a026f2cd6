//! The PID file: who runs, and that only one does.
//!
//! Invariant: the lock is the process's (a byte-range lock, as C takes it), so no other descriptor
//! of this file may ever be closed while the daemon lives.
//!
//! Origin: `ctdb/common/pidfile.c`; `docs/spec/cluster-semantics.md` 1.1 item 18.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, fcntl_lock};

/// Somebody who is about to end is looked at this often.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

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
        loop {
            if let Some(file) = Self::attempt(path)? {
                return Ok(file);
            }
        }
    }

    /// [`Self::create`], giving another one `patience` to end.
    ///
    /// # Errors
    /// [`PidFileError`].
    pub fn create_patiently(path: &Path, patience: Duration) -> Result<Self, PidFileError> {
        let start = Instant::now();
        loop {
            match Self::create(path) {
                Err(PidFileError::Held { .. }) if start.elapsed() < patience => {
                    std::thread::sleep(LOOK_AGAIN);
                }
                result => return result,
            }
        }
    }

    /// `None`: the file was removed by the one who had it, between our opening and our lock.
    fn attempt(path: &Path) -> Result<Option<Self>, PidFileError> {
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
        if file.metadata().map_err(failed)?.nlink() == 0 {
            return Ok(None);
        }
        file.set_len(0).map_err(failed)?;
        (&file).write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(Some(Self { path: path.to_path_buf(), _file: file }))
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
    fn who_comes_while_another_one_ends_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eventd.pid");
        // The lock is a process's, so another process must hold it.
        let mut holder = std::process::Command::new("python3")
            .args(["-c", HOLDER])
            .arg(&path)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 1];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
        assert!(matches!(PidFile::create(&path), Err(PidFileError::Held { .. })));
        let file = PidFile::create_patiently(&path, Duration::from_secs(60));
        holder.wait().unwrap();
        let text = std::fs::read_to_string(&path);
        assert_eq!(text.unwrap(), format!("{}\n", std::process::id()), "{file:?}");
    }

    /// Locks the file, says so, and removes it before it ends, as [`PidFile`] does.
    const HOLDER: &str = "import fcntl, os, sys, time
file = open(sys.argv[1], 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print('r', end='', flush=True)
time.sleep(0.3)
os.remove(sys.argv[1])
time.sleep(0.1)
";

    #[test]
    fn an_impossible_place_is_named() {
        let error = PidFile::create(Path::new("/proc/none/ctdbd.pid")).unwrap_err();
        assert!(error.to_string().contains("/proc/none/ctdbd.pid"), "{error}");
    }
}
