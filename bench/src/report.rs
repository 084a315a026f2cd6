//! What samples say: medians, ranges, ratios to C, as a table and as JSON.
//!
//! Role: arithmetic and text only.
//! Invariant: a ratio is the median of the rounds' ratios, each to the C daemon of the same round,
//! so that what changes on the machine between rounds cancels out.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::compare::{Sample, Scene};
use crate::node::Kind;

/// A median with the lowest and highest of what it is of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median; between two, their mean.
    pub median: f64,
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl Spread {
    /// `None` of nothing.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let upper = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[upper]
        } else {
            f64::midpoint(values[upper - 1], values[upper])
        };
        Some(Self { median, low, high })
    }
}

/// Of each sample to the one of `base` in the same round.
pub(crate) fn ratio<'a>(
    samples: impl Iterator<Item = &'a Sample>,
    base: impl Iterator<Item = &'a Sample> + Clone,
    value: impl Fn(&Sample) -> f64,
) -> Option<Spread> {
    Spread::of(samples.filter_map(|sample| {
        let base = base.clone().find(|base| base.round == sample.round)?;
        (value(base) > 0.0).then(|| value(sample) / value(base))
    }))
}

/// One daemon under one load from some number of clients.
struct Line<'a> {
    load: Scene,
    clients: usize,
    kind: Kind,
    samples: Vec<&'a Sample>,
    /// C's samples of the same rounds.
    base: Vec<&'a Sample>,
}

impl Line<'_> {
    fn spread(&self, value: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(|sample| value(sample)))
    }

    fn ratio(&self, value: impl Fn(&Sample) -> f64) -> Option<Spread> {
        ratio(self.samples.iter().copied(), self.base.iter().copied(), value)
    }

    fn calls(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(|sample| sample.calls))
    }
}

fn lines(samples: &[Sample]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for sample in samples {
        let same =
            |line: &&mut Line<'_>| (line.load, line.clients) == (sample.load, sample.clients);
        match lines.iter_mut().filter(same).find(|line| line.kind == sample.kind) {
            Some(line) => line.samples.push(sample),
            None => {
                let c = samples.iter().filter(|base| base.kind == Kind::C);
                let base = c.filter(|c| (c.load, c.clients) == (sample.load, sample.clients));
                lines.push(Line {
                    load: sample.load,
                    clients: sample.clients,
                    kind: sample.kind,
                    samples: vec![sample],
                    base: base.collect(),
                });
            }
        }
    }
    lines
}

fn rate(sample: &Sample) -> f64 {
    sample.rate
}
fn p50_us(sample: &Sample) -> f64 {
    sample.p50.as_secs_f64() * 1e6
}
fn p99_us(sample: &Sample) -> f64 {
    sample.p99.as_secs_f64() * 1e6
}
fn cpu_us(sample: &Sample) -> f64 {
    sample.daemon_cpu.as_secs_f64() * 1e6
}

/// A Markdown table. Busy: share of a processor that the daemon and the load took; waiting: share of
/// the time that they were ready and others had the processors; silence: longest of all rounds.
#[must_use]
pub fn table(samples: &[Sample]) -> String {
    let mut text = String::from(
        "| load | clients | daemon | rate/s (range) | rate / C | p50 µs | p99 µs | CPU µs/op | \
         CPU / C | calls/op | busy | waiting | silence ms |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for line in lines(samples) {
        let median =
            |value: fn(&Sample) -> f64| line.spread(value).map_or(0.0, |spread| spread.median);
        let rates = line.spread(rate).unwrap_or(Spread { median: 0.0, low: 0.0, high: 0.0 });
        let or_none = |spread: Option<Spread>| {
            spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.2}", spread.median))
        };
        let silence = line.spread(|sample| sample.silence.as_secs_f64() * 1e3);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.0} ({:.0}–{:.0}) | {} | {:.0} | {:.0} | {:.1} | {} | {} | \
             {:.0} % + {:.0} % | {:.0} % + {:.0} % | {:.0} |",
            line.load.name(),
            line.clients,
            line.kind.name(),
            rates.median,
            rates.low,
            rates.high,
            or_none(line.ratio(rate)),
            median(p50_us),
            median(p99_us),
            median(cpu_us),
            or_none(line.ratio(cpu_us)),
            or_none(line.calls()),
            median(|sample| sample.daemon_share) * 100.0,
            median(|sample| sample.load_share) * 100.0,
            median(|sample| sample.daemon_waits) * 100.0,
            median(|sample| sample.load_waits) * 100.0,
            silence.map_or(0.0, |spread| spread.high),
        );
    }
    text
}

/// The same for programs.
#[must_use]
pub fn to_json(samples: &[Sample]) -> Value {
    let spread = |spread: Option<Spread>| {
        spread
            .map(|spread| json!({"median": spread.median, "low": spread.low, "high": spread.high}))
    };
    let lines: Vec<_> = lines(samples)
        .iter()
        .map(|line| {
            json!({
                "load": line.load.name(),
                "clients": line.clients,
                "daemon": line.kind.name(),
                "rounds": line.samples.len(),
                "rate_per_s": spread(line.spread(rate)),
                "rate_ratio": spread(line.ratio(rate)),
                "p50_us": spread(line.spread(p50_us)),
                "p99_us": spread(line.spread(p99_us)),
                "daemon_cpu_us_per_operation": spread(line.spread(cpu_us)),
                "daemon_cpu_ratio": spread(line.ratio(cpu_us)),
                "system_calls_per_operation": spread(line.calls()),
                "daemon_cpu_share": spread(line.spread(|sample| sample.daemon_share)),
                "load_cpu_share": spread(line.spread(|sample| sample.load_share)),
                "daemon_wait_share": spread(line.spread(|sample| sample.daemon_waits)),
                "load_wait_share": spread(line.spread(|sample| sample.load_waits)),
                "silence_ms": spread(line.spread(|sample| sample.silence.as_secs_f64() * 1e3)),
            })
        })
        .collect();
    json!({"schema": 1, "lines": lines})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind, round: usize, rate: f64) -> Sample {
        Sample::example(kind, 16, round, rate)
    }

    #[test]
    fn a_median_lies_in_the_middle_whatever_the_order() {
        assert_eq!(Spread::of([]), None);
        let odd = Spread::of([9.0, 1.0, 4.0]).unwrap();
        assert_eq!((odd.median, odd.low, odd.high), (4.0, 1.0, 9.0));
        assert_eq!(Spread::of([4.0, 2.0]).unwrap().median, 3.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine is half as fast in round 1: the ratio is 2 all the same.
        let samples = [
            sample(Kind::C, 0, 100.0),
            sample(Kind::Ours, 0, 200.0),
            sample(Kind::C, 1, 50.0),
            sample(Kind::Ours, 1, 100.0),
        ];
        let json = to_json(&samples);
        assert_eq!(json["lines"][1]["rate_ratio"]["low"], 2.0);
        assert_eq!(json["lines"][1]["rate_ratio"]["high"], 2.0);
        assert!(table(&samples).contains("| control | 16 | ours | 150 (100–200) | 2.00 |"));
    }
}
