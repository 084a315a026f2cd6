//! Nodes that die or leave in order, and come back, while clients work on the others.

use anyhow::{Context, Result};
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::Usual;

super::lives!(|config| config, story);

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start_without_messages(life);
    usual.load.rounds(5)?;
    for node in life.nodes() {
        if life.composition.leaders() == [node] {
            // Nobody else may lead the recovery without it.
            continue;
        }
        let heir = life.others(node)[0];
        usual.evacuate(life, node, heir)?;
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

fn leaving(life: &Life, usual: &Usual, node: usize) -> Result<()> {
    life.node(node).shutdown()?;
    usual.go_on_without(life, node)?;
    life.node(node).start()?;
    usual.go_on_with_all(life)
}
