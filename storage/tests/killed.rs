//! A process killed at any instruction of a store, delete or wipe harms no other record.
//!
//! Every prefix of an operation's writes, whole and torn between words, is a file that a killed
//! process may leave behind. In each: all lists end, no byte belongs to two blocks, every record
//! but the one being changed has its value; and going on from there keeps it so.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

use std::collections::BTreeMap;

use ringmaster_storage::backend::memory::{Event, MemoryStore};
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::engine::{Engine, Policy};
use ringmaster_storage::format::{
    FREELIST_TOP, HashKind, Header, Layout, RecordHeader, create_image,
};
use ringmaster_storage::lock::NoLocks;
use ringmaster_storage::store::Store;

const LAYOUT: Layout = Layout { hash_size: 2, hash: HashKind::Jenkins, page_size: 256 };
const OPERATIONS: u32 = 500;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        u32::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[derive(Clone, Debug)]
enum Op {
    Store(Vec<u8>, Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Merge,
}

impl Op {
    fn random(random: &mut Random) -> Self {
        let key = format!("key{}", random.below(24)).into_bytes();
        let len = if random.below(12) == 0 { random.below(3000) } else { random.below(90) };
        let value = vec![u8::try_from(random.below(255)).unwrap(); len as usize];
        match random.below(20) {
            0..10 => Self::Store(key, value),
            10..13 => Self::Append(key, value),
            13..19 => Self::Delete(key),
            _ => Self::Merge,
        }
    }

    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Store(key, _) | Self::Append(key, _) | Self::Delete(key) => Some(key),
            Self::Merge => None,
        }
    }

    fn run(&self, store: &MemoryStore, policy: Policy) {
        let mut locks = NoLocks::default();
        let mut engine = Engine { store, locks: &mut locks, layout: LAYOUT, policy };
        let hash = |key: &[u8]| LAYOUT.hash.hash(key);
        let stored = match self {
            Self::Store(key, value) => {
                engine.store(key, hash(key), &[value], StoreMode::Replace).unwrap()
            }
            Self::Append(key, more) => engine.append(key, hash(key), more).unwrap(),
            Self::Delete(key) => {
                engine.delete(key, hash(key)).unwrap();
                Stored::Done
            }
            Self::Merge => {
                engine.merge_free_blocks(0, 100).unwrap();
                Stored::Done
            }
        };
        assert_eq!(stored, Stored::Done);
    }

    fn apply(&self, model: &mut Model) {
        match self {
            Self::Store(key, value) => drop(model.insert(key.clone(), value.clone())),
            Self::Append(key, more) => model.entry(key.clone()).or_default().extend(more),
            Self::Delete(key) => drop(model.remove(key)),
            Self::Merge => {}
        }
    }
}

/// All blocks on one list, as (start, end).
fn list(store: &MemoryStore, head: u32, blocks: &mut Vec<(u32, u32)>) {
    let mut offset = store.read_u32(head).unwrap();
    let mut steps = 0;
    while offset != 0 {
        let header = RecordHeader::from_words(store.read_words(offset).unwrap());
        blocks.push((offset, header.end(offset).unwrap()));
        offset = header.next;
        steps += 1;
        assert!(steps < 10_000, "a list runs in a circle");
    }
}

/// Fails unless lists and blocks are sound and all records but `changing` are those of the model.
fn check(store: &MemoryStore, model: &Model, changing: Option<&[u8]>, context: &str) {
    let mut blocks = Vec::new();
    for head in [FREELIST_TOP, LAYOUT.head_of(0), LAYOUT.head_of(1)] {
        list(store, head, &mut blocks);
    }
    blocks.sort_unstable();
    for pair in blocks.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{context}: {pair:?} overlap");
    }
    assert!(blocks.last().is_none_or(|last| last.1 <= store.known_len()), "{context}");
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut found = Model::new();
    let mut locks = NoLocks::default();
    let policy = Policy::default();
    let engine = Engine { store, locks: &mut locks, layout: LAYOUT, policy };
    for chain in 0..LAYOUT.hash_size {
        let visited = engine.visit_chain(chain, &mut key, &mut value, |key, value| {
            assert!(found.insert(key.to_vec(), value.to_vec()).is_none(), "{context}: twice");
            true
        });
        visited.unwrap();
    }
    let mut expected = model.clone();
    if let Some(key) = changing {
        found.remove(key);
        expected.remove(key);
    }
    assert_eq!(found, expected, "{context}");
}

/// Goes on working with the file as the killed process left it.
fn go_on(image: Vec<u8>, model: &Model, op: &Op, policy: Policy, seed: u64, context: &str) {
    let store = MemoryStore::new(image);
    check(&store, model, op.key(), context);
    let mut random = Random(seed);
    let mut model = model.clone();
    // What the record being changed holds now is anybody's guess: settle it first.
    if let Some(key) = op.key() {
        Op::Delete(key.to_vec()).run(&store, policy);
        model.remove(key);
    }
    for _ in 0..6 {
        let next = Op::random(&mut random);
        next.run(&store, policy);
        next.apply(&mut model);
    }
    check(&store, &model, None, &format!("{context}, and going on"));
    assert!(store.known_len() < 10_000_000, "{context}: the file grows without end");
}

fn kill_everywhere(policy: Policy, seed: u64) {
    let image = create_image(&Header::new(LAYOUT.hash_size, LAYOUT.hash, 0)).unwrap();
    let store = MemoryStore::new(image);
    let mut random = Random(seed);
    let mut model = Model::new();
    for number in 0..OPERATIONS {
        let op = Op::random(&mut random);
        store.start_log();
        op.run(&store, policy);
        let log = store.log().unwrap();
        for count in 0..log.events().len() {
            let context = format!("seed {seed}, operation {number} {op:?}, killed at {count}");
            let again = u64::from(random.below(1 << 30));
            go_on(log.after(count), &model, &op, policy, again, &context);
            if let Event::Write { data, .. } = &log.events()[count]
                && data.len() > 4
            {
                // The mapping is written in words.
                let words = u32::try_from(data.len() / 4).unwrap();
                let torn = 4 * (1 + random.below(words)) as usize;
                let context = format!("{context}, {torn} bytes into it");
                go_on(log.after_torn(count, torn), &model, &op, policy, again, &context);
            }
        }
        op.apply(&mut model);
        check(&store, &model, None, &format!("seed {seed}, operation {number} {op:?}"));
    }
}

#[test]
fn a_killed_process_harms_only_the_record_it_was_changing() {
    for max_dead in [0, 5] {
        for seed in 1..4 {
            kill_everywhere(Policy { max_dead, seqnum: seed == 2, never_waits: false }, seed);
        }
    }
}

#[test]
fn new_space_swallowed_by_a_block_on_no_list_is_found_again() {
    let image = create_image(&Header::new(LAYOUT.hash_size, LAYOUT.hash, 0)).unwrap();
    let store = MemoryStore::new(image);
    let policy = Policy::default();
    let mut model = Model::new();
    let first = Op::Store(b"first".to_vec(), vec![1; 10]);
    first.run(&store, policy);
    first.apply(&mut model);
    // As libtdb may leave it when it is killed: the last block of the file FREE and not listed.
    let last = Op::Store(b"last".to_vec(), vec![2; 10]);
    last.run(&store, policy);
    let mut blocks = Vec::new();
    list(&store, LAYOUT.head_of(0), &mut blocks);
    list(&store, LAYOUT.head_of(1), &mut blocks);
    blocks.sort_unstable();
    let (offset, end) = *blocks.last().unwrap();
    assert_eq!(end, store.known_len());
    last.apply(&mut model);
    let is_first = store.matches(offset + 24, b"first").unwrap();
    let key = if is_first { b"first".to_vec() } else { b"last".to_vec() };
    Op::Delete(key.clone()).run(&store, policy);
    model.remove(&key);
    store.write_u32(FREELIST_TOP, 0).unwrap();
    let large = Op::Store(b"large".to_vec(), vec![3; 5000]);
    large.run(&store, policy);
    large.apply(&mut model);
    check(&store, &model, None, "after the growth");
    assert!(store.known_len() < 2_000_000);
}
