//! Tests whether a figure has changed since an earlier run. Pure and seeded.
//!
//! Prompts are strata: a change is compared with the noise within a prompt, not with the difference
//! between short and long prompts. The rank test therefore divides each value by the median of its
//! prompt over both runs (aligned ranks, Hodges and Lehmann 1962).

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, Normal};

use crate::{
    interval::{self, Interval, StratifiedSample},
    statistic::{Absent, Statistic},
};

/// The significance level of a change.
pub const SIGNIFICANT: f64 = 0.01;

/// The fewest values of a run for which the rank test can reach that level.
const FEWEST: usize = 5;

/// A figure in two runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The statistic of the earlier run.
    pub before: f64,
    /// The statistic of this run.
    pub now: f64,
    /// `now / before − 1`.
    pub relative: f64,
    /// The interval of the relative change, 95 % by default.
    pub interval: Interval,
    /// Further evidence of a change.
    pub evidence: Evidence,
}

/// The evidence of a change besides the interval of the statistic itself. A change is significant
/// only if both agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Evidence {
    /// For a mean or median: a shift of all requests.
    RankTest {
        /// The p value of the rank test (Mann and Whitney 1947, two-sided, normal approximation
        /// with ties).
        p: f64,
        /// The 95 % interval of the relative difference of medians.
        medians: Interval,
    },
    /// For a percentile or the standard deviation, which can change while ranks and medians do not:
    /// the interval of the relative change at the confidence of [`SIGNIFICANT`].
    Interval(Interval),
}

impl Change {
    /// Computes the change of `statistic`. It is an error if a run has too few values or the
    /// earlier statistic is zero.
    pub fn of(
        statistic: Statistic,
        before: StratifiedSample<'_>,
        now: StratifiedSample<'_>,
        confidence: f64,
    ) -> Result<Self, Absent> {
        for sampled in [before, now] {
            let has = sampled.values.len();
            if has < FEWEST {
                return Err(Absent::TooFew { needs: FEWEST, has });
            }
        }
        // A ratio needs a positive divisor.
        let (old, new) = (statistic.of(before.values)?, statistic.of(now.values)?);
        if old <= 0.0 {
            return Err(Absent::Lacking { lack: 1, all: 1 });
        }
        let interval = interval::of_ratio(statistic, now, before, confidence)?;
        // The rank test resists outliers, which dominate the interval of a mean. It cannot see a
        // change in the tail, so percentiles and spread have a stricter interval instead.
        let evidence = match statistic {
            Statistic::Mean | Statistic::Median => shift(before, now)?,
            _ => {
                let sure = interval::of_ratio(statistic, now, before, 1.0 - SIGNIFICANT)?;
                Evidence::Interval(less_one(sure))
            }
        };
        let (relative, interval) = (new / old - 1.0, less_one(interval));
        Ok(Self { before: old, now: new, relative, interval, evidence })
    }

    /// Returns whether the change is significant, by the statistic itself and by its further
    /// evidence.
    pub fn is_significant(&self) -> bool {
        let by_evidence = match self.evidence {
            Evidence::RankTest { p, medians } => p < SIGNIFICANT && !medians.holds(0.0),
            Evidence::Interval(sure) => !sure.holds(0.0),
        };
        by_evidence && !self.interval.holds(0.0)
    }

    /// Returns whether both runs have enough requests to bound the change on both sides.
    pub fn is_bounded(&self) -> bool {
        // A change of −100 % is not a bound, because figures are not negative.
        let is_finite = |of: &Interval| of.low > -1.0 && of.high.is_finite();
        let by_evidence = match &self.evidence {
            Evidence::RankTest { .. } => true,
            Evidence::Interval(sure) => is_finite(sure),
        };
        by_evidence && is_finite(&self.interval)
    }

    /// Returns how many times as many requests would make the change significant. The width of an
    /// interval is assumed to shrink with the square root of the number of requests, and the z
    /// value of the rank test to grow with it.
    pub fn times_to_significance(&self) -> f64 {
        let of = |Interval { low, high }: Interval| {
            let (center, half) = (f64::midpoint(low, high), (high - low) / 2.0);
            (half / center).powi(2)
        };
        let own = of(self.interval);
        match self.evidence {
            Evidence::Interval(sure) => own.max(of(sure)),
            Evidence::RankTest { p, medians } => {
                let z = |p: f64| Normal::standard().inverse_cdf(p / 2.0);
                let ranks = (z(SIGNIFICANT) / z(p.max(f64::MIN_POSITIVE))).powi(2);
                own.max(of(medians)).max(ranks)
            }
        }
    }
}

fn less_one(Interval { low, high }: Interval) -> Interval {
    Interval { low: low - 1.0, high: high - 1.0 }
}

fn shift(before: StratifiedSample<'_>, now: StratifiedSample<'_>) -> Result<Evidence, Absent> {
    let (aligned_before, aligned_now) = aligned(before, now);
    let medians = interval::of_ratio(
        Statistic::Median,
        StratifiedSample { values: &aligned_now, strata: now.strata },
        StratifiedSample { values: &aligned_before, strata: before.strata },
        // The confidence is fixed, because it is part of the test and not of the report.
        interval::CONFIDENCE,
    )?;
    let p = mann_whitney(&aligned_before, &aligned_now);
    Ok(Evidence::RankTest { p, medians: less_one(medians) })
}

/// Divides each value by the median of its stratum over both runs.
fn aligned(before: StratifiedSample<'_>, now: StratifiedSample<'_>) -> (Vec<f64>, Vec<f64>) {
    let stratum = |sampled: StratifiedSample<'_>, nth: usize| sampled.strata.get(nth).copied();
    let mut both: BTreeMap<Option<u32>, Vec<f64>> = BTreeMap::new();
    for sampled in [before, now] {
        for (nth, value) in sampled.values.iter().enumerate() {
            both.entry(stratum(sampled, nth)).or_default().push(*value);
        }
    }
    let median = |values: Vec<f64>| Statistic::Median.of(&values).unwrap_or(1.0);
    let centers: BTreeMap<_, _> =
        both.into_iter().map(|(of, values)| (of, median(values))).collect();
    let align = |sampled: StratifiedSample<'_>| {
        let value = |(nth, value): (usize, &f64)| match centers[&stratum(sampled, nth)] {
            0.0 => *value,
            center => value / center,
        };
        sampled.values.iter().enumerate().map(value).collect()
    };
    (align(before), align(now))
}

/// Returns the two-sided p value of the rank sum.
fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<_> =
        a.iter().map(|value| (*value, true)).chain(b.iter().map(|value| (*value, false))).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (mut rank_sum, mut ties, mut from) = (0.0, 0.0, 0);
    for tied in all.chunk_by(|x, y| x.0 == y.0) {
        let count = tied.len() as f64;
        // Ranks count from 1. Equal values get their mean rank.
        let rank = from as f64 + (count + 1.0) / 2.0;
        rank_sum += rank * tied.iter().filter(|(_, of_a)| *of_a).count() as f64;
        ties += count.powi(3) - count;
        from += tied.len();
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let all = n + m;
    let u = rank_sum - n * (n + 1.0) / 2.0;
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    // The continuity correction: ranks are whole numbers.
    let z = ((u - n * m / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    2.0 * Normal::standard().sf(z)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(values: &[f64]) -> StratifiedSample<'_> {
        StratifiedSample { values, strata: &[] }
    }

    #[test]
    fn ranks_are_summed_up() {
        // U = 1 of 12.5 ± 4.787, so z = (11.5 − 0.5) / 4.787.
        let p = mann_whitney(&[1.0, 2.0, 3.0, 4.0, 5.0], &[4.5, 6.0, 7.0, 8.0, 9.0]);
        assert!((p - 0.021_572).abs() < 5e-5, "{p}");
        assert_eq!(mann_whitney(&[1.0; 6], &[1.0; 6]), 1.0);
    }

    #[test]
    fn a_clear_change_is_significant_and_an_unchanged_run_is_not() {
        let before: Vec<_> = (0..30).map(|nth| 100.0 + f64::from(nth % 7)).collect();
        let slower: Vec<_> = before.iter().map(|value| value * 0.9).collect();
        let of = |now: &[f64]| {
            Change::of(Statistic::Mean, sampled(&before), sampled(now), 0.95).unwrap()
        };
        let change = of(&slower);
        assert!((change.relative + 0.1).abs() < 1e-12);
        assert!(change.interval.low < -0.1 && change.interval.high > -0.1);
        assert!(change.is_significant());
        assert!(!of(&before).is_significant());
    }

    #[test]
    fn a_tail_that_grows_is_seen_where_ranks_and_medians_see_nothing() {
        use rand::SeedableRng;
        use rand_distr::{Distribution, Normal};

        let noise: Normal<f64> = Normal::new(30.0, 1.0).unwrap();
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let mut run = |late: f64| -> Vec<f64> {
            let value = |nth: u32| {
                noise.sample(&mut random) + if nth.is_multiple_of(10) { late } else { 0.0 }
            };
            (0..200).map(value).collect()
        };
        for statistic in [Statistic::Percentile(90.0), Statistic::Percentile(95.0), Statistic::Sd] {
            let mut found = [0, 0];
            for _ in 0..200 {
                let (before, same, late) = (run(0.0), run(0.0), run(100.0));
                for (now, found) in [&same, &late].into_iter().zip(&mut found) {
                    let of = Change::of(statistic, sampled(&before), sampled(now), 0.95).unwrap();
                    *found += usize::from(of.is_significant() && of.relative > 0.0);
                    if now == &late && statistic != Statistic::Percentile(90.0) {
                        assert!(of.is_significant() && of.relative > 1.0, "{statistic} {of:?}");
                    }
                }
            }
            assert!(found[0] <= 4, "{statistic}: {found:?}");
        }
        let (before, late) = (run(0.0), run(100.0));
        let mean = Change::of(Statistic::Mean, sampled(&before), sampled(&late), 0.95).unwrap();
        assert!(!mean.is_significant(), "a slow tenth does not shift all ranks: {mean:?}");
    }

    #[test]
    fn the_weakest_evidence_determines_the_distance_to_significance() {
        let of = |interval: f64, evidence| Change {
            before: 1.0,
            now: 1.1,
            relative: 0.1,
            interval: Interval { low: 0.1 - interval, high: 0.1 + interval },
            evidence,
        };
        let medians = |half: f64| Interval { low: 0.1 - half, high: 0.1 + half };
        let shift = |p, half| Evidence::RankTest { p, medians: medians(half) };
        let times = |interval, evidence| of(interval, evidence).times_to_significance();
        assert!((times(0.2, shift(1e-9, 0.05)) - 4.0).abs() < 1e-9);
        assert!((times(0.05, shift(1e-9, 0.3)) - 9.0).abs() < 1e-9);
        // 2.576 instead of 1.96 standard errors.
        assert!((times(0.05, shift(0.05, 0.05)) - 1.727).abs() < 1e-3);
        assert!(times(0.05, shift(1.0, 0.05)) > 1e9);
        assert!((times(0.05, Evidence::Interval(medians(0.2))) - 4.0).abs() < 1e-9);
        // The fewest values that p95 accepts do not bound it at the confidence of significance.
        let some: Vec<_> = (0..93).map(f64::from).map(|nth| 1.0 + nth).collect();
        let many: Vec<_> = (0..200).map(f64::from).map(|nth| 1.0 + nth).collect();
        let p95 = |before: &[f64], now: &[f64]| {
            Change::of(Statistic::Percentile(95.0), sampled(before), sampled(now), 0.95).unwrap()
        };
        assert!(!p95(&some, &many).is_bounded() && !p95(&many, &some).is_bounded());
        assert!(p95(&many, &many).is_bounded());
    }

    #[test]
    fn a_change_is_seen_behind_the_difference_between_prompts() {
        let strata: Vec<u32> = (0..30).map(|nth| nth % 10).collect();
        let of_prompt = |stratum: u32, noise: f64| 10.0_f64.powi(stratum as i32) * (1.0 + noise);
        let noise = |nth: usize| ((nth * 7) % 11) as f64 / 1000.0;
        let before: Vec<_> =
            strata.iter().enumerate().map(|(nth, s)| of_prompt(*s, noise(nth))).collect();
        let now: Vec<_> = before.iter().map(|value| value * 1.05).collect();
        let of = |values| StratifiedSample { values, strata: &strata };
        let change = Change::of(Statistic::Median, of(&before), of(&now), 0.95).unwrap();
        assert!(change.is_significant(), "{change:?}");
        let few = Change::of(Statistic::Mean, of(&before[..4]), of(&now), 0.95);
        assert_eq!(few, Err(Absent::TooFew { needs: 5, has: 4 }));
    }
}
