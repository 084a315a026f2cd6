//! `cargo xtask deps`: who may depend on whom, and what each binary links.
//!
//! The layers are drawn in ARCHITECTURE.md; a crate that is missing from the table fails, so that
//! nobody adds one without saying where it stands.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::suite::cargo;

/// Crate, and those of ours that it may depend on (tests and benches included, unless below).
const ALLOWED: &[(&str, &[&str])] = &[
    ("ringmaster-protocol", &[]),
    ("ringmaster-storage", &["ringmaster-protocol"]),
    ("ringmaster-transport", &["ringmaster-protocol"]),
    ("ringmaster-control", &["ringmaster-protocol"]),
    (
        "ringmaster-dataplane",
        &["ringmaster-protocol", "ringmaster-storage", "ringmaster-transport"],
    ),
    ("ringmaster-client", &["ringmaster-protocol", "ringmaster-storage"]),
    (
        "ringmaster-ctdb",
        &[
            "ringmaster-client",
            "ringmaster-control",
            "ringmaster-network",
            "ringmaster-protocol",
            "ringmaster-storage",
        ],
    ),
    (
        "ringmaster-admin",
        &[
            "ringmaster-client",
            "ringmaster-control",
            "ringmaster-network",
            "ringmaster-protocol",
            "ringmaster-storage",
        ],
    ),
    ("ringmaster-compat", &["ringmaster-client", "ringmaster-protocol", "ringmaster-storage"]),
    (
        "ringmaster-bench",
        &[
            "ringmaster-client",
            "ringmaster-compat",
            "ringmaster-control",
            "ringmaster-protocol",
            "ringmaster-storage",
            "ringmaster-transport",
        ],
    ),
    (
        "ringmaster-follow",
        &["ringmaster-client", "ringmaster-compat", "ringmaster-protocol", "ringmaster-storage"],
    ),
    (
        "ringmaster-daemon",
        &[
            "ringmaster-control",
            "ringmaster-dataplane",
            "ringmaster-host",
            "ringmaster-network",
            "ringmaster-protocol",
            "ringmaster-storage",
            "ringmaster-transport",
        ],
    ),
    ("ringmaster-eventd", &["ringmaster-control", "ringmaster-host", "ringmaster-protocol"]),
    ("ringmaster-guard", &["ringmaster-host", "ringmaster-network"]),
    ("ringmaster-host", &[]),
    ("ringmaster-network", &["ringmaster-protocol"]),
    ("ringmaster-sim", &["ringmaster-control", "ringmaster-dataplane", "ringmaster-protocol"]),
    ("ringmaster-xtask", &[]),
    ("ringmaster-e2e", &["ringmaster-client", "ringmaster-xtask"]),
];

/// Crates that decide and never wait: no runtime, no sockets crate.
const PURE: &[&str] = &["ringmaster-protocol", "ringmaster-control", "ringmaster-storage"];
const NOT_IN_PURE: &[&str] = &["tokio", "mio", "socket2", "anyhow"];

pub(crate) fn run() -> Result<bool> {
    let metadata = metadata()?;
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists packages")? {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            wrong.push(format!("{name} has no layer: add it to tools/xtask/src/deps.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let normal = dependency["kind"].is_null();
            if target.starts_with("ringmaster-") && !allowed.contains(&target) {
                wrong.push(format!("{name} must not depend on {target}"));
            }
            if normal && PURE.contains(&name) && NOT_IN_PURE.contains(&target) {
                wrong.push(format!("{name} decides only: it must not depend on {target}"));
            }
        }
    }
    for line in &wrong {
        println!("deps: {line}");
    }
    for (binary, crates) in linked(&metadata)? {
        println!("{binary}: {}", crates.join(" "));
    }
    Ok(wrong.is_empty())
}

/// Every package's binaries with the third-party crates that go into them.
fn linked(metadata: &Value) -> Result<BTreeMap<String, Vec<String>>> {
    let mut binaries = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let names: Vec<&str> = package["targets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|target| target["kind"][0] == "bin")
            .filter_map(|target| target["name"].as_str())
            .collect();
        if names.is_empty() {
            continue;
        }
        let args = format!("tree --offline -p {name} -e normal --prefix none --format {{p}}");
        let tree = text(&mut cargo(&args))?;
        let mut crates: Vec<String> = tree
            .lines()
            .filter(|line| !line.starts_with("ringmaster-"))
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        crates.sort();
        crates.dedup();
        binaries.insert(format!("{name} ({})", names.join(", ")), crates);
    }
    Ok(binaries)
}

fn metadata() -> Result<Value> {
    let json = text(&mut cargo("metadata --format-version 1 --no-deps"))?;
    serde_json::from_str(&json).context("cargo metadata prints JSON")
}

fn text(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
