//! The `public_addresses` file: which addresses this node may host, and on which interfaces.
//!
//! Role: text to list. Whether an interface exists is asked of the caller, because C refuses to
//! start on an unknown one.
//! Invariants
//! - C stops at the first bad line and the daemon does not start: so does [`parse`].
//! - IPv4 addresses in IPv6 clothes become IPv4; the prefix length stays as written, as in C.
//!
//! Origin: `ctdb/server/ctdb_takeover.c: ctdb_set_public_addresses`; tried with `ctdbd` 4.17;
//! `docs/spec/admin-interface.md` 3.4.

use std::net::IpAddr;

use super::conf_file::plain_lines;
use super::finding::{Finding, Severity, shown};
use super::log_level::LogLevel;

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddress {
    pub address: IpAddr,
    /// Prefix length, unchecked as in C; beyond 32 bits it is `u32::MAX`.
    pub mask_bits: u32,
    /// Interfaces in order of preference as written; may be empty.
    pub interfaces: Vec<String>,
    /// Line of the file, from 1.
    pub line: u32,
}

/// The list and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicAddresses {
    pub addresses: Vec<PublicAddress>,
    pub findings: Vec<Finding>,
}

/// Reads the file. `interface_exists` answers for this host.
///
/// # Errors
/// The finding that stops the daemon, with C's text.
pub fn parse(
    text: &[u8],
    interface_exists: impl Fn(&str) -> bool,
) -> Result<PublicAddresses, Box<Finding>> {
    let mut list = PublicAddresses { addresses: Vec::new(), findings: Vec::new() };
    for (line, content) in plain_lines(text) {
        let content = String::from_utf8_lossy(content);
        let content = content.trim_start_matches([' ', '\t']);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut words = content.split([' ', '\t']).filter(|word| !word.is_empty());
        let (Some(address), Some(interfaces)) = (words.next(), words.next()) else {
            return Err(Box::new(no_interface(line)));
        };
        let (address, mask_bits) =
            address_and_mask(address).ok_or_else(|| Box::new(bad_line(line, address)))?;
        let interfaces: Vec<String> = interfaces
            .split(',')
            .filter(|interface| !interface.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(earlier) = list.addresses.iter().find(|other| other.address == address) {
            return Err(Box::new(duplicate(line, address, earlier.line)));
        }
        if let Some(unknown) = interfaces.iter().find(|name| !interface_exists(name)) {
            return Err(Box::new(unknown_interface(line, address, unknown)));
        }
        let entry = PublicAddress { address, mask_bits, interfaces, line };
        list.findings.extend(oddities(&entry, words.next()));
        list.addresses.push(entry);
    }
    Ok(list)
}

/// `ADDRESS/BITS`; the bits are any decimal number, as in C.
fn address_and_mask(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let address: IpAddr = address.parse().ok()?;
    Some((address.to_canonical(), bits.parse().unwrap_or(u32::MAX)))
}

fn oddities(entry: &PublicAddress, surplus: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |what: String, remedy: &str| {
        findings.push(Finding::new(entry.line, Severity::Warning, what, remedy));
    };
    let bits_max = if entry.address.is_ipv4() { 32 } else { 128 };
    if entry.mask_bits > bits_max {
        note(
            format!("{} has {} mask bits of at most {bits_max}", entry.address, entry.mask_bits),
            "write the prefix length of the network, e.g. /24",
        );
    }
    if entry.interfaces.is_empty() {
        note(
            format!("{} has no interface and can never be hosted", entry.address),
            "name the interface after the address",
        );
    }
    if let Some(surplus) = surplus {
        note(
            format!("\"{}\" and what follows it is ignored", shown(surplus.as_bytes())),
            "separate interfaces by commas without blanks; write comments on lines of their own",
        );
    }
    findings
}

fn no_interface(line: u32) -> Finding {
    Finding::new(
        line,
        Severity::Error,
        "no interface is named",
        "write ADDRESS/BITS INTERFACE, e.g. 10.0.0.1/24 eth0",
    )
    .c_says(
        LogLevel::Error,
        format!("No interface specified at line {line} of public addresses file"),
    )
}

fn bad_line(line: u32, word: &str) -> Finding {
    Finding::new(
        line,
        Severity::Error,
        format!("\"{}\" is not ADDRESS/BITS", shown(word.as_bytes())),
        "write an IPv4 or IPv6 address, a slash and the prefix length, e.g. 10.0.0.1/24",
    )
    .c_says(LogLevel::Error, format!("Badly formed line {line} in public address list"))
}

fn failed_to_add(finding: Finding, line: u32) -> Finding {
    finding.c_says(LogLevel::Error, format!("Failed to add line {line} to the public address list"))
}

fn duplicate(line: u32, address: IpAddr, earlier: u32) -> Finding {
    let finding = Finding::new(
        line,
        Severity::Error,
        format!("{address} is already on line {earlier}"),
        "remove one of the two lines",
    )
    .c_says(LogLevel::Error, format!("Duplicate public IP address '{address}'"));
    failed_to_add(finding, line)
}

fn unknown_interface(line: u32, address: IpAddr, interface: &str) -> Finding {
    let finding = Finding::new(
        line,
        Severity::Error,
        format!("this host has no interface {}", shown(interface.as_bytes())),
        "correct the name, or create the interface before the daemon starts",
    )
    .c_says(LogLevel::Error, format!("Unknown interface {interface} for public address {address}"));
    failed_to_add(finding, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only_lo(name: &str) -> bool {
        name == "lo"
    }

    fn c_text(text: &str) -> Vec<String> {
        let finding = parse(text.as_bytes(), only_lo).unwrap_err();
        finding.c_lines.iter().map(|l| String::from_utf8(l.text.clone()).unwrap()).collect()
    }

    #[test]
    fn comments_blanks_and_several_interfaces_are_understood() {
        let text = b"\n# x\n  10.1.1.1/24 \t lo,lo\r\nfd00::1/64 lo\n10.1.1.2/24 ,\n";
        let list = parse(text, only_lo).unwrap();
        let all: Vec<_> = list
            .addresses
            .iter()
            .map(|a| (a.address.to_string(), a.mask_bits, a.interfaces.len(), a.line))
            .collect();
        assert_eq!(
            all,
            [
                ("10.1.1.1".into(), 24, 2, 3),
                ("fd00::1".into(), 64, 1, 4),
                ("10.1.1.2".into(), 24, 0, 5)
            ]
        );
    }

    #[test]
    fn errors_are_those_of_ctdbd() {
        assert_eq!(
            c_text("\n#x\n 10.1.1.1/24\n"),
            ["No interface specified at line 3 of public addresses file"]
        );
        for line in
            ["10.1.1.1 lo", "10.1.1.1/ lo", "10.1.1.1/24x lo", "10.1.1/24 lo", "10.1.1.1/-1 lo"]
        {
            assert_eq!(c_text(line), ["Badly formed line 1 in public address list"], "{line}");
        }
        assert_eq!(
            c_text("10.1.1.1/24 lo,eth9 foo\n"),
            [
                "Unknown interface eth9 for public address 10.1.1.1",
                "Failed to add line 1 to the public address list"
            ]
        );
        assert_eq!(
            c_text("::ffff:10.1.1.1/120 lo\n10.1.1.1/24 lo\n"),
            [
                "Duplicate public IP address '10.1.1.1'",
                "Failed to add line 2 to the public address list"
            ]
        );
    }

    #[test]
    fn an_impossible_mask_is_taken_and_pointed_out() {
        let list = parse(b"10.1.1.1/33 lo\n10.1.1.2/99999999999 lo # x\n", only_lo).unwrap();
        assert_eq!(list.addresses[0].mask_bits, 33);
        assert_eq!(list.addresses[1].mask_bits, u32::MAX);
        assert_eq!(list.findings.len(), 3);
    }
}
