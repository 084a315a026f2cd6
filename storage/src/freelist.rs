//! Free blocks: allocation, release, merging, growth.
//!
//! Role: give a store a block and take it back, choosing exactly the block libtdb would choose.
//! Dead records of a chain are `chain.rs`'s.
//! Invariants
//! - The caller holds FREELIST for writing, and a chain or ALLRECORD besides (spec 11.3).
//! - Every LIVE, DEAD and FREE record has a correct tailer at any instant outside a call: merging
//!   trusts the word in front of a record.
//! - Order of writes: what a killed process leaves behind is a block on no list, never one that is
//!   on a list and inside another block, never a list into nowhere.
//!
//! Origin: `docs/spec/tdb-format.md` 1.5, 2.6, 2.7, 11.4.

use crate::engine::{AccessError, CycleGuard, Engine};
use crate::format::{
    FREELIST_TOP, MAGIC_FREE, MIN_RECORD_LEN, Magic, PAD_WORD, RECORD_LEN, RECOVERY_HEAD,
    RecordHeader, TAILER_LEN, align, expansion,
};
use crate::lock::Locks;
use crate::recovery::MAGIC_FIELD;
use crate::store::{Store, StoreError};

/// A block found on the list.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    offset: u32,
    rec_len: u32,
    /// Where the word lies that points to the block: the head or another block.
    previous: u32,
}

/// What a walk over the freelist found.
#[derive(Clone, Copy, Debug)]
enum Search {
    Found(Candidate),
    /// Merging has made a block that is large enough: look again.
    Again,
    Nothing,
}

/// Where a stepwise merge of the freelist stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeStep {
    /// Entries of the list that were looked at.
    pub looked_at: u32,
    /// Blocks that were merged into their left neighbour.
    pub merged: u32,
    /// Index of the entry to go on with; `None` at the end of the list.
    pub next: Option<u32>,
}

/// Body length for `need` bytes of key and value: a quarter more, the tailer, rounded up.
pub(crate) fn rounded_len(need: u32) -> Option<u32> {
    let roomy = u64::from(need) * 5 / 4 + u64::from(TAILER_LEN);
    u32::try_from(roomy).ok().and_then(align)
}

impl<S: Store, L: Locks> Engine<'_, S, L> {
    /// Takes a block for `need` bytes of key and value from the list, growing the file if needed.
    /// Its header and tailer are written, LIVE, with `next` 0.
    pub(crate) fn allocate_from_freelist(
        &mut self,
        need: u32,
    ) -> Result<(u32, RecordHeader), AccessError> {
        let len = rounded_len(need).ok_or(AccessError::TooLarge { len: need.into() })?;
        // Patience is not restored between the rounds of one allocation.
        let mut patience = 1.0;
        let mut swallowed_by = None;
        let mut grown = false;
        loop {
            match self.search(len, &mut patience)? {
                Search::Found(best) => return self.cut(best, len),
                Search::Again => {}
                Search::Nothing if grown => {
                    let lost = swallowed_by.take();
                    self.relist(lost.ok_or_else(lost_space)?)?;
                }
                // Room for the header as well, as libtdb asks for.
                Search::Nothing => {
                    swallowed_by = self.expand(len.saturating_add(RECORD_LEN))?;
                    grown = true;
                }
            }
        }
    }

    /// Takes a block of just this body length, which was given back before under the same lock.
    pub(crate) fn allocate_freed(&mut self, len: u32) -> Result<(u32, RecordHeader), AccessError> {
        let mut patience = 1.0;
        loop {
            match self.search(len, &mut patience)? {
                Search::Found(best) => return self.cut(best, len),
                Search::Again => {}
                Search::Nothing => return Err(lost_space()),
            }
        }
    }

    /// New space that is not found on the list was merged into a free block that a killed process
    /// left on no list: it is put there. (libtdb grows the file again and again then, up to 4 GiB.)
    /// Bytes that merely look like a free block, because a tailer is damaged, stay where they are.
    fn relist(&self, lost: u32) -> Result<(), AccessError> {
        let head = self.store.read_u32(FREELIST_TOP)?;
        let mut circle = CycleGuard::new();
        let mut current = head;
        while current != 0 {
            circle.check(current)?;
            let block = self.read_header(current)?;
            if (current..self.end_of(current, &block)?).contains(&lost) {
                return Err(lost_space());
            }
            current = block.next;
        }
        if !self.is_block(lost)? {
            return Err(lost_space());
        }
        self.list(lost, &self.read_header(lost)?, head)
    }

    /// Walks the file block by block: `true` if one begins at `offset`.
    fn is_block(&self, offset: u32) -> Result<bool, AccessError> {
        let recovery = self.store.read_u32(RECOVERY_HEAD)?;
        let mut at = self.layout.data_start();
        while at < offset {
            let block = self.read_header(at)?;
            let Some(end) = block.end(at) else { return Ok(false) };
            let sound = match block.magic {
                Magic::Live | Magic::Dead | Magic::Free => {
                    block.rec_len >= TAILER_LEN
                        && self.store.read_u32(end - TAILER_LEN)? == end - at
                }
                _ => at == recovery,
            };
            if !sound {
                return Ok(false);
            }
            at = end;
        }
        Ok(at == offset)
    }

    /// Puts a block at the head of the list.
    fn list(&self, offset: u32, block: &RecordHeader, head: u32) -> Result<(), AccessError> {
        // LIVE while the list does not lead here: a FREE block on no list would swallow what is
        // freed behind it. On the list both libraries take LIVE for the work of a killed process.
        let unlisted = RecordHeader { next: head, magic: Magic::Live, ..*block };
        self.write_header(offset, &unlisted)?;
        self.store.write_u32(FREELIST_TOP, offset)?;
        self.set_magic(offset, Magic::Free)
    }

    pub(crate) fn set_magic(&self, offset: u32, magic: Magic) -> Result<(), AccessError> {
        Ok(self.store.write_u32(offset.saturating_add(MAGIC_FIELD), magic.word())?)
    }

    /// Best fit with a patience that wears off, merging to the left on the way.
    fn search(&mut self, len: u32, patience: &mut f32) -> Result<Search, AccessError> {
        let mut best: Option<Candidate> = None;
        let mut merged_enough = false;
        let mut previous = FREELIST_TOP;
        let mut current = self.store.read_u32(FREELIST_TOP)?;
        let mut circle = CycleGuard::new();
        while current != 0 {
            circle.check(current)?;
            let record = self.read_free(current)?;
            if let Some(left) = self.free_left_neighbour(current)? {
                let left_len = self.merge_listed(current, &record, previous, left)?;
                current = record.next;
                if let Some(best) = &mut best
                    && best.offset == left
                {
                    best.rec_len = left_len;
                }
                merged_enough |= left_len > len;
                continue;
            }
            if record.rec_len >= len && best.is_none_or(|best| record.rec_len < best.rec_len) {
                best = Some(Candidate { offset: current, rec_len: record.rec_len, previous });
            }
            if best.is_some_and(|best| good_enough(best.rec_len, len, *patience)) {
                break;
            }
            previous = current;
            current = record.next;
            *patience = less_patient(*patience);
        }
        Ok(match best {
            Some(best) => Search::Found(best),
            None if merged_enough => Search::Again,
            None => Search::Nothing,
        })
    }

    /// Takes the end of a block, or all of it if hardly anything would be left.
    fn cut(&self, best: Candidate, len: u32) -> Result<(u32, RecordHeader), AccessError> {
        let block = self.read_free(best.offset)?;
        if block.rec_len < len.saturating_add(MIN_RECORD_LEN) {
            let taken = RecordHeader { magic: Magic::Live, ..block };
            self.write_header(best.offset, &taken)?;
            self.store.write_u32(best.previous, block.next)?;
            return Ok((best.offset, RecordHeader { next: 0, ..taken }));
        }
        // `block.rec_len >= len + 36`, so neither difference is negative.
        let shortened = RecordHeader { rec_len: block.rec_len - len - RECORD_LEN, ..block };
        let offset = self.end_of(best.offset, &shortened)?;
        let taken = RecordHeader {
            next: 0,
            rec_len: len,
            key_len: 0,
            data_len: 0,
            full_hash: 0,
            magic: Magic::Live,
        };
        self.write_header(offset, &taken)?;
        self.write_tailer(offset, &taken)?;
        self.write_tailer(best.offset, &shortened)?;
        // Last: until now the block is whole and on the list.
        self.write_header(best.offset, &shortened)?;
        Ok((offset, taken))
    }

    /// Gives a block back: into its left neighbour if that is free, else to the head of the list.
    /// `record` is its header as far as it is to be kept; only `rec_len` must be right.
    /// Returns the neighbour that took it in, if one did.
    pub fn free(&mut self, offset: u32, record: &RecordHeader) -> Result<Option<u32>, AccessError> {
        self.write_tailer(offset, record)?;
        if let Some(left) = self.free_left_neighbour(offset)? {
            self.grow_left(left, record)?;
            return Ok(Some(left));
        }
        self.list(offset, record, self.store.read_u32(FREELIST_TOP)?)?;
        Ok(None)
    }

    /// The left neighbour of a block, if there is one and it is free.
    fn free_left_neighbour(&self, offset: u32) -> Result<Option<u32>, AccessError> {
        let Some(left) = self.left_neighbour(offset)? else { return Ok(None) };
        // Of the header only the magic: this is asked of every block that a search passes.
        let magic = self.store.read_u32(left.saturating_add(MAGIC_FIELD))?;
        Ok((magic == MAGIC_FREE).then_some(left))
    }

    /// Moves a block from the list into its free left neighbour; returns the neighbour's new length.
    ///
    /// Off the list first: a process killed in between leaks the block, it does not leave it on the
    /// list and inside its neighbour at once (as libtdb does; the bytes come out the same). For the
    /// magic see [`Engine::list`].
    fn merge_listed(
        &self,
        offset: u32,
        record: &RecordHeader,
        previous: u32,
        left: u32,
    ) -> Result<u32, AccessError> {
        let killable = !self.store.is_private();
        if killable {
            self.set_magic(offset, Magic::Live)?;
        }
        self.store.write_u32(previous, record.next)?;
        let left_len = self.grow_left(left, record)?;
        if killable {
            self.set_magic(offset, Magic::Free)?;
        }
        Ok(left_len)
    }

    /// Adds a block that is on no list to its free left neighbour; returns the new length. The
    /// swallowed header stays in the bytes.
    fn grow_left(&self, left: u32, record: &RecordHeader) -> Result<u32, AccessError> {
        // Read anew: taking the block off the list may have written into this very header.
        let header = self.read_header(left)?;
        let rec_len = record
            .total_len()
            .and_then(|more| header.rec_len.checked_add(more))
            .ok_or(AccessError::Corrupt { offset: left, reason: "free block is too long" })?;
        let merged = RecordHeader { rec_len, ..header };
        self.write_header(left, &merged)?;
        self.write_tailer(left, &merged)?;
        Ok(rec_len)
    }

    /// The record that ends where `offset` begins, by the tailer in front of `offset`.
    fn left_neighbour(&self, offset: u32) -> Result<Option<u32>, AccessError> {
        let first = self.layout.data_start();
        let Some(tailer_at) = offset.checked_sub(TAILER_LEN).filter(|at| *at > first) else {
            return Ok(None);
        };
        let total = self.store.read_u32(tailer_at)?;
        if total == 0 || total == PAD_WORD {
            return Ok(None);
        }
        Ok(offset.checked_sub(total).filter(|left| *left >= first))
    }

    /// Header of a block on the list. A LIVE one was left by a deleter that was killed: it becomes
    /// FREE, as in libtdb.
    pub(crate) fn read_free(&self, offset: u32) -> Result<RecordHeader, AccessError> {
        let mut record = self.read_header(offset)?;
        match record.magic {
            Magic::Free => {}
            Magic::Live => {
                record.magic = Magic::Free;
                self.write_header(offset, &record)?;
            }
            _ => {
                return Err(AccessError::Corrupt { offset, reason: "bad magic on the freelist" });
            }
        }
        Ok(record)
    }

    fn end_of(&self, offset: u32, record: &RecordHeader) -> Result<u32, AccessError> {
        record
            .end(offset)
            .ok_or(AccessError::Corrupt { offset, reason: "record ends beyond 4 GiB" })
    }

    pub(crate) fn write_tailer(
        &self,
        offset: u32,
        record: &RecordHeader,
    ) -> Result<(), AccessError> {
        let end = self.end_of(offset, record)?;
        let total = end - offset;
        // A record is never shorter than its header, so `end - 4` does not underflow.
        Ok(self.store.write_u32(end - TAILER_LEN, total)?)
    }

    /// Makes the file longer and frees what it gained; returns the block that took it in, if one
    /// did.
    pub(crate) fn expand(&mut self, need: u32) -> Result<Option<u32>, AccessError> {
        let old_len = self.store.refresh_len()?;
        let added = expansion(old_len, need, self.layout.page_size);
        let wanted = u64::from(old_len) + u64::from(added);
        if wanted > u64::from(u32::MAX) || added < RECORD_LEN + TAILER_LEN {
            let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(StoreError::Grow { wanted, source }.into());
        }
        self.store.grow(old_len, added)?;
        self.free(old_len, &empty_block(added - RECORD_LEN))
    }

    /// Number of entries on the list. Changes nothing, unlike `tdb_freelist_size`.
    ///
    /// # Errors
    /// [`AccessError::Corrupt`] for a list that is none.
    pub fn freelist_len(&self) -> Result<u32, AccessError> {
        let mut count = 0_u32;
        let mut circle = CycleGuard::new();
        let mut current = self.store.read_u32(FREELIST_TOP)?;
        while current != 0 {
            circle.check(current)?;
            let record = self.read_header(current)?;
            if !matches!(record.magic, Magic::Free | Magic::Live) {
                let reason = "bad magic on the freelist";
                return Err(AccessError::Corrupt { offset: current, reason });
            }
            count += 1;
            current = record.next;
        }
        Ok(count)
    }

    /// Merges free blocks into free left neighbours: looks at up to `limit` entries from the one
    /// with index `from` on. The list may change between steps, so a step may look at an entry
    /// twice or leave one out; that costs nothing but a later chance. Time grows with
    /// `from + limit`.
    ///
    /// # Errors
    /// [`AccessError::Corrupt`] for a list that is none.
    pub fn merge_free_blocks(&mut self, from: u32, limit: u32) -> Result<MergeStep, AccessError> {
        let mut step = MergeStep::default();
        let mut index = 0_u32;
        let mut previous = FREELIST_TOP;
        let mut current = self.store.read_u32(FREELIST_TOP)?;
        let mut circle = CycleGuard::new();
        while current != 0 {
            circle.check(current)?;
            if step.looked_at == limit {
                step.next = Some(index);
                break;
            }
            let record = self.read_free(current)?;
            if index >= from {
                step.looked_at += 1;
                if let Some(left) = self.free_left_neighbour(current)? {
                    self.merge_listed(current, &record, previous, left)?;
                    current = record.next;
                    step.merged += 1;
                    continue;
                }
            }
            index += 1;
            previous = current;
            current = record.next;
        }
        Ok(step)
    }
}

/// Space that is on no list and cannot be put there.
fn lost_space() -> AccessError {
    AccessError::Corrupt {
        offset: FREELIST_TOP,
        reason: "new space does not come up on the freelist",
    }
}

/// A block of new space.
pub(crate) fn empty_block(rec_len: u32) -> RecordHeader {
    RecordHeader { next: 0, rec_len, key_len: 0, data_len: 0, full_hash: 0, magic: Magic::Free }
}

/// `true` if the search may end with this block. Single precision, as in libtdb: files must come
/// out the same.
#[expect(clippy::cast_precision_loss, reason = "libtdb computes with these very roundings")]
fn good_enough(best: u32, len: u32, patience: f32) -> bool {
    (best as f32) < len as f32 * patience
}

/// The product is formed in double precision and rounded to single, as C does with `*= 1.05`.
#[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is the point")]
fn less_patient(patience: f32) -> f32 {
    (f64::from(patience) * 1.05) as f32
}
