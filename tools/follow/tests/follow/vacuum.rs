//! Deleted records vanish from every node's file, and none comes back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringmaster_client::client::ControlOptions;
use ringmaster_client::{Client, Database, DbKind};
use ringmaster_compat::column::our_tool;
use ringmaster_compat::prerequisite::skip;
use ringmaster_follow::PATIENCE;
use ringmaster_follow::life::Life;
use ringmaster_follow::load::Load;
use ringmaster_follow::load::counters::Counters;
use ringmaster_follow::load::toggles::Toggles;
use ringmaster_follow::steps::{catdb, generation, key_at, lmasters, set_tunable, wait_for_flags};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::database::DbVacuum;
use ringmaster_protocol::node::NodeFlags;

super::lives!(|config| config.tunable("VacuumInterval", 2), story);

fn story(life: &Life) -> Result<()> {
    under_load(life).context("under load")?;
    set_tunable(life, &life.nodes(), "VacuumInterval", 100_000)?;
    run_by_run(life).context("run by run")?;
    made_again_between_runs(life).context("made again between runs")?;
    made_again_under_lock(life).context("made again under lock")?;
    deleted_without_a_node(life).context("deleted without a node")
}

fn under_load(life: &Life) -> Result<()> {
    let counters = Counters::new("vacuumed.tdb", 14);
    let toggles = Toggles::new("vacuumed.tdb", 60);
    let mut load = Load::new();
    for node in life.nodes() {
        load.add(life, node, "counting", counters.counting(node));
        for _ in 0..3 {
            load.add(life, node, "toggling", toggles.toggling());
        }
    }
    load.rounds(400)?;
    load.finish()?;
    counters.check(life)?;
    toggles.check(life)?;
    toggles.delete_all(life, life.nodes().len() - 1)?;
    let kept = 14;
    for node in life.nodes() {
        wait_until_gone(life, node)?;
        no_dump_has_it(life, node, toggles.name())?;
    }
    // A recovery takes what any file holds, and there is nothing.
    let before = generation(life, 0)?;
    life.ctdb(0, &["recover"])?;
    life.wait("a recovery", || (generation(life, 0).ok()? != before).then_some(()))?;
    life.cluster.settle()?;
    for node in life.nodes() {
        let records = catdb(life, node, toggles.name())?;
        ensure!(records.len() == kept, "node {node} finds {records:#?}");
    }
    counters.check(life)?;
    toggles.check(life)
}

/// What C's programs and ours read in the node's file.
fn no_dump_has_it(life: &Life, node: usize, name: &str) -> Result<()> {
    let file = life.node(node).volatile_directory().join(format!("{name}.{node}"));
    let file = file.to_string_lossy();
    let mut dumps = vec![
        life.ctdb(node, &["cattdb", name])?,
        life.run_ok(node, Path::new("/usr/bin/tdbdump"), &[&file])?,
    ];
    let by_c = life.run_ok(node, Path::new("/usr/bin/ltdbtool"), &["dump", "-p", &file])?;
    let ours = our_tool().map(|tool| tool.with_file_name("ltdbtool")).filter(|tool| tool.exists());
    match ours {
        Some(ltdbtool) => {
            let by_ours = life.run_ok(node, &ltdbtool, &["dump", "-p", &file])?;
            ensure!(by_c == by_ours, "node {node}: ltdbtool, C's\n{by_c}ours\n{by_ours}");
        }
        None => skip("our ltdbtool is not built (cargo build -p ringmaster-admin)"),
    }
    dumps.push(by_c);
    for dump in dumps {
        ensure!(dump.contains("counter 0"), "node {node}: the counters are not in {dump}");
        ensure!(!dump.contains("toggle"), "node {node}: {dump}");
    }
    Ok(())
}

fn wait_until_gone(life: &Life, node: usize) -> Result<()> {
    let (_client, mut database) = life.open(node, "vacuumed.tdb", DbKind::Volatile)?;
    let mut left = Vec::new();
    let gone = life.wait("the end of deleted records", || {
        left.clear();
        let walked = database.for_each_local(PATIENCE, |key, header, _| {
            if key.starts_with(b"toggle") {
                left.push((String::from_utf8_lossy(key).into_owned(), header));
            }
            true
        });
        (walked.is_ok() && left.is_empty()).then_some(())
    });
    gone.with_context(|| format!("node {node} still has {left:?}"))
}

/// Clients of all nodes with one database.
struct Hands {
    at: Vec<(Client, Database)>,
}

impl Hands {
    fn of(life: &Life, name: &str) -> Result<Self> {
        let open = |node| life.open(node, name, DbKind::Volatile);
        Ok(Self { at: life.nodes().into_iter().map(open).collect::<Result<_>>()? })
    }

    fn store(&mut self, node: usize, key: &[u8], value: &[u8]) -> Result<()> {
        let (client, database) = &mut self.at[node];
        let mut record = client.lock_record(database, key)?;
        record.store(value)?;
        Ok(record.unlock()?)
    }

    fn delete(&mut self, node: usize, key: &[u8]) -> Result<()> {
        let (client, database) = &mut self.at[node];
        Ok(client.lock_record(database, key)?.delete(client)?)
    }

    /// On every node, ending with `last`.
    fn store_everywhere(&mut self, last: usize, key: &[u8], value: &[u8]) -> Result<()> {
        for node in (0..self.at.len()).filter(|node| *node != last) {
            self.store(node, key, value)?;
        }
        self.store(last, key, value)
    }

    fn vacuum(&mut self, node: usize) -> Result<()> {
        let (client, database) = &mut self.at[node];
        let request = DbVacuum { db: database.id(), full_vacuum_run: false };
        let to = client.own_node();
        Ok(client.control::<kinds::DbVacuum>(to, &request)?)
    }

    /// The nodes whose files have the record.
    fn holders(&mut self, key: &[u8]) -> Result<Vec<usize>> {
        let mut holders = Vec::new();
        for (node, (_, database)) in self.at.iter_mut().enumerate() {
            if database.fetch_local(key, PATIENCE)?.is_some() {
                holders.push(node);
            }
        }
        Ok(holders)
    }

    /// Every node reads `value`.
    fn expect(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        for (node, (client, database)) in self.at.iter_mut().enumerate() {
            let found = client.fetch(database, key)?;
            ensure!(found.as_deref() == Some(value), "node {node} reads {found:?}");
        }
        Ok(())
    }
}

fn run_by_run(life: &Life) -> Result<()> {
    let mut hands = Hands::of(life, "runs.tdb")?;
    let map = lmasters(life, 0)?;
    for deleter in life.nodes() {
        for lmaster in life.nodes() {
            let keys: Vec<_> = (0..10)
                .map(|number| key_at(&map, lmaster, &format!("{deleter} {number},")))
                .collect();
            for key in &keys {
                hands.store_everywhere(deleter, key, b"value")?;
                hands.delete(deleter, key)?;
            }
            let other = key_at(&map, lmaster, &format!("kept by {deleter},"));
            hands.store_everywhere(deleter, &other, b"kept")?;
            let mut runs = vec![deleter];
            if lmaster != deleter {
                runs.extend([lmaster, lmaster]);
            }
            for node in runs {
                hands.vacuum(node)?;
            }
            for key in &keys {
                let gone = life.wait("the end of a record", || {
                    hands.holders(key).ok()?.is_empty().then_some(())
                });
                gone.with_context(|| format!("deleter {deleter}, lmaster {lmaster}"))?;
            }
            hands.expect(&other, b"kept")?;
        }
    }
    Ok(())
}

fn made_again_between_runs(life: &Life) -> Result<()> {
    let mut hands = Hands::of(life, "again.tdb")?;
    let map = lmasters(life, 0)?;
    for deleter in life.nodes() {
        for lmaster in life.others(deleter) {
            let runs = [deleter, lmaster, lmaster];
            for before in 0..3 {
                for maker in life.nodes() {
                    let case = format!("{deleter} {before} {maker},");
                    let key = key_at(&map, lmaster, &case);
                    hands.store_everywhere(deleter, &key, b"old")?;
                    hands.delete(deleter, &key)?;
                    for node in &runs[..before] {
                        hands.vacuum(*node)?;
                    }
                    hands.store(maker, &key, b"new")?;
                    for node in runs.into_iter().chain([maker, lmaster, lmaster]) {
                        hands.vacuum(node)?;
                    }
                    let kept = hands.expect(&key, b"new");
                    kept.with_context(|| format!("{case} lmaster {lmaster}"))?;
                }
            }
        }
    }
    Ok(())
}

fn made_again_under_lock(life: &Life) -> Result<()> {
    let mut hands = Hands::of(life, "locked.tdb")?;
    let mut runners = Hands::of(life, "locked.tdb")?;
    let map = lmasters(life, 0)?;
    for lmaster in life.nodes() {
        for holder in life.nodes() {
            let key = key_at(&map, lmaster, &format!("held on {holder},"));
            hands.store_everywhere(holder, &key, b"old")?;
            hands.delete(holder, &key)?;
            let id = hands.at[0].1.id();
            let (client, database) = &mut hands.at[holder];
            let mut record = client.lock_record(database, &key)?;
            let request = DbVacuum { db: id, full_vacuum_run: true };
            let mut tickets = Vec::new();
            for node in [holder, lmaster] {
                let (client, _) = &mut runners.at[node];
                let to = client.own_node();
                let options = ControlOptions::default();
                tickets.push((node, client.start::<kinds::DbVacuum>(to, &request, options)?));
            }
            record.store(b"new")?;
            record.unlock()?;
            for (node, ticket) in tickets {
                // Two runs on one node at once: the second is refused.
                let _ = runners.at[node].0.finish::<kinds::DbVacuum>(ticket);
            }
            for node in [holder, lmaster, lmaster] {
                hands.vacuum(node)?;
            }
            let kept = hands.expect(&key, b"new");
            kept.with_context(|| format!("held on {holder}, lmaster {lmaster}"))?;
        }
    }
    Ok(())
}

/// What a stopped node has kept is worth nothing when it comes back.
fn deleted_without_a_node(life: &Life) -> Result<()> {
    let leader: usize = life.cluster.settle()?.leader.parse()?;
    for node in life.others(leader) {
        let mut hands = Hands::of(life, "absent.tdb")?;
        let key = format!("absent {node}").into_bytes();
        hands.store_everywhere(node, &key, b"value")?;
        hands.store(leader, &key, b"value")?;
        drop(hands);
        life.ctdb(node, &["stop"])?;
        wait_for_flags(life, &life.nodes(), node, NodeFlags::STOPPED)?;
        life.wait("recovery without the node", || {
            (lmasters(life, leader).ok()? == life.others(node)).then_some(())
        })?;
        let (mut client, mut database) = life.open(leader, "absent.tdb", DbKind::Volatile)?;
        client.lock_record(&mut database, &key)?.delete(&mut client)?;
        let before = generation(life, leader)?;
        life.ctdb(leader, &["recover"])?;
        life.wait("a recovery", || (generation(life, leader).ok()? != before).then_some(()))?;
        life.ctdb(node, &["continue"])?;
        wait_for_flags(life, &life.nodes(), node, NodeFlags::NONE)?;
        life.wait("recovery with the node", || {
            (lmasters(life, node).ok()? == life.nodes()).then_some(())
        })?;
        for reader in life.nodes() {
            let (mut client, mut database) = life.open(reader, "absent.tdb", DbKind::Volatile)?;
            let found = client.fetch(&mut database, &key)?;
            ensure!(found.is_none(), "node {reader} reads {found:?} after the return of {node}");
        }
    }
    Ok(())
}
