//! One shared mapping of a whole file, at one address for life.
//!
//! Role: the only place that turns offsets into addresses. What the bytes mean: `format/`; which
//! lock covers them: `lock.rs`.
//! Invariants
//! - Address space for the largest possible file is reserved at once, so growth never moves the
//!   mapping: robust mutexes lie in it, and other threads need not be told.
//! - Only bytes below `limit` are touched. `limit` is a size the file had (`fstat`), and files are
//!   not shrunk while anybody holds ACTIVE (spec 11.1), so no access faults with SIGBUS. Files
//!   without ACTIVE (persistent ones) are never shrunk by anyone who obeys the format. Who does not
//!   (a shell's `>`) ends this process, as it ends libtdb's.
//! - No reference into the mapping exists: other processes write these bytes. Words are read and
//!   written by relaxed atomic operations, everything else is copied.
//! - Offsets here are *physical*: a mutex area counts.
//!
//! Origin: `docs/spec/tdb-format.md` 1.4, 5.9, 6.9.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Largest number of bytes that one mapping can be asked to reserve: 4 GiB of database and 4 GiB
/// of mutexes in front of it.
pub const MAX_RESERVED: usize = 8 << 30;

/// The range is not below the limit (or the mapping is read-only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside;

/// A mapping that other processes change under us. `base` is page-aligned and valid for reads (and
/// writes, if `writable`) of `reserved` bytes until drop, as far as the file reaches.
pub struct SharedMap {
    base: NonNull<u8>,
    reserved: usize,
    limit: AtomicUsize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread; its address is constant, and all
// access goes through `&self` methods that copy or are atomic.
unsafe impl Send for SharedMap {}
// SAFETY: as for `Send`: no method hands out a reference, and races with other threads are no
// different from races with other processes, which the TDB locks order.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps `file` from its start, reserving `reserved` bytes of addresses. No byte may be touched
    /// before [`SharedMap::set_limit`].
    ///
    /// # Errors
    /// What `mmap` says (`ENOMEM` under a limit of address space).
    pub fn new(file: BorrowedFd<'_>, reserved: usize, writable: bool) -> io::Result<Self> {
        if reserved == 0 || reserved > MAX_RESERVED {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let protection =
            if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of ours; the
        // descriptor is open (borrowed for the call).
        let address = unsafe {
            libc::mmap(ptr::null_mut(), reserved, protection, flags, file.as_raw_fd(), 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast::<u8>())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, reserved, limit: AtomicUsize::new(0), writable })
    }

    /// Bytes that may be touched.
    #[inline]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Takes over a size that `fstat` gave. Sizes beyond the reservation are cut.
    pub fn set_limit(&self, file_len: usize) {
        self.limit.store(file_len.min(self.reserved), Ordering::Release);
    }

    /// `true` if bytes may be written.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Address of `len` bytes at `offset`, for robust mutexes. Stays valid while the map lives.
    /// `align` is a power of two.
    pub fn address(&self, offset: usize, len: usize, align: usize) -> Option<NonNull<u8>> {
        if !offset.is_multiple_of(align) {
            return None;
        }
        self.at(offset, len).ok()
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> Result<NonNull<u8>, Outside> {
        match offset.checked_add(len) {
            Some(end) if end <= self.limit() => {
                // SAFETY: `offset <= limit <= reserved` (`set_limit`), so the result lies inside
                // or one past the mapping that `base` came from.
                Ok(unsafe { self.base.add(offset) })
            }
            _ => Err(Outside),
        }
    }

    #[inline]
    fn at_writable(&self, offset: usize, len: usize) -> Result<NonNull<u8>, Outside> {
        if self.writable { self.at(offset, len) } else { Err(Outside) }
    }

    /// Tells the processor that the bytes at `offset` will be wanted: a hint that reads nothing.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if let Ok(_at) = self.at(offset, 1) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the instruction exists on every x86-64; it accesses no memory.
            unsafe {
                core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                    _at.as_ptr().cast(),
                );
            }
        }
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`Outside`].
    #[inline]
    pub fn copy_out(&self, offset: usize, buf: &mut [u8]) -> Result<(), Outside> {
        let from = self.at(offset, buf.len())?;
        // SAFETY: `from` is valid for `buf.len()` bytes (`at`); `buf` is memory of this process
        // outside the mapping, for no reference into the mapping exists.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), buf.as_mut_ptr(), buf.len()) };
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`Outside`]; also for a read-only mapping.
    #[inline]
    pub fn copy_in(&self, offset: usize, data: &[u8]) -> Result<(), Outside> {
        let to = self.at_writable(offset, data.len())?;
        // SAFETY: `to` is valid for writes of `data.len()` bytes (`at_writable`); `data` lies
        // outside the mapping, for no reference into the mapping exists.
        unsafe { ptr::copy_nonoverlapping(data.as_ptr(), to.as_ptr(), data.len()) };
        Ok(())
    }

    /// `N` little-endian words.
    ///
    /// # Errors
    /// [`Outside`].
    #[inline(always)]
    pub fn load_words<const N: usize>(&self, offset: usize) -> Result<[u32; N], Outside> {
        if !offset.is_multiple_of(4) {
            let mut bytes = [[0_u8; 4]; N];
            self.copy_out(offset, bytes.as_flattened_mut())?;
            return Ok(bytes.map(u32::from_le_bytes));
        }
        let start = self.at(offset, N * 4)?.cast::<u32>();
        let mut words = [0_u32; N];
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: `index < N` and `N` words from `start` on lie inside the mapping.
            let slot = unsafe { start.add(index) };
            // SAFETY: in range (above); aligned, for `base` is page-aligned and `offset` a
            // multiple of 4; the mapping outlives `&self`.
            let slot = unsafe { AtomicU32::from_ptr(slot.as_ptr()) };
            *word = u32::from_le(slot.load(Ordering::Relaxed));
        }
        Ok(words)
    }

    /// Writes `N` little-endian words.
    ///
    /// # Errors
    /// [`Outside`]; also for a read-only mapping.
    #[inline]
    pub fn store_words<const N: usize>(
        &self,
        offset: usize,
        words: [u32; N],
    ) -> Result<(), Outside> {
        if !offset.is_multiple_of(4) {
            return self.copy_in(offset, words.map(u32::to_le_bytes).as_flattened());
        }
        let start = self.at_writable(offset, N * 4)?.cast::<u32>();
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: `index < N` and `N` words from `start` on lie inside the mapping.
            let slot = unsafe { start.add(index) };
            // SAFETY: in range (above); aligned, for `base` is page-aligned and `offset` a
            // multiple of 4; the mapping is writable and outlives `&self`.
            let slot = unsafe { AtomicU32::from_ptr(slot.as_ptr()) };
            slot.store(word.to_le(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Adds to one word as libtdb adds to the sequence number: atomically for every process.
    ///
    /// # Errors
    /// [`Outside`]; also for a read-only mapping or an offset that is no multiple of 4.
    pub fn add_word(&self, offset: usize, more: u32) -> Result<u32, Outside> {
        if !offset.is_multiple_of(4) {
            return Err(Outside);
        }
        let slot = self.at_writable(offset, 4)?.cast::<u32>();
        // SAFETY: in range and writable (`at_writable`); aligned (`base` is page-aligned, `offset`
        // a multiple of 4); the mapping outlives `&self`.
        let slot = unsafe { AtomicU32::from_ptr(slot.as_ptr()) };
        Ok(slot.fetch_add(more, Ordering::SeqCst))
    }

    /// `true` if the bytes at `offset` equal `expected`.
    ///
    /// # Errors
    /// [`Outside`].
    #[inline]
    pub fn equals(&self, offset: usize, expected: &[u8]) -> Result<bool, Outside> {
        let start = self.at(offset, expected.len())?;
        let (blocks, tail) = expected.as_chunks::<16>();
        let mut at = start;
        for block in blocks {
            // SAFETY: as many whole blocks as `expected` has lie inside the checked range; the
            // read needs no alignment.
            let found = unsafe { at.cast::<[u8; 16]>().read_unaligned() };
            if found != *block {
                return Ok(false);
            }
            // SAFETY: at most one past the checked range.
            at = unsafe { at.add(16) };
        }
        let mut rest = [0; 16];
        let rest = &mut rest[..tail.len()];
        // SAFETY: the last `tail.len()` bytes of the checked range; `rest` is on our stack.
        unsafe { ptr::copy_nonoverlapping(at.as_ptr(), rest.as_mut_ptr(), tail.len()) };
        Ok(rest == tail)
    }
}

/// Attempts at an allocation that signals interrupt; then the file is extended by hand.
const ALLOCATE_ATTEMPTS: u32 = 50;

/// Reserves disk space behind the end of a file, so that no store through the mapping can meet a
/// full disk. The new bytes read as zero.
///
/// # Errors
/// What `posix_fallocate` says; `ENOSPC` may leave part of the space allocated.
pub fn allocate(file: BorrowedFd<'_>, from: u64, added: u32) -> io::Result<()> {
    let from =
        libc::off_t::try_from(from).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let mut code = libc::EINTR;
    for _ in 0..ALLOCATE_ATTEMPTS {
        // SAFETY: a call on an open descriptor (borrowed for the call); it touches no memory of
        // ours.
        code = unsafe { libc::posix_fallocate(file.as_raw_fd(), from, added.into()) };
        if code != libc::EINTR {
            break;
        }
    }
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length and is unmapped once; pointers
        // from `address` are documented to end with the map.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.reserved) };
    }
}

impl fmt::Debug for SharedMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMap")
            .field("limit", &self.limit())
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn mapped(bytes: &[u8]) -> (std::fs::File, SharedMap) {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, bytes).unwrap();
        let map = SharedMap::new(file.as_fd(), 1 << 20, true).unwrap();
        map.set_limit(bytes.len());
        (file, map)
    }

    #[test]
    fn nothing_beyond_the_limit_is_touched() {
        let (_file, map) = mapped(&[7; 40]);
        assert_eq!(map.load_words::<1>(36).unwrap(), [0x0707_0707]);
        assert_eq!(map.load_words::<1>(40), Err(Outside));
        assert_eq!(map.load_words::<6>(20), Err(Outside));
        assert_eq!(map.load_words::<1>(usize::MAX - 3), Err(Outside));
        assert_eq!(map.copy_in(39, &[1, 2]), Err(Outside));
        assert_eq!(map.copy_out(41, &mut []), Err(Outside));
        assert_eq!(map.equals(30, &[7; 11]), Err(Outside));
        assert_eq!(map.add_word(40, 1), Err(Outside));
        assert!(map.address(40, 40, 8).is_none());
    }

    #[test]
    fn bytes_and_words_are_those_of_the_file() {
        let (file, map) = mapped(&[0; 64]);
        map.store_words(8, [1, 0x0403_0201]).unwrap();
        map.store_words(21, [0xAABB_CCDD]).unwrap();
        map.copy_in(30, b"0123456789abcdefXYZ").unwrap();
        map.add_word(8, 41).unwrap();
        let mut bytes = [0; 64];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(bytes[8..16], [42, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(bytes[21..25], [0xDD, 0xCC, 0xBB, 0xAA]);
        assert_eq!(map.load_words::<1>(21).unwrap(), [0xAABB_CCDD]);
        assert!(map.equals(30, b"0123456789abcdefXYZ").unwrap());
        assert!(!map.equals(30, b"0123456789abcdefXYz").unwrap());
        assert!(!map.equals(30, b"0123456789Abcdef").unwrap());
    }

    #[test]
    fn growth_is_seen_at_the_same_address() {
        let (file, map) = mapped(&[1; 16]);
        let before = map.address(0, 8, 8).unwrap();
        file.set_len(100_000).unwrap();
        assert_eq!(map.load_words::<1>(99_996), Err(Outside));
        map.set_limit(100_000);
        assert_eq!(map.load_words::<1>(99_996), Ok([0]));
        assert_eq!(map.address(0, 8, 8).unwrap(), before);
    }

    #[test]
    fn a_read_only_mapping_refuses_writes() {
        let (file, _map) = mapped(&[1; 16]);
        let map = SharedMap::new(file.as_fd(), 1 << 20, false).unwrap();
        map.set_limit(16);
        assert_eq!(map.copy_in(0, &[1]), Err(Outside));
        assert_eq!(map.store_words(0, [1]), Err(Outside));
        assert_eq!(map.add_word(0, 1), Err(Outside));
    }
}
