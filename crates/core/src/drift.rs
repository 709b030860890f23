//! Tests whether a figure drifted while it was measured. Pure.
//!
//! Each value is divided by the mean of its prompt, so that prompts of different length are one
//! series. The series is cut into blocks: the runs, or pieces of equal length if there are few runs. A
//! least-squares line is fitted to the means of the blocks, and Student's t tests its slope with two
//! degrees of freedom less than blocks (Draper and Smith 1998, "Applied Regression Analysis", section
//! 1.4).
//!
//! The block is the unit, not the request: neighbouring requests share the state of the server, and a
//! test that takes them for independent finds a drift in every slow fluctuation.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{
    interval::{CONFIDENCE, Interval, StratifiedSample},
    statistic::{Absent, mean},
};

/// The significance level of a drift. A twentieth of false alarms is the most that a line in a report
/// should have; a little less finds a drift of a fifth in 95 % of series of eight runs.
const SIGNIFICANT: f64 = 0.04;

/// The fewest blocks: three degrees of freedom. From this number of runs on, runs are the blocks.
const MIN_BLOCKS: usize = 5;

/// The number of blocks with fewer runs than that.
const PIECES: usize = 10;

/// The fewest values of a piece.
const MIN_PIECE: usize = 2;

/// The change of a figure over a series of requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// The change along the fitted line from the first block to the last, as a part of the first.
    pub relative: f64,
    /// The 95 % interval of the change.
    pub interval: Interval,
    /// The p value of the slope, two-sided.
    pub p: f64,
    /// The number of blocks.
    pub blocks: usize,
}

impl Drift {
    /// Fits a line to values in order of time; `runs` has the run of each.
    ///
    /// Prompts that were asked once say nothing about a drift and are left out.
    pub fn of(sample: StratifiedSample<'_>, runs: &[u32]) -> Result<Self, Absent> {
        let (series, prompts) = relative_to_prompts(sample, runs);
        if let Some(means) = means_of_runs(&series) {
            return Ok(Self::along(&means, 1.0));
        }
        let means = means_of_pieces(&series);
        if means.len() < MIN_BLOCKS {
            return Err(Absent::TooFew { needs: MIN_BLOCKS * MIN_PIECE, has: series.len() });
        }
        // Each prompt's mean takes a degree of freedom. Runs, which have every prompt, lose none.
        let n = series.len() as f64;
        Ok(Self::along(&means, n / (n - prompts as f64)))
    }

    /// Fits a line to the means of blocks, whose variance is underestimated by the factor `lost`.
    fn along(means: &[f64], lost: f64) -> Self {
        let n = means.len() as f64;
        let last = n - 1.0;
        let (center, mean) = (last / 2.0, mean(means));
        let times = || (0_u32..).map(|nth| f64::from(nth) - center);
        let sum_of = |terms: &dyn Fn(f64, f64) -> f64| -> f64 {
            times().zip(means).map(|(time, value)| terms(time, value - mean)).sum()
        };
        let spread = sum_of(&|time, _| time * time);
        let slope = sum_of(&|time, value| time * value) / spread;
        let residuals = sum_of(&|time, value| (value - slope * time).powi(2));
        let error = (lost * residuals / (n - 2.0) / spread).sqrt();
        let t = StudentsT::new(0.0, 1.0, n - 2.0).ok();
        let p = match slope / error {
            // Without noise a slope is certain, and none is none.
            _ if slope == 0.0 => 1.0,
            ratio if ratio.is_infinite() => 0.0,
            ratio => t.as_ref().map_or(1.0, |t| 2.0 * t.sf(ratio.abs())),
        };
        let quantile =
            t.as_ref().map_or(f64::NAN, |t| t.inverse_cdf(f64::midpoint(1.0, CONFIDENCE)));
        // The change as a part of the mean, and then as a part of the line's start.
        let of_mean = |slope: f64| slope * last / mean;
        let of_start =
            |change: f64| if change < 2.0 { change / (1.0 - change / 2.0) } else { f64::INFINITY };
        let relative = |slope: f64| of_start(of_mean(slope));
        let interval = Interval {
            low: relative(slope - quantile * error),
            high: relative(slope + quantile * error),
        };
        Self { relative: relative(slope), interval, p, blocks: means.len() }
    }

    /// Returns whether the change is more than chance.
    pub fn is_significant(&self) -> bool {
        self.p < SIGNIFICANT
    }
}

/// Each value as a part of the mean of its prompt, with its run, in order of time; and the number of
/// these prompts.
fn relative_to_prompts(sample: StratifiedSample<'_>, runs: &[u32]) -> (Vec<(u32, f64)>, usize) {
    let stratum = |nth: usize| sample.strata.get(nth).copied().unwrap_or_default();
    let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (nth, value) in sample.values.iter().enumerate() {
        let (sum, count) = sums.entry(stratum(nth)).or_default();
        *sum += value;
        *count += 1.0;
    }
    let relative = |((nth, value), run): ((usize, &f64), &u32)| {
        let (sum, count) = sums[&stratum(nth)];
        let mean = sum / count;
        (count > 1.0 && mean > 0.0).then_some((*run, value / mean))
    };
    let series = sample.values.iter().enumerate().zip(runs).filter_map(relative).collect();
    (series, sums.values().filter(|(_, count)| *count > 1.0).count())
}

/// The mean of each run; `None` if these are too few.
fn means_of_runs(series: &[(u32, f64)]) -> Option<Vec<f64>> {
    let mut by_run: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    series.iter().for_each(|(run, value)| by_run.entry(*run).or_default().push(*value));
    (by_run.len() >= MIN_BLOCKS).then(|| by_run.values().map(|values| mean(values)).collect())
}

/// The means of pieces of equal length.
fn means_of_pieces(series: &[(u32, f64)]) -> Vec<f64> {
    let values: Vec<_> = series.iter().map(|(_, value)| *value).collect();
    let pieces = PIECES.min(values.len() / MIN_PIECE);
    let cut = |piece: usize| piece * values.len() / pieces;
    (0..pieces).map(|nth| mean(&values[cut(nth)..cut(nth + 1)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_fitted_as_in_r() {
        // R: x <- 0:5; summary(lm(c(1, 1.02, 1.01, 1.05, 1.04, 1.08) ~ x)): slope 0.01428571, standard
        // error 0.003299144, p 0.01234848.
        let drift = Drift::along(&[1.0, 1.02, 1.01, 1.05, 1.04, 1.08], 1.0);
        assert!((drift.p - 0.012_348_48).abs() < 1e-7, "{drift:?}");
        // From 0.997619 to 1.069048.
        assert!((drift.relative - 0.071_599).abs() < 1e-5, "{drift:?}");
        assert!(drift.interval.low > 0.0 && drift.is_significant(), "{drift:?}");
    }

    #[test]
    fn a_series_without_noise_has_a_certain_verdict() {
        let flat = Drift::along(&[1.0; 8], 1.0);
        assert_eq!((flat.relative, flat.p), (0.0, 1.0));
        let steep = Drift::along(&[1.0, 1.25, 1.5, 1.75, 2.0], 1.0);
        assert!((steep.relative - 1.0).abs() < 1e-9 && steep.p < 1e-9, "{steep:?}");
    }

    #[test]
    fn prompts_that_were_asked_once_do_not_count() {
        let of = |values: &[f64], strata: &[u32], runs: &[u32]| {
            Drift::of(StratifiedSample { values, strata }, runs)
        };
        let ten: Vec<_> = (1..=10).map(f64::from).collect();
        let prompts: Vec<_> = (0..10).collect();
        assert_eq!(of(&ten, &prompts, &[1; 10]), Err(Absent::TooFew { needs: 10, has: 0 }));
        // Five runs of two prompts whose lengths differ by a factor of ten.
        let runs: Vec<_> = (1..=5).flat_map(|run| [run, run]).collect();
        let strata = [0, 1, 1, 0, 0, 1, 1, 0, 0, 1];
        let value =
            |nth: usize| (1.0 + 9.0 * f64::from(strata[nth])) * (1.0 + 0.01 * f64::from(runs[nth]));
        let values: Vec<_> = (0..10).map(value).collect();
        let drift = of(&values, &strata, &runs).unwrap();
        assert!((drift.relative - 0.04 / 1.01).abs() < 1e-9 && drift.is_significant(), "{drift:?}");
    }

    mod simulations {
        use rand::{SeedableRng as _, seq::SliceRandom as _};
        use rand_distr::{Distribution as _, Normal};
        use rand_pcg::Pcg64Mcg;

        use super::*;

        /// The share of `times` series, in percent, with a significant drift. In each of `runs` rounds
        /// every prompt is asked once, in random order. The noise of a request is normal; over the series
        /// values grow linearly by `drift`.
        fn found((runs, prompts): (u32, u32), noise: f64, drift: f64, times: u64) -> f64 {
            let found = (0..times).filter(|seed| {
                let mut random = Pcg64Mcg::seed_from_u64(*seed);
                let normal = Normal::new(1.0, noise).unwrap();
                let mut order: Vec<u32> = (0..prompts).collect();
                let (mut values, mut strata, mut of_runs) = (vec![], vec![], vec![]);
                for run in 1..=runs {
                    order.shuffle(&mut random);
                    for prompt in &order {
                        let time = values.len() as f64 / f64::from(runs * prompts - 1);
                        let level = f64::from(20 * (prompt + 1)) * (1.0 + drift * time);
                        values.push(level * normal.sample(&mut random));
                        strata.push(*prompt);
                        of_runs.push(run);
                    }
                }
                let sample = StratifiedSample { values: &values, strata: &strata };
                Drift::of(sample, &of_runs).unwrap().is_significant()
            });
            100.0 * found.count() as f64 / times as f64
        }

        #[test]
        fn a_drift_of_a_fifth_is_found_in_eight_runs() {
            assert!(found((8, 10), 0.1, 0.2, 200) >= 95.0);
            assert!(found((8, 10), 0.1, 0.0, 200) <= 5.0);
        }

        #[test]
        #[ignore = "2,000 series in each row"]
        fn drifts_that_are_found_and_false_alarms() {
            let mut table = String::from("runs prompts noise   0 %   5 %  10 %  20 %\n");
            for (runs, prompts, noise) in [
                (3, 10, 0.1),
                (3, 10, 0.05),
                (5, 10, 0.1),
                (8, 1, 0.1),
                (8, 1, 0.03),
                (8, 3, 0.05),
                (8, 10, 0.1),
                (8, 10, 0.2),
                (8, 50, 0.2),
                (20, 10, 0.1),
                (30, 1, 0.1),
            ] {
                let cells = [0.0, 0.05, 0.1, 0.2]
                    .map(|drift| format!("{:>6.1}", found((runs, prompts), noise, drift, 2_000)));
                table.push_str(&format!("{runs:>4} {prompts:>7} {noise:>5}{}\n", cells.concat()));
                assert!(cells[0].trim().parse::<f64>().unwrap() <= 5.0, "{table}");
            }
            println!("{table}");
            assert!(found((8, 10), 0.1, 0.2, 2_000) >= 95.0, "{table}");
        }
    }
}
