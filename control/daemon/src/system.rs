//! What the daemon asks of the system for itself: open files, memory, capabilities, priority.
//!
//! Invariants
//! - Nothing of this happens in test mode, where daemons share a host with other work; but for the
//!   allocator, which concerns nobody else.
//! - Only a priority that was asked for and refused ends the daemon (as in C); everything else is
//!   logged and done without.
//!
//! Origin: `docs/spec/cluster-semantics.md` 12.7.

mod memory;
mod realtime;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities, set_capabilities},
};

pub(crate) use memory::give_large_blocks_back;
pub(crate) use realtime::run_this_thread_first;

/// Every client and every handle of every shard costs a descriptor: takes all that are allowed.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// What the daemon itself needs: addresses and raw packets, priority and locked memory; the socket's
/// owner; files of other users below its directories; to look for and signal its clients.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::KILL);

/// Drops all other capabilities of this thread, and so of those it will start. Programs it starts as
/// root get theirs back from the kernel: event scripts need them.
pub(crate) fn drop_capabilities() {
    let dropped = capabilities(None).and_then(|mut have| {
        have.effective &= NEEDED;
        have.permitted &= NEEDED;
        set_capabilities(None, have)
    });
    if let Err(error) = dropped {
        tracing::warn!(%error, "cannot drop capabilities");
    }
}

/// Keeps the daemon in memory, as C does when it runs as root: a node that waits for the swap is
/// thrown out by the others. Files that are mapped later are locked page by page as they are used.
pub(crate) fn lock_memory() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Err(error) = mlockall(MlockAllFlags::CURRENT) {
        tracing::warn!(%error, "cannot lock memory");
        return;
    }
    // Under a limit, locking what comes later would make mappings fail.
    let unlimited = capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::IPC_LOCK))
        || getrlimit(Resource::Memlock).current.is_none();
    if unlimited && let Err(error) = mlockall(MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        tracing::warn!(%error, "cannot lock memory that is mapped from now on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_raised_to_what_is_allowed() {
        raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn what_is_not_needed_is_dropped_and_a_program_of_root_gets_it_back() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none());
            return;
        }
        // Capabilities belong to the thread.
        std::thread::spawn(|| {
            let before = capabilities(None).expect("readable");
            drop_capabilities();
            let after = capabilities(None).expect("readable");
            assert_eq!(after.effective, before.effective & NEEDED);
            assert_eq!(after.permitted, before.permitted & NEEDED);
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("readable");
            let bound = status.lines().find(|line| line.starts_with("CapBnd:")).expect("a line");
            let child = std::process::Command::new("cat").arg("/proc/self/status").output();
            let child = String::from_utf8(child.expect("run").stdout).expect("text");
            let bound = bound.replace("CapBnd", "CapEff");
            assert!(child.lines().any(|line| line == bound), "{bound} in {child}");
        })
        .join()
        .expect("joined");
    }
}
