//! Decisions about the cluster: configuration, one node's control plane, elections, recovery.
//!
//! Invariant: opens no socket, reads no clock.
#![forbid(unsafe_code)]

pub mod config;
pub mod failover;
pub mod node;
pub mod plane;
