//! Whole databases: big ones in recoveries, backups, wiping, detaching, files that change the node
//! that has the newest copy.

use anyhow::{Context, Result, ensure};
use ringmaster_client::DbKind;
use ringmaster_compat::run::run_with_input;
use ringmaster_follow::PATIENCE;
use ringmaster_follow::life::Life;
use ringmaster_follow::steps::{
    attach_everywhere, catdb, generation, lmasters, local, recover, set_tunable, store,
    wait_for_flags,
};
use ringmaster_protocol::node::NodeFlags;
use std::fmt::Write as _;

super::lives!(|config| config, story);

fn story(life: &Life) -> Result<()> {
    big_ones(life).context("big databases")?;
    backup_wipe_restore(life).context("backup")?;
    newest_copy_wins(life).context("the newest copy")?;
    update_record(life).context("transactions by the tool")?;
    detached(life).context("detach")
}

/// Gives the tool the changes of one transaction.
fn transact(life: &Life, node: usize, name: &str, changes: &str) -> Result<()> {
    let (reader, mut writer) = std::io::pipe()?;
    let text = changes.to_owned();
    let feeder =
        std::thread::spawn(move || std::io::Write::write_all(&mut writer, text.as_bytes()));
    let mut command = life.node(node).command("/usr/bin/ctdb");
    command.args(["-T", "60", "ptrans", name]);
    let output = run_with_input(&mut command, reader.into(), PATIENCE)?;
    ensure!(output.success(), "ptrans {name} on node {node}: {output}");
    feeder.join().ok().context("the feeder ran")??;
    Ok(())
}

fn counts(life: &Life, name: &str, expected: usize) -> Result<()> {
    for node in life.nodes() {
        let records = catdb(life, node, name)?;
        ensure!(records.len() == expected, "node {node}: {} of {expected}", records.len());
    }
    Ok(())
}

/// Recoveries that move more than one buffer of records.
fn big_ones(life: &Life) -> Result<()> {
    let (mut client, mut database) = life.open(0, "big.tdb", DbKind::Persistent)?;
    let mut transaction = client.begin(&mut database)?;
    for number in 0..345 {
        let value = format!("{number:05}").repeat(2_000);
        transaction.store(format!("big {number}").as_bytes(), value.as_bytes())?;
    }
    transaction.commit()?;
    for node in life.nodes() {
        let (mut client, mut database) = life.open(node, "wide.tdb", DbKind::Volatile)?;
        for number in (node..1_234).step_by(life.nodes().len()) {
            let mut record = client.lock_record(&mut database, format!("{number}").as_bytes())?;
            record.store(&vec![b'x'; 1_000])?;
            record.unlock()?;
        }
    }
    set_tunable(life, &life.nodes(), "RecBufferSizeLimit", 10_000)?;
    recover(life, 0)?;
    set_tunable(life, &life.nodes(), "RecBufferSizeLimit", 1_000_000)?;
    counts(life, "big.tdb", 345)?;
    counts(life, "wide.tdb", 1_234)?;
    for node in life.nodes() {
        let big = life.ctdb(node, &["pfetch", "big.tdb", "big 344"])?;
        ensure!(big.trim() == "00344".repeat(2_000), "a big record is damaged");
    }
    Ok(())
}

fn backup_wipe_restore(life: &Life) -> Result<()> {
    let mut changes = String::new();
    for number in 0..2_000 {
        let _ = writeln!(changes, "\"key{number}\" \"value{number}\"");
    }
    for kind in [DbKind::Persistent, DbKind::Replicated] {
        let name = format!("backup-{kind:?}.tdb");
        attach_everywhere(life, 0, &name, kind)?;
        transact(life, 0, &name, &changes)?;
        backup_of(life, &name, 2_000)?;
    }
    Ok(())
}

fn backup_of(life: &Life, name: &str, count: usize) -> Result<()> {
    let before = generation(life, 0)?;
    let records = catdb(life, 0, name)?;
    for node in life.nodes() {
        let file = life.cluster.directory().join(format!("{name}.{node}.backup"));
        let file = file.to_string_lossy();
        life.ctdb(node, &["backupdb", name, &file])?;
        life.ctdb(node, &["wipedb", name])?;
        counts(life, name, 0)?;
        life.ctdb(node, &["restoredb", &file])?;
        for reader in life.nodes() {
            let restored = catdb(life, reader, name)?;
            ensure!(restored.len() == count, "{name}: node {reader} finds {}", restored.len());
            ensure!(restored == records, "{name}: node {reader} finds other records");
        }
    }
    ensure!(generation(life, 0)? == before, "{name}: a backup has caused a recovery");
    recover(life, 0)?;
    counts(life, name, count)
}

/// A node that was away gets what was committed meanwhile; the highest sequence number counts.
fn newest_copy_wins(life: &Life) -> Result<()> {
    let leader: usize = life.cluster.settle()?.leader.parse()?;
    for kind in [DbKind::Persistent, DbKind::Replicated] {
        let name = format!("newest-{kind:?}.tdb");
        attach_everywhere(life, leader, &name, kind)?;
        for node in life.others(leader) {
            life.ctdb(node, &["pstore", &name, "key", "before"])?;
            life.ctdb(node, &["pstore", &name, "gone", "x"])?;
            life.ctdb(node, &["stop"])?;
            wait_for_flags(life, &life.nodes(), node, NodeFlags::STOPPED)?;
            life.wait("recovery without the node", || {
                (lmasters(life, leader).ok()? == life.others(node)).then_some(())
            })?;
            life.ctdb(leader, &["pstore", &name, "key", "meanwhile"])?;
            life.ctdb(leader, &["pdelete", &name, "gone"])?;
            life.ctdb(node, &["continue"])?;
            wait_for_flags(life, &life.nodes(), node, NodeFlags::NONE)?;
            life.wait("recovery with the node", || {
                (lmasters(life, node).ok()? == life.nodes()).then_some(())
            })?;
            life.cluster.settle()?;
            for reader in life.nodes() {
                let value = life.ctdb(reader, &["pfetch", &name, "key"])?;
                ensure!(value.trim() == "meanwhile", "{name}: node {reader} has {value}");
                let records = catdb(life, reader, &name)?;
                ensure!(records.len() == 1, "{name}: node {reader} has {records:?}");
            }
            let seqnums: Result<Vec<_>> =
                life.nodes().iter().map(|n| life.ctdb(*n, &["getdbseqnum", &name])).collect();
            let seqnums = seqnums?;
            ensure!(seqnums.windows(2).all(|pair| pair[0] == pair[1]), "{name}: {seqnums:?}");
        }
    }
    Ok(())
}

fn update_record(life: &Life) -> Result<()> {
    attach_everywhere(life, 0, "tool.tdb", DbKind::Persistent)?;
    for node in life.nodes() {
        transact(life, node, "tool.tdb", "\"a\" \"1\"\n\"b\" \"2\"\n\"c\" \"3\"\n")?;
        transact(life, node, "tool.tdb", "\"a\" \"1 again\"\n\"b\" \"\"\n\"d\" \"4\"\n")?;
        for reader in life.nodes() {
            let fetch = |key: &str| life.ctdb(reader, &["pfetch", "tool.tdb", key]);
            ensure!(fetch("a")?.trim() == "1 again" && fetch("d")?.trim() == "4", "changed");
            ensure!(catdb(life, reader, "tool.tdb")?.len() == 3, "node {reader}");
        }
        transact(life, node, "tool.tdb", "\"a\" \"\"\n\"c\" \"\"\n\"d\" \"\"\n")?;
        counts(life, "tool.tdb", 0)?;
    }
    Ok(())
}

fn detached(life: &Life) -> Result<()> {
    for node in life.nodes() {
        let name = format!("detached{node}.tdb");
        // A node that hears of a database tells the others of it, when it has it.
        attach_everywhere(life, node, &name, DbKind::Volatile)?;
        store(life, node, &name, b"key", b"value")?;
        let known =
            |at: usize| -> Result<bool> { Ok(life.ctdb(at, &["getdbmap"])?.contains(&name)) };
        let refused = life.node(node).tool(&["detach", &name])?;
        ensure!(!refused.success(), "detached while clients may attach");
        set_tunable(life, &life.nodes(), "AllowClientDBAttach", 0)?;
        life.ctdb(node, &["detach", &name])?;
        for other in life.nodes() {
            life.wait("the end of the database", || (!known(other).ok()?).then_some(()))?;
        }
        set_tunable(life, &life.nodes(), "AllowClientDBAttach", 1)?;
        // Attached again it is empty.
        let other = life.others(node)[0];
        attach_everywhere(life, other, &name, DbKind::Volatile)?;
        ensure!(store(life, other, &name, b"key", b"new")?.is_empty(), "an old value is back");
        let found = local(life, other, &name, b"key")?.context("just stored")?;
        ensure!(found.1 == b"new", "{found:?}");
    }
    Ok(())
}
