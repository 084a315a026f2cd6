//! One life of one cluster: which daemons, which settings, and what must be true at its end.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ringmaster_client::{Client, Database, DbKind};
use ringmaster_compat::cluster::{Cluster, Config, Node, Subject, View};
use ringmaster_compat::column::{our_daemon, our_tool};
use ringmaster_compat::normalise::{Extra, Place, normalise};
use ringmaster_compat::prerequisite::{missing_for_c_cluster, skip};
use ringmaster_compat::run::{RunOutput, wait_until};
use ringmaster_protocol::Pnn;

use crate::PATIENCE;
use crate::{complaints, steps};

/// Set to `1`: in compositions of C's daemons alone only node 0 may lead, as where two are ours.
/// For scenarios that are to run there.
pub const ONE_LEADER: &str = "RINGMASTER_FOLLOW_ONE_LEADER";

/// Which daemon each of the three nodes runs. Ours never lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Composition {
    /// One letter per node: `c` or `o`.
    pub name: &'static str,
}

/// C's daemons alone: the scenario is tried out.
pub const CCC: Composition = Composition { name: "ccc" };
/// Two of C's and ours.
pub const CCO: Composition = Composition { name: "cco" };
/// One of C's, which leads, and two of ours.
pub const COO: Composition = Composition { name: "coo" };

impl Composition {
    /// Number of nodes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.name.len()
    }

    /// Whether there is no node; never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether node `index` runs our daemon.
    #[must_use]
    pub fn is_ours(&self, index: usize) -> bool {
        self.name.as_bytes().get(index) == Some(&b'o')
    }

    /// Nodes that may lead. In a cluster of C's alone node 2 may not, so that it stands where ours
    /// does.
    #[must_use]
    pub fn leaders(&self) -> Vec<usize> {
        if std::env::var_os(ONE_LEADER).is_some_and(|value| value == "1") {
            return vec![0];
        }
        (0..self.len()).filter(|node| !self.is_ours(*node) && *node < 2).collect()
    }

    /// The cluster of this composition, or why it cannot run here.
    fn config(&self) -> Result<Config, String> {
        if let Some(reason) = missing_for_c_cluster() {
            return Err(reason);
        }
        let mut config = Config::new(self.len())
            .tunable("RerecoveryTimeout", 1)
            .tunable("MonitorInterval", 5)
            .tunable("KeepaliveInterval", 1)
            .tunable("KeepaliveLimit", 8);
        config.log_level = "NOTICE";
        let leaders = self.leaders();
        for node in 0..self.len() {
            if self.is_ours(node) {
                let ctdbd = our_daemon().ok_or(
                    "our ctdbd is not built (cargo build -p ringmaster-daemon -p ringmaster-eventd)",
                )?;
                config = config.node(node, Subject::Ours { ctdbd });
            }
            if !leaders.contains(&node) {
                config = config.follower(node);
            }
        }
        Ok(config)
    }
}

/// A running cluster in the hands of a scenario.
pub struct Life {
    /// The cluster.
    pub cluster: Cluster,
    /// What it is made of.
    pub composition: Composition,
    place: Place,
}

/// Runs `story` on a cluster of `composition`, whose settings `shape` changes; then the whole cluster
/// must be healthy, no daemon may have ended unasked, C's may not complain about what they do not
/// complain about among themselves, and all must shut down in order.
///
/// # Panics
/// Any of that is not so. The last lines of all logs are printed.
pub fn live(
    composition: Composition,
    shape: impl FnOnce(Config) -> Config,
    story: impl FnOnce(&Life) -> Result<()>,
) {
    let config = match composition.config() {
        Ok(config) => shape(config),
        Err(reason) => return skip(&reason),
    };
    let cluster = Cluster::start(config);
    let cluster = cluster.unwrap_or_else(|error| panic!("{}: {error:#}", composition.name));
    let place = Place {
        directory: cluster.directory().to_path_buf(),
        addresses: cluster.nodes().map(|node| node.address()).collect(),
    };
    let life = Life { cluster, composition, place };
    let ended = story(&life).and_then(|()| life.end());
    if let Err(error) = ended {
        // The cluster prints its logs when a panic drops it.
        panic!("{}: {error:#}", composition.name);
    }
}

impl Life {
    /// Node `index`.
    #[must_use]
    pub fn node(&self, index: usize) -> Node<'_> {
        self.cluster.node(index)
    }

    /// All node numbers of the cluster's beginning.
    #[must_use]
    pub fn nodes(&self) -> Vec<usize> {
        (0..self.composition.len()).collect()
    }

    /// All but `without`.
    #[must_use]
    pub fn others(&self, without: usize) -> Vec<usize> {
        self.nodes().into_iter().filter(|node| *node != without).collect()
    }

    /// Runs C's tool on a node; it must succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn ctdb(&self, node: usize, arguments: &[&str]) -> Result<String> {
        self.node(node).tool_ok(arguments)
    }

    /// Runs C's tool and ours on a node: both must succeed and, but for what changes from run to
    /// run, print the same. What C's printed.
    ///
    /// # Errors
    /// They do not.
    pub fn both(&self, node: usize, arguments: &[&str], extras: &[Extra]) -> Result<String> {
        let by_c = self.ctdb(node, arguments)?;
        let Some(tool) = our_tool() else {
            skip("our ctdb is not built (cargo build -p ringmaster-ctdb)");
            return Ok(by_c);
        };
        let by_ours = self.run_ok(node, &tool, arguments)?;
        let [theirs, ours] = [&by_c, &by_ours].map(|text| normalise(text, &self.place, extras));
        ensure!(
            theirs == ours,
            "ctdb {arguments:?} on node {node}: C's tool\n{theirs}ours\n{ours}"
        );
        Ok(by_c)
    }

    /// Runs any program on a node; it must succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn run_ok(&self, node: usize, program: &Path, arguments: &[&str]) -> Result<String> {
        let output: RunOutput = self.node(node).run(program, arguments)?;
        if !output.success() {
            bail!("{} {arguments:?} on node {node}: {output}", program.display());
        }
        Ok(output.stdout)
    }

    /// A client of a node.
    ///
    /// # Errors
    /// The daemon does not accept it.
    pub fn client(&self, node: usize) -> Result<Client> {
        Ok(Client::connect_to(&self.node(node).socket(), PATIENCE)?)
    }

    /// A client of a node with a database.
    ///
    /// # Errors
    /// The daemon does not accept it.
    pub fn open(&self, node: usize, name: &str, kind: DbKind) -> Result<(Client, Database)> {
        let mut client = self.client(node)?;
        let database = client.open(name, kind)?;
        Ok((client, database))
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// It does not, within [`PATIENCE`].
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Option<T>) -> Result<T> {
        wait_until(what, PATIENCE, condition)
    }

    /// The nodes `running` are healthy and at rest, the others down.
    ///
    /// # Errors
    /// Not in time.
    pub fn settle(&self, running: &[usize]) -> Result<View> {
        self.cluster.settle_nodes(running)
    }

    /// Process ids of all daemons.
    #[must_use]
    pub fn pids(&self) -> BTreeMap<usize, i32> {
        let pid = |node: Node<'_>| Some((node.index(), node.daemon_pid()?));
        self.cluster.nodes().filter_map(pid).collect()
    }

    /// What must be true when a scenario is over.
    fn end(&self) -> Result<()> {
        let running: Vec<_> = self.pids().into_keys().collect();
        ensure!(running.len() >= self.composition.len(), "only nodes {running:?} run at the end");
        self.settle(&running).context("at the end")?;
        for node in &running {
            self.node(*node).shutdown().with_context(|| format!("shutdown of node {node}"))?;
        }
        for node in self.cluster.nodes() {
            let text = std::fs::read_to_string(node.log()).unwrap_or_default();
            ensure!(!text.contains("panicked at"), "node {}: its daemon panicked", node.index());
        }
        complaints::check(self)
    }
}

/// Waits until the nodes `members`, more or fewer than the cluster began with, are healthy together and
/// all of them in the map of lmasters.
///
/// # Errors
/// Not in time.
pub fn join_with(life: &Life, members: &[usize]) -> Result<()> {
    life.settle(members)?;
    life.wait("the members in the map of lmasters", || {
        let right = |node: usize| steps::lmasters(life, node).is_ok_and(|map| map == members);
        members.iter().all(|node| right(*node)).then_some(())
    })
}

/// Node number as the protocol has it.
///
/// # Panics
/// It is none: a mistake in the scenario.
#[must_use]
pub fn pnn(node: usize) -> Pnn {
    u32::try_from(node).ok().and_then(Pnn::new).expect("a node of a small cluster")
}
