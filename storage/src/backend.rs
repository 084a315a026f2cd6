//! The places a database can live in; each is a [`Store`](crate::store::Store).

pub mod file;
pub mod memory;
