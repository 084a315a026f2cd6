//! Sends a message to the same example on all nodes and prints what arrives for some seconds:
//! `cargo run -p ringmaster-client --example messages -- hello 3`.

use std::time::Duration;

use anyhow::Result;
use ringmaster_client::Client;
use ringmaster_protocol::{Destination, Srvid};

/// In the range for tests.
const ROOM: Srvid = Srvid(0xAE00_0000_0000_00E0);

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let text = words.next().unwrap_or_else(|| "hello".into());
    let seconds = words.next().map_or(Ok(2), |word| word.parse())?;
    let mut client = Client::connect()?;
    client.register_handler(ROOM, |message| {
        println!("{}", String::from_utf8_lossy(&message.data));
    })?;
    let text = format!("node {}: {text}", client.pnn());
    client.send_message(Destination::BroadcastConnected, ROOM, text.as_bytes())?;
    client.serve(Duration::from_secs(seconds))?;
    Ok(())
}
