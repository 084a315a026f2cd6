//! One node's control plane: what it knows, what it is asked, what it has done.
//!
//! Role: `world` is the contract with whoever drives it (the daemon, the simulator); `state` what
//! all sequences share. The sequences themselves: `controls` (answering), `lifecycle` (start,
//! run states, shutdown), `recd` (elections, the leader's main loop, recovery), `monitor` (health).
//! Origin: `docs/spec/cluster-semantics.md` 1, 6, 7, 8.

pub mod controls;
mod events;
mod freeze;
pub mod lifecycle;
pub mod monitor;
pub mod recd;
pub mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod world;

pub use state::State;
pub use world::{Ask, NodeWorld, Outcome, Tell};

/// A plane of this world.
pub type NodePlane = crate::plane::Plane<NodeWorld>;

/// What its sequences see.
pub type NodeCx = crate::plane::Cx<NodeWorld>;
