//! What can happen to a node.

use anyhow::{Context, Result};

use super::{cluster, host::Host, wait};

/// A fault, or a planned stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of the daemon.
    Kill,
    /// The cable is cut, and every process of the node killed.
    Power,
    /// The daemon stands still.
    Hang,
    /// `ctdb stop`.
    Stop,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Power, Self::Hang, Self::Stop];

    /// The fault of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Hang => "hang",
            Self::Stop => "stop",
        }
    }

    /// What happens, for whoever watches.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Kill => "its ctdbd is killed (SIGKILL)",
            Self::Power => "its cable is cut and every process on it killed",
            Self::Hang => "its ctdbd stands still (SIGSTOP)",
            Self::Stop => "`ctdb stop`",
        }
    }

    /// Makes it happen.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn inflict(self, node: &Host) -> Result<()> {
        match self {
            Self::Kill => cluster::kill(cluster::daemon_pid(node)?),
            Self::Power => {
                node.unplug()?;
                signal("-KILL", &node.processes()?)
            }
            Self::Hang => signal("-STOP", &[cluster::daemon_pid(node)?]),
            Self::Stop => node.run("ctdb stop").map(drop).context("ctdb stop"),
        }
    }
}

fn signal(signal: &str, processes: &[u32]) -> Result<()> {
    let mut command = wait::limited(10, "kill");
    command.arg(signal).args(processes.iter().map(u32::to_string));
    // One that has ended by itself meanwhile makes `kill` fail.
    wait::output("kill", &mut command).map(drop)
}
