//! Questions about TCP sockets, and the order to end one.
//!
//! Origin: sock_diag(7); `SOCK_DESTROY` needs a kernel with `CONFIG_INET_DIAG_DESTROY`.

use std::{io, net::SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::Conversation;

/// One end of a connection, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    family: u8,
    id: SocketId,
    /// Whether data goes both ways still.
    pub(crate) established: bool,
}

impl Socket {
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.id.source_address, self.id.source_port)
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.id.destination_address, self.id.destination_port)
    }
}

const ESTABLISHED: u8 = 1;

impl Conversation {
    pub(crate) fn about_sockets() -> io::Result<Self> {
        Self::about(NETLINK_SOCK_DIAG)
    }

    /// All TCP sockets of this host that have a peer who believes in the connection.
    pub(crate) fn tcp_sockets(&mut self) -> io::Result<Vec<Socket>> {
        let mut sockets = Vec::new();
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            let states = StateFlags::ESTABLISHED
                | StateFlags::SYN_RECV
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING;
            let answers = self.dump(SockDiagMessage::InetRequest(request(family, states, any)));
            let answers = match answers {
                // A kernel without IPv6.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                answers => answers?,
            };
            sockets.extend(answers.into_iter().filter_map(|answer| match answer {
                SockDiagMessage::InetResponse(found) => Some(Socket {
                    family: found.header.family,
                    id: found.header.socket_id,
                    established: found.header.state == ESTABLISHED,
                }),
                _ => None,
            }));
        }
        Ok(sockets)
    }

    /// Ends a connection at both ends: whoever has it open here gets ECONNABORTED, the peer a reset.
    /// `false`: it has ended meanwhile.
    pub(crate) fn destroy(&mut self, socket: &Socket) -> io::Result<bool> {
        let request = request(socket.family, StateFlags::all(), socket.id.clone());
        let order = SockDiagDestroy::new(SockDiagMessage::InetRequest(request));
        match self.ask(order, NLM_F_REQUEST | NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

const fn request(family: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    let extensions = ExtensionFlags::empty();
    InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id }
}
