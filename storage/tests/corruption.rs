//! Damaged files: an error or the right answer, never a panic, a hang, or memory without bound.
//!
//! Random bytes of small databases are flipped; then everything a handle can do is done to the
//! result. 5,000 files in the short run, 1,000,000 with `RINGMASTER_SOAK=1`. A failure prints the
//! number of its round, which is its seed.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/samples.rs"]
mod samples;

use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringmaster_storage::backend::memory::MemoryStore;
use ringmaster_storage::chain::StoreMode;
use ringmaster_storage::engine::{Engine, Policy};
use ringmaster_storage::format::{ByteOrder, Header, Layout};
use ringmaster_storage::lock::{LockKind, NoLocks};
use ringmaster_storage::recovery::{Recovery, needs_recovery};
use ringmaster_storage::store::{Store, StoreError, SyncPoint};
use ringmaster_storage::transaction::{Step, Transaction};
use ringmaster_storage::traverse::Cursor;
use ringmaster_storage::{check, repair, rescue};

/// Bytes in use, and the most there ever were.
static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on unchanged to the system allocator, whose contract is the same;
// the counters touch no memory of the blocks.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        let now = IN_USE.fetch_add(block.size(), Ordering::Relaxed) + block.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises about `block` are those `System` asks for.
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, block: Block) {
        IN_USE.fetch_sub(block.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `alloc` above with the same `block`, hence from `System`.
        unsafe { System.dealloc(pointer, block) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Accesses one file may cost before we call it a hang: a small multiple of what the largest sample
/// needs whole.
const ACCESSES_MAX: u64 = 3_000_000;
/// Memory one file may cost: the largest growth that a 60 kB file and a transaction on it can ask
/// for, several times over.
const MEMORY_MAX: usize = 96 << 20;

/// A store that counts, so that an endless walk ends in a panic with its round.
struct Watched {
    store: MemoryStore,
    accesses: Cell<u64>,
}

impl Watched {
    fn count(&self) {
        self.accesses.set(self.accesses.get() + 1);
        assert!(self.accesses.get() < ACCESSES_MAX, "a walk that does not end");
    }
}

impl Store for Watched {
    fn known_len(&self) -> u32 {
        self.store.known_len()
    }
    fn refresh_len(&self) -> Result<u32, StoreError> {
        self.store.refresh_len()
    }
    fn read(&self, offset: u32, buf: &mut [u8]) -> Result<(), StoreError> {
        self.count();
        self.store.read(offset, buf)
    }
    fn write(&self, offset: u32, data: &[u8]) -> Result<(), StoreError> {
        self.count();
        self.store.write(offset, data)
    }
    fn grow(&self, old_len: u32, added: u32) -> Result<(), StoreError> {
        // What a file system of the test's size would say.
        if added > 16 << 20 {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            let wanted = u64::from(old_len) + u64::from(added);
            return Err(StoreError::Grow { wanted, source });
        }
        self.store.grow(old_len, added)
    }
    fn sync_point(&self, offset: u32, len: u32) -> Option<SyncPoint> {
        self.store.sync_point(offset, len)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) as usize % bound
    }
}

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// An undamaged file and what is in it.
struct Specimen {
    name: String,
    image: Vec<u8>,
    records: Records,
    /// Bytes whose damage nothing can notice: keys, values and their lengths, undo logs.
    unprotected: Vec<std::ops::Range<usize>>,
}

fn layout_of(image: &[u8]) -> Option<Layout> {
    let header = Header::parse(image.first_chunk()?).ok()?;
    if header.order != ByteOrder::Native || header.mutex_size != 0 {
        return None;
    }
    let layout = Layout { hash_size: header.hash_size, hash: header.hash_kind()?, page_size: 4096 };
    // Judged before it is used as a bound, as at open.
    let heads_end = u64::from(header.hash_size) * 4 + 172;
    (heads_end <= image.len() as u64).then_some(layout)
}

fn specimens() -> Vec<Specimen> {
    let mut specimens = Vec::new();
    for sample in samples::expected() {
        let image = samples::load(&sample.name);
        if image.len() > 60_000 || layout_of(&image).is_none() {
            continue;
        }
        let layout = layout_of(&image).unwrap();
        let mut unprotected = Vec::new();
        // Nothing covers an undo log either.
        if needs_recovery(&MemoryStore::new(image.clone())).unwrap() {
            unprotected.push(0..image.len());
        }
        let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
        let mut offset = layout.data_start() as usize;
        while offset + 24 <= image.len() {
            if word(offset + 20) == 0x2601_1999 {
                unprotected.push(offset + 12..offset + 16);
                unprotected.push(offset + 24..offset + 24 + word(offset + 8) + word(offset + 12));
            }
            offset += 24 + word(offset + 4);
        }
        let records = sample.records.unwrap_or_default().into_iter().collect();
        specimens.push(Specimen { name: sample.name, image, records, unprotected });
    }
    assert!(specimens.len() > 25, "{}", specimens.len());
    specimens
}

fn damage(specimen: &Specimen, random: &mut Random) -> (Vec<u8>, bool) {
    let mut image = specimen.image.clone();
    let mut protected = true;
    for _ in 0..=random.below(4) {
        // The interesting bytes lie at both ends; the middle of most samples is free space.
        let offset = match random.below(8) {
            0 | 1 => random.below(200.min(image.len())),
            2..=5 => image.len() - 1 - random.below(400.min(image.len())),
            _ => random.below(image.len()),
        };
        match random.below(4) {
            0 => image[offset] = u8::try_from(random.below(256)).unwrap(),
            1 => image[offset] = 0xFF,
            _ => image[offset] ^= 1 << random.below(8),
        }
        protected &= !specimen.unprotected.iter().any(|range| range.contains(&offset));
    }
    if random.below(20) == 0 {
        let keep = random.below(image.len());
        image.truncate(keep);
    }
    (image, protected)
}

/// Everything a handle can do. Errors are fine; what must not happen is watched from outside.
fn exercise(specimen: &Specimen, image: Vec<u8>, protected: bool) -> bool {
    let Some(layout) = layout_of(&image) else { return false };
    let store = Watched { store: MemoryStore::new(image), accesses: Cell::new(0) };
    if let Ok(Some(mut recovery)) = Recovery::begin(&store) {
        while let Ok(Step::Sync(_)) = recovery.step(&store) {}
    }
    let whole = check::check(&store, &layout, |_, _| true).is_ok();
    let mut value = Vec::new();
    if whole {
        let mut locks = NoLocks::default();
        let engine = Engine { store: &store, locks: &mut locks, layout, policy: Policy::default() };
        for (key, expected) in &specimen.records {
            let found = engine.fetch_into(key, layout.hash.hash(key), &mut value);
            assert!(!protected || found.unwrap() && value == *expected, "a wrong answer");
        }
    }
    let mut locks = NoLocks::default();
    let policy = Policy { max_dead: 5, seqnum: true, never_waits: false };
    work(&mut Engine { store: &store, locks: &mut locks, layout, policy }, specimen);
    let _ = rescue::rescue(&store, &layout, |_, _| true);
    let _ = repair::repair(&store, &layout);
    let mut transaction = Transaction::start(&store, layout).unwrap();
    {
        let view = transaction.view(&store);
        let mut locks = NoLocks::default();
        let policy = Policy::default();
        work(&mut Engine { store: &view, locks: &mut locks, layout, policy }, specimen);
    }
    if transaction.commit(&store).is_err() {
        let _ = transaction.cancel(&store);
    }
    whole
}

fn work<S: Store>(engine: &mut Engine<'_, S, NoLocks>, specimen: &Specimen) {
    let hash = |key: &[u8]| engine_hash(&engine.layout, key);
    let hashes: Vec<_> = specimen.records.keys().map(|key| hash(key)).collect();
    let (new, new_hash) = (b"a new key".as_slice(), hash(b"a new key"));
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::new();
    while let Ok(true) = engine.traverse_next(&mut cursor, LockKind::Read, &mut key, &mut value) {}
    let _ = engine.end_traverse(&mut cursor);
    for (key, hash) in specimen.records.keys().zip(hashes) {
        let _ = engine.fetch_into(key, hash, &mut value);
        let _ = engine.store(key, hash, &[b"shorter or longer than it was"], StoreMode::Replace);
        let _ = engine.append(key, hash, b"more");
        let _ = engine.delete(key, hash);
    }
    let _ = engine.store(new, new_hash, &[&[7; 3000]], StoreMode::Insert);
    let _ = engine.freelist_len();
    let _ = engine.merge_free_blocks(0, 100);
    let _ = engine.summary(0);
    let _ = engine.repack_is_worthwhile();
    let _ = engine.repack();
    let _ = engine.wipe();
}

fn engine_hash(layout: &Layout, key: &[u8]) -> u32 {
    layout.hash.hash(key)
}

#[test]
fn damaged_files_give_an_error_or_the_right_answer_and_never_harm_the_process() {
    let specimens = specimens();
    let rounds = if std::env::var_os("RINGMASTER_SOAK").is_some() { 1_000_000 } else { 5_000 };
    let (mut whole, mut broken) = (0, 0);
    for round in 0..rounds {
        let mut random = Random(round);
        random.below(2);
        let specimen = &specimens[random.below(specimens.len())];
        let (image, protected) = damage(specimen, &mut random);
        let before = IN_USE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let outcome = std::panic::catch_unwind(|| exercise(specimen, image, protected));
        let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
        let name = &specimen.name;
        match outcome {
            Ok(true) => whole += 1,
            Ok(false) => broken += 1,
            Err(_) => panic!("round {round}, {name}: panicked, see above"),
        }
        assert!(peak < MEMORY_MAX, "round {round}, {name}: {peak} bytes of memory");
    }
    assert!(whole > rounds / 20 && broken > rounds / 5, "{whole} whole, {broken} broken");
}
