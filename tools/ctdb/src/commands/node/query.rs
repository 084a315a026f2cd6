//! The requests behind the reports about nodes.

use std::ffi::OsString;
use std::fs;
use std::time::Instant;

use ringmaster_control::config::nodes;
use ringmaster_protocol::Generation;
use ringmaster_protocol::connection::LinkState;
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::node::{NodeFlags, NodeMap};
use ringmaster_protocol::process::{RecMode, RunState};

use super::format::{
    GetPid, Leader, ListedNode, ListedNodes, NodeRow, NodeStatus, NodeTable, Ping, Pnn,
    RunStateReport, Status, UptimeReport,
};
use crate::arguments::{NodeList, node_list};
use crate::command::{Failure, Outcome};
use crate::output::Mode;
use crate::session::Session;
use crate::tool::Tool;

/// `status`.
///
/// # Errors
/// The node does not answer.
pub fn status(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let map = marked_nodemap(session)?;
    let target = session.target;
    let all: Vec<u32> = map.0.iter().map(|node| node.pnn.get()).collect();
    if session.output().form.mode == Mode::Machine {
        let node_status = node_table(session, &map, &all);
        // The rest of the report has no rows.
        let status = Status::new(node_status, None, Vec::new(), false, None);
        session.output().report(&status)?;
        return Ok(0);
    }
    let vnn_map = session.control::<kinds::GetVnnMap, _>(target, &())?;
    let mode = session.control::<kinds::GetRecMode, _>(target, &())?.0;
    let leader = session.leader()?;
    let node_status = node_table(session, &map, &all);
    let generation = (vnn_map.generation != Generation::INVALID).then_some(vnn_map.generation.0);
    let slots = vnn_map.map.iter().map(|pnn| pnn.get()).collect();
    let recovery = mode == RecMode::Active;
    session.output().report(&Status::new(node_status, generation, slots, recovery, leader))?;
    Ok(0)
}

/// `nodestatus`.
///
/// # Errors
/// The node does not answer; the list names a node that does not exist.
pub fn nodestatus(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let map = marked_nodemap(session)?;
    let wanted = node_list(arguments.first().map(OsString::as_os_str), &map, session.target)?;
    let node_status = node_table(session, &map, wanted.nodes());
    let report = NodeStatus { node_status, all: matches!(wanted, NodeList::All(_)) };
    session.output().report(&report)?;
    Ok(report.exit_status())
}

/// The node map with what only the tool knows: while the asked daemon has not finished its first
/// recovery, what it believes of others is a guess.
fn marked_nodemap(session: &mut Session<'_>) -> Result<NodeMap, Failure> {
    let mut map = session.nodemap()?;
    let target = session.target;
    let state = session
        .control::<kinds::GetRunState, _>(target, &())
        .map_err(|refused| refused.explain("Unable to get runstate"))?;
    if state <= RunState::FirstRecovery {
        for node in &mut map.0 {
            if node.pnn.get() != target && !node.flags.contains(NodeFlags::DISCONNECTED) {
                node.flags = node.flags | NodeFlags::UNKNOWN;
            }
        }
    }
    Ok(map)
}

/// Rows of the nodes wanted, as often as wanted; deleted ones have none.
fn node_table(session: &mut Session<'_>, map: &NodeMap, wanted: &[u32]) -> NodeTable {
    let deleted = map.0.iter().filter(|node| node.flags.contains(NodeFlags::DELETED)).count();
    let mut table =
        NodeTable { node_count: map.0.len(), deleted_node_count: deleted, nodes: Vec::new() };
    for pnn in wanted {
        let found = map.0.iter().find(|node| node.pnn.get() == *pnn);
        let Some(node) = found.filter(|node| !node.flags.contains(NodeFlags::DELETED)) else {
            continue;
        };
        table.nodes.push(NodeRow {
            pnn: *pnn,
            address: node.addr.to_string(),
            flags: node.flags,
            partially_online: node.flags.is_empty() && has_link_down(session, *pnn),
            this_node: *pnn == session.target,
        });
    }
    table
}

fn has_link_down(session: &mut Session<'_>, node: u32) -> bool {
    // C, too, says that the node did not answer and shows it as whole.
    session
        .control::<kinds::GetIfaces, _>(node, &())
        .is_ok_and(|list| list.0.iter().any(|interface| interface.link_state == LinkState::Down))
}

/// `listnodes`.
///
/// # Errors
/// The nodes file cannot be read.
pub fn listnodes(tool: &mut Tool<'_>, _arguments: &[OsString]) -> Outcome {
    let list = read_nodes(tool).ok_or(Failure::Status(1))?;
    let nodes = list
        .nodes
        .iter()
        .filter_map(|node| {
            let pnn = node.pnn.get();
            node.address.map(|address| ListedNode { pnn, address: address.to_string() })
        })
        .collect();
    tool.output.report(&ListedNodes { nodes })?;
    Ok(0)
}

/// The nodes file, when it makes sense; what is wrong with it is reported.
pub(crate) fn read_nodes(tool: &mut Tool<'_>) -> Option<nodes::Nodes> {
    let path = tool.places.paths.nodes_file();
    let text = fs::read(&path).ok();
    let parsed = text.as_deref().map(nodes::parse);
    if let (Some(text), Some(Err(finding))) = (&text, &parsed)
        && let Some(line) = finding.line
    {
        let index = usize::try_from(line).unwrap_or_default().saturating_sub(1);
        let line = text.split(|byte| *byte == b'\n').nth(index).unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        tool.output.complain(format_args!("Invalid IP address {}", line.trim_matches([' ', '\t'])));
    }
    let list = parsed.and_then(Result::ok);
    if list.is_none() {
        tool.output.complain(format_args!("Failed to read nodes file \"{}\"", path.display()));
    }
    list
}

/// `uptime`.
///
/// # Errors
/// The node does not answer.
pub fn uptime(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let pnn = session.target;
    let uptime = session.control::<kinds::Uptime, _>(pnn, &())?;
    session.output().report(&UptimeReport {
        pnn,
        current: uptime.current_time,
        start: uptime.ctdbd_start_time,
        recovery_started: uptime.last_recovery_started,
        recovery_finished: uptime.last_recovery_finished,
    })?;
    Ok(0)
}

/// `ping`.
///
/// # Errors
/// The node does not answer.
pub fn ping(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let pnn = session.target;
    let start = Instant::now();
    let clients = session.control::<kinds::Ping, _>(pnn, &())?.0;
    let time = start.elapsed().as_secs_f64();
    session.output().report(&Ping { pnn, time, num_clients: clients.0 })?;
    Ok(0)
}

/// `runstate`.
///
/// # Errors
/// The node does not answer; a state asked for does not exist.
pub fn runstate(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let state = session.control::<kinds::GetRunState, _>(session.target, &())?;
    let mut required = arguments.is_empty();
    for argument in arguments {
        let word = argument.to_string_lossy();
        let Some(wanted) = run_state(&word) else {
            session.output().notice(format_args!("Invalid run state ({word})"))?;
            return Ok(1);
        };
        if wanted == state {
            required = true;
            break;
        }
    }
    session.output().report(&RunStateReport { state, required })?;
    Ok(u8::from(!required))
}

fn run_state(word: &str) -> Option<RunState> {
    [
        RunState::Init,
        RunState::Setup,
        RunState::FirstRecovery,
        RunState::Startup,
        RunState::Running,
        RunState::Shutdown,
    ]
    .into_iter()
    .find(|state| state.to_string().eq_ignore_ascii_case(word))
}

/// `pnn`.
///
/// # Errors
/// Standard output cannot be written.
pub fn pnn(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let pnn = session.own;
    session.output().report(&Pnn { pnn })?;
    Ok(0)
}

/// `leader`.
///
/// # Errors
/// The connection is gone.
pub fn leader(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let leader = session.leader()?;
    session.output().report(&Leader { leader })?;
    Ok(0)
}

/// `getpid`.
///
/// # Errors
/// The node does not answer.
pub fn getpid(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let pid = session.control::<kinds::GetPid, _>(session.target, &())?.0;
    session.output().report(&GetPid { pid: pid.0 })?;
    Ok(0)
}
