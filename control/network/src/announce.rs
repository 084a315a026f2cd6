//! Telling the neighbours that an address is here now.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.5; `ctdb/common/system_socket.c`.

use std::{io, net::IpAddr};

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use crate::{
    link_address::LinkAddress,
    netlink::{Conversation, Link},
    packet::{arp, neighbour},
};

/// `ARPHRD_*` of the links that have neighbours to be told.
const ETHERNET: u16 = 1;
const INFINIBAND: u16 = 32;
/// And of the one that has none.
const LOOPBACK: u16 = 772;

/// Why neighbours could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    #[error("there is no interface {0}")]
    NoInterface(String),
    #[error("interface {interface} is of a kind ({link_type}) whose neighbours cannot be told")]
    Kind { interface: String, link_type: u16 },
    #[error("interface {0} has a hardware address of no known form")]
    Hardware(String),
    #[error("cannot send to the neighbours on {interface}")]
    Send {
        interface: String,
        #[source]
        source: io::Error,
    },
}

/// Tells the neighbours on `interface` once. On loopback there is nobody to be told.
///
/// # Errors
/// [`AnnounceError`].
pub fn announce(address: IpAddr, interface: &str) -> Result<(), AnnounceError> {
    let failed = |source| AnnounceError::Send { interface: interface.to_owned(), source };
    let link = Conversation::open().and_then(|mut kernel| kernel.link(interface));
    let link = link.map_err(failed)?;
    let link = link.ok_or_else(|| AnnounceError::NoInterface(interface.to_owned()))?;
    match link.link_type {
        LOOPBACK => return Ok(()),
        ETHERNET | INFINIBAND => {}
        link_type => {
            return Err(AnnounceError::Kind { interface: interface.to_owned(), link_type });
        }
    }
    let odd = || AnnounceError::Hardware(interface.to_owned());
    let packets = packets(&link, address).ok_or_else(odd)?;
    for (station, packet) in packets {
        send(&station, &packet).map_err(failed)?;
    }
    Ok(())
}

/// What is sent, and to whom. `None` when the link's addresses have no known form.
fn packets(link: &Link, address: IpAddr) -> Option<Vec<(LinkAddress, Vec<u8>)>> {
    match address {
        IpAddr::V4(address) => {
            let everybody = LinkAddress::new(link.index, arp::PROTOCOL, &link.broadcast)?;
            let packet = |kind| arp::gratuitous(kind, link.link_type, &link.hardware, address);
            let request = packet(arp::Kind::Request)?;
            Some(vec![(everybody, request), (everybody, packet(arp::Kind::Reply)?)])
        }
        IpAddr::V6(address) => {
            let group = all_nodes(link)?;
            let everybody = LinkAddress::new(link.index, neighbour::PROTOCOL, &group)?;
            Some(vec![(everybody, neighbour::advertisement(&link.hardware, address)?)])
        }
    }
}

/// The group of all IPv6 nodes, as the link addresses it (RFC 2464 7, RFC 4391 4).
fn all_nodes(link: &Link) -> Option<Vec<u8>> {
    let group = neighbour::ALL_NODES.octets();
    if link.link_type == ETHERNET {
        return Some([&[0x33, 0x33], &group[12..]].concat());
    }
    // Scope and partition are those of the broadcast group.
    let broadcast = link.broadcast.get(..20)?;
    let mut address = vec![0, 0xff, 0xff, 0xff, 0xff, 0x10 | (broadcast[5] & 0x0f), 0x60, 0x1b];
    address.extend_from_slice(&broadcast[8..10]);
    address.extend_from_slice(&group[6..]);
    Some(address)
}

fn send(station: &LinkAddress, packet: &[u8]) -> io::Result<()> {
    // Protocol 0: it only sends.
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sendto(&socket, packet, SendFlags::DONTWAIT, station)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_all_nodes_is_mapped_as_the_link_does_it() {
        let mut link =
            Link { index: 1, link_type: ETHERNET, hardware: vec![2; 6], broadcast: vec![0xff; 6] };
        assert_eq!(all_nodes(&link).unwrap(), [0x33, 0x33, 0, 0, 0, 1]);
        link.link_type = INFINIBAND;
        assert_eq!(all_nodes(&link), None, "an address of Ethernet's length");
        // An IPv4 broadcast group: scope 2, partition 0x8001.
        link.broadcast = vec![
            0, 0xff, 0xff, 0xff, 0xff, 0x12, 0x40, 0x1b, 0x80, 0x01, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
            0xff, 0xff,
        ];
        assert_eq!(
            all_nodes(&link).unwrap(),
            [0, 0xff, 0xff, 0xff, 0xff, 0x12, 0x60, 0x1b, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
    }
}
