//! Scenarios: whole clusters in simulated time.

mod cluster;
mod daemons;
mod elections;
mod model;
mod recoveries;
