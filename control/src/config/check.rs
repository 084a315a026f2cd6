//! The whole configuration at once, for `ctdbd --check-config`: every file, and what one file says
//! against another.
//!
//! Role: all findings of all files, by file and line. Reading the files is the caller's.
//! Stricter than C on purpose: unknown sections and options of `ctdb.conf` are errors here, while
//! the daemon ignores them.

use std::path::Path;

use super::ctdb_conf::{self, Strictness, Surroundings};
use super::finding::{Finding, Severity};
use super::log_level::LogLevel;
use super::nodes::{self, Nodes};
use super::public_addresses::{self, PublicAddresses};
use super::settings::{FileOrCommand, Settings};
use super::{Paths, home_nodes, native_conf, tunables_file};

/// Contents of the files; `None`: the file does not exist.
#[derive(Clone, Copy, Debug, Default)]
pub struct Contents<'a> {
    pub ctdb_conf: Option<&'a [u8]>,
    pub ringmaster_conf: Option<&'a [u8]>,
    /// The nodes file, or the output of the command that stands for it.
    pub nodes: Option<&'a [u8]>,
    pub public_addresses: Option<&'a [u8]>,
    pub home_nodes: Option<&'a [u8]>,
    /// Names and contents in the order they are read.
    pub tunables: &'a [(&'a str, &'a [u8])],
}

/// One finding and the file it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Name without directory, e.g. `ctdb.conf`.
    pub file: String,
    pub finding: Finding,
}

impl std::fmt::Display for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.finding)
    }
}

/// Everything there is to say. The configuration is good when no finding is an error.
pub fn check(
    contents: &Contents<'_>,
    around: &dyn Surroundings,
    interface_exists: impl Fn(&str) -> bool,
) -> Vec<Located> {
    let mut report = Report(Vec::new());
    let loaded = ctdb_conf::load(
        contents.ctdb_conf.unwrap_or_default(),
        Strictness::Strict,
        LogLevel::Notice,
        around,
    );
    report.add("ctdb.conf", loaded.findings);
    if let Some(text) = contents.ringmaster_conf {
        report.add("ringmaster.conf", native_conf::parse(text).err().unwrap_or_default());
    }
    let settings = Settings::new(&loaded.table, &Paths::installed());
    let nodes = report.nodes(contents.nodes, &settings);
    let addresses = contents
        .public_addresses
        .and_then(|text| report.public_addresses(public_addresses::parse(text, interface_exists)));
    if let (Some(nodes), false) = (&nodes, loaded.refused) {
        report.add("ctdb.conf", node_address_findings(&settings, nodes));
    }
    if let Some(text) = contents.home_nodes {
        let (homes, mut findings) = home_nodes::parse(text);
        findings.extend(home_findings(&homes, nodes.as_ref(), addresses.as_ref()));
        report.add("home_nodes", findings);
    }
    for (name, text) in contents.tunables {
        report.add(name, tunables_file::parse(text).findings);
    }
    report.0
}

struct Report(Vec<Located>);

impl Report {
    fn add(&mut self, file: &str, mut findings: Vec<Finding>) {
        findings.sort_by_key(|finding| finding.line);
        let locate = |finding| Located { file: file.to_owned(), finding };
        self.0.extend(findings.into_iter().map(locate));
    }

    fn nodes(&mut self, text: Option<&[u8]>, settings: &Settings) -> Option<Nodes> {
        let file = match &settings.nodes {
            FileOrCommand::File(path) => base_name(path),
            FileOrCommand::Command(_) => "nodes list".to_owned(),
        };
        let Some(text) = text else {
            let finding = Finding::new(
                None,
                Severity::Error,
                "there is no nodes file",
                "write the private address of every node into it, one on a line",
            );
            self.add(&file, vec![finding]);
            return None;
        };
        match nodes::parse(text) {
            Ok(mut nodes) => {
                self.add(&file, std::mem::take(&mut nodes.findings));
                Some(nodes)
            }
            Err(finding) => {
                self.add(&file, vec![*finding]);
                None
            }
        }
    }

    fn public_addresses(
        &mut self,
        parsed: Result<PublicAddresses, Box<Finding>>,
    ) -> Option<PublicAddresses> {
        match parsed {
            Ok(mut list) => {
                self.add("public_addresses", std::mem::take(&mut list.findings));
                Some(list)
            }
            Err(finding) => {
                self.add("public_addresses", vec![*finding]);
                None
            }
        }
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn node_address_findings(settings: &Settings, nodes: &Nodes) -> Vec<Finding> {
    let Some(address) = settings.node_address else { return Vec::new() };
    if nodes.find(address).is_some() {
        return Vec::new();
    }
    vec![Finding::new(
        None,
        Severity::Error,
        format!("\"node address\" {address} is not the address of a node"),
        "add it to the nodes file of every node, or remove the option to have it found",
    )]
}

fn home_findings(
    homes: &[home_nodes::HomeNode],
    nodes: Option<&Nodes>,
    addresses: Option<&PublicAddresses>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for home in homes {
        let known = nodes.is_none_or(|list| list.nodes.iter().any(|node| node.pnn == home.pnn));
        if !known {
            findings.push(Finding::new(
                None,
                Severity::Warning,
                format!("the home of {} is node {}, which does not exist", home.address, home.pnn),
                "write the number of a node of the nodes file",
            ));
        }
        let public = addresses
            .is_none_or(|list| list.addresses.iter().any(|entry| entry.address == home.address));
        if !public {
            findings.push(Finding::new(
                None,
                Severity::Note,
                format!("{} is not a public address of this node", home.address),
                "",
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::ctdb_conf::tests::Anything;
    use super::*;

    fn report(contents: &Contents<'_>) -> Vec<String> {
        check(contents, &Anything, |_| true).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_configuration_has_no_findings() {
        let contents = Contents {
            ctdb_conf: Some(b"[cluster]\nnode address = 10.0.0.2\ncluster lock = /x\n"),
            ringmaster_conf: Some(b"[dataplane]\nshards = 2\n"),
            nodes: Some(b"10.0.0.1\n10.0.0.2\n"),
            public_addresses: Some(b"10.1.0.1/24 eth0\n"),
            home_nodes: Some(b"10.1.0.1 1\n"),
            tunables: &[("ctdb.tunables", b"MonitorInterval=10\n")],
        };
        assert_eq!(report(&contents), Vec::<String>::new());
    }

    #[test]
    fn every_file_reports_and_files_are_held_against_each_other() {
        let contents = Contents {
            ctdb_conf: Some(b"[cluster]\nnode address = 10.0.0.9\n[logging]\nlog levle = INFO\n"),
            ringmaster_conf: Some(b"[dataplane]\nshards = x\n"),
            nodes: Some(b"10.0.0.1\n10.0.0.1\n"),
            public_addresses: Some(b"10.1.0.1 eth0\n"),
            home_nodes: Some(b"10.1.0.1 7\n"),
            tunables: &[("a.tunables", b"MonitorIntervall=10\n")],
        };
        let files: Vec<String> =
            report(&contents).iter().map(|line| line.split(':').next().unwrap().into()).collect();
        assert_eq!(
            files,
            [
                "ctdb.conf",
                "ringmaster.conf",
                "nodes",
                "public_addresses",
                "home_nodes",
                "a.tunables"
            ]
        );
        let good_conf = Contents {
            ctdb_conf: Some(b"[cluster]\nnode address = 10.0.0.9\n"),
            nodes: Some(b"10.0.0.1\n"),
            ..Contents::default()
        };
        assert_eq!(
            report(&good_conf),
            [
                "ctdb.conf: error: \"node address\" 10.0.0.9 is not the address of a node; add it to \
              the nodes file of every node, or remove the option to have it found"
            ]
        );
    }

    #[test]
    fn a_missing_nodes_file_is_an_error() {
        let lines = report(&Contents::default());
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("nodes: error: there is no nodes file"), "{lines:?}");
    }
}
