//! Dead records as a reserve: no list changes, libtdb's check holds after every single write, and
//! what is left behind is bounded, given back, and free for libtdb to purge.
#![allow(clippy::unwrap_used, reason = "helpers of tests: what cannot be done ends the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringmaster_storage::backend::memory::{Event, MemoryStore};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::check;
use ringmaster_storage::engine::{Engine, Policy};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::format::{HashKind, Header, Layout, create_image};
use ringmaster_storage::handle::{Handle, Reserve};
use ringmaster_storage::limits::BURIED_PER_CHAIN_MAX;
use ringmaster_storage::lock::{LockKind, Locks, NoLocks, TryLock, Wait};
use ringmaster_storage::open::{OpenOptions, open};
use ringmaster_storage::reserve::Place;

#[path = "support/libtdb.rs"]
mod libtdb;

use libtdb::{Locker, Tdb, flag, mode};

const LAYOUT: Layout = Layout { hash_size: 3, hash: HashKind::Jenkins, page_size: 256 };
const RANGES: i32 = flag::INCOMPATIBLE_HASH | flag::NOSYNC;
const MUTEXES: i32 = flag::MUTEX_LOCKING | flag::CLEAR_IF_FIRST | flag::NOSYNC;

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        u32::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// libtdb's verdict on an image. Without the library: only ours counts.
fn libtdb_accepts(image: &[u8], path: &Path) -> bool {
    std::fs::write(path, image).unwrap();
    let tdb = Tdb::open(path, 0, flag::NOLOCK | flag::NOSYNC, libc::O_RDWR).unwrap();
    tdb.check().is_ok()
}

/// What a key may hold in an image: its value before the operation, or the one after.
type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn contents(store: &MemoryStore) -> Model {
    let mut found = Model::new();
    check::check(store, &LAYOUT, |key, value| found.insert(key.to_vec(), value.to_vec()).is_none())
        .unwrap();
    found
}

/// A delete or an insert by the reserve's algorithms; `true` if it changed no list.
fn operate(store: &MemoryStore, key: &[u8], value: Option<&[u8]>) -> bool {
    let (mut locks, policy) = (NoLocks::default(), Policy { seqnum: true, ..Policy::default() });
    let mut engine = Engine { store, locks: &mut locks, layout: LAYOUT, policy };
    let hash = LAYOUT.hash.hash(key);
    match value {
        Some(value) => {
            let parts = value.split_at(value.len() / 3);
            let stored =
                engine.store_reviving(key, hash, &[parts.0, parts.1], StoreMode::Replace).unwrap();
            assert_eq!(stored.0, Stored::Done);
            stored.1 == Place::Revived
        }
        None => {
            if let Some(found) = engine.find(key, hash).unwrap() {
                engine.bury(&found).unwrap();
            }
            true
        }
    }
}

#[test]
fn check_is_satisfied_after_every_write_of_a_delete_and_of_a_revival() {
    let with_libtdb = libtdb::available();
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = dir.path().join("prefix.tdb");
    let (mut revived, mut prefixes) = (0, 0);
    for seed in 1..4 {
        let image = create_image(&Header::new(LAYOUT.hash_size, LAYOUT.hash, 0)).unwrap();
        let (store, mut random) = (MemoryStore::new(image), Random(seed));
        let mut before = Model::new();
        for number in 0..900 {
            let key = format!("key{}", random.below(16)).into_bytes();
            let fill = u8::try_from(random.below(255)).unwrap();
            let value = vec![fill; random.below(70) as usize];
            let value = (random.below(2) == 0).then_some(value);
            let inserts = value.is_some() && !before.contains_key(&key);
            store.start_log();
            let changed_no_list = operate(&store, &key, value.as_deref());
            let log = store.log().unwrap();
            let mut after = before.clone();
            match value {
                Some(value) => drop(after.insert(key, value)),
                None => drop(after.remove(&key)),
            }
            assert_eq!(contents(&store), after);
            // What libtdb does as well (a new block, an update in place) is `killed.rs`'s.
            if changed_no_list && (inserts || before.len() > after.len()) {
                revived += u32::from(inserts);
                let events = log.events();
                for (count, event) in events.iter().enumerate() {
                    let mut images = vec![log.after(count), log.after(count + 1)];
                    if let Event::Write { data, .. } = event {
                        // The mapping is written in words.
                        let torn = (4..data.len()).step_by(4);
                        images.extend(torn.map(|written| log.after_torn(count, written)));
                    }
                    for image in images {
                        prefixes += 1;
                        let accepted = !with_libtdb || libtdb_accepts(&image, &path);
                        assert!(accepted, "seed {seed}, operation {number}, write {count}");
                        let found = contents(&MemoryStore::new(image));
                        assert!(found == before || found == after, "{seed}, {number}, {count}");
                    }
                }
            }
            before = after;
        }
    }
    assert!(revived > 100, "only {revived} records came back to life");
    println!("{revived} revivals, {prefixes} prefixes");
}

/// Why a dead record can only serve its own key again: there is no order of writes in which it
/// changes its key and each prefix passes.
#[test]
fn libtdb_checks_the_hash_of_a_dead_record_too() {
    if !libtdb::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead.tdb");
    let image = create_image(&Header::new(LAYOUT.hash_size, LAYOUT.hash, 0)).unwrap();
    let store = MemoryStore::new(image);
    assert!(!operate(&store, b"a key", Some(b"a value")));
    assert!(operate(&store, b"a key", None));
    let mut image = store.image();
    assert!(libtdb_accepts(&image, &path));
    let key_at = image.windows(5).position(|bytes| bytes == b"a key").unwrap();
    image[key_at] = b'b';
    assert!(!libtdb_accepts(&image, &path));
}

fn create(path: &Path, hash_size: u32, flags: i32) -> Handle {
    let flags = Flags::from_bits(flags.cast_unsigned());
    open(path, &OpenOptions::create(hash_size, flags)).unwrap()
}

fn dead_records(handle: &mut Handle) -> u32 {
    handle.check(|_, _| true).unwrap().dead
}

fn insert(handle: &mut Handle, key: &str) {
    let stored = handle.store(key.as_bytes(), &[b"a value"], StoreMode::Insert).unwrap();
    assert_eq!(stored, Stored::Done);
}

fn key_at(number: u32) -> String {
    format!("key{number}")
}

#[test]
fn delete_and_insert_of_a_key_work_while_somebody_else_has_the_freelist() {
    for flags in [RANGES, MUTEXES] {
        let dir = tempfile::tempdir().unwrap();
        let mut handle = create(&dir.path().join("busy.tdb"), 7, flags);
        handle.never_wait(); // so that needing the freelist shows
        insert(&mut handle, "key");
        let database = handle.database().clone();
        let (held, is_held) = channel();
        let (release, released) = channel::<()>();
        // A thread of its own: it owns the mutex.
        let other = std::thread::spawn(move || {
            let mut other = database.handle().unwrap();
            held.send(other.locks().lock_freelist(Wait::Yes).unwrap()).unwrap();
            released.recv().unwrap();
            other.locks().unlock_freelist().unwrap();
        });
        assert_eq!(is_held.recv().unwrap(), TryLock::Granted);
        handle.set_reserve(Some(Reserve::default())).unwrap();
        for _ in 0..3 {
            assert!(handle.delete(b"key").unwrap());
            assert!(!handle.exists(b"key").unwrap());
            insert(&mut handle, "key");
            assert!(handle.lock_key(b"key", LockKind::Write).unwrap().delete(b"key").unwrap());
            let mut locked = handle.lock_key(b"key", LockKind::Write).unwrap();
            let stored = locked.store(b"key", &[b"a value"], StoreMode::Replace).unwrap();
            assert_eq!(stored, Stored::Done);
        }
        let new = handle.store(b"new", &[b"needs a block"], StoreMode::Insert).unwrap();
        assert_eq!(new, Stored::Busy);
        release.send(()).unwrap();
        other.join().unwrap();
        insert(&mut handle, "new");
        assert_eq!(handle.for_each(|_, value| !value.is_empty()).unwrap(), 2);
    }
}

#[test]
fn reserve_stays_within_its_limits_and_is_given_back() {
    for flags in [RANGES, MUTEXES] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("limits.tdb");
        let mut handle = create(&path, 101, flags);
        let mut anchor = handle.database().handle().unwrap();
        handle.set_reserve(Some(Reserve { records_max: 40, record_len_max: 200 })).unwrap();
        for number in 0..300 {
            insert(&mut handle, &key_at(number));
        }
        let stored = handle.store(b"large", &[&[1; 1000]], StoreMode::Insert).unwrap();
        assert_eq!(stored, Stored::Done);
        assert!(handle.delete(b"large").unwrap());
        assert_eq!((handle.reserved(), dead_records(&mut handle)), (0, 0), "too large to stay");
        for number in 0..300 {
            assert!(handle.delete(key_at(number).as_bytes()).unwrap());
            assert!(handle.reserved() <= 40);
            assert_eq!(dead_records(&mut handle), handle.reserved());
        }
        assert!(handle.reserved() > 0);
        handle.give_back().unwrap();
        assert_eq!((handle.reserved(), dead_records(&mut handle)), (0, 0));
        for number in 0..30 {
            insert(&mut handle, &key_at(number));
        }
        for number in 0..30 {
            assert!(handle.delete(key_at(number).as_bytes()).unwrap());
        }
        assert!(dead_records(&mut anchor) > 0);
        handle.wipe().unwrap();
        assert_eq!((handle.reserved(), dead_records(&mut handle)), (0, 0));
        for number in 0..30 {
            insert(&mut handle, &key_at(number));
        }
        for number in 0..30 {
            assert!(handle.delete(key_at(number).as_bytes()).unwrap());
        }
        assert!(dead_records(&mut anchor) > 0);
        drop(handle);
        assert_eq!(dead_records(&mut anchor), 0, "given back at the end");
    }
}

#[test]
fn a_chain_gets_only_a_few_dead_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut handle = create(&dir.path().join("chain.tdb"), 1, RANGES);
    handle.set_reserve(Some(Reserve::default())).unwrap();
    for number in 0..30 {
        insert(&mut handle, &key_at(number));
    }
    for number in 0..30 {
        assert!(handle.delete(key_at(number).as_bytes()).unwrap());
        assert!(dead_records(&mut handle) <= u32::from(BURIED_PER_CHAIN_MAX));
        assert_eq!(dead_records(&mut handle), handle.reserved());
    }
}

#[test]
fn libtdb_works_among_our_dead_records_and_purges_them() {
    if !libtdb::available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mixed.tdb");
    let mut handle = create(&path, 3, RANGES);
    handle.set_reserve(Some(Reserve::default())).unwrap();
    let tdb = Tdb::open(&path, 0, RANGES, libc::O_RDWR).unwrap();
    for number in 0..12 {
        insert(&mut handle, &key_at(number));
    }
    for number in 0..12 {
        assert!(handle.delete(key_at(number).as_bytes()).unwrap());
    }
    assert!(dead_records(&mut handle) > 0);
    tdb.check().unwrap();
    assert_eq!(tdb.count_records(), Ok(0));
    for number in 20..32 {
        tdb.store(key_at(number).as_bytes(), b"theirs", mode::INSERT).unwrap();
    }
    assert_eq!(dead_records(&mut handle), 0, "libtdb frees what is dead in its chains");
    for number in 20..32 {
        let key = key_at(number);
        assert!(handle.delete(key.as_bytes()).unwrap());
        insert(&mut handle, &key);
        assert_eq!(tdb.fetch(key.as_bytes()).as_deref(), Some(&b"a value"[..]));
    }
    tdb.check().unwrap();
}

const CHURNED: u32 = 64;

fn churned_value(number: u32, length: u32) -> Vec<u8> {
    vec![u8::try_from(number).unwrap(); length as usize]
}

/// A process that deletes and inserts at random, at full speed, until it is killed.
#[test]
fn churn_worker() {
    let Some((path, _, flags)) = libtdb::locker_order() else { return };
    let mut handle =
        open(&path, &OpenOptions::existing(Flags::from_bits(flags.cast_unsigned()))).unwrap();
    handle.set_reserve(Some(Reserve::default())).unwrap();
    libtdb::serve(Ok::<_, &str>(|line: &str| {
        let mut random = Random(line.parse().unwrap());
        loop {
            let number = random.below(CHURNED);
            let key = key_at(number);
            if !handle.delete(key.as_bytes()).unwrap() {
                let value = churned_value(number, 20 + random.below(80));
                let stored = handle.store(key.as_bytes(), &[&value], StoreMode::Insert).unwrap();
                // The other process may have been faster.
                assert!(matches!(stored, Stored::Done | Stored::Exists));
            }
        }
    }));
}

/// Two processes that never need a new block are killed anywhere, often: libtdb's check is
/// satisfied each time, and no value is torn.
#[test]
fn processes_killed_anywhere_leave_a_file_that_libtdb_accepts() {
    if !libtdb::available() {
        return;
    }
    for flags in [RANGES, MUTEXES] {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = dir.path().join("churn.tdb");
        let hash_size: i32 = 101;
        let mut handle = create(&path, hash_size.cast_unsigned(), flags);
        for number in 0..CHURNED {
            let value = churned_value(number, 100);
            let stored = handle.store(key_at(number).as_bytes(), &[&value], StoreMode::Insert);
            assert_eq!(stored.unwrap(), Stored::Done);
        }
        let mut judge = Locker::start(&path, hash_size, flags);
        let worker = || Locker::start_as("churn_worker", &path, hash_size, flags);
        let (mut random, mut kills) = (Random(9), 0);
        let end = Instant::now() + Duration::from_millis(1500);
        // On a machine so busy that hardly a process starts in that time: a few all the same.
        const KILLS_MIN: u32 = 6;
        let mut workers = [worker(), worker()];
        for worker in &mut workers {
            worker.send(&random.below(1 << 30).to_string());
        }
        while Instant::now() < end || kills < KILLS_MIN {
            std::thread::sleep(Duration::from_micros(random.below(20_000).into()));
            let victim = &mut workers[random.below(2) as usize];
            assert!(victim.try_wait().is_none(), "a worker has ended by itself");
            victim.kill();
            kills += 1;
            assert_eq!(judge.run("check"), "ok", "after {kills} kills");
            *victim = worker();
            victim.send(&random.below(1 << 30).to_string());
        }
        for worker in &mut workers {
            worker.kill();
        }
        assert_eq!(judge.run("check"), "ok");
        let whole = |key: &[u8], value: &[u8]| {
            let number = std::str::from_utf8(&key[3..]).unwrap().parse::<u8>().unwrap();
            assert!(value.len() >= 20 && value.iter().all(|byte| *byte == number), "torn");
            true
        };
        let visited = handle.for_each(whole).unwrap();
        println!("{kills} kills, {visited} of {CHURNED} keys there");
    }
}
