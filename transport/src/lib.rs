//! Moves packets between nodes and clients; knows frames, not meaning.
//!
//! So far: the reactors (one per shard), packets out of a byte stream, the socket of local clients.

pub mod frames;
pub mod local;
pub mod reactor;
