//! Is a database whole?
//!
//! Role: the verdict of libtdb's `tdb_check`, record by record and reference by reference. Mending
//! what is only leaked: `repair.rs`. Salvaging what is left of a broken file: `rescue.rs`.
//! Invariants
//! - Same verdict as libtdb, also where libtdb is wrong (unused bytes in mid-file make it give up,
//!   spec 6.7): what passes here is a file the C daemon attaches.
//! - Memory: 8 bytes per hash chain and the longest key; one pass over the file.
//! - Locks are the caller's (ALLRECORD R, none on read-only handles).
//!
//! Origin: `docs/spec/tdb-format.md` 6.7, 7.8; lib/tdb/common/check.c.

use thiserror::Error;

use crate::engine::AccessError;
use crate::format::{
    ALIGNMENT, ByteOrder, FREELIST_TOP, HEADER_LEN, Header, Layout, Magic, PAD_WORD, RECORD_LEN,
    RecordHeader, TAILER_LEN,
};
use crate::store::{Store, StoreError};

/// Why a database is not whole.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// Something in the file cannot be true.
    #[error("the database is corrupt at offset {offset}: {reason}")]
    Corrupt {
        /// Logical offset of what was looked at.
        offset: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The caller's look at a record refused it.
    #[error("the record at offset {offset} was refused")]
    Refused {
        /// Logical offset of the record.
        offset: u32,
    },
    /// The file could not be read.
    #[error("cannot read the database")]
    Store(#[from] StoreError),
    /// The locks for the check could not be had.
    #[error("cannot check the database")]
    Access(#[source] AccessError),
}

/// What a whole database consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Live records.
    pub live: u32,
    /// Deleted records still in their chains.
    pub dead: u32,
    /// Free blocks.
    pub free: u32,
    /// First byte of unused space that reaches to the end of the file, if there is any: libtdb
    /// accepts it only until the file grows (`repair.rs` mends it).
    pub unused_from: Option<u32>,
}

/// Checks everything; `visit` sees key and value of every live record and may refuse it.
///
/// # Errors
/// [`CheckError`]: the first thing found.
pub fn check<S: Store>(
    store: &S,
    layout: &Layout,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<Report, CheckError> {
    let len = store.refresh_len()?;
    let area = check_header(store, layout, len)?;
    let mut walk = Walk { store, layout, len, references: References::load(store, layout)? };
    let mut report = Report::default();
    let mut body = Vec::new();
    let mut area_found = area == 0;
    let mut offset = layout.data_start();
    while offset < len {
        let record = RecordHeader::from_words(store.read_words(offset)?);
        let next = match record.magic {
            Magic::Live | Magic::Dead => {
                walk.used_record(offset, &record, &mut body)?;
                if record.magic == Magic::Live {
                    report.live += 1;
                    let key_len = record.key_len as usize;
                    body.resize(key_len + record.data_len as usize, 0);
                    store.read(offset + RECORD_LEN, &mut body)?;
                    let (key, value) = body.split_at(key_len);
                    if !visit(key, value) {
                        return Err(CheckError::Refused { offset });
                    }
                } else {
                    report.dead += 1;
                }
                record.end(offset)
            }
            Magic::Free => {
                walk.record(offset, &record)?;
                walk.references.meet(0, offset, record.next);
                report.free += 1;
                record.end(offset)
            }
            Magic::Recovery | Magic::RecoveryIdle if offset == area => {
                area_found = true;
                record.end(offset)
            }
            Magic::Recovery => return corrupt(offset, "a recovery area nobody points to"),
            Magic::RecoveryIdle | Magic::Other(PAD_WORD) if len - offset >= RECORD_LEN => {
                report.unused_from = Some(offset);
                Some(len)
            }
            _ => return corrupt(offset, "unknown magic"),
        };
        let Some(next) = next else { return corrupt(offset, "record ends beyond 4 GiB") };
        offset = next;
    }
    walk.references.settled()?;
    if !area_found {
        return corrupt(area, "no recovery area where the header points to");
    }
    Ok(report)
}

fn corrupt<T>(offset: u32, reason: &'static str) -> Result<T, CheckError> {
    Err(CheckError::Corrupt { offset, reason })
}

/// Looks at the header again; returns the offset of the recovery area.
fn check_header<S: Store>(store: &S, layout: &Layout, len: u32) -> Result<u32, CheckError> {
    let mut bytes = [0; HEADER_LEN as usize];
    store.read(0, &mut bytes)?;
    let Ok(header) = Header::parse(&bytes) else { return corrupt(0, "not a header") };
    let found = (header.magic1_hash, header.magic2_hash);
    let expected = layout.hash.check_hashes(header.order == ByteOrder::Foreign);
    if found.0 != 0 && found.1 != 0 && found != expected {
        return corrupt(52, "check hashes of another hash function");
    }
    if header.hash_size != layout.hash_size {
        return corrupt(36, "hash size changed");
    }
    if len < layout.data_start() {
        return corrupt(len, "file ends inside the chain heads");
    }
    if header.recovery_start != 0 && header.recovery_start < layout.data_start() {
        return corrupt(44, "recovery area inside the chain heads");
    }
    Ok(header.recovery_start)
}

struct Walk<'a, S> {
    store: &'a S,
    layout: &'a Layout,
    len: u32,
    references: References,
}

impl<S: Store> Walk<'_, S> {
    /// What holds for every record on a list.
    fn record(&self, offset: u32, record: &RecordHeader) -> Result<(), CheckError> {
        let bad = |reason| CheckError::Corrupt { offset, reason };
        if record.next != 0 && record.next < self.layout.data_start() {
            return Err(bad("next record inside the chain heads"));
        }
        if !record.next.is_multiple_of(ALIGNMENT) {
            return Err(bad("next record misaligned"));
        }
        if record.next.checked_add(RECORD_LEN).is_none_or(|end| end > self.len) {
            return Err(bad("next record outside the file"));
        }
        check_body(self.store, offset, record, self.len).map_err(|error| match error {
            BodyError::Wrong(reason) => bad(reason),
            BodyError::Store(error) => CheckError::Store(error),
        })
    }

    fn used_record(
        &mut self,
        offset: u32,
        record: &RecordHeader,
        key: &mut Vec<u8>,
    ) -> Result<(), CheckError> {
        self.record(offset, record)?;
        let used = u64::from(record.key_len) + u64::from(record.data_len) + u64::from(TAILER_LEN);
        if used > u64::from(record.rec_len) {
            return corrupt(offset, "key and value longer than the record");
        }
        key.resize(record.key_len as usize, 0);
        self.store.read(offset + RECORD_LEN, key)?;
        if self.layout.hash.hash(key) != record.full_hash {
            return corrupt(offset, "stored hash is not the key's");
        }
        self.references.meet(1 + self.layout.chain_of(record.full_hash), offset, record.next);
        Ok(())
    }
}

/// What is wrong with a record's body.
pub(crate) enum BodyError {
    Wrong(&'static str),
    Store(StoreError),
}

/// Length and tailer of a record that claims to lie at `offset`.
pub(crate) fn check_body<S: Store>(
    store: &S,
    offset: u32,
    record: &RecordHeader,
    len: u32,
) -> Result<(), BodyError> {
    if !record.rec_len.is_multiple_of(ALIGNMENT) {
        return Err(BodyError::Wrong("record length misaligned"));
    }
    if record.rec_len < TAILER_LEN {
        return Err(BodyError::Wrong("record too short for its tailer"));
    }
    let total = record.total_len().zip(record.end(offset)).filter(|(_, end)| *end <= len);
    let Some((total, end)) = total else {
        return Err(BodyError::Wrong("record ends outside the file"));
    };
    match store.read_u32(end - TAILER_LEN) {
        Ok(tailer) if tailer == total => Ok(()),
        Ok(_) => Err(BodyError::Wrong("tailer is not the record's length")),
        Err(error) => Err(BodyError::Store(error)),
    }
}

/// Pairs every record with the one reference to it, list by list: each list keeps the exclusive-or
/// of a mixed word per offset, met once as a record and once as somebody's next. Whole lists cancel
/// out; anything else does so once in 2^64.
struct References {
    /// Freelist, then the chains.
    lists: Vec<u64>,
}

impl References {
    fn load<S: Store>(store: &S, layout: &Layout) -> Result<Self, StoreError> {
        let mut references = Self { lists: vec![0; layout.hash_size as usize + 1] };
        // Not more than the file holds: its end lies behind the heads (`check_header`).
        for (list, slot) in (FREELIST_TOP..layout.data_start()).step_by(4).enumerate() {
            let head = store.read_u32(slot)?;
            if let Some(sum) = references.lists.get_mut(list) {
                *sum ^= mixed(head);
            }
        }
        Ok(references)
    }

    fn meet(&mut self, list: u32, offset: u32, next: u32) {
        if let Some(sum) = self.lists.get_mut(list as usize) {
            *sum ^= mixed(offset) ^ mixed(next);
        }
    }

    fn settled(&self) -> Result<(), CheckError> {
        match self.lists.iter().position(|sum| *sum != 0) {
            None => Ok(()),
            Some(0) => corrupt(FREELIST_TOP, "the freelist and the free blocks do not match"),
            Some(list) => {
                let head = u32::try_from(list).unwrap_or(u32::MAX).saturating_mul(4);
                corrupt(head.saturating_add(FREELIST_TOP), "the chain and its records do not match")
            }
        }
    }
}

/// A word per offset whose bits look random; 0 for "no record".
fn mixed(offset: u32) -> u64 {
    if offset == 0 {
        return 0;
    }
    let mut word = u64::from(offset).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}
