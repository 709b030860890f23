//! The clock of the simulated endpoint, and its wait for a deadline.
//!
//! A poll waits in whole milliseconds, a sleep wakes about 60 µs late, and only a busy loop is
//! exact. A long wait therefore polls until shortly before the deadline, then sleeps, then spins.
//! This costs about 0.2 ms of CPU time per deadline and meets it within microseconds on a machine
//! with an idle core.

use std::{
    hint, thread,
    time::{Duration, Instant, SystemTime},
};

/// The time before a deadline at which the poll ends at the latest: how late a poll can wake.
const POLL_MARGIN: Duration = Duration::from_micros(500);

/// The time before a deadline at which the sleep ends at the latest: how late a sleep can wake.
const SLEEP_MARGIN: Duration = Duration::from_micros(200);

/// The longest poll, because the operating system takes the timeout as a small integer.
const POLL_LONGEST: Duration = Duration::from_secs(60);

/// Returns the current time.
#[expect(clippy::disallowed_methods, reason = "the simulated endpoint keeps time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Returns the seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "answers carry the date of their creation")]
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns how long to poll if the next deadline is `left` away; zero if that is too short for a
/// poll.
pub(super) fn poll_timeout(left: Duration) -> Duration {
    let milliseconds = left.saturating_sub(POLL_MARGIN).min(POLL_LONGEST).as_millis();
    Duration::from_millis(milliseconds as u64)
}

/// Waits until `deadline` exactly, for waits that are too short to poll.
pub(super) fn wait_until(deadline: Instant) {
    // The sleep ends early by as much as it can wake late; spinning makes up the difference.
    let rest = deadline.saturating_duration_since(now()).saturating_sub(SLEEP_MARGIN);
    if !rest.is_zero() {
        thread::sleep(rest);
    }
    while now() < deadline {
        hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_ends_before_the_deadline_by_half_a_millisecond_at_least() {
        for (left, wait) in [(0, 0), (1400, 0), (1500, 1), (2499, 1), (10_000, 9)] {
            assert_eq!(poll_timeout(Duration::from_micros(left)), Duration::from_millis(wait));
        }
        assert_eq!(poll_timeout(Duration::MAX), POLL_LONGEST);
    }

    #[test]
    fn a_wait_is_never_short() {
        let deadline = now() + Duration::from_micros(700);
        wait_until(deadline);
        assert!(now() >= deadline);
    }
}
