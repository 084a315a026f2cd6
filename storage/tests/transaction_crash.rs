//! Transactions on records: whatever moment the machine dies, all of a transaction is there or
//! nothing of it, in our eyes and in libtdb's.
//!
//! Short form: some thousands of images. `RINGMASTER_SOAK=1`: more than 100,000.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/libtdb.rs"]
mod libtdb;

use std::collections::BTreeMap;
use std::path::Path;

use libtdb::{Tdb, flag};
use ringmaster_storage::backend::memory::{CrashLog, Event, MemoryStore};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::check;
use ringmaster_storage::engine::{Engine, Policy};
use ringmaster_storage::format::{HashKind, Header, Layout};
use ringmaster_storage::lock::{LockKind, NoLocks};
use ringmaster_storage::recovery::Recovery;
use ringmaster_storage::repair::repair;
use ringmaster_storage::store::Store;
use ringmaster_storage::transaction::{Step, Transaction};
use ringmaster_storage::traverse::Cursor;

const LAYOUT: Layout = Layout { hash_size: 7, hash: HashKind::Jenkins, page_size: 4096 };

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        u32::try_from(self.0 >> 33).unwrap() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        self.below(u32::try_from(bound).unwrap()) as usize
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

fn with_engine<S: Store, T>(store: &S, work: impl FnOnce(&mut Engine<'_, S, NoLocks>) -> T) -> T {
    let mut locks = NoLocks::default();
    work(&mut Engine { store, locks: &mut locks, layout: LAYOUT, policy: Policy::default() })
}

fn change<S: Store>(store: &S, random: &mut Random, model: &mut Records) {
    with_engine(store, |engine| {
        for _ in 0..1 + random.below(12) {
            let key = format!("key{}", random.below(30)).into_bytes();
            let hash = LAYOUT.hash.hash(&key);
            if random.below(4) == 0 {
                assert_eq!(engine.delete(&key, hash).unwrap(), model.remove(&key).is_some());
                continue;
            }
            let len = if random.below(8) == 0 { random.below(9000) } else { random.below(80) };
            let byte = u8::try_from(random.below(256)).unwrap();
            let value = vec![byte; len as usize];
            let stored = engine.store(&key, hash, &[&value], StoreMode::Replace).unwrap();
            assert_eq!(stored, Stored::Done);
            model.insert(key, value);
        }
    });
}

fn records(store: &MemoryStore) -> Records {
    let mut records = Records::new();
    with_engine(store, |engine| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut cursor = Cursor::new();
        while engine.traverse_next(&mut cursor, LockKind::Read, &mut key, &mut value).unwrap() {
            assert_eq!(records.insert(key.clone(), value.clone()), None, "a record twice");
        }
    });
    records
}

/// A database with some history, and the log of one more transaction.
fn history(seed: u64) -> (CrashLog, Records, Records) {
    let mut random = Random(seed);
    let mut image = Header::new(LAYOUT.hash_size, LAYOUT.hash, 0).encode().to_vec();
    image.resize(LAYOUT.data_start() as usize, 0);
    let store = MemoryStore::new(image);
    let mut model = Records::new();
    for _ in 0..random.below(4) {
        if random.below(2) == 0 {
            change(&store, &mut random, &mut model);
        } else {
            let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
            change(&transaction.view(&store), &mut random, &mut model);
            assert_eq!(transaction.commit(&store).unwrap(), Step::Done);
        }
    }
    let before = model.clone();
    store.start_log();
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    change(&transaction.view(&store), &mut random, &mut model);
    while let Step::Sync(point) = transaction.commit(&store).unwrap() {
        store.synced(point);
    }
    (store.log().unwrap(), before, model)
}

/// What a crash image must turn out to be; `true`: the new state.
fn judge(image: Vec<u8>, before: &Records, after: &Records, what: &str) -> bool {
    let store = MemoryStore::new(image);
    if let Some(mut recovery) = Recovery::begin(&store).unwrap_or_else(|e| panic!("{what}: {e}")) {
        assert_eq!(recovery.step(&store).unwrap(), Step::Done);
    }
    let found = records(&store);
    assert!(&found == before || &found == after, "{what}: neither the old nor the new state");
    // Leaked space is the only thing that may be wrong, and it can be mended.
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    repair(&transaction.view(&store), &LAYOUT).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(transaction.commit(&store).unwrap(), Step::Done);
    let report = check::check(&store, &LAYOUT, |_, _| true);
    let report = report.unwrap_or_else(|error| panic!("{what}, repaired: {error}"));
    assert_eq!(report.live as usize, found.len(), "{what}");
    assert_eq!(report.unused_from, None, "{what}");
    &found == after
}

/// libtdb recovers the image by itself to the same state.
fn judge_by_libtdb(path: &Path, image: &[u8], before: &Records, after: &Records, what: &str) {
    std::fs::write(path, image).unwrap();
    let tdb = Tdb::open(path, 0, flag::NOSYNC, libc::O_RDWR)
        .unwrap_or_else(|error| panic!("{what}: libtdb refuses the file: {error}"));
    let found: Records = tdb.records().unwrap().into_iter().collect();
    assert!(&found == before || &found == after, "{what}: libtdb sees neither state");
}

#[test]
fn every_crash_leaves_all_of_a_transaction_or_nothing() {
    let soak = std::env::var_os("RINGMASTER_SOAK").is_some();
    let images_max: u64 = if soak { 120_000 } else { 3_000 };
    let with_libtdb = libtdb::available();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("crashed.tdb");
    let (mut images, mut old, mut new, mut by_libtdb, mut seed) = (0, 0_u64, 0_u64, 0, 0);
    while images < images_max {
        seed += 1;
        let (log, before, after) = history(seed);
        let mut random = Random(seed ^ 0xC0FFEE);
        for count in 0..=log.events().len() {
            let mut crashed = vec![(log.after(count), "killed")];
            if let Some(Event::Write { data, .. }) = log.events().get(count) {
                // Aligned words are written whole.
                let written = random.index(data.len()) & !3;
                crashed.push((log.after_torn(count, written), "torn"));
            }
            for granule in [512, 4096] {
                crashed.push((log.power_loss(count, granule, |n| random.index(n)), "power loss"));
            }
            for (image, kind) in crashed {
                let what = format!("seed {seed}, {count} events, {kind}");
                images += 1;
                if with_libtdb && images % 16 == 0 {
                    judge_by_libtdb(&path, &image, &before, &after, &what);
                    by_libtdb += 1;
                }
                if judge(image, &before, &after, &what) { new += 1 } else { old += 1 }
            }
        }
    }
    println!("{images} images: {old} old, {new} new, {by_libtdb} also opened by libtdb");
    assert!(old > images / 10 && new > images / 10, "one-sided: {old} old, {new} new");
}
