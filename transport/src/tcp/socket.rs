//! Sockets between nodes, with the options that C sets.
//!
//! Origin: `docs/spec/wire-protocol.md` 6.4; `ctdb/tcp/tcp_connect.c`.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt},
};

/// Starts to connect to a peer's address, from the node's own: a peer knows who connects by the
/// source address. The connect is under way when this returns.
///
/// # Errors
/// The kernel's: no descriptor, no such address here, or the peer cannot be reached at all.
pub fn start_connect(own: IpAddr, to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddr::new(own, 0))?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// Asks the kernel to acknowledge by twos instead of each read. A link is two one-way connections,
/// so an acknowledgement never travels with an answer: alone it costs what a packet costs. Where
/// the kernel refuses, it goes on as before. It forgets the wish after a pause of 40 ms.
pub fn delay_acks(stream: impl AsFd) {
    // Only speed is at stake.
    let _ = sockopt::set_tcp_quickack(stream, false);
}

/// Prepares an accepted connection and says whose it is, by its source address. An IPv4 address
/// inside an IPv6 one counts as IPv4.
///
/// # Errors
/// The kernel's: the connection has ended already.
pub fn accepted(stream: impl AsFd) -> io::Result<IpAddr> {
    sockopt::set_socket_keepalive(&stream, true)?;
    let source: SocketAddr = rustix::net::getpeername(&stream)?
        .ok_or(Errno::NOTCONN)?
        .try_into()
        .map_err(|_| io::Error::from(Errno::AFNOSUPPORT))?;
    Ok(source.ip().to_canonical())
}
