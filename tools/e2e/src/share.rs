//! What the tests want from Samba beside the demo's configuration.
//!
//! Role: shares on which smbtorture finds what it asks for, SMB1 for its older half, and numbers
//! that winbindd can hand out from a clustered database. The demo stays as people would set it up.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use ringmaster_xtask::demo::world::SHARED;

use crate::Lab;

/// A module of `samba-vfs-modules`; the others that are used come with it.
pub const VFS_MODULE: &str = "/usr/lib/x86_64-linux-gnu/samba/vfs/acl_xattr.so";

/// Shares for smbtorture: each runs one test at a time.
pub const LANES: usize = 4;

/// First of the numbers that winbindd hands out.
pub const FIRST_ID: u32 = 1_000_000;

/// Share of a lane.
#[must_use]
pub fn lane(number: usize) -> String {
    format!("torture{}", number % LANES)
}

/// Adds to the configuration of both hosts, before Samba starts.
///
/// # Errors
/// When a file cannot be written.
pub fn configure(lab: &Lab) -> Result<()> {
    let mut text = format!(
        "[global]\n\tserver min protocol = NT1\n\tsmbd:FSCTL_SMBTORTURE = yes\n\
         \tidmap config * : backend = autorid\n\
         \tidmap config * : range = {FIRST_ID}-{}\n",
        FIRST_ID + 999_999
    );
    let owner = fs::metadata(Path::new(SHARED).join("data"))?;
    for number in 0..LANES {
        let name = lane(number);
        let folder = Path::new(SHARED).join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
        chown(&folder, Some(owner.uid()), Some(owner.gid()))?;
        // What durable handles, streams, attributes and access lists need; a file's mode says
        // nothing about its attributes then.
        text += &format!(
            "[{name}]\n\tpath = {}\n\tread only = no\n\tvfs objects = acl_xattr streams_xattr\n\
             \tacl allow execute always = yes\n\tcreate mask = 0755\n\tea support = yes\n\
             \tkernel share modes = no\n\tkernel oplocks = no\n\tposix locking = no\n\
             \tmap archive = no\n\tmap readonly = no\n",
            folder.display()
        );
    }
    append(&lab.node().own("etc-samba").join("smb.conf"), &text)?;
    // The client asks its own configuration whether the server is a cluster.
    let client = "[global]\n\tclient min protocol = NT1\n\tclustering = yes\n";
    append(&lab.cluster.client.own("etc-samba").join("torture.conf"), client)
}

fn append(file: &Path, text: &str) -> Result<()> {
    let mut open = OpenOptions::new();
    let mut file = open
        .append(true)
        .create(true)
        .open(file)
        .with_context(|| format!("cannot open {}", file.display()))?;
    file.write_all(text.as_bytes()).context("cannot write a configuration")
}

/// smbtorture on the share of a lane, for `tests` in this order, with their full names printed.
#[must_use]
pub fn smbtorture(lab: &Lab, limit_s: u32, number: usize, tests: &[&str]) -> Command {
    let share = format!("//{}/{}", lab.node().address(), lane(number));
    let mut command = lab.cluster.client.command(limit_s, "smbtorture");
    command.args([share.as_str(), "-Udemo%demo", "--fullname"]);
    command.arg("--configfile=/etc/samba/torture.conf");
    if tests.iter().all(|test| test.starts_with("base.")) {
        command.arg("--max-protocol=NT1");
    }
    command.args(tests);
    command
}
