//! Pauses between tries that grow, with a spread so that contenders do not move in step.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// A growing pause.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
    seed: u64,
}

impl Backoff {
    /// From `first`, doubling up to `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        // Only has to differ between contenders; xorshift must not start at 0.
        let seed = RandomState::new().build_hasher().finish() | 1;
        Self { next: first, max, seed }
    }

    /// The next pause: between half of the step and the step.
    pub(crate) fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (self.next * 2).min(self.max);
        // xorshift64
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let part = u32::try_from(self.seed % 512).unwrap_or(0);
        step / 2 + step * part / 1024
    }

    /// Sleeps for the next pause; `false` without sleeping beyond `deadline`.
    pub(crate) fn sleep(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.step().min(left));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_stay_within_their_step() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(8));
        for step in [1, 2, 4, 8, 8, 8] {
            let step = Duration::from_millis(step);
            let pause = backoff.step();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} of {step:?}");
        }
    }
}
