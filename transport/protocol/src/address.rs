//! Socket addresses: 28 bytes on the wire, and their text forms.
//!
//! Role: `ctdb_sock_addr` as a value; parsing and formatting as C's tools and daemon do it.
//! Invariants: unused bytes are zero on the wire (some C code compares all 28).
//! Origin: `docs/spec/wire-protocol.md` 4.1; `ctdb/protocol/protocol_util.c`.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use thiserror::Error;

use crate::layout::{Fixed, fixed_codec};
use crate::wire::{DecodeError, Put, Reader};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// C parses addresses in a buffer of this size, NUL included.
const TEXT_MAX: usize = 63;

/// An address with port (0 = none). Ports are in host order here, big-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SockAddr {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6; the flow info is the raw little-endian word of the wire.
    V6(SocketAddrV6),
    /// Any other family (an all-zero address has family 0), carried through unchanged.
    Other([u8; 28]),
}

impl SockAddr {
    /// All 28 bytes zero: what C leaves in a structure it did not fill.
    pub const ZERO: Self = Self::Other([0; 28]);

    /// Address and port; IPv4-mapped IPv6 stays IPv6 (see [`SockAddr::canonical`]).
    #[must_use]
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::V4(SocketAddrV4::new(ip, port)),
            IpAddr::V6(ip) => Self::V6(SocketAddrV6::new(ip, port, 0, 0)),
        }
    }

    /// The address without its port; `None` for an unknown family.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(addr) => Some(IpAddr::V4(*addr.ip())),
            Self::V6(addr) => Some(IpAddr::V6(*addr.ip())),
            Self::Other(_) => None,
        }
    }

    /// The port, 0 when there is none.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::V4(addr) => addr.port(),
            Self::V6(addr) => addr.port(),
            Self::Other(_) => 0,
        }
    }

    /// The same address with another port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        match &mut self {
            Self::V4(addr) => addr.set_port(port),
            Self::V6(addr) => addr.set_port(port),
            Self::Other(_) => {}
        }
        self
    }

    /// IPv4-mapped IPv6 (`::ffff:a.b.c.d`) becomes IPv4, everything else stays. The C daemon does
    /// this to the addresses of TCP_CLIENT and of public-address lookups.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::V6(addr) => match addr.ip().to_ipv4_mapped() {
                Some(ip) => Self::V4(SocketAddrV4::new(ip, addr.port())),
                None => self,
            },
            _ => self,
        }
    }

    /// Same family and address; ports do not matter.
    #[must_use]
    pub fn same_ip(&self, other: &Self) -> bool {
        self.cmp_ip(other) == Ordering::Equal
    }

    /// C's order without ports: family, then address bytes.
    #[must_use]
    pub fn cmp_ip(&self, other: &Self) -> Ordering {
        self.family().cmp(&other.family()).then_with(|| match (self, other) {
            (Self::V4(a), Self::V4(b)) => a.ip().octets().cmp(&b.ip().octets()),
            (Self::V6(a), Self::V6(b)) => a.ip().octets().cmp(&b.ip().octets()),
            (Self::Other(a), Self::Other(b)) => a.cmp(b),
            // Different families were told apart above.
            _ => Ordering::Equal,
        })
    }

    fn family(&self) -> u16 {
        match self {
            Self::V4(_) => AF_INET,
            Self::V6(_) => AF_INET6,
            Self::Other(raw) => u16::from_le_bytes([raw[0], raw[1]]),
        }
    }

    /// Parses an address without port. IPv4-mapped IPv6 becomes IPv4.
    ///
    /// # Errors
    /// [`ParseAddressError`]; C answers `EINVAL` in the same cases.
    pub fn parse_ip(text: &str) -> Result<Self, ParseAddressError> {
        parse_ip(text).ok_or(ParseAddressError::Address)
    }

    /// Parses `a.b.c.d:port`, `[v6]:port` or `v6:port` (the port follows the last colon).
    ///
    /// # Errors
    /// [`ParseAddressError`]; C answers `EINVAL` in the same cases.
    pub fn parse_with_port(text: &str) -> Result<Self, ParseAddressError> {
        if text.len() > TEXT_MAX {
            return Err(ParseAddressError::TooLong);
        }
        let (ip, port) = text.rsplit_once(':').ok_or(ParseAddressError::NoPort)?;
        let port = number(port).ok_or(ParseAddressError::Port)?;
        Ok(Self::parse_ip(ip)?.with_port(port))
    }

    /// Parses `addr/mask`; the mask is a number of bits that nobody checks, as in C.
    ///
    /// # Errors
    /// [`ParseAddressError`]; C answers `EINVAL` in the same cases.
    pub fn parse_with_mask(text: &str) -> Result<(Self, u32), ParseAddressError> {
        if text.len() > TEXT_MAX {
            return Err(ParseAddressError::TooLong);
        }
        let (ip, mask) = text.rsplit_once('/').ok_or(ParseAddressError::NoMask)?;
        let mask = number(mask).ok_or(ParseAddressError::Mask)?;
        Ok((Self::parse_ip(ip)?, mask))
    }

    /// The text with port: `a.b.c.d:port`, `[v6]:port`.
    #[must_use]
    pub const fn display_with_port(&self) -> DisplayWithPort<'_> {
        DisplayWithPort(self)
    }
}

/// The plain text of the address, without port: what RELEASE_IP messages carry, what the tools
/// print; identical to `inet_ntop` of glibc.
impl fmt::Display for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(addr) => fmt::Display::fmt(addr.ip(), f),
            Self::V6(addr) => match compatible_ipv4(*addr.ip()) {
                Some(ip) => f.pad(&format!("::{ip}")),
                None => fmt::Display::fmt(addr.ip(), f),
            },
            Self::Other(_) => f.pad("Unknown address family"),
        }
    }
}

/// See [`SockAddr::display_with_port`].
#[derive(Clone, Copy, Debug)]
pub struct DisplayWithPort<'a>(&'a SockAddr);

impl fmt::Display for DisplayWithPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SockAddr::V6(addr) => write!(f, "[{}]:{}", self.0, addr.port()),
            _ => write!(f, "{}:{}", self.0, self.0.port()),
        }
    }
}

/// Same as [`SockAddr::parse_ip`].
impl FromStr for SockAddr {
    type Err = ParseAddressError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_ip(text)
    }
}

impl From<SocketAddr> for SockAddr {
    fn from(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(addr) => Self::V4(addr),
            SocketAddr::V6(addr) => Self::V6(addr),
        }
    }
}

/// C's order: family, address bytes, then the port word as it lies in memory (big-endian bytes
/// read little-endian), so port 256 sorts before port 1.
impl Ord for SockAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        let rest = |addr: &Self| match addr {
            Self::V6(addr) => (addr.flowinfo(), addr.scope_id()),
            _ => (0, 0),
        };
        self.cmp_ip(other)
            .then_with(|| self.port().swap_bytes().cmp(&other.port().swap_bytes()))
            .then_with(|| rest(self).cmp(&rest(other)))
    }
}

impl PartialOrd for SockAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why a text is not an address. C has one errno (`EINVAL`) for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseAddressError {
    #[error("longer than {TEXT_MAX} characters")]
    TooLong,
    #[error("not an IPv4 or IPv6 address")]
    Address,
    #[error("no port: write ADDRESS:PORT or [ADDRESS]:PORT")]
    NoPort,
    #[error("the port is not a number")]
    Port,
    #[error("no mask: write ADDRESS/BITS")]
    NoMask,
    #[error("the mask is not a number")]
    Mask,
}

/// C: an address with a colon is IPv6, perhaps in brackets. IPv4-mapped ones are parsed again from
/// behind the last colon, so `::ffff:102:304` (hex) is refused.
fn parse_ip(text: &str) -> Option<SockAddr> {
    if !text.contains(':') {
        return text.parse().ok().map(|ip| SockAddr::new(IpAddr::V4(ip), 0));
    }
    let text = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => text,
    };
    let ip: Ipv6Addr = text.parse().ok()?;
    if ip.to_ipv4_mapped().is_none() {
        return Some(SockAddr::new(IpAddr::V6(ip), 0));
    }
    let (_, tail) = text.rsplit_once(':')?;
    let ip: Ipv4Addr = tail.parse().ok()?;
    Some(SockAddr::new(IpAddr::V4(ip), 0))
}

/// A decimal number as `strtoul` takes it: leading blanks and `+`, up to 64 bits, nothing behind;
/// the result loses its high bits (port 65541 is port 5) as in C.
fn number<T: FromLowBits>(text: &str) -> Option<T> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(T::from_low_bits)
}

trait FromLowBits {
    fn from_low_bits(wide: u64) -> Self;
}

impl FromLowBits for u16 {
    fn from_low_bits(wide: u64) -> Self {
        let [a, b, ..] = wide.to_le_bytes();
        Self::from_le_bytes([a, b])
    }
}

impl FromLowBits for u32 {
    fn from_low_bits(wide: u64) -> Self {
        let [a, b, c, d, ..] = wide.to_le_bytes();
        Self::from_le_bytes([a, b, c, d])
    }
}

/// glibc prints an address whose first six words (and only those) are zero as `::a.b.c.d`.
fn compatible_ipv4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, _] if high != 0 => {
            let [.., a, b, c, d] = ip.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

impl Fixed for SockAddr {
    const SIZE: usize = 28;

    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let raw: [u8; 28] = reader.array(what)?;
        let [f0, f1, p0, p1, rest @ ..] = raw;
        let port = u16::from_be_bytes([p0, p1]);
        Ok(match u16::from_le_bytes([f0, f1]) {
            AF_INET => {
                let [a, b, c, d, ..] = rest;
                Self::V4(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port))
            }
            AF_INET6 => {
                let mut fields = Reader::new(&rest);
                let flowinfo = fields.u32(what)?;
                let ip = Ipv6Addr::from(fields.array::<16>(what)?);
                Self::V6(SocketAddrV6::new(ip, port, flowinfo, fields.u32(what)?))
            }
            _ => Self::Other(raw),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(addr) => {
                out.put_u16(AF_INET);
                out.put_bytes(&addr.port().to_be_bytes());
                out.put_bytes(&addr.ip().octets());
                out.put_zeros(20);
            }
            Self::V6(addr) => {
                out.put_u16(AF_INET6);
                out.put_bytes(&addr.port().to_be_bytes());
                out.put_u32(addr.flowinfo());
                out.put_bytes(&addr.ip().octets());
                out.put_u32(addr.scope_id());
            }
            Self::Other(raw) => out.put_bytes(raw),
        }
    }
}

fixed_codec!(SockAddr);

#[cfg(test)]
mod tests {
    use super::*;

    fn with_port(text: &str) -> Option<String> {
        SockAddr::parse_with_port(text).ok().map(|addr| addr.display_with_port().to_string())
    }

    // Each case was put to the C tool (`ctdb tickle`, 4.17.12), which accepts or refuses alike.
    #[test]
    fn addresses_with_port_are_taken_as_c_takes_them() {
        for (text, expected) in [
            ("1.2.3.4:5", "1.2.3.4:5"),
            ("[::1]:5", "[::1]:5"),
            ("::1:5", "[::1]:5"),
            ("1:2:3:4:5:6:7:8:9", "[1:2:3:4:5:6:7:8]:9"),
            ("::ffff:1.2.3.4:5", "1.2.3.4:5"),
            ("[::ffff:1.2.3.4]:5", "1.2.3.4:5"),
            ("::1.2.3.4:5", "[::1.2.3.4]:5"),
            ("::ffff:0:1.2.3.4:5", "[::ffff:0:102:304]:5"),
            ("1.2.3.4: 5", "1.2.3.4:5"),
            ("1.2.3.4:+5", "1.2.3.4:5"),
            ("1.2.3.4:70000", "1.2.3.4:4464"),
            ("1.2.3.4:4294967297", "1.2.3.4:1"),
            ("1.2.3.4:18446744073709551615", "1.2.3.4:65535"),
        ] {
            assert_eq!(with_port(text).as_deref(), Some(expected), "{text}");
        }
        let longest = format!("1.2.3.4:{:055}", 5);
        assert_eq!((longest.len(), with_port(&longest).is_some()), (63, true));
    }

    #[test]
    fn malformed_addresses_with_port_are_refused_as_c_refuses_them() {
        for text in [
            "1.2.3.4",
            "[::1]",
            "1.2.3.4:",
            "1.2.3.4:-5",
            "1.2.3.4:5x",
            "1.2.3.4:0x10",
            "1.2.3.4:18446744073709551616",
            "::ffff:0102:0304:5",
            "[1.2.3.4]:5",
            "01.2.3.4:5",
            "[::1:5",
            "::1]:5",
            "[]:5",
            ":5",
            "::5",
            "1.2.3:4:5",
            "fe80::1%lo:5",
            " 1.2.3.4:5",
        ] {
            assert_eq!(with_port(text), None, "{text}");
        }
        let too_long = format!("1.2.3.4:{:056}", 5);
        assert_eq!(SockAddr::parse_with_port(&too_long), Err(ParseAddressError::TooLong));
    }

    #[test]
    fn a_mask_is_any_number() {
        let parse = |text| SockAddr::parse_with_mask(text).map(|(a, mask)| (a.to_string(), mask));
        assert_eq!(parse("10.0.0.1/24"), Ok(("10.0.0.1".into(), 24)));
        assert_eq!(parse("fd00::1/200"), Ok(("fd00::1".into(), 200)));
        assert_eq!(parse("10.0.0.1"), Err(ParseAddressError::NoMask));
        assert_eq!(parse("10.0.0.1/x"), Err(ParseAddressError::Mask));
        assert_eq!(parse("10.0.0/24"), Err(ParseAddressError::Address));
    }

    #[test]
    fn ipv6_is_printed_as_glibc_prints_it() {
        for text in
            ["::", "::1", "::ffff", "::1.2.3.4", "::ffff:1.2.3.4", "1::2:0:0:3", "::1:0:0:1"]
        {
            let ip: Ipv6Addr = text.parse().unwrap();
            assert_eq!(SockAddr::new(IpAddr::V6(ip), 0).to_string(), text);
        }
        let ip = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 1, 2);
        assert_eq!(SockAddr::new(IpAddr::V6(ip), 0).to_string(), "::0.1.0.2");
    }

    #[test]
    fn order_compares_the_port_word_as_c_does() {
        let addr = |text| SockAddr::parse_with_port(text).unwrap();
        assert!(addr("1.1.1.1:256") < addr("1.1.1.1:1"));
        assert!(addr("1.1.1.1:1") < addr("1.1.1.2:256"));
        assert!(addr("9.9.9.9:1") < addr("[::1]:1"));
        assert!(addr("1.1.1.1:1").same_ip(&addr("1.1.1.1:2")));
    }
}
