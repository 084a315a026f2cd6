//! Limits of links between nodes, by name, with what happens at each.

use std::time::Duration;

use crate::local::CLIENT_PACKET_MAX;

/// Longest packet that another node may send; a longer one ends the connection. Whatever a client
/// may send to its daemon, its daemon may send here, with a header of its own.
pub const NODE_PACKET_MAX: u32 = CLIENT_PACKET_MAX + 4_096;

/// Output that may wait for a peer that does not read, in bytes; then the peer counts as dead and
/// both connections are closed. Nothing less is safe: a packet left out may be a record. (C waits
/// without a limit until the keepalives miss the peer.)
pub const LINK_OUTPUT_MAX: usize = 512 * 1024 * 1024;

const _: () = assert!(LINK_OUTPUT_MAX > NODE_PACKET_MAX as usize);

/// An attempt to connect that has not ended after this long is given up, and a new one begins.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Attempts to connect begin at least this long after each other (C waits so long after an error,
/// and not at all after a peer that accepts and closes at once).
pub const CONNECT_PAUSE: Duration = Duration::from_secs(1);

/// A `KeepaliveInterval` of 0 is taken as this: C's timer would fire without end.
pub const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(1);
