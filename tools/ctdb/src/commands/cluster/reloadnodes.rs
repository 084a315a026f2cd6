//! `reloadnodes`: make every daemon read its nodes file again, if all files agree.
//!
//! Role: [`compare`] decides what a new list means, in pure code; the rest carries it out.
//! Invariant: no daemon is told anything unless the files of all connected nodes are equal and
//! the change is one that a running cluster can make: nodes appended, deleted (when they are
//! gone) or undeleted.
//!
//! Origin: `docs/spec/admin-interface.md` 1.5.5.

use std::ffi::OsString;

use ringmaster_control::config::nodes::Node;
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::node::{NodeAndFlags, NodeFlags, NodeMap};
use ringmaster_protocol::{Pnn, SockAddr, Srvid};

use crate::command::{Failure, Outcome};
use crate::commands::node::read_nodes;
use crate::session::{HoldError, Session, connected};

/// Seconds that recoveries are held back while the files are read.
const HOLD_SECONDS_FACTOR: u32 = 2;

/// A line about a node, and whether it forbids the reload.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// A change, for standard output.
    Change(String),
    /// A remark, for standard error.
    Warning(String),
    /// A reason to stop.
    Error(String),
}

/// What changes from the node map in use to the nodes file.
fn compare(map: &NodeMap, file: &NodeMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    let count = map.0.len().max(file.0.len());
    for index in 0..count {
        let Some(pnn) = u32::try_from(index).ok().and_then(Pnn::new) else { break };
        match (map.find(pnn), file.find(pnn)) {
            (Some(old), None) => {
                let addr = &old.addr;
                findings
                    .push(Finding::Error(format!("Node {pnn} ({addr}) missing from nodes file")));
            }
            (None, Some(_)) => findings.push(Finding::Change(format!("Node {pnn} is NEW"))),
            (Some(old), Some(new)) => {
                let was_deleted = old.flags.contains(NodeFlags::DELETED);
                let is_deleted = new.flags.contains(NodeFlags::DELETED);
                if was_deleted && is_deleted {
                    continue;
                }
                let gone = old.flags.contains(NodeFlags::DISCONNECTED);
                if !was_deleted && !is_deleted && !old.addr.same_ip(&new.addr) {
                    findings.push(Finding::Error(format!(
                        "Node {pnn} has changed IP address (was {}, now {})",
                        old.addr, new.addr
                    )));
                }
                if gone && !was_deleted && !is_deleted {
                    findings.push(Finding::Warning(format!(
                        "WARNING: Node {pnn} is disconnected. You MUST fix this node manually!"
                    )));
                }
                if is_deleted {
                    findings.push(Finding::Change(format!("Node {pnn} is DELETED")));
                    if !gone {
                        let line = format!("ERROR: Node {pnn} is still connected");
                        findings.push(Finding::Error(line));
                    }
                } else if was_deleted {
                    findings.push(Finding::Change(format!("Node {pnn} is UNDELETED")));
                }
            }
            (None, None) => {}
        }
    }
    findings
}

/// Two nodes files are the same list. Where deleted nodes once lived does not matter.
fn same_list(a: &NodeMap, b: &NodeMap) -> bool {
    let deleted = |node: &NodeAndFlags| node.flags.contains(NodeFlags::DELETED);
    a.0.len() == b.0.len()
        && a.0.iter().zip(&b.0).all(|(a, b)| {
            a.pnn == b.pnn && deleted(a) == deleted(b) && (deleted(a) || a.addr.same_ip(&b.addr))
        })
}

/// `reloadnodes`.
///
/// # Errors
/// A file cannot be read or differs; the change is not allowed; a node fails to reload.
pub fn reloadnodes(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let map = session.nodemap()?;
    let list = read_nodes(&mut session.tool).ok_or(Failure::Status(1))?;
    let file = NodeMap(list.nodes.iter().map(entry).collect());
    check_agreement(session, &map, &file)?;
    let (mut changed, mut wrong) = (false, false);
    for finding in compare(&map, &file) {
        match finding {
            Finding::Change(line) => {
                changed = true;
                session.output().notice(line)?;
            }
            Finding::Warning(line) => session.complain(line),
            Finding::Error(line) => {
                wrong = true;
                session.complain(line);
            }
        }
    }
    if wrong {
        return Err(Failure::new("ERROR: Nodes will not be reloaded due to previous error"));
    }
    if !changed {
        session.complain("No change in nodes file, skipping unnecessary reload");
        return Ok(0);
    }
    reload(session, &connected(&map))
}

/// A line of the nodes file in the form in which daemons send theirs.
fn entry(node: &Node) -> NodeAndFlags {
    let (flags, addr) = match node.address {
        Some(address) => (NodeFlags::NONE, SockAddr::new(address, 0)),
        None => (NodeFlags::DELETED, SockAddr::ZERO),
    };
    NodeAndFlags { pnn: node.pnn, flags, addr }
}

/// Every connected node, this one included, must have the same file.
fn check_agreement(
    session: &mut Session<'_>,
    map: &NodeMap,
    file: &NodeMap,
) -> Result<(), Failure> {
    let own = session.own;
    for node in connected(map) {
        let other = session.control::<kinds::GetNodesFile, _>(node, &()).map_err(|refused| {
            refused.explain(format_args!("ERROR: Failed to get nodes file from node {node}"))
        })?;
        if !same_list(file, &other) {
            let text =
                format_args!("ERROR: Nodes file on node {node} differs from current node ({own})");
            return Err(Failure::new(text));
        }
    }
    Ok(())
}

fn reload(session: &mut Session<'_>, nodes: &[u32]) -> Outcome {
    let limit = u32::try_from(session.tool.options.time_limit).unwrap_or_default();
    hold_recoveries(session, nodes, limit.saturating_mul(HOLD_SECONDS_FACTOR))
        .map_err(|status| Failure::with_status(status, "Failed to disable recoveries"))?;
    let answers = session.control_all::<kinds::ReloadNodesFile, ()>(nodes, &());
    let failed: Vec<u32> = nodes
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_err())
        .map(|(node, _)| *node)
        .collect();
    for node in &failed {
        session.complain(format_args!("Node {node} failed to reload nodes"));
    }
    if !failed.is_empty() {
        session.complain("You MUST fix failed nodes manually!");
    }
    hold_recoveries(session, nodes, 0)
        .map_err(|status| Failure::with_status(status, "Failed to enable recoveries"))?;
    Ok(u8::from(!failed.is_empty()))
}

fn hold_recoveries(session: &mut Session<'_>, nodes: &[u32], seconds: u32) -> Result<(), u8> {
    session
        .hold(Srvid::DISABLE_RECOVERIES, "DISABLE_RECOVERIES", nodes, seconds)
        .map_err(HoldError::status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: NodeFlags = NodeFlags::NONE;
    const DELETED: NodeFlags = NodeFlags::DELETED;
    const GONE: NodeFlags = NodeFlags::DISCONNECTED;

    fn map(nodes: &[(&str, NodeFlags)]) -> NodeMap {
        let node = |(pnn, (addr, flags)): (u32, &(&str, NodeFlags))| NodeAndFlags {
            pnn: Pnn::new(pnn).unwrap(),
            flags: *flags,
            addr: SockAddr::parse_ip(addr).unwrap(),
        };
        NodeMap((0..).zip(nodes).map(node).collect())
    }

    fn lines(map: &NodeMap, file: &NodeMap) -> Vec<String> {
        compare(map, file)
            .into_iter()
            .map(|finding| match finding {
                Finding::Change(line) | Finding::Warning(line) | Finding::Error(line) => line,
            })
            .collect()
    }

    #[test]
    fn equal_lists_change_nothing() {
        let list = map(&[("10.0.0.1", OK), ("10.0.0.2", DELETED)]);
        assert!(compare(&list, &list).is_empty());
    }

    #[test]
    fn nodes_may_be_appended_deleted_when_gone_and_undeleted() {
        let old = map(&[("10.0.0.1", OK), ("10.0.0.2", GONE), ("0.0.0.0", DELETED)]);
        let new =
            map(&[("10.0.0.1", OK), ("0.0.0.0", DELETED), ("10.0.0.3", OK), ("10.0.0.4", OK)]);
        let expected = ["Node 1 is DELETED", "Node 2 is UNDELETED", "Node 3 is NEW"];
        assert_eq!(lines(&old, &new), expected);
    }

    #[test]
    fn a_connected_node_is_not_deleted_and_none_is_lost_or_renumbered() {
        let old = map(&[("10.0.0.1", OK), ("10.0.0.2", OK), ("10.0.0.3", OK)]);
        let new = map(&[("10.0.0.9", OK), ("0.0.0.0", DELETED)]);
        let expected = [
            Finding::Error("Node 0 has changed IP address (was 10.0.0.1, now 10.0.0.9)".into()),
            Finding::Change("Node 1 is DELETED".into()),
            Finding::Error("ERROR: Node 1 is still connected".into()),
            Finding::Error("Node 2 (10.0.0.3) missing from nodes file".into()),
        ];
        assert_eq!(compare(&old, &new), expected);
    }

    #[test]
    fn a_node_out_of_touch_is_remarked() {
        let (old, new) = (map(&[("10.0.0.1", GONE)]), map(&[("10.0.0.1", OK)]));
        let line = "WARNING: Node 0 is disconnected. You MUST fix this node manually!";
        assert_eq!(compare(&old, &new), [Finding::Warning(line.into())]);
    }
}
