//! Counters in a database that every node has, changed in transactions.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, Database, DbKind, TransactionOptions};

use super::Work;
use crate::PATIENCE;
use crate::history::{Increment, totals};
use crate::life::Life;

/// Keys of a transaction: the counter, and a second one that must always be equal to it.
const COUNTER: &[u8] = b"counter";
const TWIN: &[u8] = b"twin";

/// One counter of a persistent or replicated database. Clones count together.
#[derive(Clone, Debug)]
pub struct Transactions {
    name: String,
    kind: DbKind,
    acknowledged: Arc<Mutex<Vec<Increment>>>,
}

struct Committing {
    transactions: Transactions,
    node: usize,
    own: u32,
}

fn number_of(value: Option<Vec<u8>>) -> Result<u32> {
    let value = value.unwrap_or_else(|| vec![0; 4]);
    let Ok(bytes) = value[..].try_into() else {
        anyhow::bail!("a counter of a transaction holds {value:x?}");
    };
    Ok(u32::from_le_bytes(bytes))
}

fn key_of(node: usize) -> Vec<u8> {
    format!("of node {node}").into_bytes()
}

impl Transactions {
    /// The database `name` of a kind that every node has.
    #[must_use]
    pub fn new(name: &str, kind: DbKind) -> Self {
        assert!(kind.is_everywhere(), "volatile databases have no transactions");
        Self { name: name.to_owned(), kind, acknowledged: Arc::default() }
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A worker that commits one increment after the other.
    #[must_use]
    pub fn committing(&self, node: usize) -> impl Work + use<> {
        Committing { transactions: self.clone(), node, own: 0 }
    }

    /// On every node all values are what the acknowledged commits made them, and all files have the
    /// same sequence number.
    ///
    /// # Errors
    /// It is not so.
    pub fn check(&self, life: &Life) -> Result<()> {
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let total = totals(&acknowledged).with_context(|| self.name.clone())?;
        let total = total.get(&0).copied().context("nothing was committed")?;
        for node in life.pids().into_keys() {
            let (mut client, mut database) = life.open(node, &self.name, self.kind)?;
            let mut read = |key: &[u8]| number_of(client.fetch(&mut database, key)?);
            let found = [read(COUNTER)?, read(TWIN)?];
            ensure!(
                found == [total, total],
                "{} on node {node}: {found:?} in the file, {total} acknowledged",
                self.name
            );
            for other in life.nodes() {
                let done = acknowledged.iter().filter(|commit| commit.node == other).count();
                ensure!(read(&key_of(other))? as usize == done, "{}: of node {other}", self.name);
            }
            let seqnum = life.ctdb(node, &["getdbseqnum", &self.name])?;
            ensure!(
                seqnum.trim() == format!("{total:#x}"),
                "{} on node {node}: sequence number {seqnum} after {total} commits",
                self.name
            );
        }
        Ok(())
    }
}

impl Work for Committing {
    type Tool = Database;

    fn begin(&mut self, client: &mut Client) -> Result<Database> {
        let Transactions { name, kind, .. } = &self.transactions;
        Ok(client.open(name, *kind)?)
    }

    fn round(&mut self, client: &mut Client, database: &mut Database) -> Result<()> {
        let options =
            TransactionOptions { lock_timeout: PATIENCE, ..TransactionOptions::default() };
        let mut transaction = client.begin_with(database, options)?;
        let value = number_of(transaction.fetch(COUNTER)?)?;
        let twin = number_of(transaction.fetch(TWIN)?)?;
        ensure!(value == twin, "half a transaction is visible: {value} and {twin}");
        let next = (value + 1).to_le_bytes();
        transaction.store(COUNTER, &next)?;
        transaction.store(TWIN, &next)?;
        self.own += 1;
        transaction.store(&key_of(self.node), &self.own.to_le_bytes())?;
        transaction.commit()?;
        let increment = Increment { key: 0, value: value + 1, node: self.node };
        self.transactions
            .acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(increment);
        Ok(())
    }
}
