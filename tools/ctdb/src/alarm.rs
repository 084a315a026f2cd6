//! The limit of a whole run (`-T`).
//!
//! Role: a thread that ends the process when the limit has passed.
//! Invariant: a helper that runs at that moment is ended too, and its end is not reported. The C tool sends SIGTERM to its
//! whole process group, the script that called it included; we do not.
//!
//! Origin: `docs/spec/admin-interface.md` 1.2 (run-time limit).

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Ends the process in time.
#[derive(Debug)]
pub struct Alarm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    deadline: Option<Instant>,
    /// Not a process id: those are given to other processes once the child has been waited for.
    child: Option<OwnedFd>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is two plain values: a panic elsewhere cannot leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    /// An alarm that is not armed. `fire` runs once, on the alarm's thread, and ends the process.
    #[must_use]
    pub fn new(fire: impl FnOnce() + Send + 'static) -> Self {
        let state = Mutex::new(State { deadline: None, child: None });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        thread::spawn(move || {
            wait_until_due(&watched);
            // Kept until the process ends: whoever waits for the child says nothing any more.
            let mut state = watched.state();
            if let Some(child) = state.child.take() {
                // A child that is gone already is what we want.
                let _gone = pidfd_send_signal(child, Signal::TERM);
            }
            fire();
        });
        Self { shared }
    }

    /// Starts the time again; `None` disarms.
    pub fn set(&self, limit: Option<Duration>) {
        self.shared.state().deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.shared.changed.notify_all();
    }

    /// While the guard lives, the alarm also ends `child`. Kernels without pidfds (before 5.3) let
    /// the child live.
    #[must_use]
    pub fn ends(&self, child: &Child) -> ChildGuard<'_> {
        let pid = Pid::from_child(child);
        self.shared.state().child = pidfd_open(pid, PidfdFlags::empty()).ok();
        ChildGuard { alarm: self }
    }
}

/// See [`Alarm::ends`].
#[derive(Debug)]
pub struct ChildGuard<'a> {
    alarm: &'a Alarm,
}

impl Drop for ChildGuard<'_> {
    fn drop(&mut self) {
        self.alarm.shared.state().child = None;
    }
}

fn wait_until_due(shared: &Shared) {
    let mut state = shared.state();
    loop {
        state = match state.deadline {
            None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let waited = shared.changed.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn an_alarm_fires_and_a_later_deadline_replaces_an_earlier_one() {
        let (fired, firing) = mpsc::channel();
        let alarm = Alarm::new(move || fired.send(Instant::now()).unwrap());
        alarm.set(Some(Duration::from_secs(3600)));
        let limit = Duration::from_millis(30);
        let start = Instant::now();
        alarm.set(Some(limit));
        assert!(firing.recv().unwrap() >= start + limit);
    }
}
