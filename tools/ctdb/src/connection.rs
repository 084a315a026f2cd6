//! Connecting, and what C says when there is no daemon.
//!
//! Role: the socket's errors as C's messages, with the advice that follows when this machine is in
//! no nodes file.
//! Origin: `docs/spec/admin-interface.md` 1.2 (connection problems), tried with the 4.17 tool.

use std::net::{IpAddr, SocketAddr, TcpListener};

use ringmaster_client::{Client, ConnectError};

use crate::command::Failure;
use crate::commands::node::read_nodes;
use crate::tool::Tool;

/// Connects to the daemon of this node.
///
/// # Errors
/// Explained.
pub(crate) fn open(tool: &mut Tool<'_>) -> Result<Client, Failure> {
    let socket = tool.places.socket();
    // The handshake is with a daemon on this machine: `-t` is about the others.
    let client = Client::connect_to(&socket, ringmaster_client::limits::TIMEOUT_DEFAULT);
    client.map_err(|error| {
        if let ConnectError::Connect { .. } = error {
            tool.output.complain(format_args!("connect() failed, errno={}", error.errno()));
        }
        let path = socket.display();
        tool.output.complain(format_args!("Failed to connect to CTDB daemon ({path})"));
        advise(tool);
        Failure::Status(1)
    })
}

/// Nothing when an address of the nodes file is ours: then the daemon is just not running.
fn advise(tool: &mut Tool<'_>) {
    match read_nodes(tool) {
        Some(list) if list.nodes.iter().filter_map(|node| node.address).any(is_local) => return,
        Some(_) => tool.output.complain("Failed to detect PNN of the current node."),
        None => {}
    }
    tool.output.complain("Is this node part of CTDB cluster?");
}

/// An address is local when it can be bound.
fn is_local(address: IpAddr) -> bool {
    TcpListener::bind(SocketAddr::new(address, 0)).is_ok()
}
