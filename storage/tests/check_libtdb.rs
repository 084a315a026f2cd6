//! Check, repair and rescue beside libtdb: same verdicts on samples and on damaged files.

#[path = "support/libtdb.rs"]
mod libtdb;
#[path = "support/samples.rs"]
mod samples;

use std::path::Path;
use std::process::Command;

use libtdb::{Tdb, flag, mode};
use ringmaster_storage::backend::memory::MemoryStore;
use ringmaster_storage::check::{self, Report};
use ringmaster_storage::format::{Header, Layout};
use ringmaster_storage::recovery::Recovery;
use ringmaster_storage::repair::{self, Repaired};
use ringmaster_storage::rescue;
use ringmaster_storage::transaction::{Step, Transaction};

/// A recovered database in memory; `None` if the bytes are none (or foreign, or with mutexes).
fn open(image: Vec<u8>) -> Option<(MemoryStore, Layout)> {
    let header = Header::parse(image.first_chunk()?).ok()?;
    let hash = header.hash_kind()?;
    if header.order != ringmaster_storage::format::ByteOrder::Native || header.mutex_size != 0 {
        return None;
    }
    let layout = Layout { hash_size: header.hash_size, hash, page_size: 4096 };
    if u64::from(header.hash_size) * 4 + 168 > image.len() as u64 {
        return None;
    }
    let store = MemoryStore::new(image);
    if let Some(mut recovery) = Recovery::begin(&store).ok()? {
        assert_eq!(recovery.step(&store).ok()?, Step::Done);
    }
    Some((store, layout))
}

fn plain_samples() -> Vec<(String, Vec<u8>)> {
    samples::expected()
        .into_iter()
        .map(|sample| (samples::load(&sample.name), sample.name))
        .filter(|(image, _)| open(image.clone()).is_some())
        .map(|(image, name)| (name, image))
        .collect()
}

fn check(store: &MemoryStore, layout: &Layout) -> Result<Report, check::CheckError> {
    check::check(store, layout, |_, _| true)
}

/// A tool of the `tdb-tools` package, or the reason to skip.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("-h").output().is_ok();
    if !found {
        assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none(), "skipped: no {program}");
        println!("skipped: no {program} (package tdb-tools)");
    }
    found
}

/// Runs a tool on a file, at most ten seconds.
fn run(program: &str, before: &[&str], file: &Path, after: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["10", program])
        .args(before)
        .arg(file)
        .args(after)
        .output()
        .expect("timeout is part of coreutils");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A small generator, so that a failing case can be named by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn samples_get_the_verdict_libtdb_gave_them() {
    let (mut good, mut bad) = (0, 0);
    for sample in samples::expected() {
        let Some((store, layout)) = open(samples::load(&sample.name)) else { continue };
        let verdict = check(&store, &layout);
        assert_eq!(verdict.is_ok(), sample.check == Some(0), "{}: {verdict:?}", sample.name);
        if let (Ok(report), Some(records)) = (verdict, sample.records) {
            assert_eq!(report.live as usize, records.len(), "{}", sample.name);
            good += 1;
        } else {
            bad += 1;
        }
    }
    assert!(good > 25 && bad >= 2, "{good} good, {bad} bad");
}

#[test]
fn damaged_files_get_the_verdict_of_tdbtool() {
    if !have("tdbtool") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("damaged.tdb");
    let samples: Vec<_> =
        plain_samples().into_iter().filter(|(_, image)| image.len() <= 8192).collect();
    let mut random = Random(7);
    let (mut whole, mut corrupt) = (0, 0);
    for round in 0..300 {
        let (name, image) = &samples[random.below(samples.len())];
        let mut image = image.clone();
        for _ in 0..=random.below(3) {
            // Mostly where the structure is: heads and the records at the end.
            let offset = match random.below(4) {
                0 => 168 + random.below(24.min(image.len() - 168)),
                1 => random.below(image.len()),
                _ => image.len() - 1 - random.below(300.min(image.len())),
            };
            image[offset] ^= 1 << random.below(8);
        }
        let Some((store, layout)) = open(image.clone()) else { continue };
        std::fs::write(&file, &image).unwrap();
        let answer = run("tdbtool", &[], &file, &["check"]);
        let theirs = answer.contains("integrity is OK");
        let ours = check(&store, &layout);
        assert_eq!(ours.is_ok(), theirs, "round {round}, {name}: {ours:?}, tdbtool: {answer}");
        if theirs { whole += 1 } else { corrupt += 1 }
    }
    assert!(whole > 20 && corrupt > 20, "one-sided: {whole} whole, {corrupt} corrupt");
}

/// `tdbdump`'s text form of records, sorted.
fn as_dumped(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
    let escape = |bytes: &[u8]| -> String {
        bytes
            .iter()
            .map(|byte| match byte {
                b'"' | b'\\' => format!("\\{byte:02X}"),
                b' '..=b'~' => char::from(*byte).to_string(),
                _ => format!("\\{byte:02X}"),
            })
            .collect()
    };
    let mut lines: Vec<_> = records
        .iter()
        .map(|(key, value)| {
            format!(
                "key({}) = \"{}\"\ndata({}) = \"{}\"\n",
                key.len(),
                escape(key),
                value.len(),
                escape(value)
            )
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn damaged_files_yield_the_records_that_tdbdump_rescues() {
    if !have("tdbdump") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("damaged.tdb");
    let samples: Vec<_> =
        plain_samples().into_iter().filter(|(_, image)| image.len() <= 60_000).collect();
    let mut random = Random(8);
    let mut rescued = 0;
    for round in 0..200 {
        let (name, image) = &samples[random.below(samples.len())];
        let mut image = image.clone();
        for _ in 0..random.below(4) {
            let offset = 168 + random.below(image.len() - 168);
            image[offset] ^= 1 << random.below(8);
        }
        let Some((store, layout)) = open(image.clone()) else { continue };
        // tdbdump opens read-only, and libtdb then refuses what needs recovery: give it ours.
        std::fs::write(&file, store.image()).unwrap();
        let dump = run("tdbdump", &["-e"], &file, &[]);
        let mut theirs: Vec<_> = dump
            .split("{\n")
            .filter_map(|part| part.split_once("}\n").map(|(record, _)| record.to_owned()))
            .collect();
        theirs.sort();
        let mut records = Vec::new();
        rescue::rescue(&store, &layout, |key, value| {
            records.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
        rescued += records.len();
        assert_eq!(as_dumped(&records), theirs, "round {round}, {name}");
    }
    assert!(rescued > 200, "{rescued}");
}

/// Repairs inside a transaction, as the daemon does.
fn repair(store: &MemoryStore, layout: Layout) -> Result<Repaired, repair::RepairError> {
    let mut transaction = Transaction::start(store, layout).expect("memory");
    let repaired = repair::repair(&transaction.view(store), &layout)?;
    assert_eq!(transaction.commit(store).expect("memory"), Step::Done);
    Ok(repaired)
}

fn records(store: &MemoryStore, layout: &Layout) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    rescue::rescue(store, layout, |key, value| {
        records.push((key.to_vec(), value.to_vec()));
        true
    })
    .expect("memory");
    records
}

#[test]
fn leaked_space_is_mended_for_good() {
    if !libtdb::available() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut mended = 0;
    for (name, image) in plain_samples() {
        if name.starts_with("corrupt") {
            continue;
        }
        let (store, layout) = open(image).unwrap();
        let before = records(&store, &layout);
        let leaked = check(&store, &layout).unwrap().unused_from.is_some();
        let file = directory.path().join(&name);
        // Once freshly recovered, once after libtdb has grown the file over the leak.
        for grown in [false, true] {
            let store = MemoryStore::new(store.image());
            let mut expected = before.len();
            if grown {
                std::fs::write(&file, store.image()).unwrap();
                let tdb = Tdb::open(&file, 0, flag::NOSYNC, libc::O_RDWR).unwrap();
                tdb.store(b"grow", &vec![1; 1 << 20], mode::REPLACE).unwrap();
                expected += 1;
                drop(tdb);
            }
            let store = if grown { MemoryStore::new(std::fs::read(&file).unwrap()) } else { store };
            assert_eq!(check(&store, &layout).is_err(), grown && leaked, "{name}");
            let repaired = repair(&store, layout).unwrap();
            assert_eq!(repaired.gaps > 0, leaked, "{name}: {repaired:?}");
            mended += repaired.gaps;
            let report = check(&store, &layout)
                .unwrap_or_else(|error| panic!("{name}, {grown}, {repaired:?}: {error}"));
            assert_eq!(report.unused_from, None, "{name}");
            assert_eq!(records(&store, &layout).len(), expected, "{name}");

            std::fs::write(&file, store.image()).unwrap();
            let tdb = Tdb::open(&file, 0, flag::NOSYNC, libc::O_RDWR).unwrap();
            tdb.check().unwrap_or_else(|error| panic!("{name}: {error:?}"));
            tdb.store(b"more", &vec![2; 3 << 20], mode::REPLACE).unwrap();
            tdb.check().unwrap_or_else(|error| panic!("{name}, grown: {error:?}"));
            for (key, value) in before.iter().filter(|(key, _)| key != b"more") {
                assert_eq!(tdb.fetch(key).as_ref(), Some(value), "{name}");
            }
        }
    }
    assert!(mended > 10, "{mended}");
}

#[test]
fn a_file_that_is_really_corrupt_is_not_repaired() {
    for (name, image) in plain_samples() {
        if name.starts_with("corrupt") {
            let (store, layout) = open(image.clone()).unwrap();
            assert!(matches!(
                repair::repair(&store, &layout),
                Err(repair::RepairError::Corrupt { .. })
            ));
            assert_eq!(store.image(), image);
        }
    }
}
