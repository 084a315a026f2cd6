//! Several threads of ours and two processes of libtdb change one file as fast as they can.
//!
//! Each actor knows what its own keys hold; all append to one shared record. Few chains, so that
//! everybody meets everybody; values of all sizes, so that the file grows and blocks merge.
//! `RINGMASTER_SOAK_SECONDS` makes the run longer with fresh seeds.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/libtdb.rs"]
mod libtdb;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtdb::Locker;
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::{Database, Handle};
use ringmaster_storage::lock::LockKind;
use ringmaster_storage::ltdb::DatabaseKind;
use ringmaster_storage::open::{OpenOptions, open};

const OPERATIONS: u32 = 1500;
const HASH_SIZE: u32 = 3;
const SHARED: &str = "shared";

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        u32::try_from(self.0 >> 33).unwrap() % bound
    }

    fn value(&mut self) -> String {
        let len = match self.below(20) {
            0 => 2_000 + self.below(6_000),
            1..6 => self.below(800),
            _ => 1 + self.below(60),
        };
        let letter = char::from(b'a' + u8::try_from(self.below(26)).unwrap());
        letter.to_string().repeat(len as usize)
    }
}

/// What one side can do; the same for both libraries.
trait Side {
    fn store(&mut self, key: &str, value: &str);
    fn append(&mut self, key: &str, more: &str);
    fn delete(&mut self, key: &str) -> bool;
    fn fetch(&mut self, key: &str) -> Option<String>;
    fn walk(&mut self);
}

impl Side for Handle {
    fn store(&mut self, key: &str, value: &str) {
        // Sometimes as the daemon does: on a guard, in two parts.
        let chain = self.database().chain_of(key.as_bytes());
        let mut locked = self.lock_chain(chain, LockKind::Write).unwrap();
        let (head, tail) = value.as_bytes().split_at(value.len() / 2);
        let stored = locked.store(key.as_bytes(), &[head, tail], StoreMode::Replace).unwrap();
        assert_eq!(stored, Stored::Done);
        locked.unlock().unwrap();
    }

    fn append(&mut self, key: &str, more: &str) {
        let stored = Handle::append(self, key.as_bytes(), more.as_bytes()).unwrap();
        assert_eq!(stored, Stored::Done);
    }

    fn delete(&mut self, key: &str) -> bool {
        Handle::delete(self, key.as_bytes()).unwrap()
    }

    fn fetch(&mut self, key: &str) -> Option<String> {
        let mut value = Vec::new();
        let found = Handle::fetch(self, key.as_bytes(), &mut value).unwrap();
        found.then(|| String::from_utf8(value).unwrap())
    }

    fn walk(&mut self) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for chain in 0..HASH_SIZE {
            let mut locked = self.lock_chain(chain, LockKind::Read).unwrap();
            locked.for_each(&mut key, &mut value, whole_record).unwrap();
        }
        self.for_each(whole_record).unwrap();
        let mut from = Some(0);
        while let Some(at) = from {
            match self.try_merge_free_blocks(at, 16).unwrap() {
                Some(step) => from = step.next,
                None => break,
            }
        }
    }
}

/// Torn reads would show as a value of two letters.
fn whole_record(key: &[u8], value: &[u8]) -> bool {
    if key != SHARED.as_bytes() {
        assert!(value.iter().all(|byte| *byte == value[0]), "a torn value");
    }
    true
}

impl Side for Locker {
    fn store(&mut self, key: &str, value: &str) {
        self.must(&format!("store {key} {value}"));
    }

    fn append(&mut self, key: &str, more: &str) {
        self.must(&format!("append {key} {more}"));
    }

    fn delete(&mut self, key: &str) -> bool {
        let reply = self.run(&format!("delete {key}"));
        assert!(reply == "ok" || reply == "error 8", "{reply}");
        reply == "ok"
    }

    fn fetch(&mut self, key: &str) -> Option<String> {
        let reply = self.run(&format!("fetch {key}"));
        (!reply.starts_with("error")).then_some(reply)
    }

    fn walk(&mut self) {
        self.must("check");
    }
}

/// Returns what the actor's keys hold in the end.
fn act(side: &mut impl Side, name: char, seed: u64) -> BTreeMap<String, String> {
    let mut random = Random(seed);
    let mut model = BTreeMap::new();
    for number in 0..OPERATIONS {
        let key = format!("{name}{}", random.below(25));
        match random.below(100) {
            0..40 => {
                let value = random.value();
                side.store(&key, &value);
                model.insert(key, value);
            }
            40..60 => assert_eq!(side.delete(&key), model.remove(&key).is_some()),
            60..75 => side.append(SHARED, &format!("{name}{number};")),
            75..99 => assert_eq!(side.fetch(&key).as_ref(), model.get(&key)),
            _ => side.walk(),
        }
    }
    model
}

fn run(path: &Path, flags: Flags, seed: u64) {
    let mut first = open(path, &OpenOptions::create(HASH_SIZE, flags)).unwrap();
    let database = Arc::clone(first.database());
    let bits = flags.bits().cast_signed();
    let hash_size = i32::try_from(HASH_SIZE).unwrap();
    let models: Vec<_> = std::thread::scope(|scope| {
        let ours = |name: char, max_dead: u32| {
            let database: Arc<Database> = Arc::clone(&database);
            scope.spawn(move || {
                let mut handle = database.handle().unwrap();
                handle.set_max_dead(max_dead);
                act(&mut handle, name, seed + u64::from(u32::from(name)))
            })
        };
        let theirs = |name: char| {
            scope.spawn(move || {
                let mut locker = Locker::start(path, hash_size, bits);
                act(&mut locker, name, seed + u64::from(u32::from(name)))
            })
        };
        let actors = [ours('a', 0), ours('b', 5), theirs('c'), theirs('d')];
        actors.into_iter().map(|actor| actor.join().unwrap()).collect()
    });
    for (key, value) in models.iter().flatten() {
        assert_eq!(Side::fetch(&mut first, key).as_ref(), Some(value), "seed {seed}, key {key}");
    }
    let shared = Side::fetch(&mut first, SHARED).unwrap();
    let mut tokens: Vec<&str> = shared.split_terminator(';').collect();
    let count = tokens.len();
    for name in ['a', 'b', 'c', 'd'] {
        let own: Vec<u32> = tokens
            .iter()
            .filter_map(|token| token.strip_prefix(name))
            .map(|number| number.parse().unwrap())
            .collect();
        assert!(own.is_sorted(), "seed {seed}: appends of {name} out of order");
        // The actor's own dice say how many there must be.
        assert_eq!(own, appends(name, seed), "seed {seed}: appends of {name}");
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), count, "seed {seed}: an append came twice");
    let live = models.iter().map(|model| u32::try_from(model.len()).unwrap()).sum::<u32>() + 1;
    assert_eq!(first.check(|_, _| true).unwrap().live, live, "seed {seed}");
}

/// Numbers of the operations that [`act`] makes appends of.
fn appends(name: char, seed: u64) -> Vec<u32> {
    struct Nothing(BTreeMap<String, String>, Vec<u32>);
    impl Side for Nothing {
        fn store(&mut self, key: &str, value: &str) {
            self.0.insert(key.to_owned(), value.to_owned());
        }
        fn append(&mut self, _: &str, more: &str) {
            self.1.push(more[1..more.len() - 1].parse().unwrap());
        }
        fn delete(&mut self, key: &str) -> bool {
            self.0.remove(key).is_some()
        }
        fn fetch(&mut self, key: &str) -> Option<String> {
            self.0.get(key).cloned()
        }
        fn walk(&mut self) {}
    }
    let mut nothing = Nothing(BTreeMap::new(), Vec::new());
    act(&mut nothing, name, seed + u64::from(u32::from(name)));
    nothing.1
}

#[test]
fn libtdb_locker_process() {
    libtdb::serve_if_locker();
}

#[test]
fn threads_of_ours_and_processes_of_libtdb_lose_nothing_in_one_file() {
    if !libtdb::available() {
        return;
    }
    let soak = std::env::var("RINGMASTER_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(soak.unwrap_or(0));
    let directory = tempfile::tempdir().unwrap();
    let mut seed = u64::from(std::process::id());
    loop {
        for flags in
            [DatabaseKind::Volatile.tdb_flags(true), DatabaseKind::Replicated.tdb_flags(true)]
        {
            let path = directory.path().join(format!("{seed}-{:x}.tdb", flags.bits()));
            run(&path, flags, seed << 20);
            std::fs::remove_file(&path).unwrap();
        }
        seed += 1;
        if Instant::now() >= end {
            break;
        }
    }
}
