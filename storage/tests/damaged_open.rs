//! Damaged files through handles: opening, locks, mapping, growth and transactions of real files
//! give an error or an answer. The algorithms alone, and many more files: `corruption.rs`.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/samples.rs"]
mod samples;

use std::time::{Duration, Instant};

use ringmaster_storage::chain::StoreMode;
use ringmaster_storage::flags::Flags;
use ringmaster_storage::handle::Handle;
use ringmaster_storage::open::{OpenOptions, open};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) as usize % bound
    }
}

fn exercise(handle: &mut Handle) {
    let soon = || Instant::now() + Duration::from_secs(10);
    let mut value = Vec::new();
    let mut keys = Vec::new();
    let _ = handle.for_each(|key, _| {
        keys.push(key.to_vec());
        true
    });
    for key in &keys {
        let _ = handle.fetch(key, &mut value);
        let _ = handle.append(key, b"more");
    }
    let _ = handle.store(b"a new key", &[&[7; 500]], StoreMode::Insert);
    let _ = handle.check(|_, _| true);
    let _ = handle.summary();
    let _ = handle.freelist_len();
    let _ = handle.try_merge_free_blocks(0, 100);
    let _ = handle.in_transaction(soon(), |session, handle| {
        for key in &keys {
            session.delete(handle, key)?;
        }
        let _stored = session.store(handle, b"inside", &[&[8; 5000]], StoreMode::Replace)?;
        Ok(())
    });
    let _ = handle.repair(soon());
    let _ = handle.repack(soon());
    let _ = handle.rescue(|_, _| true);
    let _ = handle.wipe();
}

#[test]
fn damaged_files_open_or_are_refused_and_every_operation_returns() {
    let directory = tempfile::tempdir().unwrap();
    let samples: Vec<_> = samples::expected()
        .into_iter()
        .map(|sample| (samples::load(&sample.name), sample.name))
        .filter(|(image, name)| image.len() <= 60_000 && !name.contains("mutex"))
        .collect();
    let rounds = if std::env::var_os("RINGMASTER_SOAK").is_some() { 20_000 } else { 300 };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..rounds {
        let mut random = Random(round);
        random.below(2);
        let (image, _) = &samples[random.below(samples.len())];
        let mut image = image.clone();
        for _ in 0..=random.below(3) {
            let offset = match random.below(3) {
                0 => random.below(200.min(image.len())),
                1 => image.len() - 1 - random.below(400.min(image.len())),
                _ => random.below(image.len()),
            };
            image[offset] ^= 1 << random.below(8);
        }
        if random.below(10) == 0 {
            image.truncate(random.below(image.len()));
        }
        let path = directory.path().join("damaged.tdb");
        std::fs::write(&path, &image).unwrap();
        for options in [OpenOptions::read_only(), OpenOptions::existing(Flags::NOSYNC)] {
            match open(&path, &options) {
                Ok(mut handle) => {
                    exercise(&mut handle);
                    opened += 1;
                }
                Err(error) => {
                    assert!(error.errno() != 0);
                    refused += 1;
                }
            }
        }
    }
    assert!(opened > rounds / 2 && refused > rounds / 20, "{opened} opened, {refused} refused");
}
