//! The `home_nodes` file: which node an address belongs to when the allocation is deterministic.
//!
//! Role: text to pairs. Only `IPAllocAlgorithm=0` uses them; CTDB knows the file since 4.20.
//! Origin: `ctdb/server/ctdb_takeover_helper.c`; `docs/spec/admin-interface.md` 3.4. Debian's 4.17
//! does not read it, so the lines that are refused are by the manual, not by experiment.

use std::net::IpAddr;

use ringmaster_protocol::Pnn;

use super::conf_file::plain_lines;
use super::finding::{Finding, Severity, shown};

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HomeNode {
    pub address: IpAddr,
    pub pnn: Pnn,
}

/// The pairs, in the order of the file, and what is odd about it. A later line for the same address
/// is ignored. One line that cannot be read, a comment among them, and there are no pairs at all:
/// so does C, and an address must have the same home whoever leads.
#[must_use]
pub fn parse(text: &[u8]) -> (Vec<HomeNode>, Vec<Finding>) {
    let (mut homes, mut findings) = (Vec::<HomeNode>::new(), Vec::new());
    let mut readable = true;
    for (line, content) in plain_lines(text) {
        let content = String::from_utf8_lossy(content);
        let mut words = content.split([' ', '\t']).filter(|word| !word.is_empty());
        let (Some(address), Some(node)) = (words.next(), words.next()) else {
            if !content.trim().is_empty() {
                findings.push(ignored(line, &content));
            }
            continue;
        };
        match pair(address, node) {
            None => {
                readable = false;
                findings.push(unreadable(line, &content));
            }
            Some(home) if homes.iter().any(|other| other.address == home.address) => {
                findings.push(Finding::new(
                    line,
                    Severity::Warning,
                    format!("{} has a home node already; this line is ignored", home.address),
                    "remove one of the two lines",
                ));
            }
            Some(home) => homes.push(home),
        }
    }
    if !readable {
        homes.clear();
    }
    (homes, findings)
}

fn ignored(line: u32, content: &str) -> Finding {
    Finding::new(
        line,
        Severity::Warning,
        format!("\"{}\" is ignored", shown(content.as_bytes())),
        "write ADDRESS NODE, e.g. 10.0.0.1 2",
    )
}

fn unreadable(line: u32, content: &str) -> Finding {
    let remedy = if content.trim_start().starts_with('#') {
        "remove it: this file has no comments"
    } else {
        "write ADDRESS NODE, e.g. 10.0.0.1 2"
    };
    let what = format!("because of \"{}\" the whole file is ignored", shown(content.as_bytes()));
    Finding::new(line, Severity::Warning, what, remedy)
}

fn pair(address: &str, node: &str) -> Option<HomeNode> {
    let address: IpAddr = address.parse().ok()?;
    let pnn = node.parse().ok().and_then(Pnn::new)?;
    Some(HomeNode { address: address.to_canonical(), pnn })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &[u8]) -> (Vec<(String, u32)>, Vec<u32>) {
        let (homes, findings) = parse(text);
        let pairs = homes.iter().map(|home| (home.address.to_string(), home.pnn.get())).collect();
        (pairs, findings.iter().filter_map(|finding| finding.line).collect())
    }

    #[test]
    fn pairs_are_read_and_the_rest_is_pointed_out() {
        let (homes, lines) = pairs(b"#\n10.0.0.1 2\n fd00::1\t0\n\n10.0.0.1 3\n10.0.0.2\n");
        assert_eq!(homes, [("10.0.0.1".to_owned(), 2), ("fd00::1".to_owned(), 0)]);
        assert_eq!(lines, [1, 5, 6]);
    }

    #[test]
    fn one_line_that_cannot_be_read_spoils_the_file() {
        for bad in ["10.0.0.3 -1", "x 1", "# a comment", "10.0.0.3 4294967295"] {
            let (homes, lines) = pairs(format!("10.0.0.1 2\n{bad}\n").as_bytes());
            assert_eq!((homes, lines), (vec![], vec![2]), "{bad}");
        }
    }
}
