//! Reading files of the other byte order, and copying them into files of ours.
//!
//! Role: a read-only look at a file that no process here may use as it is. Files of our order with
//! the old hash need none of this: every operation takes the hash the file names.
//! Invariants
//! - Only reads. Nothing is locked: the file comes from another machine.
//!
//! Origin: `docs/spec/tdb-format.md` 1.3.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::backend::file::FileStore;
use crate::chain::{StoreMode, Stored};
use crate::engine::{AccessError, Engine, Policy};
use crate::format::{ByteOrder, HEADER_LEN, Header, HeaderError, Layout};
use crate::handle::Handle;
use crate::lock::NoLocks;
use crate::open::page_size;
use crate::recovery::needs_recovery;
use crate::store::{Store, Swapped};

/// Why a foreign file cannot be read or copied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// A system call failed.
    #[error("cannot {action} {path}")]
    System {
        /// "open", "read", "map".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The header is wrong.
    #[error("{path} is not a usable TDB file: {source}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: HeaderError,
    },
    /// Not foreign, or with features or a hash that no foreign file has.
    #[error("{path}: {reason}")]
    Unsuitable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// Its records cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AccessError,
    },
    /// The target cannot be written.
    #[error("cannot copy a record of {path}: {source}")]
    Write {
        /// The file that is read.
        path: PathBuf,
        /// Why.
        #[source]
        source: AccessError,
    },
}

/// A big-endian file, open for reading.
#[derive(Debug)]
pub struct ForeignDatabase {
    path: PathBuf,
    store: Swapped<FileStore>,
    layout: Layout,
}

impl ForeignDatabase {
    /// Opens a big-endian file.
    ///
    /// # Errors
    /// [`ForeignError`].
    pub fn open(path: &Path) -> Result<Self, ForeignError> {
        let system =
            |action| move |source| ForeignError::System { action, path: path.to_owned(), source };
        let unsuitable = |reason| ForeignError::Unsuitable { path: path.to_owned(), reason };
        let file = File::open(path).map_err(system("open"))?;
        let mut bytes = [0; HEADER_LEN as usize];
        file.read_exact_at(&mut bytes, 0).map_err(system("read"))?;
        let header = Header::parse(&bytes)
            .map_err(|source| ForeignError::Header { path: path.to_owned(), source })?;
        if header.order != ByteOrder::Foreign {
            return Err(unsuitable("the file is little-endian; open it as it is"));
        }
        if header.has_mutexes() {
            return Err(unsuitable("mutexes of another processor cannot be used"));
        }
        let hash = header.hash_kind().ok_or_else(|| unsuitable("unknown hash function"))?;
        let layout = Layout { hash_size: header.hash_size, hash, page_size: page_size() };
        let store = Swapped(FileStore::new(file, 0, false, false).map_err(system("map"))?);
        if layout.data_start() > store.known_len() {
            return Err(unsuitable("the hash chains do not fit in the file"));
        }
        let read = |source: AccessError| ForeignError::Read { path: path.to_owned(), source };
        if needs_recovery(&store).map_err(|error| read(error.into()))? {
            return Err(unsuitable(
                "it holds an unfinished transaction; open it where it was made",
            ));
        }
        Ok(Self { path: path.to_owned(), store, layout })
    }

    /// Facts of the file.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Visits every record; stops at `false`.
    ///
    /// # Errors
    /// [`ForeignError::Read`].
    pub fn for_each(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ForeignError> {
        let mut locks = NoLocks::default();
        let (store, layout, policy) = (&self.store, self.layout, Policy::default());
        let engine = Engine { store, locks: &mut locks, layout, policy };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut wanted = true;
        for chain in 0..layout.hash_size {
            engine
                .visit_chain(chain, &mut key, &mut value, |key, value| {
                    wanted = visit(key, value);
                    wanted
                })
                .map_err(|source| ForeignError::Read { path: self.path.clone(), source })?;
            if !wanted {
                break;
            }
        }
        Ok(())
    }

    /// Copies every record into a database of ours; returns how many.
    ///
    /// # Errors
    /// [`ForeignError`]; records copied so far stay.
    pub fn copy_into(&self, target: &mut Handle) -> Result<u64, ForeignError> {
        let mut copied = 0;
        let mut failed = None;
        self.for_each(|key, value| {
            match target.store(key, &[value], StoreMode::Replace) {
                Ok(Stored::Busy) => failed = Some(AccessError::busy("the freelist")),
                Ok(Stored::Done | Stored::Exists | Stored::Missing) => copied += 1,
                Err(error) => failed = Some(error),
            }
            failed.is_none()
        })?;
        match failed {
            None => Ok(copied),
            Some(source) => Err(ForeignError::Write { path: self.path.clone(), source }),
        }
    }
}
