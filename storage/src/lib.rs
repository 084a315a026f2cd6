//! TDB files that other processes map and lock at the same moment.
#![warn(missing_docs)]

pub mod backend;
pub mod format;
pub mod lock;
pub mod map;
pub mod recovery;
pub mod store;
pub mod transaction;
