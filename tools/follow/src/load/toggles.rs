//! Records that come and go: created where nothing is, deleted where something is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, Database, DbKind};

use super::Work;
use crate::history::{Coming, Token};
use crate::life::Life;

/// A set of records that come and go. Clones work on the same.
#[derive(Clone, Debug)]
pub struct Toggles {
    name: String,
    count: u32,
    comings: Arc<Mutex<BTreeMap<u32, Coming>>>,
    workers: Arc<Mutex<u16>>,
}

struct Toggling {
    toggles: Toggles,
    worker: u16,
    sequence: u32,
}

impl Toggles {
    /// `count` records in the volatile database `name`.
    #[must_use]
    pub fn new(name: &str, count: u32) -> Self {
        Self { name: name.to_owned(), count, comings: Arc::default(), workers: Arc::default() }
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key of record `number`.
    #[must_use]
    pub fn key(number: u32) -> Vec<u8> {
        format!("toggle {number}").into_bytes()
    }

    /// A worker that makes and deletes them in turn.
    #[must_use]
    pub fn toggling(&self) -> impl Work + use<> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        *workers += 1;
        Toggling { toggles: self.clone(), worker: *workers, sequence: 0 }
    }

    fn toggle(
        &self,
        client: &mut Client,
        database: &mut Database,
        key: u32,
        token: Token,
    ) -> Result<()> {
        let mut record = client.lock_record(database, &Self::key(key))?;
        if record.value().is_empty() {
            record.store(&token.to_bytes())?;
            self.note(key, |coming| coming.created.push(token));
            return Ok(record.unlock()?);
        }
        let found = Token::from_bytes(record.value())?;
        self.note(key, |coming| coming.deleted.push(found));
        Ok(record.delete(client)?)
    }

    fn note(&self, key: u32, note: impl FnOnce(&mut Coming)) {
        let mut comings = self.comings.lock().unwrap_or_else(PoisonError::into_inner);
        note(comings.entry(key).or_default());
    }

    /// On every node each record is there or not as the acknowledged operations left it.
    ///
    /// # Errors
    /// One is not.
    pub fn check(&self, life: &Life) -> Result<()> {
        let comings = self.comings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        ensure!(!comings.is_empty(), "{}: nothing was done", self.name);
        for node in life.pids().into_keys() {
            let (mut client, mut database) = life.open(node, &self.name, DbKind::Volatile)?;
            for (key, coming) in &comings {
                let value = client.fetch(&mut database, &Self::key(*key))?;
                let left = value.map(|value| Token::from_bytes(&value)).transpose()?;
                coming
                    .check(left)
                    .with_context(|| format!("{} on node {node}: record {key}", self.name))?;
            }
        }
        Ok(())
    }

    /// Deletes what is there, from `node`.
    ///
    /// # Errors
    /// A record cannot be locked.
    pub fn delete_all(&self, life: &Life, node: usize) -> Result<()> {
        let (mut client, mut database) = life.open(node, &self.name, DbKind::Volatile)?;
        for key in 0..self.count {
            let record = client.lock_record(&mut database, &Self::key(key))?;
            if !record.value().is_empty() {
                let found = Token::from_bytes(record.value())?;
                self.note(key, |coming| coming.deleted.push(found));
            }
            // Also what has long been empty: it is scheduled for deletion again.
            record.delete(&mut client)?;
        }
        Ok(())
    }
}

impl Work for Toggling {
    type Tool = Database;

    fn begin(&mut self, client: &mut Client) -> Result<Database> {
        Ok(client.open(&self.toggles.name, DbKind::Volatile)?)
    }

    fn round(&mut self, client: &mut Client, database: &mut Database) -> Result<()> {
        self.sequence += 1;
        let key = (self.sequence + u32::from(self.worker)) % self.toggles.count;
        let token = Token::new(self.worker, self.sequence);
        self.toggles.toggle(client, database, key, token)
    }
}
