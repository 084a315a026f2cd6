//! `cargo xtask demo`: real Samba on our daemon, on hosts made of namespaces, on one machine.
//!
//! Role: the order of things, and what is printed. Used by the end-to-end tests too, which run the
//! same hosts with more work.
//! - `world`: everything lives in a world of its own and goes with it, whatever ends it
//! - `host`: one machine: network, private folders, a way in
//! - `cluster`: the daemon (ours or Debian's) on hosts; `samba`: what runs on it
//! - `wait`: every wait has a limit and says that it lasts

pub mod cluster;
pub mod host;
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
    samba::SHARE,
    world::{SHARED, USER, World},
};
use crate::{packages, suite};

const USAGE: &str = "\
usage: cargo xtask demo [--nodes N] [--check] [--keep] [--c-daemon]

  --nodes N    hosts with a daemon (so far: 1)
  --check      end after the file went through, with status 0 or 1
  --keep       files and logs in target/demo instead of memory, and they stay
  --c-daemon   Debian's daemon instead of ours
";

/// Size of the file that goes through SMB.
const FILE_SIZE: u64 = 32 << 20;
/// Where the files of `--keep` lie.
const KEPT: &str = "target/demo";
/// What ours needs built.
pub(crate) const BUILD: &str = "build --release -p ringmaster-daemon -p ringmaster-eventd -p ringmaster-ctdb \
                     -p ringmaster-admin --bins";

#[derive(Debug, PartialEq, Eq)]
struct Options {
    nodes: u8,
    check: bool,
    keep: bool,
    c_daemon: bool,
}

pub(crate) fn run(args: &[String]) -> Result<bool> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{USAGE}");
        return Ok(true);
    }
    let options = parse(args)?;
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

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { nodes: 1, check: false, keep: false, c_daemon: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--check" => options.check = true,
            "--keep" => options.keep = true,
            "--c-daemon" => options.c_daemon = true,
            "--nodes" => {
                let number = args.next().map(String::as_str).unwrap_or_default();
                options.nodes = match number.parse() {
                    Ok(1) => 1,
                    Ok(2..=16) => bail!("--nodes {number}: so far a node runs alone; use 1"),
                    _ => bail!("--nodes {number}: a number of nodes is needed\n{USAGE}"),
                };
            }
            other => bail!("no option '{other}'\n{USAGE}"),
        }
    }
    Ok(options)
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
    if !options.c_daemon && !suite::run(&mut suite::cargo(BUILD))?.ok {
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
    let daemon = if options.c_daemon {
        Daemon::C
    } else {
        Daemon::Ours(suite::workspace_root().join("target/release"))
    };
    let whose = if options.c_daemon { "Debian's ctdbd" } else { "our ctdbd" };
    println!("== {} node(s) and a client, joined by a bridge", options.nodes);
    let cluster = Cluster::make(world, &daemon, options.nodes)?;
    let first = cluster.nodes.first().context("a cluster has a node")?;
    println!("== {whose} on 10.77.0.10, cluster lock {SHARED}/.ctdb/lock");
    serve(&cluster)?;
    print!("{}", first.run("ctdb status")?);
    println!("== a file of {} MiB through SMB and back", FILE_SIZE >> 20);
    println!("{}", file_through(&cluster)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_one_node_until_ctrl_c_unless_told() {
        let plain = Options { nodes: 1, check: false, keep: false, c_daemon: false };
        assert_eq!(parsed("").expect("no option is fine"), plain);
        let all = Options { nodes: 1, check: true, keep: true, c_daemon: true };
        assert_eq!(parsed("--nodes 1 --check --keep --c-daemon").expect("all options"), all);
    }

    #[test]
    fn more_nodes_than_work_and_nonsense_are_refused() {
        for line in ["--nodes 2", "--nodes 0", "--nodes", "--nodes x", "--chek"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
