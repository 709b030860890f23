//! The fewest values, or runs of a load, with which a threshold can be decided. Pure.
//!
//! It is computed before the first request: a plan that cannot decide its thresholds is a mistake that
//! takes minutes to notice otherwise.

use crate::{
    comparison::MIN_REQUESTS,
    interval::CONFIDENCE,
    statistic::Statistic,
    threshold::{Against, Operator, Threshold},
};

/// The fewest runs of a load for an interval of a latency. The requests of a run share its queue, so the
/// run is the unit; four runs leave three degrees of freedom.
pub const LOAD_RUNS: usize = 4;

/// The fewest degrees of freedom for the interval of a standard deviation.
const SD_FREEDOM: usize = 7;

/// The side on which an interval has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// The interval needs a lower end: the figure must be at least something.
    Lower,
    /// The interval needs an upper end: the figure must be at most something.
    Upper,
}

impl Bound {
    /// The end that a threshold is held against.
    pub const fn of(comparison: Operator) -> Self {
        match comparison {
            Operator::AtLeast | Operator::Above => Self::Lower,
            Operator::AtMost | Operator::Below => Self::Upper,
        }
    }
}

/// Returns the fewest values that bound the quantile at `part` (0.95 for p95) on one side.
///
/// The largest of `n` values is below the quantile with probability `part`ⁿ, whatever the distribution.
/// It is an upper bound as soon as this is at most half of what the confidence leaves: 72 values for
/// p95, 368 for p99. (David and Nagaraja 2003, "Order Statistics", section 7.1.)
pub fn of_quantile(part: f64, bound: Bound, confidence: f64) -> usize {
    let tail = (1.0 - confidence) / 2.0;
    let beyond = match bound {
        Bound::Upper => part,
        Bound::Lower => 1.0 - part,
    };
    let values = (tail.ln() / beyond.ln()).ceil().max(1.0);
    // Rounding can move the quotient across a whole number.
    let enough = |values: f64| beyond.powf(values) <= tail;
    let values = if enough(values) { values } else { values + 1.0 };
    if values > 1.0 && enough(values - 1.0) { values as usize - 1 } else { values as usize }
}

/// Returns the fewest values with which `statistic` can pass a limit, given that they belong to `strata`
/// prompts.
pub fn of_statistic(statistic: Statistic, strata: usize, bound: Bound, confidence: f64) -> usize {
    match statistic {
        // They describe these requests.
        Statistic::Min | Statistic::Max => 1,
        Statistic::Mean => 2,
        Statistic::Sd => strata.max(1) + SD_FREEDOM,
        Statistic::Median => of_quantile(0.5, bound, confidence),
        Statistic::Percentile(percent) => of_quantile(percent / 100.0, bound, confidence),
    }
}

/// Returns the fewest requests with which a limit on the success rate can pass: as many successful ones
/// as a percentile needs within its limit, and one where no request may fail.
pub fn of_success_rate(threshold: &Threshold, confidence: f64) -> usize {
    let bound = Bound::of(threshold.comparison);
    let allowed = match bound {
        Bound::Lower => 1.0 - threshold.limit / 100.0,
        Bound::Upper => threshold.limit / 100.0,
    };
    match allowed {
        allowed if allowed <= 0.0 || allowed >= 1.0 => 1,
        allowed => of_quantile(1.0 - allowed, Bound::Upper, confidence),
    }
}

/// Returns the fewest requests with which a threshold on a figure of requests can be decided. Those of
/// a relative one are needed in both runs.
pub fn of_threshold(threshold: &Threshold, strata: usize, confidence: f64) -> usize {
    let bound = Bound::of(threshold.comparison);
    if !threshold.is_relative() {
        return of_statistic(threshold.statistic, strata, bound, confidence);
    }
    let is_paired = matches!(threshold.against, Against::Model(_));
    if is_paired && matches!(threshold.statistic, Statistic::Mean | Statistic::Median) {
        return MIN_REQUESTS;
    }
    // A change is bounded by the upper end of one run and the lower end of the other, and the error of
    // each is that of its interval at the default confidence.
    let confidence = CONFIDENCE;
    let both = [Bound::Lower, Bound::Upper];
    let needed = both.map(|bound| of_statistic(threshold.statistic, strata, bound, confidence));
    needed.into_iter().fold(MIN_REQUESTS, usize::max)
}

/// The confidence of each interval if the verdicts are looked at up to `looks` times (Bonferroni).
pub fn confidence_of(looks: usize) -> f64 {
    1.0 - (1.0 - CONFIDENCE) / looks.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str, strata: usize, confidence: f64) -> usize {
        of_threshold(&Threshold::parse(text).unwrap(), strata, confidence)
    }

    #[test]
    fn a_percentile_needs_as_many_values_as_bound_it() {
        for (text, values) in [
            // 0.95^72 = 0.02489 ≤ 0.025 < 0.95^71.
            ("ttft p95 <= 500 ms", 72),
            ("ttft p99 < 500 ms", 368),
            ("ttft p99.9 <= 500 ms", 3_688),
            ("ttft p90 <= 500 ms", 36),
            ("ttft median <= 500 ms", 6),
            ("ttft median >= 500 ms", 6),
            // Two values above it are enough: 0.05² ≤ 0.025.
            ("ttft p95 >= 500 ms", 2),
            ("ttft p5 >= 5 ms", 72),
            ("ttft max <= 500 ms", 1),
            ("ttft <= 500 ms", 2),
            ("ttft sd <= 5 ms", 17),
            ("ttft <= +3 % of baseline", 3),
            ("ttft p95 <= +10 % of baseline", 72),
            ("ttft p95 <= +10 % of old", 72),
            ("ttft median <= +10 % of baseline", 6),
            ("ttft median <= +10 % of old", 3),
        ] {
            assert_eq!(needs(text, 10, CONFIDENCE), values, "{text}");
        }
        // With four looks 98.75 %: 0.95^99 ≤ 0.00625.
        assert_eq!(needs("ttft p95 <= 500 ms", 10, confidence_of(4)), 99);
        assert_eq!((confidence_of(1), confidence_of(0)), (CONFIDENCE, CONFIDENCE));
    }

    #[test]
    fn a_success_rate_needs_as_many_requests_as_a_percentile() {
        for (text, requests) in [
            ("success_rate >= 100 %", 1),
            ("success_rate >= 99 %", 368),
            ("success_rate > 95 %", 72),
            ("success_rate <= 50 %", 6),
        ] {
            let threshold = Threshold::parse(text).unwrap();
            assert_eq!(of_success_rate(&threshold, CONFIDENCE), requests, "{text}");
        }
    }

    #[test]
    fn one_value_less_would_not_bound_the_quantile() {
        for percent in 1..=99 {
            let part = f64::from(percent) / 100.0;
            for confidence in [0.95, 0.99, 0.9875] {
                let tail = (1.0 - confidence) / 2.0;
                let n = of_quantile(part, Bound::Upper, confidence);
                assert!(part.powf(n as f64) <= tail, "{percent} {confidence} {n}");
                assert!(n == 1 || part.powf((n - 1) as f64) > tail, "{percent} {confidence} {n}");
            }
        }
    }
}
