//! Interfaces of public addresses: `ifaces`, `setifacelink`.
//!
//! Origin: `docs/spec/admin-interface.md` 1.6.3.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use ringmaster_protocol::connection::{Interface, InterfaceName, LinkState};
use ringmaster_protocol::control::kinds;
use serde::Serialize;

use crate::arguments::text;
use crate::command::{Failure, Key, Outcome, key};
use crate::commands::address::link;
use crate::fields;
use crate::output::{Mode, Report};
use crate::page::Page;
use crate::session::Session;

/// Longest name that C's tool sends on.
const NAME_MAX: usize = 16;

/// Keys of `ifaces`.
pub const IFACES: &[Key] = &[
    key("node", "number", "the node asked"),
    key("interfaces[].name", "string", "name of the interface"),
    key("interfaces[].link_up", "boolean", "it has a link"),
    key("interfaces[].references", "number", "public addresses that use it"),
];

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    link_up: bool,
    references: u32,
}

/// `ifaces`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Interfaces {
    node: u32,
    interfaces: Vec<Row>,
}

impl Report for Interfaces {
    fn human(&self, page: &mut Page) {
        page.line(format_args!("Interfaces on node {}", self.node));
        for row in &self.interfaces {
            let (name, link, references) = (&row.name, link(page, row.link_up), row.references);
            page.line(format_args!("name:{name} link:{link} references:{references}"));
        }
    }

    fn machine(&self, page: &mut Page) {
        page.row(["Name", "LinkStatus", "References"]);
        for row in &self.interfaces {
            page.row(fields![row.name, u8::from(row.link_up), row.references]);
        }
    }
}

/// `ifaces`.
///
/// # Errors
/// The node does not answer.
pub fn ifaces(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let node = session.target;
    let list = session.control::<kinds::GetIfaces, _>(node, &())?;
    if list.0.is_empty() && session.output().form.mode != Mode::Json {
        session.output().notice(format_args!("No interfaces configured on node {node}"))?;
        return Ok(0);
    }
    let row = |interface: &Interface| Row {
        name: interface.name.text().to_string(),
        link_up: interface.link_state == LinkState::Up,
        references: interface.references,
    };
    let interfaces = list.0.iter().map(row).collect();
    session.output().report(&Interfaces { node, interfaces })?;
    Ok(0)
}

/// `setifacelink`.
///
/// # Errors
/// The word is neither up nor down; the node does not have the interface or does not answer.
pub fn setifacelink(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let name = text(arguments, 0);
    let name_len = arguments[0].as_bytes().len();
    let wire_name = InterfaceName::new(arguments[0].as_bytes());
    let Some(wire_name) = wire_name.filter(|_| name_len <= NAME_MAX) else {
        return Err(Failure::new(format_args!("Interface name '{name}' too long")));
    };
    let node = session.target;
    let list = session.control::<kinds::GetIfaces, _>(node, &()).map_err(|refused| {
        refused.explain(format_args!("Failed to get interface information from node {node}"))
    })?;
    if !list.0.iter().any(|interface| interface.name.text() == wire_name.text()) {
        session.output().notice(format_args!("Interface {name} not configured on node {node}"))?;
        return Ok(1);
    }
    // C looks at the second word last.
    let link_state = match text(arguments, 1).as_str() {
        "up" => LinkState::Up,
        "down" => LinkState::Down,
        _ => return Err(Failure::Usage),
    };
    let wanted = Interface { name: wire_name, link_state, references: 0 };
    session.control::<kinds::SetIfaceLinkState, _>(node, &wanted)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{documented, human, machine};

    #[test]
    fn interfaces_are_listed_with_link_and_references() {
        let interfaces = vec![
            Row { name: "pub0".into(), link_up: true, references: 1 },
            Row { name: "pub1".into(), link_up: false, references: 0 },
        ];
        let report = Interfaces { node: 0, interfaces };
        let expected = "\
Interfaces on node 0
name:pub0 link:up references:1
name:pub1 link:down references:0
";
        assert_eq!(human(&report), expected);
        assert_eq!(machine(&report), "|Name|LinkStatus|References|\n|pub0|1|1|\n|pub1|0|0|\n");
        documented(&report, IFACES);
    }
}
