//! A cluster of C daemons to play with: `cargo run -p ringmaster-compat --example cluster -- 3`.
//! Prints each node's environment and runs until its standard input ends.

use std::io::Read;

use anyhow::{Context, Result};
use ringmaster_compat::cluster::{Cluster, Config};

fn main() -> Result<()> {
    let count = std::env::args().nth(1).map_or(Ok(3), |word| word.parse());
    let count = count.context("the argument is the number of nodes")?;
    let cluster = Cluster::start(Config::new(count).with_public_addresses().first_leads())?;
    for node in cluster.nodes() {
        let base = node.base().display();
        println!("export CTDB_TEST_MODE=yes CTDB_BASE={base} CTDB_SOCKET={base}/run/ctdbd.socket");
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    cluster.stop()
}
