//! Benchmarks, always beside the C implementation.
//!
//! Role: whole-daemon loads behind `ringmaster bench`. Micro-benchmarks are in `benches/`.
//! Invariants
//! - A figure is a ratio to the C daemon on the same machine in the same run; rounds are
//!   interleaved, so that what else the machine does hits all subjects alike.
//! - The load is the same bytes for every subject, and says how much processor time it takes
//!   itself.

#![forbid(unsafe_code)]

pub mod compare;
pub mod crowd;
pub mod histogram;
pub mod migration;
pub mod mover;
pub mod node;
pub mod report;
pub mod several;
pub mod targets;
pub mod wires;
mod witness;
