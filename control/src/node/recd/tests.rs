//! Scenarios: whole clusters in simulated time.

mod cluster;
mod daemon_faults;
mod daemons;
mod elections;
mod faults;
mod model;
mod recoveries;
mod takeover;
mod upstream;
