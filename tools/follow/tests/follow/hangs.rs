//! Nodes that hang and go on, cables that are cut and mended, while clients work where they can.
//! Old copies stay in the files of the node that was lost.

use anyhow::{Context, Result};
use ringmaster_compat::cluster::Network;
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::Usual;
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
        usual.load.resume(node);
        usual.load.rounds(5)?;
    }
    usual.finish(life)
}

fn hanging(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    life.node(node).signal_daemon(Signal::STOP)?;
    usual.go_on_without(life, node)?;
    life.node(node).signal_daemon(Signal::CONT)?;
    usual.go_on_with_all(life)
}

fn alone(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    for other in life.others(node) {
        life.cluster.cut(node, other)?;
    }
    usual.go_on_without(life, node)?;
    for other in life.others(node) {
        life.cluster.mend(node, other)?;
    }
    usual.go_on_with_all(life)
}
