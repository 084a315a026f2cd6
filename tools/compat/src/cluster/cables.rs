//! Cables between the nodes of one cluster, which can be cut.
//!
//! Role: a network namespace with a loopback interface of its own. A cut cable is a routing rule
//! that swallows what one node's address sends to another's: connections stay open on both sides
//! and nothing arrives, as with a cable that was pulled.
//! Invariants
//! - The namespace belongs to a process that ends with its stdin, which we hold, and that has the
//!   cluster's `CTDB_BASE`: it goes with the cluster, or with us, whatever comes first.
//! - Nothing outside of the namespace is touched.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, PipeWriter, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::run_with_input;

/// How long a change of the network may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Brings the interface up, makes room for rules before the one for local addresses, reports, and
/// stays until its stdin ends.
const HOLD: &str = "ip link set lo up && ip rule add pref 100 lookup local && ip rule del pref 0 \
                    && echo ready && exec cat";

/// The same with the addresses of [`ipv6`] instead of rules.
const HOLD_IPV6: &str = "ip link set lo up && for host in 1 2 3 4 5 6 7 8; do \
                         ip -6 addr add fd00:c7db::$host/128 dev lo nodad || exit; done \
                         && echo ready && exec cat";

/// The IPv6 address of host `number` (1–8) in the namespace.
pub(super) fn ipv6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xc7db, 0, 0, 0, 0, 0, u16::from(number))
}

/// The cables of a cluster. All are whole at first.
#[derive(Debug)]
pub struct Cables {
    holder: Child,
    _stdin: PipeWriter,
}

impl Cables {
    /// Lays the cables of the cluster in `directory`.
    pub(super) fn lay(directory: &Path) -> Result<Self> {
        Self::hold(directory, HOLD)
    }

    /// The same between IPv6 addresses; these cannot be cut.
    pub(super) fn lay_ipv6(directory: &Path) -> Result<Self> {
        Self::hold(directory, HOLD_IPV6)
    }

    fn hold(directory: &Path, script: &str) -> Result<Self> {
        let (reader, stdin) = std::io::pipe().context("cannot make a pipe")?;
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .env("CTDB_BASE", directory)
            .stdin(reader)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start unshare (Debian: util-linux)")?;
        let stdout = holder.stdout.take().context("stdout was piped")?;
        let cables = Self { holder, _stdin: stdin };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("reading from the network's holder")?;
        if line.trim() != "ready" {
            bail!("no network namespace can be made here (Debian: iproute2): {script}");
        }
        Ok(cables)
    }

    /// `program` inside the namespace; arguments may be added.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        command
    }

    /// Cuts these cables, each from one address to another; the other directions stay whole.
    pub(super) fn cut(&self, ways: &[(Ipv4Addr, Ipv4Addr)]) -> Result<()> {
        self.rules("add", ways)
    }

    /// Mends what [`Cables::cut`] cut.
    pub(super) fn mend(&self, ways: &[(Ipv4Addr, Ipv4Addr)]) -> Result<()> {
        self.rules("del", ways)
    }

    /// All by one program: half a change must not last.
    fn rules(&self, verb: &str, ways: &[(Ipv4Addr, Ipv4Addr)]) -> Result<()> {
        let lines = ways.iter().fold(String::new(), |mut lines, (from, to)| {
            let _ = writeln!(lines, "rule {verb} pref 1 from {from} to {to} blackhole");
            lines
        });
        let (reader, mut writer) = std::io::pipe().context("cannot make a pipe")?;
        // Far less than a pipe holds.
        writer.write_all(lines.as_bytes()).context("cannot write to a pipe")?;
        drop(writer);
        let mut command = self.command(Path::new("ip"));
        command.args(["-batch", "-"]);
        let output = run_with_input(&mut command, reader.into(), TIMEOUT)?;
        if !output.success() {
            bail!("ip -batch: {lines}{output}");
        }
        Ok(())
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        // Gone already is as good as killed.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prerequisite;
    use crate::run::run;

    fn reaches(cables: &Cables, from: &str, to: &str) -> bool {
        let mut command = cables.command(Path::new("ip"));
        let output = run(command.args(["route", "get", to, "from", from]), TIMEOUT).unwrap();
        output.success()
    }

    #[test]
    fn a_cut_cable_swallows_one_direction_until_it_is_mended() {
        if let Some(reason) = prerequisite::missing_for_c_cluster() {
            prerequisite::skip(&reason);
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let cables = Cables::lay(directory.path()).unwrap();
        let [one, two] = [1, 2].map(|host| Ipv4Addr::new(127, 1, 1, host));
        cables.cut(&[(one, two)]).unwrap();
        assert!(!reaches(&cables, "127.1.1.1", "127.1.1.2"));
        assert!(reaches(&cables, "127.1.1.2", "127.1.1.1"));
        assert!(reaches(&cables, "127.1.1.1", "127.1.1.3"));
        cables.mend(&[(one, two)]).unwrap();
        assert!(reaches(&cables, "127.1.1.1", "127.1.1.2"));
    }
}
