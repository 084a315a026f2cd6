//! Transactions on databases that every node has.
//!
//! Role: takes the cluster-wide lock, collects changes, commits them through the daemon, finds out
//! what became of a commit that a recovery interrupted.
//! Invariants
//! - Between lock and unlock nobody else who keeps the rules writes the database; who does not is
//!   found out by the sequence number, and then nothing is tried again.
//! - No TDB lock is held between calls, and the daemon is never asked while one is.
//! - A holder is robbed of the lock only when its daemon says that its process is gone.
//!
//! Origin: `docs/spec/wire-protocol.md` 7.7, 7.11, `docs/spec/cluster-semantics.md` 4.1;
//! `ctdb/client/client_db.c`.

mod changes;

use std::time::{Duration, Instant};

use ringmaster_protocol::control::kinds;
use ringmaster_protocol::control::payloads::Pid;
use ringmaster_protocol::process::ServerId;
use ringmaster_protocol::record::RecBuffer;
use ringmaster_protocol::{DbId, Decode, DecodeError, Pnn, Srvid};
use thiserror::Error;

use crate::attach::DbKind;
use crate::backoff::Backoff;
use crate::client::{Client, ControlOptions};
use crate::database::{Database, OpenDatabaseError, RecordError};
use crate::error::ControlError;
use crate::g_lock::{self, Content, LockHolder};
use crate::limits::{COMMIT_TIMEOUT_DEFAULT, LOCK_TIMEOUT_DEFAULT};
use changes::{Changes, Exhausted, Fate, SEQNUM_KEY, Stored, fate, seqnum};

/// A transaction failed. Only [`TransactionError::Unsettled`] and [`TransactionError::NotUnlocked`]
/// leave it open whether, or say that, the changes were made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Volatile databases have no transactions.
    #[error("database {name} is volatile: lock and change its records one by one")]
    Volatile {
        /// The database.
        name: String,
    },
    /// The database of locks cannot be opened.
    #[error("cannot open the database of locks")]
    OpenLocks(#[source] OpenDatabaseError),
    /// Another transaction goes on too long.
    #[error("database {name}: no transaction lock within {timeout:?}; it is held by {holder}")]
    Locked {
        /// The database.
        name: String,
        /// How long was waited.
        timeout: Duration,
        /// Process and node.
        holder: Holder,
    },
    /// A record cannot be read, or the lock's cannot be locked.
    #[error("transaction on database {name}")]
    Record {
        /// The database.
        name: String,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// The database's own record.
    #[error("database {name}: the key __db_sequence_number__ is reserved")]
    ReservedKey {
        /// The database.
        name: String,
    },
    /// The record's or the database's sequence number is at its end.
    #[error("database {name}: a sequence number cannot go up any more; restore from a backup")]
    Exhausted {
        /// The database.
        name: String,
    },
    /// The changes make no buffer of records; beyond 4 GiB.
    #[error("database {name}: the changes do not fit into one commit")]
    TooLarge {
        /// The database.
        name: String,
        /// What does not fit.
        #[source]
        source: DecodeError,
    },
    /// The daemon refuses, time and again; nothing was changed.
    #[error("database {name}: the commit failed for {timeout:?}; nothing was changed")]
    Refused {
        /// The database.
        name: String,
        /// How long was tried.
        timeout: Duration,
        /// The last refusal.
        #[source]
        source: ControlError,
    },
    /// Nobody knows whether the changes were or will be made. Look before trying again.
    #[error("database {name}: it is not known whether the commit took place")]
    Unsettled {
        /// The database.
        name: String,
        /// Why.
        #[source]
        source: UnsettledCause,
    },
    /// The sequence number shows that somebody wrote in spite of the lock.
    #[error(
        "database {name}: sequence number {now} after a commit that began at {before}: somebody \
         writes without the lock (smbd and the C tool do not exclude each other)"
    )]
    Diverged {
        /// The database.
        name: String,
        /// Before the commit.
        before: u64,
        /// Afterwards.
        now: u64,
    },
    /// The lock could not be given back. It is free when this process ends.
    #[error("database {name}: cannot unlock after the transaction (committed: {committed})")]
    NotUnlocked {
        /// The database.
        name: String,
        /// Whether the changes were made.
        committed: bool,
        /// Why.
        #[source]
        source: RecordError,
    },
}

/// Why the outcome of a commit is not known.
#[derive(Debug, Error)]
pub enum UnsettledCause {
    /// No reply.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A failed reply, and the sequence number cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process of a node.
    Process {
        /// Process id there.
        pid: u64,
        /// The node.
        vnn: u32,
    },
    /// The record is in a form that neither smbd nor the C tool writes.
    Unreadable,
    /// It changed hands again and again.
    Various,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process { pid, vnn } => write!(f, "process {pid} of node {vnn}"),
            Self::Unreadable => f.write_str(
                "a record nobody can read; if no transaction runs, delete it with `ctdb deletekey`",
            ),
            Self::Various => f.write_str("others in turn"),
        }
    }
}

/// Time-outs of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    /// How long to wait for other transactions.
    pub lock_timeout: Duration,
    /// How long to begin new tries to commit, and how long to wait for the answer to each.
    pub commit_timeout: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { lock_timeout: LOCK_TIMEOUT_DEFAULT, commit_timeout: COMMIT_TIMEOUT_DEFAULT }
    }
}

/// A transaction in progress: the cluster-wide lock is held. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "dropping the transaction cancels it"]
pub struct Transaction<'t> {
    client: &'t mut Client,
    database: &'t mut Database,
    options: TransactionOptions,
    own_id: ServerId,
    locked: bool,
    changes: Changes,
}

impl Client {
    /// Begins a transaction on a persistent or replicated database: waits for the lock.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub fn begin<'t>(
        &'t mut self,
        database: &'t mut Database,
    ) -> Result<Transaction<'t>, TransactionError> {
        self.begin_with(database, TransactionOptions::default())
    }

    /// As [`Client::begin`], with other time-outs.
    ///
    /// # Errors
    /// [`TransactionError`].
    pub fn begin_with<'t>(
        &'t mut self,
        database: &'t mut Database,
        options: TransactionOptions,
    ) -> Result<Transaction<'t>, TransactionError> {
        if !database.attached().kind.is_everywhere() {
            return Err(TransactionError::Volatile { name: database.attached().name.clone() });
        }
        let own = self.pnn();
        let mut locks = match self.g_lock.take() {
            Some(locks) => locks,
            None => {
                let opened = self.open(g_lock::DATABASE, DbKind::Volatile);
                opened.map_err(TransactionError::OpenLocks)?
            }
        };
        let own_id = g_lock::own_server_id(database.id(), own);
        let taken = take_lock(self, &mut locks, database, own_id, options.lock_timeout);
        self.g_lock = Some(locks);
        taken?;
        let changes = Changes::new(own);
        Ok(Transaction { client: self, database, options, own_id, locked: true, changes })
    }
}

impl Transaction<'_> {
    /// The value of a record as this transaction sees it; `None` if it does not exist.
    ///
    /// # Errors
    /// [`TransactionError::Record`].
    pub fn fetch(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, TransactionError> {
        let value = match self.changes.pending(key) {
            Some(value) => value.to_vec(),
            None => self.stored(key)?.map(|(_, value)| value).unwrap_or_default(),
        };
        Ok(Some(value).filter(|value| !value.is_empty()))
    }

    /// Sets the value of a record; an empty one deletes it.
    ///
    /// # Errors
    /// [`TransactionError::ReservedKey`], [`TransactionError::Exhausted`],
    /// [`TransactionError::Record`].
    pub fn store(&mut self, key: &[u8], value: &[u8]) -> Result<(), TransactionError> {
        if key == SEQNUM_KEY {
            return Err(TransactionError::ReservedKey { name: self.name() });
        }
        let stored = match self.changes.pending(key) {
            Some(_) => None,
            None => self.stored(key)?,
        };
        let set = self.changes.set(key, || stored, value);
        set.map_err(|Exhausted| TransactionError::Exhausted { name: self.name() })
    }

    /// Deletes a record.
    ///
    /// # Errors
    /// As [`Transaction::store`].
    pub fn delete(&mut self, key: &[u8]) -> Result<(), TransactionError> {
        self.store(key, &[])
    }

    /// Makes the changes on all nodes and gives the lock back.
    ///
    /// # Errors
    /// [`TransactionError`]; see there which leave the outcome open.
    pub fn commit(mut self) -> Result<(), TransactionError> {
        let committed = if self.changes.is_empty() { Ok(()) } else { self.send_commit() };
        let done = committed.is_ok();
        let unlocked = self.unlock();
        committed?;
        let name = self.name();
        unlocked.map_err(|source| TransactionError::NotUnlocked { name, committed: done, source })
    }

    /// Changes nothing and gives the lock back.
    ///
    /// # Errors
    /// [`TransactionError::NotUnlocked`].
    pub fn cancel(mut self) -> Result<(), TransactionError> {
        let (name, committed) = (self.name(), false);
        self.unlock().map_err(|source| TransactionError::NotUnlocked { name, committed, source })
    }

    fn name(&self) -> String {
        self.database.attached().name.clone()
    }

    fn stored(&mut self, key: &[u8]) -> Result<Stored, TransactionError> {
        let stored = self.database.fetch_local(key, self.client.timeout());
        stored.map_err(|source| TransactionError::Record { name: self.name(), source })
    }

    fn send_commit(&mut self) -> Result<(), TransactionError> {
        let name = self.name();
        let timeout = self.options.commit_timeout;
        let deadline = Instant::now() + timeout;
        let stored_seqnum = self.stored(SEQNUM_KEY)?;
        let before = seqnum(&stored_seqnum);
        let db = self.database.id();
        let payload = self.changes.encode(db, &stored_seqnum);
        let payload =
            payload.map_err(|Exhausted| TransactionError::Exhausted { name: name.clone() })?;
        let request = RecBuffer::from_bytes(&payload)
            .map_err(|source| TransactionError::TooLarge { name: name.clone(), source })?;
        let mut pause = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            // Each try has the whole time for its answer: the last one, cut short, would leave it
            // open what becomes of it.
            let error = match self.try_commit(db, &request, timeout) {
                Ok(()) => return Ok(()),
                Err(error @ ControlError::Failed { .. }) => error,
                Err(error) => {
                    let source = error.into();
                    return Err(TransactionError::Unsettled { name, source });
                }
            };
            // A recovery keeps the file locked until it has decided.
            let now = match self.database.fetch_local(SEQNUM_KEY, timeout) {
                Ok(stored) => seqnum(&stored),
                Err(error) => {
                    let source = error.into();
                    return Err(TransactionError::Unsettled { name, source });
                }
            };
            match fate(before, now) {
                Fate::Committed => return Ok(()),
                Fate::Diverged => return Err(TransactionError::Diverged { name, before, now }),
                Fate::NotCommitted if pause.sleep(deadline) => {}
                Fate::NotCommitted => {
                    return Err(TransactionError::Refused { name, timeout, source: error });
                }
            }
        }
    }

    fn try_commit(
        &mut self,
        db: DbId,
        request: &RecBuffer<'_>,
        timeout: Duration,
    ) -> Result<(), ControlError> {
        let srvid = Some(Srvid(u64::from(db.0)));
        let options = ControlOptions { srvid, timeout: Some(timeout), ..Default::default() };
        let own = self.client.own_node();
        self.client.control_with::<kinds::Trans3Commit>(own, request, options)
    }

    fn unlock(&mut self) -> Result<(), RecordError> {
        if !std::mem::take(&mut self.locked) {
            return Ok(());
        }
        let Some(mut locks) = self.client.g_lock.take() else { return Ok(()) };
        let unlocked = give_back(self.client, &mut locks, self.database.id(), self.own_id);
        self.client.g_lock = Some(locks);
        unlocked
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // Who wants to know calls `cancel`. A lock that stays is free when this process ends.
        let _ = self.unlock();
    }
}

fn take_lock(
    client: &mut Client,
    locks: &mut Database,
    database: &Database,
    own_id: ServerId,
    timeout: Duration,
) -> Result<(), TransactionError> {
    let name = || database.attached().name.clone();
    let failed = |source| TransactionError::Record { name: name(), source };
    let key = g_lock::transaction_key(database.id());
    let deadline = Instant::now() + timeout;
    let mut pause = Backoff::new(Duration::from_millis(1), Duration::from_millis(64));
    // Found dead since the last look at the record. Never kept longer: pids are used again.
    let mut dead: Vec<ServerId> = Vec::new();
    loop {
        let mut record = client.lock_record(locks, &key).map_err(failed)?;
        let content = Content::parse(record.value(), database.id());
        let unreadable = content == Content::Unknown;
        let mut others = content.holders();
        others.retain(|holder| !dead.contains(&holder.id));
        if others.is_empty() && !unreadable {
            record.store(&g_lock::encode(vec![g_lock::write_entry(own_id)])).map_err(failed)?;
            return record.unlock().map_err(failed);
        }
        record.unlock().map_err(failed)?;
        dead.clear();
        let mut living = None;
        for holder in others {
            if lives(client, &holder).map_err(|error| failed(error.into()))? {
                living = Some(holder.id);
            } else {
                dead.push(holder.id);
            }
        }
        let found_dead_only = living.is_none() && !unreadable;
        if !found_dead_only && !pause.sleep(deadline) {
            let holder = match living {
                Some(holder) => Holder::Process { pid: holder.pid, vnn: holder.vnn },
                None if unreadable => Holder::Unreadable,
                None => Holder::Various,
            };
            return Err(TransactionError::Locked { name: name(), timeout, holder });
        }
    }
}

fn give_back(
    client: &mut Client,
    locks: &mut Database,
    db: DbId,
    own_id: ServerId,
) -> Result<(), RecordError> {
    let key = g_lock::transaction_key(db);
    let mut record = client.lock_record(locks, &key)?;
    let Content::Tool(mut list) = Content::parse(record.value(), db) else {
        return record.unlock(); // smbd has overwritten it: nothing of ours is there
    };
    list.retain(|lock| lock.server_id != own_id);
    if list.is_empty() {
        record.delete(client)
    } else {
        record.store(&g_lock::encode(list))?;
        record.unlock()
    }
}

/// Whether a holder's process lives, as its node's daemon says. A node that is not connected has no
/// living processes; one that does not answer may have.
fn lives(client: &mut Client, holder: &LockHolder) -> Result<bool, ControlError> {
    let LockHolder { id, registered } = holder;
    let (Some(node), Ok(pid)) = (Pnn::new(id.vnn), i32::try_from(id.pid)) else {
        return Ok(false);
    };
    // smbd registers its unique id, unless it has none.
    let answer = if *registered && id.unique_id != u64::MAX {
        client.process_registered(node, Pid(pid), Srvid(id.unique_id))
    } else {
        client.process_exists(node, Pid(pid))
    };
    match answer {
        Ok(lives) => Ok(lives),
        Err(ControlError::Failed { .. }) => Ok(false),
        Err(ControlError::TimedOut { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}
