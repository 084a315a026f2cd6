//! Transactions as raw blocks: every crash image, every failing write, every rule of nesting.
//! What libtdb leaves after the same operations: `storage/tests/transaction_libtdb.rs`.

use super::*;
use crate::backend::memory::{CrashLog, Event, MemoryStore};
use crate::format::{HashKind, Header, RECOVERY_HEAD};
use crate::recovery::{Area, needs_recovery};

const PAGE: u32 = 256;
const LAYOUT: Layout = Layout { hash_size: 3, hash: HashKind::Old, page_size: PAGE };
/// Where the tests write: behind the header and heads.
const DATA: u32 = 184;
const LEN: u32 = 4 * PAGE;

/// A small generator, so that a failing case can be named by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let mixed = (self.0 >> 33) as u32;
        mixed % bound.max(1)
    }

    fn index(&mut self, bound: usize) -> usize {
        self.below(u32::try_from(bound).expect("small")) as usize
    }
}

fn empty_file() -> MemoryStore {
    let mut image = Header::new(3, HashKind::Old, 0).encode().to_vec();
    image.resize(LEN as usize, 0x11);
    image[168..DATA as usize].fill(0);
    MemoryStore::new(image)
}

/// Carries out the syncs of one of the step functions.
fn drive(
    store: &MemoryStore,
    mut step: impl FnMut(&MemoryStore) -> Result<Step, TransactionError>,
) -> Result<(), TransactionError> {
    loop {
        match step(store)? {
            Step::Sync(point) => store.synced(point),
            Step::Done => return Ok(()),
        }
    }
}

fn recover(image: Vec<u8>) -> Result<MemoryStore, RecoveryError> {
    let store = MemoryStore::new(image);
    if let Some(mut recovery) = Recovery::begin(&store)? {
        assert_eq!(recovery.step(&store)?, Step::Done, "no log, no syncs");
    }
    assert!(!needs_recovery(&store)?);
    Ok(store)
}

/// What the tests compare: all bytes that existed before, but for the pointer to the area and the
/// area itself.
fn contents(image: &[u8]) -> Vec<u8> {
    let mut contents = image[..LEN as usize].to_vec();
    contents[RECOVERY_HEAD as usize..RECOVERY_HEAD as usize + 4].fill(0);
    contents
}

/// Writes random ranges, sometimes behind a growth.
fn change(transaction: &Transaction, store: &MemoryStore, random: &mut Random) {
    let view = transaction.view(store);
    for _ in 0..1 + random.below(4) {
        let len = 1 + random.below(400);
        let offset = DATA + random.below(LEN - DATA - len);
        let byte = u8::try_from(random.below(256)).expect("below 256");
        view.write(offset, &vec![byte; len as usize]).unwrap();
    }
    if random.below(3) == 0 {
        let len = view.known_len();
        view.grow(len, 4 * (3 + random.below(500))).unwrap();
        view.write(len, b"new space").unwrap();
    }
}

/// A file after `earlier` transactions, and the log of one more with what it should make of it.
fn logged_transaction(seed: u64, earlier: u32) -> (CrashLog, Vec<u8>, Vec<u8>) {
    let mut random = Random(seed);
    let store = empty_file();
    for _ in 0..earlier {
        let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
        change(&transaction, &store, &mut random);
        drive(&store, |store| transaction.commit(store)).unwrap();
    }
    store.start_log();
    let before = contents(&store.image());
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    change(&transaction, &store, &mut random);
    drive(&store, |store| transaction.commit(store)).unwrap();
    (store.log().unwrap(), before, contents(&store.image()))
}

/// `true`: new state. Panics on anything that is neither.
fn settled(image: Vec<u8>, before: &[u8], after: &[u8], what: &str) -> bool {
    let store = recover(image).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = contents(&store.image());
    assert!(found == before || found == after, "{what}: neither the old nor the new state");
    found == after
}

#[test]
fn every_prefix_of_the_writes_of_a_commit_recovers_to_the_old_or_the_new_state() {
    for seed in 0..40 {
        for earlier in 0..3 {
            let (log, before, after) = logged_transaction(seed, earlier);
            let mut committed = false;
            for count in 0..=log.events().len() {
                let what = format!("seed {seed}, {earlier} earlier, {count} events");
                let new = settled(log.after(count), &before, &after, &what);
                assert!(new || !committed || before == after, "{what}: went back");
                committed |= new;
                if let Some(Event::Write { data, .. }) = log.events().get(count) {
                    for cut in [1, data.len() / 2, data.len() - 1] {
                        settled(log.after_torn(count, cut), &before, &after, &what);
                    }
                }
            }
            assert!(committed, "the whole log is the new state");
        }
    }
}

/// Images checked by [`power_loss_at_any_moment_recovers_to_the_old_or_the_new_state`].
fn image_budget() -> u32 {
    if std::env::var_os("RINGMASTER_SOAK").is_some() { 200_000 } else { 4_000 }
}

#[test]
fn power_loss_at_any_moment_recovers_to_the_old_or_the_new_state() {
    let (mut checked, mut seed) = (0, 1000);
    let (mut old, mut new) = (0, 0);
    while checked < image_budget() {
        seed += 1;
        let (log, before, after) =
            logged_transaction(seed, u32::try_from(seed % 4).expect("small"));
        let mut random = Random(seed);
        for count in 0..=log.events().len() {
            for granule in [64, 512, PAGE as usize, 4096] {
                let image = log.power_loss(count, granule, |versions| random.index(versions));
                let what = format!("seed {seed}, {count} events, granule {granule}");
                if settled(image, &before, &after, &what) {
                    new += 1
                } else {
                    old += 1
                }
                checked += 1;
            }
        }
    }
    println!("{checked} images: {old} old, {new} new");
    assert!(old > checked / 20 && new > checked / 20, "one-sided: {old} old, {new} new");
}

#[test]
fn crash_during_recovery_is_recovered_from() {
    for seed in 0..60 {
        let (log, before, after) = logged_transaction(seed, 1);
        let mut random = Random(seed);
        for count in 0..log.events().len() {
            let store = MemoryStore::new(log.after(count));
            let Some(mut recovery) = Recovery::begin(&store).unwrap() else { continue };
            store.start_log();
            while let Step::Sync(point) = recovery.step(&store).unwrap() {
                store.synced(point);
            }
            let second = store.log().unwrap();
            for again in 0..=second.events().len() {
                let image = second.power_loss(again, 64, |versions| random.index(versions));
                let what = format!("seed {seed}, {count} events, {again} of the recovery");
                assert!(!settled(image, &before, &after, &what) || before == after, "{what}");
            }
        }
    }
}

#[test]
fn recovery_spares_an_area_that_lies_in_a_changed_block() {
    // A file that ends inside a page gets its area there; the next transaction changes the first
    // page, which the area begins in. Restoring that page whole would clear the mark before the
    // other pages are back.
    let mut image = Header::new(3, HashKind::Old, 0).encode().to_vec();
    image.resize(DATA as usize, 0);
    let store = MemoryStore::new(image);
    for round in 0..3_u32 {
        if round == 2 {
            store.start_log();
        }
        let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
        let view = transaction.view(&store);
        view.write_u32(48, round).unwrap();
        if round == 1 {
            view.grow(view.known_len(), PAGE).unwrap();
        }
        if round > 0 {
            view.write_u32(view.known_len() - 4, round).unwrap();
        }
        drive(&store, |store| transaction.commit(store)).unwrap();
    }
    let area = Area::load(&store).unwrap().unwrap();
    assert!(area.offset < PAGE, "the area begins in the first page");
    let log = store.log().unwrap();
    let words = |store: &MemoryStore| {
        (store.read_u32(48).unwrap(), store.read_u32(store.known_len() - 4).unwrap())
    };
    let mut undone = 0;
    for count in 0..=log.events().len() {
        let crashed = MemoryStore::new(log.after(count));
        let Some(mut recovery) = Recovery::begin(&crashed).unwrap() else { continue };
        crashed.start_log();
        while let Step::Sync(point) = recovery.step(&crashed).unwrap() {
            crashed.synced(point);
        }
        let second = crashed.log().unwrap();
        for again in 0..=second.events().len() {
            let recovered = recover(second.after(again)).unwrap();
            assert_eq!(words(&recovered), (1, 1), "{count} events, {again} of the recovery");
            undone += 1;
        }
    }
    assert!(undone > 0);
}

#[test]
fn a_write_that_fails_anywhere_leaves_the_old_state_after_cancelling() {
    for seed in 0..30 {
        for earlier in 0..2 {
            let (log, before, after) = logged_transaction(seed, earlier);
            let start = log.after(0);
            for survivors in 0..64 {
                let store = MemoryStore::new(start.clone());
                let mut random = Random(seed);
                // The same operations as in the log: the generator has gone through the earlier ones.
                for _ in 0..earlier {
                    let scratch = empty_file();
                    let transaction = Transaction::start(&scratch, LAYOUT).unwrap();
                    change(&transaction, &scratch, &mut random);
                }
                let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
                change(&transaction, &store, &mut random);
                store.fail_after(survivors);
                let outcome = drive(&store, |store| transaction.commit(store));
                store.heal();
                drive(&store, |store| transaction.cancel(store)).unwrap();
                let found = contents(&store.image());
                let expected = if outcome.is_ok() { &after } else { &before };
                assert!(&found == expected, "seed {seed}, {survivors} writes, {outcome:?}");
                assert!(!needs_recovery(&store).unwrap());
                if outcome.is_ok() {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_commit_is_four_syncs_in_this_order() {
    let store = empty_file();
    for round in 0..2 {
        store.start_log();
        let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
        transaction.view(&store).write(DATA, &[round; 8]).unwrap();
        drive(&store, |store| transaction.commit(store)).unwrap();
        let log = store.log().unwrap();
        let kinds: String = log
            .events()
            .iter()
            .map(|event| match event {
                Event::Write { .. } => 'w',
                Event::Grow { .. } => 'g',
                Event::Synced => 's',
            })
            .collect();
        // A new area costs one more sync: its space must be durable before it is pointed to.
        assert_eq!(kinds, if round == 0 { "gswwswswsws" } else { "wswswsws" });
    }
}

#[test]
fn the_first_transaction_makes_room_for_a_hundred_of_its_kind() {
    let store = empty_file();
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    transaction.view(&store).write(DATA, b"x").unwrap();
    drive(&store, |store| transaction.commit(store)).unwrap();
    let area = Area::load(&store).unwrap().unwrap();
    assert_eq!(area.offset, LEN);
    assert_eq!(area.rec_len, (PAGE + 12) * 100 / PAGE * PAGE + PAGE - 24);
    assert_eq!((area.old_len, area.data_len, area.magic), (LEN, PAGE + 12, MAGIC_RECOVERY_IDLE));
    assert_eq!(store.known_len(), LEN + 24 + area.rec_len);
}

#[test]
fn an_area_grows_in_place_at_the_end_and_moves_from_the_middle() {
    let store = empty_file();
    let commit = |write: &dyn Fn(&Overlay<'_, MemoryStore>)| {
        let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
        write(&transaction.view(&store));
        drive(&store, |store| transaction.commit(store)).unwrap();
        Area::load(&store).unwrap().unwrap()
    };
    let first = commit(&|view| view.write(DATA, b"x").unwrap());
    store.grow(store.known_len(), 64 * 1024).unwrap(); // somebody makes the file longer
    let all = commit(&|view| {
        let len = view.known_len();
        view.write(DATA, &vec![7; (len - DATA) as usize]).unwrap();
        // The area is overwritten in the view only where the commit does not need it.
        view.write_words(first.offset, [0, first.rec_len, 0, 0, 0, 0]).unwrap();
    });
    assert!(all.offset > first.offset, "the old area lay in the middle");
    let freed = store.read_words::<6>(first.offset).unwrap();
    assert_eq!(freed[5], crate::format::MAGIC_FREE, "the old area was given back");
    assert_eq!(store.read_u32(168).unwrap(), first.offset, "and is on the freelist");
    let again = commit(&|view| {
        let len = view.known_len();
        view.write(DATA, &vec![9; (all.offset - DATA) as usize]).unwrap();
        view.write(len - 4, b"tail").unwrap();
    });
    assert_eq!(again.offset, all.offset, "large enough or at the end: stays");
}

#[test]
fn cancel_before_and_after_prepare_leaves_the_old_state() {
    for prepared in [false, true] {
        let store = empty_file();
        let before = contents(&store.image());
        let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
        transaction.view(&store).write(DATA, b"never").unwrap();
        if prepared {
            drive(&store, |store| transaction.prepare(store)).unwrap();
            assert!(transaction.is_prepared() && needs_recovery(&store).unwrap());
        }
        drive(&store, |store| transaction.cancel(store)).unwrap();
        assert_eq!(contents(&store.image()), before);
        assert!(!needs_recovery(&store).unwrap());
        assert!(matches!(transaction.prepare(&store), Err(TransactionError::NotOpen)));
    }
}

#[test]
fn a_transaction_that_changed_nothing_writes_nothing() {
    let store = empty_file();
    store.start_log();
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    transaction.view(&store).read_u32(DATA).unwrap();
    assert!(transaction.is_empty());
    drive(&store, |store| transaction.commit(store)).unwrap();
    assert_eq!(store.log().unwrap().events(), []);
}

#[test]
fn writes_after_prepare_fail_and_spoil_the_commit() {
    let store = empty_file();
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    transaction.view(&store).write(DATA, b"first").unwrap();
    drive(&store, |store| transaction.prepare(store)).unwrap();
    assert!(transaction.view(&store).write(DATA, b"late").is_err());
    assert!(transaction.view(&store).grow(LEN, 4).is_err());
    assert!(matches!(transaction.nest(), Err(TransactionError::Prepared)));
    assert!(matches!(transaction.commit(&store), Err(TransactionError::Spoiled)));
    drive(&store, |store| transaction.cancel(store)).unwrap();
    assert_ne!(store.image()[DATA as usize..][..5], *b"first");
}

#[test]
fn an_inner_cancel_makes_the_outer_commit_fail() {
    let store = empty_file();
    let mut transaction = Transaction::start(&store, LAYOUT).unwrap();
    transaction.nest().unwrap();
    transaction.view(&store).write(DATA, b"inner").unwrap();
    assert!(transaction.commit_inner(), "the inner one only counts down");
    transaction.nest().unwrap();
    assert!(transaction.cancel_inner());
    assert!(!transaction.commit_inner(), "this is the outer one now");
    assert!(matches!(transaction.commit(&store), Err(TransactionError::Spoiled)));
    drive(&store, |store| transaction.cancel(store)).unwrap();
    assert_ne!(store.image()[DATA as usize..][..5], *b"inner");
}

#[test]
fn the_view_reads_its_own_writes_across_blocks_and_behind_the_old_end() {
    let store = empty_file();
    let transaction = Transaction::start(&store, LAYOUT).unwrap();
    let view = transaction.view(&store);
    let text = vec![0xAB; 3 * PAGE as usize];
    view.write(DATA, &text).unwrap();
    view.grow(LEN, 1000).unwrap();
    view.write(LEN + 900, b"end").unwrap();
    let mut read = vec![0; text.len() + 2];
    view.read(DATA - 1, &mut read).unwrap();
    assert_eq!((read[0], &read[1..=text.len()], read[text.len() + 1]), (0, &text[..], 0x11));
    let mut tail = [1; 100];
    view.read(LEN + 880, &mut tail).unwrap();
    assert_eq!(
        (&tail[..20], &tail[20..23], &tail[23..]),
        (&[0; 20][..], &b"end"[..], &[0; 77][..])
    );
    assert!(view.read(LEN + 999, &mut [0; 2]).is_err());
    assert!(view.write(LEN + 999, &[0; 2]).is_err());
    assert_eq!(store.known_len(), LEN, "the file has not grown");
}

#[test]
fn a_senseless_area_is_reported_and_nothing_is_restored() {
    let (log, ..) = logged_transaction(3, 1);
    let marked = (0..=log.events().len())
        .map(|count| log.after(count))
        .find(|image| needs_recovery(&MemoryStore::new(image.clone())).unwrap())
        .unwrap();
    let area = Area::load(&MemoryStore::new(marked.clone())).unwrap().unwrap();
    for (at, word) in [
        (area.offset + 4, 8),              // capacity below the payload
        (area.offset + 12, u32::MAX),      // payload of 4 GiB
        (area.offset + 24, u32::MAX - 3),  // a block outside the file
        (area.offset + 28, area.data_len), // a block longer than the payload
    ] {
        let store = MemoryStore::new(marked.clone());
        store.write_u32(at, word).unwrap();
        let broken = store.image();
        assert!(matches!(Recovery::begin(&store), Err(RecoveryError::Corrupt { .. })), "{at}");
        assert_eq!(store.image(), broken);
    }
}
