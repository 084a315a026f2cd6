//! The host's network, as failover needs it.
//!
//! Role: says which addresses and interfaces there are (`addresses`, `interfaces`), tells neighbours
//! where an address is now (`announce`) and clients that a connection has gone (`tickle`). Packets
//! are built in `packet`, which is pure.
//! Invariants
//! - Nothing here waits: every socket answers from the kernel at once.
//! - Nothing here decides; who hosts what is `ringmaster-control`'s business.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9; `ctdb/common/system_socket.c`.

pub mod addresses;
pub mod announce;
pub mod interfaces;
mod link_address;
mod netlink;
pub mod packet;
pub mod tickle;
