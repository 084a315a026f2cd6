//! Returns leaked space to the freelist, so that libtdb's check passes again.
//!
//! Role: the one mending that changes no record. A crash around a commit leaves space nobody points
//! to; libtdb's check calls such a file corrupt, at once or as soon as it grows, and the C daemon
//! then refuses the database (spec 7.8).
//! Invariants
//! - Only space that no chain, no freelist entry and no recovery area covers is touched, and only
//!   after everything reachable was found well-formed: a file that is really corrupt stays as it is.
//! - The end of a gap is the next *reachable* record, never bytes that look like one: abandoned
//!   recovery areas are full of old images of records.
//! - Memory: 8 bytes per record. Run it on a transaction's view, then a crash undoes it whole.
//! - The caller holds ALLRECORD W and has recovered the database.
//!
//! Origin: `docs/spec/tdb-format.md` 7.8.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::check::{BodyError, check_body};
use crate::format::{
    ALIGNMENT, FREELIST_TOP, Layout, MAGIC_FREE, Magic, RECORD_LEN, RECOVERY_HEAD, RecordHeader,
    TAILER_LEN,
};
use crate::recovery::Area;
use crate::store::{Store, StoreError};

/// Offset of `rec_len` in a record header.
const REC_LEN_FIELD: u32 = 4;

/// Why a database cannot be mended this way.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RepairError {
    /// More is wrong than leaked space. Nothing was changed.
    #[error("cannot repair: corrupt at offset {offset}: {reason}; rescue the records instead")]
    Corrupt {
        /// Logical offset of what was looked at.
        offset: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A crashed commit must be undone first.
    #[error("cannot repair: the database needs recovery first")]
    NeedsRecovery,
    /// The file could not be read or written.
    #[error("cannot repair the database")]
    Store(#[from] StoreError),
}

/// What was mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Gaps turned into free blocks (or joined to the record in front).
    pub gaps: u32,
    /// Bytes in them.
    pub bytes: u64,
    /// Freelist entries too short to exist, taken off.
    pub unlinked: u32,
    /// The header pointed to a recovery area that was never written; it does not any more.
    pub area_dropped: bool,
}

/// Mends leaked space. Changes nothing if there is none.
///
/// # Errors
/// [`RepairError`].
pub fn repair<S: Store>(store: &S, layout: &Layout) -> Result<Repaired, RepairError> {
    let survey = Survey::run(store, layout)?;
    let gaps = survey.gaps()?;
    if survey.area_dropped {
        store.write_u32(RECOVERY_HEAD, 0)?;
    }
    for (slot, next) in &survey.relinks {
        store.write_u32(*slot, *next)?;
    }
    let mut bytes = 0;
    for gap in &gaps {
        gap.fill(store)?;
        bytes += u64::from(gap.len());
    }
    Ok(Repaired {
        gaps: u32::try_from(gaps.len()).unwrap_or(u32::MAX),
        bytes,
        unlinked: survey.unlinked,
        area_dropped: survey.area_dropped,
    })
}

fn corrupt<T>(offset: u32, reason: &'static str) -> Result<T, RepairError> {
    Err(RepairError::Corrupt { offset, reason })
}

/// What is reachable, and what has to change.
struct Survey<'a, S> {
    store: &'a S,
    layout: &'a Layout,
    len: u32,
    /// Start and end of everything reachable.
    extents: Vec<(u32, u32)>,
    /// Slots on the freelist that get a new next, to skip entries too short to exist.
    relinks: BTreeMap<u32, u32>,
    unlinked: u32,
    area_dropped: bool,
}

impl<'a, S: Store> Survey<'a, S> {
    fn run(store: &'a S, layout: &'a Layout) -> Result<Self, RepairError> {
        let len = store.refresh_len()?;
        let mut survey = Self {
            store,
            layout,
            len,
            extents: Vec::new(),
            relinks: BTreeMap::new(),
            unlinked: 0,
            area_dropped: false,
        };
        let pointer = store.read_u32(RECOVERY_HEAD)?;
        match Area::load(store)?.map(|area| (area, Magic::from_word(area.magic))) {
            Some((_, Magic::Recovery)) => return Err(RepairError::NeedsRecovery),
            Some((area, _)) if area.rec_len >= 8 => survey.add(area.offset, area.rec_len)?,
            _ => survey.area_dropped = pointer != 0,
        }
        survey.freelist()?;
        for chain in 0..layout.hash_size {
            survey.chain(chain)?;
        }
        survey.extents.sort_unstable();
        Ok(survey)
    }

    fn add(&mut self, offset: u32, rec_len: u32) -> Result<(), RepairError> {
        let end = offset.checked_add(RECORD_LEN).and_then(|body| body.checked_add(rec_len));
        match end {
            Some(end) if offset >= self.layout.data_start() && end <= self.len => {
                // More than the file has room for: the lists share records or run in a circle.
                if self.extents.len() as u64 > u64::from(self.len / RECORD_LEN) {
                    return corrupt(offset, "a list runs in a circle");
                }
                self.extents.push((offset, end));
                Ok(())
            }
            _ => corrupt(offset, "a record lies outside the file"),
        }
    }

    fn record(&self, offset: u32) -> Result<RecordHeader, RepairError> {
        match self.store.read_words(offset) {
            Ok(words) => Ok(RecordHeader::from_words(words)),
            Err(StoreError::OutOfBounds { .. }) => corrupt(offset, "a list leads out of the file"),
            Err(error) => Err(error.into()),
        }
    }

    fn body(&mut self, offset: u32, record: &RecordHeader) -> Result<(), RepairError> {
        match check_body(self.store, offset, record, self.len) {
            Ok(()) => self.add(offset, record.rec_len),
            Err(BodyError::Wrong(reason)) => corrupt(offset, reason),
            Err(BodyError::Store(error)) => Err(error.into()),
        }
    }

    fn freelist(&mut self) -> Result<(), RepairError> {
        let mut slot = FREELIST_TOP;
        let mut offset = self.store.read_u32(slot)?;
        while offset != 0 {
            let record = self.record(offset)?;
            if record.magic != Magic::Free {
                return corrupt(offset, "no free block on the freelist");
            }
            if record.rec_len < TAILER_LEN {
                self.relinks.insert(slot, record.next);
                self.unlinked += 1;
                if self.unlinked > self.len / RECORD_LEN {
                    return corrupt(offset, "a list runs in a circle");
                }
            } else {
                self.body(offset, &record)?;
                slot = offset;
            }
            offset = record.next;
        }
        Ok(())
    }

    fn chain(&mut self, chain: u32) -> Result<(), RepairError> {
        let mut offset = self.store.read_u32(self.layout.head_of(chain))?;
        while offset != 0 {
            let record = self.record(offset)?;
            if !matches!(record.magic, Magic::Live | Magic::Dead) {
                return corrupt(offset, "no record on a chain");
            }
            if self.layout.chain_of(record.full_hash) != chain || !record.lengths_fit() {
                return corrupt(offset, "a record on the wrong chain or with wrong lengths");
            }
            self.body(offset, &record)?;
            offset = record.next;
        }
        Ok(())
    }

    /// The space between what is reachable.
    fn gaps(&self) -> Result<Vec<Gap>, RepairError> {
        let mut gaps = Vec::new();
        let (mut at, mut left) = (self.layout.data_start(), None);
        for (start, end) in self.extents.iter().copied().chain([(self.len, self.len)]) {
            if start < at {
                return corrupt(start, "two records overlap");
            }
            if start > at {
                let gap = Gap { start: at, end: start, left };
                if !gap.len().is_multiple_of(ALIGNMENT) || (gap.is_narrow() && left.is_none()) {
                    return corrupt(at, "unused space that no free block fits in");
                }
                gaps.push(gap);
            }
            (at, left) = (end, Some(start));
        }
        Ok(gaps)
    }
}

/// Space nobody points to.
struct Gap {
    start: u32,
    end: u32,
    /// The record in front.
    left: Option<u32>,
}

impl Gap {
    fn len(&self) -> u32 {
        self.end - self.start
    }

    /// No free block of its own fits in.
    fn is_narrow(&self) -> bool {
        self.len() < RECORD_LEN + TAILER_LEN
    }

    fn fill<S: Store>(&self, store: &S) -> Result<(), StoreError> {
        let tailer = self.end - TAILER_LEN;
        match self.left {
            Some(left) if self.is_narrow() => {
                let rec_len = self.end - left - RECORD_LEN;
                store.write_u32(tailer, rec_len + RECORD_LEN)?;
                store.write_u32(left + REC_LEN_FIELD, rec_len)
            }
            _ => {
                let next = store.read_u32(FREELIST_TOP)?;
                let rec_len = self.len() - RECORD_LEN;
                store.write_u32(tailer, self.len())?;
                store.write_words(self.start, [next, rec_len, 0, 0, 0, MAGIC_FREE])?;
                store.write_u32(FREELIST_TOP, self.start)
            }
        }
    }
}
