//! What arrives without having been asked for.

use ringmaster_protocol::Srvid;
use ringmaster_protocol::tunnel::TunnelFlags;

/// A message to a srvid this client registered. Who sent it is not known: the daemon hides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The srvid it was sent to (which is not [`Srvid::ALL`], even if that is registered).
    pub srvid: Srvid,
    /// Payload.
    pub data: Vec<u8>,
}

/// A packet of a tunnel this client registered. C daemons lose sender and request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelPacket {
    /// The tunnel.
    pub tunnel_id: u64,
    /// As the sender set them.
    pub flags: TunnelFlags,
    /// Payload.
    pub data: Vec<u8>,
}
