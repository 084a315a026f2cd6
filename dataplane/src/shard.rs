//! One shard: a thread that owns clients and hash chains; and what joins shards.
//!
//! Role: ownership (`owner_of`), queues between shards (`outbox`), waking a sleeping shard
//! (`doorbell`).
//! Origin: ours; C is one thread.

mod clients;
pub mod controls;
pub mod doorbell;
mod early;
mod io;
pub mod lanes;
pub mod limits;
pub mod message;
mod nodes;
mod orders;
pub mod outbox;
mod packets;
pub mod registry;
pub mod runtime;
pub mod statistics;
pub mod store;
pub mod updates;

/// Number of a shard, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Number of a hash chain in one database, from 0 to its hash size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashChain(pub u32);

/// The single rule of ownership: a hash chain belongs to one shard for the life of the process.
///
/// # Panics
/// When `shard_count` is 0: a daemon without a shard cannot exist.
#[must_use]
pub fn owner_of(chain: HashChain, shard_count: u16) -> ShardId {
    assert!(shard_count > 0, "a daemon has at least one shard");
    let index = chain.0 % u32::from(shard_count);
    ShardId(u16::try_from(index).expect("remainder of a u16 divisor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chain_has_exactly_one_owner_and_owners_share_evenly() {
        let mut owned = [0_u32; 4];
        for chain in 0..100_001 {
            owned[usize::from(owner_of(HashChain(chain), 4).0)] += 1;
        }
        assert_eq!(owned, [25_001, 25_000, 25_000, 25_000]);
    }
}
