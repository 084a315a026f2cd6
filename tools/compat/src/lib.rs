//! The outside view of a cluster: daemons and tools are started as programs and compared.
//!
//! Role: run the same thing against Debian's C daemon and tool and against ours, and say where
//! they differ. Links none of our servers.
//! Invariants
//! - Every process started is gone when its [`cluster::Cluster`] is dropped, also after a panic;
//!   what a killed run left behind is removed by the next one.
//! - Only loopback addresses are used, from a subnet that one process holds alone.
//!
//! Origin: `ctdb/tests/INTEGRATION` (the idea of local daemons); `docs/spec/cluster-semantics.md`
//! 12.3 and 15.1 (test mode).
#![forbid(unsafe_code)]

pub mod case;
pub mod cluster;
pub mod column;
pub mod expected;
pub mod normalise;
pub mod prerequisite;
pub mod run;
pub mod runner;
pub mod takeover_helper;
pub mod vitals;
