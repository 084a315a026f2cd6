//! Every sample file is read exactly as an independent program read it, and yields the records that
//! libtdb yields.
#![allow(clippy::unwrap_used, reason = "helpers of a test may fail loudly")]

#[path = "support/samples.rs"]
mod samples;

use std::fmt::Debug;

use ringmaster_storage::backend::memory::MemoryStore;
use ringmaster_storage::engine::{AccessError, Engine, Policy};
use ringmaster_storage::format::{
    ByteOrder, FREELIST_TOP, Header, Layout, Magic, RECOVERY_HEAD, RecordHeader,
};
use ringmaster_storage::lock::{LockKind, NoLocks};
use ringmaster_storage::recovery::{Recovery, needs_recovery};
use ringmaster_storage::store::{Store, Swapped};
use ringmaster_storage::transaction::Step;
use ringmaster_storage::traverse::Cursor;
use serde_json::Value;

type KeyValue = (Vec<u8>, Vec<u8>);

/// A number, written as one or as `"0x…"`.
fn number(value: &Value) -> u32 {
    let number = match value.as_str() {
        Some(text) => u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap(),
        None => value.as_u64().unwrap(),
    };
    u32::try_from(number).unwrap()
}

/// Bytes, written as `{"ascii": …}`, `{"hex": …}` or a plain hexadecimal string; `None` if the
/// description leaves them out.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    if let Some(text) = value.get("ascii") {
        return Some(text.as_str().unwrap().as_bytes().to_vec());
    }
    let text = value.get("hex").unwrap_or(value).as_str()?;
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

fn check_header(header: &Header, expected: &Value, name: &str) {
    let fields = [
        ("hash_size", header.hash_size),
        ("rwlocks", header.rwlocks),
        ("recovery_start", header.recovery_start),
        ("sequence_number", header.sequence_number),
        ("magic1_hash", header.magic1_hash),
        ("magic2_hash", header.magic2_hash),
        ("feature_flags", header.feature_flags),
        ("mutex_size", header.mutex_size),
    ];
    for (field, found) in fields {
        assert_eq!(found, number(&expected[field]), "{name}: {field}");
    }
}

fn header_at<S: Store>(store: &S, offset: u32) -> RecordHeader {
    RecordHeader::from_words(store.read_words(offset).unwrap())
}

/// One record of `records_in_file_order`; returns where the next one begins.
fn check_record<S: Store>(store: &S, layout: &Layout, expected: &Value, name: &str) -> u32 {
    let offset = number(&expected["offset"]);
    let context = format!("{name}: record at {offset}");
    if let Some(space) = expected.get("dead_space") {
        return offset + number(space);
    }
    let record = header_at(store, offset);
    assert_eq!(record.rec_len, number(&expected["rec_len"]), "{context}");
    let magic = match expected["magic"].as_str().unwrap() {
        "LIVE" => Magic::Live,
        "DEAD" => Magic::Dead,
        "FREE" => Magic::Free,
        "RECOVERY_VALID" => Magic::Recovery,
        "ZERO" => Magic::RecoveryIdle,
        other => panic!("{context}: unknown magic {other}"),
    };
    assert_eq!(record.magic, magic, "{context}");
    let end = record.end(offset).unwrap();
    if matches!(magic, Magic::Recovery | Magic::RecoveryIdle) {
        assert_eq!(store.read_u32(RECOVERY_HEAD).unwrap(), offset, "{context}");
        return end;
    }
    assert_eq!(record.next, number(&expected["next"]), "{context}");
    let tailer = store.read_u32(record.tailer_offset(offset).unwrap()).unwrap();
    assert_eq!(tailer, number(&expected["tailer"]), "{context}");
    assert_eq!(tailer == record.total_len().unwrap(), expected["tailer_ok"] == true, "{context}");
    if matches!(magic, Magic::Live | Magic::Dead) {
        assert!(record.lengths_fit(), "{context}");
        assert_eq!(record.key_len, number(&expected["key_len"]), "{context}");
        assert_eq!(record.data_len, number(&expected["data_len"]), "{context}");
        assert_eq!(record.full_hash, number(&expected["full_hash"]), "{context}");
        let mut key = vec![0; record.key_len as usize];
        store.read(offset + 24, &mut key).unwrap();
        let hash_ok = layout.hash.hash(&key) == record.full_hash;
        assert_eq!(hash_ok, expected["hash_ok"] == true, "{context}");
        if let Some(bucket) = expected.get("bucket") {
            assert_eq!(layout.chain_of(record.full_hash), number(bucket), "{context}");
        }
        if let Some(expected) = bytes(&expected["key"]) {
            assert_eq!(key, expected, "{context}");
        }
        if let Some(expected) = bytes(&expected["data"]) {
            assert!(store.matches(offset + 24 + record.key_len, &expected).unwrap(), "{context}");
        }
    }
    end
}

/// Offsets of a list as the description gives them: a circle ends with a text.
fn walk<S: Store>(store: &S, head: u32) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    let mut offset = store.read_u32(head).unwrap();
    while offset != 0 {
        if seen.contains(&offset.into()) {
            seen.push(format!("LOOP to {offset}").into());
            break;
        }
        seen.push(offset.into());
        offset = header_at(store, offset).next;
    }
    seen
}

fn check_layout<S: Store>(store: &S, layout: &Layout, expected: &Value, name: &str) {
    assert_eq!(store.known_len(), number(&expected["map_size"]), "{name}");
    assert_eq!(layout.data_start(), number(&expected["data_start"]), "{name}");
    let freelist = walk(store, FREELIST_TOP);
    assert_eq!(freelist, *expected["freelist"].as_array().unwrap(), "{name}: freelist");
    for chain in 0..layout.hash_size {
        let found = walk(store, layout.head_of(chain));
        let expected = expected["chains"].get(chain.to_string());
        let expected = expected.map(|list| list.as_array().unwrap().clone()).unwrap_or_default();
        assert_eq!(found, expected, "{name}: chain {chain}");
    }
    let mut at = layout.data_start();
    for record in expected["records_in_file_order"].as_array().unwrap() {
        assert_eq!(number(&record["offset"]), at, "{name}: records lie end to end");
        at = check_record(store, layout, record, name);
    }
    assert_eq!(at, store.known_len(), "{name}: records reach the end of the file");
}

/// What our traverse yields after our recovery.
fn records<S: Store + Debug>(store: &S, layout: Layout) -> Result<Vec<KeyValue>, AccessError> {
    if let Some(mut recovery) = Recovery::begin(store)? {
        while recovery.step(store)? != Step::Done {}
    }
    assert!(!needs_recovery(store)?);
    let mut locks = NoLocks::default();
    let mut engine = Engine { store, locks: &mut locks, layout, policy: Policy::default() };
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut cursor = Cursor::new();
    let mut records = Vec::new();
    while engine.traverse_next(&mut cursor, LockKind::Read, &mut key, &mut value)? {
        let hash = layout.hash.hash(&key);
        let mut fetched = Vec::new();
        assert!(engine.fetch_into(&key, hash, &mut fetched)?, "what is seen is found");
        assert_eq!(fetched, value);
        records.push((key.clone(), value.clone()));
    }
    Ok(records)
}

/// Every list of the file: a circle must be found.
fn walk_everything<S: Store>(store: &S, layout: Layout) -> Result<(), AccessError> {
    let mut locks = NoLocks::default();
    let engine = Engine { store, locks: &mut locks, layout, policy: Policy::default() };
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for chain in 0..layout.hash_size {
        engine.visit_chain(chain, &mut key, &mut value, |_, _| true)?;
    }
    engine.freelist_len().map(|_| ())
}

fn check_sample<S: Store + Debug>(store: &S, layout: Layout, expected: &Value, name: &str) {
    check_layout(store, &layout, &expected["layout"], name);
    match expected.get("records_in_traverse_order_after_open_hex") {
        None | Some(Value::Null) => {
            let found = walk_everything(store, layout);
            assert!(found.is_err_and(|error| error.is_corruption()), "{name} is corrupt");
        }
        Some(list) => {
            let expected: Vec<_> = list
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| (bytes(&pair[0]).unwrap(), bytes(&pair[1]).unwrap()))
                .collect();
            let found = records(store, layout).unwrap();
            assert_eq!(found, expected, "{name}: records");
        }
    }
}

#[test]
fn every_sample_is_read_exactly() {
    let text = std::fs::read_to_string(samples::directory().join("expected.json")).unwrap();
    let all: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert!(all.len() > 40, "the samples are there");
    for (name, expected) in &all {
        let file = samples::load(name);
        let layout = &expected["layout"];
        assert_eq!(samples::sha256(&file), expected["sha256_uncompressed"], "{name}");
        let first = Header::parse(file.first_chunk().unwrap()).unwrap();
        let start = first.mutex_size as usize;
        assert_eq!(number(&layout["hdr_ofs"]), first.mutex_size, "{name}");
        check_header(&first, layout.get("first_header_copy").unwrap_or(&layout["header"]), name);
        let header = Header::parse(file[start..].first_chunk().unwrap()).unwrap();
        check_header(&header, &layout["header"], name);
        assert_eq!(header.order == ByteOrder::Foreign, layout["byte_order"] == "big", "{name}");
        let hash = header.hash_kind().unwrap();
        let facts = Layout { hash_size: header.hash_size, hash, page_size: 4096 };
        let store = MemoryStore::new(file[start..].to_vec());
        match header.order {
            ByteOrder::Native => check_sample(&store, facts, expected, name),
            ByteOrder::Foreign => check_sample(&Swapped(store), facts, expected, name),
        }
    }
}
