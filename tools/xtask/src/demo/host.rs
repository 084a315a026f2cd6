//! One host: a network namespace, a mount namespace with private folders, and a way in.
//!
//! Role: what a machine of the cluster has for itself. Invariant: the mount namespace lives as long
//! as its keeper, a child that waits for the end of its standard input.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context, Result, bail};

use super::{
    wait,
    world::{BASE, ip},
};

/// Folders that a host has for itself: the machine's place, and the name below the host's folder.
const PRIVATE: &[(&str, &str)] = &[
    ("/var/lib/ctdb", "var-lib-ctdb"),
    ("/run/ctdb", "run-ctdb"),
    ("/etc/ctdb", "etc-ctdb"),
    ("/var/log/ctdb", "log-ctdb"),
    ("/var/lib/samba", "var-lib-samba"),
    ("/run/samba", "run-samba"),
    ("/var/cache/samba", "var-cache-samba"),
    ("/var/log/samba", "log-samba"),
    ("/etc/samba", "etc-samba"),
];

/// Mounts pairs of arguments on each other, says so, and stays until its input ends; without its
/// arguments, for a resource agent looks for daemons, and kills them, by their paths.
const KEEPER: &str = "while [ $# -gt 1 ]; do mount --bind \"$1\" \"$2\"; shift 2; done; \
                      echo ready; exec sh -c 'read -r end || exit 0'";

/// A host that is up.
#[derive(Clone)]
pub struct Host {
    name: String,
    address: String,
    folder: PathBuf,
    keeper: u32,
    /// Held open for the keeper's sake.
    _alive: Option<Arc<ChildStdin>>,
}

impl Host {
    pub(super) fn new(
        name: &str,
        address: &str,
        bridge: &str,
        binds: &[(PathBuf, PathBuf)],
        place: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Self> {
        let mut host = Self {
            name: name.to_owned(),
            address: address.to_owned(),
            folder: Path::new(BASE).join(name),
            keeper: 0,
            _alive: None,
        };
        host.plug_in(bridge)?;
        for (_, own) in PRIVATE {
            fs::create_dir_all(host.folder.join(own))?;
        }
        fs::create_dir_all(host.folder.join("var-lib-samba/private"))?;
        for folder in ["volatile", "persistent", "state", "scripts"] {
            fs::create_dir_all(host.folder.join("var-lib-ctdb").join(folder))?;
        }
        place(&host)?;
        host.keep(binds)?;
        Ok(host)
    }

    /// The namespace, and its cable to the bridge.
    fn plug_in(&self, bridge: &str) -> Result<()> {
        let namespace = &self.namespace();
        let cable = &self.cable();
        ip(&["netns", "add", namespace])?;
        ip(&["link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        ip(&["link", "set", cable, "master", bridge, "up"])?;
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        let address = &format!("{}/24", self.address);
        ip(&["-n", namespace, "addr", "add", address, "dev", "eth0"])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])
    }

    /// Starts the keeper with the private folders and `binds` (what, over what) in place.
    fn keep(&mut self, binds: &[(PathBuf, PathBuf)]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(), "sh", "-euc", KEEPER, "keeper"]);
        for (place, own) in PRIVATE {
            // /run is the world's own; everything else comes with the packages.
            if place.starts_with("/run/") {
                fs::create_dir_all(place)?;
            } else if !Path::new(place).is_dir() {
                bail!("{place} is missing: install Debian's packages ctdb and samba");
            }
            command.arg(self.folder.join(own)).arg(place);
        }
        for (what, over) in binds {
            command.arg(what).arg(over);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        self.keeper = child.id();
        let stdout = child.stdout.take().context("stdout was piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "ready\n" {
            bail!("host {}: its folders could not be put in place", self.name);
        }
        self._alive = child.stdin.take().map(Arc::new);
        let enter = format!("#!/bin/sh\nexec nsenter -t {} -m -n -- \"$@\"\n", self.keeper);
        fs::write(self.door(), enter)?;
        fs::set_permissions(self.door(), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Cuts the host's cable.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unplug(&self) -> Result<()> {
        ip(&["link", "set", &self.cable(), "down"])
    }

    /// Joins the host's cable again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plug(&self) -> Result<()> {
        ip(&["link", "set", &self.cable(), "up"])
    }

    /// The bridge's end of the host's cable.
    #[must_use]
    pub fn cable(&self) -> String {
        format!("rm-{}", self.name)
    }

    /// Every process on this host.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let namespace = self.namespace();
        let mut command = wait::limited(10, "ip");
        let listed = wait::success("ip netns pids", command.args(["netns", "pids", &namespace]))?;
        let pids = listed.lines().map(|line| line.trim().parse::<u32>());
        let pids = pids.collect::<Result<Vec<_>, _>>().context("ip netns pids")?;
        // The keeper is no part of the machine that the host stands for.
        Ok(pids.into_iter().filter(|pid| *pid != self.keeper).collect())
    }

    /// A program that runs its arguments on this host.
    #[must_use]
    pub fn door(&self) -> PathBuf {
        Path::new("/run").join(format!("on-{}", self.name))
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's address on the bridge.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Name of the host's network namespace.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("rm-demo-{}", self.name)
    }

    /// Where `own`, one of the host's private folders (`log-ctdb`, `etc-samba` …), lies.
    #[must_use]
    pub fn own(&self, own: &str) -> PathBuf {
        self.folder.join(own)
    }

    /// A command on this host, killed after `limit_s` seconds.
    #[must_use]
    pub fn command(&self, limit_s: u32, program: &str) -> Command {
        let mut command = wait::limited(limit_s, "nsenter");
        command.args(["-t", &self.keeper.to_string(), "-m", "-n", "--", program]);
        command
    }

    /// Runs a command line (split at blanks) that must succeed, within 30 seconds.
    ///
    /// # Errors
    /// When it fails: with all it printed.
    pub fn run(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("a command has a name")?;
        let what = format!("{}: {line}", self.name);
        wait::success(&what, self.command(30, program).args(words))
    }
}
