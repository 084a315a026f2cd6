//! Times as the C tool prints them.
//!
//! Role: pure formatting of wire times.
//! Origin: `docs/spec/admin-interface.md` 1.5.6 (`uptime`), 1.7 (`statistics`).

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use ringmaster_protocol::process::Timeval;

/// C's `ctime` layout in the local time zone: `Fri Nov 20 02:50:37 2026`.
#[must_use]
pub fn ctime(seconds: i64) -> String {
    ctime_in(seconds, TimeZone::system())
}

fn ctime_in(seconds: i64, zone: TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(zone).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        // A daemon that sends a year beyond 9999 is broken; show the number it sent.
        Err(_) => seconds.to_string(),
    }
}

/// `(DDD HH:MM:SS)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(pub i64);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0;
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        write!(f, "({days:03} {hours:02}:{:02}:{:02})", seconds / 60 % 60, seconds % 60)
    }
}

/// Seconds since the epoch, with the fraction.
#[must_use]
pub fn seconds(time: Timeval) -> f64 {
    // Whole seconds stay exact far beyond any date that can be meant.
    #[expect(clippy::cast_precision_loss, reason = "2^53 seconds are 285 million years")]
    let whole = time.seconds as f64;
    #[expect(clippy::cast_precision_loss, reason = "below a million")]
    let fraction = time.micros as f64 / 1e6;
    whole + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_the_layout_of_ctime() {
        assert_eq!(ctime_in(1_795_143_037, TimeZone::UTC), "Fri Nov 20 02:50:37 2026");
        assert_eq!(ctime_in(0, TimeZone::UTC), "Thu Jan  1 00:00:00 1970");
    }

    #[test]
    fn elapsed_time_counts_days_apart() {
        assert_eq!(Elapsed(878).to_string(), "(000 00:14:38)");
        assert_eq!(Elapsed(86_400 * 12 + 3 * 3600 + 61).to_string(), "(012 03:01:01)");
    }
}
