//! What several tests and the fuzz driver share. Each uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "every test uses a different part")]

#[path = "../capture/file.rs"]
pub mod capture;
pub mod corpus;
pub mod counting;
pub mod driver;
pub mod families;
