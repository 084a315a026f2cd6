//! TCP connections, tickle lists, public addresses and interfaces.
//!
//! Origin: `docs/spec/wire-protocol.md` 4.6; `ctdb/protocol/protocol_util.c` (text forms).

use std::fmt;

use thiserror::Error;

use crate::address::{ParseAddressError, SockAddr};
use crate::id::Pnn;
use crate::layout::{Fixed, fixed_codec, read_list, wire_enum, wire_struct, write_list};
use crate::text::{Text, put_stringn, stringn, stringn_len};
use crate::wire::{Decode, DecodeError, Encode, Put, Reader};

wire_struct! {
    /// A TCP connection to a public address (`ctdb_connection`). In every control `src` is the
    /// client's end and `dst` the public server address.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Connection = 56 bytes {
        /// The client's address and port.
        pub src: SockAddr;
        /// The public address and port.
        pub dst: SockAddr;
    }
}

impl Connection {
    /// Parses `CLIENT SERVER` (each with port) as the tools' tickle commands do: blanks before
    /// and between, anything behind the blank that ends the second word.
    ///
    /// # Errors
    /// [`ParseConnectionError`]; C answers `EINVAL`.
    pub fn parse(text: &str) -> Result<Self, ParseConnectionError> {
        let mut words = text.split([' ', '\t', '\n']).filter(|word| !word.is_empty());
        let (Some(src), Some(dst)) = (words.next(), words.next()) else {
            return Err(ParseConnectionError::Words);
        };
        let src = SockAddr::parse_with_port(src).map_err(ParseConnectionError::Src)?;
        let dst = SockAddr::parse_with_port(dst).map_err(ParseConnectionError::Dst)?;
        if std::mem::discriminant(&src) != std::mem::discriminant(&dst) {
            return Err(ParseConnectionError::Families);
        }
        Ok(Self { src, dst })
    }
}

/// `SRC DST`, both with port.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.src.display_with_port(), self.dst.display_with_port())
    }
}

/// Why a text is not a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseConnectionError {
    #[error("expected two addresses with port, separated by blanks")]
    Words,
    #[error("first address")]
    Src(#[source] ParseAddressError),
    #[error("second address")]
    Dst(#[source] ParseAddressError),
    #[error("one address is IPv4, the other IPv6")]
    Families,
}

/// The connections to one public address (`ctdb_tickle_list`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickleList {
    /// The public address.
    pub addr: SockAddr,
    /// Connections to it.
    pub connections: Vec<Connection>,
}

impl Encode for TickleList {
    fn encoded_len(&self) -> usize {
        SockAddr::SIZE + 4 + self.connections.len() * Connection::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.addr.write(out);
        write_list(&self.connections, out);
    }
}

impl Decode<'_> for TickleList {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let addr = SockAddr::read(reader, "tickle_list.addr")?;
        let connections = read_list(reader, "tickle_list.connections")?;
        Ok(Self { addr, connections })
    }
}

/// A public address with its mask and interfaces (`ctdb_addr_info`): ADD_PUBLIC_IP,
/// DEL_PUBLIC_IP, SEND_GRATUITOUS_ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressInfo<'a> {
    /// The address.
    pub addr: SockAddr,
    /// Prefix length in bits.
    pub mask: u32,
    /// Interface names, comma separated; `None` is sent as length 0.
    pub interfaces: Option<Text<'a>>,
}

impl Encode for AddressInfo<'_> {
    fn encoded_len(&self) -> usize {
        SockAddr::SIZE + 4 + stringn_len(self.interfaces)
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.addr.write(out);
        out.put_u32(self.mask);
        put_stringn(out, self.interfaces);
    }
}

impl<'a> Decode<'a> for AddressInfo<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let addr = SockAddr::read(reader, "addr_info.addr")?;
        let mask = reader.u32("addr_info.mask")?;
        let interfaces = stringn(reader, "addr_info.iface")?;
        Ok(Self { addr, mask, interfaces })
    }
}

wire_struct! {
    /// A public address and the node that holds it (`ctdb_public_ip`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PublicIp = 32 bytes {
        /// The holder; `None` (0xFFFFFFFF) when unassigned.
        pub pnn: Option<Pnn>;
        /// The address; the port is 0.
        pub addr: SockAddr;
    }
}

/// `ctdb_public_ip_list`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicIpList(pub Vec<PublicIp>);

impl Encode for PublicIpList {
    fn encoded_len(&self) -> usize {
        4 + self.0.len() * PublicIp::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        write_list(&self.0, out);
    }
}

impl Decode<'_> for PublicIpList {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_list(reader, "public_ip_list").map(Self)
    }
}

/// Interface name as C stores it: 18 bytes, the last always NUL. Kernel names have at most 15
/// characters ([`InterfaceName::fits_kernel`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName([u8; 18]);

impl InterfaceName {
    /// `None` when the name has more than 17 bytes.
    #[must_use]
    pub fn new(name: &(impl AsRef<[u8]> + ?Sized)) -> Option<Self> {
        let name = Text::new(name).as_bytes();
        let mut raw = [0; 18];
        raw[..17].get_mut(..name.len())?.copy_from_slice(name);
        Some(Self(raw))
    }

    /// The name.
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        Text::new(&self.0)
    }

    /// The NUL comes within the first 16 bytes: SET_IFACE_LINK_STATE answers -1 otherwise.
    #[must_use]
    pub fn fits_kernel(&self) -> bool {
        self.text().as_bytes().len() < 16
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text().fmt(f)
    }
}

/// What follows the first NUL is padding: dropped on receipt, zero when sent.
impl Fixed for InterfaceName {
    const SIZE: usize = 18;
    fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let mut raw: [u8; 18] = reader.array(what)?;
        let len = raw.iter().position(|byte| *byte == 0).unwrap_or(17).min(17);
        raw[len..].fill(0);
        Ok(Self(raw))
    }
    fn write(&self, out: &mut Vec<u8>) {
        out.put_bytes(&self.0);
    }
}

fixed_codec!(InterfaceName);

wire_enum! {
    /// State of an interface's link.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum LinkState: u16 {
        /// No carrier, or marked down by a script.
        Down = 0,
        /// Usable.
        Up = 1,
    }
}

wire_struct! {
    /// An interface that may carry public addresses (`ctdb_iface`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Interface = 24 bytes {
        /// Name, at most 15 characters.
        pub name: InterfaceName;
        /// Link state.
        pub link_state: LinkState;
        /// Public addresses that use it; 0 in SET_IFACE_LINK_STATE.
        pub references: u32;
    }
}

/// `ctdb_iface_list`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceList(pub Vec<Interface>);

impl Encode for InterfaceList {
    fn encoded_len(&self) -> usize {
        4 + self.0.len() * Interface::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        write_list(&self.0, out);
    }
}

impl Decode<'_> for InterfaceList {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_list(reader, "iface_list").map(Self)
    }
}

/// A public address with its interfaces (`ctdb_public_ip_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicIpInfo {
    /// Address and holder.
    pub ip: PublicIp,
    /// Index into `interfaces` of the one in use; 0xFFFFFFFF for none. Not checked: C does not
    /// promise that it is smaller than the list.
    pub active_index: u32,
    /// Interfaces the address may live on.
    pub interfaces: Vec<Interface>,
}

impl PublicIpInfo {
    /// No interface carries the address.
    pub const INACTIVE: u32 = u32::MAX;

    /// The interface that carries the address.
    #[must_use]
    pub fn active(&self) -> Option<&Interface> {
        self.interfaces.get(usize::try_from(self.active_index).ok()?)
    }
}

impl Encode for PublicIpInfo {
    fn encoded_len(&self) -> usize {
        PublicIp::SIZE + 8 + self.interfaces.len() * Interface::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        self.ip.write(out);
        out.put_u32(self.active_index);
        write_list(&self.interfaces, out);
    }
}

impl Decode<'_> for PublicIpInfo {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ip = PublicIp::read(reader, "public_ip_info.ip")?;
        let active_index = reader.u32("public_ip_info.active_idx")?;
        let interfaces = read_list(reader, "public_ip_info.ifaces")?;
        Ok(Self { ip, active_index, interfaces })
    }
}
