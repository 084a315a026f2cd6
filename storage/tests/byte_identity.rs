//! The same operations, done by libtdb and by us, must leave the same bytes.
//!
//! Random sequences over several hash sizes, flags and record sizes; the files are compared byte by
//! byte after every batch, the answers after every operation. A failure prints its seed.
//! `RINGMASTER_SOAK_SECONDS` makes the run longer with fresh seeds; `RINGMASTER_SEED` and
//! `RINGMASTER_COMPARE_EACH=1` find the operation that made the difference.

#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/libtdb.rs"]
mod libtdb;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtdb::{Tdb, flag, mode};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::flags::Flags;
use ringmaster_storage::format::{HashKind, Header};
use ringmaster_storage::handle::Handle;
use ringmaster_storage::open::{OpenOptions, open};

/// Seeds of the short run: each gives one database per configuration.
const SEEDS: u64 = 3;
const BATCHES: usize = 16;
const BATCH: usize = 250;

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }

    fn key(&mut self, keys: u64) -> Vec<u8> {
        let number = self.below(keys);
        match number % 17 {
            0 => Vec::new(),
            1 => vec![b'k'; usize::try_from(number % 200).unwrap()],
            _ => format!("key-{number:0width$}", width = (number % 23) as usize).into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.below(100) {
            0 => 30_000 + self.below(60_000),
            1..=5 => self.below(5_000),
            6..=40 => 20 + self.below(200),
            41..=45 => 0,
            _ => self.below(40),
        };
        self.bytes(len)
    }
}

#[derive(Clone, Copy, Debug)]
struct Config {
    hash_size: u32,
    flags: i32,
    keys: u64,
}

/// A replicated database of ctdbd.
const CTDB_FLAGS: i32 = flag::CLEAR_IF_FIRST | flag::INCOMPATIBLE_HASH | flag::DISALLOW_NESTING;

const CONFIGS: [Config; 8] = [
    Config { hash_size: 1, flags: 0, keys: 60 },
    Config { hash_size: 3, flags: flag::SEQNUM, keys: 300 },
    Config { hash_size: 7, flags: flag::VOLATILE | flag::INCOMPATIBLE_HASH, keys: 150 },
    Config { hash_size: 2, flags: flag::VOLATILE | flag::SEQNUM, keys: 90 },
    Config { hash_size: 131, flags: flag::INCOMPATIBLE_HASH | flag::SEQNUM, keys: 900 },
    Config { hash_size: 1009, flags: flag::VOLATILE, keys: 3000 },
    Config { hash_size: 5, flags: CTDB_FLAGS, keys: 200 },
    Config { hash_size: 5, flags: CTDB_FLAGS | flag::MUTEX_LOCKING, keys: 200 },
];

/// Our side.
struct Ours(Handle);

impl Ours {
    fn create(path: &Path, config: Config) -> Self {
        let flags = Flags::from_bits(config.flags.cast_unsigned()) | Flags::NOSYNC;
        Self(open(path, &OpenOptions::create(config.hash_size, flags)).unwrap())
    }

    fn store(&mut self, key: &[u8], value: &[u8], mode: StoreMode) -> bool {
        // Two parts, as the daemon stores header and data.
        let (head, tail) = value.split_at(value.len().min(24));
        self.0.store(key, &[head, tail], mode).unwrap() == Stored::Done
    }

    fn fetch(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        self.0.fetch(key, &mut value).unwrap().then_some(value)
    }

    /// Visits records in order; deletes those the visitor wants deleted.
    fn traverse(&mut self, mut visit: impl FnMut(&[u8], &[u8]) -> bool) {
        let visited = self.0.for_each_mut(|handle, key, value| {
            if visit(key, value) {
                assert!(handle.delete(key)?);
            }
            Ok(true)
        });
        visited.unwrap();
    }
}

/// One operation on both sides.
fn operate(random: &mut Random, config: Config, theirs: &Tdb, ours: &mut Ours) -> String {
    let key = random.key(config.keys);
    match random.below(1000) {
        0..450 => {
            let value = random.value();
            theirs.store(&key, &value, mode::REPLACE).unwrap();
            assert!(ours.store(&key, &value, StoreMode::Replace));
            format!("store {} bytes", value.len())
        }
        450..520 => {
            let value = random.value();
            let stored = theirs.store(&key, &value, mode::INSERT).is_ok();
            assert_eq!(ours.store(&key, &value, StoreMode::Insert), stored);
            format!("insert {} bytes: {stored}", value.len())
        }
        520..580 => {
            let value = random.value();
            let stored = theirs.store(&key, &value, mode::MODIFY).is_ok();
            assert_eq!(ours.store(&key, &value, StoreMode::Modify), stored);
            format!("modify {} bytes: {stored}", value.len())
        }
        580..600 => {
            // Storing what is there writes nothing.
            let value = theirs.fetch(&key).unwrap_or_default();
            theirs.store(&key, &value, mode::REPLACE).unwrap();
            assert!(ours.store(&key, &value, StoreMode::Replace));
            "store again".to_owned()
        }
        600..680 => {
            let len = random.below(60);
            let more = random.bytes(len);
            theirs.append(&key, &more).unwrap();
            assert_eq!(ours.0.append(&key, &more).unwrap(), Stored::Done);
            format!("append {len} bytes")
        }
        680..900 => {
            let deleted = theirs.delete(&key).is_ok();
            assert_eq!(ours.0.delete(&key).unwrap(), deleted);
            format!("delete: {deleted}")
        }
        900..994 => {
            assert_eq!(ours.fetch(&key), theirs.fetch(&key));
            "fetch".to_owned()
        }
        994..998 => {
            let salt = u32::try_from(random.below(1 << 31)).unwrap();
            let chosen = |key: &[u8]| HashKind::Old.hash(key).wrapping_add(salt).is_multiple_of(5);
            let mut seen = Vec::new();
            theirs
                .traverse(|key, value| {
                    seen.push((key.to_vec(), value.to_vec()));
                    if chosen(key) {
                        theirs.delete(key).unwrap();
                    }
                    true
                })
                .unwrap();
            let mut expected = seen.iter();
            ours.traverse(|key, value| {
                let (their_key, their_value) = expected.next().expect("as many records");
                assert!(key == their_key && value == their_value, "traverse order");
                chosen(key)
            });
            assert!(expected.next().is_none(), "as many records");
            "traverse".to_owned()
        }
        _ if random.below(20) == 0 => {
            theirs.wipe_all().unwrap();
            ours.0.wipe().unwrap();
            "wipe".to_owned()
        }
        _ => "nothing".to_owned(),
    }
}

fn compare(theirs: &Path, ours: &Path, context: &str) {
    let (mut a, mut b) = (std::fs::read(theirs).unwrap(), std::fs::read(ours).unwrap());
    // Mutexes hold thread ids and addresses.
    let start = Header::parse(a.first_chunk().unwrap()).unwrap().mutex_size as usize;
    for bytes in [&mut a, &mut b] {
        bytes[168..start.max(168)].fill(0);
    }
    if a != b {
        let at = a.iter().zip(&b).position(|(a, b)| a != b);
        panic!("files differ: {} and {} bytes, at {at:?}; {context}", a.len(), b.len());
    }
}

fn run(config: Config, seed: u64, directory: &Path) {
    let paths: [PathBuf; 2] = ["theirs", "ours"].map(|name| directory.join(format!("{name}.tdb")));
    for path in &paths {
        let _ = std::fs::remove_file(path);
    }
    let hash_size = i32::try_from(config.hash_size).unwrap();
    let theirs = Tdb::create(&paths[0], hash_size, config.flags | flag::NOSYNC).unwrap();
    let mut ours = Ours::create(&paths[1], config);
    if seed.is_multiple_of(2) {
        // Uncontended, a handle that never waits does the same.
        ours.0.never_wait();
    }
    let mut random = Random::new(seed);
    let mut last = String::new();
    for batch in 0..BATCHES {
        let context = format!("{config:?} seed {seed} batch {batch}, {last}");
        compare(&paths[0], &paths[1], &context);
        for _ in 0..BATCH {
            last = operate(&mut random, config, &theirs, &mut ours);
            if std::env::var_os("RINGMASTER_COMPARE_EACH").is_some() {
                compare(&paths[0], &paths[1], &format!("{context}, then {last}"));
            }
        }
    }
    let summary = ours.0.summary().unwrap();
    assert_eq!(Some(summary.to_string()), theirs.summary());
    theirs.check().unwrap();
    merging_keeps_the_file_sound(&theirs, ours, &paths[1]);
}

/// Stepwise merging is ours alone: libtdb must still accept the file and read the same records.
fn merging_keeps_the_file_sound(theirs: &Tdb, mut ours: Ours, path: &Path) {
    let before = ours.0.freelist_len().unwrap();
    let mut next = Some(0);
    let mut merged = 0;
    while let Some(from) = next {
        let step = ours.0.try_merge_free_blocks(from, 7).unwrap().expect("nobody else is here");
        merged += step.merged;
        next = step.next;
    }
    assert_eq!(ours.0.freelist_len().unwrap(), before - merged);
    let flags = ours.0.flags().without(Flags::CLEAR_IF_FIRST).bits().cast_signed();
    drop(ours);
    let again = Tdb::open(path, 0, flags, libc::O_RDWR).unwrap();
    again.check().unwrap();
    assert_eq!(again.validate_freelist().unwrap(), i32::try_from(before - merged).unwrap());
    assert_eq!(again.records().unwrap(), theirs.records().unwrap());
}

#[test]
fn same_operations_leave_the_same_bytes() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let again = std::env::var("RINGMASTER_SEED").ok().and_then(|text| text.parse().ok());
    if let Some(seed) = again {
        for config in CONFIGS {
            run(config, seed, directory.path());
        }
        return;
    }
    for seed in 1..=SEEDS {
        for config in CONFIGS {
            run(config, seed, directory.path());
        }
    }
    let soak = std::env::var("RINGMASTER_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(soak.unwrap_or(0));
    let mut seed = u64::from(std::process::id()) << 20;
    while Instant::now() < end {
        for config in CONFIGS {
            run(config, seed, directory.path());
        }
        seed += 1;
    }
}
