//! Rounds of the same loads over several daemons, one after the other: A B C A B C ...
//!
//! Role: order, warm-up, and what is taken down. Figures are made of it in `report`.
//! Invariant: all daemons run all the time, each alone in its cluster, so that an idle one
//! disturbs all the others alike.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::crowd::{Crowd, Load, Measured, Until};
use crate::node::{Kind, Running, Usage};
use crate::several::{NodesLoad, Placement};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Daemons, in the order in which they take turns.
    pub kinds: Vec<Kind>,
    /// Loads.
    pub loads: Vec<Load>,
    /// Numbers of clients.
    pub clients: Vec<usize>,
    /// Rounds over all daemons.
    pub rounds: usize,
    /// Length of one measurement.
    pub duration: Duration,
    /// Length of what goes before it.
    pub warm_up: Duration,
    /// Databases attached in one measurement.
    pub attaches: u64,
    /// Records that calls go to.
    pub records: u32,
    /// Daemon on processor 0, load on processor 1.
    pub pin: bool,
    /// Our daemon.
    pub ctdbd: PathBuf,
}

impl Options {
    /// What a result is made from.
    #[must_use]
    pub fn full(ctdbd: PathBuf) -> Self {
        Self {
            kinds: Kind::ALL.to_vec(),
            loads: Load::ALL.to_vec(),
            clients: vec![1, 16, 256],
            rounds: 5,
            duration: Duration::from_secs(1),
            warm_up: Duration::from_millis(200),
            attaches: 16,
            records: 1_000,
            pin: false,
            ctdbd,
        }
    }

    /// Only to see that everything works.
    #[must_use]
    pub fn quick(ctdbd: PathBuf) -> Self {
        Self {
            clients: vec![1, 16],
            rounds: 1,
            duration: Duration::from_millis(50),
            warm_up: Duration::from_millis(10),
            attaches: 4,
            records: 50,
            ..Self::full(ctdbd)
        }
    }
}

/// A load and what it is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// One node.
    OneNode(Load),
    /// Several, without the leader.
    Nodes(NodesLoad, usize, Placement),
}

impl Scene {
    /// As tables show it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::OneNode(load) => load.name().to_owned(),
            Self::Nodes(load, nodes, placement) => {
                format!("{}, {nodes} nodes{}", load.name(), placement.name())
            }
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of which daemon.
    pub kind: Kind,
    /// Under which load.
    pub load: Scene,
    /// From how many clients.
    pub clients: usize,
    /// In which round.
    pub round: usize,
    /// Operations per second.
    pub rate: f64,
    /// Median latency.
    pub p50: Duration,
    /// Latency that one operation in a hundred exceeds.
    pub p99: Duration,
    /// Processor time of the daemon per operation.
    pub daemon_cpu: Duration,
    /// Share of one processor that the daemon took.
    pub daemon_share: f64,
    /// Share of one processor that the load took.
    pub load_share: f64,
    /// Share of the time that the daemon was ready and others had the processors.
    pub daemon_waits: f64,
    /// The same for the load.
    pub load_waits: f64,
    /// Longest time without any answer.
    pub silence: Duration,
    /// System calls of the daemon per operation, from a separate run (not for attach).
    pub calls: Option<f64>,
}

impl Sample {
    /// What a run of a crowd and the daemons' processor time meanwhile come to. System calls are not
    /// counted in it.
    pub(crate) fn of_crowd(
        (kind, load): (Kind, Scene),
        clients: usize,
        round: usize,
        measured: &Measured,
        usage: Usage,
    ) -> Self {
        let (wall, operations) = (measured.wall.as_secs_f64(), count(measured));
        Self {
            kind,
            load,
            clients,
            round,
            rate: operations / wall,
            p50: measured.percentile(0.5),
            p99: measured.percentile(0.99),
            daemon_cpu: usage.busy.div_f64(operations),
            daemon_share: usage.busy.as_secs_f64() / wall,
            load_share: measured.load.busy.as_secs_f64() / wall,
            daemon_waits: usage.waiting.as_secs_f64() / wall,
            load_waits: measured.load.waiting.as_secs_f64() / wall,
            silence: measured.silence,
            calls: None,
        }
    }

    /// One under the load of short controls, for tests of what is made of samples.
    #[cfg(test)]
    pub(crate) const fn example(kind: Kind, clients: usize, round: usize, rate: f64) -> Self {
        Self {
            kind,
            load: Scene::OneNode(Load::Control),
            clients,
            round,
            rate,
            p50: Duration::from_micros(5),
            p99: Duration::from_micros(9),
            daemon_cpu: Duration::from_micros(4),
            daemon_share: 0.9,
            load_share: 0.5,
            daemon_waits: 0.0,
            load_waits: 0.0,
            silence: Duration::from_millis(2),
            calls: None,
        }
    }
}

/// Starts the daemons, measures, stops them.
///
/// # Errors
/// A daemon does not start, stop, or answer as it should.
pub fn compare(options: &Options, mut progress: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
    let start = |kind: &Kind| {
        Running::start(*kind, &options.ctdbd, options.records)
            .with_context(|| format!("cannot start {}", kind.name()))
    };
    let daemons: Vec<_> = at_once(options.kinds.iter().collect(), start)?;
    if options.pin {
        daemons.iter().try_for_each(|daemon| daemon.pin(0))?;
        let mut own = CpuSet::new();
        own.set(1);
        sched_setaffinity(None, &own).context("cannot pin the load: are there two processors?")?;
    }
    let mut samples = Vec::new();
    for load in &options.loads {
        for clients in &options.clients {
            for round in 0..options.rounds {
                for daemon in &daemons {
                    let sample = measure(options, daemon, *load, *clients, round)
                        .with_context(|| format!("{} of {}", load.name(), daemon.kind.name()))?;
                    progress(&sample);
                    samples.push(sample);
                }
            }
        }
    }
    at_once(daemons, Running::stop)?;
    Ok(samples)
}

/// Starting and stopping is mostly waiting: all at the same time.
pub(crate) fn at_once<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let work = &work;
    thread::scope(|scope| {
        let spawned = items.into_iter().map(|item| scope.spawn(move || work(item)));
        let threads: Vec<_> = spawned.collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect()
    })
}

fn measure(
    options: &Options,
    daemon: &Running,
    load: Load,
    clients: usize,
    round: usize,
) -> Result<Sample> {
    let name = format!("bench-{clients}-{round}");
    let mut crowd = Crowd::connect(&[daemon.home()], load, clients, Some(daemon.records), &name)?;
    let until = if load == Load::Attach {
        Until::Operations(options.attaches)
    } else {
        crowd.run(Until::Elapsed(options.warm_up))?;
        Until::Elapsed(options.duration)
    };
    let before = daemon.usage()?;
    let measured = crowd.run(until)?;
    let usage = daemon.usage()?.since(before);
    let calls = if load == Load::Attach || round > 0 {
        None
    } else {
        calls_per_operation(daemon, &mut crowd, until)?
    };
    let whose = (daemon.kind, Scene::OneNode(load));
    Ok(Sample { calls, ..Sample::of_crowd(whose, clients, round, &measured, usage) })
}

fn calls_per_operation(daemon: &Running, crowd: &mut Crowd, until: Until) -> Result<Option<f64>> {
    let Some(counter) = daemon.call_counter() else { return Ok(None) };
    let (measured, calls) = counter.count(|| crowd.run(until));
    let operations = count(&measured?);
    #[expect(clippy::cast_precision_loss, reason = "calls of seconds are far below 2^52")]
    let per_operation = calls.map(|calls| calls as f64 / operations);
    Ok(per_operation)
}

#[expect(clippy::cast_precision_loss, reason = "operations of seconds are far below 2^52")]
fn count(measured: &Measured) -> f64 {
    measured.operations.max(1) as f64
}
