//! Why a persistent database is not healthy: written down, so that the next start knows.
//!
//! Origin: `docs/spec/cluster-semantics.md` 4.6; `ctdb/server/ctdb_ltdb_server.c:
//! ctdb_load_persistent_health`. Key: the database's name without NUL; value: the reason; absent:
//! healthy.

use std::path::{Path, PathBuf};

use ringmaster_protocol::Pnn;
use ringmaster_storage::{
    chain::StoreMode,
    flags::Flags,
    handle::Handle,
    open::{OpenOptions, open},
};

/// Chains of a new file (libtdb's own default).
const HASH_SIZE: u32 = 131;

/// The file of one node.
#[derive(Clone, Debug)]
pub(crate) struct HealthFile {
    path: PathBuf,
}

impl HealthFile {
    /// In the state directory.
    pub(crate) fn new(state_dir: &Path, pnn: Pnn) -> Self {
        Self { path: state_dir.join(format!("persistent_health.tdb.{pnn}")) }
    }

    fn open(&self) -> Result<Handle, String> {
        let options = OpenOptions::create(HASH_SIZE, Flags::DISALLOW_NESTING);
        open(&self.path, &options).map_err(|error| {
            format!("cannot open {}: {error}; remove it to start without", self.path.display())
        })
    }

    /// The recorded reason; `None` for a healthy database. Waits for the disk.
    ///
    /// # Errors
    /// What is wrong with the file, and the remedy.
    pub(crate) fn reason(&self, database: &str) -> Result<Option<String>, String> {
        if !self.path.exists() {
            return Ok(None);
        }
        let mut value = Vec::new();
        let found = self.open()?.fetch(database.as_bytes(), &mut value);
        match found {
            Ok(true) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Ok(false) => Ok(None),
            Err(error) => Err(format!("cannot read {}: {error}", self.path.display())),
        }
    }

    /// Writes a reason down, or that there is none. Waits for the disk.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn record(&self, database: &str, reason: Option<&str>) -> Result<(), String> {
        if reason.is_none() && !self.path.exists() {
            return Ok(());
        }
        let mut handle = self.open()?;
        let key = database.as_bytes();
        let failed = |error: &dyn std::fmt::Display| {
            format!("cannot write {}: {error}", self.path.display())
        };
        match reason {
            Some(reason) => {
                let _done = handle
                    .store(key, &[reason.as_bytes()], StoreMode::Replace)
                    .map_err(|error| failed(&error))?;
            }
            None => {
                handle.delete(key).map_err(|error| failed(&error))?;
            }
        }
        handle.database().store().file().sync_data().map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_kept_until_it_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = HealthFile::new(folder.path(), Pnn::new(3).unwrap());
        assert_eq!(file.reason("a.tdb"), Ok(None));
        assert_eq!(file.record("a.tdb", None), Ok(()));
        assert!(!folder.path().join("persistent_health.tdb.3").exists(), "nothing to say yet");
        assert_eq!(file.record("a.tdb", Some("torn")), Ok(()));
        assert_eq!(file.reason("a.tdb"), Ok(Some("torn".into())));
        assert_eq!(file.reason("b.tdb"), Ok(None));
        assert_eq!(file.record("a.tdb", None), Ok(()));
        assert_eq!(file.reason("a.tdb"), Ok(None));
    }

    #[test]
    fn a_broken_file_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("persistent_health.tdb.0");
        std::fs::create_dir(&path).unwrap();
        let file = HealthFile::new(folder.path(), Pnn::new(0).unwrap());
        let error = file.reason("a.tdb").unwrap_err();
        assert!(error.contains("persistent_health.tdb.0") && error.contains("remove"), "{error}");
    }
}
