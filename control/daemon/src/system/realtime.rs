//! Real-time scheduling of the calling thread.
//!
//! Role: neither rustix nor std has this call.
//! Origin: `docs/spec/cluster-semantics.md` 12.7; `ctdb/common/system.c: set_scheduler`.

use std::io;

/// Lowest real-time priority, as in C.
const PRIORITY: libc::c_int = 1;

/// From now on the calling thread runs before all normal ones. What it starts, threads and
/// processes, is normal again.
///
/// # Errors
/// Without the right to do it (CAP_SYS_NICE, RLIMIT_RTPRIO).
pub(crate) fn run_this_thread_first() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 names the calling thread; `parameters` is a live, initialised `sched_param` that
    // the kernel only reads during the call.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 41 of `/proc/PID/stat`: the scheduling policy.
    fn policy_of_this_thread() -> Option<u32> {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(41 - 3)?.parse().ok()
    }

    #[test]
    fn a_thread_runs_first_and_what_it_starts_does_not() {
        std::thread::spawn(|| {
            if let Err(error) = run_this_thread_first() {
                println!("skipped: no right to real-time scheduling: {error}");
                assert!(std::env::var_os("RINGMASTER_REQUIRE_ALL").is_none());
                return;
            }
            assert_eq!(policy_of_this_thread(), Some(1), "SCHED_FIFO");
            let child = std::thread::spawn(policy_of_this_thread).join();
            assert_eq!(child.expect("joined"), Some(0), "SCHED_OTHER");
        })
        .join()
        .expect("joined");
    }
}
