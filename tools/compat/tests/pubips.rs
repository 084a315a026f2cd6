//! Public addresses: each case of C's own failover tests, on C's daemons and on ours.
//!
//! Origin: `docs/spec/cluster-semantics.md` 15.3.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use ringmaster_compat::{
    cluster::{Cluster, Config, Node, Subject},
    require_c_cluster, require_our_daemon,
    run::wait_until,
};

/// How long C's tests wait for an address or a flag.
const PATIENCE: Duration = Duration::from_secs(60);
/// `reloadips` gives up while somebody else has switched takeover runs off; so often it is repeated.
const RELOADS: u32 = 10;

/// Hosts by address; -1: nobody.
type Hosts = BTreeMap<String, i32>;

#[test]
fn every_case_passes_on_c() {
    require_c_cluster!();
    cases(&Subject::CDaemon).unwrap();
}

#[test]
fn every_case_passes_on_ours() {
    let ctdbd = require_our_daemon!();
    cases(&Subject::Ours { ctdbd }).unwrap();
}

#[test]
fn without_failover_or_addresses_nobody_hosts_and_nothing_fails_on_c() {
    require_c_cluster!();
    without(&Subject::CDaemon).unwrap();
}

#[test]
fn without_failover_or_addresses_nobody_hosts_and_nothing_fails_on_ours() {
    let ctdbd = require_our_daemon!();
    without(&Subject::Ours { ctdbd }).unwrap();
}

fn cases(subject: &Subject) -> Result<()> {
    type Step = fn(&Cluster) -> Result<()>;
    const STEPS: [(&str, Step); 10] = [
        ("001.list", list),
        ("010.addip", addip),
        ("011.delip", delip),
        ("012.reloadips", reloadips),
        ("014.iface_gc", iface_gc),
        ("020.moveip", moveip),
        ("030.disable_enable", disable_enable),
        ("032.stop_continue", stop_continue),
        ("040.NoIPTakeover", no_takeover),
        ("050.missing_ip", missing),
    ];
    let config = Config::new(3).all(subject).with_public_addresses();
    let cluster = Cluster::start(config.tunable("RerecoveryTimeout", 1))?;
    for (name, step) in STEPS {
        println!("pubips.{name}");
        step(&cluster).with_context(|| format!("pubips.{name}\n{}", cluster.log_tails()))?;
        cluster.settle().with_context(|| format!("after pubips.{name}"))?;
    }
    cluster.stop()
}

/// What a node says about everybody's addresses, or with `own` about its own.
fn asked(node: &Node<'_>, words: &[&str]) -> Result<Hosts> {
    let printed = node.tool_ok(words)?;
    let read = |line: &str| {
        let mut fields = line.trim_matches('|').split('|');
        Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
    };
    let rows = printed.lines().skip(1).map(|line| read(line).with_context(|| line.to_owned()));
    rows.collect()
}

fn hosts(cluster: &Cluster) -> Result<Hosts> {
    asked(&cluster.node(0), &["-X", "ip", "all"])
}

fn known(node: &Node<'_>) -> Result<Hosts> {
    asked(node, &["-X", "ip"])
}

/// Waits until the addresses are as `good` wants them.
fn await_hosts(cluster: &Cluster, what: &str, good: impl Fn(&Hosts) -> bool) -> Result<Hosts> {
    let mut last = None;
    wait_until(what, PATIENCE, || {
        let hosts = hosts(cluster).ok()?;
        let found = good(&hosts).then(|| hosts.clone());
        last = Some(hosts);
        found
    })
    .with_context(|| format!("last seen: {last:?}"))
}

fn everywhere(cluster: &Cluster, words: &[&str]) -> Result<()> {
    cluster.nodes().try_for_each(|node| node.tool_ok(words).map(drop))
}

fn reallocate(cluster: &Cluster) -> Result<()> {
    cluster.node(0).tool_ok(&["ipreallocate"]).map(drop)
}

fn hosted_by(hosts: &Hosts, node: i32) -> Vec<String> {
    hosts.iter().filter(|(_, host)| **host == node).map(|(address, _)| address.clone()).collect()
}

/// One that node `node` hosts.
fn one_of(cluster: &Cluster, node: i32) -> Result<String> {
    let hosts = hosts(cluster)?;
    let first = hosted_by(&hosts, node).into_iter().next();
    first.with_context(|| format!("node {node} hosts nothing: {hosts:?}"))
}

fn with_mask(address: &str) -> String {
    format!("{address}/24")
}

fn list(cluster: &Cluster) -> Result<()> {
    let first = hosts(cluster)?;
    for node in cluster.nodes() {
        for words in [["-X", "ip", "all"].as_slice(), &["-X", "-v", "ip", "all"]] {
            ensure!(asked(&node, words)? == first, "node {}: {words:?}", node.index());
        }
        let people = node.tool_ok(&["ip", "all"])?;
        for (address, host) in &first {
            let line = format!("{address} {host}");
            ensure!(people.lines().any(|shown| shown == line), "'{line}' is not in\n{people}");
        }
    }
    Ok(())
}

fn addip(cluster: &Cluster) -> Result<()> {
    let address = one_of(cluster, 0)?;
    everywhere(cluster, &["delip", &address])?;
    reallocate(cluster)?;
    await_hosts(cluster, "the address is gone", |hosts| !hosts.contains_key(&address))?;
    cluster.node(1).tool_ok(&["addip", &with_mask(&address), "lo"])?;
    reallocate(cluster)?;
    await_hosts(cluster, "node 1 hosts it", |hosts| hosts.get(&address) == Some(&1))?;
    for node in [0, 2] {
        cluster.node(node).tool_ok(&["addip", &with_mask(&address), "lo"])?;
    }
    reallocate(cluster)
}

fn delip(cluster: &Cluster) -> Result<()> {
    let address = one_of(cluster, 1)?;
    cluster.node(1).tool_ok(&["delip", &address])?;
    reallocate(cluster)?;
    wait_until("node 1 knows it no more", PATIENCE, || {
        known(&cluster.node(1)).ok().filter(|known| !known.contains_key(&address)).map(drop)
    })?;
    await_hosts(cluster, "another node hosts it", |hosts| {
        hosts.get(&address).is_some_and(|host| [0, 2].contains(host))
    })?;
    cluster.node(1).tool_ok(&["addip", &with_mask(&address), "lo"])?;
    reallocate(cluster)
}

fn reload(cluster: &Cluster) -> Result<()> {
    for _ in 1..RELOADS {
        let output = cluster.node(0).tool(&["reloadips", "all"])?;
        if output.success() {
            return Ok(());
        }
        let busy = "Failed to disable takeover runs";
        ensure!(output.stderr.contains(busy) || output.stdout.contains(busy), "{output}");
    }
    cluster.node(0).tool_ok(&["reloadips", "all"]).map(drop)
}

fn reloadips(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let file = node.base().join("public_addresses");
    let whole = fs::read_to_string(&file)?;
    let (line, rest) = whole.split_once('\n').context("a file with a line")?;
    let address = line.split('/').next().unwrap_or_default().to_owned();
    fs::write(&file, rest)?;
    reload(cluster)?;
    ensure!(!known(&node)?.contains_key(&address), "{address} is still known");
    fs::write(&file, &whole)?;
    reload(cluster)?;
    ensure!(known(&node)?.len() == whole.lines().count(), "not all are back");
    fs::write(&file, "")?;
    reload(cluster)?;
    ensure!(known(&node)?.is_empty(), "some are left: {:?}", known(&node)?);
    fs::write(&file, &whole)?;
    reload(cluster)
}

fn iface_gc(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let shown = || node.tool_ok(&["-X", "ifaces"]);
    ensure!(shown()?.contains("|lo|"), "it is there at first");
    for address in known(&node)?.keys() {
        node.tool_ok(&["delip", address])?;
    }
    reallocate(cluster)?;
    wait_until("the interface is gone", PATIENCE, || {
        shown().ok().filter(|shown| !shown.contains("|lo|")).map(drop)
    })?;
    reload(cluster)
}

fn moveip(cluster: &Cluster) -> Result<()> {
    everywhere(cluster, &["setvar", "IPAllocAlgorithm", "2"])?;
    everywhere(cluster, &["setvar", "NoIPFailback", "1"])?;
    reallocate(cluster)?;
    let spread = await_hosts(cluster, "addresses on two nodes, none without", |hosts| {
        let used = (0..3).filter(|node| hosts.values().any(|host| host == node)).count();
        used >= 2 && !hosts.values().any(|host| *host < 0)
    })?;
    let (address, host) = spread.iter().next().context("there are addresses")?;
    let to = (host + 1) % 3;
    cluster.node(0).tool_ok(&["moveip", address, &to.to_string()])?;
    await_hosts(cluster, "the address has moved", |hosts| hosts.get(address) == Some(&to))?;
    everywhere(cluster, &["setvar", "NoIPFailback", "0"])
}

/// `there` and `back` on node 2, from node 1.
fn away_and_back(cluster: &Cluster, there: &str, back: &str, flag: &str) -> Result<()> {
    let from = cluster.node(1);
    from.tool_ok(&["-n", "2", there])?;
    for node in cluster.nodes() {
        wait_until("everybody sees it", PATIENCE, || {
            let seen = node.tool(&["nodestatus", "2"]).ok()?;
            seen.stdout.contains(flag).then_some(())
        })?;
    }
    let none =
        |hosts: &Hosts| hosted_by(hosts, 2).is_empty() && !hosts.values().any(|host| *host < 0);
    await_hosts(cluster, "the others host all", none)?;
    from.tool_ok(&["-n", "2", back])?;
    await_hosts(cluster, "it hosts again", |hosts| !hosted_by(hosts, 2).is_empty()).map(drop)
}

fn disable_enable(cluster: &Cluster) -> Result<()> {
    away_and_back(cluster, "disable", "enable", "DISABLED")
}

fn stop_continue(cluster: &Cluster) -> Result<()> {
    away_and_back(cluster, "stop", "continue", "STOPPED")
}

fn no_takeover(cluster: &Cluster) -> Result<()> {
    everywhere(cluster, &["setvar", "NoIPTakeover", "1"])?;
    cluster.node(1).tool_ok(&["-n", "2", "disable"])?;
    ensure!(hosted_by(&hosts(cluster)?, 2).is_empty(), "none right after `disable`");
    cluster.node(1).tool_ok(&["-n", "2", "enable"])?;
    reallocate(cluster)?;
    ensure!(hosted_by(&hosts(cluster)?, 2).is_empty(), "none after `enable`");
    everywhere(cluster, &["setvar", "NoIPTakeover", "0"])?;
    reallocate(cluster)?;
    await_hosts(cluster, "it hosts again", |hosts| !hosted_by(hosts, 2).is_empty()).map(drop)
}

fn missing(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1);
    let address = one_of(cluster, 1)?;
    everywhere(cluster, &["delip", &address])?;
    reallocate(cluster)?;
    await_hosts(cluster, "the address is gone", |hosts| !hosts.contains_key(&address))?;
    node.tool_ok(&["setifacelink", "lo", "down"])?;
    node.tool_ok(&["addip", &with_mask(&address), "lo"])?;
    for _ in 0..3 {
        reallocate(cluster)?;
        let host = hosts(cluster)?.get(&address).copied();
        ensure!(host == Some(-1), "hosted without a link: {host:?}");
    }
    node.tool_ok(&["setifacelink", "lo", "up"])?;
    await_hosts(cluster, "hosted again", |hosts| hosts.get(&address) == Some(&1))?;
    reload(cluster)
}

fn without(subject: &Subject) -> Result<()> {
    let mut config = Config::new(3).all(subject).with_public_addresses();
    config.extra_conf = "[failover]\n\tdisabled = true\n".into();
    // Nobody ever hosts an address there, which is what a settled cluster is known by.
    let cluster = Cluster::prepare(config)?;
    for node in cluster.nodes() {
        node.start()?;
    }
    wait_until("all nodes are OK", Duration::from_secs(120), || {
        cluster.node(0).tool(&["nodestatus", "all"]).ok().filter(|seen| seen.success()).map(drop)
    })
    .with_context(|| cluster.log_tails())?;
    reallocate(&cluster)?;
    let hosts = hosts(&cluster)?;
    ensure!(hosts.len() == 6 && hosts.values().all(|host| *host == -1), "{hosts:?}");
    drop(cluster);

    let cluster = Cluster::start(Config::new(3).all(subject))?;
    reallocate(&cluster)?;
    ensure!(asked(&cluster.node(0), &["-X", "ip", "all"])?.is_empty(), "no addresses at all");
    cluster.stop()
}
