//! A file's bytes as memory shared with other processes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::{MmapOptions, MmapRaw};

/// A mapping that other processes change under us: single bytes are read and written atomically
/// and no reference into it exists.
pub(super) struct SharedBytes {
    map: MmapRaw,
}

impl SharedBytes {
    /// Maps the first `len` bytes, which the file must have.
    pub(super) fn map(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        Ok(Self { map: MmapOptions::new().len(len).map_raw(file)? })
    }

    pub(super) fn load(&self, at: usize) -> u8 {
        self.byte(at).load(Ordering::Relaxed)
    }

    pub(super) fn store(&self, at: usize, value: u8) {
        self.byte(at).store(value, Ordering::Relaxed);
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.map.len(), "byte {at} of {}", self.map.len());
        // SAFETY: `at` is less than the length of the mapping, so the result stays inside it.
        let byte = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: inside the mapping, which is readable and writable and lives as long as `self`;
        // a byte needs no alignment; this process touches it only through atomics.
        unsafe { AtomicU8::from_ptr(byte) }
    }
}
