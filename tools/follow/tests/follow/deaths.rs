//! Nodes that die or leave in order, and come back, while clients work on the others.

use anyhow::{Context, Result};
use ringmaster_compat::cluster::Config;
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::Usual;

super::lives!(Config::with_public_addresses, story);

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start_without_messages(life);
    usual.load.rounds(5)?;
    for node in life.nodes() {
        let heir = life.others(node)[0];
        usual.evacuate(life, node, heir)?;
        if life.composition.leaders() == [node] {
            the_only_leader(life, &usual, node).context("the only leader")?;
            continue;
        }
        killed(life, &usual, node).with_context(|| format!("kill node {node}"))?;
        leaving(life, &usual, node).with_context(|| format!("shut down node {node}"))?;
        usual.load.resume(node);
        usual.load.rounds(5)?;
    }
    usual.finish(life)
}

fn killed(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    life.node(node).kill()?;
    usual.go_on_without(life, node)?;
    life.node(node).start()?;
    usual.go_on_with_all(life)
}

/// Nobody leads the recovery without it. What is asked meanwhile waits for its return.
fn the_only_leader(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    for kill in [true, false] {
        if kill {
            life.node(node).kill()?;
        } else {
            life.node(node).shutdown()?;
        }
        usual.is_given_up(life, node)?;
        life.node(node).start()?;
        usual.go_on_with_all(life)?;
    }
    usual.load.resume(node);
    usual.load.rounds(5)
}

fn leaving(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    life.node(node).shutdown()?;
    usual.go_on_without(life, node)?;
    life.node(node).start()?;
    usual.go_on_with_all(life)
}
