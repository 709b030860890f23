//! How far a statistic may be from the truth, given that the requests are a sample. Pure and
//! seeded: the same values give the same interval.
//!
//! The unit of replication is the request, never the token: gaps of one answer depend on one
//! another. Prompts are strata, since each is asked a fixed number of times and a long one is not
//! a chance.
//!
//! Intervals come of the bootstrap (Efron 1979), stratified, with `n − 1` draws from a stratum of
//! `n` values, so that the spread of the resamples is that of the estimate and not too small by
//! `(n − 1) / n`, which is a third for three runs (Rao and Wu 1988). Few values are in the tails
//! more often than the normal law says: the percentiles taken are expanded by Student's t
//! (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 3.3). Of fewer than
//! eight values the bootstrap sees too little: their interval is Student's, and supposes that they
//! are normal. Where a percentile is asked for, its bootstrap is poor, and the interval between order statistics is
//! taken, which holds for every distribution (David and Nagaraja 2003, section 7.1).

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, Normal, StudentsT};

use crate::statistic::{Absent, Statistic};

/// How sure an interval is, unless it is asked for otherwise.
pub const CONFIDENCE: f64 = 0.95;

/// Fewest degrees of freedom for a bootstrap: the values less the strata.
const FEWEST: usize = 7;

/// How much more a median of normal values varies than their mean: √(π / 2).
const MEDIAN: f64 = 1.253_314_137_315_5;

/// Resamples, and the most values that are drawn for all of them together.
const RESAMPLES: usize = 2_000;
const DRAWS: usize = 20_000_000;

/// Where the truth is, as sure as was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it.
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The same with `error` added at both ends.
    #[must_use]
    pub fn widened(self, error: f64) -> Self {
        Self { low: self.low - error, high: self.high + error }
    }
}

/// Values with the stratum of each.
#[derive(Debug, Clone, Copy)]
pub struct Sampled<'a> {
    /// The values.
    pub values: &'a [f64],
    /// As many strata; none for values that have none.
    pub strata: &'a [u16],
}

/// The interval of `statistic`; `None` for a statistic that describes these values alone, such as
/// the largest. Too few values have none either, which is an error.
pub fn of(
    statistic: Statistic,
    sampled: Sampled<'_>,
    confidence: f64,
) -> Result<Option<Interval>, Absent> {
    statistic.of(sampled.values)?;
    match statistic {
        Statistic::Min | Statistic::Max => Ok(None),
        Statistic::Percentile(percent) => {
            let mut sorted = sampled.values.to_vec();
            sorted.sort_by(f64::total_cmp);
            Ok(Some(between_ranks(&sorted, percent / 100.0, confidence)))
        }
        Statistic::Mean | Statistic::Median | Statistic::Sd => {
            let strata = Strata::of(sampled);
            if strata.freedom() < FEWEST {
                return strata.student(statistic, sampled.values, confidence).map(Some);
            }
            let tail = expanded((1.0 - confidence) / 2.0, strata.freedom());
            Ok(Some(between(strata.resamples(statistic, 0), tail)))
        }
    }
}

/// The interval of the statistic of `above` divided by that of `below`, two samples of their own.
pub fn of_ratio(
    statistic: Statistic,
    above: Sampled<'_>,
    below: Sampled<'_>,
    confidence: f64,
) -> Result<Interval, Absent> {
    let (upper, lower) = (Strata::of(above), Strata::of(below));
    let ratio = statistic.of(above.values)? / statistic.of(below.values)?;
    let freedom = upper.freedom().min(lower.freedom());
    let tail = (1.0 - confidence) / 2.0;
    if freedom < FEWEST {
        // Their relative variances add up, as far as they are small.
        let relative = |strata: &Strata, values: &[f64]| {
            let mean = Statistic::Mean.of(values).unwrap_or(f64::NAN);
            strata.variance_of_mean() / mean.powi(2)
        };
        let variance = relative(&upper, above.values) + relative(&lower, below.values);
        let freedom = freedom.max(1) as f64;
        let t = StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| t.inverse_cdf(tail));
        let half = t.abs() * MEDIAN * ratio * variance.sqrt();
        return Ok(Interval { low: ratio - half, high: ratio + half });
    }
    let pairs = upper.resamples(statistic, 1).into_iter().zip(lower.resamples(statistic, 2));
    let ratios = pairs.map(|(above, below)| above / below).collect();
    let freedom = upper.freedom() + lower.freedom();
    Ok(between(ratios, expanded(tail, freedom)))
}

/// What is left of `resamples` without the part `tail` at either end.
fn between(mut resamples: Vec<f64>, tail: f64) -> Interval {
    resamples.retain(|value| value.is_finite());
    resamples.sort_by(f64::total_cmp);
    let Some(last) = resamples.len().checked_sub(1) else {
        return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
    };
    let at = |part: f64| resamples[((part * last as f64).round() as usize).min(last)];
    Interval { low: at(tail), high: at(1.0 - tail) }
}

/// The values by their strata. Those alone in theirs are one stratum together.
struct Strata {
    values: Vec<Vec<f64>>,
}

impl Strata {
    fn of(Sampled { values, strata }: Sampled<'_>) -> Self {
        let mut by_stratum: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
        for (nth, value) in values.iter().enumerate() {
            let stratum = strata.get(nth).copied().unwrap_or_default();
            by_stratum.entry(stratum).or_default().push(*value);
        }
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

    /// The interval of a mean or median of a few normal values.
    fn student(
        &self,
        statistic: Statistic,
        values: &[f64],
        confidence: f64,
    ) -> Result<Interval, Absent> {
        let times = match statistic {
            Statistic::Mean => 1.0,
            Statistic::Median => MEDIAN,
            _ => 0.0,
        };
        let (freedom, has) = (self.freedom(), values.len());
        if freedom == 0 || times == 0.0 {
            let needs = if times == 0.0 { has + FEWEST - freedom } else { has + 1 };
            return Err(Absent::TooFew { needs, has });
        }
        let center = statistic.of(values)?;
        let tail = (1.0 - confidence) / 2.0;
        let t = StudentsT::new(0.0, 1.0, freedom as f64).map_or(f64::NAN, |t| t.inverse_cdf(tail));
        let half = t.abs() * times * self.variance_of_mean().sqrt();
        Ok(Interval { low: center - half, high: center + half })
    }

    /// The variance of the mean that weighs each stratum by its values.
    fn variance_of_mean(&self) -> f64 {
        let n: usize = self.values.iter().map(Vec::len).sum();
        let of_stratum = |values: &Vec<f64>| {
            let sd = Statistic::Sd.of(values).unwrap_or_default();
            sd.powi(2) * values.len() as f64 / (n as f64).powi(2)
        };
        self.values.iter().map(of_stratum).sum()
    }

    /// The statistic of each resample.
    fn resamples(&self, statistic: Statistic, seed: u64) -> Vec<f64> {
        let n: usize = self.values.iter().map(Vec::len).sum();
        let count = (DRAWS / n).clamp(RESAMPLES / 8, RESAMPLES);
        let mut random = Pcg64Mcg::seed_from_u64(n as u64 + (seed << 32));
        let mut drawn = Vec::with_capacity(n);
        let mut resample = || {
            drawn.clear();
            // The mean weighs a stratum by its values, however many were drawn of it.
            let mut sum = 0.0;
            for values in &self.values {
                let from = drawn.len();
                let draws = (values.len() - 1).max(1);
                drawn.extend((0..draws).map(|_| values[random.random_range(0..values.len())]));
                let of_stratum: f64 = drawn[from..].iter().sum();
                sum += of_stratum * values.len() as f64 / draws as f64;
            }
            match statistic {
                Statistic::Mean => sum / n as f64,
                Statistic::Median => median(&mut drawn),
                _ => statistic.of(&drawn).unwrap_or(f64::NAN),
            }
        };
        (0..count).map(|_| resample()).collect()
    }
}

/// The median, without sorting all of `values`.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let is_odd = values.len() % 2 == 1;
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| !is_odd);
    f64::midpoint(lower.unwrap_or(upper), upper)
}

/// The part of the resamples to leave out at either end instead of `tail`.
fn expanded(tail: f64, freedom: usize) -> f64 {
    let t = StudentsT::new(0.0, 1.0, freedom as f64).map(|t| t.inverse_cdf(tail));
    t.map_or(tail, |t| Normal::standard().cdf(t))
}

/// The order statistics between which the `part`-quantile lies. Where the sample does not reach
/// far enough on one side, its end.
fn between_ranks(sorted: &[f64], part: f64, confidence: f64) -> Interval {
    let n = sorted.len();
    let tail = (1.0 - confidence) / 2.0;
    let Ok(below) = Binomial::new(part, n as u64) else {
        return Interval { low: f64::NEG_INFINITY, high: f64::INFINITY };
    };
    // The number of values below the quantile is binomial. Ranks count from 1: the one whose risk
    // is nearest to what was asked for.
    let risk_below = |rank: usize| rank.checked_sub(1).map_or(0.0, |last| below.cdf(last as u64));
    let risk_above = |rank: usize| 1.0 - risk_below(rank);
    let nearest = |of: &dyn Fn(usize) -> f64, first: usize| {
        let distance = |rank: &usize| (of(*rank) - tail).abs();
        (first..=first + 1).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(first)
    };
    let low = nearest(&risk_below, below.inverse_cdf(tail) as usize);
    let high = nearest(&risk_above, below.inverse_cdf(1.0 - tail) as usize);
    let ranked = |rank: usize| rank.checked_sub(1).and_then(|rank| sorted.get(rank)).copied();
    // A rank that the sample does not have is no bound.
    Interval {
        low: ranked(low).unwrap_or(f64::NEG_INFINITY),
        high: ranked(high).unwrap_or(f64::INFINITY),
    }
}

/// The interval of a share of which `some` of `all` were seen (Clopper and Pearson 1934).
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

    /// How often, in percent, the interval of samples of `draw` holds the truth.
    fn coverage(
        statistic: Statistic,
        truth: f64,
        strata: &[u16],
        mut draw: impl FnMut(&mut Pcg64Mcg, u16) -> f64,
    ) -> f64 {
        const RUNS: u32 = 300;
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let held = (0..RUNS).filter(|_| {
            let values: Vec<_> = strata.iter().map(|stratum| draw(&mut random, *stratum)).collect();
            let sampled = Sampled { values: &values, strata };
            of(statistic, sampled, CONFIDENCE).unwrap().unwrap().holds(truth)
        });
        held.count() as f64 * 100.0 / f64::from(RUNS)
    }

    /// `runs` of each of `prompts`.
    fn strata(prompts: u16, runs: usize) -> Vec<u16> {
        (0..prompts).flat_map(|prompt| std::iter::repeat_n(prompt, runs)).collect()
    }

    #[test]
    fn the_median_is_the_same_without_sorting() {
        for values in [&[3.0][..], &[3.0, 1.0], &[5.0, 1.0, 9.0], &[4.0, 2.0, 8.0, 6.0]] {
            let expected = Statistic::Median.of(values).unwrap();
            assert_eq!(median(&mut values.to_vec()), expected);
        }
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let normal = Normal::new(100.0, 10.0).unwrap();
        let skewed = LogNormal::new(0.0, 0.5).unwrap();
        let of_prompt =
            |random: &mut Pcg64Mcg, prompt: u16| normal.sample(random) + 100.0 * f64::from(prompt);
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
            coverage(Statistic::Percentile(95.0), 20_f64.ln(), &strata(1, 200), |random, _| {
                Exp::new(1.0).unwrap().sample(random)
            }),
        ];
        for percent in covered {
            assert!((93.0..=97.0).contains(&percent), "{covered:?}");
        }
        // The median of a few normal values varies somewhat less than that of many.
        let few = |random: &mut Pcg64Mcg, _| normal.sample(random);
        let of_few = coverage(Statistic::Median, 100.0, &strata(1, 5), few);
        assert!((95.0..=99.0).contains(&of_few), "{of_few}");
    }
}
