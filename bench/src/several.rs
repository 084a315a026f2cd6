//! Clusters of several nodes, C's beside ours, under the same loads.
//!
//! Role: order, warm-up, and what is taken down. The loads are in `migration` (each client a process)
//! and `crowd` (all in one).
//! Invariants
//! - Both clusters are led by one more C node, which is no lmaster and has no clients: what is
//!   compared is the nodes that do the work.
//! - All clusters run all the time; rounds are interleaved.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use ringmaster_compat::cluster::{Cluster, Config, Subject};
use ringmaster_protocol::Pnn;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::compare::{Sample, Scene, at_once};
use crate::crowd::{Crowd, Load, Measured, Until};
use crate::migration::{Lengths, Moved, Movers, MovingLoad};
use crate::node::{Kind, Usage, pin, usage_of};
use crate::wires::Home;

/// Clients of [`NodesLoad::Pairs`].
const PAIRED: usize = 128;

/// What is asked of several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodesLoad {
    /// Records move.
    Moving(MovingLoad),
    /// 64 pairs of clients: each sends to the next, which is a client of the next node.
    Pairs,
}

impl NodesLoad {
    /// All.
    pub const ALL: [Self; 4] = [
        Self::Moving(MovingLoad::Ring),
        Self::Moving(MovingLoad::Storm),
        Self::Moving(MovingLoad::GLock),
        Self::Pairs,
    ];

    /// Name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moving(load) => load.name(),
            Self::Pairs => "pairs",
        }
    }
}

/// Where daemons and load run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Where the kernel wants.
    Free,
    /// Everything on processor 0.
    OneCore,
}

impl Placement {
    /// Behind a load's name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::OneCore => " on one core",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Daemons, in the order in which they take turns.
    pub kinds: Vec<Kind>,
    /// Loads.
    pub loads: Vec<NodesLoad>,
    /// Numbers of nodes (the leader not counted).
    pub nodes: Vec<usize>,
    /// Where everything runs, one after the other.
    pub placements: Vec<Placement>,
    /// Rounds over all daemons.
    pub rounds: usize,
    /// Length of one measurement.
    pub duration: Duration,
    /// Length of what goes before it.
    pub warm_up: Duration,
    /// Our daemon.
    pub ctdbd: PathBuf,
    /// The program that is a client under the sub-command `mover::SUBCOMMAND`.
    pub client: PathBuf,
}

struct Group {
    kind: Kind,
    cluster: Cluster,
}

impl Group {
    fn start(kind: Kind, nodes: usize, ctdbd: &Path) -> Result<Self> {
        let config = Config::new(nodes + 1).all(&kind.subject(ctdbd)).node(0, Subject::CDaemon);
        let mut config = config.conf_of(0, "[legacy]\n\tlmaster capability = false\n");
        for index in 1..=nodes {
            config = config.follower(index);
        }
        let cluster = Cluster::prepare(config)?;
        for node in cluster.nodes() {
            if let (Some(text), 1..) = (kind.ringmaster_conf(), node.index()) {
                fs::write(node.base().join("ringmaster.conf"), text)
                    .context("cannot write ringmaster.conf")?;
            }
            node.start()?;
        }
        cluster.settle()?;
        Ok(Self { kind, cluster })
    }

    fn homes(&self) -> Vec<Home> {
        let homes = self.cluster.nodes().skip(1).filter_map(|node| {
            let pnn = Pnn::new(u32::try_from(node.index()).ok()?)?;
            Some(Home { socket: node.socket(), pnn })
        });
        homes.collect()
    }

    /// Of the nodes that do the work.
    fn usage(&self) -> Result<Usage> {
        let mut nodes = self.cluster.nodes().skip(1);
        nodes.try_fold(Usage::default(), |sum, node| Ok(sum.with(usage_of(node)?)))
    }

    fn measure(&self, options: &Options, scene: Scene, round: usize) -> Result<Sample> {
        let Scene::Nodes(load, ..) = scene else { bail!("not a load of several nodes") };
        let homes = self.homes();
        match load {
            NodesLoad::Moving(load) => {
                let movers = Movers::start(&options.client, &homes, load, unique())?;
                let lengths = Lengths { around: options.warm_up, measured: options.duration };
                let moved = movers.run(lengths, || self.usage())?;
                let clients = load.clients(homes.len());
                Ok(of_movers(self.kind, scene, round, clients, &moved, options.duration))
            }
            NodesLoad::Pairs => {
                let mut crowd = Crowd::connect(&homes, Load::Message, PAIRED, None, "pairs")?;
                crowd.run(Until::Elapsed(options.warm_up))?;
                let before = self.usage()?;
                let measured = crowd.run(Until::Elapsed(options.duration))?;
                let usage = self.usage()?.since(before);
                Ok(of_pairs(self.kind, scene, round, &measured, usage))
            }
        }
    }
}

/// An operation on a record that is there already costs the daemons nothing: their processor time is
/// shared out among the records that they were asked for.
fn of_movers(
    kind: Kind,
    scene: Scene,
    round: usize,
    clients: usize,
    moved: &Moved,
    length: Duration,
) -> Sample {
    let per_second =
        |count: u64| f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / length.as_secs_f64();
    Sample {
        kind,
        load: scene,
        clients,
        round,
        rate: per_second(moved.operations),
        p50: moved.latencies.percentile(0.5),
        p99: moved.latencies.percentile(0.99),
        daemon_cpu: Duration::from_secs_f64(moved.daemons.busy / per_second(moved.calls.max(1))),
        daemon_share: moved.daemons.busy,
        load_share: moved.load.busy,
        daemon_waits: moved.daemons.waiting,
        load_waits: moved.load.waiting,
        silence: moved.silence,
        calls: None,
    }
}

fn of_pairs(kind: Kind, scene: Scene, round: usize, measured: &Measured, usage: Usage) -> Sample {
    Sample::of_crowd((kind, scene), PAIRED, round, measured, usage)
}

/// Starts clusters of each size, measures, stops them. The processor time of a sample is that of
/// all nodes but the leader, per record asked for (or per message).
///
/// # Errors
/// A daemon does not start, stop, or answer as it should; a counter is not exact at the end.
pub fn compare(options: &Options, mut progress: impl FnMut(&Sample)) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let everywhere = sched_getaffinity(None).context("where this process may run")?;
    for nodes in &options.nodes {
        let start = |kind: &Kind| {
            Group::start(*kind, *nodes, &options.ctdbd)
                .with_context(|| format!("cannot start {nodes} nodes of {}", kind.name()))
        };
        let groups: Vec<_> = at_once(options.kinds.iter().collect(), start)?;
        for placement in &options.placements {
            if *placement == Placement::OneCore {
                let mut first = CpuSet::new();
                first.set(0);
                sched_setaffinity(None, &first).context("cannot pin the load")?;
                let mut all = groups.iter().flat_map(|group| group.cluster.nodes());
                all.try_for_each(|node| pin(node, 0))?;
            }
            for load in &options.loads {
                for round in 0..options.rounds {
                    for group in &groups {
                        let scene = Scene::Nodes(*load, *nodes, *placement);
                        let sample = group
                            .measure(options, scene, round)
                            .with_context(|| format!("{}: {}", scene.name(), group.kind.name()))
                            .with_context(|| group.cluster.log_tails())?;
                        progress(&sample);
                        samples.push(sample);
                    }
                }
            }
        }
        sched_setaffinity(None, &everywhere).context("cannot unpin the load")?;
        at_once(groups, |group| group.cluster.stop())?;
    }
    Ok(samples)
}

/// Another number each time: keys of one run are not those of another.
fn unique() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(0)
}
