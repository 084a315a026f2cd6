//! UPDATE_RECORD of permanent databases, and PUSH_RECORD, on this node's copy.
//!
//! Origin: `docs/spec/cluster-semantics.md` 4.3; `ctdb/server/ctdb_update_record.c`.

use ringmaster_protocol::{
    Decode,
    record::{RECORD_HEADER_LEN, RecBuffer, RecordFlags, RecordHeader},
};
use ringmaster_storage::{
    chain::StoreMode, lock::LockKind, ltdb::StoredRecord, transaction::TransactionError,
};

use super::Bench;

/// The rule of UPDATE_RECORD.
fn is_too_old(known: Option<StoredRecord<'_>>, header: RecordHeader, data: &[u8]) -> bool {
    known.is_some_and(|known| known.header.rsn >= header.rsn && known.data != data)
}

const REFUSED: &str = "an update is older than what is stored here";

impl Bench {
    pub(super) fn update(&mut self, buffer: &[u8]) -> Result<(), String> {
        if self.facts.is_volatile() {
            return Err("copies of volatile records are the shards' to call back".into());
        }
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed update: {error}"))?;
        let mut records = Vec::new();
        for record in &buffer {
            let (header, data) =
                record.split_header().ok_or("an update is shorter than a record header")?;
            records.push((record.key, header, data));
        }
        self.transact(&records)
    }

    fn transact(&mut self, records: &[(&[u8], RecordHeader, &[u8])]) -> Result<(), String> {
        let mut refused = false;
        let done = self.handle.in_transaction(Self::deadline(), |session, handle| {
            let mut value = Vec::new();
            for (key, header, data) in records {
                let found = session.fetch(handle, key, &mut value)?;
                let known = if found { StoredRecord::from_bytes(&value) } else { None };
                if is_too_old(known, *header, data) {
                    refused = true;
                    return Err(TransactionError::Busy); // cancels; told apart by the flag
                }
                let bytes: [u8; RECORD_HEADER_LEN] = header.to_array();
                let _ = session.store(handle, key, &[&bytes, data], StoreMode::Replace)?;
            }
            Ok(())
        });
        match done {
            _ if refused => Err(REFUSED.into()),
            Ok(()) => Ok(()),
            Err(error) => Err(format!("cannot commit the update: {error}")),
        }
    }

    /// Stores a record that its writer has pushed to all nodes; durable when this returns. One that has
    /// moved on since is newer here, or lives here: then the push changes nothing (C stores whatever
    /// comes). It writes under the chain lock, as the shards do, so it needs no order with them.
    pub(super) fn push_record(&mut self, buffer: &[u8]) -> Result<(), String> {
        if self.frozen {
            return Err("a frozen database takes no pushed records".into());
        }
        let mut value = Vec::new();
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed push: {error}"))?;
        let failed = |error| format!("cannot store a pushed record: {error}");
        for record in &buffer {
            let (mut header, data) =
                record.split_header().ok_or("a pushed record is shorter than its header")?;
            header.flags = header.flags | RecordFlags::MIGRATED_WITH_DATA;
            let mut locked = self.handle.lock_key(record.key, LockKind::Write).map_err(failed)?;
            let known = locked.fetch_record(record.key, &mut value).map_err(failed)?;
            let is_older = |known: StoredRecord<'_>| {
                known.header.rsn <= header.rsn && !known.header.dmaster.is(self.facts.pnn)
            };
            if known.is_none_or(is_older) {
                let _done = locked.store_record(record.key, header, data).map_err(failed)?;
            }
            locked.unlock().map_err(failed)?;
        }
        let synced = self.handle.database().store().file().sync_data();
        synced.map_err(|error| format!("cannot sync a pushed record: {error}"))
    }
}
