//! Numbers that differ from run to run; the seed is printed, so that a run can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// Names the seed to repeat a run.
const SEED: &str = "RINGMASTER_SEED";

/// A source of numbers (xorshift).
pub struct Random(u64);

impl Random {
    /// With the seed of the environment, or a fresh one; prints it.
    #[must_use]
    pub fn seeded() -> Self {
        let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
        let fresh =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |past| past.as_secs());
        let seed = given.unwrap_or_else(fresh);
        println!("    {SEED}={seed}");
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let high = usize::try_from(self.0 >> 33).unwrap_or(usize::MAX);
        high % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_the_end_and_differ() {
        let mut random = Random(1);
        let numbers: Vec<usize> = (0..100).map(|_| random.below(10)).collect();
        assert!(numbers.iter().all(|number| *number < 10));
        assert!((0..10).all(|number| numbers.contains(&number)), "{numbers:?}");
    }
}
