//! Public addresses of the demo's cluster: which there are, and who hosts them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{host::Host, wait};

/// How long the first takeover run may take on a busy machine, from the moment all nodes are OK.
const HOSTED: Duration = Duration::from_secs(60);

/// Who hosts what; `None`: nobody.
pub type Hosts = BTreeMap<IpAddr, Option<usize>>;

/// The address with that number.
#[must_use]
pub fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, number.saturating_add(101)).into()
}

/// `public_addresses` with so many of them.
#[must_use]
pub fn file(count: u8) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}/24 eth0", address(number));
        text
    })
}

/// Who hosts what, as a node's tool tells it.
///
/// # Errors
/// When the tool fails, or prints what cannot be read.
pub fn hosts(node: &Host) -> Result<Hosts> {
    read(&node.run("ctdb -X ip all")?)
}

fn read(printed: &str) -> Result<Hosts> {
    let mut hosts = Hosts::new();
    for line in printed.lines().skip(1) {
        let mut fields = line.trim_matches('|').split('|');
        let (Some(address), Some(host)) = (fields.next(), fields.next()) else {
            bail!("ctdb ip: cannot read '{line}'");
        };
        let address = address.parse().with_context(|| format!("ctdb ip: '{line}'"))?;
        let host: i64 = host.parse().with_context(|| format!("ctdb ip: '{line}'"))?;
        hosts.insert(address, usize::try_from(host).ok());
    }
    Ok(hosts)
}

/// Waits until every address has a host and each of the nodes hosts one.
///
/// # Errors
/// When that takes too long.
pub fn wait_hosted(asked: &Host, nodes: usize) -> Result<Hosts> {
    wait::until("waiting for every address to be hosted", HOSTED, || {
        let hosts = hosts(asked).map_err(|error| format!("{error:#}"))?;
        let idle = (0..nodes).any(|pnn| !hosts.values().any(|host| *host == Some(pnn)));
        if hosts.is_empty() || idle || hosts.values().any(Option::is_none) {
            return Err(format!("{hosts:?}"));
        }
        Ok(hosts)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_from_the_tool() {
        let printed = "|Public IP|Node|\n|10.77.0.101|2|\n|10.77.0.102|-1|\n";
        let hosts = read(printed).expect("that is what it prints");
        assert_eq!(hosts, Hosts::from([(address(0), Some(2)), (address(1), None)]));
        assert!(read("|Public IP|Node|\n|10.77.0.101|\n").is_err());
        assert!(read("|Public IP|Node|\n|nonsense|1|\n").is_err());
    }

    #[test]
    fn the_file_names_each_address() {
        assert_eq!(file(2), "10.77.0.101/24 eth0\n10.77.0.102/24 eth0\n");
    }
}
