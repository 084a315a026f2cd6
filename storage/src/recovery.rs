//! Undoing a commit that was cut short.
//!
//! Role: play the saved blocks of the recovery area back. Writing the area: `transaction.rs`.
//! Invariants
//! - The saved blocks are judged as a whole before the first byte is restored: all or nothing.
//! - Idempotent: the area stays valid, header and payload untouched, until everything restored is
//!   durable. Saved bytes that lie inside the area itself are therefore skipped (libtdb restores
//!   them, and a second crash in the middle then leaves a mixture of old and new blocks).
//! - The file is never shortened. Space the dead transaction had taken stays behind, unreferenced.
//! - Locks are the caller's: OPEN alone at open, `[168, EOF)` and OPEN otherwise (spec 7.6).
//!
//! Origin: `docs/spec/tdb-format.md` 7.4–7.6; lib/tdb/common/transaction.c:
//! `tdb_transaction_recover`.

use thiserror::Error;

use crate::format::{MAGIC_RECOVERY, MAGIC_RECOVERY_IDLE, RECORD_LEN, RECOVERY_HEAD};
use crate::store::{Store, StoreError};
use crate::transaction::Step;

/// Offset of the magic in a record header.
pub(crate) const MAGIC_FIELD: u32 = 20;
/// Bytes copied at a time.
const CHUNK: usize = 16 * 1024;

/// Why a commit could not be undone.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The recovery area says it is valid and its contents cannot be true. Nothing was changed.
    #[error("recovery area at {area} is corrupt: {reason}; restore the database from a backup")]
    Corrupt {
        /// Logical offset of the area.
        area: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The file could not be read or written.
    #[error("cannot recover the database")]
    Store(#[from] StoreError),
}

/// The header of a recovery area (the fields of a record header, used differently).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) offset: u32,
    /// Capacity behind the header, bytes.
    pub(crate) rec_len: u32,
    /// Logical file size before the transaction.
    pub(crate) old_len: u32,
    /// Payload in use, bytes.
    pub(crate) data_len: u32,
    pub(crate) magic: u32,
}

impl Area {
    /// The area the header points to; `None` if there is none, or none inside the file.
    pub(crate) fn load<S: Store>(store: &S) -> Result<Option<Self>, StoreError> {
        let offset = store.read_u32(RECOVERY_HEAD)?;
        if offset == 0 {
            return Ok(None);
        }
        match store.read_words::<6>(offset) {
            Ok([_, rec_len, old_len, data_len, _, magic]) => {
                Ok(Some(Self { offset, rec_len, old_len, data_len, magic }))
            }
            // The pointer became durable and the growth behind it did not: the magic was never
            // written, so no block was either.
            Err(StoreError::OutOfBounds { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `true` for bytes that recovery must leave alone: the header and the payload.
    fn end_of_payload(&self) -> u64 {
        u64::from(self.offset) + u64::from(RECORD_LEN) + u64::from(self.data_len)
    }
}

/// Tells whether a crashed commit must be undone before the data may be trusted. Cheap: two reads;
/// to be asked after every first data lock (spec 7.6).
///
/// # Errors
/// As [`Store::read`].
#[inline]
pub fn needs_recovery<S: Store>(store: &S) -> Result<bool, StoreError> {
    if store.read_u32(RECOVERY_HEAD)? == 0 {
        return Ok(false);
    }
    Ok(Area::load(store)?.is_some_and(|area| area.magic == MAGIC_RECOVERY))
}

#[derive(Debug)]
enum Phase {
    Restore,
    Invalidate,
    Finished,
}

/// A recovery under way. Call [`Recovery::step`] until it is done, syncing when told to.
#[derive(Debug)]
pub struct Recovery {
    area: Area,
    phase: Phase,
}

impl Recovery {
    /// Judges the recovery area; `None` if there is nothing to undo.
    ///
    /// # Errors
    /// [`RecoveryError::Corrupt`] if the area is valid by its magic and senseless by its contents;
    /// [`RecoveryError::Store`].
    pub fn begin<S: Store>(store: &S) -> Result<Option<Self>, RecoveryError> {
        let Some(area) = Area::load(store)? else { return Ok(None) };
        if area.magic != MAGIC_RECOVERY {
            return Ok(None);
        }
        let corrupt = |reason| RecoveryError::Corrupt { area: area.offset, reason };
        let file_len = store.refresh_len()?;
        if area.data_len > area.rec_len {
            return Err(corrupt("payload larger than the area"));
        }
        if area.end_of_payload() > u64::from(file_len) {
            return Err(corrupt("payload ends outside the file"));
        }
        for_each_saved(store, &area, |offset, len, _| {
            if u64::from(offset) + u64::from(len) > u64::from(file_len) {
                return Err(corrupt("saved block lies outside the file"));
            }
            Ok(())
        })?;
        Ok(Some(Self { area, phase: Phase::Restore }))
    }

    /// Does the next part. After [`Step::Sync`] carry the sync out, then call again.
    ///
    /// # Errors
    /// [`RecoveryError`]; the file still needs recovery then, and a later attempt starts over.
    pub fn step<S: Store>(&mut self, store: &S) -> Result<Step, RecoveryError> {
        loop {
            match self.phase {
                Phase::Restore => {
                    self.restore(store)?;
                    self.phase = Phase::Invalidate;
                }
                Phase::Invalidate => {
                    if self.area.old_len <= self.area.offset {
                        store.write_u32(RECOVERY_HEAD, 0)?;
                    }
                    let magic = self.area.offset.saturating_add(MAGIC_FIELD);
                    store.write_u32(magic, MAGIC_RECOVERY_IDLE)?;
                    self.phase = Phase::Finished;
                }
                Phase::Finished => return Ok(Step::Done),
            }
            if let Some(point) = store.sync_point(0, store.known_len()) {
                return Ok(Step::Sync(point));
            }
        }
    }

    fn restore<S: Store>(&self, store: &S) -> Result<(), RecoveryError> {
        let keep = u64::from(self.area.offset)..self.area.end_of_payload();
        for_each_saved(store, &self.area, |offset, len, saved_at| {
            let block = u64::from(offset)..u64::from(offset) + u64::from(len);
            // Up to two pieces: in front of the area and behind its payload.
            for piece in
                [block.start..block.end.min(keep.start), block.start.max(keep.end)..block.end]
            {
                let from = u64::from(saved_at) + piece.start.saturating_sub(block.start);
                copy(store, from, piece)?;
            }
            Ok(())
        })
    }
}

/// Walks the saved blocks: `visit(offset, len, where the saved bytes lie)`.
fn for_each_saved<S: Store>(
    store: &S,
    area: &Area,
    mut visit: impl FnMut(u32, u32, u32) -> Result<(), RecoveryError>,
) -> Result<(), RecoveryError> {
    let corrupt = |reason| RecoveryError::Corrupt { area: area.offset, reason };
    let payload = area
        .offset
        .checked_add(RECORD_LEN)
        .filter(|start| start.checked_add(area.data_len).is_some())
        .ok_or_else(|| corrupt("payload ends beyond 4 GiB"))?;
    let mut at = 0_u32; // below `data_len`, so `payload + at` does not overflow
    while area.data_len - at > 8 {
        let [offset, len] = store.read_words::<2>(payload + at)?;
        at += 8;
        if len > area.data_len - at {
            return Err(corrupt("saved block ends outside the payload"));
        }
        visit(offset, len, payload + at)?;
        at += len;
    }
    Ok(())
}

/// Copies the bytes of `to` from `from` on; nothing if `to` is empty.
fn copy<S: Store>(store: &S, from: u64, to: std::ops::Range<u64>) -> Result<(), RecoveryError> {
    let mut buf = [0; CHUNK];
    let (mut from, mut at) = (from, to.start);
    while at < to.end {
        let len = usize::try_from(to.end - at).unwrap_or(CHUNK).min(CHUNK);
        let part = &mut buf[..len];
        // Both ranges were checked against the file's size, which is below 4 GiB.
        store.read(u32::try_from(from).unwrap_or(u32::MAX), part)?;
        store.write(u32::try_from(at).unwrap_or(u32::MAX), part)?;
        from += len as u64;
        at += len as u64;
    }
    Ok(())
}
