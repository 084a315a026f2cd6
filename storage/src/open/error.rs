//! What can keep a file from being opened, and what libtdb calls it.
//!
//! Origin: `docs/spec/tdb-format.md` 3.2, 3.3.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::format::{HEADER_LEN, HeaderError};
use crate::lock::LockError;
use crate::mutex::AreaError;
use crate::recovery::RecoveryError;

/// Why a file could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The arguments contradict each other.
    #[error("cannot open {path}: {reason}")]
    Argument {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A system call failed.
    #[error("cannot {action} {path}")]
    System {
        /// "open", "create", "map", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A lock could not be had.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LockError,
    },
    /// The first 168 bytes are wrong.
    #[error("{path} is not a usable TDB file: {source}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        #[source]
        source: HeaderError,
    },
    /// The file is shorter than a header.
    #[error("{path} is not a TDB file: it has {len} bytes, a header has {HEADER_LEN}")]
    Short {
        /// The file.
        path: PathBuf,
        /// Its size.
        len: u64,
    },
    /// Written on a machine of the other byte order.
    #[error("{path} is big-endian; convert it (tdbdump there, tdbrestore here, or ours)")]
    ForeignOrder {
        /// The file.
        path: PathBuf,
    },
    /// The check hashes belong to neither built-in hash.
    #[error("{path} uses an unknown hash function: check hashes {magic1:#010x}, {magic2:#010x}")]
    UnknownHash {
        /// The file.
        path: PathBuf,
        /// At offset 52.
        magic1: u32,
        /// At offset 56.
        magic2: u32,
    },
    /// The hash heads do not fit into the file.
    #[error("{path} is corrupt at offset 36: {hash_size} hash chains do not fit in {len} bytes")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// In the header.
        hash_size: u32,
        /// Logical size.
        len: u32,
    },
    /// A mutex file, and the handle did not ask for MUTEX_LOCKING.
    #[error("{path} is locked with mutexes; open it with MUTEX_LOCKING")]
    MutexesNeeded {
        /// The file.
        path: PathBuf,
    },
    /// The mutex area cannot be used here.
    #[error("cannot use the mutexes of {path}: {source}")]
    Mutexes {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: AreaError,
    },
    /// A crashed commit must be undone first, and the handle may not write.
    #[error("{path} holds an unfinished transaction; open it once for writing to undo it")]
    NeedsRecovery {
        /// The file.
        path: PathBuf,
    },
    /// Undoing a crashed commit failed.
    #[error("cannot undo the unfinished transaction of {path}")]
    Recovery {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RecoveryError,
    },
}

impl OpenError {
    /// What libtdb would leave in `errno`.
    #[must_use]
    pub fn errno(&self) -> i32 {
        let of = |source: &io::Error| source.raw_os_error().unwrap_or(libc::EIO);
        match self {
            Self::System { source, .. } => of(source),
            Self::Lock { source: LockError::System { source, .. }, .. } => of(source),
            Self::Header { source, .. } => match source {
                HeaderError::NotTdb | HeaderError::Version { .. } => libc::EIO,
                _ => libc::ENOSYS,
            },
            Self::Argument { .. }
            | Self::UnknownHash { .. }
            | Self::Truncated { .. }
            | Self::MutexesNeeded { .. }
            | Self::Mutexes { .. } => libc::EINVAL,
            Self::Short { .. }
            | Self::ForeignOrder { .. }
            | Self::NeedsRecovery { .. }
            | Self::Recovery { .. }
            | Self::Lock { .. } => libc::EIO,
        }
    }
}
