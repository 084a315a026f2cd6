//! Handlers, one file per family of commands.
//!
//! Role: thin. A handler asks the daemon, builds a report and prints it; the report's layout is
//! pure code beside it. The rows that name the handlers are in `table.rs`.

pub mod address;
pub mod admin;
mod attached;
pub mod backup;
pub mod cluster;
mod data;
pub mod databases;
pub mod debug;
pub mod dump;
pub mod helper;
pub mod interface;
pub mod node;
pub mod persistent;
pub mod process;
mod record;
pub mod statistics;
pub mod tdb_file;
pub mod tickle;
pub mod tunables;
pub mod version;
pub mod volatile;
