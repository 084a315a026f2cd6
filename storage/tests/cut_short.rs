//! A file that is cut short under those who use it, as a shell's `>` does: what happens to us, and
//! to libtdb.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use ringmaster_storage::flags::Flags;
use ringmaster_storage::open::{OpenError, OpenOptions, open};

#[path = "support/libtdb.rs"]
mod libtdb;

use libtdb::Locker;

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

/// A process of ours that obeys `store KEY VALUE` and `fetch KEY`.
#[test]
fn our_process() {
    let Some((path, hash_size, _)) = libtdb::locker_order() else { return };
    let hash_size = hash_size.unsigned_abs();
    let mut handle = open(&path, &OpenOptions::create(hash_size, Flags::NOSYNC)).unwrap();
    libtdb::serve(Ok::<_, &str>(move |line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        match words[..] {
            [b"store", key, value] => {
                let stored = handle.store(key, &[value], Default::default());
                stored.map_or_else(|error| error.to_string(), |_| "ok".to_owned())
            }
            [b"fetch", key] => {
                let mut value = Vec::new();
                match handle.fetch(key, &mut value) {
                    Ok(true) => String::from_utf8(value).unwrap(),
                    other => format!("{other:?}"),
                }
            }
            _ => "what?".to_owned(),
        }
    }));
}

/// Memory that has no file behind it any more: the kernel ends who touches it. Nothing in the
/// format announces it, and a handler that goes on with zeros would go on with a damaged database.
#[test]
fn whoever_has_a_file_mapped_that_is_cut_short_ends_with_sigbus_ours_as_theirs() {
    if !libtdb::available() {
        return;
    }
    for process in ["our_process", "libtdb_locker_process"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.tdb");
        let mut user = Locker::start_as(process, &path, 3, 0);
        user.must("store key value");
        assert_eq!(user.run("fetch key"), "value");
        File::create(&path).unwrap();
        user.send("fetch key");
        let give_up = Instant::now() + Duration::from_secs(60);
        let ended = loop {
            if let Some(status) = user.try_wait() {
                break status;
            }
            assert!(Instant::now() < give_up, "{process} lives on");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(ended.signal(), Some(libc::SIGBUS), "{process}: {ended}");
    }
}

/// Files that smbd and the daemon open with CLEAR_IF_FIRST cannot be cut short by another opener;
/// what is left of a file that was cut is refused or made new, never half used.
#[test]
fn file_that_was_cut_short_is_refused_by_the_next_opener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.tdb");
    let options = OpenOptions::create(1000, Flags::NOSYNC);
    let existing = OpenOptions::existing(Flags::NOSYNC);
    for len in [0, 100, 168, 2000, 4171] {
        let mut handle = open(&path, &options).unwrap();
        let _stored = handle.store(b"key", &[b"value"], Default::default()).unwrap();
        drop(handle);
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let refused = open(&path, &existing).unwrap_err();
        let told = matches!(refused, OpenError::Short { .. } | OpenError::Truncated { .. });
        assert!(told, "{len} bytes: {refused:?}");
        std::fs::remove_file(&path).unwrap();
    }
}
