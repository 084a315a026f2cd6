//! The nodes file, or the output of the command that stands for it.
//!
//! Role: which node number has which private address. The list must be the same on all nodes.
//! Invariants
//! - The position among non-blank lines is the node number. A line that begins with `#` is a
//!   deleted node and keeps its number: there are no comments in this file.
//! - IPv4 addresses in IPv6 clothes become IPv4, as in C.
//!
//! Origin: `ctdb/server/ctdb_server.c`, `ctdb/conf/node.c`; tried with `ctdb listnodes` and
//! `ctdbd` 4.17; `docs/spec/admin-interface.md` 3.3.

use std::net::IpAddr;

use ringmaster_protocol::Pnn;

use super::conf_file::plain_lines;
use super::finding::{Finding, Severity, shown};
use super::log_level::LogLevel;

/// One line of the file that has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub pnn: Pnn,
    /// `None`: deleted.
    pub address: Option<IpAddr>,
    /// Line of the file, from 1.
    pub line: u32,
}

/// The list and what is odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    pub nodes: Vec<Node>,
    pub findings: Vec<Finding>,
}

impl Nodes {
    /// The node that has `address` and is not deleted; of two, the first, as in C.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<Pnn> {
        let address = address.to_canonical();
        self.nodes.iter().find(|node| node.address == Some(address)).map(|node| node.pnn)
    }
}

/// Reads the file. C refuses it at the first line that is no address.
///
/// # Errors
/// The finding that makes the list unusable, with C's text.
pub fn parse(text: &[u8]) -> Result<Nodes, Box<Finding>> {
    let mut list = Nodes { nodes: Vec::new(), findings: Vec::new() };
    for (line, content) in plain_lines(text) {
        let content = without_blanks(content);
        if content.is_empty() {
            continue;
        }
        let pnn = u32::try_from(list.nodes.len())
            .ok()
            .and_then(Pnn::new)
            .ok_or_else(|| Box::new(too_many(line)))?;
        let address = if content[0] == b'#' {
            if looks_like_comment(content) {
                list.findings.push(comment_finding(line, pnn));
            }
            None
        } else {
            Some(address(content).ok_or_else(|| Box::new(bad_address(line, content)))?)
        };
        if let Some(earlier) =
            list.nodes.iter().find(|node| address.is_some() && node.address == address)
        {
            list.findings.push(Finding::new(
                line,
                Severity::Warning,
                format!("the address is that of node {} (line {})", earlier.pnn, earlier.line),
                "give every node an address of its own; node numbers follow the lines, so do not \
                 remove a line in the middle, put # before it",
            ));
        }
        list.nodes.push(Node { pnn, address, line });
    }
    if list.nodes.is_empty() {
        list.findings.push(Finding::new(
            None,
            Severity::Error,
            "there is no node in the file",
            "write the private address of every node, one on a line",
        ));
    }
    Ok(list)
}

fn address(content: &[u8]) -> Option<IpAddr> {
    let address: IpAddr = std::str::from_utf8(content).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

/// Only blanks and tabs count here, unlike in `ctdb.conf`.
fn without_blanks(content: &[u8]) -> &[u8] {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = content.iter().position(|b| !is_blank(b)).unwrap_or(content.len());
    let end = content.iter().rposition(|b| !is_blank(b)).map_or(start, |last| last + 1);
    &content[start..end]
}

fn looks_like_comment(content: &[u8]) -> bool {
    address(without_blanks(&content[1..])).is_none()
}

fn comment_finding(line: u32, pnn: Pnn) -> Finding {
    Finding::new(
        line,
        Severity::Warning,
        format!("a line with # is a deleted node, not a comment: this one takes number {pnn}"),
        "keep comments out of this file, unless all nodes already have this line",
    )
}

fn bad_address(line: u32, content: &[u8]) -> Finding {
    Finding::new(
        line,
        Severity::Error,
        format!("\"{}\" is not an IP address", shown(content)),
        "write one IPv4 or IPv6 address, without name, port or interface",
    )
    .c_says(LogLevel::Error, [b"Invalid IP address ", content].concat())
}

fn too_many(line: u32) -> Finding {
    Finding::new(line, Severity::Error, "more nodes than there are numbers", "shorten the list")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<(u32, Option<String>)> {
        let list = parse(text.as_bytes()).unwrap();
        list.nodes.iter().map(|n| (n.pnn.get(), n.address.map(|a| a.to_string()))).collect()
    }

    #[test]
    fn deleted_lines_keep_their_number_and_blank_lines_have_none() {
        assert_eq!(
            numbers("1.2.3.4\n\n# foo\n#1.2.3.5\n  1.2.3.6  \n\tfd00::7\t\n\n\n"),
            [
                (0, Some("1.2.3.4".into())),
                (1, None),
                (2, None),
                (3, Some("1.2.3.6".into())),
                (4, Some("fd00::7".into())),
            ]
        );
    }

    #[test]
    fn a_carriage_return_ends_the_line_and_the_last_line_needs_no_end() {
        assert_eq!(
            numbers("1.2.3.4\r\n::ffff:1.2.3.5"),
            [(0, Some("1.2.3.4".into())), (1, Some("1.2.3.5".into()))]
        );
    }

    #[test]
    fn anything_but_an_address_refuses_the_list_with_c_words() {
        for text in ["1.2.3.4 x", "foo", "1.2.3.4:5", "1.2.3", "fe80::1%lo", "1.2.3.5#x", "[::1]"] {
            let finding = parse(text.as_bytes()).unwrap_err();
            let c_text = &finding.c_lines[0].text;
            assert_eq!(c_text, format!("Invalid IP address {text}").as_bytes());
            assert_eq!(finding.line, Some(1));
        }
    }

    #[test]
    fn a_comment_and_a_doubled_address_are_pointed_out() {
        let list = parse(b"# my nodes\n1.2.3.4\n#1.2.3.5\n1.2.3.4\n").unwrap();
        let lines: Vec<Option<u32>> = list.findings.iter().map(|f| f.line).collect();
        assert_eq!(lines, [Some(1), Some(4)]);
        assert_eq!(list.find("1.2.3.4".parse().unwrap()), Pnn::new(1));
    }
}
