//! The main loop's clock: one timer of the kernel's.
//!
//! Role: ends the loop's sleep at the time that was asked for. The timers of tokio wake the thread up
//! to three times for one sleep (once for each wheel that the timer falls through), which an idle
//! daemon would do several times a second.
//! Invariant: never later than asked for; a wake-up before that is harmless, and the rest is slept
//! then.
//! Origin: `timerfd_create(2)`.

use std::{io, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// See the module. All times are since the start of the daemon.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// A timer, not a pipe; waiting for it and reading it are the same.
    timer: Receiver,
    /// When it goes off, if it is set.
    set: Option<Duration>,
}

impl Alarm {
    /// Not set.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)?, set: None })
    }

    /// Waits until `at`, or less long. Dropping the future is harmless.
    ///
    /// # Errors
    /// When the kernel refuses the timer.
    pub(crate) async fn until(&mut self, now: Duration, at: Duration) -> io::Result<()> {
        // One that goes off earlier stays: the loop comes again and sets it then.
        if self.set.is_none_or(|set| set <= now || set > at) {
            self.set(at.saturating_sub(now))?;
            self.set = Some(at);
        }
        self.timer.readable().await?;
        // If there is nothing to read it was set anew meanwhile: the loop comes too early, once. A
        // second read finds nothing, by which the runtime knows that it has to wait again.
        while self.timer.try_read(&mut [0; 8]).is_ok() {
            self.set = None;
        }
        Ok(())
    }

    fn set(&self, pause: Duration) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would mean never.
        let pause = pause.max(Duration::from_nanos(1));
        let value = Timespec::try_from(pause).map_err(io::Error::other)?;
        let timer = Itimerspec { it_interval: never, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn on_a_runtime(test: impl AsyncFnOnce()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test());
    }

    #[test]
    fn it_goes_off_at_its_time_and_again() {
        on_a_runtime(async || {
            let mut alarm = Alarm::new().expect("a timer");
            let start = Instant::now();
            for number in 1..=3 {
                let at = Duration::from_millis(20 * number);
                while start.elapsed() < at {
                    alarm.until(start.elapsed(), at).await.expect("it goes off");
                }
            }
            assert_eq!(alarm.set, None);
        });
    }

    #[test]
    fn an_earlier_time_counts_and_a_time_that_has_passed_is_at_once() {
        on_a_runtime(async || {
            let mut alarm = Alarm::new().expect("a timer");
            let minute = Duration::from_secs(60);
            tokio::select! {
                biased;
                _ = alarm.until(Duration::ZERO, minute) => panic!("a minute has not passed"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(alarm.set, Some(minute), "a later one is not set instead");
            alarm.until(Duration::ZERO, Duration::from_millis(1)).await.expect("it goes off");
            alarm.until(minute, Duration::from_secs(1)).await.expect("it goes off");
            // What the first time has left does not disturb the next.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(5) {
                alarm.until(start.elapsed(), Duration::from_millis(5)).await.expect("it goes off");
            }
        });
    }
}
