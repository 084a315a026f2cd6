//! The merged content of one database while it is being recovered.
//!
//! Role: batches of records in, one record per key out, in batches again.
//! Limit: one copy of every distinct record of one database, in memory; a TDB file, hence each
//! node's share, is smaller than 4 GiB. Batches are merged as they arrive and the set shrinks while
//! it is pushed, so there is never a second copy of the whole.
//! Origin: `docs/spec/cluster-semantics.md` 7.5, 7.6; `ctdb_recovery_helper.c: recdb_*`.

use std::collections::BTreeMap;

use ringmaster_protocol::{
    DbId, Decode, DecodeError, Pnn,
    record::{Dmaster, RecBuffer, RecBufferBuilder, RecordFlags, RecordHeader},
};

/// Why a batch is not merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Its bytes make no sense.
    #[error("malformed batch")]
    Malformed(#[from] DecodeError),
    /// It belongs elsewhere.
    #[error("batch of database {0}")]
    OtherDatabase(DbId),
    /// A record is shorter than its header.
    #[error("record without a header")]
    ShortRecord,
}

/// The best copy of a record so far.
type Copied = (RecordHeader, Box<[u8]>);

/// See the module.
#[derive(Debug)]
pub struct MergeSet {
    db: DbId,
    leader: Pnn,
    records: BTreeMap<Box<[u8]>, Copied>,
}

impl MergeSet {
    /// Nothing yet.
    #[must_use]
    pub const fn new(db: DbId, leader: Pnn) -> Self {
        Self { db, leader, records: BTreeMap::new() }
    }

    /// Merges one batch; the number of its records. A batch that fails leaves some of its records
    /// behind: the whole collection is void then.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn add(&mut self, batch: &[u8]) -> Result<u32, BatchError> {
        let batch = RecBuffer::from_bytes(batch)?;
        if batch.db() != self.db {
            return Err(BatchError::OtherDatabase(batch.db()));
        }
        for record in &batch {
            let (header, value) = record.split_header().ok_or(BatchError::ShortRecord)?;
            self.merge(record.key, header, value);
        }
        Ok(batch.count())
    }

    /// The newer copy wins; of two equally new ones the first, unless that one says that the
    /// leader owns it.
    fn merge(&mut self, key: &[u8], header: RecordHeader, value: &[u8]) {
        if let Some((old, kept)) = self.records.get_mut(key) {
            let stays =
                header.rsn < old.rsn || header.rsn == old.rsn && !old.dmaster.is(self.leader);
            if !stays {
                *old = header;
                *kept = value.into();
            }
            return;
        }
        self.records.insert(key.into(), (header, value.into()));
    }

    /// Records so far, deleted ones included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Takes the next batch out, in the form in which it is pushed: without deleted records, and
    /// (except for persistent databases) with the leader as the dmaster of everything. A batch is
    /// closed when it has `size_limit` bytes or more. `None` when nothing is left.
    pub fn next_batch(&mut self, size_limit: usize, persistent: bool) -> Option<RecBufferBuilder> {
        let mut batch = RecBufferBuilder::new(self.db);
        while let Some((key, (mut header, value))) = self.records.pop_first() {
            if value.is_empty() {
                continue;
            }
            if !persistent {
                header.dmaster = Dmaster::from(self.leader);
                header.flags = header.flags | RecordFlags::MIGRATED_WITH_DATA;
            }
            batch.push_with_header(0, &key, &header, &value);
            if batch.byte_len() >= size_limit {
                break;
            }
        }
        (batch.count() > 0).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_protocol::{Rsn, record::RecData};

    use super::*;

    const DB: DbId = DbId(7);

    fn node(pnn: u32) -> Pnn {
        Pnn::new(pnn).unwrap()
    }

    fn header(rsn: u64, dmaster: u32) -> RecordHeader {
        let dmaster = Dmaster::from_raw(dmaster);
        RecordHeader { rsn: Rsn(rsn), dmaster, flags: RecordFlags::NONE }
    }

    fn batch(records: &[(&str, u64, u32, &str)]) -> Vec<u8> {
        let mut batch = RecBufferBuilder::new(DB);
        for (key, rsn, dmaster, value) in records {
            batch.push_with_header(0, key.as_bytes(), &header(*rsn, *dmaster), value.as_bytes());
        }
        batch.into_bytes()
    }

    fn pushed(set: &mut MergeSet, persistent: bool) -> Vec<(String, RecordHeader, String)> {
        let mut all = Vec::new();
        while let Some(batch) = set.next_batch(100, persistent) {
            for record in &RecBuffer::from_bytes(batch.as_bytes()).unwrap() {
                let (header, value) = record.split_header().unwrap();
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                all.push((text(record.key), header, text(value)));
            }
        }
        all
    }

    #[test]
    fn of_two_copies_the_right_one_survives() {
        // The leader is node 0. First copy, second copy, survivor.
        let table = [
            ((5, 1), (4, 2), "first", "the older one loses"),
            ((4, 1), (5, 2), "second", "the newer one wins"),
            ((5, 1), (5, 2), "first", "of equals the first stays"),
            ((5, 0), (5, 2), "second", "unless it claims the leader as its owner"),
            ((5, 0), (4, 2), "first", "but never for an older one"),
            ((5, 1), (5, 0), "first", "the second one's claim means nothing"),
        ];
        for (first, second, survivor, why) in table {
            let mut set = MergeSet::new(DB, node(0));
            assert_eq!(set.add(&batch(&[("key", first.0, first.1, "first")])), Ok(1));
            assert_eq!(set.add(&batch(&[("key", second.0, second.1, "second")])), Ok(1));
            assert_eq!(pushed(&mut set, false)[0].2, survivor, "{why}");
        }
    }

    #[test]
    fn a_newer_deletion_removes_the_record() {
        let mut set = MergeSet::new(DB, node(0));
        set.add(&batch(&[("gone", 5, 1, "old"), ("there", 1, 1, "new")])).unwrap();
        set.add(&batch(&[("gone", 6, 2, "")])).unwrap();
        assert_eq!(set.len(), 2);
        let records = pushed(&mut set, false);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].0, "there");
    }

    #[test]
    fn the_leader_becomes_dmaster_of_everything_but_persistent_records() {
        for persistent in [false, true] {
            let mut set = MergeSet::new(DB, node(0));
            set.add(&batch(&[("key", 5, 1, "value")])).unwrap();
            let migrated = RecordHeader { flags: RecordFlags::MIGRATED_WITH_DATA, ..header(5, 0) };
            let expected = if persistent { header(5, 1) } else { migrated };
            assert_eq!(pushed(&mut set, persistent)[0].1, expected);
        }
    }

    #[test]
    fn a_large_set_leaves_in_several_batches_and_loses_nothing() {
        let mut set = MergeSet::new(DB, node(0));
        let keys: Vec<String> = (0..40).map(|number| format!("key{number:02}")).collect();
        for key in &keys {
            set.add(&batch(&[(key, 1, 1, "value")])).unwrap();
        }
        let first = set.next_batch(100, false).unwrap();
        assert!(first.count() < 40 && first.byte_len() >= 100, "{}", first.count());
        let rest = pushed(&mut set, false);
        assert_eq!(rest.len() + first.count() as usize, 40);
        assert!(set.next_batch(100, false).is_none());
    }

    #[test]
    fn a_record_without_a_header_makes_its_batch_fail() {
        let mut bytes = RecBufferBuilder::new(DB);
        bytes.push(&RecData { reqid: 0, key: b"key", data: b"short" });
        let mut set = MergeSet::new(DB, node(0));
        assert_eq!(set.add(bytes.as_bytes()), Err(BatchError::ShortRecord));
        assert!(matches!(set.add(&[1, 2]), Err(BatchError::Malformed(_))));
        let other = RecBufferBuilder::new(DbId(8));
        assert_eq!(set.add(other.as_bytes()), Err(BatchError::OtherDatabase(DbId(8))));
    }
}
