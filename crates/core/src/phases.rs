//! The phases of a load: ramp, warm-up, and the part that is measured. Pure.

use std::{fmt, time::Duration};

/// Which part of a load its figures are of.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Phases {
    /// How long the load grows to its concurrency or rate.
    pub ramp: Duration,
    /// What follows the ramp and is not measured.
    pub warm_up: WarmUp,
    /// The part of the rest that is measured.
    pub window: WindowRule,
}

/// The part of a load after its ramp that is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum WarmUp {
    /// There is none.
    #[default]
    None,
    /// This many requests.
    Requests(usize),
    /// This time.
    Time(Duration),
}

/// Which part of a load is measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum WindowRule {
    /// All after the ramp and the warm-up, up to the last start.
    #[default]
    Rest,
    /// What MSER leaves of that.
    Found,
    /// From one time to another, both counted from the start of the load; up to the last start
    /// without the second.
    Between(Duration, Option<Duration>),
}

impl Phases {
    /// Returns whether the whole load is measured.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }

    /// Returns when the measured part begins, counted from the start of the load; `None` if that
    /// depends on the number of requests.
    pub fn measured_from(&self) -> Option<Duration> {
        match (self.window, self.warm_up) {
            (WindowRule::Between(from, _), _) => Some(from),
            (_, WarmUp::None) => Some(self.ramp),
            (_, WarmUp::Time(time)) => Some(self.ramp + time),
            (_, WarmUp::Requests(_)) => None,
        }
    }

    /// Returns when the measured part of a load with these starts began, in any order.
    pub fn measured_after(&self, starts: impl Iterator<Item = Duration>) -> Option<Duration> {
        let WarmUp::Requests(requests) = self.warm_up else { return self.measured_from() };
        let mut starts: Vec<_> = starts.filter(|start| *start >= self.ramp).collect();
        starts.sort_unstable();
        starts.get(requests).copied()
    }

    /// Returns the share of the load that is asked for at a time of the ramp: 1 after it.
    pub fn ramped(&self, elapsed: Duration) -> f64 {
        match elapsed < self.ramp {
            true => elapsed.as_secs_f64() / self.ramp.as_secs_f64(),
            false => 1.0,
        }
    }

    /// Returns when an arrival comes that would come at `at` without the ramp. The rate grows linearly
    /// over the ramp `R`: until `t`, there are as many arrivals as at the full rate in `t² / 2R`.
    pub fn ramped_arrival(&self, at: Duration) -> Duration {
        let (ramp, seconds) = (self.ramp.as_secs_f64(), at.as_secs_f64());
        match seconds < ramp / 2.0 {
            true => Duration::from_secs_f64((2.0 * ramp * seconds).sqrt()),
            false => at + self.ramp / 2,
        }
    }
}

/// What is not measured and what is, such as `ramp 30 s, warm-up 100 requests, steady state by MSER`.
impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
        let ramp = (!self.ramp.is_zero()).then(|| format!("ramp {}", seconds(self.ramp)));
        let warm_up = match self.warm_up {
            WarmUp::None => None,
            WarmUp::Requests(requests) => Some(format!("warm-up {requests} requests")),
            WarmUp::Time(time) => Some(format!("warm-up {}", seconds(time))),
        };
        let window = match self.window {
            WindowRule::Rest => None,
            WindowRule::Found => Some("steady state by MSER".to_owned()),
            WindowRule::Between(from, None) => Some(format!("measured from {}", seconds(from))),
            WindowRule::Between(from, Some(to)) => {
                Some(format!("measured from {} to {}", seconds(from), seconds(to)))
            }
        };
        let parts: Vec<_> = [ramp, warm_up, window].into_iter().flatten().collect();
        f.write_str(&parts.join(", "))
    }
}

/// The part of a load that was measured. The times count from the start of the load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// The first start that counts.
    pub from: Duration,
    /// The last start that counts.
    pub to: Duration,
}

impl Window {
    /// Returns whether a request that started then counts.
    pub fn holds(&self, begun: Duration) -> bool {
        self.from <= begun && begun <= self.to
    }

    /// Returns its length in seconds.
    pub fn seconds(&self) -> f64 {
        self.to.saturating_sub(self.from).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_of_a_ramp_come_at_a_rate_that_grows_linearly() {
        let phases = Phases { ramp: Duration::from_secs(10), ..Phases::default() };
        let arrival = |at: f64| phases.ramped_arrival(Duration::from_secs_f64(at)).as_secs_f64();
        // At the full rate, half of the ramp's time brings all of its arrivals.
        for (at, ramped) in [(0.0, 0.0), (1.25, 5.0), (5.0, 10.0), (6.0, 11.0), (20.0, 25.0)] {
            assert!((arrival(at) - ramped).abs() < 1e-9, "{at}: {}", arrival(at));
        }
        let warm_up = Phases { warm_up: WarmUp::Requests(2), ..phases };
        let starts = [13, 3, 12, 11, 14].map(Duration::from_secs);
        assert_eq!(warm_up.measured_after(starts.into_iter()), Some(Duration::from_secs(13)));
        assert_eq!(warm_up.measured_after(starts[..3].iter().copied()), None);
        let share = |at| phases.ramped(Duration::from_secs(at));
        assert_eq!((share(0), share(5), share(10), share(20)), (0.0, 0.5, 1.0, 1.0));
        let whole = Phases::default();
        assert_eq!(whole.ramped_arrival(Duration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(whole.ramped(Duration::ZERO), 1.0);
    }
}
