//! Work on a whole database: empty it, copy it, count what is in it.
//!
//! Role: operations that need every chain. Checking and rescuing: `check.rs`.
//! Invariants
//! - The caller holds ALLRECORD (for writing to wipe), or is alone.
//!
//! Origin: `docs/spec/tdb-format.md` 6.7; lib/tdb/common/summary.c for the text.

use std::fmt;

use crate::chain::{StoreMode, Stored};
use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{
    FEATURE_MUTEX, FREELIST_TOP, HashKind, Magic, PAD_WORD, RECORD_LEN, RECOVERY_HEAD, TAILER_LEN,
};
use crate::freelist::empty_block;
use crate::lock::Locks;
use crate::store::Store;

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// Deletes every record: all heads 0, everything behind them free, the recovery area kept.
    ///
    /// # Errors
    /// [`AccessError`]. Half-way through, the chains are empty and space is missing.
    pub fn wipe(&mut self) -> Result<(), AccessError> {
        let area = self.recovery_area()?;
        self.zero_heads()?;
        let first = self.layout.data_start();
        let len = self.store.refresh_len()?;
        match area {
            None => self.free_region(first, len)?,
            Some((start, end)) => {
                if start < first || end > len {
                    let reason = "the recovery area lies outside the data";
                    return Err(AccessError::Corrupt { offset: start, reason });
                }
                self.free_region(first, start)?;
                self.free_region(end, len)?;
            }
        }
        self.count_change()
    }

    /// Start and end of the recovery area, whatever its state.
    fn recovery_area(&self) -> Result<Option<(u32, u32)>, AccessError> {
        let start = self.store.read_u32(RECOVERY_HEAD)?;
        if start == 0 {
            return Ok(None);
        }
        let header = self.read_header(start)?;
        let end = header.end(start).ok_or(AccessError::Corrupt {
            offset: start,
            reason: "the recovery area ends beyond 4 GiB",
        })?;
        Ok(Some((start, end)))
    }

    fn zero_heads(&self) -> Result<(), AccessError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let end = self.layout.data_start();
        let mut at = FREELIST_TOP;
        while at < end {
            let part = &ZEROS[..ZEROS.len().min((end - at) as usize)];
            self.store.write(at, part)?;
            at = at.saturating_add(4096);
        }
        Ok(())
    }

    fn free_region(&mut self, start: u32, end: u32) -> Result<(), AccessError> {
        match end.checked_sub(start) {
            Some(len) if len > RECORD_LEN => {
                self.free(start, &empty_block(len - RECORD_LEN)).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    /// Number of records in a chain, dead ones included; `None` for a chain in a circle.
    ///
    /// # Errors
    /// [`AccessError::Store`].
    pub fn chain_len(&self, chain: u32) -> Result<Option<u64>, AccessError> {
        let mut count = 0;
        let mut circle = CycleGuard::new();
        let mut offset = self.store.read_u32(self.layout.head_of(chain))?;
        while offset != 0 {
            if circle.check(offset).is_err() {
                return Ok(None);
            }
            count += 1;
            offset = self.store.read_u32(offset)?;
        }
        Ok(Some(count))
    }

    /// Copies every live record into `target`, which must be empty of these keys.
    ///
    /// # Errors
    /// [`AccessError`] of either side.
    pub fn copy_records_into<T: Store, M: Locks>(
        &self,
        target: &mut Engine<'_, T, M>,
    ) -> Result<u64, AccessError> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut copied = 0;
        for chain in 0..self.layout.hash_size {
            let mut failed = None;
            self.visit_chain(chain, &mut key, &mut value, |key, value| {
                let hash = target.layout.hash.hash(key);
                match target.store(key, hash, &[value], StoreMode::Replace) {
                    Ok(Stored::Busy) => failed = Some(AccessError::busy("the freelist")),
                    Ok(Stored::Done | Stored::Exists | Stored::Missing) => copied += 1,
                    Err(error) => failed = Some(error),
                }
                failed.is_none()
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(copied)
    }

    /// Walks the file and counts. `start` is the size of the mutex area, 0 without.
    ///
    /// # Errors
    /// [`AccessError::Corrupt`] at the first thing that is no record.
    pub fn summary(&self, start: u32) -> Result<Summary, AccessError> {
        let len = self.store.refresh_len()?;
        let recovery = self.store.read_u32(RECOVERY_HEAD)?;
        let mut summary = Summary::new(start, len, self.layout.hash_size, self.layout.hash);
        let mut run = 0;
        let mut offset = self.layout.data_start();
        while offset < len {
            let mut header = self.read_header(offset)?;
            match header.magic {
                Magic::Live => {
                    let padding = header.key_len.checked_add(header.data_len);
                    let padding = padding.and_then(|used| header.rec_len.checked_sub(used));
                    let reason = "key and value exceed the record";
                    let padding = padding.ok_or(AccessError::Corrupt { offset, reason })?;
                    summary.keys.add(header.key_len.into());
                    summary.values.add(header.data_len.into());
                    summary.padding.add(padding.into());
                    summary.end_run(&mut run);
                }
                Magic::Free => {
                    summary.free.add(header.rec_len.into());
                    run += 1;
                }
                Magic::RecoveryIdle | Magic::Other(PAD_WORD) => {
                    run += 1;
                    if offset != recovery {
                        header.rec_len = self.dead_space(offset, len)?;
                    }
                    summary.dead.add(header.rec_len.into());
                }
                Magic::Dead => summary.dead.add(header.rec_len.into()),
                Magic::Recovery | Magic::Other(_) => {
                    let reason = "unexpected record magic";
                    return Err(AccessError::Corrupt { offset, reason });
                }
            }
            offset = header.end(offset).unwrap_or(u32::MAX);
        }
        summary.end_run(&mut run);
        for chain in 0..self.layout.hash_size {
            // libtdb's -1 for a chain in a circle, as a number without sign.
            summary.chains.add(self.chain_len(chain)?.unwrap_or(u64::MAX));
        }
        Ok(summary)
    }

    /// Body length of bytes never written. As in libtdb the first such byte condemns all the rest
    /// of the file (spec 6.7).
    fn dead_space(&self, offset: u32, len: u32) -> Result<u32, AccessError> {
        let mut byte = [0];
        self.store.read(offset, &mut byte)?;
        let reason = "neither a record nor unused space";
        match (byte[0], len.checked_sub(offset).and_then(|rest| rest.checked_sub(RECORD_LEN))) {
            (0 | 0x42, Some(rest)) => Ok(rest),
            _ => Err(AccessError::Corrupt { offset, reason }),
        }
    }
}

/// Smallest, largest, sum and number of some quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Smallest value, 0 if there is none.
    pub min: u64,
    /// Largest value, 0 if there is none.
    pub max: u64,
    /// Sum; wraps as libtdb's does.
    pub total: u64,
    /// Number of values.
    pub count: u64,
}

impl Tally {
    fn add(&mut self, value: u64) {
        self.min = if self.count == 0 { value } else { self.min.min(value) };
        self.max = self.max.max(value);
        self.total = self.total.wrapping_add(value);
        self.count += 1;
    }

    /// Mean, rounded down; 0 if there is none.
    #[must_use]
    pub fn average(&self) -> u64 {
        self.total.checked_div(self.count).unwrap_or(0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.min, self.average(), self.max)
    }
}

/// What a database consists of; its text is that of `tdb_summary` and `tdbtool info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes in front of the logical file.
    pub start: u32,
    /// Bytes of the logical file.
    pub len: u32,
    /// Number of hash chains.
    pub hash_size: u32,
    /// Hash of the keys.
    pub hash: HashKind,
    /// Key lengths of live records.
    pub keys: Tally,
    /// Value lengths of live records.
    pub values: Tally,
    /// What live records hold beyond key and value (the tailer counts).
    pub padding: Tally,
    /// Bodies of dead records, idle recovery area and unused space.
    pub dead: Tally,
    /// Bodies of free blocks.
    pub free: Tally,
    /// Records per chain.
    pub chains: Tally,
    /// Runs of free blocks side by side, each counted less one.
    pub uncoalesced: Tally,
}

impl Summary {
    fn new(start: u32, len: u32, hash_size: u32, hash: HashKind) -> Self {
        let none = Tally::default();
        Self {
            start,
            len,
            hash_size,
            hash,
            keys: none,
            values: none,
            padding: none,
            dead: none,
            free: none,
            chains: none,
            uncoalesced: none,
        }
    }

    fn end_run(&mut self, run: &mut u64) {
        if *run > 1 {
            self.uncoalesced.add(*run - 1);
        }
        *run = 0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "libtdb computes the percentages in doubles")]
fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |yes| if yes { "yes" } else { "no" };
        let size = u64::from(self.start) + u64::from(self.len);
        let mutexes = self.start != 0;
        let overhead = (self.keys.count + self.free.count + self.dead.count)
            * u64::from(RECORD_LEN + TAILER_LEN);
        writeln!(f, "Size of file/data: {size}/{}", self.keys.total + self.values.total)?;
        writeln!(f, "Header offset/logical size: {}/{}", self.start, self.len)?;
        writeln!(f, "Number of records: {}", self.keys.count)?;
        writeln!(f, "Incompatible hash: {}", yes_no(self.hash == HashKind::Jenkins))?;
        let active = if mutexes { FEATURE_MUTEX } else { 0 };
        writeln!(f, "Active/supported feature flags: {active:#010x}/{FEATURE_MUTEX:#010x}")?;
        writeln!(f, "Robust mutexes locking: {}", yes_no(mutexes))?;
        writeln!(f, "Smallest/average/largest keys: {}", self.keys)?;
        writeln!(f, "Smallest/average/largest data: {}", self.values)?;
        writeln!(f, "Smallest/average/largest padding: {}", self.padding)?;
        writeln!(f, "Number of dead records: {}", self.dead.count)?;
        writeln!(f, "Smallest/average/largest dead records: {}", self.dead)?;
        writeln!(f, "Number of free records: {}", self.free.count)?;
        writeln!(f, "Smallest/average/largest free records: {}", self.free)?;
        writeln!(f, "Number of hash chains: {}", self.chains.count)?;
        writeln!(f, "Smallest/average/largest hash chains: {}", self.chains)?;
        writeln!(f, "Number of uncoalesced records: {}", self.uncoalesced.total)?;
        writeln!(f, "Smallest/average/largest uncoalesced runs: {}", self.uncoalesced)?;
        write!(f, "Percentage keys/data/padding/free/dead/rechdrs&tailers/hashes: ")?;
        let parts = [
            self.keys.total,
            self.values.total,
            self.padding.total,
            self.free.total,
            self.dead.total,
            overhead,
            u64::from(self.hash_size) * 4,
        ];
        for (index, part) in parts.into_iter().enumerate() {
            let slash = if index == 0 { "" } else { "/" };
            write!(f, "{slash}{:.0}", percent(part, size))?;
        }
        writeln!(f)
    }
}
