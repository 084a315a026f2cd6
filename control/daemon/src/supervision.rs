//! The main loop watches itself: slow handlers, missed time, use of CPU.
//!
//! Role: pure; says what is to be logged. Never wakes the daemon up more often than once a minute.
//! Origin: `docs/spec/cluster-semantics.md` 1.1 (event-loop supervision, CPU check).

use std::time::Duration;

/// A handler or a sleep that takes this much longer than it should is worth a line.
const SLOW: Duration = Duration::from_secs(3);

/// The CPU is looked at this often.
const CPU_INTERVAL: Duration = Duration::from_secs(60);

/// Use that is worth a warning, in percent of what the daemon's threads can use.
const CPU_THRESHOLD: u64 = 90;

/// See the module. All times are since the start of the daemon.
#[derive(Debug)]
pub(crate) struct Supervision {
    /// Threads that may use a CPU each.
    threads: u32,
    threshold: u64,
    /// Time and CPU time of the last look.
    looked: (Duration, Duration),
    /// Use that was warned of.
    warned: Option<u64>,
}

impl Supervision {
    /// `threshold`: `CTDB_TEST_CPU_USAGE_THRESHOLD`, 1 to 100.
    pub(crate) fn new(threads: u32, threshold: Option<u64>) -> Self {
        let threshold = threshold.filter(|one| (1..=100).contains(one)).unwrap_or(CPU_THRESHOLD);
        let threads = threads.max(1);
        Self { threads, threshold, looked: (Duration::ZERO, Duration::ZERO), warned: None }
    }

    /// Work between two sleeps took `taken`.
    pub(crate) fn handled(taken: Duration) -> Option<String> {
        (taken > SLOW).then(|| format!("Handling event took {} seconds!", taken.as_secs()))
    }

    /// A sleep that should have ended after `planned` took `taken`.
    pub(crate) fn slept(planned: Duration, taken: Duration) -> Option<String> {
        let late = taken.saturating_sub(planned);
        (late > SLOW).then(|| format!("No event for {} seconds!", taken.as_secs()))
    }

    /// When [`Self::cpu`] is to be called next.
    pub(crate) fn next_look(&self) -> Duration {
        self.looked.0 + CPU_INTERVAL
    }

    /// Looks at the CPU time used so far.
    pub(crate) fn cpu(&mut self, now: Duration, used: Duration) -> Option<String> {
        let (then, before) = self.looked;
        self.looked = (now, used);
        let wall = now.saturating_sub(then).as_millis() * u128::from(self.threads);
        let busy = used.saturating_sub(before).as_millis() * 100;
        let percent = u64::try_from(busy.checked_div(wall)?).unwrap_or(u64::MAX);
        let threshold = self.threshold;
        if percent >= threshold {
            if self.warned.replace(percent) == Some(percent) {
                return None;
            }
            return Some(format!(
                "WARNING: CPU utilisation {percent}% >= threshold ({threshold}%)"
            ));
        }
        self.warned
            .take()
            .map(|_| format!("WARNING: CPU utilisation {percent}% < threshold ({threshold}%)"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn slow_work_and_missed_time_are_told_as_c_tells_them() {
        assert_eq!(Supervision::handled(s(3)), None);
        let slow = Supervision::handled(s(4));
        assert_eq!(slow.as_deref(), Some("Handling event took 4 seconds!"));
        assert_eq!(Supervision::slept(s(60), s(60)), None, "a quiet minute is no missed time");
        let missed = Supervision::slept(s(1), s(9));
        assert_eq!(missed.as_deref(), Some("No event for 9 seconds!"));
    }

    #[test]
    fn a_busy_daemon_is_told_once_for_each_change_and_when_it_is_over() {
        let mut supervision = Supervision::new(2, None);
        assert_eq!(supervision.next_look(), s(60));
        assert_eq!(supervision.cpu(s(60), s(100)), None, "83 percent of two CPUs");
        let told = supervision.cpu(s(120), s(210));
        assert_eq!(told.as_deref(), Some("WARNING: CPU utilisation 91% >= threshold (90%)"));
        assert_eq!(supervision.cpu(s(180), s(320)), None, "the same again");
        let told = supervision.cpu(s(240), s(330));
        assert_eq!(told.as_deref(), Some("WARNING: CPU utilisation 8% < threshold (90%)"));
        assert_eq!(supervision.cpu(s(240), s(330)), None, "no time has passed");
    }

    #[test]
    fn the_threshold_of_tests_is_used_if_it_makes_sense() {
        assert!(Supervision::new(1, Some(1)).cpu(s(60), s(1)).is_some());
        assert!(Supervision::new(1, Some(0)).cpu(s(60), s(1)).is_none());
    }
}
