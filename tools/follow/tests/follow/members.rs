//! A fourth node joins the running cluster and is deleted again; the daemons re-read the nodes file.

use anyhow::{Context, Result, ensure};
use ringmaster_compat::cluster::{Config, Subject};
use ringmaster_follow::life::{Life, join_with};
use ringmaster_follow::steps::{Usual, lmasters};

super::lives!(with_a_fourth, story);

fn with_a_fourth(mut config: Config) -> Config {
    // Of the same kind as the last of the three.
    let last = config.subjects.last().cloned().unwrap_or(Subject::CDaemon);
    config.subjects.push(last);
    config.listed(3).follower(3)
}

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start(life);
    usual.load.rounds(5)?;
    let new = 3;
    for _ in 0..2 {
        life.cluster.write_nodes_files(&[Some(0), Some(1), Some(2), Some(3)])?;
        life.node(new).start()?;
        // From a node of ours where there is one, else from C's.
        life.ctdb(2, &["reloadnodes"])?;
        join_with(life, &[0, 1, 2, 3]).context("the fourth node joins")?;
        usual.load.rounds(5)?;
        life.node(new).shutdown()?;
        join_with(life, &[0, 1, 2]).context("the fourth node leaves")?;
        life.cluster.write_nodes_files(&[Some(0), Some(1), Some(2), None])?;
        life.ctdb(0, &["reloadnodes"])?;
        for node in life.nodes() {
            life.wait("no fourth node", || {
                let listed = life.ctdb(node, &["listnodes"]).ok()?;
                (listed.lines().count() == 3).then_some(())
            })?;
            let status = life.both(node, &["status"], &[])?;
            ensure!(!status.contains("pnn:3"), "node {node}: {status}");
        }
        usual.load.rounds(5)?;
    }
    for node in life.nodes() {
        ensure!(lmasters(life, node)? == life.nodes(), "lmasters on node {node}");
    }
    usual.finish(life)
}
