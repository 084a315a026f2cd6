//! What the workers did, written down where a killed worker cannot take it back, and the judgement
//! of the database against it.
//!
//! Role: [`Log`] appends intents and deeds to a file; [`judge`] compares them with the records.
//! Invariants
//! - One `write` per group of entries, in append mode: entries are never torn or interleaved.
//! - An intent is written before its change, a deed after it. An intent without a deed (its worker
//!   was killed, or the change failed) may have taken effect or not, a transaction's as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Number of keys that count.
pub const COUNTERS: u8 = 6;
/// Number of keys that are appended to.
pub const APPENDED: u8 = 3;
const ENTRY_LEN: usize = 24;
const CHUNK_LEN: usize = 16;

/// Who did it: unique per worker process and operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deed {
    pub writer: u32,
    pub op: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Intent,
    Done,
}

pub fn counter_key(counter: u8) -> Vec<u8> {
    format!("counter{counter}").into_bytes()
}

pub fn appended_key(index: u8) -> Vec<u8> {
    format!("appended{index}").into_bytes()
}

/// The log of one worker.
pub struct Log {
    file: File,
    pub writer: u32,
    op: u32,
}

impl Log {
    pub fn open(path: &Path, writer: u32) -> Self {
        let file = File::options().append(true).create(true).open(path).unwrap();
        Self { file, writer, op: 0 }
    }

    pub fn next(&mut self) -> Deed {
        self.op += 1;
        Deed { writer: self.writer, op: self.op }
    }

    /// Appends: `keys` are counters with their new values, or an appended key with 0.
    pub fn note(&mut self, stage: Stage, deed: Deed, keys: &[(u8, u64)]) {
        let mut entries = Vec::with_capacity(keys.len() * ENTRY_LEN);
        for (key, value) in keys {
            entries.extend_from_slice(&[u8::from(stage == Stage::Done), *key, 0, 0]);
            entries.extend_from_slice(&deed.writer.to_le_bytes());
            entries.extend_from_slice(&deed.op.to_le_bytes());
            entries.extend_from_slice(&[0; 4]);
            entries.extend_from_slice(&value.to_le_bytes());
        }
        let written = self.file.write(&entries).unwrap();
        assert_eq!(written, entries.len());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// A value that tells whether it is whole: number, deed, filling, checksum.
pub fn value(number: u64, deed: Deed, filling: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(&deed.writer.to_le_bytes());
    bytes.extend_from_slice(&deed.op.to_le_bytes());
    let byte = deed.op.to_le_bytes()[0];
    bytes.resize(bytes.len() + filling, byte);
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The number in a whole value; `None` if it is torn.
pub fn number_of(bytes: &[u8]) -> Option<u64> {
    let body = bytes.len().checked_sub(8).filter(|body| *body >= 16)?;
    (checksum(&bytes[..body]) == u64_at(bytes, body)).then(|| u64_at(bytes, 0))
}

/// What one append adds.
pub fn chunk(deed: Deed) -> Vec<u8> {
    let mut bytes = deed.writer.to_le_bytes().to_vec();
    bytes.extend_from_slice(&deed.op.to_le_bytes());
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The appends in a whole value; `None` if one is torn.
pub fn chunks_of(bytes: &[u8]) -> Option<Vec<Deed>> {
    let whole = bytes.len().is_multiple_of(CHUNK_LEN);
    let deeds = bytes.chunks_exact(CHUNK_LEN).map(|part| {
        let deed = Deed { writer: u32_at(part, 0), op: u32_at(part, 4) };
        (chunk(deed) == part).then_some(deed)
    });
    if whole { deeds.collect() } else { None }
}

/// Is this record whole, whatever kind it is?
pub fn is_whole(key: &[u8], value: &[u8]) -> bool {
    match key.starts_with(b"appended") {
        true => chunks_of(value).is_some(),
        false => number_of(value).is_some(),
    }
}

/// Compares the final records with the log. Returns how many changes it vouches for.
///
/// # Panics
/// A lost, doubled, torn or half done change.
pub fn judge(log: &Path, mut fetch: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> usize {
    let log = std::fs::read(log).unwrap();
    let (mut done, mut intents) = (BTreeMap::new(), BTreeMap::<Deed, Vec<(u8, u64)>>::new());
    let mut appended = BTreeSet::new();
    let mut finished = BTreeSet::new();
    for entry in log.chunks_exact(ENTRY_LEN) {
        let deed = Deed { writer: u32_at(entry, 4), op: u32_at(entry, 8) };
        let (is_done, key, number) = (entry[0] == 1, entry[1], u64_at(entry, 16));
        if !is_done {
            intents.entry(deed).or_default().push((key, number));
            continue;
        }
        finished.insert(deed);
        if number == 0 {
            appended.insert((key, deed));
        } else if let Some(other) = done.insert((key, number), deed) {
            panic!(
                "counter {key} reached {number} twice, by {other:?} and {deed:?}: a lost update"
            );
        }
    }
    intents.retain(|deed, _| !finished.contains(deed));
    let last = |counter| {
        let value = fetch(&counter_key(counter));
        value.map_or(0, |value| number_of(&value).expect("a torn counter"))
    };
    let last: Vec<u64> = (0..COUNTERS).map(last).collect();
    judge_counters(&done, &intents, &last);
    for index in 0..APPENDED {
        let value = fetch(&appended_key(index)).unwrap_or_default();
        let present = chunks_of(&value).expect("a torn append");
        let unique: BTreeSet<_> = present.iter().collect();
        assert_eq!(unique.len(), present.len(), "an append happened twice");
        for (_, deed) in appended.iter().filter(|(key, _)| *key == index) {
            assert!(unique.contains(deed), "the append {deed:?} is lost");
        }
        for deed in &present {
            let known = appended.contains(&(index, *deed)) || intents.contains_key(deed);
            assert!(known, "nobody appended {deed:?}");
        }
    }
    done.len() + appended.len()
}

fn judge_counters(
    done: &BTreeMap<(u8, u64), Deed>,
    intents: &BTreeMap<Deed, Vec<(u8, u64)>>,
    last: &[u64],
) {
    for (counter, &stands) in (0_u8..).zip(last) {
        if let Some(((_, number), deed)) =
            done.range((counter, 0)..=(counter, u64::MAX)).next_back()
        {
            assert!(*number <= stands, "counter {counter} is {stands}, {deed:?} wrote {number}");
        }
        for number in 1..=stands {
            if done.contains_key(&(counter, number)) {
                continue;
            }
            // Only an unfinished change can have written it, and then all of that change counts.
            let writers = intents.values().filter(|keys| keys.contains(&(counter, number)));
            let whole = |keys: &&Vec<(u8, u64)>| {
                keys.iter().all(|(other, value)| {
                    !done.contains_key(&(*other, *value)) && *value <= last[usize::from(*other)]
                })
            };
            let explained = writers.clone().any(|keys| whole(&keys));
            let candidates: Vec<_> = writers.collect();
            assert!(explained, "counter {counter} passed {number} by {candidates:?}: half done?");
        }
    }
}
