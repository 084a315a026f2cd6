//! The rows of spec 4.7 that need no libtdb. The others: `tests/lock_interop.rs`.
use super::*;

use LockKind::{Read, Write};

const BYTE: Span = Span::byte(172);

fn open(dir: &tempfile::TempDir) -> Arc<File> {
    let path = dir.path().join("t");
    let mut options = File::options();
    Arc::new(options.read(true).write(true).create(true).truncate(false).open(path).unwrap())
}

/// Two descriptions of one file.
fn pair() -> (tempfile::TempDir, Ranges, Ranges) {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Ranges::new(open(&dir)), Ranges::new(open(&dir)));
    (dir, one, two)
}

#[test]
fn two_descriptions_of_one_process_exclude_each_other_also_from_another_thread() {
    let (_dir, one, two) = pair();
    assert!(one.try_lock(BYTE, Write).unwrap());
    assert!(!two.try_lock(BYTE, Read).unwrap());
    let there = std::thread::spawn(move || two.try_lock(BYTE, Write).unwrap());
    assert!(!there.join().unwrap());
}

#[test]
fn readers_share_and_none_of_them_becomes_a_writer() {
    let (_dir, one, two) = pair();
    assert!(one.try_lock(BYTE, Read).unwrap());
    assert!(two.try_lock(BYTE, Read).unwrap());
    assert!(!one.try_lock(BYTE, Write).unwrap());
    two.unlock(BYTE).unwrap();
    assert!(one.try_lock(BYTE, Write).unwrap());
}

#[test]
fn duplicated_descriptor_is_the_same_owner() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir);
    let (one, dup) = (Ranges::new(Arc::clone(&file)), file.try_clone().unwrap());
    let dup = Ranges::new(Arc::new(dup));
    assert!(one.try_lock(BYTE, Write).unwrap());
    assert!(dup.try_lock(BYTE, Write).unwrap(), "no exclusion");
    drop(dup); // closes the duplicate
    drop(open(&dir)); // opens and closes the file once more
    assert!(!Ranges::new(open(&dir)).try_lock(BYTE, Read).unwrap(), "the lock survives both");
}

#[test]
fn classic_lock_of_the_same_process_excludes_too_even_on_the_same_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir);
    let request = request(BYTE, libc::F_WRLCK).unwrap();
    // SAFETY: the descriptor is open and the request is live.
    let status = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const request) };
    assert_eq!(status, 0);
    assert!(!Ranges::new(file).try_lock(BYTE, Write).unwrap());
}

#[test]
fn write_lock_needs_a_description_open_for_writing() {
    let (dir, _one, _two) = pair();
    let readable = Ranges::new(Arc::new(File::open(dir.path().join("t")).unwrap()));
    assert!(readable.try_lock(BYTE, Read).unwrap());
    let error = readable.try_lock(BYTE, Write).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
}

#[test]
fn unlocking_or_changing_a_part_splits_the_range() {
    let (_dir, one, two) = pair();
    assert!(one.try_lock(Span::from(168), Write).unwrap());
    one.unlock(Span::byte(200)).unwrap();
    assert!(one.try_lock(Span::byte(300), Read).unwrap());
    let free = |byte, kind| two.blocker(Span::byte(byte), kind).unwrap().is_none();
    assert!(free(200, Write) && !free(199, Read) && !free(201, Read));
    assert!(free(300, Read) && !free(300, Write) && !free(301, Read));
    assert!(!free(1 << 40, Read), "to the end of the file, wherever it will be");
}

#[test]
fn owner_of_our_kind_is_a_description_without_a_process() {
    let (_dir, one, two) = pair();
    assert!(one.try_lock(BYTE, Write).unwrap());
    assert_eq!(two.blocker(BYTE, Read).unwrap(), Some(Blocker::Description));
    assert_eq!(one.blocker(BYTE, Read).unwrap(), None, "one's own locks are no obstacle");
}

#[test]
fn lock_survives_a_child_that_inherits_the_descriptor_and_exits() {
    let dir = tempfile::tempdir().unwrap();
    let file = open(&dir);
    let one = Ranges::new(Arc::clone(&file));
    assert!(one.try_lock(BYTE, Write).unwrap());
    // A child's standard input is a duplicate of the same description.
    let stdin = file.try_clone().unwrap();
    let status = std::process::Command::new("true").stdin(stdin).status().unwrap();
    assert!(status.success());
    assert!(!Ranges::new(open(&dir)).try_lock(BYTE, Read).unwrap());
}

#[test]
fn offset_beyond_what_the_kernel_takes_is_an_error() {
    let (_dir, one, _two) = pair();
    assert!(one.try_lock(Span::byte(u64::MAX), Read).is_err());
}
