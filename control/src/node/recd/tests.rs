//! Scenarios: whole clusters in simulated time.

mod cluster;
mod elections;
mod model;
mod recoveries;
