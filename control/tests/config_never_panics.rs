//! No text, however broken, makes a parser of configuration files panic; and what is accepted
//! keeps the promises of the types.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ringmaster_control::config::ctdb_conf::{self, ScriptState, Strictness, Surroundings, Table};
use ringmaster_control::config::options::{NUMBER_MAX, OPTIONS, Value};
use ringmaster_control::config::{
    LogLevel, Paths, Settings, conf_file, home_nodes, native_conf, nodes, public_addresses,
    tunables_file,
};

struct Anything;

impl Surroundings for Anything {
    fn is_directory(&self, _: &Path) -> bool {
        true
    }
    fn script_state(&self, _: &Path) -> ScriptState {
        ScriptState::Executable
    }
    fn etc_dir(&self) -> PathBuf {
        "/etc/ctdb".into()
    }
}

/// Bytes made of what these files are made of, so that the parsers get somewhere.
fn plausible_text() -> impl Strategy<Value = Vec<u8>> {
    let options = OPTIONS.map(|option| format!("[{}]\n{} = ", option.section, option.name));
    let mut words: Vec<String> = options.into();
    for word in [
        "[",
        "]",
        "=",
        " ",
        "\t",
        "\n",
        "\\\n",
        "\\",
        "#",
        ";",
        "\0",
        "\r",
        "!",
        "/",
        ":",
        ",",
        "true",
        "no",
        "0x",
        "08",
        "-1",
        "4294967296",
        "file:",
        "syslog",
        "10.0.0.1",
        "/24",
        "lo",
        "fd00::1",
        "KeepaliveLimit",
        "VacuumLimit",
        "[dataplane]\n",
        "shards",
        "é",
        "DEBUG",
    ] {
        words.push(word.to_owned());
    }
    let word = prop_oneof![
        8 => prop::sample::select(words).prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

fn all_parsers(text: &[u8]) {
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let loaded = ctdb_conf::load(text, strictness, LogLevel::Notice, &Anything);
        if loaded.refused {
            assert_eq!(loaded.table, Table::defaults(LogLevel::Notice));
        }
        for (_, value, _) in loaded.table.iter() {
            assert!(!matches!(value, Value::Number(number) if *number > NUMBER_MAX));
        }
        let settings = Settings::new(&loaded.table, &Paths::installed());
        let _ = settings.cluster_lock_command(&Paths::installed());
        let _ = loaded.table.dump();
        for finding in &loaded.findings {
            assert!(!finding.to_string().chars().any(char::is_control), "{finding}");
        }
    }
    for (index, node) in nodes::parse(text).map(|list| list.nodes).into_iter().flatten().enumerate()
    {
        assert_eq!(node.pnn.get() as usize, index);
    }
    if let Ok(list) = public_addresses::parse(text, |_| true) {
        let mut addresses: Vec<_> = list.addresses.iter().map(|entry| entry.address).collect();
        let before = addresses.len();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), before);
    }
    let _ = home_nodes::parse(text);
    assert!(tunables_file::parse(text).assignments.iter().all(|(t, _)| !t.info().obsolete));
    if let Err(findings) = native_conf::parse(text) {
        assert!(!findings.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plausible_texts_are_survived(text in plausible_text()) {
        all_parsers(&text);
    }

    #[test]
    fn arbitrary_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..300)) {
        all_parsers(&text);
    }

    #[test]
    fn entries_come_in_the_order_of_their_lines(text in plausible_text()) {
        let lines: Vec<u32> =
            conf_file::parse(&text).entries.iter().map(conf_file::Entry::line).collect();
        prop_assert!(lines.is_sorted());
    }
}
