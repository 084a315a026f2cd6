//! What a transaction changes, and what a failed commit means. Pure.
//!
//! Invariants
//! - One entry for a key, in the order of first change. A value set back to what it was stays an
//!   entry: a write that changes nothing is harmless.
//! - Each header is the stored one, one rsn further, owned by this node: what UPDATE_RECORD on every
//!   node demands.
//!
//! Origin: `docs/spec/cluster-semantics.md` 4.1, 4.3; `ctdb/client/client_db.c`.

use ringmaster_protocol::record::{RecBufferBuilder, RecordFlags, RecordHeader};
use ringmaster_protocol::{DbId, Pnn, Rsn};

/// Key of the sequence number's record, with its NUL.
pub(super) const SEQNUM_KEY: &[u8] = b"__db_sequence_number__\0";

/// A record as it stands in the file: header and value.
pub(super) type Stored = Option<(RecordHeader, Vec<u8>)>;

/// Changes to be committed together.
#[derive(Debug)]
pub(super) struct Changes {
    own: Pnn,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    key: Vec<u8>,
    header: RecordHeader,
    value: Vec<u8>,
}

/// A sequence number that cannot go up any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

impl Changes {
    pub(super) const fn new(own: Pnn) -> Self {
        Self { own, changes: Vec::new() }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The value a key will have, if it changes.
    pub(super) fn pending(&self, key: &[u8]) -> Option<&[u8]> {
        let change = self.changes.iter().find(|change| change.key == key)?;
        Some(&change.value)
    }

    /// Sets the value of a key (empty: deletes it). `stored` is its record in the file, needed for
    /// the first change of a key only.
    pub(super) fn set(
        &mut self,
        key: &[u8],
        stored: impl FnOnce() -> Stored,
        value: &[u8],
    ) -> Result<(), Exhausted> {
        if let Some(change) = self.changes.iter_mut().find(|change| change.key == key) {
            value.clone_into(&mut change.value);
            return Ok(());
        }
        let stored = stored();
        let unchanged = match &stored {
            Some((_, old)) => old == value,
            None => value.is_empty(),
        };
        if !unchanged {
            let header = next_header(stored.map(|(header, _)| header), self.own)?;
            self.changes.push(Change { key: key.to_vec(), header, value: value.to_vec() });
        }
        Ok(())
    }

    /// The payload of TRANS3_COMMIT: all changes and, last, the sequence number that follows.
    pub(super) fn encode(&self, db: DbId, stored_seqnum: &Stored) -> Result<Vec<u8>, Exhausted> {
        let mut buffer = RecBufferBuilder::new(db);
        for Change { key, header, value } in &self.changes {
            buffer.push_with_header(0, key, header, value);
        }
        let header = next_header(stored_seqnum.as_ref().map(|(header, _)| *header), self.own)?;
        let next = seqnum(stored_seqnum).checked_add(1).ok_or(Exhausted)?;
        buffer.push_with_header(0, SEQNUM_KEY, &header, &next.to_le_bytes());
        Ok(buffer.into_bytes())
    }
}

fn next_header(stored: Option<RecordHeader>, own: Pnn) -> Result<RecordHeader, Exhausted> {
    let (rsn, flags) = stored.map_or((Rsn(0), RecordFlags::NONE), |old| (old.rsn, old.flags));
    let rsn = rsn.advanced(1).ok_or(Exhausted)?;
    Ok(RecordHeader { rsn, dmaster: own.into(), flags })
}

/// The sequence number in its record; 0 if there is none, as the daemon has it.
pub(super) fn seqnum(stored: &Stored) -> u64 {
    let bytes = stored.as_ref().and_then(|(_, value)| <[u8; 8]>::try_from(&value[..]).ok());
    bytes.map_or(0, u64::from_le_bytes)
}

/// What has become of a commit that the daemon did not confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A recovery has completed it.
    Committed,
    /// A recovery has discarded it, or it was never begun: try again.
    NotCommitted,
    /// Somebody else has written, in spite of the lock.
    Diverged,
}

/// Judges by the sequence number before the commit and now.
pub(super) fn fate(before: u64, now: u64) -> Fate {
    if now == before {
        Fate::NotCommitted
    } else if before.checked_add(1) == Some(now) {
        Fate::Committed
    } else {
        Fate::Diverged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_protocol::Decode;
    use ringmaster_protocol::record::RecBuffer;

    const DB: DbId = DbId(7);

    fn pnn(number: u32) -> Pnn {
        Pnn::new(number).unwrap()
    }

    fn stored(rsn: u64, value: &[u8]) -> Stored {
        let (dmaster, flags) = (pnn(0).into(), RecordFlags::NONE);
        Some((RecordHeader { rsn: Rsn(rsn), dmaster, flags }, value.to_vec()))
    }

    #[test]
    fn every_change_is_one_step_ahead_and_the_sequence_number_comes_last() {
        let mut changes = Changes::new(pnn(2));
        changes.set(b"new", || None, b"1").unwrap();
        changes.set(b"old", || stored(4, b"x"), b"y").unwrap();
        changes.set(b"new", || panic!("known"), b"2").unwrap();
        changes.set(b"gone", || stored(9, b"x"), b"").unwrap();
        assert_eq!(changes.pending(b"new"), Some(&b"2"[..]));
        let bytes = changes.encode(DB, &stored(3, &5_u64.to_le_bytes())).unwrap();
        let buffer = RecBuffer::from_bytes(&bytes).unwrap();
        assert_eq!(buffer.db(), DB);
        let records: Vec<_> = buffer
            .iter()
            .map(|record| {
                let (header, value) = record.split_header().unwrap();
                assert!(header.dmaster.is(pnn(2)));
                (record.key, header.rsn.0, value.to_vec())
            })
            .collect();
        let expected = [
            (&b"new"[..], 1, b"2".to_vec()),
            (b"old", 5, b"y".to_vec()),
            (b"gone", 10, Vec::new()),
            (SEQNUM_KEY, 4, 6_u64.to_le_bytes().to_vec()),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn what_stays_the_same_is_no_change() {
        let mut changes = Changes::new(pnn(0));
        changes.set(b"same", || stored(4, b"x"), b"x").unwrap();
        changes.set(b"absent", || None, b"").unwrap();
        changes.set(b"deleted", || stored(4, b""), b"").unwrap();
        assert!(changes.is_empty());
    }

    #[test]
    fn numbers_never_wrap() {
        let mut changes = Changes::new(pnn(0));
        assert_eq!(changes.set(b"k", || stored(u64::MAX, b"x"), b"y"), Err(Exhausted));
        let last = stored(1, &u64::MAX.to_le_bytes());
        assert_eq!(changes.encode(DB, &last), Err(Exhausted));
    }

    #[test]
    fn an_unreadable_sequence_number_counts_as_zero() {
        assert_eq!(seqnum(&None), 0);
        assert_eq!(seqnum(&stored(1, b"short")), 0);
        assert_eq!(seqnum(&stored(1, &3_u64.to_le_bytes())), 3);
    }

    #[test]
    fn the_sequence_number_tells_what_a_recovery_did() {
        assert_eq!(fate(4, 5), Fate::Committed);
        assert_eq!(fate(4, 4), Fate::NotCommitted);
        assert_eq!(fate(4, 6), Fate::Diverged);
        assert_eq!(fate(4, 3), Fate::Diverged);
        assert_eq!(fate(u64::MAX, 0), Fate::Diverged);
    }
}
