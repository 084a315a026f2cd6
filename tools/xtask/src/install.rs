//! `cargo xtask install --prefix DIR`: release binaries, pages and scripts where Debian's package
//! has them, below a prefix.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result, bail};

use crate::suite::{cargo, run as run_step};

/// Built binary, and its folder below the prefix.
const BINARIES: &[(&str, &str)] = &[
    ("ctdb", "bin"),
    ("onnode", "bin"),
    ("ping_pong", "bin"),
    ("ltdbtool", "bin"),
    ("ctdbd", "sbin"),
    ("ctdb_diagnostics", "bin"),
    ("ctdb-eventd", "libexec/ctdb"),
    ("ctdb-guard", "libexec/ctdb"),
    ("ctdb-path", "libexec/ctdb"),
    ("ctdb-config", "libexec/ctdb"),
    ("ctdb-event", "libexec/ctdb"),
    ("ctdb_mutex_fcntl_helper", "libexec/ctdb"),
    ("ctdb_killtcp", "libexec/ctdb"),
    ("ctdb_natgw", "libexec/ctdb"),
    ("ctdb_lvs", "libexec/ctdb"),
];

/// Folder in the tree, and its place below the prefix.
const FOLDERS: &[(&str, &str)] = &[
    ("packaging/systemd", "lib/systemd/system"),
    ("packaging/generated/man", "share/man/man1"),
    ("packaging/generated/bash", "share/bash-completion/completions"),
    ("packaging/generated/zsh", "share/zsh/site-functions"),
    ("packaging/generated/fish", "share/fish/vendor_completions.d"),
    ("docs", "share/doc/ringmaster"),
];

pub(crate) fn run(args: &[String]) -> Result<bool> {
    let [flag, prefix] = args else { bail!("usage: cargo xtask install --prefix DIR") };
    if flag != "--prefix" {
        bail!("usage: cargo xtask install --prefix DIR");
    }
    if !run_step(&mut cargo("build --release --workspace --bins"))?.ok {
        return Ok(false);
    }
    let prefix = Path::new(prefix);
    for (name, folder) in BINARIES {
        copy(&Path::new("target/release").join(name), &prefix.join(folder).join(name), 0o755)?;
    }
    for (from, to) in FOLDERS {
        copy_folder(Path::new(from), &prefix.join(to))?;
    }
    println!("installed below {}", prefix.display());
    Ok(true)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let folder = to.parent().context("a target has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", to.display()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("an entry has a name")?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            copy(&path, &target, 0o644)?;
        }
    }
    Ok(())
}
