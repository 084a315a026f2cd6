//! Gives up what the dead daemon has left.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use ringmaster_network::{addresses, connections::HostConnections};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::wards::Wards;

/// A script that the daemon had started may put an address back while it is being ended itself: so
/// long the guard looks again. A new daemon, which removes leftovers first of all, hosts nothing so
/// soon: recovery and takeover run come before.
const AFTERWARDS: Duration = Duration::from_millis(1_000);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// The lock helper. A descriptor, not a number: when it comes to it, the number may be another's.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    pid: Option<u32>,
    process: Option<OwnedFd>,
}

impl Lock {
    /// From now on it is this process.
    pub(crate) fn follow(&mut self, pid: Option<u32>) {
        if self.pid == pid {
            return;
        }
        self.pid = pid;
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        // One that has ended by itself holds nothing.
        self.process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    }

    fn let_go(self) {
        let Some(process) = self.process else { return };
        if pidfd_send_signal(&process, Signal::TERM).is_ok() {
            tracing::warn!("the daemon is gone: the cluster lock helper has been told to end");
        }
    }
}

/// Addresses first, then the lock.
pub(crate) fn all(wards: &Wards, lock: Lock) {
    let wanted = wards.addresses();
    if !wanted.is_empty() {
        end_connections(wanted);
        remove(wanted);
    }
    lock.let_go();
    if wanted.is_empty() {
        return;
    }
    let began = Instant::now();
    while began.elapsed() < AFTERWARDS {
        thread::sleep(LOOK);
        remove(wanted);
    }
}

/// Clients hear of it at once: while the address is here still, for its resets to have a sender.
fn end_connections(wanted: &BTreeSet<IpAddr>) {
    let ended = HostConnections::open().and_then(|mut host| {
        let of_address = |ip: IpAddr| wanted.contains(&ip);
        for one in host.all()? {
            if one.connection.dst.ip().is_some_and(of_address) {
                // One that does not end so, ends by its next host's tickle.
                let _ = host.end(&one);
            }
        }
        Ok(())
    });
    if let Err(error) = ended {
        tracing::warn!(%error, "connections of the dead daemon's addresses cannot be ended");
    }
}

fn remove(wanted: &BTreeSet<IpAddr>) {
    match addresses::give_up(wanted) {
        Ok(removed) => {
            for address in removed {
                tracing::warn!(%address, "the daemon is gone: its address has been removed");
            }
        }
        Err(error) => tracing::error!(%error, "the dead daemon's addresses cannot be removed"),
    }
}
