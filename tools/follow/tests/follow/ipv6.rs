//! Nodes with IPv6 addresses.

use anyhow::{Result, ensure};
use ringmaster_compat::cluster::Network;
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::Usual;

super::lives!(|config| config.network(Network::Ipv6), story);

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
