//! What is expected of our daemon beside C's, and whether it was met.
//!
//! Role: arithmetic and text only; the numbers are the project's targets for one node and for several.

use std::fmt::Write as _;

use crate::compare::{Sample, Scene};
use crate::crowd::Load;
use crate::migration::MovingLoad;
use crate::node::Kind;
use crate::report::{self, Spread};
use crate::several::{NodesLoad, Placement};

/// From this many clients on, throughput counts and not the single round trip.
const CROWD: usize = 256;

/// Up to this share of its processor the load has time to spare, whatever the daemon does.
const LOAD_SHARE_MAX: f64 = 0.9;

/// How much busier than the daemon a load without time to spare may be: above, it is the load
/// that is measured. What a clock tick may be wrong by.
const LOAD_AHEAD_MAX: f64 = 0.02;

const PER_OPERATION: &str = "processor time per operation / C";

const PER_RECORD: &str = "processor time per record asked for / C";

/// What several nodes must reach beside C's: rate at least, processor time at most.
const fn of_several(load: NodesLoad, placement: Placement) -> (Option<f64>, Option<f64>) {
    match (load, placement) {
        (NodesLoad::Moving(MovingLoad::Ring), Placement::Free) => (Some(0.95), None),
        (NodesLoad::Moving(MovingLoad::Ring), Placement::OneCore) => (Some(1.3), Some(0.75)),
        (NodesLoad::Moving(MovingLoad::Storm), _) => (Some(3.0), Some(0.25)),
        (NodesLoad::Moving(MovingLoad::GLock), _) => (Some(5.0), None),
        (NodesLoad::Pairs, _) => (None, Some(0.6)),
    }
}

/// See [`LOAD_AHEAD_MAX`]: 0 where the load has time to spare.
fn load_ahead(sample: &Sample) -> f64 {
    if sample.load_share <= LOAD_SHARE_MAX { 0.0 } else { sample.load_share - sample.daemon_share }
}

/// An expectation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bound {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Below(bound) => value < bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(bound) => format!("≥ {bound:.2}"),
            Self::AtMost(bound) => format!("≤ {bound:.2}"),
            Self::Below(bound) => format!("< {bound:.2}"),
        }
    }
}

/// One expectation and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    load: Scene,
    clients: usize,
    what: &'static str,
    bound: Bound,
    /// `None`: not measured.
    value: Option<f64>,
}

impl Target {
    /// Whether it was measured and met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.value.is_some_and(|value| self.bound.met(value))
    }
}

/// All expectations of the daemon on io_uring that `samples` say something about.
#[must_use]
pub fn targets(samples: &[Sample]) -> Vec<Target> {
    let mut seen: Vec<(Scene, usize)> = Vec::new();
    for sample in samples.iter().filter(|sample| sample.kind == Kind::Ours) {
        if !seen.contains(&(sample.load, sample.clients)) {
            seen.push((sample.load, sample.clients));
        }
    }
    seen.into_iter().flat_map(|(load, clients)| of_line(samples, load, clients)).collect()
}

fn of_line(samples: &[Sample], load: Scene, clients: usize) -> Vec<Target> {
    let of = |kind| {
        let wanted = move |sample: &&Sample| {
            (sample.kind, sample.load, sample.clients) == (kind, load, clients)
        };
        samples.iter().filter(wanted)
    };
    let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
    let ratio =
        |value: fn(&Sample) -> f64| median(report::ratio(of(Kind::Ours), of(Kind::C), value));
    let plain =
        |value: fn(&Sample) -> Option<f64>| median(Spread::of(of(Kind::Ours).filter_map(value)));
    let target = |what, bound, value| Target { load, clients, what, bound, value };
    let rate = ratio(|sample| sample.rate);
    let cpu = ratio(|sample| sample.daemon_cpu.as_secs_f64());
    if let Scene::Nodes(load, _, placement) = load {
        let (rate_bound, cpu_bound) = of_several(load, placement);
        let rate = rate_bound.map(|bound| target("rate / C", Bound::AtLeast(bound), rate));
        let what = if load == NodesLoad::Pairs { PER_OPERATION } else { PER_RECORD };
        let cpu = cpu_bound.map(|bound| target(what, Bound::AtMost(bound), cpu));
        return rate.into_iter().chain(cpu).collect();
    }
    if clients < CROWD {
        return vec![target("rate / C", Bound::AtLeast(0.95), rate)];
    }
    let mut targets = vec![
        target("rate / C", Bound::AtLeast(1.2), rate),
        target(PER_OPERATION, Bound::AtMost(0.65), cpu),
    ];
    if load != Scene::OneNode(Load::Attach) {
        targets.push(target(
            "system calls per operation",
            Bound::Below(0.2),
            plain(|sample| sample.calls),
        ));
        targets.push(target(
            "share of its processor that the load has less to spare than the daemon",
            Bound::AtMost(LOAD_AHEAD_MAX),
            plain(|sample| Some(load_ahead(sample))),
        ));
    }
    targets
}

/// A Markdown table.
#[must_use]
pub fn table(targets: &[Target]) -> String {
    let mut text = String::from(
        "| load | clients | what | expected | measured | |\n|---|---|---|---|---|---|\n",
    );
    for target in targets {
        let value = target.value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        let verdict = match (target.value, target.is_met()) {
            (None, _) => "not measured",
            (_, true) => "met",
            (_, false) => "MISSED",
        };
        let (load, clients, what) = (target.load.name(), target.clients, target.what);
        let bound = target.bound.text();
        let _ = writeln!(text, "| {load} | {clients} | {what} | {bound} | {value} | {verdict} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(kind: Kind, clients: usize, rate: f64, cpu_us: u64) -> Sample {
        Sample {
            daemon_cpu: Duration::from_micros(cpu_us),
            calls: (kind == Kind::Ours).then_some(0.1),
            ..Sample::example(kind, clients, 0, rate)
        }
    }

    #[test]
    fn a_crowd_is_judged_by_throughput_and_a_few_clients_by_their_rate() {
        let samples = [
            sample(Kind::C, 16, 100.0, 10),
            sample(Kind::Ours, 16, 96.0, 10),
            sample(Kind::C, 256, 100.0, 10),
            sample(Kind::Ours, 256, 119.0, 6),
        ];
        let targets = targets(&samples);
        let met: Vec<_> = targets.iter().map(|target| (target.clients, target.is_met())).collect();
        assert_eq!(met, [(16, true), (256, false), (256, true), (256, true), (256, true)]);
        let text = table(&targets);
        assert!(text.contains("| control | 256 | rate / C | ≥ 1.20 | 1.19 | MISSED |"), "{text}");
    }

    #[test]
    fn several_nodes_are_judged_by_the_targets_of_their_load() {
        let on = |load, placement, clients| {
            let scene = Scene::Nodes(load, 2, placement);
            let of =
                |kind, rate, cpu_us| Sample { load: scene, ..sample(kind, clients, rate, cpu_us) };
            let samples = [of(Kind::C, 100.0, 100), of(Kind::Ours, 140.0, 70)];
            targets(&samples).iter().map(Target::is_met).collect::<Vec<_>>()
        };
        let [ring, storm, g_lock, pairs] = NodesLoad::ALL;
        assert_eq!(on(ring, Placement::Free, 2), [true]);
        assert_eq!(on(ring, Placement::OneCore, 2), [true, true]);
        assert_eq!(on(storm, Placement::Free, 64), [false, false]);
        assert_eq!(on(g_lock, Placement::OneCore, 512), [false]);
        assert_eq!(on(pairs, Placement::Free, 128), [false]);
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        let targets = targets(&[sample(Kind::Ours, 1, 100.0, 1)]);
        assert_eq!(targets.len(), 1);
        assert!(!targets[0].is_met());
        assert!(table(&targets).contains("not measured"));
    }
}
