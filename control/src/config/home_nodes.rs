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

/// The pairs, in the order of the file, and the lines that are none. A later line for the same
/// address is ignored.
#[must_use]
pub fn parse(text: &[u8]) -> (Vec<HomeNode>, Vec<Finding>) {
    let (mut homes, mut findings) = (Vec::<HomeNode>::new(), Vec::new());
    for (line, content) in plain_lines(text) {
        let content = String::from_utf8_lossy(content);
        let content = content.trim_start_matches([' ', '\t']);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match pair(content) {
            None => findings.push(Finding::new(
                line,
                Severity::Warning,
                format!("\"{}\" is ignored", shown(content.as_bytes())),
                "write ADDRESS NODE, e.g. 10.0.0.1 2",
            )),
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
    (homes, findings)
}

fn pair(content: &str) -> Option<HomeNode> {
    let mut words = content.split([' ', '\t']).filter(|word| !word.is_empty());
    let address: IpAddr = words.next()?.parse().ok()?;
    let pnn = words.next()?.parse().ok().and_then(Pnn::new)?;
    words.next().is_none().then_some(HomeNode { address: address.to_canonical(), pnn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_the_rest_is_pointed_out() {
        let (homes, findings) =
            parse(b"# x\n10.0.0.1 2\n fd00::1\t0\n10.0.0.1 3\n10.0.0.2\n10.0.0.3 -1\nx 1\n");
        let pairs: Vec<_> = homes.iter().map(|h| (h.address.to_string(), h.pnn.get())).collect();
        assert_eq!(pairs, [("10.0.0.1".to_owned(), 2), ("fd00::1".to_owned(), 0)]);
        let lines: Vec<_> = findings.iter().filter_map(|f| f.line).collect();
        assert_eq!(lines, [4, 5, 6, 7]);
    }
}
