//! Moves packets between nodes and clients; knows frames, not meaning.
//!
//! So far: the reactors, one per shard.

pub mod reactor;
