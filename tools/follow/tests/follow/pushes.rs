//! Records that their writer pushes to all nodes (PUSH_RECORD), which a later Samba does to keep
//! single records of a volatile database safe. C's daemon 4.17 does not know the request: it says so,
//! and keeps what it has.

use anyhow::{Context, Result, ensure};
use ringmaster_client::DbKind;
use ringmaster_compat::column::our_tool;
use ringmaster_compat::prerequisite::skip;
use ringmaster_follow::life::{Life, pnn};
use ringmaster_follow::steps::{Usual, attach_everywhere, key_at, lmasters, local, store};
use ringmaster_protocol::record::RecordFlags;

super::lives!(|config| config, story, cco CCO, coo COO);

const NAME: &str = "pushed.tdb";

fn story(life: &Life) -> Result<()> {
    let Some(tool) = our_tool() else {
        skip("our ctdb is not built (cargo build -p ringmaster-ctdb)");
        return Ok(());
    };
    attach_everywhere(life, 0, NAME, DbKind::Volatile)?;
    let usual = Usual::start(life);
    usual.load.rounds(5)?;
    let map = lmasters(life, 0)?;
    for pusher in life.nodes() {
        for lmaster in life.nodes() {
            let key = key_at(&map, lmaster, &format!("pushed by {pusher},"));
            let key = String::from_utf8(key)?;
            // C's nodes refuse, and so the tool fails; it has asked all the same.
            let _ = life.node(pusher).run(&tool, &["pushrecord", NAME, &key, "value"])?;
            for other in life.others(pusher) {
                let found = local(life, other, NAME, key.as_bytes())?;
                arrived(life, (pusher, other), found)
                    .with_context(|| format!("{pusher} to {other}, lmaster {lmaster}"))?;
            }
            // The record lives as any other.
            for writer in life.others(pusher) {
                let before = store(life, writer, NAME, key.as_bytes(), b"later")?;
                ensure!(before == b"value" || before == b"later", "node {writer} had {before:?}");
            }
        }
    }
    usual.load.rounds(5)?;
    usual.finish(life)
}

type Found = Option<(ringmaster_protocol::record::RecordHeader, Vec<u8>)>;

fn arrived(life: &Life, (from, to): (usize, usize), found: Found) -> Result<()> {
    if !life.composition.is_ours(to) {
        // An lmaster may have noted whose it is.
        ensure!(found.is_none_or(|(_, value)| value.is_empty()), "C's node has stored it");
        return Ok(());
    }
    let (header, value) = found.context("not stored")?;
    let marked = header.flags.contains(RecordFlags::MIGRATED_WITH_DATA);
    ensure!(value == b"value" && marked && header.dmaster.is(pnn(from)), "{header:?} {value:?}");
    Ok(())
}
