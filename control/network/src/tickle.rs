//! Tickles: making a client find out that its connection has gone.
//!
//! The client that gets one answers with the sequence numbers of the connection it believes in, and
//! the server's new host, which knows no such connection, resets it.
//! Origin: `docs/spec/cluster-semantics.md` 9.5; `ctdb/common/system_socket.c`.

use std::{
    io,
    net::{SocketAddr, SocketAddrV6},
    os::fd::OwnedFd,
};

use ringmaster_protocol::{SockAddr, connection::Connection};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};

use crate::packet::tcp::{self, Segment};

/// Why a segment was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    #[error("cannot open a raw socket")]
    Open(#[source] io::Error),
    #[error("cannot send to {to}")]
    Send {
        to: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("one end of the connection is IPv4, the other IPv6")]
    Mixed,
    #[error("neither an IPv4 nor an IPv6 address")]
    Family,
}

/// Sends raw segments; opens its sockets when they are needed.
#[derive(Debug, Default)]
pub struct Sender {
    ipv4: Option<OwnedFd>,
    ipv6: Option<OwnedFd>,
}

impl Sender {
    /// Sends the acknowledgement from the server's end of the connection to the client's.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn tickle(&mut self, connection: &Connection) -> Result<(), SendError> {
        self.send(connection.dst, connection.src, Segment::Acknowledgement)
    }

    /// Sends a segment.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(
        &mut self,
        from: SockAddr,
        to: SockAddr,
        segment: Segment,
    ) -> Result<(), SendError> {
        match (from, to) {
            (SockAddr::V4(from), SockAddr::V4(to)) => {
                let socket = opened(&mut self.ipv4, AddressFamily::INET)?;
                transmit(socket, &tcp::ipv4(from, to, segment), to.into())
            }
            (SockAddr::V6(from), SockAddr::V6(to)) => {
                let socket = opened(&mut self.ipv6, AddressFamily::INET6)?;
                // Raw IPv6 sockets take the port for a protocol number: it has to be 0.
                let station = SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id());
                transmit(socket, &tcp::ipv6(from, to, segment), station.into())
            }
            (SockAddr::V4(_), SockAddr::V6(_)) | (SockAddr::V6(_), SockAddr::V4(_)) => {
                Err(SendError::Mixed)
            }
            _ => Err(SendError::Family),
        }
    }
}

fn opened(slot: &mut Option<OwnedFd>, family: AddressFamily) -> Result<&OwnedFd, SendError> {
    if slot.is_none() {
        let raw = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW));
        *slot = Some(raw.map_err(|error| SendError::Open(error.into()))?);
    }
    Ok(slot.as_ref().expect("it has just been opened"))
}

fn transmit(socket: &OwnedFd, packet: &[u8], to: SocketAddr) -> Result<(), SendError> {
    sendto(socket, packet, SendFlags::DONTWAIT, &to)
        .map_err(|error| SendError::Send { to, source: error.into() })
        .map(|_whole_datagram| ())
}
