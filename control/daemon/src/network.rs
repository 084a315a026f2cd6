//! Public addresses on this host: files, interfaces, neighbours, clients.
//!
//! Role: carries out what the plane asks for with `ringmaster-network`.
//! Owner: the main thread. Nothing here waits; a failure is logged where nobody wants to hear of it.
//! Origin: `docs/spec/cluster-semantics.md` 9.1, 9.5, 9.9; `ctdb/server/ctdb_takeover.c`.

use std::{io, net::IpAddr, path::Path};

use ringmaster_control::{
    config::{
        Finding, Paths,
        home_nodes::{self, HomeNode},
        public_addresses::{self, PublicAddresses},
    },
    node::Outcome,
};
use ringmaster_network::{
    addresses::HostAddresses, announce, connections::HostConnections, interfaces, tickle::Sender,
};
use ringmaster_protocol::connection::Connection;

/// Sockets are opened when they are needed: a node without public addresses has none.
#[derive(Debug, Default)]
pub(crate) struct Network {
    host: Option<HostAddresses>,
    connections: Option<HostConnections>,
    sender: Sender,
}

impl Network {
    /// Outcome: those that the host has.
    pub(crate) fn held(&mut self, wanted: &[IpAddr]) -> Outcome {
        let held = with(&mut self.host, HostAddresses::open, |host| host.held(wanted));
        held.map_or_else(|error| Outcome::Failed(error.to_string()), Outcome::Held)
    }

    /// Outcome: those that end at one of `addresses`.
    pub(crate) fn connections(&mut self, addresses: &[IpAddr]) -> Outcome {
        let found = with(&mut self.connections, HostConnections::open, |kernel| {
            kernel.established(addresses)
        });
        found.map_or_else(|error| Outcome::Failed(error.to_string()), Outcome::Connections)
    }

    /// Tells the neighbours once.
    pub(crate) fn announce(address: IpAddr, interface: &str) {
        if let Err(error) = announce::announce(address, interface) {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%address, %error, source, "the neighbours have not been told");
        }
    }

    /// Tickles each connection once. One word about failures, not one for each.
    pub(crate) fn tickle(&mut self, connections: &[Connection]) {
        let (mut failed, mut last) = (0_usize, None);
        for connection in connections {
            if let Err(error) = self.sender.tickle(connection) {
                failed += 1;
                last = Some(error);
            }
        }
        if let Some(error) = last {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(failed, %error, source, "tickles have not been sent");
        }
    }
}

/// Asks over a socket that is opened when it is needed, and anew after a failure.
fn with<S, T>(
    kept: &mut Option<S>,
    open: impl FnOnce() -> io::Result<S>,
    ask: impl FnOnce(&mut S) -> io::Result<T>,
) -> io::Result<T> {
    let mut socket = kept.take().map_or_else(open, Ok)?;
    let answer = ask(&mut socket)?;
    *kept = Some(socket);
    Ok(answer)
}

/// Outcome: those that the host has.
pub(crate) fn existing_interfaces(names: &[String]) -> Outcome {
    let existing = interfaces::existing(names.iter().map(String::as_str));
    Outcome::Names(existing.map_err(|error| error.to_string()))
}

/// Why the file of public addresses cannot be used.
#[derive(Debug)]
pub(crate) enum Unusable {
    Unreadable(String),
    Wrong(String, Box<Finding>),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(reason) => f.write_str(reason),
            Self::Wrong(file, finding) => write!(f, "{file}: {finding}"),
        }
    }
}

/// The file, checked; none is an empty one.
pub(crate) fn public_addresses(paths: &Paths) -> Result<PublicAddresses, Unusable> {
    let file = paths.public_addresses_file();
    let text = read(&file).map_err(|error| {
        Unusable::Unreadable(format!("cannot read {}: {error}", file.display()))
    })?;
    let exists = |name: &str| interfaces::existing([name]).is_ok_and(|found| !found.is_empty());
    let wrong = |finding| Unusable::Wrong(file.display().to_string(), finding);
    public_addresses::parse(&text.unwrap_or_default(), exists).map_err(wrong)
}

/// The file; one that cannot be read is as good as none.
pub(crate) fn home_nodes(paths: &Paths) -> Vec<HomeNode> {
    let file = paths.home_nodes_file();
    let text = match read(&file) {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", file.display());
            return Vec::new();
        }
    };
    let (homes, findings) = home_nodes::parse(&text);
    for finding in findings {
        tracing::warn!("{}: {finding}", file.display());
    }
    homes
}

/// `None`: there is no such file.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
