//! Receive buffers that the kernel picks from: a registered buffer ring.
//!
//! Role: the one place that shares memory with the kernel for receiving.
//! Invariants
//! - A buffer is in exactly one place: offered to the kernel (`boxes[id]` is `Some` and stands in
//!   the ring), or lent to the shard (`None`).
//! - The ring's memory outlives the registration: it is freed only after the io_uring has gone
//!   (field order in the reactor), or leaked.
//!
//! Origin: `io_uring_register_buf_ring(3)`.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, types::BufRingEntry};

use super::super::{BUFFER_LEN, RecvBuffer};

const _: () = assert!(size_of::<BufRingEntry>() == 16);

/// See the module.
pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    boxes: Vec<Option<Box<[u8]>>>,
    /// Buffers in all, a power of two.
    count: u16,
    /// Entries ever offered, as the kernel counts: it wraps.
    tail: u16,
    /// Buffers lent to the shard.
    lent: u16,
}

// SAFETY: the ring's memory is reached only through `&mut self` and by the kernel, which does not
// care which thread that is; the reactor that owns it moves as a whole before it is used.
unsafe impl Send for BufferRing {}

fn layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, 4096).expect("a page-aligned block of a few pages")
}

impl BufferRing {
    /// Registers `count` buffers as `group`.
    ///
    /// # Panics
    /// `count` is no power of two, which the kernel wants.
    pub(super) fn register(submitter: &Submitter<'_>, group: u16, count: u16) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "{count} buffers");
        // SAFETY: the layout has a size above zero, as `count` has.
        let block = unsafe { alloc_zeroed(layout(count)) };
        let Some(entries) = NonNull::new(block.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout(count))
        };
        let mut ring = Self {
            entries,
            boxes: (0..count).map(|_| None).collect(),
            count,
            tail: 0,
            lent: count,
        };
        // SAFETY: the address is page-aligned and the block has `count` entries; it is freed in
        // `Drop`, and the reactor drops its io_uring (field order) before this ring.
        let registered = unsafe {
            submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, 0)
        };
        registered?;
        for id in 0..count {
            ring.offer(id, vec![0; BUFFER_LEN].into_boxed_slice());
        }
        Ok(ring)
    }

    /// The buffer into which the kernel has put `len` bytes. `None` if the kernel names one that
    /// it does not have, which would be its error.
    pub(super) fn take(&mut self, id: u16, len: usize) -> Option<RecvBuffer> {
        let bytes = self.boxes.get_mut(usize::from(id))?.take()?;
        self.lent += 1;
        Some(RecvBuffer { id, len: len.min(bytes.len()), bytes })
    }

    /// Buffers that the kernel can pick.
    pub(super) fn available(&self) -> usize {
        usize::from(self.count - self.lent)
    }

    /// Offers a buffer to the kernel again.
    pub(super) fn give_back(&mut self, buffer: RecvBuffer) {
        self.offer(buffer.id, buffer.bytes);
    }

    fn offer(&mut self, id: u16, mut bytes: Box<[u8]>) {
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index < count`, the number of entries in the block.
        let entry = unsafe { self.entries.add(index) };
        // SAFETY: in bounds and aligned (above); zeroed bytes are a valid entry; the kernel reads
        // entries only below the tail, and this one is at the tail.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(bytes.as_mut_ptr() as u64);
        entry.set_len(u32::try_from(bytes.len()).expect("a buffer is below 4 GiB"));
        entry.set_bid(id);
        self.boxes[usize::from(id)] = Some(bytes);
        self.lent -= 1;
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the pointer is the base of the ring, whose first entry is initialised.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is an aligned u16 inside the block, which outlives this reference, and
        // both sides use it atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Pairs with the kernel's acquire load: the entry is complete before it is offered.
        tail.store(self.tail, Ordering::Release);
    }

    /// Gives the memory up without freeing it: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.boxes));
        self.entries = NonNull::dangling();
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.boxes.is_empty() {
            return; // leaked
        }
        // SAFETY: allocated in `register` with this layout, not leaked, freed once.
        unsafe { dealloc(self.entries.as_ptr().cast(), layout(self.count)) };
    }
}
