//! Connecting, and what C says when there is no daemon.
//!
//! Role: the socket's errors as C's messages, with the advice that follows when this machine is in
//! no nodes file.
//! Origin: `docs/spec/admin-interface.md` 1.2 (connection problems), tried with the 4.17 tool.

use std::net::{IpAddr, SocketAddr, TcpListener};

use ringmaster_client::{Client, ConnectError};

use crate::command::Failure;
use crate::commands::node::{nodes_unreadable, read_nodes};
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
        for line in advice(tool) {
            tool.output.complain(line);
        }
        Failure::Status(1)
    })
}

/// Nothing when an address of the nodes file is ours: then the daemon is just not running.
fn advice(tool: &Tool<'_>) -> Vec<String> {
    let question = "Is this node part of CTDB cluster?".to_owned();
    match read_nodes(tool) {
        None => vec![nodes_unreadable(tool), question],
        Some(list) if list.nodes.iter().filter_map(|node| node.address).any(is_local) => Vec::new(),
        Some(_) => vec!["Failed to detect PNN of the current node.".to_owned(), question],
    }
}

/// An address is local when it can be bound.
fn is_local(address: IpAddr) -> bool {
    TcpListener::bind(SocketAddr::new(address, 0)).is_ok()
}
