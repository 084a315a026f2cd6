//! Gratuitous ARP: a request and a reply about the sender's own address.
//!
//! Role: the payload; the link header is the kernel's. Some neighbours learn from requests only,
//! some from replies only.
//! Origin: `docs/spec/cluster-semantics.md` 9.5; RFC 826, RFC 4391 (InfiniBand).

use std::net::Ipv4Addr;

/// `ETH_P_ARP`.
pub const PROTOCOL: u16 = 0x0806;

/// `ETH_P_IP`.
const PROTOCOL_IPV4: u16 = 0x0800;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// "Who has my address?"
    Request,
    /// "I have my address."
    Reply,
}

/// The payload. `link_type`: as the kernel numbers it (`ARPHRD_*`); `hardware`: the sender's
/// address, as long as such addresses are. `None` if that is longer than the format can say.
#[must_use]
pub fn gratuitous(
    kind: Kind,
    link_type: u16,
    hardware: &[u8],
    address: Ipv4Addr,
) -> Option<Vec<u8>> {
    let hardware_len = u8::try_from(hardware.len()).ok()?;
    let protocol_len = 4;
    let (operation, target) = match kind {
        Kind::Request => (1_u16, vec![0; hardware.len()]),
        Kind::Reply => (2, hardware.to_vec()),
    };
    let head = [link_type.to_be_bytes(), PROTOCOL_IPV4.to_be_bytes()].concat();
    let own = address.octets();
    let lengths = [hardware_len, protocol_len];
    let parts: [&[u8]; 7] =
        [&head, &lengths, &operation.to_be_bytes(), hardware, &own, &target, &own];
    Some(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    #[test]
    fn an_ethernet_request_asks_for_the_own_address() {
        let packet = gratuitous(Kind::Request, 1, &[2, 3, 4, 5, 6, 7], OWN).unwrap();
        let expected =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 3, 4, 5, 6, 7, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1];
        assert_eq!(packet, expected);
    }

    #[test]
    fn an_ethernet_reply_answers_to_itself() {
        let packet = gratuitous(Kind::Reply, 1, &[2, 3, 4, 5, 6, 7], OWN).unwrap();
        let expected =
            [0, 1, 8, 0, 6, 4, 0, 2, 2, 3, 4, 5, 6, 7, 10, 0, 0, 1, 2, 3, 4, 5, 6, 7, 10, 0, 0, 1];
        assert_eq!(packet, expected);
    }

    #[test]
    fn infiniband_addresses_are_longer() {
        let hardware: Vec<u8> = (0..20).collect();
        let packet = gratuitous(Kind::Reply, 32, &hardware, OWN).unwrap();
        assert_eq!(packet.len(), 8 + 2 * (20 + 4));
        assert_eq!(packet[..8], [0, 32, 8, 0, 20, 4, 0, 2]);
        assert_eq!((&packet[8..28], &packet[32..52]), (&hardware[..], &hardware[..]));
        assert_eq!(gratuitous(Kind::Reply, 32, &[0; 256], OWN), None);
    }
}
