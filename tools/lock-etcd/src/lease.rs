//! How long a lease may be relied on. Pure.

use std::time::{Duration, Instant};

/// Refreshes within the life of a lease.
const REFRESHES: u32 = 3;

/// A lease and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    ttl: Duration,
    /// When the last request that was answered had been sent.
    sent: Instant,
}

impl Lease {
    /// Granted upon a request sent at `sent`.
    pub(crate) const fn granted(ttl: Duration, sent: Instant) -> Self {
        Self { ttl, sent }
    }

    /// A refresh sent at `sent` has been answered.
    pub(crate) fn refreshed(&mut self, sent: Instant) {
        self.sent = self.sent.max(sent);
    }

    /// When to send the next refresh.
    pub(crate) fn next_refresh(&self, last_attempt: Instant) -> Instant {
        last_attempt + self.ttl / REFRESHES
    }

    /// Until when the lock is surely held: a tenth of its life before etcd may give it to another,
    /// for the daemon has to hear of it first.
    pub(crate) fn held_until(&self) -> Instant {
        self.sent + self.ttl / 10 * 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_from_the_sending_and_ends_before_etcds() {
        let start = Instant::now();
        let ttl = Duration::from_secs(10);
        let mut lease = Lease::granted(ttl, start);
        assert_eq!(lease.held_until(), start + Duration::from_secs(9));
        lease.refreshed(start + Duration::from_secs(3));
        assert_eq!(lease.held_until(), start + Duration::from_secs(12));
        lease.refreshed(start + Duration::from_secs(1));
        assert_eq!(lease.held_until(), start + Duration::from_secs(12), "an older answer, late");
        assert!(lease.next_refresh(start) < lease.held_until());
    }
}
