//! Records of a recovery that are not to be seen yet.
//!
//! Role: keep what the recovery leader pushes into a volatile or replicated database, and put it in
//! place at commit, in bounded steps. The old content stays readable until then: the leader may
//! die, and the next one pulls again. Persistent databases use a transaction instead.
//! Owner: one shard, for the records of its chains; the database is frozen from before the first
//! push until after the last step.
//! Invariants
//! - Nothing reaches the file before [`Staging::put_in_place`]; dropping the staging forgets all.
//! - Memory is bounded by the limit given at the start; what does not fit is refused, so that the
//!   recovery fails and not the node.
//!
//! Origin: `docs/spec/tdb-format.md` 8.6 (DB push); by design without crash safety: these files die
//! with the daemon.

use ringmaster_protocol::record::{RECORD_HEADER_LEN, RecordFlags, RecordHeader};
use thiserror::Error;

use crate::chain::{StoreMode, Stored};
use crate::engine::AccessError;
use crate::handle::Handle;

/// Why a record was not staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StageError {
    /// The limit is reached.
    #[error("staged records would take {wanted} bytes of memory, {limit} are allowed")]
    Full {
        /// With this record.
        wanted: usize,
        /// Given at the start.
        limit: usize,
    },
}

/// Records waiting to be put in place.
#[derive(Debug)]
pub struct Staging {
    /// Key, header and value of one record after the other.
    bytes: Vec<u8>,
    /// Where each record's key and value end.
    ends: Vec<(usize, usize)>,
    limit: usize,
}

impl Staging {
    /// Empty; at most `limit` bytes of records.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), ends: Vec::new(), limit }
    }

    /// Adds a record; the read-only flags of its header are dropped, as by C's push.
    ///
    /// # Errors
    /// [`StageError`]; the record is not staged.
    pub fn push(
        &mut self,
        key: &[u8],
        header: RecordHeader,
        data: &[u8],
    ) -> Result<(), StageError> {
        let added = key.len().saturating_add(RECORD_HEADER_LEN).saturating_add(data.len());
        let wanted = self.bytes.len().saturating_add(added);
        if wanted > self.limit {
            return Err(StageError::Full { wanted, limit: self.limit });
        }
        let flags = RecordFlags(header.flags.0 & !RecordFlags::RO_ALL.0);
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(&RecordHeader { flags, ..header }.to_array());
        self.bytes.extend_from_slice(data);
        self.ends.push((key_end, self.bytes.len()));
        Ok(())
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// `true` without records.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Key and value (header included) of a record.
    #[must_use]
    pub fn record(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let (key_end, value_end) = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some((&self.bytes[start..key_end], &self.bytes[key_end..value_end]))
    }

    /// Stores up to `limit` records from the one with index `from` on; returns the index to go on
    /// with (earlier if the freelist is busy), `None` at the end. The handle holds, or is marked to hold, ALLRECORD for writing, and
    /// the database was wiped.
    ///
    /// # Errors
    /// [`AccessError`]: the recovery has failed.
    pub fn put_in_place(
        &self,
        handle: &mut Handle,
        from: usize,
        limit: usize,
    ) -> Result<Option<usize>, AccessError> {
        let end = from.saturating_add(limit).min(self.len());
        for index in from..end {
            let Some((key, value)) = self.record(index) else { break };
            if handle.store(key, &[value], StoreMode::Replace)? == Stored::Busy {
                return Ok(Some(index));
            }
        }
        Ok((end < self.len()).then_some(end))
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::Rsn;
    use ringmaster_protocol::record::Dmaster;

    use super::*;
    use crate::flags::Flags;
    use crate::lock::{FileLocks, LockKind, TryLock, Wait};
    use crate::ltdb::{DatabaseKind, StoredRecord};
    use crate::open::open;

    fn header(rsn: u64, flags: RecordFlags) -> RecordHeader {
        RecordHeader { rsn: Rsn(rsn), dmaster: Dmaster::from_raw(0), flags }
    }

    #[test]
    fn staged_records_replace_the_old_content_only_when_put_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let options = DatabaseKind::Replicated.open_options(7, false);
        let mut handle = open(&directory.path().join("r.tdb.0"), &options).unwrap();
        assert!(handle.flags().contains(Flags::CLEAR_IF_FIRST));
        let old = handle.store(
            b"old",
            &[&header(1, RecordFlags::NONE).to_array(), b"x"],
            StoreMode::Replace,
        );
        assert_eq!(old.unwrap(), Stored::Done);
        let mut staging = Staging::new(1000);
        let frozen = handle.locks().lock_all_records(LockKind::Write, Wait::Yes).unwrap();
        assert_eq!(frozen, TryLock::Granted);
        let delegated = RecordFlags(0x0101_0000);
        for number in 0..10_u64 {
            staging.push(&number.to_le_bytes(), header(number, delegated), b"value").unwrap();
        }
        assert!(handle.exists(b"old").unwrap());
        handle.wipe().unwrap();
        let mut next = Some(0);
        let mut steps = 0;
        while let Some(from) = next {
            next = staging.put_in_place(&mut handle, from, 4).unwrap();
            steps += 1;
        }
        assert_eq!(steps, 3);
        handle.locks().unlock_all_records().unwrap();
        assert!(!handle.exists(b"old").unwrap());
        let mut seen = 0;
        handle
            .for_each_record(|key, record: StoredRecord<'_>| {
                assert_eq!(record.header.rsn.0.to_le_bytes(), key);
                assert_eq!(record.header.flags, RecordFlags::MIGRATED_WITH_DATA);
                assert_eq!(record.data, b"value");
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, 10);
    }

    #[test]
    fn memory_for_staged_records_is_bounded() {
        let mut staging = Staging::new(60);
        staging.push(b"key", header(1, RecordFlags::NONE), b"abc").unwrap();
        let refused = staging.push(b"key", header(1, RecordFlags::NONE), b"abcd");
        assert_eq!(refused, Err(StageError::Full { wanted: 61, limit: 60 }));
        assert_eq!(staging.len(), 1);
        staging.push(b"key", header(1, RecordFlags::NONE), b"abc").unwrap();
        let value = staging.record(1).unwrap().1;
        assert_eq!(&value[24..], b"abc");
    }
}
