//! A cluster: hosts that run a daemon, ours or Debian's, and one host for clients.
//!
//! Role: configuration of the daemon, its start, and what it says about itself.
//! Invariant: which daemon runs is decided by what lies at Debian's paths, by mounting ours over
//! them. Event scripts and Samba cannot tell, and nothing about them is changed.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    host::Host,
    samba,
    wait::{self, success},
    world::{BASE, SHARED, World},
};

/// Our binaries, and whose place they take.
const IN_PLACE: &[(&str, &str)] = &[("ctdbd", "/usr/sbin/ctdbd"), ("ctdb", "/usr/bin/ctdb")];

/// Where the helpers are. A node of ours has a folder of its own there: some of them are new.
const HELPERS: &str = "/usr/libexec/ctdb";

/// Our helpers.
const OUR_HELPERS: &[&str] = &[
    "ctdb-eventd",
    "ctdb-guard",
    "ctdb-event",
    "ctdb-path",
    "ctdb-config",
    "ctdb_mutex_fcntl_helper",
    "ctdb_killtcp",
    "ctdb_natgw",
    "ctdb_lvs",
];

/// Below a host's folder: what is mounted over [`HELPERS`].
const OWN_HELPERS: &str = "libexec-ctdb";

/// The event scripts that run: those that Debian's package enables. Samba's own (`50.samba`) starts
/// it with the init system, which a namespace does not have.
const SCRIPTS: &[&str] = &["00.ctdb", "01.reclock", "05.system", "10.interface"];

/// How long a daemon may take until its node is OK: 10 s, more when the machine is busy.
const HEALTHY: Duration = Duration::from_secs(60);
/// How long a killed process may stay.
const GONE: Duration = Duration::from_secs(10);

/// Whose daemon a cluster runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// Debian's.
    C,
    /// Ours; the folder has the binaries.
    Ours(PathBuf),
}

/// Hosts with a daemon, and one without.
pub struct Cluster {
    /// By node number.
    pub nodes: Vec<Host>,
    /// Where clients are.
    pub client: Host,
}

impl Daemon {
    /// What must be mounted over what on the host `name`.
    fn binds(&self, name: &str) -> Vec<(PathBuf, PathBuf)> {
        match self {
            Self::C => Vec::new(),
            Self::Ours(folder) => IN_PLACE
                .iter()
                .map(|(name, place)| (folder.join(name), PathBuf::from(place)))
                .chain([(Path::new(BASE).join(name).join(OWN_HELPERS), HELPERS.into())])
                .collect(),
        }
    }

    /// A binary of ours that is not built.
    #[must_use]
    pub fn missing(&self) -> Option<PathBuf> {
        let Self::Ours(folder) = self else { return None };
        let names = IN_PLACE.iter().map(|(name, _)| name).chain(OUR_HELPERS);
        names.map(|name| folder.join(name)).find(|binary| !binary.exists())
    }

    /// Debian's helpers, with ours in the place of those that we have.
    fn place_helpers(&self, host: &Host) -> Result<()> {
        let Self::Ours(folder) = self else { return Ok(()) };
        let own = host.own(OWN_HELPERS);
        fs::create_dir_all(&own)?;
        let all = format!("{HELPERS}/.");
        success("copying helpers", wait::limited(10, "cp").args(["-a", &all]).arg(&own))?;
        for name in OUR_HELPERS {
            let place = own.join(name);
            if place.exists() {
                fs::remove_file(&place)?;
            }
            symlink(folder.join(name), &place)?;
        }
        Ok(())
    }
}

impl Cluster {
    /// Makes a host for each of `daemons`, all with this file of public addresses (empty: none);
    /// starts nothing.
    ///
    /// # Errors
    /// Anything the kernel, a tool or the file system refuses.
    pub fn make(world: &World, daemons: &[Daemon], public_addresses: &str) -> Result<Self> {
        let plan = Plan { nodes: u8::try_from(daemons.len())?, public_addresses };
        let hosts = (0..plan.nodes)
            .zip(daemons)
            .map(|(pnn, daemon)| {
                if let Some(binary) = daemon.missing() {
                    bail!("{} is not built: cargo build --bins", binary.display());
                }
                let address = node_address(pnn);
                let name = format!("node{pnn}");
                world.add_host(&name, &address, &daemon.binds(&name), |host| {
                    daemon.place_helpers(host)?;
                    configure(host, &plan)?;
                    samba::configure(host)
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let client = world.add_host("client", "10.77.0.200", &[], samba::configure_client)?;
        Ok(Self { nodes: hosts, client })
    }
}

fn node_address(pnn: u8) -> String {
    format!("10.77.0.{}", u16::from(pnn) + 10)
}

/// What all nodes know.
struct Plan<'a> {
    nodes: u8,
    public_addresses: &'a str,
}

/// Fills a host's `/etc/ctdb`.
fn configure(host: &Host, plan: &Plan<'_>) -> Result<()> {
    let etc = host.own("etc-ctdb");
    success("copying /etc/ctdb", wait::limited(10, "cp").args(["-a", "/etc/ctdb/."]).arg(&etc))?;
    let enabled = etc.join("events/legacy");
    fs::remove_dir_all(&enabled)?;
    fs::create_dir_all(&enabled)?;
    for name in SCRIPTS {
        let script = format!("{name}.script");
        symlink(Path::new("/usr/share/ctdb/events/legacy").join(&script), enabled.join(&script))?;
    }
    let mut list = String::new();
    for pnn in 0..plan.nodes {
        writeln!(list, "{}", node_address(pnn))?;
    }
    fs::write(etc.join("nodes"), list)?;
    let mut conf = format!(
        "[logging]\n\tlocation = file:/var/log/ctdb/log.ctdb\n\tlog level = NOTICE\n\
         [cluster]\n\trecovery lock = {SHARED}/.ctdb/lock\n\tnode address = {}\n",
        host.address()
    );
    if plan.nodes == 1 {
        // Shorter than usual, so that nobody waits for the start. With more nodes the times of
        // elections and recoveries are what is shown: they are C's.
        conf += "\tleader timeout = 2\n";
        fs::write(etc.join("ctdb.tunables"), "RerecoveryTimeout=1\n")?;
    }
    if !plan.public_addresses.is_empty() {
        fs::write(etc.join("public_addresses"), plan.public_addresses)?;
    }
    if !realtime_is_allowed() {
        conf += "[legacy]\n\trealtime scheduling = false\n";
    }
    fs::write(etc.join("ctdb.conf"), conf).context("cannot write ctdb.conf")
}

/// False in containers and control groups without real-time scheduling: neither daemon starts
/// there unless it is told to do without.
fn realtime_is_allowed() -> bool {
    let mut probe = wait::limited(10, "chrt");
    let done = probe.args(["--fifo", "1", "true"]).output();
    done.is_ok_and(|output| output.status.success())
}

/// Starts the daemon of a host; it may still be starting when this returns.
///
/// # Errors
/// When it refuses to start.
pub fn start_daemon(host: &Host) -> Result<()> {
    host.run("/usr/sbin/ctdbd").map(drop).with_context(|| last_words(host))
}

/// Waits until a host's node is OK.
///
/// # Errors
/// When that takes too long: with the end of the daemon's log.
pub fn wait_healthy(host: &Host) -> Result<()> {
    let what = format!("{}: waiting for the node to be OK", host.name());
    wait::until(&what, HEALTHY, || host.run("ctdb nodestatus").map_err(|e| format!("{e:#}")))
        .map(drop)
        .with_context(|| last_words(host))
}

/// PID of the daemon, from its PID file.
///
/// # Errors
/// When there is no such file.
pub fn daemon_pid(host: &Host) -> Result<u32> {
    let file = host.own("run-ctdb").join("ctdbd.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
    text.trim().parse().with_context(|| format!("{} has no number", file.display()))
}

/// Kills a process and waits until it is gone.
///
/// # Errors
/// When it stays.
pub fn kill(pid: u32) -> Result<()> {
    let mut command = wait::limited(10, "kill");
    wait::output("kill", command.args(["-KILL", &pid.to_string()]))?;
    wait::until(&format!("the end of process {pid}"), GONE, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "PID (NAME) STATE …": a zombie has no memory, files or locks left.
        match stat.rsplit_once(") ") {
            None => Ok(()),
            Some((_, rest)) if rest.starts_with('Z') => Ok(()),
            Some(_) => Err("it is still there".into()),
        }
    })
}

/// The end of the daemon's log, for a message.
#[must_use]
pub fn last_words(host: &Host) -> String {
    let path = host.own("log-ctdb").join("log.ctdb");
    let log = fs::read(&path).map(|raw| String::from_utf8_lossy(&raw).into_owned());
    let log = log.unwrap_or_else(|error| format!("cannot read {}: {error}", path.display()));
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    format!("the daemon's log on {} ends with:\n{tail}\n", host.name())
}
