//! Recoveries of every cause while clients work. No node is lost, so no record may be.

use anyhow::{Context, Result, ensure};
use ringmaster_client::DbKind;
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::{Usual, attach_everywhere, generation, lmasters, wait_for_flags};
use ringmaster_protocol::node::NodeFlags;

super::lives!(|config| config, story);

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start(life);
    usual.load.rounds(10)?;
    for node in life.nodes() {
        recovery_on_demand(life, node).with_context(|| format!("recover on node {node}"))?;
        usual.load.rounds(5)?;
    }
    for node in life.nodes() {
        a_new_database(life, node).with_context(|| format!("new database by node {node}"))?;
        disabled_and_enabled(life, node).with_context(|| format!("disable node {node}"))?;
        usual.load.rounds(5)?;
    }
    for node in life.nodes() {
        // Commits go to the nodes of the VNN map only: without the role, its files lag behind.
        usual.load.pause(node)?;
        lmaster_no_more(life, node).with_context(|| format!("lmaster role of node {node}"))?;
        usual.load.resume(node);
        usual.load.rounds(5)?;
    }
    if life.composition.leaders().len() > 1 {
        leader_no_more(life).context("leader role")?;
        usual.load.rounds(5)?;
    }
    usual.finish(life)
}

/// Waits until all nodes have the same generation, and not `before`.
fn next_generation(life: &Life, before: u32) -> Result<u32> {
    life.wait("a new generation everywhere", || {
        let mut all = life.nodes().into_iter().map(|node| generation(life, node).ok());
        let first = all.next().flatten()?;
        (first != before && all.all(|other| other == Some(first))).then_some(first)
    })
}

fn recovery_on_demand(life: &Life, node: usize) -> Result<()> {
    let before = generation(life, node)?;
    life.ctdb(node, &["recover"])?;
    next_generation(life, before).map(drop)
}

fn a_new_database(life: &Life, node: usize) -> Result<()> {
    for kind in [DbKind::Volatile, DbKind::Persistent, DbKind::Replicated] {
        attach_everywhere(life, node, &format!("new{node}{kind:?}.tdb"), kind)?;
    }
    Ok(())
}

fn disabled_and_enabled(life: &Life, node: usize) -> Result<()> {
    let pnn = node.to_string();
    life.ctdb(life.others(node)[0], &["-n", &pnn, "disable"])?;
    wait_for_flags(life, &life.nodes(), node, NodeFlags::PERMANENTLY_DISABLED)?;
    life.ctdb(node, &["enable"])?;
    wait_for_flags(life, &life.nodes(), node, NodeFlags::NONE)
}

fn lmaster_no_more(life: &Life, node: usize) -> Result<()> {
    let wait_for = |expected: &[usize]| {
        life.wait("the lmasters everywhere", || {
            let all = life.nodes();
            let right = |observer: usize| lmasters(life, observer).is_ok_and(|m| m == expected);
            all.into_iter().all(right).then_some(())
        })
        .with_context(|| format!("{expected:?}"))
    };
    life.ctdb(node, &["setlmasterrole", "off"])?;
    wait_for(&life.others(node))?;
    life.ctdb(node, &["setlmasterrole", "on"])?;
    wait_for(&life.nodes())
}

fn leader_no_more(life: &Life) -> Result<()> {
    let leader = || life.cluster.settle().map(|view| view.leader);
    let before = leader()?;
    let node: usize = before.parse()?;
    life.ctdb(node, &["setleaderrole", "off"])?;
    life.wait("another leader", || {
        let now = life.ctdb(node, &["leader"]).ok()?;
        let now: usize = now.trim().parse().ok()?;
        (now != node).then_some(())
    })?;
    let after = leader()?;
    ensure!(after != before, "node {before} leads still");
    life.ctdb(node, &["setleaderrole", "on"])?;
    Ok(())
}
