//! A database in a file, mapped.
//!
//! Role: [`Store`] over [`SharedMap`]: adds the mutex area's size to every offset, asks for the
//! file's size when an offset lies beyond the known one, extends the file.
//! Invariants
//! - One value per file and process, shared by all handles: they need not tell each other of growth.
//! - The file is never sparse: a store through the mapping must not meet a full disk (spec 1.5).
//!
//! Origin: `docs/spec/tdb-format.md` 1.4, 1.5.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::format::SEQNUM_OFFSET;
use crate::map::{self, SharedMap};
use crate::store::{Store, StoreError, SyncPoint};

/// What libtdb fills new space with when the file system cannot allocate.
const PAD: [u8; 8192] = [0x42; 8192];
/// Address space for the largest logical file.
const LOGICAL_MAX: usize = 1 << 32;

/// The bytes of an open database.
#[derive(Debug)]
pub struct FileStore {
    map: SharedMap,
    file: File,
    /// Where the logical file starts: size of the mutex area, 0 without.
    start: usize,
    syncs: bool,
}

impl FileStore {
    /// Maps `file`, whose logical part starts at `start`.
    ///
    /// # Errors
    /// What `mmap` or `fstat` says.
    pub fn new(file: File, start: u32, writable: bool, syncs: bool) -> io::Result<Self> {
        let start = start as usize;
        let map = SharedMap::new(file.as_fd(), LOGICAL_MAX + start, writable)?;
        let store = Self { map, file, start, syncs };
        store.ask_len()?;
        Ok(store)
    }

    /// Where the logical file starts: size of the mutex area, 0 without.
    pub fn start(&self) -> u32 {
        u32::try_from(self.start).unwrap_or(u32::MAX)
    }

    /// The mapping, for the mutexes in front of the logical file.
    pub fn map(&self) -> &SharedMap {
        &self.map
    }

    /// The descriptor the store uses for size, growth and syncs. Holds no locks.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Waits until everything written is on the disk. Never on a shard thread. (Linux writes back
    /// what was stored through the mapping, too: `msync` ends in the same function.)
    ///
    /// # Errors
    /// What `fdatasync` says; after an error nobody knows what is on the disk.
    pub fn sync(&self, _point: SyncPoint) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Takes the size over from the kernel; returns the logical one.
    fn ask_len(&self) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        self.map.set_limit(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(len.saturating_sub(self.start as u64))
    }

    /// Tells the processor that the record which the word at `slot` leads to will be wanted. Reads
    /// the word without any lock, so the hint may be wrong.
    #[inline]
    pub(crate) fn prefetch_record_at(&self, slot: u32) {
        if let Ok([record]) = self.map.load_words(self.physical(slot)) {
            self.map.prefetch(self.physical(record));
        }
    }

    #[inline]
    fn physical(&self, offset: u32) -> usize {
        self.start + offset as usize
    }

    /// The range was outside the known size: asks the kernel, then says if it is inside now.
    #[cold]
    fn look_again(&self, offset: u32, len: usize) -> Result<(), StoreError> {
        let file_len = self.ask_len().map_err(|source| StoreError::Io {
            action: "stat the file",
            offset,
            source,
        })?;
        if u64::from(offset).saturating_add(len as u64) <= file_len {
            Ok(())
        } else {
            Err(StoreError::OutOfBounds { offset, len, file_len })
        }
    }

    /// Runs `access`; if it lies outside the known size, once more after asking for the size.
    #[inline(always)]
    fn with_refresh<T>(
        &self,
        offset: u32,
        len: usize,
        access: impl Fn() -> Option<T>,
    ) -> Result<T, StoreError> {
        if let Some(done) = access() {
            return Ok(done);
        }
        self.look_again(offset, len)?;
        access().ok_or_else(|| self.refused(offset, len))
    }

    /// Why a second attempt failed: read-only, or shrunk meanwhile.
    #[cold]
    fn refused(&self, offset: u32, len: usize) -> StoreError {
        if self.map.is_writable() {
            let file_len = self.map.limit().saturating_sub(self.start) as u64;
            StoreError::OutOfBounds { offset, len, file_len }
        } else {
            StoreError::ReadOnly
        }
    }

    /// Extends the file as libtdb does: allocated by the file system, else filled by hand.
    fn extend(&self, old_end: u64, added: u32) -> io::Result<()> {
        match map::allocate(self.file.as_fd(), old_end, added) {
            Err(full) if full.raw_os_error() == Some(libc::ENOSPC) => Err(full),
            Err(_) => self.extend_by_hand(old_end, added),
            Ok(()) => Ok(()),
        }
    }

    /// The size follows what is written: at no instant, whoever is killed, has the file a hole.
    fn extend_by_hand(&self, old_end: u64, added: u32) -> io::Result<()> {
        let new_end = old_end + u64::from(added);
        let mut at = old_end;
        while at < new_end {
            let left = usize::try_from(new_end - at).unwrap_or(usize::MAX);
            let part = &PAD[..left.min(PAD.len())];
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

impl Store for FileStore {
    #[inline]
    fn known_len(&self) -> u32 {
        u32::try_from(self.map.limit().saturating_sub(self.start)).unwrap_or(u32::MAX)
    }

    fn refresh_len(&self) -> Result<u32, StoreError> {
        let len = self.ask_len().map_err(|source| StoreError::Io {
            action: "stat the file",
            offset: 0,
            source,
        })?;
        u32::try_from(len).map_err(|_| StoreError::Io {
            action: "use the bytes",
            offset: u32::MAX,
            source: io::Error::from_raw_os_error(libc::EFBIG),
        })
    }

    #[inline]
    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        let at = self.physical(offset);
        if self.map.copy_out(at, buf).is_ok() {
            return Ok(());
        }
        self.look_again(offset, buf.len())?;
        self.map.copy_out(at, buf).map_err(|_| self.refused(offset, buf.len()))
    }

    #[inline]
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError> {
        let at = self.physical(offset);
        self.with_refresh(offset, data.len(), || self.map.copy_in(at, data).ok())
    }

    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError> {
        if !self.map.is_writable() {
            return Err(StoreError::ReadOnly);
        }
        let wanted = u64::from(old_len) + u64::from(added);
        let old_end = self.start as u64 + u64::from(old_len);
        let failed = |source| StoreError::Grow { wanted, source };
        if wanted > u64::from(u32::MAX) {
            return Err(failed(io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        if let Err(source) = self.extend(old_end, added) {
            // Give back what was allocated before the disk was full. If that fails too, the file
            // is merely longer than it need be. Another thread may have seen it longer: its size
            // is asked for again before an offset can lead there.
            let _ = self.file.set_len(old_end).and_then(|()| self.ask_len());
            return Err(failed(source));
        }
        self.ask_len().map_err(failed).map(|_| ())
    }

    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint> {
        self.syncs.then_some(SyncPoint { offset, len })
    }

    #[inline]
    fn matches(&self, offset: u32, expected: &[u8]) -> Result<bool, StoreError> {
        let at = self.physical(offset);
        self.with_refresh(offset, expected.len(), || self.map.equals(at, expected).ok())
    }

    fn add_seqnum(&self) -> Result<(), StoreError> {
        let at = self.physical(SEQNUM_OFFSET);
        self.with_refresh(SEQNUM_OFFSET, 4, || self.map.add_word(at, 1).ok()).map(|_| ())
    }

    // On the path of every operation: bench storage/fetch.
    #[inline(always)]
    fn read_words<const N: usize>(&self, offset: u32) -> Result<[u32; N], StoreError> {
        let at = self.physical(offset);
        self.with_refresh(offset, N * 4, || self.map.load_words(at).ok())
    }

    #[inline]
    fn write_words<const N: usize>(&self, offset: u32, words: [u32; N]) -> Result<(), StoreError> {
        let at = self.physical(offset);
        self.with_refresh(offset, N * 4, || self.map.store_words(at, words).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(len: u64) -> FileStore {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        FileStore::new(file, 4096, true, true).unwrap()
    }

    #[test]
    fn offsets_start_behind_the_mutex_area() {
        let store = store(4096 + 200);
        assert_eq!(store.known_len(), 200);
        store.write_u32(196, 0x0102_0304).unwrap();
        let mut bytes = [0; 4];
        store.file().read_exact_at(&mut bytes, 4096 + 196).unwrap();
        assert_eq!(bytes, [4, 3, 2, 1]);
        assert!(matches!(
            store.write_u32(197, 0),
            Err(StoreError::OutOfBounds { offset: 197, len: 4, file_len: 200 })
        ));
    }

    #[test]
    fn growth_by_somebody_else_is_found_at_the_first_access_beyond() {
        let store = store(4096 + 200);
        store.file().set_len(4096 + 1000).unwrap();
        assert_eq!(store.known_len(), 200);
        assert_eq!(store.read_u32(996).unwrap(), 0);
        assert_eq!(store.known_len(), 1000);
    }

    #[test]
    fn growing_allocates_zeros_and_both_ways_give_the_size_wanted() {
        let store = store(4096 + 200);
        store.grow(200, 3896).unwrap();
        assert_eq!(store.known_len(), 4096);
        assert_eq!(store.read_words::<2>(4088).unwrap(), [0, 0]);
        store.extend_by_hand(8192, 10_000).unwrap();
        assert_eq!(store.read_u32(4096 + 9996).unwrap(), 0x4242_4242);
        assert_eq!(store.known_len(), 14_096);
    }

    #[test]
    fn a_file_never_grows_beyond_32_bits() {
        let store = store(4096 + 200);
        assert!(matches!(store.grow(200, u32::MAX), Err(StoreError::Grow { .. })));
        assert_eq!(store.refresh_len().unwrap(), 200);
    }
}
