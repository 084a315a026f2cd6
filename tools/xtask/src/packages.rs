//! Debian packages that tests compare against; installed when missing.
//!
//! Invariant: installing never starts a service: Debian's `policy-rc.d` hook forbids it while apt
//! runs, and is removed again.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::suite;

/// What the tests of today use, beside [`FOR_DEMO`].
pub(crate) const FOR_TESTS: &[&str] = &[
    "etcd-server",
    "libprotobuf-dev",
    "libtdb1",
    "procps",
    "protobuf-compiler",
    "python3-tdb",
    "resource-agents",
    "samba-testsuite",
    "samba-vfs-modules",
    "tdb-tools",
    "winbind",
];

/// What `demo` uses: the scripts of Debian's `ctdb` and what they call, and Samba with its tools.
pub(crate) const FOR_DEMO: &[&str] = &[
    "ctdb",
    "ethtool",
    "iproute2",
    "iptables",
    "samba",
    "samba-common-bin",
    "smbclient",
    "util-linux",
];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Makes sure the packages are there. `Ok(Some(reason))` when they cannot be had here.
pub(crate) fn ensure(packages: &[&str]) -> Result<Option<String>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        return Ok(Some("this is not a Debian machine".into()));
    }
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    if !is_root() {
        return Ok(Some(format!(
            "not root; as root: apt-get install --no-install-recommends {}",
            missing.join(" ")
        )));
    }
    println!("installing {}", missing.join(" "));
    let blocked = forbid_service_starts()?;
    let done = apt(&["update", "-q"]).and_then(|()| {
        let mut args = vec!["install", "-q", "-y", "--no-install-recommends"];
        args.extend(&missing);
        apt(&args)
    });
    if blocked {
        fs::remove_file(POLICY).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    done.map(|()| None)
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

pub(crate) fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            == Some("0")
    })
}

/// True when this call made the hook (and so has to remove it).
fn forbid_service_starts() -> Result<bool> {
    if Path::new(POLICY).exists() {
        return Ok(false);
    }
    fs::write(POLICY, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
    fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
    Ok(true)
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=300"]).args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    if suite::run(&mut command)?.ok {
        return Ok(());
    }
    bail!("apt-get {} failed; its message is above", args.join(" "))
}
