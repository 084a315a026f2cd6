//! A global allocator that counts what each thread allocates.
//!
//! Role: proofs about allocation ("none", "at most twice the packet"). Counters are per thread, so
//! tests running beside each other do not disturb each other.
//! The one file with unsafe code of this crate's tests: it only forwards to the system allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// Put it into a `#[global_allocator]`.
pub struct CountingAllocator;

/// What a piece of code allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Calls to allocate or grow.
    pub allocations: usize,
    /// Most bytes alive at one time, above those alive before.
    pub peak_bytes: usize,
}

/// Runs `work` and tells what it allocated on this thread.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Usage) {
    let count_before = COUNT.get();
    let live_before = LIVE.get();
    PEAK.set(live_before);
    let result = work();
    let usage = Usage {
        allocations: COUNT.get() - count_before,
        peak_bytes: PEAK.get().saturating_sub(live_before),
    };
    (result, usage)
}

fn grown(bytes: usize) {
    COUNT.set(COUNT.get() + 1);
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

fn shrunk(bytes: usize) {
    // Memory may be freed by another thread than allocated it; only differences matter.
    LIVE.set(LIVE.get().saturating_sub(bytes));
}

// SAFETY: every method forwards its arguments unchanged to `System`, which fulfils the contract;
// the counters are thread-local cells without destructors and never allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: `memory` came from `System.alloc` or `System.realloc` with this `layout`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The old block is counted until the new one is there, as it is in the worst case.
        grown(new_size);
        shrunk(layout.size());
        // SAFETY: as for `dealloc`; the caller's promise about `new_size` is passed on.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}
