//! Counters in a volatile database, incremented under the chain lock as smbd does, and readers of
//! read-only copies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, Database, DbKind};

use super::Work;
use crate::history::{Increment, totals};
use crate::life::{Life, pnn};

/// A set of counters. Clones count together.
#[derive(Clone, Debug)]
pub struct Counters {
    name: String,
    readonly: bool,
    acknowledged: Arc<Mutex<Vec<Increment>>>,
    /// Of each counter, a value that has been acknowledged.
    floors: Arc<Vec<AtomicU32>>,
}

struct Counting {
    counters: Counters,
    node: usize,
    next: u32,
}

struct Reading {
    counters: Counters,
    next: u32,
}

/// A value carries its number and as many more bytes as make records grow and shrink.
fn value_of(number: u32) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(4 + (number % 61) as usize, number.to_le_bytes()[0]);
    value
}

fn number_of(value: &[u8]) -> Result<u32> {
    let number = match value.first_chunk() {
        Some(bytes) => u32::from_le_bytes(*bytes),
        None if value.is_empty() => return Ok(0),
        None => 0,
    };
    ensure!(value == value_of(number), "a counter's value is damaged: {value:x?}");
    Ok(number)
}

impl Counters {
    /// `count` counters in the volatile database `name`.
    #[must_use]
    pub fn new(name: &str, count: u32) -> Self {
        Self {
            name: name.to_owned(),
            readonly: false,
            acknowledged: Arc::default(),
            floors: Arc::new((0..count).map(|_| AtomicU32::new(0)).collect()),
        }
    }

    /// As [`Counters::new`]; the database allows read-only copies.
    ///
    /// # Errors
    /// It cannot be made to.
    pub fn readonly(life: &Life, name: &str, count: u32) -> Result<Self> {
        let (mut client, database) = life.open(0, name, DbKind::Volatile)?;
        let nodes: Vec<_> = life.nodes().into_iter().map(pnn).collect();
        client.enable_readonly(database.id(), &nodes)?;
        Ok(Self { readonly: true, ..Self::new(name, count) })
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key of counter `number`.
    #[must_use]
    pub fn key(number: u32) -> Vec<u8> {
        format!("counter {number}").into_bytes()
    }

    /// A worker that increments all of them in turn.
    #[must_use]
    pub fn counting(&self, node: usize) -> impl Work + use<> {
        let next = u32::try_from(node).unwrap_or(0) * 5;
        Counting { counters: self.clone(), node, next }
    }

    /// A worker that reads all of them in turn. No read may be older than what was acknowledged
    /// before it began.
    #[must_use]
    pub fn reading(&self) -> impl Work + use<> {
        Reading { counters: self.clone(), next: 0 }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.floors.len()).unwrap_or(u32::MAX)
    }

    /// Increments one counter.
    ///
    /// # Errors
    /// It cannot be locked, or its value is damaged.
    pub fn increment(
        &self,
        client: &mut Client,
        database: &mut Database,
        node: usize,
        key: u32,
    ) -> Result<()> {
        let mut record = client.lock_record(database, &Self::key(key))?;
        let value = number_of(record.value()).with_context(|| format!("counter {key}"))? + 1;
        record.store(&value_of(value))?;
        // Noted before the lock is given back: in the order of values.
        self.note(Increment { key, value, node });
        Ok(record.unlock()?)
    }

    fn note(&self, increment: Increment) {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(increment);
        self.floors[increment.key as usize].fetch_max(increment.value, Ordering::Release);
    }

    /// Acknowledged increments so far.
    #[must_use]
    pub fn acknowledged(&self) -> Vec<Increment> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// On every node every counter has the value that its acknowledged increments make.
    ///
    /// # Errors
    /// One has not.
    pub fn check(&self, life: &Life) -> Result<()> {
        let totals = totals(&self.acknowledged()).with_context(|| self.name.clone())?;
        ensure!(!totals.is_empty(), "{}: nothing was counted", self.name);
        for node in life.pids().into_keys() {
            let (mut client, mut database) = life.open(node, &self.name, DbKind::Volatile)?;
            let mut found = BTreeMap::new();
            for key in totals.keys() {
                let value = client.fetch(&mut database, &Self::key(*key))?.unwrap_or_default();
                found.insert(*key, number_of(&value)?);
            }
            ensure!(
                found == totals,
                "{} on node {node}: counters are at {found:?}, acknowledged were {totals:?}",
                self.name
            );
        }
        Ok(())
    }
}

impl Work for Counting {
    type Tool = Database;

    fn begin(&mut self, client: &mut Client) -> Result<Database> {
        Ok(client.open(&self.counters.name, DbKind::Volatile)?)
    }

    fn round(&mut self, client: &mut Client, database: &mut Database) -> Result<()> {
        let key = self.next % self.counters.count();
        self.next += 1;
        self.counters.increment(client, database, self.node, key)
    }
}

impl Work for Reading {
    type Tool = Database;

    fn begin(&mut self, client: &mut Client) -> Result<Database> {
        Ok(client.open(&self.counters.name, DbKind::Volatile)?)
    }

    fn round(&mut self, client: &mut Client, database: &mut Database) -> Result<()> {
        let key = self.next % self.counters.count();
        self.next += 1;
        let floor = self.counters.floors[key as usize].load(Ordering::Acquire);
        let bytes = Counters::key(key);
        let value = if self.counters.readonly {
            client.fetch_readonly(database, &bytes)?
        } else {
            client.fetch(database, &bytes)?
        };
        let value = number_of(&value.unwrap_or_default())?;
        ensure!(
            value >= floor,
            "{}: counter {key} was read as {value} after {floor} had been acknowledged",
            self.counters.name
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_number_or_damaged() {
        for number in [0, 1, 60, 61, 300, 100_000] {
            assert_eq!(number_of(&value_of(number)).unwrap(), number);
        }
        assert_eq!(number_of(&[]).unwrap(), 0);
        assert!(number_of(&[1]).is_err());
        assert!(number_of(&[3, 0, 0, 0, 3, 3]).is_err());
        assert!(number_of(&[3, 0, 0, 0, 3, 3, 4]).is_err());
    }
}
