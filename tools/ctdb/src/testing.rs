//! Helpers of this crate's unit tests.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::command::Key;
use crate::output::Report;
use crate::page::Page;

/// The human form.
pub(crate) fn human(report: &impl Report) -> String {
    let mut page = Page::new("|", false);
    report.human(&mut page);
    String::from_utf8(page.as_bytes().to_vec()).unwrap()
}

/// The machine form.
pub(crate) fn machine(report: &impl Report) -> String {
    let mut page = Page::new("|", false);
    report.machine(&mut page);
    String::from_utf8(page.as_bytes().to_vec()).unwrap()
}

/// The document, as printed to a file.
pub(crate) fn json(report: &impl Report) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

/// Checks that the document has exactly the documented keys. The sample must not have empty
/// lists or maps, which would hide what is in them.
pub(crate) fn documented(report: &impl Report, keys: &[Key]) {
    let mut found = BTreeSet::new();
    let maps: BTreeSet<&str> =
        keys.iter().filter_map(|key| key.path.split_once(".*").map(|(map, _)| map)).collect();
    collect(&serde_json::to_value(report).unwrap(), String::new(), &maps, &mut found);
    let written: BTreeSet<String> = keys.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(found, written);
}

fn collect(value: &Value, path: String, maps: &BTreeSet<&str>, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) if maps.contains(path.as_str()) => {
            for child in object.values() {
                collect(child, format!("{path}.*"), maps, found);
            }
        }
        Value::Object(object) => {
            for (name, child) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(child, path, maps, found);
            }
        }
        Value::Array(list) => {
            for child in list {
                collect(child, format!("{path}[]"), maps, found);
            }
        }
        _ => {
            found.insert(path);
        }
    }
}
