//! A healthy cluster at work: databases come, records move, copies are read, messages pass.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use ringmaster_client::{Client, Database, DbKind};
use ringmaster_compat::normalise::Extra;
use ringmaster_follow::PATIENCE;
use ringmaster_follow::life::{Life, pnn};
use ringmaster_follow::load::Load;
use ringmaster_follow::load::counters::Counters;
use ringmaster_follow::steps::{Usual, catdb, key_at, lmasters, local, set_tunable, store};
use ringmaster_protocol::record::RecordFlags;

super::lives!(|config| config, story);

fn story(life: &Life) -> Result<()> {
    databases_come_to_every_node(life).context("attach")?;
    let usual = Usual::start(life);
    usual.load.rounds(20)?;
    records_move_in_every_direction(life).context("migration")?;
    copies_are_read_and_called_back(life).context("read-only records")?;
    every_node_walks_the_whole_database(life).context("traverse")?;
    many_want_one_record(life).context("one hot record")?;
    tools_agree_on_every_node(life).context("tools")?;
    usual.load.rounds(20)?;
    usual.finish(life)
}

fn databases_come_to_every_node(life: &Life) -> Result<()> {
    for node in life.nodes() {
        for (kind, word) in [("v", ""), ("p", "persistent"), ("r", "replicated")] {
            let name = format!("by{node}-{kind}.tdb");
            let arguments = ["attach", &name, word];
            life.ctdb(node, if word.is_empty() { &arguments[..2] } else { &arguments })?;
        }
    }
    let expected: BTreeSet<_> = life
        .nodes()
        .into_iter()
        .flat_map(|node| {
            let kinds =
                [("v", DbKind::Volatile), ("p", DbKind::Persistent), ("r", DbKind::Replicated)];
            kinds.map(|(letter, kind)| (format!("by{node}-{letter}.tdb"), format!("{kind:?}")))
        })
        .collect();
    for node in life.nodes() {
        let mut client = life.client(node)?;
        life.wait("all databases everywhere", || {
            let found = client.databases().ok()?;
            let found: BTreeSet<_> =
                found.into_iter().map(|(_, kind, name)| (name, format!("{kind:?}"))).collect();
            expected.is_subset(&found).then_some(())
        })?;
        let map = life.both(node, &["getdbmap"], &[])?;
        ensure!(map.matches(" PERSISTENT").count() == 3, "node {node}: {map}");
        ensure!(map.matches(" REPLICATED").count() == 3, "node {node}: {map}");
    }
    Ok(())
}

fn records_move_in_every_direction(life: &Life) -> Result<()> {
    let map = lmasters(life, 0)?;
    let mut sequence = 0_u64;
    let mut last = Vec::new();
    for lmaster in life.nodes() {
        let key = key_at(&map, lmaster, "moved");
        last.clear();
        // Every ordered pair, in one walk: 0 1 0 2 1 2 0.
        for to in [0, 1, 0, 2, 1, 2, 0] {
            sequence += 1;
            let value = format!("number {sequence} at node {to}").into_bytes();
            let found = store(life, to, "moves.tdb", &key, &value)?;
            ensure!(found == last, "lmaster {lmaster}: {found:?} moved to {to}, not {last:?}");
            let (header, stored) =
                local(life, to, "moves.tdb", &key)?.context("just stored here")?;
            ensure!(stored == value && header.dmaster.is(pnn(to)), "{header:?}");
            for other in life.others(to) {
                if let Some((header, _)) = local(life, other, "moves.tdb", &key)? {
                    ensure!(!header.dmaster.is(pnn(other)), "two owners: {header:?}");
                }
            }
            last = value;
        }
    }
    Ok(())
}

/// One access at a time: under concurrent reads and writes of one delegated record Debian's daemon
/// aborts ("Failed to add deferred call for revoke child").
fn copies_are_read_and_called_back(life: &Life) -> Result<()> {
    const NAME: &str = "copies.tdb";
    let mut at: Vec<(Client, Database)> = Vec::new();
    for node in life.nodes() {
        at.push(life.open(node, NAME, DbKind::Volatile)?);
    }
    let nodes: Vec<_> = life.nodes().into_iter().map(pnn).collect();
    let id = at[0].1.id();
    at[0].0.enable_readonly(id, &nodes)?;
    let map = lmasters(life, 0)?;
    for lmaster in life.nodes() {
        let key = key_at(&map, lmaster, "copied");
        for (round, writer) in [0, 1, 2, 0, 2, 1, 0].into_iter().enumerate() {
            let value = format!("round {round}").into_bytes();
            let (client, database) = &mut at[writer];
            let mut record = client.lock_record(database, &key)?;
            let flags = record.header().flags;
            ensure!(!flags.intersects(RecordFlags::RO_ALL), "locked with {flags:?}");
            record.store(&value)?;
            record.unlock()?;
            for reader in life.others(writer) {
                let (client, database) = &mut at[reader];
                let read = client.fetch_readonly(database, &key)?;
                ensure!(read.as_ref() == Some(&value), "node {reader} read {read:?} in {round}");
                let (header, copy) =
                    database.fetch_local(&key, PATIENCE)?.context("the copy stays")?;
                let readonly = header.flags.contains(RecordFlags::RO_HAVE_READONLY);
                ensure!(readonly && copy == value, "node {reader} keeps {header:?}");
            }
            let (header, _) =
                at[writer].1.fetch_local(&key, PATIENCE)?.context("the owner's record")?;
            let delegated = header.flags.contains(RecordFlags::RO_HAVE_DELEGATIONS);
            ensure!(delegated && header.dmaster.is(pnn(writer)), "the owner keeps {header:?}");
        }
    }
    Ok(())
}

fn every_node_walks_the_whole_database(life: &Life) -> Result<()> {
    const COUNT: usize = 300;
    for node in life.nodes() {
        let (mut client, mut database) = life.open(node, "walked.tdb", DbKind::Volatile)?;
        for number in (0..COUNT).filter(|number| number % life.nodes().len() == node) {
            let key = format!("walked {number}");
            let mut record = client.lock_record(&mut database, key.as_bytes())?;
            record.store(format!("{number} at {node}").as_bytes())?;
            record.unlock()?;
        }
    }
    let by_node: Result<Vec<_>> =
        life.nodes().into_iter().map(|node| catdb(life, node, "walked.tdb")).collect();
    for (node, records) in by_node?.iter().enumerate() {
        ensure!(records.len() == COUNT, "node {node} finds {} of {COUNT}", records.len());
        let distinct: BTreeSet<_> = records.iter().collect();
        ensure!(distinct.len() == COUNT, "node {node} finds a record twice");
        for number in 0..COUNT {
            let key = format!("\"walked {number}\"");
            let with_key = records.iter().find(|record| record.contains(&key));
            let value = format!("{number} at {}", number % life.nodes().len());
            let right = with_key.is_some_and(|record| record.contains(&value));
            ensure!(right, "node {node}: {key} is {with_key:?}");
        }
    }
    // And while records move under it.
    for node in life.nodes() {
        life.ctdb(node, &["catdb", "counters.tdb"])?;
    }
    Ok(())
}

fn many_want_one_record(life: &Life) -> Result<()> {
    let plain = Counters::new("hot.tdb", 1);
    let sticky = Counters::new("sticky.tdb", 1);
    for node in life.nodes() {
        life.open(node, sticky.name(), DbKind::Volatile)?;
        life.ctdb(node, &["setdbsticky", sticky.name()])?;
    }
    set_tunable(life, &life.nodes(), "HopcountMakeSticky", 1)?;
    set_tunable(life, &life.nodes(), "StickyPindown", 20)?;
    let mut load = Load::new();
    for node in life.nodes() {
        for _ in 0..5 {
            load.add(life, node, "one of many", plain.counting(node));
        }
        for _ in 0..2 {
            load.add(life, node, "one of many at a sticky record", sticky.counting(node));
        }
    }
    load.rounds(20)?;
    load.finish()?;
    set_tunable(life, &life.nodes(), "HopcountMakeSticky", 50)?;
    plain.check(life)?;
    sticky.check(life)
}

fn tools_agree_on_every_node(life: &Life) -> Result<()> {
    for node in life.nodes() {
        let status = life.both(node, &["status"], &[])?;
        for other in life.nodes() {
            let address = life.node(other).address();
            let line = status.lines().find(|line| line.starts_with(&format!("pnn:{other} ")));
            let healthy = line
                .is_some_and(|line| line.contains(&address.to_string()) && line.contains(" OK"));
            ensure!(healthy, "node {node} says of {other}: {line:?}");
        }
        let listed = life.both(node, &["listnodes"], &[])?;
        ensure!(listed.lines().count() == life.nodes().len(), "{listed}");
        for command in ["ip", "getcapabilities", "pnn", "getdbmap", "leader", "listvars", "ifaces"]
        {
            life.both(node, &[command], &[])?;
        }
        life.both(node, &["nodestatus", "all"], &[])?;
        life.both(node, &["dbstatistics", "moves.tdb"], &[Extra::Numbers])?;
        life.both(node, &["statistics"], &[Extra::Numbers])?;
        statistics_count(life, node)?;
    }
    Ok(())
}

fn statistics_count(life: &Life, node: usize) -> Result<()> {
    let text = life.ctdb(node, &["statistics"])?;
    for (field, least) in [
        ("total_calls", 100),
        ("node_packets_sent", 100),
        ("node_packets_recv", 100),
        ("req_call", 100),
        ("reply_dmaster", 10),
        ("req_message", 10),
        ("req_control", 10),
        ("num_recoveries", 1),
        ("num_clients", 1),
    ] {
        let of_field = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(field)).then(|| words.next()?.parse::<u64>().ok()).flatten()
        });
        let most = of_field.max();
        ensure!(most >= Some(least), "node {node}: {field} is {most:?}, not {least} or more");
    }
    Ok(())
}
