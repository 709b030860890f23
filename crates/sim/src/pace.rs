//! The simulated endpoint's clock, and how it waits for a moment.
//!
//! A poll can only wait whole milliseconds, a sleep wakes some 60 µs late, and only a spin is
//! exact. So a long wait ends early, a sleep ends earlier, and the rest is spun: some 0.2 ms of
//! CPU a deadline, for a start within microseconds of it on a machine that has a core to spare.

use std::{
    hint, thread,
    time::{Duration, Instant, SystemTime},
};

/// What a poll leaves to the sleep, at least: how late a poll may wake.
const POLL_MARGIN: Duration = Duration::from_micros(500);

/// What a sleep leaves to the spin: how late a sleep may wake.
const SLEEP_MARGIN: Duration = Duration::from_micros(200);

/// Longest poll: the system takes its timeout as a small integer.
const POLL_LONGEST: Duration = Duration::from_secs(60);

/// The time.
#[expect(clippy::disallowed_methods, reason = "the simulated endpoint keeps time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "answers carry the date of their creation")]
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long to poll when the next deadline is `left` away; zero when it is too near to wait.
pub(super) fn poll_timeout(left: Duration) -> Duration {
    let milliseconds = left.saturating_sub(POLL_MARGIN).min(POLL_LONGEST).as_millis();
    Duration::from_millis(milliseconds as u64)
}

/// Waits until `deadline` exactly. For a wait that is too short to poll.
pub(super) fn wait_until(deadline: Instant) {
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
