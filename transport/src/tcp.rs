//! Links between nodes over TCP, byte-compatible with C's daemon ("lane 0").
//!
//! Role: what C does with connections to other nodes: [`link`] decides (pure), [`socket`] makes
//! sockets as C does, [`keepalive`] judges a peer's version, [`announce`] is what two nodes of ours
//! tell each other behind C's back. Who owns a link and what is done with packets: the data plane.
//! Invariants
//! - Between two nodes there are two connections: each node opens one and only writes to it; what
//!   it accepted it only reads. Both stand or the peer is not connected.
//! - Lost bytes are never sent again: a broken connection means a dead node, and recovery repairs.
//!
//! Origin: `docs/spec/wire-protocol.md` 6.4, 6.5; `docs/spec/cluster-semantics.md` 1.6, 1.7;
//! `ctdb/tcp/tcp_connect.c`, `tcp_io.c`, `ctdb/server/ctdb_keepalive.c`.

pub mod announce;
pub mod keepalive;
pub mod limits;
pub mod link;
pub mod socket;

use ringmaster_protocol::header::{Framing, Transport};

/// How packets of other nodes are framed: anything malformed ends the connection.
pub const NODE_FRAMING: Framing =
    Framing { transport: Transport::Tcp, packet_len_max: limits::NODE_PACKET_MAX };
