//! How precisely a mean is to be known, and how precisely it is. Pure.

use crate::{
    metric::Metric,
    statistic::{Absent, Statistic},
    summary::{Estimate, Group},
};

/// A goal: the interval of a mean is within ± `share` of the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionGoal {
    /// The metric.
    pub metric: &'static Metric,
    /// The largest distance from the mean to an end of its interval, as a part of the mean.
    pub share: f64,
}

/// How precisely a mean is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Precision {
    /// The goal.
    pub goal: PrecisionGoal,
    /// The distance from the mean to the farther end of its interval, as a part of the mean; or why
    /// the figure has no interval.
    pub share: Result<f64, Absent>,
}

impl PrecisionGoal {
    /// The figures of a goal that names none.
    pub const FIGURES: [&'static Metric; 3] =
        [Metric::TTFT, Metric::TPOT, Metric::GENERATION_SPEED];

    /// Compares the group's interval with the goal.
    pub fn measure(self, group: &Group, confidence: f64) -> Precision {
        let estimate = group.estimate(self.metric, Statistic::Mean, confidence);
        Precision { goal: self, share: estimate.and_then(|estimate| half_width(&estimate)) }
    }
}

/// The distance from the mean to the farther end of its interval, as a part of the mean.
fn half_width(estimate: &Estimate) -> Result<f64, Absent> {
    let interval = estimate.interval?.ok_or(Absent::DescriptiveOnly)?;
    let value = estimate.value;
    Ok((interval.high - value).max(value - interval.low) / value.abs())
}

impl Precision {
    /// Returns whether the goal is reached.
    pub fn is_reached(&self) -> bool {
        self.share.is_ok_and(|share| share <= self.goal.share)
    }

    /// Returns how many times as many requests reach the goal, if more requests can. The interval is
    /// assumed to shrink with the square root of their number.
    pub fn times_needed(&self) -> Option<f64> {
        match self.share {
            Ok(_) if self.is_reached() => None,
            // Without noise but with a mean of zero, the share is not a number.
            Ok(share) if share.is_nan() => None,
            Ok(share) => Some((share / self.goal.share).powi(2)),
            Err(Absent::TooFew { needs, has }) => Some(needs as f64 / has.max(1) as f64),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::Interval;

    fn precision(share: Result<f64, Absent>) -> Precision {
        Precision { goal: PrecisionGoal { metric: Metric::TTFT, share: 0.02 }, share }
    }

    #[test]
    fn the_farther_end_of_the_interval_counts() {
        let interval = Ok(Some(Interval { low: 97.0, high: 102.0 }));
        let estimate = Estimate { value: 100.0, interval, n: 9, mean_error: None };
        assert!((half_width(&estimate).unwrap() - 0.03).abs() < 1e-12);
        let few = Absent::TooFew { needs: 4, has: 1 };
        assert_eq!(half_width(&Estimate { interval: Err(few), ..estimate }), Err(few));
    }

    #[test]
    fn twice_as_wide_an_interval_needs_four_times_the_requests() {
        let near = |times: Option<f64>, expected: f64| (times.unwrap() - expected).abs() < 1e-9;
        assert!(near(precision(Ok(0.04)).times_needed(), 4.0));
        assert!(near(precision(Err(Absent::TooFew { needs: 4, has: 1 })).times_needed(), 4.0));
        assert!(precision(Ok(0.02)).is_reached() && precision(Ok(0.02)).times_needed().is_none());
        assert_eq!(precision(Ok(f64::NAN)).times_needed(), None);
        let absent = precision(Err(Absent::Lacking { lack: 3, all: 3 }));
        assert!(!absent.is_reached() && absent.times_needed().is_none());
    }
}
