//! Mutates known packets and hands them to a family's check, fast enough for ten million packets
//! in minutes.
//!
//! Role: the same driver serves the short test, the long run (`examples/fuzz_families.rs`) and the
//! test that plants a bug to see that the driver finds it.
//! Invariants: one seed gives one sequence of inputs; a finding names seed and iteration.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// xorshift64*: quick, seedable, good enough to pick mutations.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        // Spread small seeds over all bits; the state must not be zero.
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 32 random bits.
    pub fn word(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        u32::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).expect("32 bits left")
    }

    /// Below `limit`, 0 for limit 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { self.word() as usize % limit }
    }
}

/// A group of decoders that are fed alike.
pub struct Family {
    /// Name on the command line.
    pub name: &'static str,
    /// Valid inputs to start from.
    pub corpus: Vec<Vec<u8>>,
    /// Whether the first word is the input's length, worth repairing after a mutation.
    pub length_first: bool,
    /// Panics when an input shows a bug; tells whether anything could be decoded.
    pub check: fn(&[u8]) -> bool,
}

/// What a run without a finding did.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Inputs checked.
    pub inputs: u64,
    /// Inputs that something could be decoded from: a run that only sees refusals tests nothing.
    pub decoded: u64,
}

/// A bug.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Seed of the run.
    pub seed: u64,
    /// Which input it was.
    pub iteration: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What the check had to say.
    pub message: String,
}

/// Feeds `iterations` mutated inputs to the family's check.
///
/// # Errors
/// The first finding.
pub fn run(family: &Family, iterations: u64, seed: u64) -> Result<Outcome, Finding> {
    let mut random = Random::new(seed);
    let mut input = Vec::new();
    let mut decoded = 0;
    for iteration in 0..iterations {
        mutate(family, &mut random, &mut input);
        match catch_unwind(AssertUnwindSafe(|| (family.check)(&input))) {
            Ok(understood) => decoded += u64::from(understood),
            Err(panic) => {
                return Err(Finding { seed, iteration, input, message: text(panic.as_ref()) });
            }
        }
    }
    Ok(Outcome { inputs: iterations, decoded })
}

fn text(panic: &(dyn Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Values that lengths and counts like least.
const NASTY: [u32; 12] =
    [0, 1, 2, 8, 16, 24, 32, 0x7FFF_FFFF, 0x8000_0000, u32::MAX - 7, u32::MAX - 3, u32::MAX];

/// Overwrites `input` with a mutated corpus entry.
pub fn mutate(family: &Family, random: &mut Random, input: &mut Vec<u8>) {
    input.clear();
    input.extend_from_slice(&family.corpus[random.below(family.corpus.len())]);
    // Mostly few changes: what is changed everywhere is refused at the door.
    let changes = [0, 1, 1, 1, 2, 2, 3, 6][random.below(8)];
    for _ in 0..changes {
        change(family, random, input);
    }
    if family.length_first && input.len() >= 4 && random.below(8) != 0 {
        let length = u32::try_from(input.len()).expect("inputs are short");
        input[..4].copy_from_slice(&length.to_le_bytes());
    }
}

fn change(family: &Family, random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len());
    match random.below(8) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.word().to_le_bytes()[0],
        2 => put_word(input, at & !3, NASTY[random.below(NASTY.len())]),
        3 => {
            let near = read_word(input, at & !3).wrapping_add(random.word() % 17);
            put_word(input, at & !3, near.wrapping_sub(8));
        }
        4 => {
            let len = u32::try_from(input.len()).expect("inputs are short");
            put_word(input, at & !3, len.wrapping_sub(random.word() % 80));
        }
        5 => input.truncate(at),
        6 => {
            for _ in 0..=random.below(24) {
                input.push(random.word().to_le_bytes()[0]);
            }
        }
        _ => {
            let other = &family.corpus[random.below(family.corpus.len())];
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
    }
}

fn read_word(input: &[u8], at: usize) -> u32 {
    let bytes = input.get(at..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn put_word(input: &mut [u8], at: usize, value: u32) {
    if let Some(bytes) = input.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *bytes = value.to_le_bytes();
    }
}
