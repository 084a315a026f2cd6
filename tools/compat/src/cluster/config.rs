//! What a test cluster looks like, and the files that say so to its daemons.
//!
//! Role: [`Config`] and the text of every configuration file: pure. Writing them: `files.rs`.
//! Origin: `docs/spec/cluster-semantics.md` 12.1, 12.3, 15.1; `docs/spec/admin-interface.md` 3.3,
//! 3.4.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::prerequisite;

/// Most nodes a cluster may have: all run on this machine.
pub const NODES_MAX: usize = 8;

/// Which daemon a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Debian's `ctdbd` 4.17.
    CDaemon,
    /// Our daemon; its helpers are beside it.
    Ours {
        /// Path of the `ctdbd` binary.
        ctdbd: PathBuf,
    },
}

impl Subject {
    /// The daemon's binary.
    #[must_use]
    pub fn daemon(&self) -> &Path {
        match self {
            Self::CDaemon => Path::new(prerequisite::C_DAEMON),
            Self::Ours { ctdbd } => ctdbd,
        }
    }

    /// Directory of the daemon's helper programs (`CTDB_TEST_HELPER_BINDIR`).
    #[must_use]
    pub fn helpers(&self) -> PathBuf {
        match self {
            Self::CDaemon => PathBuf::from(prerequisite::C_HELPERS),
            Self::Ours { ctdbd } => ctdbd.parent().unwrap_or(Path::new("/")).to_path_buf(),
        }
    }
}

/// What lies between the nodes of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The machine's loopback interface.
    #[default]
    Loopback,
    /// A loopback interface of the cluster's own, whose [`super::Cables`] can be cut.
    Cables,
    /// The same with IPv6 addresses, and whole for good.
    Ipv6,
    /// A [`super::Relay`] in this process that sees every packet. Each node then has another nodes
    /// file (the others are the relay's addresses), which `ctdb reloadnodes` does not take.
    Relay,
}

/// An event script to install on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// File name without `.script`, e.g. `10.example`.
    pub name: String,
    /// Content, with its `#!` line.
    pub text: String,
    /// Whether it may be executed: one that may not is disabled.
    pub enabled: bool,
}

/// A line of a nodes file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLine {
    /// Where the node listens.
    pub address: IpAddr,
    /// Whether the line is commented out: a deleted node keeps its number.
    pub deleted: bool,
}

/// A cluster to start. [`Config::new`] gives the plain one; the methods change it.
#[derive(Clone, Debug)]
pub struct Config {
    /// One entry per node, in PNN order.
    pub subjects: Vec<Subject>,
    /// `public_addresses` of each node (lines `ADDRESS/MASK IFACE`); missing nodes have none.
    pub public_addresses: Vec<Vec<String>>,
    /// Whether the nodes share a cluster lock file.
    pub cluster_lock: bool,
    /// Whether node 0 becomes leader before the others start: without it any node may lead.
    pub first_leads: bool,
    /// Seconds without a leader broadcast before an election. C's default is 5; below 3 a busy
    /// machine elects for nothing.
    pub leader_timeout_s: u32,
    /// Tunables of every node, as in `ctdb.tunables`.
    pub tunables: Vec<(String, u32)>,
    /// Text appended to every `ctdb.conf`, with its own `[section]` lines.
    pub extra_conf: String,
    /// Text of every `ringmaster.conf`, which only our daemon reads; empty: no such file.
    pub ringmaster_conf: String,
    /// Likewise, for one node each; missing nodes have none.
    pub node_conf: Vec<String>,
    /// Log level of every daemon.
    pub log_level: &'static str,
    /// How many of the nodes the nodes files name at first; the others wait to be added.
    pub listed: Option<usize>,
    /// What lies between the nodes.
    pub network: Network,
    /// Event scripts besides the recording `00.test`.
    pub scripts: Vec<Script>,
    /// How long until every node is OK.
    pub start_timeout: Duration,
}

impl Config {
    /// `nodes` C daemons with a cluster lock, no public addresses and default tunables.
    ///
    /// # Panics
    /// `nodes` is 0 or above [`NODES_MAX`].
    #[must_use]
    pub fn new(nodes: usize) -> Self {
        assert!((1..=NODES_MAX).contains(&nodes), "1 to {NODES_MAX} nodes, not {nodes}");
        Self {
            subjects: vec![Subject::CDaemon; nodes],
            public_addresses: Vec::new(),
            cluster_lock: true,
            first_leads: false,
            leader_timeout_s: 5,
            tunables: Vec::new(),
            extra_conf: String::new(),
            ringmaster_conf: String::new(),
            node_conf: Vec::new(),
            log_level: "INFO",
            listed: None,
            network: Network::Loopback,
            scripts: Vec::new(),
            start_timeout: Duration::from_secs(120),
        }
    }

    /// Every node runs `subject`.
    #[must_use]
    pub fn all(mut self, subject: &Subject) -> Self {
        self.subjects.fill(subject.clone());
        self
    }

    /// Node `index` runs `subject`: mixed clusters.
    #[must_use]
    pub fn node(mut self, index: usize, subject: Subject) -> Self {
        self.subjects[index] = subject;
        self
    }

    /// The addresses of C's test clusters: 192.168.100.N/24 and 192.168.200.N/24 on `lo`, known to
    /// every node. Nobody configures them: test mode does not look at interfaces.
    #[must_use]
    pub fn with_public_addresses(mut self) -> Self {
        let nodes = self.subjects.len();
        let lines: Vec<_> = (1..=nodes)
            .flat_map(|n| [100, 200].map(|net| format!("192.168.{net}.{n}/24 lo")))
            .collect();
        self.public_addresses = vec![lines; nodes];
        self
    }

    /// Sets one tunable on every node from the start.
    #[must_use]
    pub fn tunable(mut self, name: &str, value: u32) -> Self {
        self.tunables.push((name.into(), value));
        self
    }

    /// Installs an enabled event script on every node.
    #[must_use]
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.push(Script { name: name.into(), text: text.into(), enabled: true });
        self
    }

    /// The `[dataplane]` section of our daemons: reactor (`auto`, `io_uring`, `epoll`) and shards.
    #[must_use]
    pub fn dataplane(mut self, reactor: &str, shards: &str) -> Self {
        self.ringmaster_conf = format!("[dataplane]\nreactor = {reactor}\nshards = {shards}\n");
        self
    }

    /// Appends text to the `ctdb.conf` of node `index`.
    #[must_use]
    pub fn conf_of(mut self, index: usize, text: &str) -> Self {
        if self.node_conf.len() <= index {
            self.node_conf.resize(index + 1, String::new());
        }
        self.node_conf[index].push_str(text);
        self
    }

    /// Node `index` never leads.
    #[must_use]
    pub fn follower(self, index: usize) -> Self {
        self.conf_of(index, "[cluster]\n\tleader capability = false\n")
    }

    /// Sets what lies between the nodes.
    #[must_use]
    pub const fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// The nodes files name only the first `count` nodes; [`super::Cluster::start`] starts those.
    #[must_use]
    pub const fn listed(mut self, count: usize) -> Self {
        self.listed = Some(count);
        self
    }

    /// Node 0 leads, for output that names the leader.
    #[must_use]
    pub fn first_leads(mut self) -> Self {
        self.first_leads = true;
        self
    }

    /// No cluster lock: the daemons elect by messages.
    #[must_use]
    pub fn without_cluster_lock(mut self) -> Self {
        self.cluster_lock = false;
        self
    }

    pub(super) fn nodes_file(lines: &[NodeLine]) -> String {
        lines.iter().fold(String::new(), |mut text, line| {
            let sign = if line.deleted { "#" } else { "" };
            let _ = writeln!(text, "{sign}{}", line.address);
            text
        })
    }

    pub(super) fn public_addresses_file(&self, index: usize) -> String {
        let lines = self.public_addresses.get(index).map_or(&[][..], Vec::as_slice);
        lines.iter().fold(String::new(), |text, line| text + line + "\n")
    }

    pub(super) fn tunables_file(&self) -> String {
        self.tunables.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}={value}");
            text
        })
    }

    pub(super) fn conf_file(
        &self,
        index: usize,
        base: &Path,
        lock: &Path,
        address: IpAddr,
    ) -> String {
        let base = base.display();
        let own = self.node_conf.get(index).map_or("", String::as_str);
        let lock = if self.cluster_lock {
            format!("\tcluster lock = {}\n", lock.display())
        } else {
            String::new()
        };
        format!(
            "[logging]\n\
             \tlocation = file:{base}/log.ctdb\n\
             \tlog level = {}\n\
             [cluster]\n\
             {lock}\
             \tnode address = {address}\n\
             \tleader timeout = {}\n\
             [database]\n\
             \tvolatile database directory = {base}/db/volatile\n\
             \tpersistent database directory = {base}/db/persistent\n\
             \tstate database directory = {base}/db/state\n\
             {}{own}",
            self.log_level, self.leader_timeout_s, self.extra_conf
        )
    }
}

/// The script every node has: records its events in `events.log` of the node's directory and brings
/// the interfaces up, which a daemon takes for down until told.
pub(super) const RECORDING_SCRIPT: &str = r#"#!/bin/sh
echo "$@" >>"$CTDB_BASE/events.log"
if [ "$1" = startup ]; then
	ctdb ifaces -X | sed -n '2,$s/^|\([^|]*\)|.*/\1/p' | while read -r iface; do
		ctdb setifacelink "$iface" up
	done
fi
exit 0
"#;

/// Notification script: same record, one word per line.
pub(super) const NOTIFY_SCRIPT: &str = r#"#!/bin/sh
echo "notify $*" >>"$CTDB_BASE/events.log"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_lock_names_none_in_its_configuration() {
        let address = IpAddr::from([127, 1, 1, 1]);
        let with = Config::new(1).conf_file(0, Path::new("/b"), Path::new("/lock"), address);
        let without = Config::new(1).without_cluster_lock();
        let without = without.conf_file(0, Path::new("/b"), Path::new("/lock"), address);
        assert!(with.contains("\tcluster lock = /lock\n\tnode address = 127.1.1.1\n"), "{with}");
        assert!(!without.contains("lock ="), "{without}");
    }

    #[test]
    fn every_node_knows_every_public_address() {
        let config = Config::new(2).with_public_addresses();
        assert_eq!(config.public_addresses_file(0), config.public_addresses_file(1));
        assert_eq!(config.public_addresses_file(0).lines().count(), 4);
    }
}
