//! What a shard does for every record allocates nothing: fetch into a buffer, store, lock.
//!
//! Alone in this program, for the counter counts every thread.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::lock::LockKind;
use ringmaster_storage::open::{OpenOptions, open};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on unchanged to the system allocator, whose contract is the same;
// the counter touches no memory of the blocks.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises about `layout` are those `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `alloc` above with the same `layout`, hence from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn store(handle: &mut Handle, key: &[u8], value: &[u8]) {
    let (head, tail) = value.split_at(value.len().min(24));
    assert_eq!(handle.store(key, &[head, tail], StoreMode::Replace).unwrap(), Stored::Done);
}

/// Everything once: grows buffers and lists to their working size.
fn round(handle: &mut Handle, keys: &[[u8; 8]], buf: &mut Vec<u8>, longer: bool) {
    let value = [7; 400];
    let value = if longer { &value[..] } else { &value[..100] };
    for key in keys {
        store(handle, key, value); // insert, in place, or moved to a larger block
        assert!(handle.fetch(key, buf).unwrap());
        let mut locked = handle.lock_key(key, LockKind::Write).unwrap();
        assert!(locked.fetch(key, buf).unwrap());
        assert_eq!(locked.store(key, &[value], StoreMode::Modify).unwrap(), Stored::Done);
        locked.unlock().unwrap();
        let chain = handle.database().chain_of(key);
        handle.try_lock_chain(chain, LockKind::Read).unwrap().unwrap().unlock().unwrap();
    }
    assert!(!handle.fetch(b"missing", buf).unwrap());
    for key in keys.iter().step_by(3) {
        assert!(handle.delete(key).unwrap());
    }
}

#[test]
fn fetch_store_delete_and_lock_allocate_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let keys: Vec<[u8; 8]> = (0..300_u64).map(u64::to_le_bytes).collect();
    for (name, flags) in [
        ("fcntl", Flags::INCOMPATIBLE_HASH),
        ("volatile", Flags::VOLATILE | Flags::SEQNUM),
        ("mutex", Flags::MUTEX_LOCKING | Flags::CLEAR_IF_FIRST | Flags::VOLATILE),
    ] {
        let path = directory.path().join(name);
        let mut handle = open(&path, &OpenOptions::create(37, flags)).unwrap();
        let mut buf = Vec::with_capacity(1024);
        round(&mut handle, &keys[..1], &mut buf, false);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for longer in [false, true, false] {
            round(&mut handle, &keys, &mut buf, longer);
        }
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        assert_eq!(allocations, 0, "{name}");
    }
}
