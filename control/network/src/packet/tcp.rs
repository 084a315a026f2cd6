//! Bare TCP segments with their IP headers.
//!
//! Invariant: an acknowledgement is byte for byte the 4.17 tool's, but for the IPv4 length, which
//! the kernel overwrites, as it fills in the IPv4 checksum.
//! Origin: `docs/spec/cluster-semantics.md` 9.5; packets of the 4.17 tool.

use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};

use ringmaster_protocol::SockAddr;

use super::checksum;

const PROTOCOL_TCP: u8 = 6;
const TCP_HEADER_LEN: u8 = 20;
const WINDOW: u16 = 1234;

/// What a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// An acknowledgement of nothing, sequence number 0: whoever has the connection answers with the
    /// numbers that he believes in.
    Acknowledgement,
    /// The end of the connection, with the numbers that the receiver believes in.
    Reset {
        /// Sequence number, in host order.
        sequence: u32,
        /// Acknowledged, in host order.
        acknowledged: u32,
    },
}

impl Segment {
    fn numbers(self) -> (u32, u32) {
        match self {
            Self::Acknowledgement => (0, 0),
            Self::Reset { sequence, acknowledged } => (sequence, acknowledged),
        }
    }

    const fn flags(self) -> u8 {
        const ACK: u8 = 0x10;
        const RST: u8 = 0x04;
        match self {
            Self::Acknowledgement => ACK,
            Self::Reset { .. } => ACK | RST,
        }
    }
}

/// An IPv4 packet with the segment.
#[must_use]
pub fn ipv4(from: SocketAddrV4, to: SocketAddrV4, segment: Segment) -> Vec<u8> {
    const TIME_TO_LIVE: u8 = 255;
    const TOTAL_LEN: u8 = 40;
    let addresses = [from.ip().octets(), to.ip().octets()].concat();
    let pseudo = [addresses.as_slice(), &[0, PROTOCOL_TCP, 0, TCP_HEADER_LEN]].concat();
    // Version and header length, service, length, id, fragments (DF clear), …
    let start = [0x45, 0, 0, TOTAL_LEN, 0, 0, 0, 0, TIME_TO_LIVE, PROTOCOL_TCP, 0, 0];
    let header = header(from.port(), to.port(), segment, &pseudo);
    [start.as_slice(), &addresses, &header].concat()
}

/// An IPv6 packet with the segment.
#[must_use]
pub fn ipv6(from: SocketAddrV6, to: SocketAddrV6, segment: Segment) -> Vec<u8> {
    const HOP_LIMIT: u8 = 64;
    let addresses = [from.ip().octets(), to.ip().octets()].concat();
    let pseudo = [addresses.as_slice(), &[0, 0, 0, TCP_HEADER_LEN, 0, 0, 0, PROTOCOL_TCP]].concat();
    let start = [0x60, 0, 0, 0, 0, TCP_HEADER_LEN, PROTOCOL_TCP, HOP_LIMIT];
    let header = header(from.port(), to.port(), segment, &pseudo);
    [start.as_slice(), &addresses, &header].concat()
}

/// A segment that has been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who sent it.
    pub from: SockAddr,
    /// Whom to.
    pub to: SockAddr,
    /// Its sequence number, in host order.
    pub sequence: u32,
    /// What it acknowledges, in host order.
    pub acknowledged: u32,
    /// It ends the connection.
    pub reset: bool,
    /// It begins one.
    pub opens: bool,
}

/// Reads an IP packet; `None` if it is no TCP segment, or not whole. A segment behind IPv6 extension
/// headers is not found.
#[must_use]
pub fn read(packet: &[u8]) -> Option<Heard> {
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    let (from, to, tcp) = match packet.first()? >> 4 {
        4 => {
            let header_len = usize::from(packet.first()? & 0x0f) * 4;
            let address = |at: usize| {
                let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            let is_first =
                packet.get(6..8)?.iter().zip([0x1f, 0xff]).all(|(b, mask)| b & mask == 0);
            let is_tcp = *packet.get(9)? == PROTOCOL_TCP;
            let tcp =
                packet.get(header_len..).filter(|_| header_len >= 20 && is_tcp && is_first)?;
            (address(12)?, address(16)?, tcp)
        }
        6 => {
            let address = |at: usize| {
                let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(octets))
            };
            let is_tcp = *packet.get(6)? == PROTOCOL_TCP;
            (address(8)?, address(24)?, packet.get(40..).filter(|_| is_tcp)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let number = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    Some(Heard {
        from: SockAddr::new(from, port(0)?),
        to: SockAddr::new(to, port(2)?),
        sequence: number(4)?,
        acknowledged: number(8)?,
        reset: tcp.get(13)? & RST != 0,
        opens: tcp.get(13)? & SYN != 0,
    })
}

fn header(from_port: u16, to_port: u16, segment: Segment, pseudo: &[u8]) -> [u8; 20] {
    const WORDS: u8 = (TCP_HEADER_LEN / 4) << 4;
    let (sequence, acknowledged) = segment.numbers();
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&from_port.to_be_bytes());
    header[2..4].copy_from_slice(&to_port.to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    header[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    header[12] = WORDS;
    header[13] = segment.flags();
    header[14..16].copy_from_slice(&WINDOW.to_be_bytes());
    let checksum = checksum(&[pseudo, &header]);
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn v6(text: &str) -> SocketAddrV6 {
        text.parse().unwrap()
    }

    #[test]
    fn acknowledgements_are_those_of_the_4_17_tool() {
        let packet = ipv4(v4("127.16.0.2:2222"), v4("127.16.0.1:1111"), Segment::Acknowledgement);
        let captured = [
            0x45, 0, 0, 40, 0, 0, 0, 0, 0xff, 6, 0, 0, 127, 16, 0, 2, 127, 16, 0, 1, 0x08, 0xae,
            0x04, 0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0x04, 0xd2, 0x9f, 0xda, 0, 0,
        ];
        assert_eq!(packet, captured);

        let packet = ipv6(v6("[::1]:2222"), v6("[::1]:1111"), Segment::Acknowledgement);
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 20, 6, 64]);
        let tcp = [
            0x08, 0xae, 0x04, 0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0x04, 0xd2, 0x9d, 0xfc, 0,
            0,
        ];
        assert_eq!(packet[40..], tcp);
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        let reset = Segment::Reset { sequence: 0x0102_0304, acknowledged: 0xa0b0_c0d0 };
        let (one, other) = (v4("10.0.0.1:445"), v4("10.0.0.9:50000"));
        let heard = read(&ipv4(one, other, reset)).unwrap();
        let end = |text: &str| SockAddr::parse_with_port(text).unwrap();
        let expected = Heard {
            from: end("10.0.0.1:445"),
            to: end("10.0.0.9:50000"),
            sequence: 0x0102_0304,
            acknowledged: 0xa0b0_c0d0,
            reset: true,
            opens: false,
        };
        assert_eq!(heard, expected);
        let heard = read(&ipv6(v6("[::1]:1"), v6("[::2]:2"), Segment::Acknowledgement)).unwrap();
        assert_eq!((heard.from, heard.to), (end("[::1]:1"), end("[::2]:2")));
        assert!(!heard.reset);
    }

    #[test]
    fn what_is_no_whole_segment_is_not_heard() {
        let whole = ipv4(v4("10.0.0.1:445"), v4("10.0.0.9:50000"), Segment::Acknowledgement);
        for len in 0..whole.len() - 6 {
            assert_eq!(read(&whole[..len]), None, "{len}");
        }
        for (at, value) in [(0, 0x55), (0, 0x41), (0, 0x4f), (9, 17), (7, 1)] {
            let mut packet = whole.clone();
            packet[at] = value;
            assert_eq!(read(&packet), None, "{at}");
        }
    }

    #[test]
    fn a_reset_carries_the_numbers_that_were_asked_for() {
        let reset = Segment::Reset { sequence: 0x0102_0304, acknowledged: 0xa0b0_c0d0 };
        let packet = ipv4(v4("10.0.0.1:445"), v4("10.0.0.9:50000"), reset);
        assert_eq!(packet[24..34], [1, 2, 3, 4, 0xa0, 0xb0, 0xc0, 0xd0, 0x50, 0x14]);
        // The sum over everything, the checksum included, is what the receiver looks at.
        let pseudo = [packet[12..20].to_vec(), vec![0, 6, 0, 20]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
    }
}
