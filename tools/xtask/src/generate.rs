//! `cargo xtask gen`: man pages and completions from the tool's one command table.
//!
//! The generated files are committed; `--check` (part of the lints) fails when they are stale.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::suite::{cargo, run as run_step};

const TARGET: &str = "packaging/generated";

pub(crate) fn run(args: &[String]) -> Result<bool> {
    match args {
        [] => write(Path::new(TARGET)),
        [flag] if flag == "--check" => check(),
        _ => bail!("usage: cargo xtask gen [--check]"),
    }
}

fn write(target: &Path) -> Result<bool> {
    let mut command = cargo("run --quiet -p ringmaster-ctdb --bin ctdb-gen --");
    Ok(run_step(command.arg(target))?.ok)
}

/// Generates into a scratch folder and compares with what is committed.
pub(crate) fn check() -> Result<bool> {
    let scratch = Path::new("target/generated-check");
    if scratch.exists() {
        fs::remove_dir_all(scratch).context("cannot empty target/generated-check")?;
    }
    if !write(scratch)? {
        return Ok(false);
    }
    let (fresh, committed) = (files(scratch)?, files(Path::new(TARGET))?);
    if fresh == committed {
        return Ok(true);
    }
    println!("{TARGET} is stale: run `cargo xtask gen` and commit the result");
    Ok(false)
}

/// Relative names and contents, sorted.
fn files(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            found.push((name, fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}
