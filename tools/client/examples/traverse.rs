//! Lists the records of a database, from all nodes: `cargo run -p ringmaster-client --example
//! traverse -- NAME`. Without a name: the attached databases.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context, Result};
use ringmaster_client::Client;

fn main() -> Result<()> {
    let mut client = Client::connect()?;
    let databases = client.databases()?;
    let Some(wanted) = std::env::args().nth(1) else {
        for (id, kind, name) in databases {
            println!("{id} {name} {kind:?}");
        }
        return Ok(());
    };
    let found = databases.into_iter().find(|(_, _, name)| *name == wanted);
    let (id, kind, name) = found.with_context(|| format!("{wanted} is not attached"))?;
    client.attach(&name, kind)?;
    let records = client.traverse(id, false, Duration::from_secs(40), |record| {
        let owner = record.header.map_or(0, |header| header.dmaster.raw());
        let key = String::from_utf8_lossy(record.key);
        println!("{key:?}: {} bytes, on node {owner}", record.value.len());
        ControlFlow::Continue(())
    })?;
    println!("{records} records");
    Ok(())
}
