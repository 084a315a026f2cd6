//! UPDATE_RECORD of permanent databases, PUSH_RECORD and TRY_DELETE_RECORDS on this node's copy.
//!
//! Origin: `docs/spec/cluster-semantics.md` 3.4, 4.3; `ctdb/server/ctdb_update_record.c`,
//! `ctdb/server/ctdb_recover.c: delete_tdb_record`.

use ringmaster_protocol::{
    Decode,
    hash::jenkins,
    record::{RECORD_HEADER_LEN, RecBuffer, RecBufferBuilder, RecData, RecordFlags, RecordHeader},
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

    /// Stores a record that its writer has pushed to all nodes; durable when this returns.
    pub(super) fn push_record(&mut self, buffer: &[u8]) -> Result<(), String> {
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed push: {error}"))?;
        let failed = |error| format!("cannot store a pushed record: {error}");
        for record in &buffer {
            let (mut header, data) =
                record.split_header().ok_or("a pushed record is shorter than its header")?;
            header.flags = header.flags | RecordFlags::MIGRATED_WITH_DATA;
            let mut locked = self.handle.lock_key(record.key, LockKind::Write).map_err(failed)?;
            let _done = locked.store_record(record.key, header, data).map_err(failed)?;
            locked.unlock().map_err(failed)?;
        }
        let synced = self.handle.database().store().file().sync_data();
        synced.map_err(|error| format!("cannot sync a pushed record: {error}"))
    }

    /// Deletes what may go; returns a buffer of those that may not.
    pub(super) fn try_delete(&mut self, buffer: &[u8]) -> Result<Vec<u8>, String> {
        let buffer =
            RecBuffer::from_bytes(buffer).map_err(|error| format!("malformed list: {error}"))?;
        let mut kept = RecBufferBuilder::new(buffer.db());
        for record in &buffer {
            if record.data.len() < RECORD_HEADER_LEN {
                return Err("a record to delete is shorter than its header".into());
            }
            if !self.delete_one(&record)? {
                kept.push(&record);
            }
        }
        Ok(kept.into_bytes())
    }

    /// `false`: the record stays.
    fn delete_one(&mut self, record: &RecData<'_>) -> Result<bool, String> {
        let Some((header, data)) = record.split_header() else { return Ok(false) };
        let lmasters = &self.facts.lmasters;
        let lmaster = match u32::try_from(lmasters.len()) {
            Ok(len) if len > 0 => lmasters[(jenkins(record.key) % len) as usize],
            _ => self.facts.pnn,
        };
        if lmaster == self.facts.pnn || !data.is_empty() {
            return Ok(false);
        }
        let pnn = self.facts.pnn;
        let chain = self.handle.database().chain_of(record.key);
        let failed = |error| format!("cannot delete a record: {error}");
        let locked = self.handle.try_lock_chain(chain, LockKind::Write).map_err(failed)?;
        let Some(mut locked) = locked else { return Ok(false) };
        let mut value = Vec::new();
        let known = locked.fetch_record(record.key, &mut value).map_err(failed)?;
        let may_go = match known {
            None => true, // absent, or too short to be a record
            Some(known) => {
                known.header.rsn <= header.rsn
                    && !known.header.flags.intersects(RecordFlags::RO_ALL)
                    && !header.flags.intersects(RecordFlags::RO_ALL)
                    && !known.header.dmaster.is(pnn)
            }
        };
        if may_go {
            locked.delete(record.key).map_err(failed)?;
        }
        locked.unlock().map_err(failed)?;
        Ok(may_go)
    }
}
