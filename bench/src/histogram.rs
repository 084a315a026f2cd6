//! Latencies and moments of a long run in little memory, and as text between processes.
//!
//! Role: arithmetic only.
//! Invariants
//! - A latency is known to 1/16 of itself; the time of an operation to a millisecond.
//! - Two runs added make what one run of both would have made.

use std::collections::BTreeMap;
use std::time::Duration;

/// Parts of each power of two.
const PARTS: u64 = 16;

/// How many latencies there were of which length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Number of latencies by bucket; at most 64 * [`PARTS`] of them.
    counts: BTreeMap<u64, u64>,
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        *self.counts.entry(bucket_of(ns)).or_default() += 1;
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.counts {
            *self.counts.entry(*bucket).or_default() += count;
        }
    }

    /// The latency that `share` of them did not exceed; nothing of none.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let total: u64 = self.counts.values().sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a count scaled by a share of 0 to 1 is a count"
        )]
        let rank = (total.saturating_sub(1) as f64 * share.clamp(0.0, 1.0)).round() as u64;
        let mut below = 0;
        let found = self.counts.iter().find(|(_, count)| {
            below += **count;
            below > rank
        });
        Duration::from_nanos(found.map_or(0, |(bucket, _)| middle_of(*bucket)))
    }

    /// As text: `bucket:count` and blanks between.
    #[must_use]
    pub fn to_text(&self) -> String {
        let parts: Vec<_> = self.counts.iter().map(|(at, count)| format!("{at}:{count}")).collect();
        parts.join(" ")
    }

    /// From that text; `None` if it is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let counts = text.split_whitespace().map(|part| {
            let (bucket, count) = part.split_once(':')?;
            let bucket = bucket.parse().ok().filter(|bucket| *bucket < 64 * PARTS)?;
            Some((bucket, count.parse().ok()?))
        });
        Some(Self { counts: counts.collect::<Option<_>>()? })
    }
}

/// Lengths below [`PARTS`] have a bucket each; then each power of two has [`PARTS`].
fn bucket_of(ns: u64) -> u64 {
    if ns < PARTS {
        return ns;
    }
    let power = u64::from(ns.ilog2() - PARTS.ilog2());
    (power + 1) * PARTS + (ns >> power) - PARTS
}

fn middle_of(bucket: u64) -> u64 {
    if bucket < PARTS {
        return bucket;
    }
    let power = bucket / PARTS - 1;
    let (low, width) = ((bucket % PARTS + PARTS) << power, 1_u64 << power);
    low + width / 2
}

/// In which milliseconds of a run an operation was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// A bit for each.
    words: Vec<u64>,
}

impl Moments {
    /// An operation was done so long after the beginning, which is at most as long as the run: a
    /// run of ten minutes takes 75 kB.
    pub fn mark(&mut self, after: Duration) {
        let millis = usize::try_from(after.as_millis()).unwrap_or(0);
        let word = millis / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (millis % 64);
    }

    /// Adds those of another client.
    pub fn merge(&mut self, other: &Self) {
        let len = self.words.len().max(other.words.len());
        self.words.resize(len, 0);
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// The longest time without any operation in a run of `length`.
    #[must_use]
    pub fn silence(&self, length: Duration) -> Duration {
        let millis = usize::try_from(length.as_millis()).unwrap_or(0);
        let (mut longest, mut now) = (0_u64, 0_u64);
        for at in 0..millis {
            let word = self.words.get(at / 64).copied().unwrap_or(0);
            now = if word >> (at % 64) & 1 == 1 { 0 } else { now + 1 };
            longest = longest.max(now);
        }
        Duration::from_millis(longest)
    }

    /// As text: words in hexadecimal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let words: Vec<_> = self.words.iter().map(|word| format!("{word:x}")).collect();
        words.join(" ")
    }

    /// From that text; `None` if it is none.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let words = text.split_whitespace().map(|word| u64::from_str_radix(word, 16).ok());
        Some(Self { words: words.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_known_to_a_sixteenth() {
        for ns in (0..100_000).chain([u64::from(u32::MAX), u64::MAX / 2, u64::MAX]) {
            let bucket = bucket_of(ns);
            assert!(bucket < 64 * PARTS, "{ns} in {bucket}");
            assert!(middle_of(bucket).abs_diff(ns) <= ns / 16, "{ns} in {bucket}");
        }
    }

    #[test]
    fn percentiles_of_two_runs_are_those_of_all_their_latencies() {
        let (mut slow, mut fast) = (Latencies::default(), Latencies::default());
        for ns in 1..=10 {
            fast.add(Duration::from_nanos(ns));
        }
        slow.add(Duration::from_millis(1));
        fast.merge(&slow);
        assert_eq!(fast.percentile(0.5), Duration::from_nanos(6));
        assert!(fast.percentile(1.0) > Duration::from_micros(900));
        assert_eq!(Latencies::default().percentile(0.5), Duration::ZERO);
        assert_eq!(Latencies::from_text(&fast.to_text()), Some(fast));
        assert_eq!(Latencies::from_text("1:1 99999:1"), None);
    }

    #[test]
    fn a_silence_is_what_no_client_interrupts() {
        let (mut one, mut other) = (Moments::default(), Moments::default());
        one.mark(Duration::from_millis(3));
        other.mark(Duration::from_millis(70));
        let run = Duration::from_millis(100);
        assert_eq!(one.silence(run), Duration::from_millis(96));
        one.merge(&other);
        assert_eq!(one.silence(run), Duration::from_millis(66));
        assert_eq!(Moments::default().silence(run), run);
        assert_eq!(Moments::from_text(&one.to_text()), Some(one));
        assert_eq!(Moments::from_text("x"), None);
    }
}
