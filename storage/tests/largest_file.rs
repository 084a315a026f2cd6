//! The last megabyte before 4 GiB: the file grows to its end, says that it is full, and stays whole.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::engine::AccessError;
use ringmaster_storage::flags::Flags;
use ringmaster_storage::format::{HashKind, Magic, RECORD_LEN, RecordHeader, TAILER_LEN};
use ringmaster_storage::handle::Handle;
use ringmaster_storage::open::{OpenOptions, open};
use ringmaster_storage::store::{Store, StoreError};

#[path = "support/libtdb.rs"]
mod libtdb;

use libtdb::{Tdb, flag};

/// Where the one large record ends, 1 MiB before 4 GiB.
const NEARLY: u32 = 0xFFF0_0000;

/// Puts a record at the end of a file with one chain that fills it up to [`NEARLY`]; nearly all of
/// it is padding, and a hole of the file system. `false` if the file system has no such files.
fn make_large(path: &Path) -> bool {
    drop(open(path, &OpenOptions::create(1, Flags::NOSYNC)).unwrap());
    let file = File::options().read(true).write(true).open(path).unwrap();
    let start = u32::try_from(file.metadata().unwrap().len()).unwrap();
    if file.set_len(NEARLY.into()).is_err() {
        return false;
    }
    let record = RecordHeader {
        next: 0,
        rec_len: NEARLY - start - RECORD_LEN,
        key_len: 5,
        data_len: 0,
        full_hash: HashKind::Old.hash(b"large"),
        magic: Magic::Live,
    };
    let words = record.words().map(u32::to_le_bytes);
    file.write_all_at(words.as_flattened(), start.into()).unwrap();
    file.write_all_at(b"large", u64::from(start + RECORD_LEN)).unwrap();
    let total = (NEARLY - start).to_le_bytes();
    file.write_all_at(&total, u64::from(NEARLY - TAILER_LEN)).unwrap();
    file.write_all_at(&start.to_le_bytes(), 172).unwrap();
    true
}

fn store(handle: &mut Handle, number: u32) -> Result<(), AccessError> {
    let value = [7; 1000];
    let stored = handle.store(&number.to_le_bytes(), &[&value], StoreMode::Insert)?;
    assert_eq!(stored, Stored::Done);
    Ok(())
}

fn libtdb_accepts(path: &Path) -> bool {
    if let Err(reason) = libtdb::library() {
        println!("skipped: {reason}");
        return true;
    }
    Tdb::open(path, 0, flag::NOLOCK, libc::O_RDWR).unwrap().check().is_ok()
}

#[test]
fn file_grows_to_four_gigabytes_and_is_whole_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.tdb");
    if !make_large(&path) {
        println!("skipped: no sparse files of 4 GiB here");
        return;
    }
    let mut handle = open(&path, &OpenOptions::existing(Flags::NOSYNC)).unwrap();
    handle.check(|_, _| true).unwrap();
    let mut number = 0;
    let refused = loop {
        match store(&mut handle, number) {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, AccessError::Store(StoreError::Grow { .. })), "{refused}");
    assert!(number > 700, "the last megabyte holds more than {number} records");
    assert_eq!(handle.database().store().known_len(), 0xFFFF_FFFC);
    handle.check(|_, _| true).unwrap();
    assert!(libtdb_accepts(&path));
    // What is freed is used.
    for again in 0..10_u32 {
        assert!(handle.delete(&again.to_le_bytes()).unwrap());
    }
    for again in 0..10_u32 {
        store(&mut handle, again).unwrap();
    }
    assert!(store(&mut handle, number).is_err());
    handle.check(|_, _| true).unwrap();
    assert!(handle.exists(b"large").unwrap());
}

#[test]
fn libtdb_itself_ends_with_a_file_that_it_calls_corrupt() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.tdb");
    if !make_large(&path) {
        println!("skipped: no sparse files of 4 GiB here");
        return;
    }
    let theirs = Tdb::open(&path, 0, flag::NOSYNC, libc::O_RDWR).unwrap();
    theirs.check().unwrap();
    theirs.store(b"key", b"value", libtdb::mode::INSERT).unwrap();
    assert_eq!(theirs.map_size(), 0xFFFF_FFFF);
    assert!(theirs.check().is_err());
    drop(theirs);
    // Ours says so as well, and reads it all the same.
    let mut handle = open(&path, &OpenOptions::existing(Flags::NOSYNC)).unwrap();
    assert!(handle.check(|_, _| true).is_err());
    let mut value = Vec::new();
    assert!(handle.fetch(b"key", &mut value).unwrap());
    assert_eq!(value, b"value");
}
