//! A recovery's work on one database: pull, wipe, push, commit.
//!
//! Origin: `docs/spec/cluster-semantics.md` 7.5, 7.6; `ctdb/server/ctdb_recover.c:
//! ctdb_control_db_pull`, `db_push_msg_handler`.

use std::time::{Duration, Instant};

use ringmaster_protocol::{
    Decode, Pnn, Srvid,
    record::{RECORD_HEADER_LEN, RecBuffer, RecBufferBuilder, RecData, RecordFlags, RecordHeader},
};
use ringmaster_storage::{
    chain::StoreMode,
    engine::Engine,
    lock::{FileLocks, NoLocks, Wait},
    staging::Staging,
    transaction::{Step, Transaction},
};

use super::{Bench, STAGED_BYTES_MAX, Sent};

/// Records put in place between two looks at anything else.
const PUT_STEP: usize = 4_096;

/// A commit waits this long for readers of a persistent database.
pub(super) const COMMIT_PATIENCE: Duration = Duration::from_secs(60);

/// What a recovery has changed so far and nobody sees.
pub(super) enum Recovery {
    /// Volatile and replicated: in memory.
    Staged { wiped: bool, staging: Box<Staging> },
    /// Persistent: a transaction of the file.
    Transaction(Box<Transaction>),
}

impl Bench {
    fn need_freeze(&self) -> Result<(), String> {
        if self.frozen { Ok(()) } else { Err("the database is not frozen".into()) }
    }

    pub(super) fn transaction_start(&mut self) -> Result<(), String> {
        self.need_freeze()?;
        self.recovery = None;
        let recovery = if self.facts.is_persistent() {
            let database = self.handle.database();
            let transaction = Transaction::start(database.store(), database.layout());
            let transaction =
                transaction.map_err(|error| format!("cannot start a transaction: {error}"))?;
            Recovery::Transaction(Box::new(transaction))
        } else {
            let staging = Box::new(Staging::new(STAGED_BYTES_MAX));
            Recovery::Staged { wiped: false, staging }
        };
        self.recovery = Some(recovery);
        Ok(())
    }

    pub(super) fn wipe(&mut self) -> Result<(), String> {
        match &mut self.recovery {
            None => Err("wipe outside of a transaction".into()),
            Some(Recovery::Staged { wiped, staging }) => {
                *wiped = true;
                **staging = Staging::new(STAGED_BYTES_MAX);
                Ok(())
            }
            Some(Recovery::Transaction(transaction)) => {
                let database = self.handle.database();
                let (view, mut locks) = (transaction.view(database.store()), NoLocks::default());
                let mut engine = Engine {
                    store: &view,
                    locks: &mut locks,
                    layout: database.layout(),
                    policy: ringmaster_storage::engine::Policy::default(),
                };
                engine.wipe().map_err(|error| format!("cannot wipe: {error}"))
            }
        }
    }

    pub(super) fn transaction_commit(&mut self) -> Result<(), String> {
        self.need_freeze()?;
        match self.recovery.take() {
            None => Err("commit outside of a transaction".into()),
            Some(Recovery::Staged { wiped, staging }) => {
                let failed = |error| format!("cannot put the records in place: {error}");
                if wiped {
                    self.handle.wipe().map_err(failed)?;
                }
                let mut from = Some(0);
                while let Some(start) = from {
                    from =
                        staging.put_in_place(&mut self.handle, start, PUT_STEP).map_err(failed)?;
                }
                Ok(())
            }
            Some(Recovery::Transaction(transaction)) => self.commit_file(*transaction),
        }
    }

    /// Commits while ALLRECORD is held: OPEN is all that is missing to a commit of libtdb's.
    fn commit_file(&mut self, mut transaction: Transaction) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("cannot commit: {error}");
        let _granted = self.handle.locks().lock_open(Wait::Yes).map_err(|error| failed(&error))?;
        let database = std::sync::Arc::clone(self.handle.database());
        let outcome = loop {
            match transaction.commit(database.store()) {
                Ok(Step::Sync(point)) => {
                    if let Err(error) = database.store().sync(point) {
                        break Err(failed(&error));
                    }
                }
                Ok(Step::Done) => break Ok(()),
                Err(error) => break Err(failed(&error)),
            }
        };
        if outcome.is_err() {
            // Undoes what was written; if that fails too, the next open does.
            while let Ok(Step::Sync(point)) = transaction.cancel(database.store()) {
                if database.store().sync(point).is_err() {
                    break;
                }
            }
        }
        self.handle.locks().unlock_open().map_err(|error| failed(&error))?;
        outcome
    }

    /// Sends every record; returns how many.
    pub(super) fn pull(
        &mut self,
        srvid: Srvid,
        to: Pnn,
        batch_bytes: usize,
        send: &mut impl FnMut(Sent),
    ) -> Result<u32, String> {
        self.need_freeze()?;
        let mut batch = RecBufferBuilder::new(self.facts.id);
        let mut records = 0_u32;
        let id = self.facts.id;
        self.handle
            .for_each(|key, value| {
                batch.push(&RecData { reqid: 0, key, data: value });
                records = records.saturating_add(1);
                if batch.byte_len() >= batch_bytes {
                    let full = std::mem::replace(&mut batch, RecBufferBuilder::new(id));
                    send(Sent::Message { to, srvid, data: full.into_bytes() });
                }
                true
            })
            .map_err(|error| format!("cannot read the database: {error}"))?;
        if batch.count() > 0 {
            send(Sent::Message { to, srvid, data: batch.into_bytes() });
        }
        Ok(records)
    }

    /// Takes a pushed batch; returns how many records it had.
    pub(super) fn push(&mut self, buffer: &[u8]) -> Result<u32, String> {
        self.need_freeze()?;
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed push: {error}"))?;
        // The buffer's own database id is not looked at: the C tool's `restoredb` sends the one that
        // the backup's header happens to have in that place.
        let (pnn, volatile) = (self.facts.pnn, self.facts.is_volatile());
        for record in &buffer {
            let (mut header, data) =
                record.split_header().ok_or("a pushed record is shorter than its header")?;
            header.flags = header.flags.without(RecordFlags::RO_ALL);
            if volatile && header.dmaster.is(pnn) {
                // The store rule: who is dmaster raises the rsn. Only the leader is.
                header.rsn = header.rsn.advanced(1).ok_or("a pushed rsn is at its end")?;
            }
            self.put(record.key, header, data)?;
        }
        Ok(buffer.count())
    }

    fn put(&mut self, key: &[u8], header: RecordHeader, data: &[u8]) -> Result<(), String> {
        match &mut self.recovery {
            None => Err("push outside of a transaction".into()),
            Some(Recovery::Staged { staging, .. }) => {
                staging.push(key, header, data).map_err(|error| error.to_string())
            }
            Some(Recovery::Transaction(transaction)) => {
                let database = self.handle.database();
                let (view, mut locks) = (transaction.view(database.store()), NoLocks::default());
                let layout = database.layout();
                let mut engine = Engine {
                    store: &view,
                    locks: &mut locks,
                    layout,
                    policy: ringmaster_storage::engine::Policy::default(),
                };
                let bytes: [u8; RECORD_HEADER_LEN] = header.to_array();
                engine
                    .store(key, layout.hash.hash(key), &[&bytes, data], StoreMode::Replace)
                    .map(drop)
                    .map_err(|error| format!("cannot store a pushed record: {error}"))
            }
        }
    }

    /// A moment from now, for commits that wait for readers.
    pub(super) fn deadline() -> Instant {
        Instant::now() + COMMIT_PATIENCE
    }
}
