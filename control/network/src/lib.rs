//! The host's network, as failover needs it.
//!
//! Role: says which addresses, interfaces and connections there are (`addresses`, `interfaces`,
//! `connections`), tells neighbours where an address is now (`announce`) and clients that a
//! connection has gone (`tickle`), ends connections (`killing`). Packets are built and read in
//! `packet`, which is pure.
//! Invariants
//! - Nothing here waits, but for `killing`: every other socket answers from the kernel at once.
//! - Nothing here decides; who hosts what is `ringmaster-control`'s business.
//!
//! Origin: `docs/spec/cluster-semantics.md` 9; `ctdb/common/system_socket.c`.

pub mod addresses;
pub mod announce;
pub mod connections;
pub mod interfaces;
pub mod killing;
mod link_address;
mod netlink;
pub mod packet;
pub mod tickle;
