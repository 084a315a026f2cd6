//! A loopback subnet of one's own: clusters of several processes run side by side.
//!
//! Role: picks 127.A.B.0/24 that no other living process holds and where nothing listens.
//! Invariants: the subnet belongs to who has bound an abstract unix socket named after it. Such a
//! name is per network namespace, as the addresses are, and free again when the process ends in
//! whatever way.
//! Origin: the node port 4379 is fixed (`docs/spec/wire-protocol.md` 1.1), so nodes on one machine
//! differ by address.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result, bail};

/// First two octets to use, e.g. `127.15`; without it a pair is derived from the process id.
pub const LOOPBACK: &str = "RINGMASTER_TEST_LOOPBACK";

/// Port of every node.
pub const NODE_PORT: u16 = 4379;

/// Addresses that must be free in a subnet: the largest cluster.
const HOSTS: u8 = 8;
/// First address of a relay: behind the nodes.
const FIRST_VIA: u8 = 10;

/// A subnet nobody else uses while this value lives.
#[derive(Debug)]
pub(super) struct Subnet {
    prefix: [u8; 3],
    _lock: UnixListener,
}

impl Subnet {
    /// Takes a free subnet.
    ///
    /// # Errors
    /// `LOOPBACK` is malformed, or nothing is free.
    pub(super) fn take() -> Result<Self> {
        let [first, second] = first_octets()?;
        for third in 0..=u8::MAX {
            if let Some(subnet) = Self::try_take([first, second, third])? {
                return Ok(subnet);
            }
        }
        bail!("no free subnet in {first}.{second}.0.0/16; set {LOOPBACK}=127.N to another one");
    }

    fn try_take(prefix: [u8; 3]) -> Result<Option<Self>> {
        let [a, b, c] = prefix;
        let name = SocketAddr::from_abstract_name(format!("ringmaster-subnet-{a}.{b}.{c}"))
            .context("cannot name the subnet's lock")?;
        let lock = match UnixListener::bind_addr(&name) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(error).context("cannot bind the subnet's lock"),
        };
        let subnet = Self { prefix, _lock: lock };
        Ok(subnet.is_unused().then_some(subnet))
    }

    fn is_unused(&self) -> bool {
        // SO_REUSEADDR is set by std: only a listener refuses this, not an old connection.
        (1..=HOSTS).all(|host| TcpListener::bind((self.host(host), NODE_PORT)).is_ok())
    }

    /// The address of host `number` (1–254).
    #[must_use]
    pub(super) const fn host(&self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.prefix;
        Ipv4Addr::new(a, b, c, number)
    }

    /// Where node `from` finds node `to` when a relay stands between them.
    #[must_use]
    pub(super) fn via(&self, from: usize, to: usize) -> Ipv4Addr {
        let pair = from * usize::from(HOSTS) + to;
        let pair = u8::try_from(pair).expect("nodes are less than HOSTS");
        self.host(FIRST_VIA + pair)
    }
}

fn first_octets() -> Result<[u8; 2]> {
    let Some(wanted) = std::env::var_os(LOOPBACK) else {
        // 127.64 to 127.191: away from what people use by hand.
        let spread = u8::try_from(std::process::id() % 128).unwrap_or(0);
        return Ok([127, 64 + spread]);
    };
    let text = wanted.to_string_lossy();
    let octets = text.split_once('.').and_then(|(first, second)| {
        Some([first.parse().ok()?, second.parse().ok()?]).filter(|octets| octets[0] == 127)
    });
    octets.with_context(|| format!("{LOOPBACK}={text} is not of the form 127.N"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_never_share_a_subnet() {
        let one = Subnet::take().unwrap();
        let two = Subnet::take().unwrap();
        assert_ne!(one.host(1), two.host(1));
    }

    #[test]
    fn a_subnet_with_a_listener_is_not_unused() {
        let subnet = Subnet::take().unwrap();
        let _listener = TcpListener::bind((subnet.host(2), NODE_PORT)).unwrap();
        assert!(!subnet.is_unused());
    }
}
