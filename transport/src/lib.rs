//! Moves packets between nodes and clients; knows frames, not meaning.
//!
//! The reactors (one per shard), packets out of a byte stream, the socket of local clients, links
//! to other nodes.

pub mod frames;
pub mod local;
pub mod reactor;
pub mod tcp;
