//! Scenarios: whole clusters in simulated time.

mod cluster;
mod daemons;
mod elections;
mod faults;
mod model;
mod recoveries;
