//! Steps that several scenarios take.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use ringmaster_client::DbKind;
use ringmaster_protocol::control::{InStatus, kinds};
use ringmaster_protocol::hash::jenkins;
use ringmaster_protocol::node::{NodeFlags, NodeMap};
use ringmaster_protocol::process::RecMode;
use ringmaster_protocol::record::RecordHeader;

use crate::PATIENCE;
use crate::life::{Life, pnn};
use crate::load::Load;
use crate::load::counters::Counters;
use crate::load::messages::Messages;
use crate::load::toggles::Toggles;
use crate::load::transactions::Transactions;

/// The usual load: two workers a node on counters, one each on records that come and go, on a
/// persistent and on a replicated database, and messages between all nodes where no connection
/// breaks.
pub struct Usual {
    /// Its workers.
    pub load: Load,
    counters: Counters,
    toggles: Option<Toggles>,
    persistent: Transactions,
    replicated: Transactions,
    messages: Option<Messages>,
}

impl Usual {
    /// Starts it on all nodes.
    #[must_use]
    pub fn start(life: &Life) -> Self {
        let toggles = Some(Toggles::new("toggles.tdb", 14));
        Self::start_with(life, toggles, Some(Messages::new(life)))
    }

    /// As [`Usual::start`] without messages, for scenarios that break connections.
    #[must_use]
    pub fn start_without_messages(life: &Life) -> Self {
        Self::start_with(life, Some(Toggles::new("toggles.tdb", 14)), None)
    }

    /// And without records that come and go, for scenarios in which a node is lost, but not its
    /// files: deleted records come back then. A recovery without the node forgets what was
    /// deleted; the one after its return takes the node's old copies for the only ones.
    #[must_use]
    pub fn start_lasting(life: &Life) -> Self {
        Self::start_with(life, None, None)
    }

    fn start_with(life: &Life, toggles: Option<Toggles>, messages: Option<Messages>) -> Self {
        let mut usual = Self {
            load: Load::new(),
            counters: Counters::new("counters.tdb", 14),
            toggles,
            persistent: Transactions::new("persistent.tdb", DbKind::Persistent),
            replicated: Transactions::new("replicated.tdb", DbKind::Replicated),
            messages,
        };
        for node in life.nodes() {
            usual.work(life, node);
        }
        usual
    }

    fn work(&mut self, life: &Life, node: usize) {
        let load = &mut self.load;
        load.add(life, node, "counting", self.counters.counting(node));
        load.add(life, node, "counting too", self.counters.counting(node));
        load.add(life, node, "reading", self.counters.reading());
        if let Some(toggles) = &self.toggles {
            load.add(life, node, "toggling", toggles.toggling());
        }
        load.add(life, node, "committing", self.persistent.committing(node));
        load.add(life, node, "committing replicated", self.replicated.committing(node));
        if let Some(messages) = &self.messages {
            load.add(life, node, "messaging", messages.messaging(node));
        }
    }

    /// Ends it and checks that nothing was lost.
    ///
    /// # Errors
    /// Something was, or a worker failed.
    pub fn finish(self, life: &Life) -> Result<()> {
        self.load.finish()?;
        self.counters.check(life)?;
        self.toggles.as_ref().map_or(Ok(()), |toggles| toggles.check(life))?;
        self.persistent.check(life)?;
        self.replicated.check(life)?;
        self.messages.map_or(Ok(()), |messages| messages.check())
    }

    /// The clients leave `node`, and what lives there moves to `heir`: what is done to `node` now
    /// can cost no record. Everybody rests meanwhile: old copies that stay behind must show no
    /// transaction's lock, for one that comes back (see [`Usual::start_lasting`]) is held for ever.
    ///
    /// # Errors
    /// A worker failed, or a record does not move.
    pub fn evacuate(&self, life: &Life, node: usize, heir: usize) -> Result<()> {
        for resting in life.nodes() {
            self.load.pause(resting)?;
        }
        evacuate(life, node, heir)?;
        for other in life.others(node) {
            self.load.resume(other);
        }
        Ok(())
    }
}

impl Usual {
    /// Does what `hurt` does to `node`, which is evacuated, when no file has an old copy of a
    /// transaction's lock: the lock's record comes and goes (see [`Usual::start_lasting`]), and an old
    /// one that comes back is held for ever, or lets two have it. So transactions rest, and a recovery
    /// forgets the deleted records everywhere.
    ///
    /// # Errors
    /// A worker failed, there is no recovery, or `hurt` fails.
    pub fn hurt(&self, life: &Life, node: usize, hurt: impl FnOnce() -> Result<()>) -> Result<()> {
        let commits = |name: &str| name.starts_with("committing");
        self.load.pause_those(|name, _| commits(name))?;
        recover(life, life.others(node)[0])?;
        hurt()?;
        self.load.resume_those(|name, at| commits(name) && at != node);
        Ok(())
    }

    /// Waits until the others have given `node` up and recovered without it, and the load gets on.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn go_on_without(&self, life: &Life, node: usize) -> Result<()> {
        self.is_given_up(life, node)?;
        let others = life.others(node);
        life.wait("a recovery without the node", || {
            (lmasters(life, others[0]).ok()? == others).then_some(())
        })?;
        self.load.rounds(5)
    }

    /// Waits until the others know that `node` is gone. There may be nobody to lead a recovery.
    ///
    /// # Errors
    /// They do not.
    pub fn is_given_up(&self, life: &Life, node: usize) -> Result<()> {
        let others = life.others(node);
        life.wait("the others give the node up", || {
            let given_up = others.iter().all(|observer| {
                let map = node_map(life, *observer).ok();
                let flags = map.and_then(|map| map.find(pnn(node)).map(|entry| entry.flags));
                flags.is_some_and(|flags| flags.contains(NodeFlags::DISCONNECTED))
            });
            given_up.then_some(())
        })
    }

    /// Waits until all nodes are healthy together, and the load gets on.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn go_on_with_all(&self, life: &Life) -> Result<()> {
        life.settle(&life.nodes())?;
        self.load.rounds(5)
    }
}

/// Recovers the cluster by the tool on `node`, and waits until all nodes have left the recovery.
///
/// # Errors
/// They do not.
pub fn recover(life: &Life, node: usize) -> Result<()> {
    let before = generation(life, node)?;
    life.ctdb(node, &["recover"])?;
    life.wait("a recovery everywhere", || {
        let done = |node: usize| -> Result<bool> {
            let mut client = life.client(node)?;
            let to = client.own_node();
            let InStatus(mode) = client.control::<kinds::GetRecMode>(to, &())?;
            Ok(mode == RecMode::Normal && generation(life, node)? != before)
        };
        life.nodes().into_iter().all(|node| done(node).unwrap_or(false)).then_some(())
    })
}

/// Moves every record of the volatile databases that `node` owns to `heir`.
///
/// # Errors
/// A record does not move.
pub fn evacuate(life: &Life, node: usize, heir: usize) -> Result<()> {
    let databases = life.client(node)?.databases()?;
    for (_, kind, name) in databases {
        if kind.is_everywhere() {
            continue;
        }
        let (_client, mut there) = life.open(node, &name, kind)?;
        let (mut client, mut here) = life.open(heir, &name, kind)?;
        let mut keys = Vec::new();
        there.for_each_local(PATIENCE, |key, header, _| {
            if header.dmaster.is(pnn(node)) {
                keys.push(key.to_vec());
            }
            true
        })?;
        for key in keys {
            client.lock_record(&mut here, &key)?.unlock()?;
        }
    }
    Ok(())
}

/// The node map as `node` sees it.
///
/// # Errors
/// The node does not answer.
pub fn node_map(life: &Life, node: usize) -> Result<NodeMap> {
    let mut client = life.client(node)?;
    let to = client.own_node();
    Ok(client.control::<kinds::GetNodeMap>(to, &())?)
}

/// Waits until every node of `observers` sees exactly `flags` at `node`.
///
/// # Errors
/// Not in time.
pub fn wait_for_flags(
    life: &Life,
    observers: &[usize],
    node: usize,
    flags: NodeFlags,
) -> Result<()> {
    let mut seen = BTreeMap::new();
    let all_see = |seen: &mut BTreeMap<usize, String>| {
        for observer in observers {
            let map = node_map(life, *observer).ok()?;
            let found = map.find(pnn(node)).map(|entry| entry.flags);
            seen.insert(*observer, format!("{found:?}"));
            if found != Some(flags) {
                return None;
            }
        }
        Some(())
    };
    let waited = life.wait("flags seen by all", || all_see(&mut seen));
    waited.with_context(|| format!("node {node} should be {flags}, is seen as {seen:?}"))
}

/// The map from hash to lmaster, as `node` has it.
///
/// # Errors
/// The node does not answer.
pub fn lmasters(life: &Life, node: usize) -> Result<Vec<usize>> {
    let mut client = life.client(node)?;
    let to = client.own_node();
    let map = client.control::<kinds::GetVnnMap>(to, &())?.map;
    Ok(map.into_iter().map(|pnn| pnn.get() as usize).collect())
}

/// The generation, as `node` has it.
///
/// # Errors
/// The node does not answer.
pub fn generation(life: &Life, node: usize) -> Result<u32> {
    let mut client = life.client(node)?;
    let to = client.own_node();
    Ok(client.control::<kinds::GetVnnMap>(to, &())?.generation.0)
}

/// A key that begins with `stem` and has `lmaster` as its location master.
///
/// # Panics
/// `lmaster` is in no place of the map: a mistake in the scenario.
#[must_use]
pub fn key_at(map: &[usize], lmaster: usize, stem: &str) -> Vec<u8> {
    assert!(map.contains(&lmaster), "node {lmaster} is not in {map:?}");
    let is_there = |key: &Vec<u8>| map[jenkins(key) as usize % map.len()] == lmaster;
    let mut keys = (0..).map(|number: u32| format!("{stem} {number}").into_bytes());
    keys.find(is_there).expect("a hash has all remainders")
}

/// Header and value of a record as it lies in a node's file.
///
/// # Errors
/// The file cannot be read.
pub fn local(
    life: &Life,
    node: usize,
    name: &str,
    key: &[u8],
) -> Result<Option<(RecordHeader, Vec<u8>)>> {
    let (_client, mut database) = life.open(node, name, DbKind::Volatile)?;
    Ok(database.fetch_local(key, PATIENCE)?)
}

/// Stores `value` under the record's lock on `node`; what stood there.
///
/// # Errors
/// The record cannot be locked.
pub fn store(life: &Life, node: usize, name: &str, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    let (mut client, mut database) = life.open(node, name, DbKind::Volatile)?;
    let mut record = client.lock_record(&mut database, key)?;
    let before = record.value().to_vec();
    if value.is_empty() {
        record.delete(&mut client)?;
    } else {
        record.store(value)?;
        record.unlock()?;
    }
    Ok(before)
}

/// Attaches a database on `node` (`kind`: nothing, `persistent`, `replicated`) and waits until all nodes
/// know it: the others are only told.
///
/// # Errors
/// It is not attached.
pub fn attach_everywhere(life: &Life, node: usize, name: &str, kind: DbKind) -> Result<()> {
    life.client(node)?.attach(name, kind)?;
    for other in life.nodes() {
        let mut client = life.client(other)?;
        life.wait("the new database everywhere", || {
            let found = client.databases().ok()?;
            found
                .iter()
                .any(|(_, its_kind, its_name)| (*its_kind, &**its_name) == (kind, name))
                .then_some(())
        })?;
    }
    Ok(())
}

/// Sets a tunable on the nodes given.
///
/// # Errors
/// A node does not take it.
pub fn set_tunable(life: &Life, nodes: &[usize], name: &str, value: u32) -> Result<()> {
    let value = value.to_string();
    nodes.iter().try_for_each(|node| life.ctdb(*node, &["setvar", name, &value]).map(drop))
}

/// Records that `ctdb catdb` prints on a node, sorted, without the database's own one.
///
/// # Errors
/// The tool fails, or counts otherwise.
pub fn catdb(life: &Life, node: usize, name: &str) -> Result<Vec<String>> {
    let text = life.ctdb(node, &["catdb", name])?;
    let Some((body, count)) = text.trim_end().rsplit_once("Dumped ") else {
        bail!("catdb on node {node} printed no closing line:\n{text}");
    };
    let mut records: Vec<_> = body.split("\n\n").map(|block| block.trim().to_owned()).collect();
    records.retain(|record| !record.is_empty());
    records.sort();
    let count = count.split(' ').next().and_then(|word| word.parse().ok());
    ensure!(count == Some(records.len()), "catdb printed {} records and {count:?}", records.len());
    records.retain(|record| !record.contains("__db_sequence_number__"));
    Ok(records)
}
