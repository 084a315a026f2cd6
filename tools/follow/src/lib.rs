//! Our daemon among C's: the same scenarios on C's daemons alone and on mixed clusters.
//!
//! Role: what a scenario needs: a cluster of a composition, clients that work in it meanwhile and
//! can tell afterwards that nothing was lost, and what C's daemons have to say about it.
//! Invariants
//! - A scenario runs on C's daemons alone first: what fails there is wrong in the scenario.
//! - Conditions are waited for, each with a limit ([`PATIENCE`]).
//! - What was acknowledged to a client is counted; at the end the databases say the same.
//!
//! Origin: `docs/spec/cluster-semantics.md` 15 and appendix A.
#![forbid(unsafe_code)]

pub mod complaints;
pub mod history;
pub mod life;
pub mod load;
pub mod overheard;
pub mod steps;

use std::time::Duration;

/// Limit of every wait in a scenario: far above what a loaded machine needs, so that only what
/// hangs meets it.
pub const PATIENCE: Duration = Duration::from_secs(120);
