//! `cargo xtask demo`: real Samba on our daemon, on hosts made of namespaces, on one machine.
//!
//! Role: the order of things, and what is printed. Used by the end-to-end tests too, which run the
//! same hosts with more work.
//! - `world`: everything lives in a world of its own and goes with it, whatever ends it
//! - `host`: one machine: network, private folders, a way in
//! - `cluster`: the daemon (ours or Debian's) on hosts; `samba`: what runs on it
//! - `addresses`: public ones and who hosts them; `fault`: what happens to a node; `copy`: a client
//!   that goes on whatever happens, and the pause it feels
//! - `wait`: every wait has a limit and says that it lasts

pub mod addresses;
pub mod cluster;
pub mod copy;
pub mod fault;
pub mod host;
mod options;
pub mod samba;
pub mod wait;
pub mod world;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{
    cluster::{Cluster, Daemon},
    options::{Options, USAGE, Whose},
    samba::SHARE,
    world::{SHARED, USER, World},
};
use crate::{packages, suite};

/// Size of the file that goes through a lone node and back.
const FILE_SIZE: u64 = 32 << 20;
/// Size of the file that is being copied when the fault comes.
const LARGE_FILE_SIZE: u64 = 256 << 20;
/// Public addresses for each node.
const ADDRESSES_A_NODE: u8 = 2;
/// Until a fault has moved an address: C misses a hung node after 25 s.
const MOVED: Duration = Duration::from_secs(120);
/// Where the files of `--keep` lie.
const KEPT: &str = "target/demo";
/// What ours needs built.
pub(crate) const BUILD: &str = "build --release -p ringmaster-daemon -p ringmaster-eventd -p ringmaster-guard \
                     -p ringmaster-ctdb -p ringmaster-admin --bins";

pub(crate) fn run(args: &[String]) -> Result<bool> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(true);
    }
    let options = options::parse(args)?;
    let keep = options.keep.then(|| PathBuf::from(KEPT));
    if world::is_inside() {
        let began = Instant::now();
        inside(&World::prepare(keep.as_deref())?, &options)?;
        println!("demo: all well, {:.1} s", began.elapsed().as_secs_f64());
        return Ok(true);
    }
    prepare(&options)?;
    let status = world::run(world::again(std::env::args_os().skip(1))?)?;
    if let Some(folder) = keep {
        println!("files and logs are in {}", folder.display());
    }
    Ok(status.success())
}

/// What is done outside: root, packages, binaries, the folder of `--keep`.
fn prepare(options: &Options) -> Result<()> {
    if !packages::is_root() {
        bail!("the demo makes namespaces and mounts and needs root; run: sudo -E cargo xtask demo");
    }
    if let Some(reason) = packages::ensure(packages::FOR_DEMO)? {
        bail!("the demo needs packages that are not here: {reason}");
    }
    if let Some(reason) = world::missing() {
        bail!("the demo cannot run here: {reason}");
    }
    if options.whose != Whose::C && !suite::run(&mut suite::cargo(BUILD))?.ok {
        bail!("the binaries do not build; the compiler's message is above");
    }
    if options.keep {
        if Path::new(KEPT).exists() {
            fs::remove_dir_all(KEPT).with_context(|| format!("cannot empty {KEPT}"))?;
        }
        fs::create_dir_all(KEPT)?;
    }
    Ok(())
}

fn inside(world: &World, options: &Options) -> Result<()> {
    let ours = Daemon::Ours(suite::workspace_root().join("target/release"));
    let daemons: Vec<Daemon> = (0..options.nodes)
        .map(|pnn| match options.whose {
            Whose::Ours => ours.clone(),
            Whose::Mixed if pnn % 2 == 0 => ours.clone(),
            Whose::Mixed | Whose::C => Daemon::C,
        })
        .collect();
    let alone = options.nodes == 1;
    let public = if alone { 0 } else { options.nodes * ADDRESSES_A_NODE };
    let public = addresses::file(public);
    println!("== {} node(s) and a client, joined by a bridge", options.nodes);
    let cluster = Cluster::make(world, &daemons, &public)?;
    let first = cluster.nodes.first().context("a cluster has a node")?;
    println!("== {}, cluster lock {SHARED}/.ctdb/lock", whose(options));
    serve(&cluster)?;
    if alone {
        print!("{}", first.run("ctdb status")?);
        println!("== a file of {} MiB through SMB and back", FILE_SIZE >> 20);
        println!("{}", file_through(&cluster)?);
    } else {
        step("every address has a host", || {
            addresses::wait_hosted(first, cluster.nodes.len()).map(drop)
        })?;
        print!("{}{}", first.run("ctdb status")?, first.run("ctdb ip")?);
        survive(&cluster, options)?;
    }
    if options.check {
        return Ok(());
    }
    println!("== look around (as root, in another terminal); Ctrl-C ends it, and nothing stays");
    for node in &cluster.nodes {
        println!("  {} ctdb status", world.from_outside(node));
        println!("  {} smbstatus", world.from_outside(node));
        println!("  {} less /var/log/ctdb/log.ctdb", world.from_outside(node));
    }
    let smbclient = world.from_outside(&cluster.client);
    println!("  {smbclient} smbclient //{}/{SHARE} -U {USER}%demo", first.address());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn whose(options: &Options) -> &'static str {
    match options.whose {
        Whose::Ours => "our ctdbd",
        Whose::C => "Debian's ctdbd",
        Whose::Mixed => "our ctdbd on even nodes, Debian's on odd ones",
    }
}

/// Copies a large file through a public address while the node that serves it goes.
fn survive(cluster: &Cluster, options: &Options) -> Result<()> {
    let first = cluster.nodes.first().context("a cluster has a node")?;
    // The leader, if it serves any: nobody is missed more.
    let leader: Option<usize> = first.run("ctdb leader")?.trim().parse().ok();
    let hosts = addresses::hosts(first)?;
    let served = hosts.iter().find(|(_, host)| **host == leader).or(hosts.iter().next());
    let (address, victim) = match served {
        Some((address, Some(victim))) => (*address, *victim),
        _ => bail!("nobody hosts an address: {hosts:?}"),
    };
    let node = cluster.nodes.get(victim).context("the host of an address is a node")?;
    let survivor = cluster.nodes.iter().find(|other| other.name() != node.name());
    let survivor = survivor.context("a fault needs a second node")?;
    let role = if leader == Some(victim) { ", the leader" } else { "" };

    let file = Path::new(SHARED).join("data/large.bin");
    random_file(&file, LARGE_FILE_SIZE)?;
    std::os::unix::fs::chown(&file, Some(world::USER_ID), Some(world::USER_ID))?;
    println!(
        "== a client copies {} MiB from {address}, which {}{role} serves; in the midst of it: {}",
        LARGE_FILE_SIZE >> 20,
        node.name(),
        options.fault.told()
    );
    let job = copy::Job {
        cluster,
        address,
        remote: "large.bin",
        size: LARGE_FILE_SIZE,
        local: cluster.client.own("copy"),
    };
    let felt = copy::watch(&job, || {
        options.fault.inflict(node)?;
        let what = format!("waiting for {address} to have another host");
        let host = wait::until(&what, MOVED, || {
            let hosts = addresses::hosts(survivor).map_err(|error| format!("{error:#}"))?;
            match hosts.get(&address) {
                Some(Some(host)) if *host != victim => Ok(*host),
                other => Err(format!("{other:?}")),
            }
        });
        println!("  {address} is on node{} now", host.with_context(|| last_words(cluster))?);
        Ok(())
    })
    .with_context(|| last_words(cluster))?;
    let sent = samba::checksum(&file)?;
    for copy in &felt.copies {
        let got = samba::checksum(copy)?;
        if got != sent {
            bail!("{} came through different: sent {sent}, got {got}", copy.display());
        }
    }
    println!(
        "  after {} MiB the client had to wait, and went on ({} sessions); SHA-256 {sent} both",
        felt.before >> 20,
        felt.sessions
    );
    print!("{}{}", survivor.run("ctdb status")?, survivor.run("ctdb ip")?);
    println!("client pause: {} ms ({})", felt.pause.as_millis(), whose(options));
    Ok(())
}

/// The ends of all daemons' logs.
fn last_words(cluster: &Cluster) -> String {
    cluster.nodes.iter().map(cluster::last_words).collect()
}

/// Starts daemons and servers on all nodes, and waits until clients are served.
///
/// # Errors
/// When one of them does not come up.
pub fn serve(cluster: &Cluster) -> Result<()> {
    for node in &cluster.nodes {
        cluster::start_daemon(node)?;
    }
    for node in &cluster.nodes {
        step(&format!("{} is OK", node.name()), || cluster::wait_healthy(node))?;
    }
    let first = cluster.nodes.first().context("a cluster has a node")?;
    step("the user is in the password database", || samba::add_user(first))?;
    for node in &cluster.nodes {
        step(&format!("smbd answers on {}", node.name()), || {
            samba::start(node)?;
            samba::wait_ready(cluster, node)
        })?;
    }
    Ok(())
}

fn step(done: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    work()?;
    println!("  {done} ({:.1} s)", start.elapsed().as_secs_f64());
    Ok(())
}

/// Puts a random file on the share, gets it back, compares. Says what it did.
fn file_through(cluster: &Cluster) -> Result<String> {
    let node = cluster.nodes.first().context("a cluster has a node")?;
    let (sent, back) = (cluster.client.own("sent"), cluster.client.own("back"));
    random_file(&sent, FILE_SIZE)?;
    let work = format!("put {} demo.bin; get demo.bin {}", sent.display(), back.display());
    let start = Instant::now();
    samba::session(cluster, node, 120, &work)?;
    let took = start.elapsed().as_secs_f64();
    let (ours, theirs) = (samba::checksum(&sent)?, samba::checksum(&back)?);
    if ours != theirs {
        bail!("the file came back different: sent {ours}, got {theirs}");
    }
    Ok(format!("  sent and read back in {took:.1} s, SHA-256 {ours} both"))
}

/// Writes `size` random bytes.
///
/// # Errors
/// When that fails.
pub fn random_file(path: &Path, size: u64) -> Result<()> {
    let mut source = fs::File::open("/dev/urandom")?.take(size);
    let mut file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    std::io::copy(&mut source, &mut file)?;
    Ok(())
}
