//! Confidence intervals of a statistic, given that the requests are a sample. Pure and seeded: the
//! same values give the same interval.
//!
//! The unit of replication is the request, never the token, because the gaps within an answer
//! depend on each other. Prompts are strata: each prompt is sent a fixed number of times, so the
//! difference between a long and a short prompt is not random.
//!
//! Means and medians use a stratified bootstrap (Efron 1979) with one draw less than a stratum has
//! values. With as many draws as values, the variance of the resamples would be too small, by a
//! third for three runs (Rao and Wu 1988). Samples of few values have heavier tails than the normal
//! distribution, so the percentiles are expanded by Student's t (Hesterberg 2015, "What Teachers
//! Should Know About the Bootstrap", section 3.3).
//!
//! Two cases do without the bootstrap. With fewer than `MIN_BOOTSTRAP_FREEDOM` degrees of freedom it
//! underestimates the variance, so the interval is Student's, which assumes normal values. With
//! more than `MAX_BOOTSTRAP_VALUES` values, Student's interval of the mean (central limit theorem) and the rank
//! interval of the median are as good and cost a hundredth of the time.
//!
//! The bootstrap is poor for percentiles and standard deviations. A percentile gets the interval
//! between order statistics, which holds for every distribution (David and Nagaraja 2003, section
//! 7.1). A standard deviation gets the interval of Bonett (2006, "Approximate confidence interval
//! for standard deviation of nonnormal distributions"), which accounts for heavy tails.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

use crate::statistic::{Absent, Statistic};

/// The default confidence.
pub const CONFIDENCE: f64 = 0.95;

/// The fewest degrees of freedom for the bootstrap: values minus strata.
const MIN_BOOTSTRAP_FREEDOM: usize = 7;

/// The most values for the bootstrap. With more it is slow and not more accurate.
const MAX_BOOTSTRAP_VALUES: usize = 1_000;

/// The ratio of the standard errors of median and mean for normal values: √(π / 2).
const MEDIAN_ERROR_RATIO: f64 = 1.253_314_137_315_5;

/// The number of resamples; below, the most values that all resamples together draw.
const RESAMPLES: usize = 2_000;
const DRAWS: usize = 20_000_000;

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Returns whether `value` lies in the interval.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Returns the interval extended by `error` at both ends.
    #[must_use]
    pub fn widened(self, error: f64) -> Self {
        Self { low: self.low - error, high: self.high + error }
    }
}

/// Values with the stratum of each.
#[derive(Debug, Clone, Copy)]
pub struct StratifiedSample<'a> {
    /// The values.
    pub values: &'a [f64],
    /// The stratum of each value; empty for values without strata.
    pub strata: &'a [u32],
}

/// Returns the interval of `statistic`. It is `None` for a statistic that only describes the given
/// values, such as the largest, and an error for too few values.
pub fn of(
    statistic: Statistic,
    sample: StratifiedSample<'_>,
    confidence: f64,
) -> Result<Option<Interval>, Absent> {
    statistic.of(sample.values)?;
    match statistic {
        Statistic::Min | Statistic::Max => Ok(None),
        Statistic::Percentile(percent) => {
            Ok(Some(of_quantile(sample.values, percent / 100.0, confidence)))
        }
        // Strata only make the interval narrower, so ignoring them is conservative.
        Statistic::Median if sample.values.len() > MAX_BOOTSTRAP_VALUES => {
            Ok(Some(of_quantile(sample.values, 0.5, confidence)))
        }
        Statistic::Sd => of_sd(sample.values, confidence).map(Some),
        Statistic::Mean | Statistic::Median => {
            let strata = Strata::of(sample);
            if strata.freedom() < MIN_BOOTSTRAP_FREEDOM
                || sample.values.len() > MAX_BOOTSTRAP_VALUES
            {
                return strata.student(statistic, sample.values, confidence).map(Some);
            }
            let tail = expanded((1.0 - confidence) / 2.0, strata.freedom());
            Ok(Some(between(strata.resamples(statistic, 0), tail)))
        }
    }
}

/// Returns the interval of the ratio of `above` to `below` for two independent samples. Means and
/// medians are bootstrapped together; other statistics combine their two intervals.
pub fn of_ratio(
    statistic: Statistic,
    above: StratifiedSample<'_>,
    below: StratifiedSample<'_>,
    confidence: f64,
) -> Result<Interval, Absent> {
    let are_many = above.values.len().min(below.values.len()) > MAX_BOOTSTRAP_VALUES;
    match statistic {
        Statistic::Mean | Statistic::Median if !are_many => {
            bootstrap_ratio(statistic, above, below, confidence)
        }
        _ => {
            let with_interval = |sample: StratifiedSample<'_>| {
                let interval = of(statistic, sample, confidence)?.ok_or(Absent::DescriptiveOnly)?;
                Ok((statistic.of(sample.values)?, interval))
            };
            Ok(ratio_of_intervals(with_interval(above)?, with_interval(below)?))
        }
    }
}

/// Combines the intervals of two independent parts into an interval of their ratio ("MOVER", Zou
/// and Donner 2008). On the logarithmic scale, the distance from the estimate to each end of an
/// interval stands for a standard error, and independent standard errors add up in quadrature. The
/// lower end of the ratio comes from the lower end of `above` and the upper end of `below`.
fn ratio_of_intervals(
    (above, of_above): (f64, Interval),
    (below, of_below): (f64, Interval),
) -> Interval {
    let ratio = above / below;
    let side = |outer: f64, from: f64| (outer.max(0.0) / from).ln();
    let down = side(of_above.low, above).hypot(side(of_below.high, below));
    let up = side(of_above.high, above).hypot(side(of_below.low, below));
    Interval { low: ratio * (-down).exp(), high: ratio * up.exp() }
}

fn bootstrap_ratio(
    statistic: Statistic,
    above: StratifiedSample<'_>,
    below: StratifiedSample<'_>,
    confidence: f64,
) -> Result<Interval, Absent> {
    let (upper, lower) = (Strata::of(above), Strata::of(below));
    let ratio = statistic.of(above.values)? / statistic.of(below.values)?;
    let freedom = upper.freedom().min(lower.freedom());
    let tail = (1.0 - confidence) / 2.0;
    if freedom < MIN_BOOTSTRAP_FREEDOM {
        // The relative variances add up if they are small (delta method).
        let relative = |strata: &Strata, values: &[f64]| {
            let mean = Statistic::Mean.of(values).unwrap_or(f64::NAN);
            strata.variance_of_mean() / mean.powi(2)
        };
        let variance = relative(&upper, above.values) + relative(&lower, below.values);
        let freedom = freedom.max(1) as f64;
        let t = StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| t.inverse_cdf(tail));
        // The delta method gives the ratio of means; medians vary more.
        let times = if statistic == Statistic::Median { MEDIAN_ERROR_RATIO } else { 1.0 };
        let half = t.abs() * times * ratio * variance.sqrt();
        return Ok(Interval { low: ratio - half, high: ratio + half });
    }
    // Different seeds: the two samples are independent.
    let pairs = upper.resamples(statistic, 1).into_iter().zip(lower.resamples(statistic, 2));
    let ratios = pairs.map(|(above, below)| above / below).collect();
    let freedom = upper.freedom() + lower.freedom();
    Ok(between(ratios, expanded(tail, freedom)))
}

/// Returns the interval that leaves out the share `tail` of the resamples at either end.
fn between(mut resamples: Vec<f64>, tail: f64) -> Interval {
    // A resample of the divisor can be zero, which says nothing about the ratio.
    resamples.retain(|value| value.is_finite());
    resamples.sort_by(f64::total_cmp);
    let Some(last) = resamples.len().checked_sub(1) else {
        return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
    };
    let at = |part: f64| resamples[((part * last as f64).round() as usize).min(last)];
    Interval { low: at(tail), high: at(1.0 - tail) }
}

/// Values grouped by stratum. Strata with a single value form one stratum together.
struct Strata {
    values: Vec<Vec<f64>>,
}

impl Strata {
    fn of(StratifiedSample { values, strata }: StratifiedSample<'_>) -> Self {
        let mut by_stratum: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (nth, value) in values.iter().enumerate() {
            // Values without strata form one stratum.
            let stratum = strata.get(nth).copied().unwrap_or_default();
            by_stratum.entry(stratum).or_default().push(*value);
        }
        // A stratum with one value has no variance. Together, such strata show the variance between
        // prompts, which overestimates the noise and is therefore conservative.
        let (alone, mut several): (Vec<_>, Vec<_>) =
            by_stratum.into_values().partition(|values| values.len() == 1);
        if !alone.is_empty() {
            several.push(alone.into_iter().flatten().collect());
        }
        Self { values: several }
    }

    fn freedom(&self) -> usize {
        self.values.iter().map(|values| values.len() - 1).sum()
    }

    /// Returns Student's interval of a mean or median, which assumes normal values.
    fn student(
        &self,
        statistic: Statistic,
        values: &[f64],
        confidence: f64,
    ) -> Result<Interval, Absent> {
        let times = if statistic == Statistic::Median { MEDIAN_ERROR_RATIO } else { 1.0 };
        // One degree of freedom is lost per stratum, for its mean.
        let (freedom, has) = (self.freedom(), values.len());
        if freedom == 0 {
            return Err(Absent::TooFew { needs: has + 1, has });
        }
        let center = statistic.of(values)?;
        let tail = (1.0 - confidence) / 2.0;
        let t = StudentsT::new(0.0, 1.0, freedom as f64).map_or(f64::NAN, |t| t.inverse_cdf(tail));
        let half = t.abs() * times * self.variance_of_mean().sqrt();
        Ok(Interval { low: center - half, high: center + half })
    }

    /// Returns the variance of the mean. Each stratum is weighted by its number of values.
    fn variance_of_mean(&self) -> f64 {
        let n: usize = self.values.iter().map(Vec::len).sum();
        let of_stratum = |values: &Vec<f64>| {
            let sd = Statistic::Sd.of(values).unwrap_or_default();
            sd.powi(2) * values.len() as f64 / (n as f64).powi(2)
        };
        self.values.iter().map(of_stratum).sum()
    }

    /// Returns the mean or median of each resample.
    ///
    /// A stratum of `n` values contributes `n − 1` draws, each weighted by `n / (n − 1)`. The
    /// weight of a stratum thus stays `n`, as in the estimate itself, and the variance of the
    /// resamples matches the variance of the estimate.
    fn resamples(&self, statistic: Statistic, seed: u64) -> Vec<f64> {
        let n: usize = self.values.iter().map(Vec::len).sum();
        // Large samples get fewer resamples, so that the time is bounded; the percentiles are still
        // accurate to a fraction of the interval.
        let count = (DRAWS / n).clamp(RESAMPLES / 8, RESAMPLES);
        // The seed depends on the sample only, so that the same data always has the same interval.
        let mut random = Pcg64Mcg::seed_from_u64(n as u64 + (seed << 32));
        let mut drawn: Vec<(f64, f64)> = Vec::with_capacity(n);
        let mut resample = || {
            drawn.clear();
            for values in &self.values {
                let draws = (values.len() - 1).max(1);
                let weight = values.len() as f64 / draws as f64;
                let draw = |_| (values[random.random_range(0..values.len())], weight);
                drawn.extend((0..draws).map(draw));
            }
            match statistic {
                Statistic::Median => weighted_median(&mut drawn),
                _ => drawn.iter().map(|(value, weight)| value * weight).sum::<f64>() / n as f64,
            }
        };
        (0..count).map(|_| resample()).collect()
    }
}

/// Returns the weighted median: the value with half of the weight on each side, or the midpoint of
/// two values if the half is reached between them. It selects instead of sorting, because the
/// bootstrap computes thousands of medians: each step discards the side that cannot contain the
/// median.
fn weighted_median(values: &mut [(f64, f64)]) -> f64 {
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let is_half = |weight: f64| (weight - half).abs() <= half * 1e-9;
    let (mut rest, mut below) = (values, 0.0);
    loop {
        let middle = rest.len() / 2;
        let (lower, &mut (value, weight), upper) =
            rest.select_nth_unstable_by(middle, |a, b| a.0.total_cmp(&b.0));
        let before = below + lower.iter().map(|(_, weight)| weight).sum::<f64>();
        if is_half(before) {
            let last = lower.iter().map(|(value, _)| *value).fold(f64::NEG_INFINITY, f64::max);
            return f64::midpoint(last, value);
        }
        if is_half(before + weight) {
            let next = upper.iter().map(|(value, _)| *value).fold(f64::INFINITY, f64::min);
            return f64::midpoint(value, next);
        }
        if before > half {
            rest = lower;
        } else if before + weight > half {
            return value;
        } else {
            below = before + weight;
            rest = upper;
        }
    }
}

/// Returns Bonett's interval of a standard deviation.
fn of_sd(values: &[f64], confidence: f64) -> Result<Interval, Absent> {
    let (needs, has) = (MIN_BOOTSTRAP_FREEDOM + 1, values.len());
    if has < needs {
        return Err(Absent::TooFew { needs, has });
    }
    let n = has as f64;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let outer = (n / (2.0 * (n - 4.0).sqrt())) as usize;
    let center = Statistic::Mean.of(&sorted[outer..has - outer])?;
    let sd = Statistic::Sd.of(values)?;
    if sd == 0.0 {
        return Ok(Interval { low: 0.0, high: 0.0 });
    }
    let fourth: f64 = values.iter().map(|value| (value - center).powi(4)).sum();
    let kurtosis = n * fourth / (sd.powi(2) * (n - 1.0)).powi(2);
    let z = -Normal::standard().inverse_cdf((1.0 - confidence) / 2.0);
    let correction = n / (n - z);
    let error = correction * ((kurtosis - (n - 3.0) / n).max(0.0) / (n - 1.0)).sqrt();
    let at = |side: f64| sd * (correction * (side * z * error).exp()).sqrt();
    Ok(Interval { low: at(-1.0).min(sd), high: at(1.0).max(sd) })
}

/// Returns the expanded tail: the share to leave out so that a percentile interval of the bootstrap
/// is as wide as Student's.
fn expanded(tail: f64, freedom: usize) -> f64 {
    let t = StudentsT::new(0.0, 1.0, freedom as f64).map(|t| t.inverse_cdf(tail));
    t.map_or(tail, |t| Normal::standard().cdf(t))
}

/// Returns the interval of a quantile of the distribution that `values` are a sample of.
fn of_quantile(values: &[f64], part: f64, confidence: f64) -> Interval {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    between_ranks(&sorted, part, confidence)
}

/// Returns the order statistics between which the quantile lies.
///
/// The number of values below the quantile is binomial, whatever the distribution. So the
/// probability that the quantile lies below the r-th value is a binomial tail, and each end is the
/// innermost rank whose risk is at most half of `1 − confidence`. A sample that does not reach far
/// enough has no such rank, and that end is infinite.
fn between_ranks(sorted: &[f64], part: f64, confidence: f64) -> Interval {
    let n = sorted.len();
    let tail = (1.0 - confidence) / 2.0;
    let Ok(below) = Binomial::new(part, n as u64) else {
        return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
    };
    // Ranks count from 1.
    let risk_below = |rank: usize| rank.checked_sub(1).map_or(0.0, |last| below.cdf(last as u64));
    let risk_above = |rank: usize| 1.0 - risk_below(rank);
    let first = below.inverse_cdf(tail) as usize;
    let low = (0..=first + 1).rev().find(|rank| risk_below(*rank) <= tail).unwrap_or(0);
    let last = below.inverse_cdf(1.0 - tail) as usize;
    let high = (last..=n + 1).find(|rank| risk_above(*rank) <= tail).unwrap_or(n + 1);
    let ranked = |rank: usize| rank.checked_sub(1).and_then(|rank| sorted.get(rank)).copied();
    // A rank outside the sample is not a bound.
    Interval {
        low: ranked(low).unwrap_or(f64::NEG_INFINITY),
        high: ranked(high).unwrap_or(f64::INFINITY),
    }
}

/// Returns the interval of a share of which `some` of `all` were observed (Clopper and Pearson
/// 1934).
pub fn of_share(some: usize, all: usize, confidence: f64) -> Interval {
    use statrs::distribution::Beta;
    let tail = (1.0 - confidence) / 2.0;
    let quantile = |a: usize, b: usize, part: f64| {
        Beta::new(a as f64, b as f64).map_or(f64::NAN, |beta| beta.inverse_cdf(part))
    };
    Interval {
        low: if some == 0 { 0.0 } else { quantile(some, all - some + 1, tail) },
        high: if some == all { 1.0 } else { quantile(some + 1, all - some, 1.0 - tail) },
    }
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, Exp, LogNormal, Normal};

    use super::*;

    /// Returns the coverage in percent: how often the interval of a sample from `draw` contains the
    /// truth.
    fn coverage(
        statistic: Statistic,
        truth: f64,
        strata: &[u32],
        mut draw: impl FnMut(&mut Pcg64Mcg, u32) -> f64,
    ) -> f64 {
        const RUNS: u32 = 300;
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let held = (0..RUNS).filter(|_| {
            let values: Vec<_> = strata.iter().map(|stratum| draw(&mut random, *stratum)).collect();
            let sample = StratifiedSample { values: &values, strata };
            of(statistic, sample, CONFIDENCE).unwrap().unwrap().holds(truth)
        });
        held.count() as f64 * 100.0 / f64::from(RUNS)
    }

    /// Returns the strata of `runs` requests for each of `prompts`.
    fn strata(prompts: u32, runs: usize) -> Vec<u32> {
        (0..prompts).flat_map(|prompt| std::iter::repeat_n(prompt, runs)).collect()
    }

    #[test]
    fn the_median_is_the_same_without_sorting() {
        let weighed = |values: &[f64], weight: f64| {
            weighted_median(&mut values.iter().map(|value| (*value, weight)).collect::<Vec<_>>())
        };
        for values in [&[3.0][..], &[3.0, 1.0], &[5.0, 1.0, 9.0], &[4.0, 2.0, 8.0, 6.0]] {
            let expected = Statistic::Median.of(values).unwrap();
            assert_eq!(weighed(values, 1.0), expected);
            assert_eq!(weighed(values, 1.5), expected);
        }
        let mut random = Pcg64Mcg::seed_from_u64(1);
        for length in 1..40 {
            let values: Vec<f64> = (0..length).map(|_| random.random_range(0..9).into()).collect();
            assert_eq!(weighed(&values, 1.2), Statistic::Median.of(&values).unwrap());
        }
        assert_eq!(weighted_median(&mut [(1.0, 1.0), (2.0, 3.0), (9.0, 1.0)]), 2.0);
        assert_eq!(weighted_median(&mut [(1.0, 1.0), (9.0, 2.0), (2.0, 1.0)]), 5.5);
    }

    #[test]
    fn an_interval_holds_its_own_figure_whatever_the_prompts_weigh() {
        // Ten prompts of very different lengths, taken in turn by 11 to 64 requests.
        for requests in [11_u32, 15, 25, 64] {
            let mut random = Pcg64Mcg::seed_from_u64(requests.into());
            let strata: Vec<_> = (0..requests).map(|nth| nth % 10).collect();
            let values: Vec<f64> = strata
                .iter()
                .map(|prompt| 10.0 + 8.0 * f64::from(*prompt) + random.random_range(0.0..1.0))
                .collect();
            let sample = StratifiedSample { values: &values, strata: &strata };
            for statistic in [Statistic::Mean, Statistic::Median, Statistic::Sd] {
                let figure = statistic.of(&values).unwrap();
                let interval = of(statistic, sample, CONFIDENCE).unwrap().unwrap();
                assert!(interval.holds(figure), "{requests} {statistic}: {figure} {interval:?}");
            }
        }
    }

    #[test]
    fn intervals_of_changes_hold_the_truth_as_often_as_they_say() {
        let normal = Normal::new(100.0, 10.0).unwrap();
        let skewed = LogNormal::new(0.0, 0.5).unwrap();
        let covered = |statistic: Statistic, n: usize, is_skewed: bool| {
            let mut random = Pcg64Mcg::seed_from_u64(n as u64);
            let held = (0..400).filter(|_| {
                let mut draw = |by: f64| -> Vec<f64> {
                    let value = |_| match is_skewed {
                        true => by * skewed.sample(&mut random),
                        false => by * normal.sample(&mut random),
                    };
                    (0..n).map(value).collect()
                };
                let (before, now) = (draw(1.0), draw(1.3));
                let of = |values| StratifiedSample { values, strata: &[] };
                of_ratio(statistic, of(&now), of(&before), CONFIDENCE).unwrap().holds(1.3)
            });
            held.count() as f64 / 4.0
        };
        for (statistic, n, is_skewed) in [
            (Statistic::Mean, 5, false),
            (Statistic::Mean, 30, true),
            (Statistic::Mean, 1_200, true),
            (Statistic::Median, 1_200, true),
            (Statistic::Sd, 8, false),
            (Statistic::Sd, 30, false),
            (Statistic::Sd, 100, true),
            (Statistic::Percentile(90.0), 60, true),
            (Statistic::Percentile(95.0), 200, false),
        ] {
            let percent = covered(statistic, n, is_skewed);
            assert!((91.5..=99.5).contains(&percent), "{statistic} of {n}: {percent}");
        }
        let few = StratifiedSample { values: &[1.0, 2.0, 3.0], strata: &[] };
        let of = |statistic| of_ratio(statistic, few, few, CONFIDENCE);
        assert_eq!(of(Statistic::Sd), Err(Absent::TooFew { needs: 8, has: 3 }));
        assert_eq!(of(Statistic::Max), Err(Absent::DescriptiveOnly));
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let normal = Normal::new(100.0, 10.0).unwrap();
        let skewed = LogNormal::new(0.0, 0.5).unwrap();
        let of_prompt =
            |random: &mut Pcg64Mcg, prompt: u32| normal.sample(random) + 100.0 * f64::from(prompt);
        let covered = [
            coverage(Statistic::Mean, 100.0, &strata(1, 2), |random, _| normal.sample(random)),
            coverage(Statistic::Mean, 250.0, &strata(4, 2), of_prompt),
            coverage(Statistic::Mean, 100.0, &strata(1, 8), |random, _| normal.sample(random)),
            coverage(Statistic::Mean, 100.0, &strata(1, 30), |random, _| normal.sample(random)),
            coverage(Statistic::Mean, 550.0, &strata(10, 3), of_prompt),
            coverage(Statistic::Mean, 550.0, &strata(10, 2), of_prompt),
            coverage(Statistic::Mean, 0.125_f64.exp(), &strata(1, 60), |random, _| {
                skewed.sample(random)
            }),
            coverage(Statistic::Median, 100.0, &strata(1, 30), |random, _| normal.sample(random)),
            coverage(Statistic::Median, 1.0, &strata(1, 100), |random, _| skewed.sample(random)),
            coverage(Statistic::Mean, 0.125_f64.exp(), &strata(1, 1_200), |random, _| {
                skewed.sample(random)
            }),
            coverage(Statistic::Mean, 550.0, &strata(10, 120), of_prompt),
            coverage(Statistic::Median, 1.0, &strata(1, 1_200), |random, _| skewed.sample(random)),
        ];
        for percent in covered {
            assert!((93.0..=97.0).contains(&percent), "{covered:?}");
        }
        // Ranks are whole numbers, so the coverage is at least the confidence.
        let of_percentile = |percent: f64, n: usize| {
            let truth = -(1.0 - percent / 100.0).ln();
            let exponential = |random: &mut Pcg64Mcg, _| Exp::new(1.0).unwrap().sample(random);
            coverage(Statistic::Percentile(percent), truth, &strata(1, n), exponential)
        };
        for (percent, n) in [(50.0, 16), (90.0, 46), (95.0, 200), (99.0, 510)] {
            let covered = of_percentile(percent, n);
            assert!((94.0..=99.0).contains(&covered), "p{percent} of {n}: {covered}");
        }
        // The spread of normal values and of skewed ones.
        let spread = (1.0_f64.exp().powf(0.25) * (0.25_f64.exp() - 1.0)).sqrt();
        let of_spread = [
            coverage(Statistic::Sd, 10.0, &strata(1, 8), |random, _| normal.sample(random)),
            coverage(Statistic::Sd, 10.0, &strata(1, 30), |random, _| normal.sample(random)),
            coverage(Statistic::Sd, spread, &strata(1, 200), |random, _| skewed.sample(random)),
        ];
        assert!(of_spread.iter().all(|covered| (91.0..=98.0).contains(covered)), "{of_spread:?}");
        // The median of a few normal values varies somewhat less than the asymptotic formula says.
        let few = |random: &mut Pcg64Mcg, _| normal.sample(random);
        let of_few = coverage(Statistic::Median, 100.0, &strata(1, 5), few);
        assert!((95.0..=99.0).contains(&of_few), "{of_few}");
    }
}
