//! The private blocks of a transaction.
//!
//! Role: a [`Store`] that reads through changed blocks into the file and never writes the file, so
//! that chains and freelist run on it unchanged.
//! Invariants
//! - A block is filled from the file when it is first written; which bytes of the last block count
//!   is tracked, for libtdb saves and writes exactly those.
//! - Blocks wholly behind the old end of the file are zero until written and are not kept: growing
//!   by a quarter of a large file costs nothing. The grown file reads as zero there too.
//! - After a failed fill the transaction cannot be committed.
//!
//! Origin: `docs/spec/tdb-format.md` 7.1; lib/tdb/common/transaction.c: `transaction_write`.

use std::cell::RefCell;
use std::io;

use crate::store::{Store, StoreError, SyncPoint};

#[derive(Debug)]
pub(super) struct Cache {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    block_size: u32,
    /// Indexed by block number; shorter than `block_count` when the rest is untouched.
    blocks: Vec<Option<Box<[u8]>>>,
    /// Blocks libtdb would know: one more than the highest one written or grown into.
    block_count: u32,
    /// Valid bytes of block `block_count - 1`.
    last_block_len: u32,
    /// Logical size of the real file, as far as this transaction knows and needs it.
    file_len: u32,
    /// Logical size inside the transaction.
    len: u32,
    expanded: bool,
    spoiled: bool,
    /// Prepared: a write would miss the undo log.
    frozen: bool,
}

/// One changed block: where it starts, its valid bytes, and the new contents.
pub(super) struct Block<'a> {
    pub(super) offset: u32,
    pub(super) len: u32,
    pub(super) data: &'a [u8],
}

impl Cache {
    pub(super) fn new(file_len: u32, block_size: u32) -> Self {
        let state = State {
            block_size: block_size.max(1),
            blocks: Vec::new(),
            block_count: 0,
            last_block_len: 0,
            file_len,
            len: file_len,
            expanded: false,
            spoiled: false,
            frozen: false,
        };
        Self { state: RefCell::new(state) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.borrow().block_count == 0
    }

    pub(super) fn has_expanded(&self) -> bool {
        self.state.borrow().expanded
    }

    pub(super) fn is_spoiled(&self) -> bool {
        self.state.borrow().spoiled
    }

    /// From now on a write is an error and spoils the transaction.
    pub(super) fn freeze(&self) {
        self.state.borrow_mut().frozen = true;
    }

    /// Logical size inside the transaction.
    pub(super) fn len(&self) -> u32 {
        self.state.borrow().len
    }

    /// Logical size of the real file before the commit grows it.
    pub(super) fn file_len(&self) -> u32 {
        self.state.borrow().file_len
    }

    /// The real file was extended to `len`, for the recovery area.
    pub(super) fn set_file_len(&self, len: u32) {
        let mut state = self.state.borrow_mut();
        state.file_len = len;
        state.len = len;
    }

    /// Extends the real file to the transaction's size.
    pub(super) fn grow_file<S: Store>(&self, store: &S) -> Result<(), StoreError> {
        let (file_len, len) = {
            let state = self.state.borrow();
            (state.file_len, state.len)
        };
        if len > file_len {
            store.grow(file_len, len - file_len)?;
            self.state.borrow_mut().file_len = len;
        }
        Ok(())
    }

    /// Every changed block that starts in front of `end`, ascending.
    pub(super) fn for_each_block<E>(
        &self,
        end: u32,
        mut visit: impl FnMut(Block<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let state = self.state.borrow();
        let mut offset = 0_u32;
        for (index, block) in state.blocks.iter().enumerate() {
            if offset >= end {
                break;
            }
            if let Some(data) = block {
                let is_last = index + 1 == state.block_count as usize;
                let len = if is_last { state.last_block_len } else { state.block_size };
                visit(Block { offset, len, data: &data[..len as usize] })?;
            }
            offset = offset.saturating_add(state.block_size);
        }
        Ok(())
    }

    /// Writes all changed blocks into the file, ascending.
    pub(super) fn write_back<S: Store>(&self, store: &S) -> Result<(), StoreError> {
        self.for_each_block(u32::MAX, |block| store.write(block.offset, block.data))
    }

    /// Changes bytes of blocks that are in memory already and leaves all others out: what was
    /// written past the transaction must not be written back with its old contents.
    pub(super) fn overwrite(&self, offset: u32, data: &[u8]) {
        let mut state = self.state.borrow_mut();
        let block_size = state.block_size;
        for piece in pieces(offset, data.len(), block_size) {
            if let Some(Some(block)) = state.blocks.get_mut(piece.index) {
                block[piece.start..piece.start + piece.len].copy_from_slice(&data[piece.data()]);
            }
        }
    }
}

/// A part of a range that lies in one block.
struct Piece {
    index: usize,
    /// Inside the block.
    start: usize,
    len: usize,
    /// Inside the range.
    at: usize,
}

impl Piece {
    fn data(&self) -> std::ops::Range<usize> {
        self.at..self.at + self.len
    }
}

fn pieces(offset: u32, len: usize, block_size: u32) -> impl Iterator<Item = Piece> {
    let block_size = block_size as usize;
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let position = offset as usize + at;
        let start = position % block_size;
        let piece = Piece {
            index: position / block_size,
            start,
            len: (block_size - start).min(len - at),
            at,
        };
        at += piece.len;
        Some(piece)
    })
}

impl State {
    fn check(&self, offset: u32, len: usize) -> Result<(), StoreError> {
        if offset as u64 + len as u64 > u64::from(self.len) {
            return Err(StoreError::OutOfBounds { offset, len, file_len: u64::from(self.len) });
        }
        Ok(())
    }

    /// Refuses changes once the undo log is complete.
    fn check_changes(&mut self) -> Result<(), StoreError> {
        if self.frozen {
            self.spoiled = true;
            return Err(StoreError::ReadOnly);
        }
        Ok(())
    }

    /// The block to write to, filled from the file if it is new. Updates what counts as its end:
    /// `end` is where the coming write stops.
    fn block_mut<S: Store>(
        &mut self,
        store: &S,
        index: usize,
        end: usize,
    ) -> Result<&mut [u8], StoreError> {
        self.reach(index);
        if self.blocks.len() <= index {
            self.blocks.resize_with(index + 1, || None);
        }
        let is_last = index + 1 == self.block_count as usize;
        if self.blocks[index].is_none() {
            let mut block = vec![0; self.block_size as usize].into_boxed_slice();
            // Below `len`, so it fits.
            let start =
                u32::try_from(index as u64 * u64::from(self.block_size)).unwrap_or(u32::MAX);
            let valid = self.file_len.saturating_sub(start).min(self.block_size);
            if valid > 0 {
                let read = store.read(start, &mut block[..valid as usize]);
                if read.is_err() {
                    self.spoiled = true;
                }
                read?;
                if is_last {
                    self.last_block_len = self.last_block_len.max(valid);
                }
            }
            self.blocks[index] = Some(block);
        }
        if is_last {
            let end = u32::try_from(end).unwrap_or(self.block_size);
            self.last_block_len = self.last_block_len.max(end);
        }
        Ok(self.blocks[index].as_mut().expect("filled above"))
    }

    /// Makes `index` a known block.
    fn reach(&mut self, index: usize) {
        let count = u32::try_from(index + 1).unwrap_or(u32::MAX);
        if self.block_count < count {
            self.block_count = count;
            self.last_block_len = 0;
        }
    }
}

/// The database as a transaction sees it. Operations on it change only the transaction.
#[derive(Debug)]
pub struct Overlay<'t, S> {
    cache: &'t Cache,
    store: &'t S,
}

impl<'t, S: Store> Overlay<'t, S> {
    pub(super) fn new(cache: &'t Cache, store: &'t S) -> Self {
        Self { cache, store }
    }
}

impl<S: Store> Store for Overlay<'_, S> {
    fn known_len(&self) -> u32 {
        self.cache.len()
    }

    /// Nobody else can grow the file during a transaction.
    fn refresh_len(&self) -> Result<u32, StoreError> {
        Ok(self.cache.len())
    }

    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        let state = self.cache.state.borrow();
        state.check(offset, buf.len())?;
        for piece in pieces(offset, buf.len(), state.block_size) {
            let target = &mut buf[piece.data()];
            if let Some(Some(block)) = state.blocks.get(piece.index) {
                target.copy_from_slice(&block[piece.start..piece.start + piece.len]);
                continue;
            }
            // Checked against the transaction's size, hence below 4 GiB.
            let start = offset.saturating_add(u32::try_from(piece.at).unwrap_or(u32::MAX));
            if start >= state.file_len {
                target.fill(0);
            } else {
                self.store.read(start, target)?;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError> {
        let mut state = self.cache.state.borrow_mut();
        state.check_changes()?;
        state.check(offset, data.len())?;
        let block_size = state.block_size;
        for piece in pieces(offset, data.len(), block_size) {
            let end = piece.start + piece.len;
            let block = state.block_mut(self.store, piece.index, end)?;
            block[piece.start..end].copy_from_slice(&data[piece.data()]);
        }
        Ok(())
    }

    /// Grows the transaction only; the file follows at the commit.
    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError> {
        let mut state = self.cache.state.borrow_mut();
        state.check_changes()?;
        let wanted = u64::from(old_len) + u64::from(added);
        let Ok(new_len) = u32::try_from(wanted) else {
            let source = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(StoreError::Grow { wanted, source });
        };
        if added == 0 || new_len <= state.len {
            return Ok(());
        }
        // libtdb writes zeros over the new range: the block at the old end becomes a changed one,
        // the last block is known by its number and its valid bytes.
        let block_size = state.block_size;
        let last = (new_len - 1) / block_size;
        if !old_len.is_multiple_of(block_size) {
            let index = (old_len / block_size) as usize;
            let end = if index == last as usize { new_len - last * block_size } else { block_size };
            state.block_mut(self.store, index, end as usize)?;
        }
        state.reach(last as usize);
        if state.block_count == last + 1 {
            state.last_block_len = state.last_block_len.max(new_len - last * block_size);
        }
        state.len = new_len;
        state.expanded = true;
        Ok(())
    }

    fn sync_point(&self, _offset: u32, _len: u32) -> Option<SyncPoint> {
        None
    }

    fn is_private(&self) -> bool {
        true
    }
}
