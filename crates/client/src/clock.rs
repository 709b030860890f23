//! The kernel's stamps on our clock.
//!
//! The kernel stamps packets with the wall clock, which can be set and steps; figures come from the
//! monotonic one, which cannot. Both are read at each round of reads, so a stamp, which is at most
//! as old as the round before, is moved by their difference of now. When that difference has
//! changed since the round before by more than clocks drift, the wall clock was set in between, and
//! the round's stamps are worth nothing.

use std::time::{Duration, Instant};

/// Two readings of the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) monotonic: Instant,
    /// Since 1970.
    pub(super) wall: Duration,
}

/// How the wall clock stands to the monotonic one.
#[derive(Debug)]
pub(super) struct WallClock {
    last: Option<Now>,
}

/// Most that the two clocks may move apart in a second without a step: adjtimex(2) slews by 500 ppm
/// at most, and the readings of a pair are taken one after the other.
const DRIFT: f64 = 600e-6;
const BETWEEN_READINGS: Duration = Duration::from_micros(50);

impl WallClock {
    pub(super) fn new() -> Self {
        Self { last: None }
    }

    /// Begins a round: whether stamps of the wall clock since the round before can be used.
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

/// The moment of a wall-clock `stamp`, which is not after `now`.
pub(super) fn moment(stamp: Duration, now: Now) -> Instant {
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
