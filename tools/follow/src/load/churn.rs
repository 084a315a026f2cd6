//! Records that are made and deleted at a steady rate, and how long a locked fetch takes beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, Database, DbKind};

use super::Work;
use crate::life::Life;
use crate::steps::catdb;

/// Keys of a node, used in turn: a record is long deleted when it is made again.
const RING: u64 = 20_000;
/// Records of a node that are there at any time.
const LIVE: u64 = 200;
/// Most records of one round. Who is behind by more does not catch up.
const BATCH: u64 = 40;
/// Records that are locked in turn by everybody to see how long it takes.
const PROBES: u64 = 1_000;

/// Records that come and go. Clones work on the same.
#[derive(Clone, Debug)]
pub struct Churn {
    name: String,
    per_second: u64,
    /// Records that each node has made.
    made: Arc<Mutex<BTreeMap<usize, u64>>>,
}

struct Churning {
    churn: Churn,
    node: usize,
    since: Instant,
    /// Records made since then, and not made for lack of time.
    done: u64,
}

/// How long locked fetches took. Clones measure together.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Arc<Mutex<Vec<Duration>>>);

struct Probing {
    name: String,
    latencies: Latencies,
    random: u64,
}

fn key(node: usize, number: u64) -> Vec<u8> {
    format!("churned by {node}: {}", number % RING).into_bytes()
}

fn value(node: usize, number: u64) -> Vec<u8> {
    format!("record {number} of node {node}").into_bytes()
}

impl Churn {
    /// So many are made, and so many deleted, each second on each node, in the volatile database `name`.
    #[must_use]
    pub fn new(name: &str, per_second: u64) -> Self {
        Self { name: name.to_owned(), per_second, made: Arc::default() }
    }

    /// The worker of a node; one for each.
    #[must_use]
    pub fn churning(&self, node: usize) -> impl Work + use<> {
        Churning { churn: self.clone(), node, since: Instant::now(), done: 0 }
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<usize, u64>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records made so far, and as many deleted but for the last few.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.made().values().sum()
    }

    /// Makes the next one, and deletes the oldest.
    fn next(&self, client: &mut Client, database: &mut Database, node: usize) -> Result<()> {
        let number = self.made().get(&node).copied().unwrap_or(0);
        let mut record = client.lock_record(database, &key(node, number))?;
        let found = String::from_utf8_lossy(record.value()).into_owned();
        ensure!(found.is_empty(), "record {number} of node {node} is back: {found}");
        record.store(&value(node, number))?;
        self.made().insert(node, number + 1);
        record.unlock()?;
        if let Some(oldest) = number.checked_sub(LIVE) {
            let record = client.lock_record(database, &key(node, oldest))?;
            let found = String::from_utf8_lossy(record.value()).into_owned();
            ensure!(
                found.as_bytes() == value(node, oldest),
                "record {oldest} of node {node} is lost: {found}"
            );
            record.delete(client)?;
        }
        Ok(())
    }

    /// Every node finds the last few records of every node and no other.
    ///
    /// # Errors
    /// One does not.
    pub fn check(&self, life: &Life) -> Result<()> {
        let made = self.made().clone();
        let mut expected = BTreeSet::new();
        for (node, count) in made {
            ensure!(count > LIVE, "node {node} has made {count} records only");
            expected.extend((count - LIVE..count).map(|number| (node, number)));
        }
        for reader in life.nodes() {
            let found = catdb(life, reader, &self.name)?;
            let churned: Vec<_> = found.iter().filter(|text| text.contains("churned by")).collect();
            ensure!(
                churned.len() == expected.len(),
                "node {reader} finds {} records of {}",
                churned.len(),
                expected.len()
            );
        }
        let (mut client, mut database) = life.open(0, &self.name, DbKind::Volatile)?;
        for (node, number) in expected {
            let found = client.fetch(&mut database, &key(node, number))?;
            ensure!(found == Some(value(node, number)), "record {number} of {node} is {found:?}");
        }
        Ok(())
    }
}

impl Work for Churning {
    type Tool = Database;

    fn begin(&mut self, client: &mut Client) -> Result<Database> {
        (self.since, self.done) = (Instant::now(), 0);
        Ok(client.open(&self.churn.name, DbKind::Volatile)?)
    }

    fn round(&mut self, client: &mut Client, database: &mut Database) -> Result<()> {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = millis.saturating_mul(self.churn.per_second) / 1_000;
        let batch = due.saturating_sub(self.done).min(BATCH);
        self.done = due;
        (0..batch).try_for_each(|_| self.churn.next(client, database, self.node))
    }
}

impl Latencies {
    /// A worker that locks records of the volatile database `name`, in no order, and notes how long
    /// each takes.
    #[must_use]
    pub fn probing(&self, name: &str, node: usize) -> impl Work + use<> {
        let random = 0x9E37_79B9_7F4A_7C15 ^ (node as u64 + 1) << 32;
        Probing { name: name.to_owned(), latencies: self.clone(), random }
    }

    fn noted(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has been noted since the last time, in order of length.
    #[must_use]
    pub fn take(&self) -> Vec<Duration> {
        let mut noted = std::mem::take(&mut *self.noted());
        noted.sort_unstable();
        noted
    }
}

/// Of `sorted`, the least that so many in a thousand do not exceed; zero of nothing.
#[must_use]
pub fn permille(sorted: &[Duration], wanted: usize) -> Duration {
    let place = (sorted.len() * wanted).div_ceil(1_000).max(1);
    sorted.get(place - 1).copied().unwrap_or_default()
}

impl Work for Probing {
    type Tool = Database;

    fn begin(&mut self, client: &mut Client) -> Result<Database> {
        Ok(client.open(&self.name, DbKind::Volatile)?)
    }

    fn round(&mut self, client: &mut Client, database: &mut Database) -> Result<()> {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let key = format!("probe {}", self.random % PROBES).into_bytes();
        let started = Instant::now();
        let mut record = client.lock_record(database, &key).context("a probe")?;
        let took = started.elapsed();
        record.store(b"locked")?;
        record.unlock()?;
        self.latencies.noted().push(took);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permille_is_one_of_the_values() {
        let values: Vec<_> = (1..=2_000).map(Duration::from_micros).collect();
        assert_eq!(permille(&values, 999), Duration::from_micros(1_998));
        assert_eq!(permille(&values, 500), Duration::from_micros(1_000));
        assert_eq!(permille(&values[..1], 999), Duration::from_micros(1));
        assert_eq!(permille(&[], 999), Duration::ZERO);
    }
}
