//! The directory of a cluster, and the proof that its owner lives.
//!
//! Role: makes `ringmaster-cluster.PID.N` under the temporary directory and removes what owners
//! that died (killed test, power loss) left there: processes first, then files.
//! Invariants: a directory whose `owner` file is locked is in use; the name appears only after the
//! lock is held, so nobody removes a directory in the making.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use super::processes;

const PREFIX: &str = "ringmaster-cluster.";

/// A cluster's directory. Removed with everything in it, and every process of it, on drop.
#[derive(Debug)]
pub(super) struct Lease {
    directory: PathBuf,
    _owner: File,
}

impl Lease {
    /// A new, empty directory; leftovers of dead owners are removed first.
    pub(super) fn take() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let root = std::env::temp_dir();
        remove_leftovers(&root);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}.{number}", std::process::id());
        let (hidden, directory) = (root.join(format!(".{name}")), root.join(&name));
        // A former process with our pid may have died between the two names.
        let _ = fs::remove_dir_all(&hidden);
        fs::create_dir(&hidden).with_context(|| format!("cannot make {}", hidden.display()))?;
        let owner = File::create(hidden.join("owner")).context("cannot make the owner file")?;
        owner.lock().context("cannot lock the owner file")?;
        fs::rename(&hidden, &directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self { directory, _owner: owner })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    if let Err(error) = processes::kill_all(directory) {
        eprintln!("{error:#}");
    }
    if std::env::var_os(super::KEEP).is_some() {
        eprintln!("kept: {}", directory.display());
        return;
    }
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != ErrorKind::NotFound
    {
        eprintln!("cannot remove {}: {error}", directory.display());
    }
}

fn remove_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let directory = entry.path();
        let Ok(owner) = File::options().read(true).open(directory.join("owner")) else { continue };
        if owner.try_lock().is_ok() {
            remove(&directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn what_a_dead_owner_left_is_removed_and_what_a_living_one_has_is_not() {
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let directory = root.path().join(name);
            fs::create_dir(&directory).unwrap();
            let owner = File::create(directory.join("owner")).unwrap();
            (directory, owner)
        };
        let (dead, owner) = make("ringmaster-cluster.1.0");
        drop(owner);
        let (living, owner) = make("ringmaster-cluster.1.1");
        owner.lock().unwrap();
        let base = dead.join("node.0");
        let mut left = Command::new("sleep").arg("1000").env("CTDB_BASE", base).spawn().unwrap();
        remove_leftovers(root.path());
        assert!(!left.wait().unwrap().success());
        assert!(!dead.exists());
        assert!(living.exists());
    }
}
