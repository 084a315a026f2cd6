//! Moves an amount between two records of a persistent database, on all nodes or on none:
//! `cargo run -p ringmaster-client --example transaction -- 5`.

use anyhow::Result;
use ringmaster_client::{Client, DbKind};

fn main() -> Result<()> {
    let amount = std::env::args().nth(1).map_or(Ok(1), |word| word.parse::<i64>())?;
    let mut client = Client::connect()?;
    let mut database = client.open("transaction-example.tdb", DbKind::Persistent)?;
    let mut transaction = client.begin(&mut database)?;
    let mut balances = Vec::new();
    for (account, change) in [("left", -amount), ("right", amount)] {
        let old = transaction.fetch(account.as_bytes())?.unwrap_or_default();
        let balance = old[..].try_into().map_or(0, i64::from_le_bytes) + change;
        transaction.store(account.as_bytes(), &balance.to_le_bytes())?;
        balances.push(format!("{account}: {balance}"));
    }
    transaction.commit()?;
    println!("{}", balances.join(", "));
    Ok(())
}
