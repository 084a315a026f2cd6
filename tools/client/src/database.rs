//! An attached database whose file is open: records under their chain lock.
//!
//! Role: fetches and locks records, asking the daemon to bring them where needed. Transactions on
//! databases that every node has: `transaction`.
//! Invariants
//! - What is read to be changed is read and written under one hold of the chain lock; nothing read
//!   is used after the lock was given back.
//! - A value is stored with the header as read: sequence number and owner are the daemon's to change.
//! - Volatile databases are written record by record, the others by transactions only.
//! - The daemon is never asked while a chain is held: it needs the chain to bring the record.
//!
//! Origin: `docs/spec/wire-protocol.md` 7.2, 7.3; `ctdb/client/client_db.c`,
//! `source3/lib/dbwrap/dbwrap_ctdb.c`.

use std::fmt;
use std::time::{Duration, Instant};

use ringmaster_protocol::call::{CallFlags, CallId};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::record::{KeyData, RecordHeader};
use ringmaster_protocol::{DbId, Pnn, Srvid};
use ringmaster_storage::chain::Stored;
use ringmaster_storage::engine::AccessError;
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::{Handle, Locked};
use ringmaster_storage::lock::LockKind;
use ringmaster_storage::open::{OpenError, OpenOptions, open};
use thiserror::Error;

use crate::attach::{AttachError, Attached, DbKind};
use crate::backoff::Backoff;
use crate::client::{Client, ControlOptions};
use crate::error::{CallError, ControlError, MalformedReply};
use crate::record::{Access, Verdict, judge};

/// A database cannot be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenDatabaseError {
    /// The daemon does not attach it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Its file cannot be opened.
    #[error("cannot open the file of database {name}")]
    File {
        /// The database.
        name: String,
        /// Why.
        #[source]
        source: OpenError,
    },
}

/// An operation on a record failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The file cannot be read or written.
    #[error("cannot access the file of database {name}")]
    File {
        /// The database.
        name: String,
        /// Why.
        #[source]
        source: AccessError,
    },
    /// Somebody keeps the record's hash chain locked: a process, or a recovery (freeze).
    #[error(
        "database {name}: the hash chain of the record stays locked for {timeout:?}; a process \
         hangs with the lock (see /proc/locks) or a recovery does not end (see ctdb status)"
    )]
    ChainBusy {
        /// The database.
        name: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The record came here and was gone again before it could be locked, time and again.
    #[error(
        "database {name}: the record could not be kept here within {timeout:?} ({tries} tries): \
         other nodes want it too"
    )]
    Contended {
        /// The database.
        name: String,
        /// How long was tried.
        timeout: Duration,
        /// How often.
        tries: u32,
    },
    /// Another process is making the record persistent and does not finish.
    #[error(
        "database {name}: another process has been making the record persistent for {timeout:?}; \
         has it died?"
    )]
    InProgress {
        /// The database.
        name: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The daemon does not bring the record.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The daemon does not carry a control out.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Databases that every node has are changed in transactions only.
    #[error("database {name} is not volatile: change it in a transaction")]
    NotVolatile {
        /// The database.
        name: String,
    },
}

/// An attached database with its file.
#[derive(Debug)]
pub struct Database {
    attached: Attached,
    handle: Handle,
    own: Pnn,
}

impl Database {
    /// What it is.
    #[must_use]
    pub const fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> DbId {
        self.attached.id
    }

    /// Hands every record of this node's file to `visit`, deleted ones included, until that says
    /// `false`; in the order of the file. In a volatile database most records may live elsewhere:
    /// see their `dmaster`. Each hash chain is waited for at most `timeout` and is not locked while
    /// `visit` runs, so a slow one is in nobody's way.
    ///
    /// # Errors
    /// [`RecordError::File`], [`RecordError::ChainBusy`].
    pub fn for_each_local(
        &mut self,
        timeout: Duration,
        mut visit: impl FnMut(&[u8], RecordHeader, &[u8]) -> bool,
    ) -> Result<(), RecordError> {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for chain in 0..self.handle.database().layout().hash_size {
            records.clear();
            self.read_chain(chain, timeout, &mut records)?;
            for (key, bytes) in &records {
                let Some((header, value)) = RecordHeader::split(bytes) else { continue };
                if !visit(key, header, value) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn read_chain(
        &mut self,
        chain: u32,
        timeout: Duration,
        records: &mut Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RecordError> {
        let Self { attached, handle, .. } = self;
        let failed = |source| file_error(attached, source);
        if handle.engine().chain_is_empty(chain).map_err(failed)? {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        let mut locked = lock_chain(attached, handle, chain, LockKind::Read, timeout, deadline)?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let visited = locked.for_each(&mut key, &mut value, |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            true
        });
        visited.map_err(failed)
    }

    /// Header and value of a record as it stands in this node's file, whoever owns it; `None` if it
    /// is not there.
    ///
    /// # Errors
    /// [`RecordError::File`], [`RecordError::ChainBusy`].
    pub fn fetch_local(
        &mut self,
        key: &[u8],
        timeout: Duration,
    ) -> Result<Option<(RecordHeader, Vec<u8>)>, RecordError> {
        let mut copy = self.read(key, LockKind::Read, timeout, Instant::now() + timeout)?;
        Ok(copy.take())
    }

    fn read(
        &mut self,
        key: &[u8],
        kind: LockKind,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Option<(RecordHeader, Vec<u8>)>, RecordError> {
        let Self { attached, handle, .. } = self;
        let mut locked = lock(attached, handle, key, kind, timeout, deadline)?;
        copy(attached, &mut locked, key)
    }

    /// The record of a volatile database, locked, if it may be written here as it is; `None` when the
    /// daemon has to bring it (or its read-only copies back) first. Waits for the chain until
    /// `timeout` has passed, and for nothing else.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn lock_here<'d>(
        &'d mut self,
        key: &[u8],
        timeout: Duration,
    ) -> Result<Option<LockedRecord<'d>>, RecordError> {
        self.require_volatile()?;
        match self.hold_here(key, timeout, Instant::now() + timeout)? {
            Here::Held(chain, header, value) => {
                Ok(Some(self.locked_record(key, chain, header, value)))
            }
            Here::Not(_) => Ok(None),
        }
    }

    /// Takes the chain; keeps it if the record may be written here.
    fn hold_here(
        &mut self,
        key: &[u8],
        timeout: Duration,
        deadline: Instant,
    ) -> Result<Here, RecordError> {
        let own = self.own;
        let Self { attached, handle, .. } = self;
        let mut locked = lock(attached, handle, key, LockKind::Write, timeout, deadline)?;
        let copy = copy(attached, &mut locked, key)?;
        let verdict = judge(copy.as_ref().map(|(header, _)| header), own, Access::Write);
        if let (Verdict::Use, Some((header, value))) = (verdict, copy) {
            let chain = locked.chain();
            locked.keep();
            return Ok(Here::Held(chain, header, value));
        }
        locked.unlock().map_err(|source| file_error(attached, source))?;
        Ok(Here::Not(verdict))
    }

    /// `chain` is held.
    fn locked_record(
        &mut self,
        key: &[u8],
        chain: u32,
        header: RecordHeader,
        value: Vec<u8>,
    ) -> LockedRecord<'_> {
        let Self { attached, handle, .. } = self;
        let locked = handle.resume_chain(chain);
        LockedRecord { attached, locked, key: key.to_vec(), header, value }
    }

    fn require_volatile(&self) -> Result<(), RecordError> {
        match self.attached.kind {
            DbKind::Volatile => Ok(()),
            _ => Err(RecordError::NotVolatile { name: self.attached.name.clone() }),
        }
    }

    fn name(&self) -> String {
        self.attached.name.clone()
    }
}

/// What came of an attempt to lock a record where it is.
enum Here {
    /// Its chain is held.
    Held(u32, RecordHeader, Vec<u8>),
    /// It may not be written here; nothing is held.
    Not(Verdict),
}

fn file_error(attached: &Attached, source: AccessError) -> RecordError {
    RecordError::File { name: attached.name.clone(), source }
}

fn lock<'h>(
    attached: &Attached,
    handle: &'h mut Handle,
    key: &[u8],
    kind: LockKind,
    timeout: Duration,
    deadline: Instant,
) -> Result<Locked<'h>, RecordError> {
    let chain = handle.database().chain_of(key);
    lock_chain(attached, handle, chain, kind, timeout, deadline)
}

fn lock_chain<'h>(
    attached: &Attached,
    handle: &'h mut Handle,
    chain: u32,
    kind: LockKind,
    timeout: Duration,
    deadline: Instant,
) -> Result<Locked<'h>, RecordError> {
    let locked = handle.lock_chain_until(chain, kind, deadline);
    locked
        .map_err(|source| file_error(attached, source))?
        .ok_or_else(|| RecordError::ChainBusy { name: attached.name.clone(), timeout })
}

fn copy(
    attached: &Attached,
    locked: &mut Locked<'_>,
    key: &[u8],
) -> Result<Option<(RecordHeader, Vec<u8>)>, RecordError> {
    let mut buffer = Vec::new();
    let record = locked.fetch_record(key, &mut buffer);
    let record = record.map_err(|source| file_error(attached, source))?;
    Ok(record.map(|record| (record.header, record.data.to_vec())))
}

/// A record of a volatile database that is here, with its hash chain locked: no other process of
/// this node, and no other node, reads or changes it. Dropping it unlocks.
#[must_use = "dropping the record unlocks it"]
pub struct LockedRecord<'d> {
    attached: &'d Attached,
    locked: Locked<'d>,
    key: Vec<u8>,
    header: RecordHeader,
    value: Vec<u8>,
}

impl fmt::Debug for LockedRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedRecord")
            .field("database", &self.attached.name)
            .field("header", &self.header)
            .field("value_len", &self.value.len())
            .finish_non_exhaustive()
    }
}

impl LockedRecord<'_> {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Its value; empty if the record does not exist.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> RecordHeader {
        self.header
    }

    /// Changes the value. An empty one means that the record does not exist; prefer
    /// [`LockedRecord::delete`] then, so that it is cleaned up soon.
    ///
    /// # Errors
    /// [`RecordError::File`]; the record is unchanged then.
    pub fn store(&mut self, value: &[u8]) -> Result<(), RecordError> {
        let stored = self.locked.store_record(&self.key, self.header, value);
        let stored = stored.map_err(|source| file_error(self.attached, source))?;
        assert_eq!(
            stored,
            Stored::Done,
            "this handle waits, and a replacing store has no condition"
        );
        value.clone_into(&mut self.value);
        Ok(())
    }

    /// Deletes the record: stores an empty value and has the daemon clean it up.
    ///
    /// # Errors
    /// [`RecordError::File`]; or [`RecordError::Control`] when the daemon could not be told: the
    /// record is deleted all the same, and cleaned up late.
    pub fn delete(mut self, client: &mut Client) -> Result<(), RecordError> {
        self.store(&[])?;
        let Self { attached, locked, key, header, .. } = self;
        let unlocked = locked.unlock().map_err(|source| file_error(attached, source));
        let request = KeyData { db: attached.id, header, key: &key };
        let options = ControlOptions::srvid(Srvid(u64::from(attached.id.0)));
        let own = client.own_node();
        client.control_noreply::<kinds::ScheduleForDeletion>(own, &request, options)?;
        unlocked
    }

    /// Unlocks.
    ///
    /// # Errors
    /// [`RecordError::File`].
    pub fn unlock(self) -> Result<(), RecordError> {
        self.locked.unlock().map_err(|source| file_error(self.attached, source))
    }
}

impl Client {
    /// Attaches to a database, creating it if it does not exist, and opens this node's file of it.
    ///
    /// # Errors
    /// [`OpenDatabaseError`].
    pub fn open(&mut self, name: &str, kind: DbKind) -> Result<Database, OpenDatabaseError> {
        let attached = self.attach(name, kind)?;
        let options = OpenOptions::existing(Flags::from_bits(attached.open_flags.0));
        let handle = open(&attached.path, &options)
            .map_err(|source| OpenDatabaseError::File { name: name.to_owned(), source })?;
        Ok(Database { attached, handle, own: self.pnn() })
    }

    /// Brings a record of a volatile database to this node and locks it. The client's time-out is
    /// for the whole operation.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn lock_record<'d>(
        &mut self,
        database: &'d mut Database,
        key: &[u8],
    ) -> Result<LockedRecord<'d>, RecordError> {
        database.require_volatile()?;
        let timeout = self.timeout();
        let mut attempt = Attempt::new(timeout);
        let (chain, header, value) = loop {
            let verdict = match database.hold_here(key, timeout, attempt.deadline)? {
                Here::Held(chain, header, value) => break (chain, header, value),
                Here::Not(verdict) => verdict,
            };
            attempt.again(database, verdict)?;
            if verdict == Verdict::AskDaemon {
                let flags = CallFlags::IMMEDIATE_MIGRATION;
                let db = database.id();
                match self.call_until(db, key, CallId::NULL, flags, attempt.deadline) {
                    // The daemon answers; it is the record that does not stay.
                    Err(CallError::TimedOut { .. }) if attempt.tries > 1 => {
                        return Err(attempt.contended(database));
                    }
                    answer => answer.map(drop)?,
                }
            }
        };
        Ok(database.locked_record(key, chain, header, value))
    }

    /// The value of a record; `None` if it does not exist. Brings it here unless it is here already
    /// (or a read-only copy of it).
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn fetch(
        &mut self,
        database: &mut Database,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, RecordError> {
        self.fetch_with(database, key, CallFlags::NONE)
    }

    /// As [`Client::fetch`], but a record that lives elsewhere stays there, and a read-only copy
    /// comes here. The database must allow that ([`Client::enable_readonly`]); otherwise the record
    /// moves as with [`Client::fetch`].
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn fetch_readonly(
        &mut self,
        database: &mut Database,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, RecordError> {
        self.fetch_with(database, key, CallFlags::WANT_READONLY)
    }

    fn fetch_with(
        &mut self,
        database: &mut Database,
        key: &[u8],
        flags: CallFlags,
    ) -> Result<Option<Vec<u8>>, RecordError> {
        let present = |value: Vec<u8>| Some(value).filter(|value| !value.is_empty());
        let timeout = self.timeout();
        let mut attempt = Attempt::new(timeout);
        loop {
            let copy = database.read(key, LockKind::Read, timeout, attempt.deadline)?;
            if database.attached.kind.is_everywhere() {
                return Ok(copy.and_then(|(_, value)| present(value)));
            }
            let header = copy.as_ref().map(|(header, _)| header);
            let mut verdict = judge(header, database.own, Access::Read);
            if let (Verdict::Use, Some((_, value))) = (verdict, copy) {
                return Ok(present(value));
            }
            if verdict == Verdict::AskDaemon {
                let db = database.id();
                let callid = CallId::FETCH_WITH_HEADER;
                let reply = self.call_until(db, key, callid, flags, attempt.deadline)?;
                let (header, value) = RecordHeader::split(reply).ok_or_else(|| {
                    let source = MalformedReply::NoHeader { len: reply.len() };
                    CallError::Malformed { db, source }
                })?;
                // Wherever it lives: this is its value now.
                let own = database.own;
                let as_if_here = RecordHeader { dmaster: own.into(), ..header };
                verdict = judge(Some(&as_if_here), own, Access::Read);
                if verdict == Verdict::Use {
                    return Ok(present(value.to_vec()));
                }
            }
            attempt.again(database, verdict)?;
        }
    }
}

/// Tries at one record until a deadline.
struct Attempt {
    timeout: Duration,
    deadline: Instant,
    tries: u32,
    patience: Backoff,
}

impl Attempt {
    fn new(timeout: Duration) -> Self {
        let patience = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        Self { timeout, deadline: Instant::now() + timeout, tries: 0, patience }
    }

    /// Says whether there is time for another try, after a pause where somebody else must finish.
    fn again(&mut self, database: &Database, verdict: Verdict) -> Result<(), RecordError> {
        let timeout = self.timeout;
        self.tries = self.tries.saturating_add(1);
        let in_time = match verdict {
            Verdict::InProgress => self.patience.sleep(self.deadline),
            Verdict::Use | Verdict::AskDaemon => Instant::now() < self.deadline,
        };
        match verdict {
            _ if in_time => Ok(()),
            Verdict::InProgress => Err(RecordError::InProgress { name: database.name(), timeout }),
            _ => Err(self.contended(database)),
        }
    }

    fn contended(&self, database: &Database) -> RecordError {
        let Self { timeout, tries, .. } = *self;
        RecordError::Contended { name: database.name(), timeout, tries }
    }
}
