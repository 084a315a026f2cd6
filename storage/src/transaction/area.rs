//! Where the undo log of a commit lies and what is in it.
//!
//! Invariants
//! - The area is chosen as libtdb chooses it: reused if it is large enough, grown in place at the
//!   end of the file, else given back inside the transaction and made anew at the end.
//! - It holds the old contents of every changed block that existed before, ascending.
//!
//! Origin: `docs/spec/tdb-format.md` 7.4; lib/tdb/common/transaction.c: `tdb_recovery_allocate`,
//! `transaction_setup_recovery`.

use super::TransactionError;
use super::overlay::{Block, Cache, Overlay};
use crate::engine::{Engine, Policy};
use crate::format::{
    ALIGNMENT, Layout, MAGIC_RECOVERY, MAGIC_RECOVERY_IDLE, RECORD_LEN, RECOVERY_HEAD,
    RecordHeader, TAILER_LEN, expansion,
};
use crate::lock::NoLocks;
use crate::recovery::Area;
use crate::store::{Store, StoreError};

/// A place for the undo log, already inside the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u32,
    /// Capacity behind the header.
    rec_len: u32,
    /// Payload with its tailer.
    data_len: u32,
    /// Logical size of the file before room was made for this log.
    old_len: u32,
}

impl Place {
    /// Header and payload, bytes.
    pub(super) fn used(&self) -> u32 {
        RECORD_LEN.saturating_add(self.data_len)
    }
}

/// Bytes of payload the changes need if old contents can be read up to `readable`; `None` beyond
/// 4 GiB.
fn payload_len(cache: &Cache, readable: u32) -> Option<u32> {
    let mut total = u64::from(TAILER_LEN);
    let visited = cache.for_each_block(cache.file_len(), |block| {
        total += 8 + u64::from(saved_len(&block, readable));
        Ok::<(), StoreError>(())
    });
    visited.ok()?;
    u32::try_from(total).ok()
}

/// How much of a block is saved.
fn saved_len(block: &Block<'_>, readable: u32) -> u32 {
    block.len.min(readable.saturating_sub(block.offset))
}

/// Finds room; `true` if the file was extended for it.
pub(super) fn place<S: Store>(
    cache: &Cache,
    store: &S,
    layout: &Layout,
) -> Result<(Place, bool), TransactionError> {
    let too_large = || TransactionError::TooLarge {
        needed: payload_len(cache, u32::MAX).map_or(u64::from(u32::MAX), u64::from),
        file_len: cache.len(),
    };
    let old_len = cache.file_len();
    // As the transaction sees it: a repair may have taken the pointer away.
    let view = Overlay::new(cache, store);
    // A pointer that cannot be one is a damaged word, and writing there would destroy more.
    let area = Area::load(&view)?
        .filter(|area| matches!(area.magic, MAGIC_RECOVERY | MAGIC_RECOVERY_IDLE))
        .filter(|area| area.offset >= layout.data_start() && area.offset.is_multiple_of(ALIGNMENT));
    let mut data_len = payload_len(cache, u32::MAX).ok_or_else(too_large)?;
    let mut offset = None;
    if let Some(area) = area {
        let end = u64::from(area.offset) + u64::from(RECORD_LEN) + u64::from(area.rec_len);
        if data_len <= area.rec_len && end <= u64::from(old_len) {
            // Should the file end inside a changed block, there is nothing to save behind its end
            // (libtdb then fails the commit).
            let data_len = payload_len(cache, old_len).ok_or_else(too_large)?;
            let place = Place { offset: area.offset, rec_len: area.rec_len, data_len, old_len };
            return Ok((place, false));
        }
        if end == u64::from(cache.len()) {
            offset = Some(area.offset);
        } else {
            let mut locks = NoLocks::default();
            let policy = Policy::default();
            let mut engine = Engine { store: &view, locks: &mut locks, layout: *layout, policy };
            let record = RecordHeader::from_words(view.read_words(area.offset)?);
            engine.free(area.offset, &record)?;
            // Giving it back may have changed further blocks.
            data_len = payload_len(cache, u32::MAX).ok_or_else(too_large)?;
        }
    }
    let offset = offset.unwrap_or_else(|| cache.len());
    let rec_len = expansion(cache.len(), data_len, layout.page_size)
        .checked_sub(RECORD_LEN)
        .ok_or_else(too_large)?;
    let end = offset
        .checked_add(RECORD_LEN)
        .and_then(|payload| payload.checked_add(rec_len))
        .filter(|_| rec_len >= data_len)
        .ok_or_else(too_large)?;
    if end > old_len {
        store.grow(old_len, end - old_len)?;
    }
    cache.set_file_len(end.max(cache.len()));
    Ok((Place { offset, rec_len, data_len, old_len }, true))
}

/// Points to the area and writes header (with an idle magic) and payload. The same bytes go into
/// changed blocks that overlap the area, or writing those back would destroy it.
pub(super) fn fill<S: Store>(
    cache: &Cache,
    store: &S,
    place: &Place,
) -> Result<(), TransactionError> {
    if store.read_u32(RECOVERY_HEAD)? != place.offset {
        store.write_u32(RECOVERY_HEAD, place.offset)?;
        cache.overwrite(RECOVERY_HEAD, &place.offset.to_le_bytes());
    }
    let readable = cache.file_len();
    let mut log = Vec::with_capacity(place.used() as usize);
    for word in [0, place.rec_len, place.old_len, place.data_len, 0, MAGIC_RECOVERY_IDLE] {
        log.extend(word.to_le_bytes());
    }
    cache.for_each_block(place.old_len, |block| {
        log.extend(block.offset.to_le_bytes());
        let saved = saved_len(&block, readable);
        log.extend(saved.to_le_bytes());
        let start = log.len();
        log.resize(start + saved as usize, 0);
        store.read(block.offset, &mut log[start..])
    })?;
    log.extend(place.rec_len.saturating_add(RECORD_LEN).to_le_bytes());
    debug_assert_eq!(log.len(), place.used() as usize);
    store.write(place.offset, &log)?;
    cache.overwrite(place.offset, &log);
    Ok(())
}
