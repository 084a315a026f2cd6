//! How the allocator deals with large blocks.
//!
//! Role: a client that does not read for a while may cost the daemon hundreds of megabytes; they are
//! to go back when it reads again or goes, above all where memory is locked.
//! Origin: `mallopt(3)`.

/// Blocks from this size on, in bytes, are mapped by themselves and unmapped when freed.
const MAPPED_FROM: libc::c_int = 256 * 1024;

/// Keeps glibc from raising the limit by itself: it does so, up to 32 MiB, each time a mapped block is
/// freed, and then keeps large blocks in the heaps of the threads that once needed them.
pub(crate) fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: sets a number inside the allocator, which takes its own lock; no memory is touched.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
        if set == 0 {
            tracing::debug!("the allocator keeps its own limit for mapped blocks");
        }
    }
}
