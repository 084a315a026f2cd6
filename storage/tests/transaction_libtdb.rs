//! The same transactions, done by libtdb and by us, leave the same bytes.
//!
//! Random operations, inside and outside of transactions that are committed, cancelled, prepared,
//! nested. Files are compared byte by byte after each; a failure prints its seed.
//! `RINGMASTER_SOAK=1` makes the run longer.

#[path = "support/libtdb.rs"]
mod libtdb;

use std::path::Path;

use libtdb::{Tdb, flag, mode};
use ringmaster_storage::backend::memory::MemoryStore;
use ringmaster_storage::chain::{StoreMode, Stored};
use ringmaster_storage::check;
use ringmaster_storage::engine::{Engine, Policy};
use ringmaster_storage::format::{HashKind, Header, Layout};
use ringmaster_storage::lock::NoLocks;
use ringmaster_storage::store::Store;
use ringmaster_storage::transaction::{Step, Transaction, TransactionError};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        u32::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

#[derive(Clone, Debug)]
enum Op {
    Store(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Append(Vec<u8>, Vec<u8>),
    Wipe,
}

fn op(random: &mut Random) -> Op {
    let key = format!("key{}", random.below(40)).into_bytes();
    let len = match random.below(20) {
        0 => 4_000 + random.below(20_000),
        1..=4 => random.below(2_000),
        _ => random.below(60),
    };
    let value = vec![b'a' + u8::try_from(random.below(26)).expect("a letter"); len as usize];
    match random.below(100) {
        0 => Op::Wipe,
        1..=25 => Op::Delete(key),
        26..=35 => Op::Append(key, value),
        _ => Op::Store(key, value),
    }
}

fn theirs(tdb: &Tdb, op: &Op) {
    // A missing key is no failure of the test: the bytes are what is compared.
    let _ = match op {
        Op::Store(key, value) => tdb.store(key, value, mode::REPLACE),
        Op::Delete(key) => tdb.delete(key),
        Op::Append(key, more) => tdb.append(key, more),
        Op::Wipe => tdb.wipe_all(),
    };
}

/// Our side, alone on its bytes.
struct Ours {
    store: MemoryStore,
    layout: Layout,
    policy: Policy,
}

impl Ours {
    fn create(hash_size: u32, hash: HashKind, policy: Policy) -> Self {
        let mut image = Header::new(hash_size, hash, 0).encode().to_vec();
        image.resize(172 + 4 * hash_size as usize, 0);
        let layout = Layout { hash_size, hash, page_size: 4096 };
        Self { store: MemoryStore::new(image), layout, policy }
    }

    fn apply<S: Store>(&self, store: &S, op: &Op) {
        let mut locks = NoLocks::default();
        let (layout, policy) = (self.layout, self.policy);
        let mut engine = Engine { store, locks: &mut locks, layout, policy };
        match op {
            Op::Store(key, value) => {
                let hash = layout.hash.hash(key);
                let stored = engine.store(key, hash, &[value], StoreMode::Replace);
                assert_eq!(stored.expect("memory"), Stored::Done);
            }
            Op::Delete(key) => {
                engine.delete(key, layout.hash.hash(key)).expect("memory");
            }
            Op::Append(key, more) => {
                let stored = engine.append(key, layout.hash.hash(key), more).expect("memory");
                assert_eq!(stored, Stored::Done);
            }
            Op::Wipe => engine.wipe().expect("memory"),
        }
    }

    fn start(&self) -> Transaction {
        Transaction::start(&self.store, self.layout).expect("memory")
    }

    /// Commits, and repacks afterwards where libtdb does. Returns how many repacks.
    fn commit(&self, mut transaction: Transaction) -> Result<u32, TransactionError> {
        let view = transaction.view(&self.store);
        let repack = transaction.has_expanded()
            && self.engine_on(&view, |engine| engine.repack_is_worthwhile().expect("memory"));
        assert_eq!(transaction.commit(&self.store)?, Step::Done);
        if repack {
            let transaction = self.start();
            let view = transaction.view(&self.store);
            self.engine_on(&view, |engine| engine.repack().expect("memory"));
            return Ok(1 + self.commit(transaction)?);
        }
        Ok(0)
    }

    fn engine_on<S: Store, T>(
        &self,
        store: &S,
        work: impl FnOnce(&mut Engine<'_, S, NoLocks>) -> T,
    ) -> T {
        let mut locks = NoLocks::default();
        let (layout, policy) = (self.layout, self.policy);
        work(&mut Engine { store, locks: &mut locks, layout, policy })
    }
}

/// One round: operations, in a transaction or not, on both sides.
fn round(tdb: &Tdb, ours: &Ours, random: &mut Random) -> &'static str {
    let ops: Vec<_> = (0..1 + random.below(30)).map(|_| op(random)).collect();
    let kind = random.below(10);
    if kind == 0 {
        for op in &ops {
            theirs(tdb, op);
            ours.apply(&ours.store, op);
        }
        return "plain operations";
    }
    tdb.transaction_start().expect("nobody else");
    let mut transaction = ours.start();
    let (outer, inner) = ops.split_at(ops.len() / 2);
    for op in outer {
        theirs(tdb, op);
        ours.apply(&transaction.view(&ours.store), op);
    }
    tdb.transaction_start().expect("nesting is allowed");
    transaction.nest().expect("not prepared");
    for op in inner {
        theirs(tdb, op);
        ours.apply(&transaction.view(&ours.store), op);
    }
    let cancel_inner = kind == 1;
    if cancel_inner {
        tdb.transaction_cancel().expect("open");
        assert!(transaction.cancel_inner());
    } else {
        tdb.transaction_commit().expect("open");
        assert!(transaction.commit_inner());
    }
    if cancel_inner || kind == 2 {
        if cancel_inner {
            // libtdb cancels by itself when the commit fails.
            assert!(tdb.transaction_commit().is_err());
            assert!(transaction.commit(&ours.store).is_err());
        } else {
            tdb.transaction_cancel().expect("open");
        }
        assert_eq!(transaction.cancel(&ours.store).expect("memory"), Step::Done);
        return "cancelled";
    }
    if kind <= 4 {
        tdb.transaction_prepare_commit().expect("open");
        assert_eq!(transaction.prepare(&ours.store).expect("memory"), Step::Done);
        if kind == 3 {
            tdb.transaction_cancel().expect("open");
            assert_eq!(transaction.cancel(&ours.store).expect("memory"), Step::Done);
            return "prepared, then cancelled";
        }
    }
    tdb.transaction_commit().expect("open");
    ours.commit(transaction).expect("memory");
    "committed"
}

fn first_difference(left: &[u8], right: &[u8]) -> String {
    let at = left.iter().zip(right).position(|(left, right)| left != right);
    format!("lengths {} and {}, first difference at {at:?}", left.len(), right.len())
}

fn compare(directory: &Path, hash_size: u32, flags: i32, seed: u64, rounds: u32) {
    let path = directory.join(format!("{seed}-{hash_size}-{flags}.tdb"));
    let chains = i32::try_from(hash_size).expect("small");
    let tdb = Tdb::create(&path, chains, flags | flag::NOSYNC).expect("a fresh file");
    let jenkins = flags & flag::INCOMPATIBLE_HASH != 0;
    let hash = if jenkins { HashKind::Jenkins } else { HashKind::Old };
    let policy = Policy {
        max_dead: if flags & flag::VOLATILE != 0 { 5 } else { 0 },
        seqnum: flags & flag::SEQNUM != 0,
        never_waits: false,
    };
    let ours = Ours::create(hash_size, hash, policy);
    let mut random = Random(seed);
    for number in 0..rounds {
        let what = round(&tdb, &ours, &mut random);
        let (left, right) = (ours.store.image(), std::fs::read(&path).expect("it exists"));
        assert!(
            left == right,
            "seed {seed}, HS {hash_size}, flags {flags}, round {number} ({what}): {}",
            first_difference(&left, &right)
        );
        let verdict = check::check(&ours.store, &ours.layout, |_, _| true);
        assert_eq!(
            verdict.is_ok(),
            tdb.check().is_ok(),
            "seed {seed}, round {number}: {verdict:?}"
        );
    }
}

#[test]
fn transactions_leave_the_bytes_that_libtdb_leaves() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().expect("a scratch directory");
    let seeds = if std::env::var_os("RINGMASTER_SOAK").is_some() { 400 } else { 6 };
    for seed in 0..seeds {
        for (hash_size, flags) in [
            (1, flag::DEFAULT),
            (3, flag::SEQNUM),
            (7, flag::INCOMPATIBLE_HASH | flag::VOLATILE),
            (131, flag::INCOMPATIBLE_HASH | flag::SEQNUM),
            (1009, flag::VOLATILE | flag::SEQNUM),
        ] {
            compare(directory.path(), hash_size, flags, seed, 40);
        }
    }
}

#[test]
fn scattered_space_is_repacked_after_a_commit_that_grew_the_file() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().expect("a scratch directory");
    let path = directory.path().join("scattered.tdb");
    for (flags, hash) in
        [(flag::DEFAULT, HashKind::Old), (flag::INCOMPATIBLE_HASH, HashKind::Jenkins)]
    {
        let tdb = Tdb::create(&path, 13, flags | flag::NOSYNC | flag::SEQNUM).expect("fresh");
        let ours = Ours::create(13, hash, Policy { seqnum: true, ..Policy::default() });
        let both = |store: &dyn Fn(&Op), op: Op| {
            theirs(&tdb, &op);
            store(&op);
        };
        let direct = |op: &Op| ours.apply(&ours.store, op);
        let key = |number: u32| format!("key{number}").into_bytes();
        for number in 0..3000 {
            both(&direct, Op::Store(key(number), vec![1; 20]));
        }
        for number in (0..3000).step_by(2) {
            both(&direct, Op::Delete(key(number)));
        }
        tdb.transaction_start().expect("nobody else");
        let transaction = ours.start();
        let view = transaction.view(&ours.store);
        let inside = |op: &Op| ours.apply(&view, op);
        for number in 0..500 {
            both(&inside, Op::Store(key(10_000 + number), vec![2; 200]));
        }
        tdb.transaction_commit().expect("open");
        let repacks = ours.commit(transaction).expect("memory");
        assert!(repacks > 0, "the test must make libtdb repack");
        let (left, right) = (ours.store.image(), std::fs::read(&path).expect("it exists"));
        assert!(left == right, "{}", first_difference(&left, &right));
        assert_eq!(ours.store.read_u32(48).expect("memory"), tdb.seqnum().cast_unsigned());
        drop(tdb);
        std::fs::remove_file(&path).expect("it exists");
    }
}
