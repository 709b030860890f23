//! Maps the kernel's timestamps to the monotonic clock.
//!
//! The kernel stamps packets with the wall clock, which NTP or a user may set; figures need the
//! monotonic clock. Each round of reads takes both clocks at once. A timestamp of this round is not
//! older than the previous round, so the current difference of the clocks maps it, provided that the
//! difference did not change in between by more than clocks drift. If it did, the wall clock was
//! set, and the timestamps of the round are discarded.

use std::time::{Duration, Instant};

/// Both clocks at the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) monotonic: Instant,
    /// Since the Unix epoch.
    pub(super) wall: Duration,
}

/// Detects steps of the wall clock.
#[derive(Debug)]
pub(super) struct WallClock {
    last: Option<Now>,
}

/// Largest drift between the clocks without a step, in seconds per second: adjtimex(2) slews by up
/// to 500 ppm.
const DRIFT: f64 = 600e-6;

/// Largest error of the difference, since the two clocks are read one after the other.
const BETWEEN_READINGS: Duration = Duration::from_micros(50);

impl WallClock {
    pub(super) fn new() -> Self {
        Self { last: None }
    }

    /// Begins a round of reads; returns whether timestamps since the previous round are usable.
    pub(super) fn round(&mut self, now: Now) -> bool {
        let steady = self.last.is_none_or(|last| is_steady(last, now));
        self.last = Some(now);
        steady
    }
}

fn is_steady(last: Now, now: Now) -> bool {
    let monotonic = now.monotonic.saturating_duration_since(last.monotonic).as_secs_f64();
    let wall = now.wall.as_secs_f64() - last.wall.as_secs_f64();
    (wall - monotonic).abs() <= BETWEEN_READINGS.as_secs_f64() + DRIFT * monotonic
}

/// The monotonic time of a wall-clock `stamp`. A stamp after `now` counts as `now`.
pub(super) fn moment(stamp: Duration, now: Now) -> Instant {
    // The age is short, so a drift of the clocks within it does not matter.
    let age = now.wall.saturating_sub(stamp);
    now.monotonic.checked_sub(age).unwrap_or(now.monotonic)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "only as an origin")]
mod tests {
    use super::*;

    fn at(origin: Instant, monotonic_ms: u64, wall_ms: u64) -> Now {
        Now {
            monotonic: origin + Duration::from_millis(monotonic_ms),
            wall: Duration::from_millis(1_000_000_000 + wall_ms),
        }
    }

    #[test]
    fn a_stamp_is_moved_by_its_age() {
        let origin = Instant::now();
        let now = at(origin, 500, 700);
        let stamp = Duration::from_millis(1_000_000_000 + 697);
        assert_eq!(moment(stamp, now), origin + Duration::from_millis(497));
        assert_eq!(moment(now.wall + Duration::from_millis(1), now), now.monotonic);
    }

    #[test]
    fn a_step_of_the_wall_clock_spoils_one_round() {
        let origin = Instant::now();
        let mut clock = WallClock::new();
        assert!(clock.round(at(origin, 0, 0)));
        assert!(clock.round(at(origin, 10, 10)));
        assert!(!clock.round(at(origin, 20, 19)), "set back by a millisecond");
        assert!(clock.round(at(origin, 30, 29)));
        assert!(!clock.round(at(origin, 40, 3_600_039)), "set forward by an hour");
        assert!(clock.round(at(origin, 10_040, 3_610_039 + 4)), "slewed by 400 ppm");
    }
}
