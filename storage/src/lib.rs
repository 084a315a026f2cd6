//! TDB files that other processes map and lock at the same moment.
#![warn(missing_docs)]

pub mod backend;
pub mod chain;
pub mod check;
mod dead;
pub mod engine;
pub mod flags;
pub mod foreign;
pub mod format;
pub mod freelist;
pub mod handle;
pub mod limits;
pub mod lock;
pub mod ltdb;
pub mod map;
pub mod mutex;
pub mod open;
pub mod recovery;
pub mod repair;
pub mod rescue;
pub mod reserve;
pub mod staging;
pub mod store;
pub mod transaction;
pub mod traverse;
pub mod wait;
pub mod whole;
