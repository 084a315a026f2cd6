//! The ways to run a node beside the default one, and Pacemaker's agent.
//!
//! Each case sets the node up anew, as `docs/running.md` says it, on Debian's daemon and on ours.
#![forbid(unsafe_code)]

mod agent;
mod alone;
mod scripts;

use std::process::ExitCode;

use anyhow::Result;
use ringmaster_e2e::{Case, Lab, Subject};
use ringmaster_xtask::demo::{cluster::Cluster, world::World};

const CASES: &[Case] = &[
    Case {
        name: "database_only_leaves_addresses_and_services_alone",
        on: Subject::BOTH,
        run: alone::database_only,
    },
    Case {
        name: "failover_without_services_does_not_mind_a_dead_server",
        on: Subject::BOTH,
        run: alone::failover_only,
    },
    Case {
        name: "every_event_of_every_script_goes_as_under_debians_event_daemon",
        on: &[Subject::Ours],
        run: scripts::every_event,
    },
    Case {
        name: "debians_agent_starts_monitors_and_stops_the_daemon",
        on: Subject::BOTH,
        run: agent::actions,
    },
];

fn main() -> ExitCode {
    ringmaster_e2e::main_on(CASES, start)
}

/// One node, with nothing started.
fn start(subject: Subject) -> Result<Lab> {
    let world = World::prepare(None)?;
    let cluster = Cluster::make(&world, &[subject.daemon()?], "")?;
    subject.configure(&cluster.nodes[0])?;
    Ok(Lab { subject, cluster })
}
