//! Decisions about the cluster; so far: configuration files.
//!
//! Invariant: opens no socket, reads no clock.
#![forbid(unsafe_code)]

pub mod config;
pub mod node;
pub mod plane;
