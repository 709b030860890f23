//! Statistics of a list of values, with the number of values that each needs. Pure.

use std::fmt;

/// Why a figure is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// No trial succeeded.
    NoValidTrial {
        /// Trials that failed.
        failed: usize,
    },
    /// The figure needs a load, and the group has none.
    NoLoad,
    /// Some valid requests lack it.
    Lacking {
        /// The number of requests that lack it.
        lack: usize,
        /// The number of requests.
        all: usize,
    },
    /// The statistic describes only its own values, so it cannot be compared with that of other
    /// values.
    DescriptiveOnly,
    /// A ratio of it means nothing, because it is zero or negative.
    NoRatio,
    /// The statistic needs more values.
    TooFew {
        /// The number that it needs.
        needs: usize,
        /// The number that there is.
        has: usize,
    },
    /// The interval of a figure under load needs more runs of the load, because requests that are
    /// in flight together depend on each other.
    TooFewRuns {
        /// The number of runs that it needs.
        needs: usize,
        /// The number that there is.
        has: usize,
    },
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoValidTrial { failed: 0 } => f.write_str("no trial has finished"),
            Self::NoValidTrial { .. } => f.write_str("no trial succeeded"),
            Self::NoLoad => f.write_str("a figure of workloads, and this group has none"),
            Self::DescriptiveOnly => {
                f.write_str("it describes only these requests, like the largest value")
            }
            Self::NoRatio => {
                f.write_str("it is zero or negative, so a relative change means nothing")
            }
            Self::Lacking { lack: 1, all } => write!(f, "1 of {all} has no such figure"),
            Self::Lacking { lack, all } => write!(f, "{lack} of {all} have no such figure"),
            Self::TooFewRuns { needs, has } => {
                write!(f, "needs {needs} runs of the workload, has {has}")
            }
            Self::TooFew { needs, has } => write!(f, "needs n = {needs}, has {has}"),
        }
    }
}

/// A statistic of a figure's values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Statistic {
    /// Arithmetic mean.
    Mean,
    /// The 50th percentile.
    Median,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Sample standard deviation (n − 1). It needs two values.
    Sd,
    /// Percentile, in percent, above 0 and below 100.
    Percentile(f64),
}

impl Statistic {
    /// Parses a name: `mean`, `median`, `min`, `max`, `sd`, `p95`, `p99.9`.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "mean" => Self::Mean,
            "median" => Self::Median,
            "min" => Self::Min,
            "max" => Self::Max,
            "sd" => Self::Sd,
            _ => {
                let digits = name.strip_prefix('p')?;
                if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    return None;
                }
                let percent = digits.parse().ok()?;
                (percent > 0.0 && percent < 100.0).then_some(Self::Percentile(percent))?
            }
        })
    }

    /// Computes the statistic of `values`, in any order.
    pub fn of(self, values: &[f64]) -> Result<f64, Absent> {
        let needs = self.needs();
        if values.len() < needs {
            return Err(Absent::TooFew { needs, has: values.len() });
        }
        Ok(match self {
            Self::Mean => mean(values),
            Self::Median => percentile(values, 50.0),
            Self::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Sd => standard_deviation(values),
            Self::Percentile(percent) => percentile(values, percent),
        })
    }

    /// Computes the statistic of `values`, in any order, also where they are too few to rely on;
    /// `None` without values.
    pub(crate) fn of_few(self, values: &[f64]) -> Option<f64> {
        match self {
            Self::Percentile(percent) if !values.is_empty() => Some(percentile(values, percent)),
            other => other.of(values).ok(),
        }
    }

    /// Computes the statistic of values that are sorted.
    pub fn of_sorted(self, sorted: &[f64]) -> Result<f64, Absent> {
        let percent = match self {
            Self::Median => 50.0,
            Self::Percentile(percent) => percent,
            _ => return self.of(sorted),
        };
        let (needs, has) = (self.needs(), sorted.len());
        if has < needs { Err(Absent::TooFew { needs, has }) } else { Ok(rank(sorted, percent)) }
    }

    /// Returns the number of values that it needs.
    ///
    /// A percentile needs so many values that, with probability 95 %, at least two of them are
    /// further out: 93 for p95, 473 for p99. With fewer it would be the largest value under another
    /// name. The rule is that of MLPerf Inference for early stopping ("Early Stopping Criterion"),
    /// with 95 % instead of 99 %.
    pub fn needs(self) -> usize {
        match self {
            Self::Mean | Self::Median | Self::Min | Self::Max => 1,
            Self::Sd => 2,
            Self::Percentile(percent) => supports(percent.min(100.0 - percent) / 100.0),
        }
    }
}

/// Returns the smallest number of values of which at most one lies within the outer `part` with a
/// probability of at most 5 %.
fn supports(part: f64) -> usize {
    let chance = |n: f64| {
        let none = (n * (-part).ln_1p()).exp();
        none * (1.0 + n * part / (1.0 - part))
    };
    // The probability decreases with n, so a binary search finds the number.
    let (mut low, mut high) = (1_u64, 1_u64 << 40);
    while low < high {
        let middle = low.midpoint(high);
        match chance(middle as f64) <= 0.05 {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    usize::try_from(low).unwrap_or(usize::MAX)
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mean => f.write_str("mean"),
            Self::Median => f.write_str("median"),
            Self::Min => f.write_str("min"),
            Self::Max => f.write_str("max"),
            Self::Sd => f.write_str("sd"),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

/// The mean; not a number if there are no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    // Values that compare equal by `total_cmp` are the same bits, so the order is stable anyway.
    sorted.sort_unstable_by(f64::total_cmp);
    rank(&sorted, percent)
}

/// Interpolates linearly between the closest ranks: definition 7 of Hyndman and Fan (1996), the
/// default of NumPy, R and Excel's `PERCENTILE.INC`.
pub(crate) fn rank(sorted: &[f64], percent: f64) -> f64 {
    let rank = percent / 100.0 * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    low + (high - low) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: [f64; 5] = [40.0, 10.0, 20.0, 50.0, 30.0];

    #[test]
    fn statistics_agree_with_numpy() {
        // numpy: mean, median, std(ddof=1), percentile(75)
        assert_eq!(Statistic::Mean.of(&FIVE), Ok(30.0));
        assert_eq!(Statistic::Median.of(&FIVE), Ok(30.0));
        assert_eq!(Statistic::Min.of(&FIVE), Ok(10.0));
        assert_eq!(Statistic::Max.of(&FIVE), Ok(50.0));
        assert!((Statistic::Sd.of(&FIVE).unwrap() - 15.811_388_300_841_896).abs() < 1e-12);
        assert_eq!(percentile(&FIVE, 75.0), 40.0);
        assert_eq!(Statistic::Median.of(&[1.0, 2.0]), Ok(1.5));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((Statistic::Percentile(95.0).of(&hundred).unwrap() - 95.05).abs() < 1e-9);
        assert!((percentile(&hundred, 99.0) - 99.01).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_that_the_sample_cannot_support_is_refused() {
        for (name, needs) in
            [("p50", 8), ("p90", 46), ("p95", 93), ("p99", 473), ("p99.9", 4742), ("p5", 93)]
        {
            assert_eq!(Statistic::by_name(name).unwrap().needs(), needs, "{name}");
        }
        let p95 = Statistic::Percentile(95.0);
        assert_eq!(p95.of(&FIVE), Err(Absent::TooFew { needs: 93, has: 5 }));
        assert_eq!(Statistic::Sd.of(&[1.0]), Err(Absent::TooFew { needs: 2, has: 1 }));
        assert_eq!(Statistic::Mean.of(&[]), Err(Absent::TooFew { needs: 1, has: 0 }));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["mean", "median", "min", "max", "sd", "p5", "p95", "p99.9"] {
            assert_eq!(Statistic::by_name(name).unwrap().to_string(), name);
        }
        for name in ["", "p", "p0", "p100", "p-5", "p1e1", "p9..5", "pinf", "average", "P95"] {
            assert_eq!(Statistic::by_name(name), None, "{name}");
        }
    }
}
