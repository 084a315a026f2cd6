//! Opening, creating, refusing, and sharing a file with libtdb.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/libtdb.rs"]
mod libtdb;
#[path = "support/samples.rs"]
mod samples;

use std::path::{Path, PathBuf};

use libtdb::{Locker, Tdb, flag, mode};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::engine::AccessError;
use ringmaster_storage::flags::Flags;
use ringmaster_storage::foreign::ForeignDatabase;
use ringmaster_storage::format::HashKind;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::lock::LockKind;
use ringmaster_storage::ltdb::DatabaseKind;
use ringmaster_storage::open::{OpenError, OpenOptions, open};

const CTDB_MUTEX: Flags = Flags::from_bits(0x1C41);

fn sample(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name.trim_end_matches(".gz"));
    std::fs::write(&path, samples::load(name)).unwrap();
    path
}

fn store(handle: &mut Handle, key: &[u8], value: &[u8]) {
    assert_eq!(handle.store(key, &[value], StoreMode::Replace).unwrap(), Stored::Done);
}

fn fetch(handle: &mut Handle, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0xEE; 7];
    handle.fetch(key, &mut value).unwrap().then_some(value)
}

fn try_chain(handle: &mut Handle, chain: u32, kind: LockKind) -> bool {
    handle.try_lock_chain(chain, kind).unwrap().is_some()
}

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

#[test]
fn new_files_equal_those_of_libtdb() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ctdb = flag::CLEAR_IF_FIRST | flag::NOSYNC | flag::DISALLOW_NESTING;
    for hash_size in [0, 1, 3, 131, 1000, 10_007] {
        for flags in [
            flag::DEFAULT,
            flag::CLEAR_IF_FIRST,
            flag::INCOMPATIBLE_HASH | flag::SEQNUM | flag::VOLATILE,
            ctdb | flag::INCOMPATIBLE_HASH,
            ctdb | flag::MUTEX_LOCKING,
            flag::MUTEX_LOCKING,
        ] {
            let [theirs, ours] = ["theirs", "ours"].map(|name| directory.path().join(name));
            let _ = std::fs::remove_file(&theirs);
            let _ = std::fs::remove_file(&ours);
            let tdb = Tdb::create(&theirs, hash_size, flags).unwrap();
            let bits = Flags::from_bits(flags.cast_unsigned());
            let options = OpenOptions::create(hash_size.cast_unsigned(), bits);
            let handle = open(&ours, &options).unwrap();
            assert_eq!(handle.flags().bits().cast_signed(), tdb.flags(), "{flags:#x}");
            let (a, b) = (std::fs::read(&theirs).unwrap(), std::fs::read(&ours).unwrap());
            assert!(a == b, "hash size {hash_size}, flags {flags:#x}: {} {}", a.len(), b.len());
            let metadata = std::fs::metadata(&ours).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

#[test]
fn contradictory_arguments_are_refused_before_the_file_is_touched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.tdb");
    for flags in [
        Flags::ALLOW_NESTING | Flags::DISALLOW_NESTING,
        Flags::INTERNAL,
        Flags::CONVERT,
        Flags::MUTEX_LOCKING | Flags::NOMMAP,
    ] {
        let refused = open(&path, &OpenOptions::create(3, flags)).unwrap_err();
        assert!(matches!(refused, OpenError::Argument { .. }), "{refused}");
        assert_eq!(refused.errno(), libc::EINVAL);
    }
    let too_many = open(&path, &OpenOptions::create(u32::MAX / 2, Flags::DEFAULT)).unwrap_err();
    assert_eq!(too_many.errno(), libc::EINVAL);
    let missing = open(&path, &OpenOptions::existing(Flags::DEFAULT));
    // The impossible hash size left an empty file, as `open(2)` made it.
    assert!(matches!(missing, Err(OpenError::Short { len: 0, .. })));
    std::fs::remove_file(&path).unwrap();
    let missing = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap_err();
    assert_eq!(missing.errno(), libc::ENOENT);
    let options = OpenOptions { exclusive: true, ..OpenOptions::create(3, Flags::DEFAULT) };
    drop(open(&path, &options).unwrap());
    assert_eq!(open(&path, &options).unwrap_err().errno(), libc::EEXIST);
}

#[test]
fn damaged_headers_are_refused_with_the_place_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let good = samples::load("two-oldhash-3.tdb");
    let refused = |at: usize, bytes: &[u8]| {
        let path = directory.path().join("damaged.tdb");
        let mut damaged = good.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, &damaged).unwrap();
        let error = open(&path, &OpenOptions::create(3, Flags::DEFAULT)).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "{error}");
        error.to_string()
    };
    assert!(refused(32, &[1]).contains("version 0x26011901"));
    assert!(refused(36, &[0; 4]).contains("hash size at offset 36 is 0"));
    assert!(refused(36, &[0xFF; 3]).contains("16777215 hash chains do not fit in 4096 bytes"));
    assert!(refused(40, &[7]).contains("rwlocks word 0x00000007 at offset 40"));
    assert!(refused(52, &[7]).contains("unknown hash function"));
}

#[test]
fn a_file_that_is_no_database_is_overwritten_only_when_creating() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("text");
    std::fs::write(&path, vec![b'x'; 500]).unwrap();
    let refused = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap_err();
    assert!(refused.to_string().contains("does not start with"), "{refused}");
    assert_eq!(refused.errno(), libc::EIO);
    drop(open(&path, &OpenOptions::create(3, Flags::DEFAULT)).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 184);
}

#[test]
fn opening_undoes_a_crashed_commit_and_reading_alone_refuses_to() {
    let directory = tempfile::tempdir().unwrap();
    for expected in samples::expected() {
        let Some(digest) = expected.sha256_after_close else { continue };
        if expected.name.contains("bigendian") {
            continue;
        }
        let path = sample(directory.path(), &expected.name);
        let reading = open(&path, &OpenOptions::read_only());
        if expected.recovered {
            assert!(matches!(reading, Err(OpenError::NeedsRecovery { .. })), "{}", expected.name);
        } else {
            drop(reading.unwrap());
        }
        let mut handle = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap();
        let found = samples::sha256(&std::fs::read(&path).unwrap());
        assert_eq!(found, digest, "{}", expected.name);
        if let Some(records) = expected.records {
            let mut seen = Vec::new();
            handle
                .for_each(|key, value| {
                    seen.push((key.to_vec(), value.to_vec()));
                    true
                })
                .unwrap();
            assert_eq!(seen, records, "{}", expected.name);
        }
    }
}

#[test]
fn a_crashed_commit_met_later_is_undone_by_who_may_wait() {
    let directory = tempfile::tempdir().unwrap();
    let path = sample(directory.path(), "tx0-before-3.tdb");
    let mut handle = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap();
    // Somebody else commits and dies: the bytes of the file change under the open handle.
    let crashed = samples::load("tx5-died-after-first-block-3.tdb");
    std::fs::write(&path, crashed).unwrap();
    let refused = handle.try_lock_chain(0, LockKind::Read).map(|_| ());
    assert!(matches!(refused, Err(AccessError::NeedsRecovery)), "{refused:?}");
    assert_eq!(fetch(&mut handle, b"hi").unwrap(), b"world");
    assert_eq!(fetch(&mut handle, b"new"), None);
    assert!(try_chain(&mut handle, 0, LockKind::Read));
}

#[test]
fn big_endian_files_are_refused_read_and_converted() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["two-bigendian-3.tdb", "two-bigendian-jenkins-3.tdb"] {
        let path = sample(directory.path(), name);
        let refused = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap_err();
        assert!(matches!(refused, OpenError::ForeignOrder { .. }), "{refused}");
        let foreign = ForeignDatabase::open(&path).unwrap();
        let ours = directory.path().join(format!("ours-{name}"));
        let mut handle = open(&ours, &OpenOptions::create(7, Flags::DEFAULT)).unwrap();
        assert_eq!(foreign.copy_into(&mut handle).unwrap(), 2);
        assert_eq!(handle.database().layout().hash, HashKind::Old);
        assert_eq!(fetch(&mut handle, b"hi").unwrap(), b"world");
        assert_eq!(fetch(&mut handle, b"b").unwrap(), b"xyz");
    }
    let native = sample(directory.path(), "two-oldhash-3.tdb");
    assert!(ForeignDatabase::open(&native).is_err());
}

#[test]
fn clear_if_first_empties_the_file_only_when_nobody_else_has_it() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for flags in [CTDB_MUTEX, DatabaseKind::Replicated.tdb_flags(true)] {
        let path = directory.path().join(format!("{:x}.tdb", flags.bits()));
        let mut other = Locker::start(&path, 7, flags.bits().cast_signed());
        other.must("store key value");
        let options = OpenOptions::existing(flags);
        let mut handle = open(&path, &options).unwrap();
        assert_eq!(fetch(&mut handle, b"key").unwrap(), b"value");
        other.kill();
        // Ours alone keeps it alive now, also after the first handle is gone.
        let mut second = handle.database().handle().unwrap();
        drop(handle);
        let other = Locker::start(&path, 7, flags.bits().cast_signed());
        assert_eq!(fetch(&mut second, b"key").unwrap(), b"value");
        drop(other);
        drop(second);
        let mut handle = open(&path, &options).unwrap();
        assert_eq!(fetch(&mut handle, b"key"), None);
    }
}

#[test]
fn handles_of_one_database_exclude_each_other_and_libtdb() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for flags in [CTDB_MUTEX, DatabaseKind::Replicated.tdb_flags(true)] {
        let path = directory.path().join(format!("{:x}.tdb", flags.bits()));
        let mut first = open(&path, &OpenOptions::create(3, flags)).unwrap();
        let database = std::sync::Arc::clone(first.database());
        let mut other = Locker::start(&path, 3, flags.bits().cast_signed());
        let chain = database.chain_of(b"key");
        let mut locked = first.lock_chain(chain, LockKind::Write).unwrap();
        // The second handle on a thread of its own: mutexes belong to threads.
        let busy = std::thread::spawn(move || {
            let mut second = database.handle().unwrap();
            !try_chain(&mut second, chain, LockKind::Write)
        });
        assert!(busy.join().unwrap());
        assert!(other.run("chainlock_nonblock key").starts_with("error"));
        assert_eq!(locked.store(b"key", &[b"a", b"b"], StoreMode::Insert).unwrap(), Stored::Done);
        locked.unlock().unwrap();
        other.must("chainlock_nonblock key");
        assert!(!try_chain(&mut first, chain, LockKind::Write));
        other.must("chainunlock key");
        assert_eq!(other.run("fetch key"), "ab");
        assert_eq!(other.run("check"), "ok");
    }
}

#[test]
fn a_mutex_file_is_read_without_touching_its_mutexes() {
    let directory = tempfile::tempdir().unwrap();
    for expected in samples::expected().into_iter().filter(|sample| sample.name.contains("mutex")) {
        let path = sample(directory.path(), &expected.name);
        let mut handle = open(&path, &OpenOptions::read_only()).unwrap();
        assert!(handle.database().store().start() > 0);
        let mut seen = Vec::new();
        handle
            .for_each(|key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                true
            })
            .unwrap();
        assert_eq!(Some(seen), expected.records, "{}", expected.name);
        let refused = handle.store(b"key", &[b"value"], StoreMode::Replace);
        assert!(matches!(refused, Err(AccessError::Store(_))), "{refused:?}");
        assert!(std::fs::read(&path).unwrap() == samples::load(&expected.name));
    }
}

#[test]
fn a_mutex_file_is_not_initialised_under_those_who_use_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.tdb");
    let mut first = open(&path, &OpenOptions::create(3, CTDB_MUTEX)).unwrap();
    let locked = first.lock_chain(1, LockKind::Write).unwrap();
    let before = std::fs::read(&path).unwrap();
    let without = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap_err();
    assert!(matches!(without, OpenError::MutexesNeeded { .. }), "{without}");
    drop(open(&path, &OpenOptions::existing(Flags::NOLOCK)).unwrap());
    drop(open(&path, &OpenOptions::read_only()).unwrap());
    drop(open(&path, &OpenOptions::existing(Flags::MUTEX_LOCKING)).unwrap());
    drop(open(&path, &OpenOptions::existing(CTDB_MUTEX)).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    drop(locked);
}

#[test]
fn both_libraries_write_one_file_at_once() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for flags in [CTDB_MUTEX, DatabaseKind::Replicated.tdb_flags(true), Flags::DEFAULT] {
        let path = directory.path().join(format!("{:x}.tdb", flags.bits()));
        let mut ours = open(&path, &OpenOptions::create(2, flags)).unwrap();
        let mut other = Locker::start(&path, 2, flags.bits().cast_signed());
        for round in 0..400_u32 {
            // Their command runs while ours do.
            let theirs = format!("their{}", round % 37);
            let value = "v".repeat(1 + (round as usize * 13) % 300);
            other.send(&match round % 5 {
                0 => format!("delete {theirs}"),
                1 => format!("append shared {round},"),
                _ => format!("store {theirs} {value}"),
            });
            let key = format!("our{}", round % 41);
            match round % 7 {
                0 => drop(ours.delete(key.as_bytes()).unwrap()),
                3 => {
                    let done = ours.append(b"shared", format!("{round};").as_bytes()).unwrap();
                    assert_eq!(done, Stored::Done);
                }
                _ => store(&mut ours, key.as_bytes(), &vec![b'w'; (round as usize * 7) % 500]),
            }
            let reply = other.reply();
            assert!(reply == "ok" || reply == "error 8", "{reply}");
        }
        // Every append arrived once, whoever made it.
        let shared = fetch(&mut ours, b"shared").unwrap();
        let shared = String::from_utf8(shared).unwrap();
        let mut seen: Vec<&str> = shared.split_inclusive([',', ';']).collect();
        seen.sort_unstable();
        let by_them = (0..400).filter(|round| round % 5 == 1).map(|round| format!("{round},"));
        let by_us = (0..400).filter(|round| round % 7 == 3).map(|round| format!("{round};"));
        let mut expected: Vec<String> = by_them.chain(by_us).collect();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(other.run("check"), "ok");
        let summary = ours.summary().unwrap();
        assert!(summary.keys.count > 30, "{summary}");
    }
}

#[test]
fn sequence_numbers_count_as_in_libtdb() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.tdb");
    let mut ours = open(&path, &OpenOptions::create(3, Flags::SEQNUM)).unwrap();
    let their_path = directory.path().join("t.tdb");
    let theirs = Tdb::create(&their_path, 3, flag::SEQNUM).unwrap();
    for (key, value) in [("a", "1"), ("a", "1"), ("a", "2"), ("a", "a long value, moved")] {
        theirs.store(key.as_bytes(), value.as_bytes(), mode::REPLACE).unwrap();
        store(&mut ours, key.as_bytes(), value.as_bytes());
        assert_eq!(ours.database().seqnum().unwrap().cast_signed(), theirs.seqnum());
    }
    assert!(ours.delete(b"a").unwrap());
    theirs.delete(b"a").unwrap();
    ours.wipe().unwrap();
    theirs.wipe_all().unwrap();
    assert_eq!(ours.database().seqnum().unwrap().cast_signed(), theirs.seqnum());
    let mut silent = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap();
    store(&mut silent, b"x", b"y");
    assert_eq!(ours.database().seqnum().unwrap().cast_signed(), theirs.seqnum());
    silent.enable_seqnum();
    assert!(silent.flags().contains(Flags::SEQNUM));
    store(&mut silent, b"x", b"z");
    assert_eq!(ours.database().seqnum().unwrap().cast_signed(), theirs.seqnum() + 1);
}

#[test]
fn only_who_makes_a_file_knows_that_nobody_slept_on_it_before() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tdb");
    let options = OpenOptions::create(131, CTDB_MUTEX);
    let first = open(&path, &options).unwrap();
    assert!(first.database().made_here());
    assert!(!open(&path, &options).unwrap().database().made_here());
    drop(first);
    // CLEAR_IF_FIRST empties the file for whoever is alone, and yet it is an old one.
    assert!(!open(&path, &options).unwrap().database().made_here());
}
