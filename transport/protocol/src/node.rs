//! Nodes: flags, node map, flag changes, bans.
//!
//! Origin: `docs/spec/wire-protocol.md` 4.7, `docs/spec/admin-interface.md` 1.5.1 (names).

use std::fmt;

use crate::address::SockAddr;
use crate::flags::flag_set;
use crate::id::Pnn;
use crate::layout::{Fixed, fixed_newtype, read_list, wire_struct, write_list};
use crate::wire::{Decode, DecodeError, Encode, Reader};

flag_set! {
    /// State of a node as one daemon sees it.
    pub struct NodeFlags {
        /// No transport connection.
        const DISCONNECTED = 0x01;
        /// Monitoring (or start-up) says unhealthy.
        const UNHEALTHY = 0x02;
        /// Disabled by the administrator; shown as DISABLED.
        const PERMANENTLY_DISABLED = 0x04;
        /// Banned by the administrator or after failed recoveries.
        const BANNED = 0x08;
        /// Commented out in the nodes list.
        const DELETED = 0x10;
        /// Stopped by the administrator.
        const STOPPED = 0x20;
        /// Set by the tool only, for display.
        const UNKNOWN = 0x40;
        /// Hosts no public addresses: UNHEALTHY or PERMANENTLY_DISABLED.
        const DISABLED = 0x06;
        /// Takes no part in the cluster: DELETED, DISCONNECTED, BANNED or STOPPED.
        const INACTIVE = 0x39;
    }
}

fixed_newtype!(NodeFlags(u32));

impl NodeFlags {
    /// Any of the [`NodeFlags::INACTIVE`] bits.
    #[must_use]
    pub const fn is_inactive(self) -> bool {
        self.intersects(Self::INACTIVE)
    }

    /// Any of the [`NodeFlags::DISABLED`] bits.
    #[must_use]
    pub const fn is_disabled(self) -> bool {
        self.intersects(Self::DISABLED)
    }
}

/// C's display names in C's order, joined with `|`; `OK` when nothing is set. The tool shows
/// INACTIVE behind the flags that imply it.
impl fmt::Display for NodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = [
            (Self::DISCONNECTED, "DISCONNECTED"),
            (Self::UNKNOWN, "UNKNOWN"),
            (Self::PERMANENTLY_DISABLED, "DISABLED"),
            (Self::BANNED, "BANNED"),
            (Self::UNHEALTHY, "UNHEALTHY"),
            (Self::DELETED, "DELETED"),
            (Self::STOPPED, "STOPPED"),
            (Self::INACTIVE, "INACTIVE"),
        ]
        .into_iter()
        .filter(|(flag, _)| self.intersects(*flag))
        .map(|(_, name)| name)
        .collect();
        f.pad(&if names.is_empty() { "OK".to_owned() } else { names.join("|") })
    }
}

wire_struct! {
    /// One line of the nodes list as a daemon sees it (`ctdb_node_and_flags`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct NodeAndFlags = 36 bytes {
        /// Position in the nodes list.
        pub pnn: Pnn;
        /// State.
        pub flags: NodeFlags;
        /// Address with CTDB's port; 0.0.0.0 for a deleted node.
        pub addr: SockAddr;
    }
}

/// All nodes in the order of their numbers (`ctdb_node_map`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeMap(pub Vec<NodeAndFlags>);

impl NodeMap {
    /// The entry of one node.
    #[must_use]
    pub fn find(&self, pnn: Pnn) -> Option<&NodeAndFlags> {
        self.0.iter().find(|node| node.pnn == pnn)
    }
}

impl Encode for NodeMap {
    fn encoded_len(&self) -> usize {
        4 + self.0.len() * NodeAndFlags::SIZE
    }
    fn encode(&self, out: &mut Vec<u8>) {
        write_list(&self.0, out);
    }
}

impl Decode<'_> for NodeMap {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_list(reader, "node_map").map(Self)
    }
}

wire_struct! {
    /// Request of MODIFY_FLAGS, message SET_NODE_FLAGS (`ctdb_node_flag_change`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct NodeFlagChange = 12 bytes {
        /// The node.
        pub pnn: Pnn;
        /// Its flags from now on.
        pub new_flags: NodeFlags;
        /// Its flags before; receivers ignore it.
        pub old_flags: NodeFlags;
    }
}

wire_struct! {
    /// A ban (`ctdb_ban_state`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BanState = 8 bytes {
        /// The node; SET_BAN_STATE goes to that node itself.
        pub pnn: Pnn;
        /// Duration in seconds; 0 is no ban.
        pub seconds: u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_in_the_order_of_the_c_tool() {
        assert_eq!(NodeFlags::NONE.to_string(), "OK");
        assert_eq!(NodeFlags::STOPPED.to_string(), "STOPPED|INACTIVE");
        assert_eq!(NodeFlags::DISABLED.to_string(), "DISABLED|UNHEALTHY");
        assert_eq!(
            NodeFlags(0x7f).to_string(),
            "DISCONNECTED|UNKNOWN|DISABLED|BANNED|UNHEALTHY|DELETED|STOPPED|INACTIVE"
        );
    }
}
