//! Changes of public addresses.
//!
//! Role: the requests in the order in which C's tool makes them; the daemons do the rest.

use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use ringmaster_protocol::connection::{AddressInfo, PublicIp};
use ringmaster_protocol::control::kinds;
use ringmaster_protocol::process::SrvidMessage;
use ringmaster_protocol::text::Text;
use ringmaster_protocol::{Destination, Encode, Pnn, SockAddr, Srvid};

use crate::arguments::{address, node_list, text, unsigned32};
use crate::command::{Failure, Outcome};
use crate::session::{HoldError, Refused, Session, connected};

/// Attempts of `moveip` and `addip`.
const ATTEMPTS_MAX: u32 = 5;
/// Pause after each failed one.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(3);
/// Shortest wait for the leader before it is asked again, whatever `-t` says.
const REALLOCATE_WAIT_MIN: Duration = Duration::from_millis(100);

/// `ipreallocate`, `sync`.
///
/// # Errors
/// The connection is gone.
pub fn ipreallocate(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    reallocate(session)
}

/// Asks the leader for a takeover run until it answers that it has made one. The leader may
/// change meanwhile, so the question is repeated; only `-T` ends it.
///
/// # Errors
/// The connection is gone.
pub(crate) fn reallocate(session: &mut Session<'_>) -> Outcome {
    let srvid = session.reply_id();
    session.register(srvid)?;
    let outcome = reallocate_registered(session, srvid);
    // The process ends soon, and its registrations with it.
    let _forgotten = session.deregister(srvid);
    outcome
}

fn reallocate_registered(session: &mut Session<'_>, srvid: Srvid) -> Outcome {
    let question = SrvidMessage { pnn: Pnn::new(session.own), srvid };
    let wait = session.timeout().max(REALLOCATE_WAIT_MIN);
    loop {
        let everybody = Destination::BroadcastConnected;
        session.message(everybody, Srvid::TAKEOVER_RUN, "TAKEOVER_RUN", &question.to_bytes())?;
        if let Some(answer) = session.await_message(srvid, wait)? {
            let failed = answer.first_chunk::<4>().is_some_and(|raw| i32::from_le_bytes(*raw) < 0);
            return Ok(u8::from(failed));
        }
    }
}

/// `gratarp`.
///
/// # Errors
/// The word is no address; the node does not answer.
pub fn gratarp(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let addr = address(&arguments[0])?;
    let interface = text(arguments, 1);
    let info = AddressInfo { addr, mask: 0, interfaces: Some(Text::new(&interface)) };
    let node = session.target;
    session.control::<kinds::SendGratuitousArp, _>(node, &info).map_err(|refused| {
        refused.explain(format_args!("Unable to send gratuitous arp from node {node}"))
    })?;
    Ok(0)
}

fn addresses(session: &mut Session<'_>, node: u32) -> Result<Vec<PublicIp>, Refused> {
    session.control::<kinds::GetPublicIps, _>(node, &()).map(|list| list.0)
}

fn knows(list: &[PublicIp], addr: &SockAddr) -> bool {
    list.iter().any(|known| known.addr.same_ip(addr))
}

/// `addip`.
///
/// # Errors
/// The word is no address; the node does not take it.
pub fn addip(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let word = text(arguments, 0);
    let (addr, mask) = SockAddr::parse_with_mask(&word)
        .map_err(|_| Failure::new(format_args!("Invalid IP/Mask {word}")))?;
    let node = session.target;
    let list = addresses(session, node).map_err(|refused| {
        refused.explain_with(1, format_args!("Failed to get Public IPs from node {node}"))
    })?;
    if knows(&list, &addr) {
        session.complain(format_args!("Node already knows about IP {addr}"));
        return Ok(0);
    }
    let interface = text(arguments, 1);
    let info = AddressInfo { addr, mask, interfaces: Some(Text::new(&interface)) };
    let mut attempt = 1;
    while let Err(refused) = session.control::<kinds::AddPublicIp, _>(node, &info) {
        if attempt == ATTEMPTS_MAX || refused.closed {
            let text = format_args!("Failed to add public IP to node {node}. Giving up");
            return Err(refused.explain(text));
        }
        attempt += 1;
        thread::sleep(ATTEMPT_PAUSE);
    }
    let everybody = Destination::BroadcastConnected;
    session
        .message(everybody, Srvid::REBALANCE_NODE, "REBALANCE_NODE", &node.to_le_bytes())
        .map_err(|refused| refused.explain("Failed to ask leader to distribute IPs"))?;
    Ok(0)
}

/// `delip`.
///
/// # Errors
/// The word is no address; the node does not let it go.
pub fn delip(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let addr = address(&arguments[0])?;
    let node = session.target;
    let list = addresses(session, node).map_err(|refused| {
        refused.explain_with(1, format_args!("Failed to get Public IPs from node {node}"))
    })?;
    if !knows(&list, &addr) {
        session.complain(format_args!("Node does not know about IP address {addr}"));
        return Ok(0);
    }
    let info = AddressInfo { addr, mask: 0, interfaces: None };
    session.control::<kinds::DelPublicIp, _>(node, &info).map_err(|refused| {
        refused.explain(format_args!("Failed to delete public IP from node {node}"))
    })?;
    Ok(0)
}

/// `moveip`.
///
/// # Errors
/// The words are no address and number; no attempt succeeded.
pub fn moveip(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let addr = address(&arguments[0])?;
    let node = unsigned32(&arguments[1])
        .filter(|node| *node != u32::MAX)
        .ok_or_else(|| Failure::new(format_args!("Invalid PNN {}", text(arguments, 1))))?;
    for _ in 0..ATTEMPTS_MAX {
        match move_address(session, &addr, node) {
            Ok(()) => return Ok(0),
            Err(Failure::Message { text, .. }) => session.complain(text),
            Err(failure) => return Err(failure),
        }
        thread::sleep(ATTEMPT_PAUSE);
    }
    Err(Failure::new(format_args!("Failed to move IP {addr} to node {node}")))
}

fn move_address(session: &mut Session<'_>, addr: &SockAddr, node: u32) -> Result<(), Failure> {
    let twice = hold_seconds(session);
    let everybody = Destination::BroadcastConnected;
    session
        .message(everybody, Srvid::DISABLE_IP_CHECK, "DISABLE_IP_CHECK", &twice.to_le_bytes())
        .map_err(|refused| refused.explain("Failed to disable IP check"))?;
    let list = addresses(session, node).map_err(|refused| {
        refused.explain(format_args!("Failed to get Public IPs from node {node}"))
    })?;
    if !knows(&list, addr) {
        let text = format_args!("Node {node} CANNOT host IP address {addr}");
        return Err(Failure::new(text));
    }
    let map = session.nodemap()?;
    let others: Vec<u32> = connected(&map).into_iter().filter(|pnn| *pnn != node).collect();
    let placed = PublicIp { pnn: Pnn::new(node), addr: *addr };
    let released = session.control_all::<kinds::ReleaseIp, ()>(&others, &placed);
    if released.iter().any(Result::is_err) {
        return Err(Failure::new("Failed to release IP on nodes"));
    }
    session
        .control::<kinds::TakeoverIp, _>(node, &placed)
        .map_err(|refused| refused.explain(format_args!("Failed to takeover IP on node {node}")))
}

/// How long others hold back: twice the time one request may take.
fn hold_seconds(session: &Session<'_>) -> u32 {
    u32::try_from(session.tool.options.time_limit).unwrap_or_default().saturating_mul(2)
}

/// `reloadips`.
///
/// # Errors
/// Takeover runs cannot be held back; the list is wrong.
pub fn reloadips(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    let map = session.nodemap()?;
    let wanted = node_list(arguments.first().map(OsString::as_os_str), &map, session.target)?;
    let everybody = connected(&map);
    let wanted: Vec<u32> =
        wanted.nodes().iter().copied().filter(|node| everybody.contains(node)).collect();
    if wanted.is_empty() {
        // C's own words for a list of nodes without any.
        return Err(Failure::new("Memory allocation error"));
    }
    let seconds = hold_seconds(session);
    hold_takeover_runs(session, &everybody, seconds)
        .map_err(|status| Failure::with_status(status, "Failed to disable takeover runs"))?;
    let answers = session.control_all::<kinds::ReloadPublicIps, ()>(&wanted, &());
    if answers.iter().any(Result::is_err) {
        session.complain("Failed to reload IPs on some nodes.");
    }
    hold_takeover_runs(session, &everybody, 0)
        .map_err(|status| Failure::with_status(status, "Failed to enable takeover runs"))?;
    reallocate(session)
}

fn hold_takeover_runs(session: &mut Session<'_>, nodes: &[u32], seconds: u32) -> Result<(), u8> {
    session
        .hold(Srvid::DISABLE_TAKEOVER_RUNS, "DISABLE_TAKEOVER_RUNS", nodes, seconds)
        .map_err(HoldError::status)
}
