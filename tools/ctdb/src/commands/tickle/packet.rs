//! The packet of `tickle`.
//!
//! Role: builds a bare TCP acknowledgement (pure) and sends it through a raw socket. The client
//! that gets it answers with the sequence numbers of the connection it believes in, and the
//! server's new host resets that connection.
//! Invariant: the packet is byte for byte the C tool's, but for the IPv4 length, which the kernel
//! overwrites.
//!
//! Origin: `docs/spec/admin-interface.md` 1.6.5; packets of the 4.17 tool.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ringmaster_protocol::SockAddr;
use ringmaster_protocol::connection::Connection;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

const PROTOCOL_TCP: u8 = 6;
const TCP_HEADER_LEN: u8 = 20;
const WINDOW: u16 = 1234;

/// Why a packet was not sent; worded as in C.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("Failed to open raw socket ({})", reason(.0))]
    Open(io::Error),
    #[error("Failed sendto ({})", reason(.0))]
    Send(io::Error),
    #[error("Not an ipv4/v6 address")]
    Family,
}

/// The system's text without Rust's number behind it.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Sends the acknowledgement from the server's end of the connection to the client's.
pub(super) fn send(connection: &Connection) -> Result<(), SendError> {
    // A packet has one family; C notices when the kernel refuses the other.
    let mixed = || SendError::Send(io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
    match (connection.dst, connection.src) {
        (SockAddr::V4(server), SockAddr::V4(client)) => {
            let packet = ipv4(*server.ip(), server.port(), *client.ip(), client.port());
            let to = SocketAddrV4::new(*client.ip(), client.port());
            transmit(AddressFamily::INET, &packet, to.into())
        }
        (SockAddr::V6(server), SockAddr::V6(client)) => {
            let packet = ipv6(*server.ip(), server.port(), *client.ip(), client.port());
            // Raw IPv6 sockets take the port for a protocol number: it has to be 0.
            let to = SocketAddrV6::new(*client.ip(), 0, 0, client.scope_id());
            transmit(AddressFamily::INET6, &packet, to.into())
        }
        (SockAddr::V4(_), SockAddr::V6(_)) | (SockAddr::V6(_), SockAddr::V4(_)) => Err(mixed()),
        _ => Err(SendError::Family),
    }
}

fn transmit(family: AddressFamily, packet: &[u8], to: SocketAddr) -> Result<(), SendError> {
    let raw = socket(family, SocketType::RAW, Some(ipproto::RAW))
        .map_err(|error| SendError::Open(error.into()))?;
    sendto(&raw, packet, SendFlags::empty(), &to)
        .map_err(|error| SendError::Send(error.into()))
        .map(|_whole_datagram| ())
}

fn ipv4(from: Ipv4Addr, from_port: u16, to: Ipv4Addr, to_port: u16) -> Vec<u8> {
    const TIME_TO_LIVE: u8 = 255;
    const TOTAL_LEN: u8 = 40;
    let mut pseudo = Vec::with_capacity(12);
    pseudo.extend_from_slice(&from.octets());
    pseudo.extend_from_slice(&to.octets());
    pseudo.extend_from_slice(&[0, PROTOCOL_TCP, 0, TCP_HEADER_LEN]);

    // Version and header length, service, length, id, fragments (DF clear), …; the kernel fills
    // in the checksum.
    let mut packet = vec![0x45, 0, 0, TOTAL_LEN, 0, 0, 0, 0, TIME_TO_LIVE, PROTOCOL_TCP, 0, 0];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(&acknowledgement(from_port, to_port, &pseudo));
    packet
}

fn ipv6(from: Ipv6Addr, from_port: u16, to: Ipv6Addr, to_port: u16) -> Vec<u8> {
    const HOP_LIMIT: u8 = 64;
    let mut pseudo = Vec::with_capacity(40);
    pseudo.extend_from_slice(&from.octets());
    pseudo.extend_from_slice(&to.octets());
    pseudo.extend_from_slice(&[0, 0, 0, TCP_HEADER_LEN, 0, 0, 0, PROTOCOL_TCP]);

    let mut packet = vec![0x60, 0, 0, 0, 0, TCP_HEADER_LEN, PROTOCOL_TCP, HOP_LIMIT];
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(&acknowledgement(from_port, to_port, &pseudo));
    packet
}

/// TCP header: sequence and acknowledgement 0, only ACK set.
fn acknowledgement(from_port: u16, to_port: u16, pseudo: &[u8]) -> [u8; 20] {
    const ACK: u8 = 0x10;
    const WORDS: u8 = (TCP_HEADER_LEN / 4) << 4;
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&from_port.to_be_bytes());
    header[2..4].copy_from_slice(&to_port.to_be_bytes());
    header[12] = WORDS;
    header[13] = ACK;
    header[14..16].copy_from_slice(&WINDOW.to_be_bytes());
    let checksum = checksum(pseudo, &header);
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The Internet checksum over both parts, each of even length.
fn checksum(pseudo: &[u8], header: &[u8]) -> u16 {
    let words = pseudo.chunks_exact(2).chain(header.chunks_exact(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > u32::from(u16::MAX) {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let [_, _, high, low] = sum.to_be_bytes();
    !u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_4_17_tool() {
        let client = Ipv4Addr::new(127, 16, 0, 1);
        let packet = ipv4(Ipv4Addr::new(127, 16, 0, 2), 2222, client, 1111);
        let captured = [
            0x45, 0, 0, 40, 0, 0, 0, 0, 0xff, 6, 0, 0, 127, 16, 0, 2, 127, 16, 0, 1, 0x08, 0xae,
            0x04, 0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0x04, 0xd2, 0x9f, 0xda, 0, 0,
        ];
        assert_eq!(packet, captured);

        let packet = ipv6(Ipv6Addr::LOCALHOST, 2222, Ipv6Addr::LOCALHOST, 1111);
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        let tcp = [
            0x08, 0xae, 0x04, 0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0x04, 0xd2, 0x9d, 0xfc, 0,
            0,
        ];
        assert_eq!(packet[40..], tcp);
    }

    #[test]
    fn a_pair_of_two_families_is_refused_in_the_words_of_the_kernel() {
        let end = |text| SockAddr::parse_with_port(text).unwrap();
        let mixed = Connection { src: end("[::1]:1"), dst: end("1.2.3.4:2") };
        let error = send(&mixed).unwrap_err().to_string();
        assert_eq!(error, "Failed sendto (Address family not supported by protocol)");
    }
}
