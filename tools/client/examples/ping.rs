//! Pings every connected node: `cargo run -p ringmaster-client --example ping`.

use std::time::Instant;

use anyhow::Result;
use ringmaster_client::{Client, ControlOptions};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::node::NodeFlags;

fn main() -> Result<()> {
    let mut client = Client::connect()?;
    let nodes = client.control::<kinds::GetNodeMap>(client.own_node(), &())?;
    let connected = nodes.0.iter().filter(|node| !node.flags.intersects(NodeFlags::DISCONNECTED));
    let connected: Vec<_> = connected.map(|node| node.pnn).collect();
    let start = Instant::now();
    client.control_each::<kinds::Ping>(
        &connected,
        &(),
        ControlOptions::default(),
        |pnn, answer| match answer {
            Ok(clients) => {
                let clients = clients.0.0;
                println!("node {pnn}: {clients} clients, after {:?}", start.elapsed());
            }
            Err(error) => println!("node {pnn}: {error}"),
        },
    );
    Ok(())
}
