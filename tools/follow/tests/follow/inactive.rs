//! Nodes that are told to stay out of it, one after the other, while clients work on the others.

use anyhow::{Context, Result, ensure};
use ringmaster_compat::cluster::Config;
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::{Usual, lmasters, wait_for_flags};
use ringmaster_protocol::node::NodeFlags;

super::lives!(Config::with_public_addresses, story);

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start(life);
    usual.load.rounds(5)?;
    for node in life.nodes() {
        if life.composition.leaders() == [node] {
            // Nobody else may lead the recovery without it.
            continue;
        }
        let heir = life.others(node)[0];
        usual.evacuate(life, node, heir)?;
        stopped_and_continued(life, &usual, node).with_context(|| format!("stop node {node}"))?;
        banned_and_unbanned(life, &usual, node).with_context(|| format!("ban node {node}"))?;
        usual.load.resume(node);
        usual.load.rounds(5)?;
    }
    usual.finish(life)
}

fn stopped_and_continued(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    life.ctdb(node, &["stop"])?;
    wait_for_flags(life, &life.nodes(), node, NodeFlags::STOPPED)?;
    without(life, usual, node)?;
    life.ctdb(life.others(node)[0], &["-n", &node.to_string(), "continue"])?;
    with_again(life, usual, node)
}

fn banned_and_unbanned(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    life.ctdb(life.others(node)[1], &["-n", &node.to_string(), "ban", "300"])?;
    wait_for_flags(life, &life.nodes(), node, NodeFlags::BANNED)?;
    without(life, usual, node)?;
    life.ctdb(node, &["unban"])?;
    with_again(life, usual, node)
}

fn without(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    let others = life.others(node);
    life.wait("recovery without the node", || {
        (lmasters(life, others[0]).ok()? == others).then_some(())
    })?;
    usual.load.rounds(5)?;
    // It answers questions and refuses work.
    life.ctdb(node, &["getdbmap"])?;
    let attached = life.node(node).tool(&["attach", "refused.tdb"])?;
    ensure!(!attached.success(), "node {node} attaches a database while inactive: {attached}");
    Ok(())
}

fn with_again(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    wait_for_flags(life, &life.nodes(), node, NodeFlags::NONE)?;
    life.wait("recovery with the node", || {
        (lmasters(life, node).ok()? == life.nodes()).then_some(())
    })?;
    usual.load.rounds(5)
}
