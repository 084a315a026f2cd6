//! Shards and records: who owns what, and what happens to it.
//!
//! Invariants
//! - A hash chain belongs to one shard for the life of the process (`shard::owner_of`).
//! - On a shard thread nobody blocks, takes a mutex, or allocates per record.
//! - Between shards there are only messages, over bounded queues with credit.
#![forbid(unsafe_code)]

pub mod record;
pub mod shard;
pub mod view;
