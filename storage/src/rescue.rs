//! Salvages the records of a database that is beyond repair.
//!
//! Role: look at every place a record could start and hand out what is plausible, as libtdb's
//! `tdb_rescue` does. Judging a file: `check.rs`.
//! Invariants
//! - A record counts if its magic is live, its lengths fit and the stored hash is its key's.
//! - Per key: all candidates that a chain leads to; only if there is none, those that do not lie in
//!   free blocks or in the recovery area (both are full of old images).
//! - Reads only. Memory: 16 bytes per candidate and 8 per free block, the longest record, and the
//!   keys of candidates that share hash and length (at most [`RESCUED_KEYS_MAX`]).
//! - What is compared is a copy: others may write the file meanwhile, and a sort whose order changes
//!   under it may panic.
//!
//! Origin: `docs/spec/tdb-format.md` 6.7; lib/tdb/common/rescue.c.

use crate::format::{
    ALIGNMENT, FREELIST_TOP, Layout, MAGIC_LIVE, Magic, RECORD_LEN, RECOVERY_HEAD, RecordHeader,
};
use crate::limits::RESCUED_KEYS_MAX;
use crate::recovery::MAGIC_FIELD;
use crate::store::{Store, StoreError};

/// Bytes looked at in one read while scanning.
const WINDOW: usize = 64 * 1024;

struct Candidate {
    offset: u32,
    full_hash: u32,
    key_len: u32,
    in_chain: bool,
}

impl Candidate {
    fn rough_order(&self) -> (u32, u32) {
        (self.full_hash, self.key_len)
    }

    fn order(&self) -> (u32, u32, u32) {
        (self.full_hash, self.key_len, self.offset)
    }
}

/// Calls `visit` with key and value of everything that can be saved, ordered by hash and key; it
/// answers `false` to stop. Returns how many records it was given.
///
/// # Errors
/// As [`Store::read`]; damage in the file is no error.
pub fn rescue<S: Store>(
    store: &S,
    layout: &Layout,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> Result<u64, StoreError> {
    let len = store.refresh_len()?;
    let mut candidates = candidates(store, layout, len)?;
    mark_chains(store, layout, len, &mut candidates)?;
    let unused = unused_space(store, len)?;
    candidates.sort_unstable_by_key(Candidate::order);
    let mut given = 0;
    let mut body = Vec::new();
    for run in candidates.chunk_by(|left, right| left.rough_order() == right.rough_order()) {
        for group in by_key(store, run)? {
            let any_in_chain = group.iter().any(|candidate| candidate.in_chain);
            for candidate in group {
                let chosen = if any_in_chain {
                    candidate.in_chain
                } else {
                    !inside(&unused, candidate.offset)
                };
                if !chosen {
                    continue;
                }
                let header = RecordHeader::from_words(store.read_words(candidate.offset)?);
                if !header.lengths_fit() || header.end(candidate.offset).is_none_or(|end| end > len)
                {
                    continue; // changed since it was looked at
                }
                let key_len = header.key_len as usize;
                body.resize(key_len + header.data_len as usize, 0);
                store.read(candidate.offset + RECORD_LEN, &mut body)?;
                let (key, value) = body.split_at(key_len);
                given += 1;
                if !visit(key, value) {
                    return Ok(given);
                }
            }
        }
    }
    Ok(given)
}

/// Candidates of one hash and key length, grouped by key, ordered by key and place. More than
/// [`RESCUED_KEYS_MAX`] bytes of keys count as one key, which they nearly always are.
fn by_key<'c, S: Store>(
    store: &S,
    run: &'c [Candidate],
) -> Result<Vec<Vec<&'c Candidate>>, StoreError> {
    let key_len = run.first().map_or(0, |first| first.key_len as usize);
    if run.len() == 1 || key_len.saturating_mul(run.len()) > RESCUED_KEYS_MAX {
        return Ok(vec![run.iter().collect()]);
    }
    let mut keyed = Vec::with_capacity(run.len());
    for candidate in run {
        let mut key = vec![0; key_len];
        store.read(candidate.offset + RECORD_LEN, &mut key)?;
        keyed.push((key, candidate));
    }
    keyed.sort_by(|left, right| left.0.cmp(&right.0));
    let groups = keyed.chunk_by(|left, right| left.0 == right.0);
    Ok(groups.map(|group| group.iter().map(|(_key, candidate)| *candidate).collect()).collect())
}

/// Every plausible live record, ascending.
fn candidates<S: Store>(
    store: &S,
    layout: &Layout,
    len: u32,
) -> Result<Vec<Candidate>, StoreError> {
    let mut found = Vec::new();
    let mut key = Vec::new();
    let mut window = vec![0; WINDOW];
    let mut start = layout.data_start().saturating_add(MAGIC_FIELD);
    while start < len {
        let take = window.len().min((len - start) as usize) & !3;
        if take == 0 {
            break;
        }
        store.read(start, &mut window[..take])?;
        // Only where the magic is right is the rest worth a look.
        for (word, bytes) in window[..take].as_chunks::<4>().0.iter().enumerate() {
            let magic = u32::from_le_bytes(*bytes);
            if magic != MAGIC_LIVE && magic.swap_bytes() != MAGIC_LIVE {
                continue;
            }
            // Inside the window, hence inside the file: no overflow.
            let at = start + ALIGNMENT * u32::try_from(word).unwrap_or(0) - MAGIC_FIELD;
            if let Some(candidate) = judge(store, layout, len, at, &mut key)? {
                found.push(candidate);
            }
        }
        start = start.saturating_add(u32::try_from(take).unwrap_or(u32::MAX));
    }
    Ok(found)
}

fn judge<S: Store>(
    store: &S,
    layout: &Layout,
    len: u32,
    offset: u32,
    key: &mut Vec<u8>,
) -> Result<Option<Candidate>, StoreError> {
    let header = RecordHeader::from_words(store.read_words(offset)?);
    let plausible = header.magic == Magic::Live
        && header.lengths_fit()
        && header.rec_len.is_multiple_of(ALIGNMENT)
        && (header.next == 0 || header.next >= layout.data_start())
        && header.next.checked_add(RECORD_LEN).is_some_and(|end| end <= len)
        && header.end(offset).is_some_and(|end| end <= len);
    if !plausible {
        return Ok(None);
    }
    key.resize(header.key_len as usize, 0);
    store.read(offset + RECORD_LEN, key)?;
    let is_record = layout.hash.hash(key) == header.full_hash;
    Ok(is_record.then_some(Candidate {
        offset,
        full_hash: header.full_hash,
        key_len: header.key_len,
        in_chain: false,
    }))
}

/// Notes which candidates a chain leads to. A chain ends at the first offset that makes no sense and
/// where it runs in a circle; all chains together end after a few times as many steps as the file
/// could hold records (many chains that have grown together).
fn mark_chains<S: Store>(
    store: &S,
    layout: &Layout,
    len: u32,
    candidates: &mut [Candidate],
) -> Result<(), StoreError> {
    let mut steps_left = 4 * u64::from(len / RECORD_LEN) + 16;
    for chain in 0..layout.hash_size {
        let Some(mut offset) = tolerant(store.read_u32(layout.head_of(chain)))? else { continue };
        // A milestone that moves on after 1, 2, 4, … steps: standing on it again is a circle.
        let (mut milestone, mut steps, mut next_milestone) = (0, 0_u32, 1_u32);
        while offset != 0 && offset != milestone && steps_left > 0 {
            steps_left -= 1;
            steps += 1;
            if steps == next_milestone {
                milestone = offset;
                next_milestone = next_milestone.saturating_mul(2);
            }
            if let Ok(index) = candidates.binary_search_by_key(&offset, |found| found.offset) {
                candidates[index].in_chain = true;
            }
            let Some(next) = tolerant(store.read_u32(offset))? else { break };
            offset = next;
        }
    }
    Ok(())
}

/// Free blocks and the recovery area, merged and ascending.
fn unused_space<S: Store>(store: &S, len: u32) -> Result<Vec<(u32, u32)>, StoreError> {
    let mut spaces = Vec::new();
    let mut push = |offset: u32, header: &RecordHeader| {
        spaces.push((offset, header.end(offset).unwrap_or(u32::MAX)));
    };
    let mut offset = store.read_u32(FREELIST_TOP)?;
    let mut steps_left = len / RECORD_LEN;
    while offset != 0 && steps_left > 0 {
        steps_left -= 1;
        let Some(words) = tolerant(store.read_words(offset))? else { break };
        let header = RecordHeader::from_words(words);
        if header.magic != Magic::Free {
            break;
        }
        push(offset, &header);
        offset = header.next;
    }
    let area = store.read_u32(RECOVERY_HEAD)?;
    if area != 0
        && let Some(words) = tolerant(store.read_words(area))?
    {
        push(area, &RecordHeader::from_words(words));
    }
    spaces.sort_unstable();
    spaces.dedup_by(|later, earlier| {
        let overlaps = later.0 <= earlier.1;
        if overlaps {
            earlier.1 = earlier.1.max(later.1);
        }
        overlaps
    });
    Ok(spaces)
}

fn inside(spaces: &[(u32, u32)], offset: u32) -> bool {
    let behind = spaces.partition_point(|(start, _)| *start <= offset);
    behind > 0 && offset < spaces[behind - 1].1
}

/// An offset outside the file ends a list; a failing disk is an error.
fn tolerant<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::OutOfBounds { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
