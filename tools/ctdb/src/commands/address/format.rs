//! The reports about public addresses; pure.
//!
//! Origin: `docs/spec/admin-interface.md` 1.6.1, 1.6.2, A.1.

use serde::Serialize;

use crate::command::{Key, key};
use crate::fields;
use crate::output::Report;
use crate::page::{Page, Tone};

/// Keys of `ip`.
pub const IP: &[Key] = &[
    key("node", "number|null", "the node asked; null with all"),
    key("public_ips[].ip", "string", "public address"),
    key("public_ips[].pnn", "number|null", "node that serves it; null when none does"),
    key(
        "public_ips[].active_interface",
        "string|null",
        "interface it lives on, if the node asked serves it (with all: if any does)",
    ),
    key("public_ips[].available_interfaces[]", "string", "its interfaces that have a link"),
    key("public_ips[].configured_interfaces[]", "string", "its interfaces"),
];

/// One public address as `ip` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PublicAddress {
    pub ip: String,
    pub pnn: Option<u32>,
    pub active_interface: Option<String>,
    pub available_interfaces: Vec<String>,
    pub configured_interfaces: Vec<String>,
}

/// `ip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicAddresses {
    /// `None`: of all nodes.
    pub node: Option<u32>,
    pub public_ips: Vec<PublicAddress>,
    /// Show interfaces.
    #[serde(skip)]
    pub verbose: bool,
}

/// C prints "no node" as the signed number it is on the wire.
fn signed(pnn: Option<u32>) -> String {
    pnn.map_or_else(|| "-1".to_owned(), |pnn| pnn.to_string())
}

impl Report for PublicAddresses {
    fn human(&self, page: &mut Page) {
        match self.node {
            Some(node) => page.line(format_args!("Public IPs on node {node}")),
            None => page.line("Public IPs on ALL nodes"),
        }
        for address in &self.public_ips {
            let ip = &address.ip;
            let tone = if address.pnn.is_none() { Tone::Bad } else { Tone::Good };
            let pnn = page.paint(tone, signed(address.pnn));
            if self.verbose {
                let active = address.active_interface.as_deref().unwrap_or_default();
                let available = address.available_interfaces.join(",");
                let configured = address.configured_interfaces.join(",");
                page.line(format_args!(
                    "{ip} node[{pnn}] active[{active}] available[{available}] configured[{configured}]"
                ));
            } else {
                page.line(format_args!("{ip} {pnn}"));
            }
        }
    }

    fn machine(&self, page: &mut Page) {
        if self.verbose {
            page.row([
                "Public IP",
                "Node",
                "ActiveInterfaces",
                "AvailableInterfaces",
                "ConfiguredInterfaces",
            ]);
        } else {
            page.row(["Public IP", "Node"]);
        }
        for address in &self.public_ips {
            let pnn = signed(address.pnn);
            if self.verbose {
                page.row(fields![
                    address.ip,
                    pnn,
                    address.active_interface.as_deref().unwrap_or_default(),
                    address.available_interfaces.join(","),
                    address.configured_interfaces.join(","),
                ]);
            } else {
                page.row(fields![address.ip, pnn]);
            }
        }
    }
}

/// Keys of `ipinfo`.
pub const IPINFO: &[Key] = &[
    key("node", "number", "the node asked"),
    key("ip", "string", "public address"),
    key("current_node", "number|null", "node that serves it; null when none does"),
    key("interfaces[].name", "string", "name of the interface"),
    key("interfaces[].link_up", "boolean", "it has a link"),
    key("interfaces[].references", "number", "addresses that use it"),
    key("interfaces[].active", "boolean", "the address lives on it"),
];

/// One interface of an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterfaceUse {
    pub name: String,
    pub link_up: bool,
    pub references: u32,
    pub active: bool,
}

/// `ipinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicAddressDetails {
    pub node: u32,
    pub ip: String,
    pub current_node: Option<u32>,
    pub interfaces: Vec<InterfaceUse>,
}

impl Report for PublicAddressDetails {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("Public IP[{}] info on node {}", self.ip, self.node));
        page.line(format_args!("IP:{}", self.ip));
        // Unlike `ip`, this one prints "no node" as an unsigned number.
        page.line(format_args!("CurrentNode:{}", self.current_node.unwrap_or(u32::MAX)));
        page.line(format_args!("NumInterfaces:{}", self.interfaces.len()));
        for (index, interface) in self.interfaces.iter().enumerate() {
            let InterfaceUse { name, references, .. } = interface;
            let link = link(page, interface.link_up);
            let active = if interface.active { " (active)" } else { "" };
            let number = index + 1;
            page.line(format_args!(
                "Interface[{number}]: Name:{name} Link:{link} References:{references}{active}"
            ));
        }
    }
}

/// `up` or `down`.
pub(crate) fn link(page: &Page, up: bool) -> impl std::fmt::Display + use<> {
    if up { page.paint(Tone::Good, "up") } else { page.paint(Tone::Bad, "down") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, machine};

    fn address(ip: &str, pnn: Option<u32>, active: Option<&str>) -> PublicAddress {
        PublicAddress {
            ip: ip.into(),
            pnn,
            active_interface: active.map(Into::into),
            available_interfaces: vec!["pub0".into(), "pub1".into()],
            configured_interfaces: vec!["pub0".into(), "pub1".into()],
        }
    }

    fn addresses(verbose: bool) -> PublicAddresses {
        let public_ips = vec![
            address("10.66.0.101", Some(2), None),
            address("10.66.0.102", None, None),
            address("10.66.0.105", Some(0), Some("pub0")),
        ];
        PublicAddresses { node: Some(0), public_ips, verbose }
    }

    #[test]
    fn ip_shows_who_serves_each_address() {
        let plain = "Public IPs on node 0\n10.66.0.101 2\n10.66.0.102 -1\n10.66.0.105 0\n";
        assert_eq!(human(&addresses(false)), plain);
        let rows = "|Public IP|Node|\n|10.66.0.101|2|\n|10.66.0.102|-1|\n|10.66.0.105|0|\n";
        assert_eq!(machine(&addresses(false)), rows);
        let all = PublicAddresses { node: None, public_ips: Vec::new(), verbose: false };
        assert_eq!(human(&all), "Public IPs on ALL nodes\n");
    }

    #[test]
    fn verbose_ip_adds_interfaces() {
        let text = human(&addresses(true));
        let expected =
            "10.66.0.105 node[0] active[pub0] available[pub0,pub1] configured[pub0,pub1]";
        assert_eq!(text.lines().last(), Some(expected));
        let rows = machine(&addresses(true));
        let mut rows = rows.lines();
        let header = "|Public IP|Node|ActiveInterfaces|AvailableInterfaces|ConfiguredInterfaces|";
        assert_eq!(rows.next(), Some(header));
        assert_eq!(rows.next(), Some("|10.66.0.101|2||pub0,pub1|pub0,pub1|"));
    }

    #[test]
    fn ipinfo_prints_no_node_as_an_unsigned_number() {
        let interface =
            InterfaceUse { name: "pub0".into(), link_up: true, references: 1, active: true };
        let details = PublicAddressDetails {
            node: 0,
            ip: "10.66.0.101".into(),
            current_node: None,
            interfaces: vec![interface],
        };
        let expected = "\
Public IP[10.66.0.101] info on node 0
IP:10.66.0.101
CurrentNode:4294967295
NumInterfaces:1
Interface[1]: Name:pub0 Link:up References:1 (active)
";
        assert_eq!(human(&details), expected);
        documented(&details, IPINFO);
        documented(&addresses(false), IP);
    }
}
