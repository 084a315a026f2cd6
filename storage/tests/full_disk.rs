//! A full disk: what cannot be stored is refused and changes nothing, and what is freed is used.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use ringmaster_storage::backend::memory::MemoryStore;
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::check;
use ringmaster_storage::engine::{AccessError, Engine, Policy};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::format::{HashKind, Header, Layout, create_image};
use ringmaster_storage::handle::{Handle, Session};
use ringmaster_storage::lock::{NoLocks, Wait};
use ringmaster_storage::open::{OpenError, OpenOptions, open};
use ringmaster_storage::store::StoreError;
use ringmaster_storage::transaction::TransactionError;

#[path = "support/libtdb.rs"]
mod libtdb;
#[path = "support/small_disk.rs"]
mod small_disk;

use libtdb::{Tdb, flag};

const LAYOUT: Layout = Layout { hash_size: 3, hash: HashKind::Jenkins, page_size: 256 };

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        u32::try_from(self.0 >> 33).unwrap() % bound
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(store: &MemoryStore) -> Model {
    let mut found = Model::new();
    check::check(store, &LAYOUT, |key, value| found.insert(key.to_vec(), value.to_vec()).is_none())
        .unwrap();
    found
}

fn is_full(error: &AccessError) -> bool {
    matches!(error, AccessError::Store(StoreError::Grow { .. }))
}

/// Random operations while the disk is full now and then; `true` if replacing failed for want of
/// space and left the old value, which is what this is about.
fn run(policy: Policy, seed: u64) -> bool {
    let image = create_image(&Header::new(LAYOUT.hash_size, LAYOUT.hash, 0)).unwrap();
    let store = MemoryStore::new(image);
    let mut locks = NoLocks::default();
    let mut engine = Engine { store: &store, locks: &mut locks, layout: LAYOUT, policy };
    let mut model = Model::new();
    let mut random = Random(seed);
    let mut kept_old = false;
    for step in 0..400 {
        // The first growth makes room for a hundred records of its size.
        match (step, random.below(150)) {
            (1.., 1..) => store.fill_up(),
            _ => store.heal(),
        }
        let key = format!("key{}", random.below(12)).into_bytes();
        let hash = LAYOUT.hash.hash(&key);
        let value = vec![
            u8::try_from(step % 251).unwrap();
            random.below(if step == 0 { 10 } else { 600 }) as usize
        ];
        let outcome = match random.below(10) {
            0..3 => engine.delete(&key, hash).map(|deleted| {
                assert_eq!(model.remove(&key).is_some(), deleted);
            }),
            3 => engine.append(&key, hash, &value).map(|stored| {
                assert_eq!(stored, Stored::Done);
                model.entry(key.clone()).or_default().extend(&value);
            }),
            _ => engine.store(&key, hash, &[&value], StoreMode::Replace).map(|stored| {
                assert_eq!(stored, Stored::Done);
                model.insert(key.clone(), value.clone());
            }),
        };
        if let Err(error) = outcome {
            assert!(is_full(&error), "{error}");
            kept_old |= model.contains_key(&key);
        }
        assert!(contents(&store) == model, "{policy:?} seed {seed} step {step}");
    }
    kept_old
}

#[test]
fn what_cannot_be_stored_leaves_the_old_value() {
    for max_dead in [0, 1, 5] {
        for never_waits in [false, true] {
            let policy = Policy { max_dead, never_waits, ..Policy::default() };
            let kept = (1..25).filter(|seed| run(policy, *seed)).count();
            assert!(kept > 12, "{policy:?}: hardly ever was a replace refused ({kept})");
        }
    }
}

/// How files are opened: with byte ranges and syncs, with mutexes, and leaving dead records.
fn kinds() -> [Flags; 3] {
    let mutexes = Flags::MUTEX_LOCKING | Flags::CLEAR_IF_FIRST | Flags::NOSYNC;
    [Flags::DEFAULT, mutexes, mutexes | Flags::VOLATILE]
}

fn fetched(handle: &mut Handle, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    handle.fetch(key, &mut value).unwrap().then_some(value)
}

fn same(handle: &mut Handle, model: &Model) {
    let mut found = Model::new();
    handle.for_each(|key, value| found.insert(key.to_vec(), value.to_vec()).is_none()).unwrap();
    assert!(found == *model);
    handle.check(|_, _| true).unwrap();
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[test]
fn file_on_a_full_disk_loses_nothing_and_grows_again_when_there_is_room() {
    let name = "file_on_a_full_disk_loses_nothing_and_grows_again_when_there_is_room";
    small_disk::with(name, "6m", |disk| {
        for flags in kinds() {
            let path = disk.join("t.tdb");
            let mut handle = open(&path, &OpenOptions::create(3, flags)).unwrap();
            let filler = small_disk::fill(disk, 300_000);
            let mut model = Model::new();
            let refused = loop {
                let key = format!("key{}", model.len()).into_bytes();
                let value = vec![1; 1000 + model.len()];
                match handle.store(&key, &[&value], StoreMode::Insert) {
                    Ok(stored) => assert_eq!(stored, Stored::Done),
                    Err(error) => break error,
                }
                model.insert(key, value);
            };
            assert!(is_full(&refused), "{refused}");
            assert!(model.len() > 20);
            let (full, before) = (len(&path), model.clone());
            for (key, value) in &before {
                let larger = handle.store(key, &[value, &[2; 4000]], StoreMode::Replace);
                assert!(is_full(&larger.unwrap_err()));
                // All bytes of all records are there to be written.
                let value = vec![3; value.len()];
                assert_eq!(handle.store(key, &[&value], StoreMode::Replace).unwrap(), Stored::Done);
                model.insert(key.clone(), value);
            }
            assert_eq!(len(&path), full, "nothing of a failed growth is left");
            same(&mut handle, &model);
            // What is freed is used.
            for (key, value) in before.iter().take(10) {
                assert!(handle.delete(key).unwrap());
                let stored = handle.store(key, &[&value[..500]], StoreMode::Insert).unwrap();
                assert_eq!(stored, Stored::Done);
                model.insert(key.clone(), value[..500].to_vec());
            }
            assert_eq!(len(&path), full);
            std::fs::remove_file(&filler).unwrap();
            assert_eq!(handle.store(b"new", &[b"value"], StoreMode::Insert).unwrap(), Stored::Done);
            model.insert(b"new".to_vec(), b"value".to_vec());
            let large = vec![4; 20_000];
            assert_eq!(handle.store(b"large", &[&large], StoreMode::Insert).unwrap(), Stored::Done);
            model.insert(b"large".to_vec(), large);
            same(&mut handle, &model);
            drop(handle);
            if let Ok(_library) = libtdb::library() {
                let theirs = Tdb::open(&path, 0, flag::NOLOCK, libc::O_RDWR).unwrap();
                theirs.check().unwrap();
            }
            std::fs::remove_file(&path).unwrap();
        }
    });
}

fn put(session: &mut Session, handle: &Handle, key: &[u8], value: &[u8]) {
    let stored = session.store(handle, key, &[value], StoreMode::Replace);
    assert_eq!(stored.unwrap(), Stored::Done);
}

#[test]
fn transaction_on_a_full_disk_is_refused_as_a_whole() {
    let name = "transaction_on_a_full_disk_is_refused_as_a_whole";
    small_disk::with(name, "4m", |disk| {
        let path = disk.join("t.tdb");
        let mut handle = open(&path, &OpenOptions::create(3, Flags::DEFAULT)).unwrap();
        let soon = || Instant::now() + Duration::from_secs(60);
        let mut session = handle.start_transaction(Wait::Yes).unwrap().unwrap();
        put(&mut session, &handle, b"key", b"value");
        session.finish(&mut handle, soon()).unwrap();
        small_disk::fill(disk, 0);
        let mut model = Model::from([(b"key".to_vec(), b"value".to_vec())]);
        // Neither the undo log nor the records of this one fit.
        let mut session = handle.start_transaction(Wait::Yes).unwrap().unwrap();
        for number in 0..100_u32 {
            let key = number.to_le_bytes();
            put(&mut session, &handle, &key, &[5; 20_000]);
        }
        put(&mut session, &handle, b"key", b"other");
        let refused = session.finish(&mut handle, soon()).unwrap_err();
        assert!(matches!(refused, TransactionError::Store(StoreError::Grow { .. })), "{refused:?}");
        same(&mut handle, &model);
        // The log of a small one has its place already.
        let mut session = handle.start_transaction(Wait::Yes).unwrap().unwrap();
        put(&mut session, &handle, b"key", b"other");
        session.finish(&mut handle, soon()).unwrap();
        model.insert(b"key".to_vec(), b"other".to_vec());
        same(&mut handle, &model);
        drop(handle);
        let mut handle = open(&path, &OpenOptions::existing(Flags::DEFAULT)).unwrap();
        same(&mut handle, &model);
        assert_eq!(fetched(&mut handle, b"key").as_deref(), Some(b"other".as_slice()));
    });
}

#[test]
fn creation_on_a_full_disk_is_refused_and_succeeds_when_there_is_room() {
    let name = "creation_on_a_full_disk_is_refused_and_succeeds_when_there_is_room";
    small_disk::with(name, "2m", |disk| {
        for flags in kinds() {
            let path = disk.join("t.tdb");
            let filler = small_disk::fill(disk, 100_000);
            let options = OpenOptions::create(50_000, flags);
            let refused = open(&path, &options).unwrap_err();
            assert!(matches!(refused, OpenError::System { .. }), "{refused:?}");
            std::fs::remove_file(&filler).unwrap();
            let options = OpenOptions::create(10_000, flags);
            let mut handle = open(&path, &options).unwrap();
            assert_eq!(handle.database().layout().hash_size, 10_000);
            assert_eq!(handle.store(b"key", &[b"value"], StoreMode::Insert).unwrap(), Stored::Done);
            handle.check(|_, _| true).unwrap();
            drop(handle);
            std::fs::remove_file(&path).unwrap();
        }
    });
}
