//! Administrative state of a node: `disable`, `stop`, `ban` and their opposites, `shutdown`.
//!
//! Role: the request, then waiting until the cluster has noticed, then a takeover run.
//! Origin: `docs/spec/admin-interface.md` 1.5.6.

use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use ringmaster_client::ControlOptions;
use ringmaster_protocol::control::{Control, kinds};
use ringmaster_protocol::node::{BanState, NodeFlags, NodeMap};
use ringmaster_protocol::{Destination, Pnn};

use crate::arguments::unsigned32;
use crate::command::{Failure, Outcome};
use crate::commands::address::reallocate;
use crate::session::{Refused, Session};

/// How often the node map is looked at.
const POLL: Duration = Duration::from_secs(1);

/// A flag, the word for it, and what is wanted of it.
struct Wish {
    flag: NodeFlags,
    word: &'static str,
    set: bool,
}

impl Wish {
    const fn set(flag: NodeFlags, word: &'static str) -> Self {
        Self { flag, word, set: true }
    }

    const fn clear(flag: NodeFlags, word: &'static str) -> Self {
        Self { flag, word, set: false }
    }

    fn granted(&self, map: &NodeMap, node: u32) -> bool {
        let found = map.0.iter().find(|entry| entry.pnn.get() == node);
        found.is_some_and(|entry| entry.flags.contains(self.flag) == self.set)
    }

    /// Whether there is nothing to do. A node map that cannot be had is no reason to stop.
    fn granted_already(&self, session: &mut Session<'_>) -> Result<bool, Failure> {
        let node = session.target;
        let map = match session.nodemap() {
            Ok(map) => map,
            Err(Failure::Message { text, .. }) => {
                session.complain(text);
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        };
        let granted = self.granted(&map, node);
        if granted {
            let state = if self.set { "already" } else { "not" };
            session.complain(format_args!("Node {node} is {state} {}", self.word));
        }
        Ok(granted)
    }

    /// Waits until the node map shows it, then for a takeover run. Only `-T` ends it early.
    fn await_effect(&self, session: &mut Session<'_>) -> Outcome {
        let node = session.target;
        loop {
            match session.fresh_nodemap() {
                Ok(map) if self.granted(&map, node) => return reallocate(session),
                Ok(_) => {}
                Err(Failure::Message { text, .. }) => {
                    session.complain(text);
                    session.complain("Failed to get nodemap, trying again");
                }
                Err(failure) => return Err(failure),
            }
            thread::sleep(POLL);
        }
    }
}

fn change<C>(session: &mut Session<'_>, wish: &Wish, failure: &str) -> Outcome
where
    C: for<'r> Control<Request<'r> = (), Reply<'r> = ()>,
{
    if wish.granted_already(session)? {
        return Ok(0);
    }
    let node = session.target;
    session
        .control::<C, ()>(node, &())
        .map_err(|refused| refused.explain(format_args!("{failure} {node}")))?;
    wish.await_effect(session)
}

/// `disable`.
///
/// # Errors
/// The node does not answer.
pub fn disable(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let wish = Wish::set(NodeFlags::PERMANENTLY_DISABLED, "disabled");
    change::<kinds::DisableNode>(session, &wish, "Failed to disable node")
}

/// `enable`.
///
/// # Errors
/// The node does not answer.
pub fn enable(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let wish = Wish::clear(NodeFlags::PERMANENTLY_DISABLED, "disabled");
    change::<kinds::EnableNode>(session, &wish, "Failed to enable node")
}

/// `stop`.
///
/// # Errors
/// The node does not answer.
pub fn stop(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let wish = Wish::set(NodeFlags::STOPPED, "stopped");
    change::<kinds::StopNode>(session, &wish, "Failed to stop node")
}

/// `continue`.
///
/// # Errors
/// The node does not answer.
pub fn resume(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let wish = Wish::clear(NodeFlags::STOPPED, "stopped");
    change::<kinds::ContinueNode>(session, &wish, "Failed to continue stopped node")
}

fn set_ban(session: &mut Session<'_>, seconds: u32) -> Result<(), Refused> {
    let node = session.target;
    // The target was found in the node map, or is our own: it is a node number.
    let pnn = Pnn::new(node).ok_or(Refused { code: 22, closed: false })?;
    session.control::<kinds::SetBanState, ()>(node, &BanState { pnn, seconds })
}

/// `ban`.
///
/// # Errors
/// The word is no time; the node does not answer.
pub fn ban(session: &mut Session<'_>, arguments: &[OsString]) -> Outcome {
    const EINVAL: u8 = 22;
    let wish = Wish::set(NodeFlags::BANNED, "banned");
    if wish.granted_already(session)? {
        return Ok(0);
    }
    let seconds = unsigned32(&arguments[0]).ok_or(Failure::BAD_NUMBER)?;
    if seconds == 0 {
        return Err(Failure::with_status(EINVAL, "Ban time cannot be zero"));
    }
    let node = session.target;
    set_ban(session, seconds)
        .map_err(|refused| refused.explain(format_args!("Failed to ban node {node}")))?;
    wish.await_effect(session)
}

/// `unban`.
///
/// # Errors
/// The node does not answer.
pub fn unban(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    let wish = Wish::clear(NodeFlags::BANNED, "banned");
    if wish.granted_already(session)? {
        return Ok(0);
    }
    let node = session.target;
    set_ban(session, 0)
        .map_err(|refused| refused.explain(format_args!("Failed to unban node {node}")))?;
    wish.await_effect(session)
}

/// `shutdown`. Nobody answers; the own daemon is gone when it closes the connection.
///
/// # Errors
/// The request cannot be sent, or the own daemon does not go away in time.
pub fn shutdown(session: &mut Session<'_>, _arguments: &[OsString]) -> Outcome {
    const ETIMEDOUT: i32 = 110;
    let (node, timeout) = (session.target, session.timeout());
    let failed = |session: &mut Session<'_>, code: i32| {
        session.complain(format_args!("Control SHUTDOWN failed to node {node}, ret={code}"));
        let status = Failure::status_of(code);
        Err(Failure::with_status(status, format_args!("Unable to shutdown node {node}")))
    };
    if timeout.is_zero() {
        return failed(session, ETIMEDOUT);
    }
    let (to, options) = (Destination::from_raw(node), ControlOptions::timeout(timeout));
    if let Err(error) = session.client.control_noreply::<kinds::Shutdown>(to, &(), options) {
        let code = error.errno();
        return failed(session, code);
    }
    if node != session.own {
        return Ok(0);
    }
    match session.client.serve(timeout) {
        // The connection is over: that is the answer.
        Err(_) => Ok(0),
        Ok(()) => failed(session, ETIMEDOUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmaster_protocol::SockAddr;
    use ringmaster_protocol::node::NodeAndFlags;

    #[test]
    fn a_wish_is_about_one_flag_of_one_node() {
        let pnn = Pnn::new(1).unwrap();
        let flags = NodeFlags::STOPPED | NodeFlags::UNHEALTHY;
        let map = NodeMap(vec![NodeAndFlags { pnn, flags, addr: SockAddr::ZERO }]);
        assert!(Wish::set(NodeFlags::STOPPED, "stopped").granted(&map, 1));
        assert!(!Wish::clear(NodeFlags::STOPPED, "stopped").granted(&map, 1));
        assert!(Wish::clear(NodeFlags::BANNED, "banned").granted(&map, 1));
        assert!(!Wish::clear(NodeFlags::BANNED, "banned").granted(&map, 0), "not in the map");
    }
}
