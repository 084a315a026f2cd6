//! Nodes that hang and go on, cables that are cut and mended, while clients work where they can.
//! Old copies stay in the files of the node that was lost.

use anyhow::{Context, Result};
use ringmaster_compat::cluster::Network;
use ringmaster_follow::life::{Life, pnn};
use ringmaster_follow::steps::{Usual, node_map};
use ringmaster_protocol::node::NodeFlags;
use rustix::process::Signal;

super::lives!(|config| config.network(Network::Cables), story);

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start_lasting(life);
    usual.load.rounds(5)?;
    // A leader that hangs or is cut off keeps the cluster lock, and nobody can lead in its place.
    let leader: usize = life.cluster.settle()?.leader.parse()?;
    for node in life.others(leader) {
        let heir = life.others(node)[0];
        usual.evacuate(life, node, heir)?;
        hanging(life, &usual, node).with_context(|| format!("hang node {node}"))?;
        alone(life, &usual, node).with_context(|| format!("cut node {node} off"))?;
        not_led(life, &usual, node, leader)
            .with_context(|| format!("cut node {node} off its leader {leader}"))?;
        usual.load.resume(node);
        usual.load.rounds(5)?;
    }
    usual.finish(life)
}

fn hanging(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    usual.hurt(life, node, || life.node(node).signal_daemon(Signal::STOP))?;
    usual.go_on_without(life, node)?;
    life.node(node).signal_daemon(Signal::CONT)?;
    usual.go_on_with_all(life)
}

fn alone(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    usual.hurt(life, node, || life.cluster.cut(node, &life.others(node)))?;
    usual.go_on_without(life, node)?;
    life.cluster.mend(node, &life.others(node))?;
    usual.go_on_with_all(life)
}

/// Only one cable is cut: the third node still sees both ends.
fn not_led(life: &Life, usual: &Usual, node: usize, leader: usize) -> Result<()> {
    usual.hurt(life, node, || life.cluster.cut(node, &[leader]))?;
    life.wait("the leader gives the node up", || {
        let map = node_map(life, leader).ok()?;
        map.find(pnn(node))?.flags.contains(NodeFlags::DISCONNECTED).then_some(())
    })?;
    life.cluster.mend(node, &[leader])?;
    usual.go_on_with_all(life)
}
