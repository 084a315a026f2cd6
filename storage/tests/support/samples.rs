//! The sample files of the format's specification, and what libtdb makes of them.
//!
//! Role: unpack `tests/samples` and read `expected.json`. Use from any test of this crate:
//! `#[path = "support/samples.rs"] mod samples;`.
//! Unpacking and digests use the programs `gzip` and `sha256sum`: no crate for two test helpers.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Where the samples lie.
pub fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/samples"))
}

/// The bytes of a sample, unpacked.
pub fn load(name: &str) -> Vec<u8> {
    let path = directory().join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if name.ends_with(".gz") { pipe("gzip", &["-dc"], &bytes) } else { bytes }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let line = pipe("sha256sum", &["-b"], bytes);
    String::from_utf8_lossy(&line[..64]).into_owned()
}

fn pipe(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("the child is ours");
    feeder.join().expect("the feeder does not panic").expect("the program reads its input");
    assert!(output.status.success(), "{program} failed");
    output.stdout
}

/// What libtdb 1.4.8 did with a sample when it opened a copy of it read-write.
pub struct Expected {
    pub name: String,
    pub sha256_after_close: Option<String>,
    /// `tdb_check`'s result, 0 = good; `None` where libtdb could not open the file.
    pub check: Option<i64>,
    pub recovered: bool,
    /// In traverse order; `None` where libtdb could not read them.
    pub records: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// All samples with what is expected of them, by name.
pub fn expected() -> Vec<Expected> {
    let text = std::fs::read_to_string(directory().join("expected.json")).expect("it is there");
    let all: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let all = all.as_object().expect("one object");
    all.iter()
        .map(|(name, sample)| {
            let open = &sample["libtdb_1.4.8_open_rdwr"];
            let log = open["recovery_log"].as_array();
            Expected {
                name: name.clone(),
                sha256_after_close: open["sha256_after_close"].as_str().map(str::to_owned),
                check: open["tdb_check_result"].as_i64(),
                recovered: log.is_some_and(|lines| !lines.is_empty()),
                records: sample["records_in_traverse_order_after_open_hex"]
                    .as_array()
                    .map(|records| records.iter().map(record).collect()),
            }
        })
        .collect()
}

fn record(pair: &serde_json::Value) -> (Vec<u8>, Vec<u8>) {
    let part = |index: usize| unhex(pair[index].as_str().expect("hex text"));
    (part(0), part(1))
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes()
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[high, low]| digit(*high).expect("hex") << 4 | digit(*low).expect("hex"))
        .collect()
}
