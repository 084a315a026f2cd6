//! A whole node under a leader that is C's.

mod cuts;
mod follower;
mod questions;
mod transactions;
