//! Attaching to databases: name to id, path and open flags.
//!
//! Role: the sequence of controls that precedes every use of a database. Opening the file is left
//! to `database`.
//! Origin: `ctdb/client/client_db.c: ctdb_attach`; `docs/spec/wire-protocol.md` 3.5 (row A),
//! `docs/spec/cluster-semantics.md` 2.2.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ringmaster_protocol::control::kinds;
use ringmaster_protocol::control::payloads::{DbIdMap, TdbOpenFlags};
use ringmaster_protocol::database::DbFlags;
use ringmaster_protocol::text::Text;
use ringmaster_protocol::{DbId, Pnn};
use thiserror::Error;

use crate::client::{Client, ControlOptions};
use crate::error::ControlError;

/// Kind of a database. It decides where the file is and who may write it how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DbKind {
    /// Each record lives on one node at a time; gone when the cluster stops.
    Volatile,
    /// Every node has all records, on disk; written by transactions.
    Persistent,
    /// As persistent, but gone when the cluster stops.
    Replicated,
}

impl DbKind {
    /// The kind that the flags of GET_DBMAP tell.
    #[must_use]
    pub const fn from_flags(flags: DbFlags) -> Self {
        if flags.contains(DbFlags::PERSISTENT) {
            Self::Persistent
        } else if flags.contains(DbFlags::REPLICATED) {
            Self::Replicated
        } else {
            Self::Volatile
        }
    }

    /// Whether every node has all records.
    #[must_use]
    pub const fn is_everywhere(self) -> bool {
        !matches!(self, Self::Volatile)
    }
}

/// An attached database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its id.
    pub id: DbId,
    /// Its name, e.g. `locking.tdb`.
    pub name: String,
    /// Its kind.
    pub kind: DbKind,
    /// This node's file.
    pub path: PathBuf,
    /// How a client must open the file.
    pub open_flags: TdbOpenFlags,
}

/// A database cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A control failed. The first one fails on a banned or stopped node, and waits during a
    /// recovery.
    #[error("cannot attach to database {name}")]
    Control {
        /// The database.
        name: String,
        /// Which control, and why.
        #[source]
        source: ControlError,
    },
    /// The daemon found the file of a persistent database damaged.
    #[error("database {name} is not healthy: {reason}; restore it from a backup or wipe it")]
    Unhealthy {
        /// The database.
        name: String,
        /// What the daemon says.
        reason: String,
    },
}

impl Client {
    /// Attaches to a database, creating it on all nodes if it does not exist.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, name: &str, kind: DbKind) -> Result<Attached, AttachError> {
        let to = self.own_node();
        let text = Text::new(name);
        let id = match kind {
            DbKind::Volatile => self.control::<kinds::DbAttach>(to, &text),
            DbKind::Persistent => self.control::<kinds::DbAttachPersistent>(to, &text),
            DbKind::Replicated => self.control::<kinds::DbAttachReplicated>(to, &text),
        };
        let failed = |source| AttachError::Control { name: name.to_owned(), source };
        let id = id.map_err(failed)?;
        let path = self.control::<kinds::GetDbPath>(to, &id).map_err(failed)?;
        let path = PathBuf::from(OsStr::from_bytes(path.as_bytes()));
        let health = self.control::<kinds::DbGetHealth>(to, &id).map_err(failed)?;
        if let Some(reason) = health {
            let reason = reason.to_string();
            return Err(AttachError::Unhealthy { name: name.to_owned(), reason });
        }
        let open_flags = self.control::<kinds::DbOpenFlags>(to, &id).map_err(failed)?;
        Ok(Attached { id, name: name.to_owned(), kind, path, open_flags })
    }

    /// Removes a volatile database from all nodes, with all its records. Every node must have been
    /// told to refuse attaching first (tunable `AllowClientDBAttach` 0), and no client may use it.
    ///
    /// # Errors
    /// [`ControlError`]; the daemon's log says which condition is not met.
    pub fn detach(&mut self, db: DbId) -> Result<(), ControlError> {
        let own = self.own_node();
        self.control::<kinds::DbDetach>(own, &db)
    }

    /// Lets other nodes keep read-only copies of this volatile database's records.
    ///
    /// # Errors
    /// The first node's [`ControlError`].
    pub fn enable_readonly(&mut self, db: DbId, nodes: &[Pnn]) -> Result<(), ControlError> {
        let mut result = Ok(());
        self.control_each::<kinds::SetDbReadonly>(
            nodes,
            &db,
            ControlOptions::default(),
            |_, done| {
                if result.is_ok() {
                    result = done;
                }
            },
        );
        result
    }

    /// The attached databases of this node with their names, newest first.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn databases(&mut self) -> Result<Vec<(DbId, DbKind, String)>, ControlError> {
        let to = self.own_node();
        let DbIdMap(entries) = self.control::<kinds::GetDbMap>(to, &())?;
        let mut databases = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = self.control::<kinds::GetDbName>(to, &entry.db)?;
            let name = name.to_string();
            databases.push((entry.db, DbKind::from_flags(entry.flags), name));
        }
        Ok(databases)
    }
}
