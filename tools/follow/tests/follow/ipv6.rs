//! Nodes with IPv6 addresses.

use std::path::Path;

use anyhow::{Result, ensure};
use ringmaster_compat::cluster::Network;
use ringmaster_compat::prerequisite::skip;
use ringmaster_follow::life::{CCC, CCO, COO, Composition, Life, live};
use ringmaster_follow::steps::Usual;

fn live_with_ipv6(composition: Composition) {
    if !Path::new("/proc/net/if_inet6").exists() {
        return skip("the kernel has no IPv6");
    }
    live(composition, |config| config.network(Network::Ipv6), story);
}

#[test]
fn ccc() {
    live_with_ipv6(CCC);
}

#[test]
fn cco() {
    live_with_ipv6(CCO);
}

#[test]
fn coo() {
    live_with_ipv6(COO);
}

fn story(life: &Life) -> Result<()> {
    let usual = Usual::start_without_messages(life);
    usual.load.rounds(10)?;
    for node in life.nodes() {
        let status = life.both(node, &["status"], &[])?;
        for other in life.nodes() {
            let address = life.node(other).address();
            ensure!(address.is_ipv6() && status.contains(&address.to_string()), "{status}");
        }
    }
    // Connections are made anew in both directions.
    let node = 2;
    usual.evacuate(life, node, 0)?;
    life.node(node).kill()?;
    usual.go_on_without(life, node)?;
    life.node(node).start()?;
    usual.go_on_with_all(life)?;
    usual.load.resume(node);
    usual.load.rounds(10)?;
    usual.finish(life)
}
