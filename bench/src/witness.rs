//! A witness of a lock, outside of every database: would see two holders.
//!
//! Role: a file with who is inside and how often somebody was; changed by nobody but the holder.
//! Origin: the lock under test is the only thing that orders its reads and writes; two holders at a
//! time read each other's number or lose a count.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// See the module.
pub(crate) struct Witness(File);

impl Witness {
    /// Opens it; an empty file is one of a lock that nobody has held.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        file.map(Self).with_context(|| format!("cannot open {}", path.display()))
    }

    /// `holder` has got the lock.
    pub(crate) fn enter(&self, holder: u64) -> Result<()> {
        let (inside, times) = self.read()?;
        ensure!(inside == 0, "two holders of one lock: process {holder} beside {inside}");
        self.write(holder, times + 1)
    }

    /// It is about to give it back.
    pub(crate) fn leave(&self, holder: u64) -> Result<()> {
        let (inside, times) = self.read()?;
        ensure!(inside == holder, "two holders of one lock: process {inside} beside {holder}");
        self.write(0, times)
    }

    /// How often somebody was inside; nobody must be now.
    pub(crate) fn times(&self) -> Result<u64> {
        let (inside, times) = self.read()?;
        ensure!(inside == 0, "process {inside} has not given the lock back");
        Ok(times)
    }

    fn read(&self) -> Result<(u64, u64)> {
        let mut bytes = [0; 16];
        let len = self.0.read_at(&mut bytes, 0).context("cannot read the witness")?;
        ensure!(len == 0 || len == bytes.len(), "half a witness");
        let number = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes);
        Ok((number(0)?, number(8)?))
    }

    fn write(&self, inside: u64, times: u64) -> Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&inside.to_le_bytes());
        bytes[8..].copy_from_slice(&times.to_le_bytes());
        self.0.write_all_at(&bytes, 0).context("cannot write the witness")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_are_seen_and_visits_are_counted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Witness::open(file.path()).unwrap();
        let (one, other) = (open(), open());
        one.enter(7).unwrap();
        assert!(one.times().is_err(), "somebody is inside");
        assert!(other.enter(8).is_err());
        assert!(other.leave(8).is_err());
        one.leave(7).unwrap();
        other.enter(8).unwrap();
        other.leave(8).unwrap();
        assert_eq!(one.times().unwrap(), 2);
    }
}
