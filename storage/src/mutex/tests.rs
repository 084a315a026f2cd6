//! Mutexes among threads of this process. Against libtdb: `tests/lock_interop.rs`.
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;

const PAGE: u32 = 4096;

/// An area of its own, initialised.
fn area(hash_size: u32) -> (tempfile::TempDir, Arc<MutexArea>) {
    let dir = tempfile::tempdir().unwrap();
    let len = area_len(hash_size, PAGE).unwrap();
    let area = mapped(&dir.path().join("mutexes"), hash_size, len).unwrap();
    area.initialise().unwrap();
    (dir, area)
}

fn mapped(path: &Path, hash_size: u32, len: u32) -> Result<Arc<MutexArea>, AreaError> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path).unwrap();
    file.set_len(u64::from(len)).unwrap();
    MutexArea::map(&file, hash_size, len, PAGE)
}

fn sample(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    std::fs::read(dir.join(name)).unwrap()
}

#[test]
fn this_machine_has_the_mutexes_of_the_format() {
    supported().unwrap();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn initialised_area_is_libtdbs_byte_for_byte() {
    for (name, hash_size) in [("mutex-131.tdb", 131), ("mutex-3.tdb", 3)] {
        let sample = sample(name);
        let len = area_len(hash_size, PAGE).unwrap();
        let (dir, _area) = area(hash_size);
        let ours = std::fs::read(dir.path().join("mutexes")).unwrap();
        // The header in front is not this module's. A count of 1 may remain in a mutex that was
        // used (spec 5.3), as in the sample with records.
        let mut theirs = sample[..len as usize].to_vec();
        for slot in [Slot::Freelist, Slot::Chain(0), Slot::Chain(1), Slot::Chain(2)] {
            let count_at = slot.offset(hash_size).unwrap() as usize + 4;
            theirs[count_at] = 0;
        }
        assert_eq!(&ours[168..], &theirs[168..], "{name}");
    }
}

#[test]
fn area_of_another_size_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = mapped(&dir.path().join("m"), 3, 8192).unwrap_err();
    assert!(matches!(error, AreaError::Size { found: 8192, expected: 4096 }));
}

#[test]
fn file_that_ends_inside_the_area_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.write_at(b"x", 100).unwrap();
    let error = MutexArea::map(&file, 3, area_len(3, PAGE).unwrap(), PAGE).unwrap_err();
    assert!(matches!(error, AreaError::Truncated { file_len: 101, .. }));
}

#[test]
fn second_thread_finds_a_held_mutex_busy_and_its_neighbour_free() {
    let (_dir, area) = area(3);
    let guard = area.try_lock(Slot::Chain(1)).unwrap().unwrap();
    let other = Arc::clone(&area);
    let (same, neighbour) = std::thread::spawn(move || {
        let same = other.try_lock(Slot::Chain(1)).unwrap().is_some();
        (same, other.try_lock(Slot::Chain(2)).unwrap().is_some())
    })
    .join()
    .unwrap();
    assert!(!same && neighbour);
    drop(guard);
    assert_eq!(area.lock_word(Slot::Chain(1)), 0);
}

#[test]
fn relocking_by_the_owner_is_an_error_not_a_deadlock() {
    let (_dir, area) = area(1);
    let _guard = area.lock(Slot::AllRecords).unwrap();
    assert!(matches!(area.lock(Slot::AllRecords), Err(MutexError::AlreadyHeld { .. })));
    assert!(matches!(area.try_lock(Slot::AllRecords), Err(MutexError::AlreadyHeld { .. })));
}

#[test]
fn mutex_of_a_dead_owner_is_taken_and_usable_again() {
    let (_dir, area) = area(1);
    let other = Arc::clone(&area);
    std::thread::spawn(move || std::mem::forget(other.lock(Slot::Freelist))).join().unwrap();
    assert_ne!(area.lock_word(Slot::Freelist) & OWNER_DIED, 0);
    let guard = area.try_lock(Slot::Freelist).unwrap().unwrap();
    assert!(guard.owner_died());
    drop(guard);
    assert!(!area.try_lock(Slot::Freelist).unwrap().unwrap().owner_died());
    assert_eq!(area.owner_deaths(), 1);
}

#[test]
fn owner_dead_images_of_libtdb_are_taken_over() {
    // Written by a libtdb process that was killed while it held a lock.
    for (name, slot) in [
        ("mutex-chain-ownerdead-3.tdb", None),
        ("mutex-allrecord-ownerdead-3.tdb", Some(Slot::AllRecords)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.tdb");
        std::fs::write(&path, sample(name)).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let area = MutexArea::map(&file, 3, area_len(3, PAGE).unwrap(), PAGE).unwrap();
        let slots = [Slot::Chain(0), Slot::Chain(1), Slot::Chain(2), Slot::AllRecords];
        let dead = |at: &Slot| area.lock_word(*at) & OWNER_DIED != 0;
        let dead: Vec<_> = slots.into_iter().filter(dead).collect();
        assert_eq!(dead.len(), 1, "{name}");
        assert!(slot.is_none_or(|slot| dead == [slot]), "{name}");
        assert!(area.try_lock(dead[0]).unwrap().unwrap().owner_died(), "{name}");
        assert!(!area.try_lock(dead[0]).unwrap().unwrap().owner_died(), "{name}");
    }
}

#[test]
fn unlock_of_a_mutex_that_was_initialised_under_us_is_survived_and_counted() {
    // `tdbbackup -l` opens a live file without locks and thereby initialises the mutexes.
    let (_dir, area) = area(1);
    let guard = area.lock(Slot::Chain(0)).unwrap();
    area.initialise().unwrap();
    drop(guard);
    assert_eq!(area.lost_count(), 1);
    // The thread's own list of held mutexes was damaged by the initialisation: leave it alone.
}

#[test]
fn waiters_bit_is_never_put_on_a_mutex_without_an_owner() {
    let (_dir, area) = area(1);
    area.keep_waiters(Slot::Chain(0));
    assert_eq!(area.lock_word(Slot::Chain(0)), 0);
    let _guard = area.lock(Slot::Chain(0)).unwrap();
    area.keep_waiters(Slot::Chain(0));
    assert_ne!(area.lock_word(Slot::Chain(0)) & WAITERS, 0);
}

#[test]
fn mapping_outlives_its_last_handle_while_a_mutex_is_held() {
    let (_dir, area) = area(1);
    let guard = area.lock(Slot::Chain(0)).unwrap();
    drop(area);
    assert!(!guard.owner_died());
    drop(guard);
}
