//! Public addresses: who hosts which, and what a node knows of its own.
//!
//! Role: pure data and arithmetic. Sequences that use it: `node::controls::addresses` (a node's own
//! addresses), `node::recd::takeover` (the leader's run).
//! Origin: `docs/spec/cluster-semantics.md` 9.

pub mod addresses;
pub mod ipalloc;
pub mod tickles;
