//! Increments a shared counter under its record lock; run several at once, on several nodes, and
//! nothing is lost: `cargo run -p ringmaster-client --example counter -- 1000`.

use anyhow::Result;
use ringmaster_client::{Client, DbKind};

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(100), |word| word.parse::<u32>())?;
    let mut client = Client::connect()?;
    let mut database = client.open("counter-example.tdb", DbKind::Volatile)?;
    let mut last = 0;
    for _ in 0..rounds {
        let mut record = client.lock_record(&mut database, b"counter")?;
        last = record.value().try_into().map_or(0, u64::from_le_bytes) + 1;
        record.store(&last.to_le_bytes())?;
        record.unlock()?;
    }
    println!("{rounds} increments, the counter is at {last}");
    Ok(())
}
