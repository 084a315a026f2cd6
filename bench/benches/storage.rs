//! Operations on one TDB file, ours beside libtdb's: same file layout, keys and order.
//!
//! Groups `storage/OPERATION/LOCKS` with the functions `ours` and `libtdb`; LOCKS is `none`,
//! `fcntl` or `mutex`. One process, 16-byte keys, 100-byte values, 20,000 records in 100,001
//! chains, random order. libtdb is loaded at run time; without it only ours is measured.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

#[path = "../../storage/tests/support/libtdb.rs"]
mod libtdb;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use libtdb::{Tdb, mode};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::lock::{LockKind, Wait};
use ringmaster_storage::open::{OpenOptions, open};

const HASH_SIZE: u32 = 100_001;
const RECORDS: u32 = 20_000;
const VALUE: [u8; 100] = [b'v'; 100];
const OTHER: [u8; 100] = [b'w'; 100];

/// CTDB's flags without CLEAR_IF_FIRST; by name of the locks.
fn modes() -> [(&'static str, Flags); 3] {
    let base = Flags::NOSYNC | Flags::INCOMPATIBLE_HASH | Flags::DISALLOW_NESTING;
    [("none", base | Flags::NOLOCK), ("fcntl", base), ("mutex", base | Flags::MUTEX_LOCKING)]
}

/// Keys in an order that is random and always the same.
fn keys() -> Vec<[u8; 16]> {
    let mut state = 0x5EED_u64;
    (0..RECORDS)
        .map(|_| {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
            (u128::from(state) << 64 | u128::from(state.rotate_left(29))).to_le_bytes()
        })
        .collect()
}

fn ours(directory: &Path, flags: Flags) -> Handle {
    open(&directory.join("ours.tdb"), &OpenOptions::create(HASH_SIZE, flags)).unwrap()
}

fn theirs(directory: &Path, flags: Flags) -> Option<Tdb> {
    let path = directory.join("theirs.tdb");
    let hash_size = i32::try_from(HASH_SIZE).unwrap();
    libtdb::available().then(|| Tdb::create(&path, hash_size, flags.bits().cast_signed()).unwrap())
}

fn fill(keys: &[[u8; 16]], ours: &mut Handle, theirs: Option<&Tdb>) {
    for key in keys {
        assert_eq!(ours.store(key, &[&VALUE], StoreMode::Replace).unwrap(), Stored::Done);
        if let Some(tdb) = theirs {
            tdb.store(key, &VALUE, mode::REPLACE).unwrap();
        }
    }
}

/// Measures `work(key)` over the keys, again and again.
fn each(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    keys: &[[u8; 16]],
    mut work: impl FnMut(&[u8; 16]),
) {
    let mut at = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            at = if at + 1 == keys.len() { 0 } else { at + 1 };
            work(&keys[at]);
        });
    });
}

fn operations(criterion: &mut Criterion) {
    let keys = keys();
    let mut value = Vec::with_capacity(256);
    for (locks, flags) in modes() {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let mut ours = ours(directory.path(), flags);
        let theirs = theirs(directory.path(), flags);
        fill(&keys, &mut ours, theirs.as_ref());

        let mut group = criterion.benchmark_group(format!("storage/fetch/{locks}"));
        group.throughput(Throughput::Elements(1));
        each(&mut group, "ours", &keys, |key| {
            assert!(ours.fetch(key, &mut value).unwrap());
            black_box(&value);
        });
        if let Some(tdb) = &theirs {
            each(&mut group, "libtdb", &keys, |key| {
                assert_eq!(black_box(tdb.fetch_len(key)), Some(100));
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group(format!("storage/store_in_place/{locks}"));
        group.throughput(Throughput::Elements(1));
        let mut turn = false;
        each(&mut group, "ours", &keys, |key| {
            turn = !turn;
            let value = if turn { &OTHER } else { &VALUE };
            let stored = ours.store(key, &[value], StoreMode::Replace).unwrap();
            assert_eq!(black_box(stored), Stored::Done);
        });
        if let Some(tdb) = &theirs {
            each(&mut group, "libtdb", &keys, |key| {
                turn = !turn;
                tdb.store(key, if turn { &OTHER } else { &VALUE }, mode::REPLACE).unwrap();
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group(format!("storage/lock_pair/{locks}"));
        group.throughput(Throughput::Elements(1));
        each(&mut group, "ours", &keys, |key| {
            ours.lock_key(key, LockKind::Write).unwrap().unlock().unwrap();
        });
        if let Some(tdb) = &theirs {
            each(&mut group, "libtdb", &keys, |key| {
                tdb.chainlock(key).unwrap();
                tdb.chainunlock(key).unwrap();
            });
        }
        group.finish();

        let mut group = criterion.benchmark_group(format!("storage/lock_fetch_store/{locks}"));
        group.throughput(Throughput::Elements(1));
        each(&mut group, "ours", &keys, |key| {
            let chain = ours.database().chain_of(key);
            let mut locked = ours.try_lock_chain(chain, LockKind::Write).unwrap().unwrap();
            assert!(locked.fetch(key, &mut value).unwrap());
            value[99] = value[99].wrapping_add(1);
            let stored = locked.store(key, &[&value[..24], &value[24..]], StoreMode::Replace);
            assert_eq!(stored.unwrap(), Stored::Done);
            locked.unlock().unwrap();
        });
        if let Some(tdb) = &theirs {
            let mut value = VALUE;
            each(&mut group, "libtdb", &keys, |key| {
                tdb.chainlock_nonblock(key).unwrap();
                assert_eq!(black_box(tdb.fetch_len(key)), Some(100));
                value[99] = value[99].wrapping_add(1);
                tdb.store(key, &value, mode::REPLACE).unwrap();
                tdb.chainunlock(key).unwrap();
            });
        }
        group.finish();

        insert_and_delete(criterion, locks, &keys, &mut ours, theirs.as_ref());
    }
}

/// A new key stored and deleted again: allocation, free list, dead record.
fn insert_and_delete(
    criterion: &mut Criterion,
    locks: &str,
    keys: &[[u8; 16]],
    ours: &mut Handle,
    theirs: Option<&Tdb>,
) {
    let fresh: Vec<[u8; 16]> = keys.iter().map(|key| key.map(|byte| !byte)).collect();
    let mut group = criterion.benchmark_group(format!("storage/insert_and_delete/{locks}"));
    group.throughput(Throughput::Elements(1));
    each(&mut group, "ours", &fresh, |key| {
        assert_eq!(ours.store(key, &[&VALUE], StoreMode::Insert).unwrap(), Stored::Done);
        assert!(ours.delete(key).unwrap());
    });
    if let Some(tdb) = theirs {
        each(&mut group, "libtdb", &fresh, |key| {
            tdb.store(key, &VALUE, mode::INSERT).unwrap();
            tdb.delete(key).unwrap();
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group(format!("storage/traverse/{locks}"));
    group.throughput(Throughput::Elements(RECORDS.into()));
    group.sample_size(10);
    group.bench_function("ours", |bencher| {
        bencher.iter_batched(
            || (),
            |()| assert_eq!(ours.for_each(|_, _| true).unwrap(), u64::from(RECORDS)),
            BatchSize::PerIteration,
        );
    });
    if let Some(tdb) = theirs {
        group.bench_function("libtdb", |bencher| {
            bencher.iter(|| assert_eq!(tdb.count_records().unwrap(), RECORDS as usize));
        });
    }
    group.finish();
}

/// How much a long chain costs: the walk dominates.
fn long_chains(criterion: &mut Criterion) {
    let keys = keys();
    let flags = Flags::NOSYNC | Flags::INCOMPATIBLE_HASH | Flags::NOLOCK;
    for (length, hash_size) in [(10, 2003_u32), (150, 131)] {
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let options = OpenOptions::create(hash_size, flags);
        let mut ours = open(&directory.path().join("ours.tdb"), &options).unwrap();
        let path = directory.path().join("theirs.tdb");
        let theirs = libtdb::available().then(|| {
            Tdb::create(&path, hash_size.cast_signed(), flags.bits().cast_signed()).unwrap()
        });
        fill(&keys, &mut ours, theirs.as_ref());
        let mut group = criterion.benchmark_group(format!("storage/fetch/chain_length={length}"));
        let mut value = Vec::with_capacity(256);
        each(&mut group, "ours", &keys, |key| {
            assert!(ours.fetch(key, &mut value).unwrap());
            black_box(&value);
        });
        if let Some(tdb) = &theirs {
            each(&mut group, "libtdb", &keys, |key| {
                assert_eq!(black_box(tdb.fetch_len(key)), Some(100));
            });
        }
        group.finish();
    }
}

/// One record replaced in a transaction, with the disk and without, in a persistent database's file.
fn transactions(criterion: &mut Criterion) {
    for (name, flags) in [("nosync", Flags::NOSYNC), ("sync", Flags::DEFAULT)] {
        let directory = tempfile::tempdir().unwrap();
        let mut ours = ours(directory.path(), flags);
        let theirs = theirs(directory.path(), flags);
        let mut group = criterion.benchmark_group(format!("storage/transaction/{name}"));
        group.throughput(Throughput::Elements(1));
        group.sample_size(10);
        let mut number = 0_u64;
        let mut value = || {
            number += 1;
            number.to_le_bytes()
        };
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                let mut session = ours.start_transaction(Wait::Yes).unwrap().unwrap();
                let done = session.store(&ours, b"key", &[&value()], StoreMode::Replace);
                assert_eq!(done.unwrap(), Stored::Done);
                session.finish(&mut ours, Instant::now() + Duration::from_secs(60)).unwrap();
            });
        });
        if let Some(tdb) = theirs {
            group.bench_function("libtdb", |bencher| {
                bencher.iter(|| {
                    tdb.transaction_start().unwrap();
                    tdb.store(b"key", &value(), mode::REPLACE).unwrap();
                    tdb.transaction_commit().unwrap();
                });
            });
        }
        group.finish();
    }
}

/// All records of a large file; a small one under `--test`.
fn large_traverse(criterion: &mut Criterion) {
    let records = if std::env::args().any(|arg| arg == "--test") { 2_000 } else { 1_000_000_u32 };
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let flags = Flags::NOSYNC | Flags::INCOMPATIBLE_HASH | Flags::NOLOCK;
    let mut ours = ours(directory.path(), flags);
    for number in 0..records {
        let stored = ours.store(&number.to_le_bytes(), &[&VALUE], StoreMode::Insert).unwrap();
        assert_eq!(stored, Stored::Done);
    }
    let mut group = criterion.benchmark_group("storage/traverse_large/none");
    group.throughput(Throughput::Elements(records.into()));
    group.sample_size(10);
    group.bench_function("ours", |bencher| {
        bencher.iter(|| assert_eq!(ours.for_each(|_, _| true).unwrap(), u64::from(records)));
    });
    if libtdb::available() {
        let path = ours.database().path();
        let tdb = Tdb::open(path, 0, flags.bits().cast_signed(), libc::O_RDWR).unwrap();
        group.bench_function("libtdb", |bencher| {
            bencher.iter(|| assert_eq!(tdb.count_records().unwrap(), records as usize));
        });
    }
    group.finish();
}

criterion_group!(benches, operations, long_chains, transactions, large_traverse);
criterion_main!(benches);
