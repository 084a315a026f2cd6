//! A cluster of daemons on this machine: C's, ours, or mixed.
//!
//! Role: makes every node's directory, starts the daemons in test mode on loopback addresses, waits
//! until all are OK, runs tools on a node, kills, stops and restarts nodes. Knows nothing of what is
//! compared.
//! Owner: the test that started it. Everything ends with the value.
//! Invariants
//! - Conditions are waited for, each with a limit; nothing sleeps and hopes.
//! - The daemon's stdin is a pipe we hold: in test mode the C daemon shuts down when it closes, so
//!   even a SIGKILLed test leaves no daemon for long.
//! - The environment is built from nothing: `CTDB_*` of the caller never leaks in.
//!
//! Origin: `docs/spec/cluster-semantics.md` 1.1 (step 23), 12.3, 15.1.

mod cables;
mod config;
mod lease;
mod loopback;
mod node;
pub mod processes;
mod relay;
mod status;

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub use cables::Cables;
pub use config::{Config, NODES_MAX, Network, NodeLine, Script, Subject};
pub use loopback::{LOOPBACK, NODE_PORT};
pub use node::Node;
pub use relay::{Passed, Relay};
pub use status::View;

use crate::run::wait_until;
use node::NodeState;

/// When set, the directory of a cluster stays after its end, for a look at its logs.
pub const KEEP: &str = "RINGMASTER_KEEP";

/// How long the same healthy view must last to count as settled: the recovery daemon and the
/// monitor look once a second.
const SETTLED: Duration = Duration::from_millis(1500);

/// Longest path of a unix socket (`sun_path` without its NUL).
const SOCKET_PATH_MAX: usize = 107;

/// A running cluster. See [`Config`] for what it looks like.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<NodeState>,
    config: Config,
    cables: Option<Cables>,
    relay: Option<Relay>,
    // Order matters: processes end and files go (lease) before the addresses are free (subnet).
    lease: lease::Lease,
    subnet: loopback::Subnet,
}

impl Cluster {
    /// Starts a cluster and returns when every node is OK, there is a leader, and nothing has
    /// changed for more than a second.
    ///
    /// # Errors
    /// A daemon does not start or not become healthy in time; the error ends with its log.
    pub fn start(config: Config) -> Result<Self> {
        let cluster = Self::prepare(config)?;
        for node in cluster.nodes().take(cluster.listed()) {
            node.start()?;
            if cluster.config.first_leads && node.index() == 0 {
                cluster.wait_for_leader(node)?;
            }
        }
        cluster.settle()?;
        Ok(cluster)
    }

    /// Makes the directories and starts nothing: for tests of the start itself.
    ///
    /// # Errors
    /// The temporary directory cannot be written or its path is too long for a unix socket.
    pub fn prepare(config: Config) -> Result<Self> {
        let lease = lease::Lease::take()?;
        let subnet = loopback::Subnet::take()?;
        let count = u8::try_from(config.subjects.len()).context("too many nodes")?;
        let inside: Vec<_> = (1..=count).map(|host| subnet.host(host)).collect();
        let addresses: Vec<IpAddr> = match config.network {
            Network::Ipv6 => (1..=count).map(|host| cables::ipv6(host).into()).collect(),
            _ => inside.iter().map(|address| (*address).into()).collect(),
        };
        let directory = lease.directory().to_path_buf();
        let mut nodes = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            let base = directory.join(format!("node.{index}"));
            write_node(&config, &directory, &base, index, *address)?;
            nodes.push(NodeState::new(config.subjects[index].clone(), base, *address));
        }
        let cables = match config.network {
            Network::Cables => Some(Cables::lay(&directory)),
            Network::Ipv6 => Some(Cables::lay_ipv6(&directory)),
            Network::Loopback | Network::Relay => None,
        };
        let relay = (config.network == Network::Relay).then(|| Relay::start(&subnet, &inside));
        let (cables, relay) = (cables.transpose()?, relay.transpose()?);
        let cluster = Self { nodes, config, cables, relay, lease, subnet };
        let all: Vec<_> = (0..cluster.listed()).map(Some).collect();
        cluster.write_nodes_files(&all)?;
        Ok(cluster)
    }

    fn listed(&self) -> usize {
        self.config.listed.unwrap_or(self.len()).min(self.len())
    }

    /// Writes every node's nodes file: line `n` is node `n`, or deleted where there is `None`.
    /// Daemons read it at their start and when `ctdb reloadnodes` tells them to.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_nodes_files(&self, listed: &[Option<usize>]) -> Result<()> {
        for reader in 0..self.len() {
            let line = |(position, node): (usize, &Option<usize>)| {
                let address = self.nodes[node.unwrap_or(position)].address();
                let through_relay = node.filter(|node| self.relay.is_some() && *node != reader);
                let via = |node| self.subnet.via(reader, node).into();
                let address = through_relay.map_or(address, via);
                NodeLine { address, deleted: node.is_none() }
            };
            let lines: Vec<_> = listed.iter().enumerate().map(line).collect();
            let path = self.nodes[reader].base().join("nodes");
            write(path, &Config::nodes_file(&lines), false)?;
        }
        Ok(())
    }

    /// Cuts the cables between `node` and each of `others`, all at the same time: nothing arrives any
    /// more in either direction.
    ///
    /// # Errors
    /// The cluster has no [`Network::Cables`], or the kernel refuses.
    pub fn cut(&self, node: usize, others: &[usize]) -> Result<()> {
        self.cables()?.cut(&self.ways(node, others)?)
    }

    /// Mends what [`Cluster::cut`] cut.
    ///
    /// # Errors
    /// As [`Cluster::cut`].
    pub fn mend(&self, node: usize, others: &[usize]) -> Result<()> {
        self.cables()?.mend(&self.ways(node, others)?)
    }

    fn ways(&self, node: usize, others: &[usize]) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>> {
        let address = |node: usize| match self.nodes[node].address() {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(_) => bail!("only cables of Network::Cables can be cut"),
        };
        let own = address(node)?;
        let mut ways = Vec::new();
        for other in others {
            let other = address(*other)?;
            ways.extend([(own, other), (other, own)]);
        }
        Ok(ways)
    }

    fn cables(&self) -> Result<&Cables> {
        self.cables.as_ref().context("this cluster was made without cables (Network::Cables)")
    }

    /// The relay between the nodes, in a cluster with [`Network::Relay`].
    #[must_use]
    pub const fn relay(&self) -> Option<&Relay> {
        self.relay.as_ref()
    }

    /// Node `index`, which is also its PNN.
    ///
    /// # Panics
    /// There is no such node: a mistake in the test.
    #[must_use]
    pub fn node(&self, index: usize) -> Node<'_> {
        assert!(index < self.nodes.len(), "no node {index} in a cluster of {}", self.nodes.len());
        Node::new(self, index)
    }

    /// All nodes in PNN order.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        (0..self.nodes.len()).map(|index| self.node(index))
    }

    /// Number of nodes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a cluster is never empty")]
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The directory that holds everything of this cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.lease.directory()
    }

    /// What the cluster was made from.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Waits until every node is OK and running, all agree on leader and generation, public
    /// addresses are assigned, and all that has stayed the same for more than a second.
    ///
    /// # Errors
    /// Not within [`Config::start_timeout`].
    pub fn settle(&self) -> Result<View> {
        let all: Vec<_> = (0..self.listed()).collect();
        self.settle_nodes(&all)
    }

    /// As [`Cluster::settle`], for the nodes `running`; the others are down.
    ///
    /// # Errors
    /// As [`Cluster::settle`].
    pub fn settle_nodes(&self, running: &[usize]) -> Result<View> {
        let mut stable: Option<(View, Instant)> = None;
        let mut obstacle = String::from("never looked");
        let settled = wait_until("a settled cluster", self.config.start_timeout, || {
            match status::healthy_view(self, running) {
                Ok(view) => match &stable {
                    Some((before, since)) if *before == view => {
                        return (since.elapsed() >= SETTLED).then_some(view);
                    }
                    _ => stable = Some((view, Instant::now())),
                },
                Err(reason) => {
                    stable = None;
                    obstacle = reason;
                }
            }
            None
        });
        settled.with_context(|| format!("{obstacle}\n{}", self.log_tails()))
    }

    fn wait_for_leader(&self, node: Node<'_>) -> Result<()> {
        let own = format!("{}\n", node.index());
        let leads = wait_until("the first node leads", self.config.start_timeout, || {
            node.tool(&["leader"]).ok().filter(|output| output.stdout == own).map(drop)
        });
        leads.with_context(|| node.log_tail(40))
    }

    /// Last lines of every node's log, for error messages.
    #[must_use]
    pub fn log_tails(&self) -> String {
        self.nodes().map(|node| node.log_tail(60)).collect()
    }

    /// Stops every running daemon in the orderly way and checks that each ends.
    ///
    /// # Errors
    /// A daemon does not end; it is killed all the same.
    pub fn stop(self) -> Result<()> {
        for node in self.nodes() {
            if node.is_running() {
                node.shutdown()?;
            }
        }
        Ok(())
    }

    /// `program` where the cluster's network is.
    fn program(&self, program: &Path) -> Command {
        match &self.cables {
            Some(cables) => cables.command(program),
            None => Command::new(program),
        }
    }

    fn state(&self, index: usize) -> &NodeState {
        &self.nodes[index]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
        }
        // The lease kills the processes and removes the files.
    }
}

fn write_node(
    config: &Config,
    shared: &Path,
    base: &Path,
    index: usize,
    address: IpAddr,
) -> Result<()> {
    let socket = node::socket_in(base);
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        bail!("{} is too long for a unix socket; set TMPDIR to a shorter one", socket.display());
    }
    let directories =
        ["run", "var", "share", "db/volatile", "db/persistent", "db/state", "events/legacy"];
    for directory in directories {
        let path = base.join(directory);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let lock = shared.join("cluster.lock");
    write(base.join("ctdb.conf"), &config.conf_file(index, base, &lock, address), false)?;
    write(base.join("public_addresses"), &config.public_addresses_file(index), false)?;
    if !config.tunables.is_empty() {
        write(base.join("ctdb.tunables"), &config.tunables_file(), false)?;
    }
    if !config.ringmaster_conf.is_empty() {
        write(base.join("ringmaster.conf"), &config.ringmaster_conf, false)?;
    }
    write(base.join("notify.sh"), config::NOTIFY_SCRIPT, true)?;
    write(base.join("events/legacy/00.test.script"), config::RECORDING_SCRIPT, true)?;
    for script in &config.scripts {
        let path = base.join(format!("events/legacy/{}.script", script.name));
        write(path, &script.text, script.enabled)?;
    }
    Ok(())
}

fn write(path: PathBuf, text: &str, executable: bool) -> Result<()> {
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let mode = if executable { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
