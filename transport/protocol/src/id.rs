//! The numbers of the protocol as types of their own.
//!
//! Invariants: each type derives only what makes sense for it. A generation is not ordered; a
//! `Pnn` is never one of the wire's reserved addresses.
//! Origin: `docs/spec/wire-protocol.md` 1.5–1.7, 5.1, 7.1.

use std::fmt;

/// Physical node number: zero-based position in the nodes file. Never one of the wire's reserved
/// addresses ("this node", broadcasts, "unknown"): those parse into [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pnn(u32);

impl Pnn {
    /// `None` for the reserved range from 0xF0000001.
    #[must_use]
    pub const fn new(raw: u32) -> Option<Self> {
        if raw < Destination::CURRENT_NODE { Some(Self(raw)) } else { None }
    }

    /// The number as it stands on the wire.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Pnn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a packet goes (`destnode`). Broadcasts are expanded by the sender's daemon and never
/// appear on TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// One node.
    Node(Pnn),
    /// Unix socket only: the daemon at the other end.
    Current,
    /// Every node not deleted.
    BroadcastAll,
    /// Every node that is not deleted, disconnected, banned or stopped.
    BroadcastActive,
    /// Every node that is not deleted or disconnected.
    BroadcastConnected,
    /// Reserved by C, implemented nowhere.
    Multicast,
    /// "No node".
    Unknown,
    /// A reserved value without a meaning.
    Reserved(u32),
}

impl Destination {
    const CURRENT_NODE: u32 = 0xF000_0001;

    /// From the wire; total.
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            Self::CURRENT_NODE => Self::Current,
            0xF000_0002 => Self::BroadcastAll,
            0xF000_0003 => Self::BroadcastActive,
            0xF000_0004 => Self::BroadcastConnected,
            0xF000_0005 => Self::Multicast,
            0xFFFF_FFFF => Self::Unknown,
            other => match Pnn::new(other) {
                Some(pnn) => Self::Node(pnn),
                None => Self::Reserved(other),
            },
        }
    }

    /// To the wire; inverse of [`Destination::from_raw`].
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Node(pnn) => pnn.get(),
            Self::Current => Self::CURRENT_NODE,
            Self::BroadcastAll => 0xF000_0002,
            Self::BroadcastActive => 0xF000_0003,
            Self::BroadcastConnected => 0xF000_0004,
            Self::Multicast => 0xF000_0005,
            Self::Unknown => 0xFFFF_FFFF,
            Self::Reserved(raw) => raw,
        }
    }
}

/// Recovery epoch. A random id, so deliberately *not* `Ord`: two generations are equal or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(pub u32);

impl Generation {
    /// Before the first recovery and on stopped or banned nodes.
    pub const INVALID: Self = Self(1);
}

/// Record sequence number: of two copies of one record, the higher is the newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rsn(pub u64);

impl Rsn {
    /// `None` at the end of the range: the request fails, the number never wraps.
    #[must_use]
    pub const fn advanced(self, steps: u64) -> Option<Self> {
        match self.0.checked_add(steps) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }
}

/// Request id, chosen by the requester and echoed by whoever replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reqid(pub u32);

impl Reqid {
    /// Carried by everything unsolicited.
    pub const NONE: Self = Self(0);
    /// Never used for a request.
    pub const INVALID: Self = Self(0xFFFF_FFFF);
}

/// Address of a message receiver. Ranges and well-known values: `srvid` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Srvid(pub u64);

/// Database id: the Jenkins hash of the database's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DbId(pub u32);

impl fmt::Display for DbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_destination_survives_the_wire() {
        for raw in [0, 7, 0xF000_0000, 0xF000_0001, 0xF000_0003, 0xF000_0077, 0xFFFF_FFFF] {
            assert_eq!(Destination::from_raw(raw).to_raw(), raw);
        }
    }

    #[test]
    fn reserved_addresses_are_not_node_numbers() {
        assert_eq!(Pnn::new(0xF000_0001), None);
        assert_eq!(Pnn::new(0xFFFF_FFFF), None);
        assert_eq!(Pnn::new(0xF000_0000).map(Pnn::get), Some(0xF000_0000));
    }

    #[test]
    fn rsn_does_not_wrap() {
        assert_eq!(Rsn(u64::MAX).advanced(1), None);
    }
}
