//! The host's TCP connections: which there are to an address, and the end of one.
//!
//! Role: what services that register nothing are known by, and how an address that leaves takes its
//! connections with it.
//! Origin: `docs/spec/cluster-semantics.md` 9.6. C's scripts parse the output of `ss` instead.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use ringmaster_protocol::{SockAddr, connection::Connection};

use crate::netlink::{Conversation, sockets::Socket};

/// See the module.
#[derive(Debug)]
pub struct HostConnections {
    kernel: Conversation,
}

/// One of the host's connections, to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConnection {
    socket: Socket,
    /// Its peer (`src`) and this host (`dst`).
    pub connection: Connection,
}

impl HostConnections {
    /// Opens the socket.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { kernel: Conversation::about_sockets()? })
    }

    /// The established connections that end at one of `addresses` here.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn established(&mut self, addresses: &[IpAddr]) -> io::Result<BTreeSet<Connection>> {
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        let sockets = self.kernel.tcp_sockets()?;
        let established = sockets.iter().filter(|socket| socket.established).map(connection);
        Ok(established.filter(|one| one.dst.ip().is_some_and(|ip| wanted.contains(&ip))).collect())
    }

    /// All connections, half closed ones too.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn all(&mut self) -> io::Result<Vec<HostConnection>> {
        let sockets = self.kernel.tcp_sockets()?.into_iter();
        let named = |socket| HostConnection { connection: connection(&socket), socket };
        Ok(sockets.map(named).collect())
    }

    /// Ends a connection: whoever has it open here gets an error, the peer a reset. `false`: it has
    /// ended meanwhile.
    ///
    /// # Errors
    /// The kernel cannot (`Unsupported`), or may not.
    pub fn end(&mut self, connection: &HostConnection) -> io::Result<bool> {
        match self.kernel.destroy(&connection.socket) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, error))
            }
            done => done,
        }
    }
}

/// IPv4 in IPv6 clothes is IPv4: a server may listen for both on one socket.
fn connection(socket: &Socket) -> Connection {
    let end = |end: SocketAddr| SockAddr::new(end.ip(), end.port()).canonical();
    Connection { src: end(socket.peer()), dst: end(socket.local()) }
}
