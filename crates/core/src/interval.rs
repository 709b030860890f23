//! Confidence intervals of a statistic, given that the requests are a sample. Pure: the same values
//! give the same interval.
//!
//! The unit of replication is the request, never the token, because the gaps within an answer
//! depend on each other. Prompts are strata: each prompt is sent a fixed number of times, so the
//! difference between a long and a short prompt is not random.
//!
//! - **Means**: Student's interval of the stratified mean. The degrees of freedom are those of
//!   Satterthwaite (1946), because a long prompt often varies more than a short one. Requests that
//!   depend on their neighbours widen it ([`Dependence`]). Skewed values move it towards their
//!   tail by Hall's transformation (1992, "On the removal of skewness by transformation").
//! - **Percentiles and medians**: the interval between order statistics, which holds for every
//!   distribution (David and Nagaraja 2003, section 7.1).
//! - **Standard deviations**: the interval of Bonett (2006, "Approximate confidence interval for
//!   standard deviation of nonnormal distributions"), which accounts for heavy tails.
//! - **Shares**: the exact interval of Clopper and Pearson (1934), which agrees with the exact tests.

use std::collections::BTreeMap;

use statrs::distribution::{Beta, Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

use crate::{
    moderation::Moderation,
    serial::Dependence,
    statistic::{Absent, Statistic},
};

/// The default confidence.
pub const CONFIDENCE: f64 = 0.95;

/// The fewest values for an interval of a standard deviation.
const MIN_SD_VALUES: usize = 8;

/// The fewest values whose skewness says something.
const MIN_SKEWED_VALUES: usize = 8;

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Every value: nothing is known.
    pub const ALL: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };

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

/// Values in the order of time, with the stratum of each.
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
    let value = statistic.of(sample.values)?;
    match statistic {
        Statistic::Min | Statistic::Max => Ok(None),
        Statistic::Percentile(percent) => {
            Ok(Some(of_quantile(sample.values, percent / 100.0, confidence)))
        }
        // Strata only make the interval narrower, so ignoring them is conservative.
        Statistic::Median => Ok(Some(of_quantile(sample.values, 0.5, confidence))),
        Statistic::Sd => of_sd(sample.values, confidence).map(Some),
        Statistic::Mean => Ok(Some(MeanError::of(sample)?.interval(value, confidence))),
    }
}

/// Returns the interval of the ratio of `above` to `below` for two independent samples.
pub fn of_ratio(
    statistic: Statistic,
    above: StratifiedSample<'_>,
    below: StratifiedSample<'_>,
    confidence: f64,
) -> Result<Interval, Absent> {
    let with_interval = |sample: StratifiedSample<'_>| {
        let interval = of(statistic, sample, confidence)?.ok_or(Absent::DescriptiveOnly)?;
        Ok((statistic.of(sample.values)?, interval))
    };
    Ok(ratio_of_intervals(with_interval(above)?, with_interval(below)?))
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

/// The standard error of a mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanError {
    /// The standard error.
    pub error: f64,
    /// Its degrees of freedom.
    pub freedom: f64,
    /// The skewness of the mean.
    pub skewness: f64,
    /// The dependence of the values on their neighbours.
    pub dependence: Dependence,
    /// The least that the mean can be: 0 for values none of which is negative.
    pub least: f64,
}

impl MeanError {
    /// Computes the standard error of the mean of a sample. It is an error if no stratum has two
    /// values and there is only one.
    pub fn of(sample: StratifiedSample<'_>) -> Result<Self, Absent> {
        let strata = Strata::of(sample);
        let n = sample.values.len();
        let (variance, freedom) = strata.variance_of_mean();
        if freedom <= 0.0 {
            return Err(Absent::TooFew { needs: n + 1, has: n });
        }
        let residuals = strata.residuals(sample.values);
        let dependence = Dependence::of(&strata.relative(&residuals));
        Ok(Self {
            error: (variance * dependence.inflation).sqrt(),
            freedom: freedom_of_dependent(freedom, n as f64, dependence),
            skewness: skewness_of_mean(&residuals),
            dependence,
            least: if sample.values.iter().all(|value| *value >= 0.0) { 0.0 } else { f64::MIN },
        })
    }

    /// Returns the interval of the mean, which was estimated as `center`.
    pub fn interval(&self, center: f64, confidence: f64) -> Interval {
        let t = student(self.freedom).inverse_cdf((1.0 + confidence) / 2.0);
        Interval {
            low: (center - self.error * self.unskewed(t)).max(self.least),
            high: center - self.error * self.unskewed(-t),
        }
    }

    /// The inverse of Hall's transformation: the quantile of the studentized mean of skewed values
    /// that belongs to the quantile `t` of Student's distribution.
    fn unskewed(&self, t: f64) -> f64 {
        let skew = self.skewness;
        if skew.abs() < 1e-6 {
            return t;
        }
        3.0 / skew * ((1.0 + skew * (t - skew / 6.0)).cbrt() - 1.0)
    }
}

/// The degrees of freedom of dependent values: those of as few independent ones.
fn freedom_of_dependent(freedom: f64, n: f64, dependence: Dependence) -> f64 {
    let lost = 1.0 / (n * dependence.effective - 1.0).max(1.0) - 1.0 / (n - 1.0).max(1.0);
    (1.0 / (1.0 / freedom + lost.max(0.0))).max(1.0)
}

/// Returns Student's distribution, with at least half a degree of freedom.
pub fn student(freedom: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, freedom.max(0.5)).expect("the freedom is positive")
}

/// The skewness of the mean of independent values, given their residuals. It is zero where there
/// are too few to say.
fn skewness_of_mean(residuals: &[f64]) -> f64 {
    let n = residuals.len() as f64;
    let moment = |power| residuals.iter().map(|value: &f64| value.powi(power)).sum::<f64>() / n;
    let variance = moment(2);
    if residuals.len() < MIN_SKEWED_VALUES || variance <= 0.0 {
        return 0.0;
    }
    moment(3) / variance.powf(1.5) / n.sqrt()
}

/// A sample by its strata. Strata with a single value form one stratum together: alone they have
/// no variance, and together they show the variance between prompts, which overestimates the noise.
pub(crate) struct Strata {
    /// The stratum of each value, as an index into `values`.
    positions: Vec<usize>,
    values: Vec<Vec<f64>>,
}

impl Strata {
    pub(crate) fn of(StratifiedSample { values, strata }: StratifiedSample<'_>) -> Self {
        // Values without strata form one stratum.
        let stratum = |nth: usize| strata.get(nth).copied().unwrap_or_default();
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        (0..values.len()).for_each(|nth| *counts.entry(stratum(nth)).or_default() += 1);
        let mut numbers: BTreeMap<Option<u32>, usize> = BTreeMap::new();
        let mut by_stratum: Vec<Vec<f64>> = Vec::new();
        let mut positions = Vec::with_capacity(values.len());
        for (nth, value) in values.iter().enumerate() {
            let key = Some(stratum(nth)).filter(|stratum| counts[stratum] > 1);
            let position = *numbers.entry(key).or_insert(by_stratum.len());
            if position == by_stratum.len() {
                by_stratum.push(Vec::new());
            }
            by_stratum[position].push(*value);
            positions.push(position);
        }
        Self { positions, values: by_stratum }
    }

    fn means(&self) -> Vec<f64> {
        self.values.iter().map(|of| Statistic::Mean.of(of).unwrap_or_default()).collect()
    }

    /// The difference of each value from the mean of its stratum, enlarged by what the mean took
    /// from its variance.
    pub(crate) fn residuals(&self, values: &[f64]) -> Vec<f64> {
        let means = self.means();
        let residual = |(value, position): (&f64, &usize)| {
            let n = self.values[*position].len() as f64;
            (value - means[*position]) * (n / (n - 1.0).max(1.0)).sqrt()
        };
        values.iter().zip(&self.positions).map(residual).collect()
    }

    /// The residuals divided by the means of their strata, so that slow noise shows alike in short
    /// and in long prompts.
    pub(crate) fn relative(&self, residuals: &[f64]) -> Vec<f64> {
        let means = self.means();
        if means.iter().any(|mean| *mean <= 0.0) {
            return residuals.to_vec();
        }
        residuals.iter().zip(&self.positions).map(|(of, position)| of / means[*position]).collect()
    }

    /// Returns the variance of the mean of independent values, with its degrees of freedom
    /// (Satterthwaite 1946). Each stratum is weighted by its number of values. Strata borrow from
    /// each other's relative variance.
    fn variance_of_mean(&self) -> (f64, f64) {
        let all: usize = self.values.iter().map(Vec::len).sum();
        let means = self.means();
        let is_relative = means.iter().all(|mean| *mean > 0.0);
        let squares = |(values, mean): (&Vec<f64>, &f64)| {
            let scale = if is_relative { *mean } else { 1.0 };
            let squares = values.iter().map(|value| ((value - mean) / scale).powi(2)).sum::<f64>();
            (squares, values.len() as f64 - 1.0, scale)
        };
        let strata: Vec<_> = self.values.iter().zip(&means).map(squares).collect();
        let moderation = Moderation::of(strata.iter().map(|(of, freedom, _)| (*of, *freedom)));
        let (mut sum, mut spread) = (0.0, 0.0);
        for ((of, freedom, scale), values) in strata.iter().zip(&self.values) {
            let (variance, freedom) = moderation.variance((*of, *freedom));
            let part = variance * scale.powi(2) * values.len() as f64 / (all as f64).powi(2);
            sum += part;
            spread += part.powi(2) / freedom.max(1.0);
        }
        let most = strata.iter().map(|(_, freedom, _)| freedom).sum::<f64>();
        // Strata that share a variance share its degrees of freedom.
        let freedom = match moderation.is_shared() {
            false if spread > 0.0 => (sum.powi(2) / spread).min(most),
            _ => most,
        };
        (sum, freedom)
    }
}

/// Returns Bonett's interval of a standard deviation.
fn of_sd(values: &[f64], confidence: f64) -> Result<Interval, Absent> {
    let (needs, has) = (MIN_SD_VALUES, values.len());
    if has < needs {
        return Err(Absent::TooFew { needs, has });
    }
    let n = has as f64;
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
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

/// Returns the interval of a quantile of the distribution that `values` are a sample of.
fn of_quantile(values: &[f64], part: f64, confidence: f64) -> Interval {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    let middle = sorted[((part * n as f64) as usize).min(n - 1)];
    let above: Vec<_> = values.iter().map(|value| f64::from(u8::from(*value > middle))).collect();
    let share = above.iter().sum::<f64>() / n as f64;
    let residuals: Vec<_> = above.iter().map(|is_above| is_above - share).collect();
    between_ranks(&sorted, part, Dependence::of(&residuals), confidence)
}

/// Returns the order statistics between which the quantile lies.
///
/// The number of values below the quantile is binomial, whatever the distribution. So the
/// probability that the quantile lies below the r-th value is a binomial tail, and each end is the
/// innermost rank whose risk is at most half of `1 − confidence`. A sample that does not reach far
/// enough has no such rank, and that end is infinite. Values that depend on their neighbours count
/// as fewer independent ones.
fn between_ranks(sorted: &[f64], part: f64, dependence: Dependence, confidence: f64) -> Interval {
    let n = ((sorted.len() as f64 * dependence.effective) as usize).max(1);
    let tail = (1.0 - confidence) / 2.0;
    let Ok(below) = Binomial::new(part, n as u64) else { return Interval::ALL };
    // Ranks count from 1.
    let risk_below = |rank: usize| rank.checked_sub(1).map_or(0.0, |last| below.cdf(last as u64));
    let risk_above = |rank: usize| 1.0 - risk_below(rank);
    let first = below.inverse_cdf(tail) as usize;
    let low = (0..=first + 1).rev().find(|rank| risk_below(*rank) <= tail).unwrap_or(0);
    let last = below.inverse_cdf(1.0 - tail) as usize;
    let high = (last..=n + 1).find(|rank| risk_above(*rank) <= tail).unwrap_or(n + 1);
    let times = sorted.len() as f64 / n as f64;
    let ranked = |rank: usize| rank.checked_sub(1).and_then(|rank| sorted.get(rank)).copied();
    // A rank outside the sample is not a bound.
    Interval {
        low: ranked((low as f64 * times) as usize).unwrap_or(f64::NEG_INFINITY),
        high: match high > n {
            true => f64::INFINITY,
            false => ranked((high as f64 * times).ceil() as usize).unwrap_or(f64::INFINITY),
        },
    }
}

/// Returns the exact interval of a share of which `some` of `all` were observed (Clopper and Pearson
/// 1934): the shares that neither exact binomial test rejects.
pub fn of_share(some: usize, all: usize, confidence: f64) -> Interval {
    let tail = (1.0 - confidence) / 2.0;
    let quantile = |some: usize, others: usize, part: f64| {
        Beta::new(some as f64, others as f64).map_or(f64::NAN, |beta| beta.inverse_cdf(part))
    };
    let others = all.saturating_sub(some);
    Interval {
        low: if some == 0 { 0.0 } else { quantile(some, others + 1, tail) },
        high: if others == 0 { 1.0 } else { quantile(some + 1, others, 1.0 - tail) },
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_distr::{Distribution, Exp, LogNormal, Normal};
    use rand_pcg::Pcg64Mcg;

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
    fn a_mean_of_values_none_of_which_is_negative_is_not_negative() {
        // One value far above the others: Student's interval would begin below zero.
        for values in [&[0.1, 0.2, 9.0][..], &[0.0, 0.0, 0.0, 1.0], &[1.0; 3]] {
            let sample = StratifiedSample { values, strata: &[] };
            let interval = of(Statistic::Mean, sample, CONFIDENCE).unwrap().unwrap();
            assert!(interval.low >= 0.0 && interval.high >= interval.low, "{interval:?}");
        }
        // Differences may be negative.
        let sample = StratifiedSample { values: &[-0.1, 0.2, 9.0], strata: &[] };
        assert!(of(Statistic::Mean, sample, CONFIDENCE).unwrap().unwrap().low < 0.0);
    }

    #[test]
    fn intervals_of_shares_agree_with_r() {
        // binom.test(k, n)$conf.int
        for (some, all, low, high) in [
            (20, 20, 0.831_566_5, 1.0),
            (0, 20, 0.0, 0.168_433_5),
            (19, 20, 0.751_267_2, 0.998_734_9),
            (7, 8, 0.473_490_2, 0.996_840_3),
        ] {
            let Interval { low: ours, high: upper } = of_share(some, all, CONFIDENCE);
            assert!(
                (ours - low).abs() < 1e-6 && (upper - high).abs() < 1e-6,
                "{some} {ours} {upper}"
            );
        }
        let few = of_share(0, 0, CONFIDENCE);
        assert_eq!((few.low, few.high), (0.0, 1.0));
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
            assert!((93.0..=99.0).contains(&percent), "{covered:?}");
        }
        // Ranks are whole numbers, so the coverage is at least the confidence.
        let of_percentile = |percent: f64, n: usize| {
            let truth = -(1.0 - percent / 100.0).ln();
            let exponential = |random: &mut Pcg64Mcg, _| Exp::new(1.0).unwrap().sample(random);
            coverage(Statistic::Percentile(percent), truth, &strata(1, n), exponential)
        };
        for (percent, n) in [(50.0, 16), (90.0, 46), (95.0, 200), (99.0, 510)] {
            let covered = of_percentile(percent, n);
            assert!((94.0..=99.8).contains(&covered), "p{percent} of {n}: {covered}");
        }
        // The spread of normal values and of skewed ones.
        let spread = (1.0_f64.exp().powf(0.25) * (0.25_f64.exp() - 1.0)).sqrt();
        let of_spread = [
            coverage(Statistic::Sd, 10.0, &strata(1, 8), |random, _| normal.sample(random)),
            coverage(Statistic::Sd, 10.0, &strata(1, 30), |random, _| normal.sample(random)),
            coverage(Statistic::Sd, spread, &strata(1, 200), |random, _| skewed.sample(random)),
        ];
        assert!(of_spread.iter().all(|covered| (91.0..=98.0).contains(covered)), "{of_spread:?}");
        // Six values are the fewest whose range holds the median at 95 %.
        let few = |random: &mut Pcg64Mcg, _| normal.sample(random);
        let of_few = coverage(Statistic::Median, 100.0, &strata(1, 6), few);
        assert!((95.0..=99.8).contains(&of_few), "{of_few}");
    }
}
