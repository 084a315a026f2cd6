//! Unsolicited neighbour advertisement: IPv6's gratuitous ARP.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9.5; RFC 4861 4.4, 4.6.1.

use std::net::Ipv6Addr;

use super::checksum;

/// `ETH_P_IPV6`.
pub const PROTOCOL: u16 = 0x86dd;

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const PROTOCOL_ICMPV6: u8 = 58;

/// A whole IPv6 packet. `hardware`: the sender's address. `None` if that is longer than the option
/// can say.
#[must_use]
pub fn advertisement(hardware: &[u8], address: Ipv6Addr) -> Option<Vec<u8>> {
    const HOP_LIMIT: u8 = 255; // Anything less is ignored: it has come through a router.
    let message = message(hardware, address)?;
    let len = u16::try_from(message.len()).ok()?;
    let addresses = [address.octets(), ALL_NODES.octets()].concat();
    let upper = [u32::from(len).to_be_bytes(), [0, 0, 0, PROTOCOL_ICMPV6]].concat();
    let sum = checksum(&[&addresses, &upper, &message]);
    let start = [0x60, 0, 0, 0, len.to_be_bytes()[0], len.to_be_bytes()[1], PROTOCOL_ICMPV6];
    let mut packet = [start.as_slice(), &[HOP_LIMIT], &addresses, &message].concat();
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
    Some(packet)
}

/// The ICMPv6 message with an empty checksum.
fn message(hardware: &[u8], address: Ipv6Addr) -> Option<Vec<u8>> {
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    let head = [ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    // Options are counted in units of eight bytes.
    let option_len = (2 + hardware.len()).next_multiple_of(8);
    let units = u8::try_from(option_len / 8).ok()?;
    let mut option = vec![TARGET_LINK_LAYER_ADDRESS, units];
    option.extend_from_slice(hardware);
    option.resize(option_len, 0);
    Some([head.as_slice(), &address.octets(), &option].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_names_address_and_hardware_and_overrides() {
        let own: Ipv6Addr = "fd00::1".parse().unwrap();
        let packet = advertisement(&[2, 3, 4, 5, 6, 7], own).unwrap();
        assert_eq!(packet.len(), 40 + 32);
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(packet[8..24], own.octets());
        assert_eq!(packet[24..40], ALL_NODES.octets());
        assert_eq!((&packet[40..42], &packet[44..48]), (&[136, 0][..], &[0x20, 0, 0, 0][..]));
        assert_eq!(packet[48..64], own.octets());
        assert_eq!(packet[64..], [2, 1, 2, 3, 4, 5, 6, 7]);
        let upper = [0, 0, 0, 32, 0, 0, 0, 58];
        assert_eq!(checksum(&[&packet[8..40], &upper, &packet[40..]]), 0);
    }

    #[test]
    fn a_long_hardware_address_takes_three_units() {
        let packet = advertisement(&[9; 20], Ipv6Addr::LOCALHOST).unwrap();
        assert_eq!(packet.len(), 40 + 24 + 24);
        assert_eq!(packet[64..66], [2, 3]);
        assert_eq!(packet[66..], [[9; 20].as_slice(), &[0, 0]].concat());
    }
}
