//! Tests whether a figure changed since earlier runs, or between two endpoints measured in turns.
//! Pure.
//!
//! All of it happens on logarithms, where a change is a difference.
//!
//! Runs differ in their level: another day, clock or allocation makes all requests of a run a few
//! percent slower. So the difference of two runs varies by more than the noise of their requests, and
//! a new run is judged by a prediction interval: `T (1 + 1/k)` is the variance of the difference
//! between one run and the mean of `k` earlier ones, where `T` is the variance between runs. With
//! fewer than `MIN_HISTORY` runs, `T` is assumed; with more, it is estimated and shrunk towards the
//! assumption, which counts as `PRIOR_RUNS` runs.
//!
//! Prompts are strata. Where each prompt was sent once, the run is paired with the earlier ones by
//! prompt, so that short and long prompts do not add to the noise.
//!
//! Endpoints that were measured in turns ("duet", Bulej et al. 2020) share the machine and the
//! moment, so each pair of requests has a ratio from which both cancel.

use std::collections::BTreeMap;

use statrs::distribution::ContinuousCDF;

use crate::{
    evidence::{self, PromptChange, PromptLogs},
    interval::{self, Interval, MeanError, StratifiedSample, student},
    requirement::LOAD_RUNS,
    statistic::{Absent, Statistic},
};

/// The probability that a run with any number of thresholds fails although nothing changed.
pub const SIGNIFICANT: f64 = 0.01;

/// The power for which the smallest detectable change is given.
const POWER: f64 = 0.95;

/// The fewest requests of a run for a comparison.
pub const MIN_REQUESTS: usize = 3;

/// The fewest earlier runs from which the variance between runs is estimated.
pub const MIN_HISTORY: usize = 5;

/// The runs that the assumed variance counts as.
const PRIOR_RUNS: f64 = 4.0;

/// The degrees of freedom of an assumed variance, which is taken as known.
const ASSUMED_FREEDOM: f64 = 1e3;

/// The parts of the significance level that each kind of evidence has. Their sum is more than one:
/// noise that makes one kind err leaves the others at rest, and a miss must also be beyond the limit.
/// The error of all together is simulated (`simulations::an_unchanged_server_does_not_fail`).
const MEAN_PART: f64 = 0.7;
const TAIL_PART: f64 = 0.8;
const PROMPT_PART: f64 = 0.1;

/// The values of one run.
#[derive(Debug, Clone, Copy)]
pub enum RunValues<'a> {
    /// Of each request, in the order of time.
    Requests(StratifiedSample<'a>),
    /// Of each run of a load: requests that are in flight together depend on each other.
    Runs(&'a [f64]),
}

/// A figure now and before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The statistic before: the geometric mean over the earlier runs.
    pub before: f64,
    /// The statistic now.
    pub now: f64,
    /// The relative change: by the means, or for a median by values that were divided by the median
    /// of their prompt; for pairs the geometric mean of the ratios.
    pub relative: f64,
    /// The interval of the relative change. It contains the variation between runs.
    pub interval: Interval,
    /// The evidence of an increase.
    pub increase: Evidence,
    /// The evidence of a decrease.
    pub decrease: Evidence,
    /// The variation between runs; `None` for pairs.
    pub variation: Option<BetweenRuns>,
    /// The number of requests of this run, or of pairs, and the share of them that as many independent
    /// ones have: requests depend on their neighbours. `None` where the interval is not one of means.
    pub effective: Option<(usize, f64)>,
    error: LogError,
}

/// The variation between runs in which nothing changed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BetweenRuns {
    /// Its standard deviation, as a share: the assumption, or the estimate from both.
    pub share: f64,
    /// The standard deviation of the earlier runs, the noise of their requests included; `None` for
    /// a single run.
    pub observed: Option<f64>,
    /// The number of earlier runs.
    pub runs: usize,
    /// Whether it is assumed, because there are few.
    pub is_assumed: bool,
}

/// One-sided p values of a change in one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// Of the statistic itself.
    pub statistic: f64,
    /// Of the share of slow requests.
    pub tail: f64,
    /// Of the prompt that changed most.
    pub prompt: Option<PromptChange>,
}

impl Evidence {
    const NONE: Self = Self { statistic: 1.0, tail: 1.0, prompt: None };

    /// The p value of the change as a whole: its statistic or its tail.
    fn of_whole(&self) -> f64 {
        (self.statistic / MEAN_PART).min(self.tail / TAIL_PART).min(1.0)
    }
}

/// The error of the logarithm of a change.
#[derive(Debug, Clone, Copy, PartialEq)]
struct LogError {
    /// The variance that more requests of this run make smaller.
    now: f64,
    /// The variance of the earlier runs and between runs.
    rest: f64,
    freedom: f64,
}

impl LogError {
    fn total(&self) -> f64 {
        (self.now + self.rest).sqrt()
    }
}

/// The logarithm of a statistic of one run, with its variance within the run.
#[derive(Debug, Clone, Copy)]
struct LogFigure {
    log: f64,
    variance: f64,
    freedom: f64,
}

impl Change {
    /// Compares the runs `now` with the runs `before`, oldest first; `variation` is the standard deviation
    /// between runs that is assumed, as a share. It is an error if a run has too few values, or a
    /// figure of which a ratio means nothing.
    pub fn since(
        statistic: Statistic,
        before: &[RunValues<'_>],
        now: &[RunValues<'_>],
        variation: f64,
        confidence: f64,
    ) -> Result<Self, Absent> {
        let aligned = Aligned::of(statistic, before, now);
        let (earlier, new) = aligned.runs();
        let of_runs = |runs: &[RunValues<'_>]| {
            let figures = runs.iter().map(|run| run.log_figure(statistic, variation));
            figures.collect::<Result<Vec<_>, _>>()
        };
        let (figures, figures_now) = (of_runs(&earlier)?, of_runs(&new)?);
        let change = mean_log(&figures_now)? - mean_log(&figures)?;
        let is_of_loads = now.iter().any(|run| matches!(run, RunValues::Runs(_)));
        let error_with = |pairs: Option<&MeanError>| {
            log_error(&figures, &figures_now, pairs, variation, is_of_loads)
        };
        let pairs = Pairs::of(statistic, &earlier, &new);
        let effective = match &pairs {
            Some(pairs) => Some((pairs.count, pairs.by_means.dependence.effective)),
            None => new.last().and_then(|run| run.effective(statistic)),
        };
        let (error, share) = error_with(pairs.as_ref().map(|pairs| &pairs.by_means));
        let (tested, tested_error) = match &pairs {
            Some(pairs) => (pairs.log_change, error_with(Some(&pairs.by_logs)).0),
            None => (change, error),
        };
        let between = (error.rest - within(&figures)).max(0.0);
        let [increase, decrease] = [1.0, -1.0].map(|sign| {
            let own = p_value(sign * tested, tested_error.total(), tested_error.freedom);
            own_evidence(statistic, &earlier, &new, (sign, own), (between, error.freedom))
        });
        let is_assumed = before.len() < MIN_HISTORY;
        let logs: Vec<_> = figures.iter().map(|of| of.log).collect();
        let observed = Statistic::Sd.of(&logs).ok();
        Ok(Self {
            before: geometric_mean(statistic, before)?,
            now: geometric_mean(statistic, now)?,
            increase,
            decrease,
            variation: Some(BetweenRuns { share, observed, runs: before.len(), is_assumed }),
            effective,
            ..Self::by_logs(change, error, confidence)
        })
    }

    /// Compares pairs of requests of two endpoints: the logarithm of the ratio of each pair in the
    /// order of time, with its prompt. `before` and `now` are the statistics of each endpoint.
    pub fn of_pairs(
        pairs: StratifiedSample<'_>,
        (before, now): (f64, f64),
        confidence: f64,
    ) -> Result<Self, Absent> {
        let has = pairs.values.len();
        if has < MIN_REQUESTS {
            return Err(Absent::TooFew { needs: MIN_REQUESTS, has });
        }
        let mean = MeanError::of(pairs)?;
        let center = Statistic::Mean.of(pairs.values)?;
        let error = LogError { now: mean.error.powi(2), rest: 0.0, freedom: mean.freedom };
        let prompts = by_prompt(pairs);
        let [increase, decrease] = [1.0, -1.0].map(|sign| Evidence {
            statistic: p_value(sign * center, mean.error, mean.freedom),
            tail: evidence::slow_pairs(pairs.values, sign),
            // Runs of a load have no prompts.
            prompt: match pairs.strata.is_empty() {
                true => None,
                false => evidence::of_prompts(&prompts, sign, (0.0, 1.0)),
            },
        });
        let change = Self::by_logs(center, error, confidence);
        // Pairs of runs have no prompts, and no neighbours.
        let effective = (!pairs.strata.is_empty()).then_some((has, mean.dependence.effective));
        Ok(Self { before, now, increase, decrease, effective, ..change })
    }

    /// The change whose logarithm is `center`, without its evidence.
    fn by_logs(center: f64, error: LogError, confidence: f64) -> Self {
        let half = student(error.freedom).inverse_cdf((1.0 + confidence) / 2.0) * error.total();
        Self {
            before: f64::NAN,
            now: f64::NAN,
            relative: center.exp_m1(),
            interval: Interval { low: (center - half).exp_m1(), high: (center + half).exp_m1() },
            increase: Evidence::NONE,
            decrease: Evidence::NONE,
            variation: None,
            effective: None,
            error,
        }
    }

    /// Returns the p value of a change that misses a limit: of the whole figure, or of one prompt.
    /// `misses` decides on a relative change and the figure before. The value is 1 if neither misses
    /// the limit.
    pub fn p_of_miss(&self, increases: bool, misses: impl Fn(f64, f64) -> bool) -> f64 {
        let evidence = if increases { &self.increase } else { &self.decrease };
        let whole = if misses(self.relative, self.before) { evidence.of_whole() } else { 1.0 };
        let before = |prompt: &PromptChange| prompt.before.unwrap_or(self.before);
        let prompt = evidence.prompt.filter(|prompt| misses(prompt.relative, before(prompt)));
        prompt.map_or(whole, |prompt| whole.min(prompt.p / PROMPT_PART)).min(1.0)
    }

    /// Returns the prompt that is the reason of a miss: its own change misses a limit at the level
    /// `level`, and it stands out from the change as a whole.
    pub fn outstanding_prompt(
        &self,
        increases: bool,
        level: f64,
        misses: impl Fn(f64) -> bool,
    ) -> Option<PromptChange> {
        const STANDS_OUT: f64 = 2.0;
        let evidence = if increases { &self.increase } else { &self.decrease };
        let stands_out = |of: &PromptChange| {
            of.relative.ln_1p().abs() > STANDS_OUT * self.relative.ln_1p().abs()
        };
        let is_found = |of: &PromptChange| {
            misses(of.relative) && of.p / PROMPT_PART <= level && stands_out(of)
        };
        evidence.prompt.filter(is_found)
    }

    /// Returns the two-sided p value of a change of the figure as a whole.
    pub fn p(&self) -> f64 {
        (2.0 * self.increase.of_whole().min(self.decrease.of_whole())).min(1.0)
    }

    /// Returns whether both runs have enough requests to bound the change on both sides.
    pub fn is_bounded(&self) -> bool {
        self.error.total().is_finite()
    }

    /// Returns the smallest relative change in the direction `sign` that would have missed `limit`
    /// with a probability of 95 %: it is significant at the level `level`, and seen beyond the limit.
    pub fn smallest_detectable(&self, limit: f64, sign: f64, level: f64) -> f64 {
        let t = student(self.error.freedom);
        let (significant, seen) = (t.inverse_cdf(1.0 - level * MEAN_PART), t.inverse_cdf(POWER));
        let error = self.error.total();
        let beyond_limit = sign * limit.ln_1p() + seen * error;
        let beyond_chance = match sign * limit < 0.0 {
            true => sign * limit.ln_1p() + (significant + seen) * error,
            false => (significant + seen) * error,
        };
        (sign * beyond_limit.max(beyond_chance)).exp_m1()
    }

    /// Returns the p value of a change that meets `limit` being seen as this one.
    pub fn p_beyond(&self, limit: f64, increases: bool) -> f64 {
        let distance = self.relative.ln_1p() - limit.ln_1p();
        p_value(
            if increases { distance } else { -distance },
            self.error.total(),
            self.error.freedom,
        )
    }

    /// Returns how many times as many requests of this run make the standard error of the relative
    /// change as small as `error`; `None` if none do, because the earlier runs and the variation
    /// between runs have more.
    pub fn times_for(&self, error: f64) -> Option<f64> {
        let left = error.powi(2) - self.error.rest;
        (left > 0.0 && self.error.now.is_finite()).then(|| (self.error.now / left).max(1.0))
    }
}

/// Returns the smallest change that differs from none at best, as a logarithm: half of the interval of a
/// run without noise of its requests against runs with the levels `stored`, oldest first. `variation`
/// is the assumed variation between runs, and `load_runs` the number of runs of a load.
pub fn smallest_change(
    stored: &[f64],
    variation: f64,
    load_runs: Option<usize>,
    confidence: f64,
) -> f64 {
    let k = stored.len().max(1) as f64;
    let (variance, freedom) = match load_runs {
        _ if stored.len() >= MIN_HISTORY => {
            let logs: Vec<_> = stored.iter().map(|of| of.max(f64::MIN_POSITIVE).ln()).collect();
            let spread = Statistic::Sd.of(&logs).unwrap_or_default().powi(2);
            let total =
                (PRIOR_RUNS * variation.powi(2) + (k - 1.0) * spread) / (PRIOR_RUNS + k - 1.0);
            (total, k - 1.0 + PRIOR_RUNS / 2.0)
        }
        // Runs of a load that do not vary.
        Some(runs) => (of_runs(0.0, &vec![1.0; runs], variation).variance, ASSUMED_FREEDOM),
        None => (variation.powi(2), ASSUMED_FREEDOM),
    };
    student(freedom).inverse_cdf((1.0 + confidence) / 2.0) * (variance * (1.0 + 1.0 / k)).sqrt()
}

impl<'a> RunValues<'a> {
    fn values(&self) -> &'a [f64] {
        match self {
            Self::Requests(sample) => sample.values,
            Self::Runs(values) => values,
        }
    }

    fn sample(&self) -> StratifiedSample<'a> {
        match self {
            Self::Requests(sample) => *sample,
            Self::Runs(values) => StratifiedSample { values, strata: &[] },
        }
    }

    /// The statistic, or the mean of runs of a load, each of which is one already.
    fn statistic(&self, statistic: Statistic) -> Result<f64, Absent> {
        match self {
            Self::Requests(sample) => statistic.of(sample.values),
            Self::Runs(values) => Statistic::Mean.of(values),
        }
    }

    /// The number of requests and the share of independent ones among them, for a mean.
    fn effective(&self, statistic: Statistic) -> Option<(usize, f64)> {
        let Self::Requests(sample) = self else { return None };
        let mean = (statistic == Statistic::Mean).then(|| MeanError::of(*sample).ok())??;
        Some((sample.values.len(), mean.dependence.effective))
    }

    fn log_figure(&self, statistic: Statistic, variation: f64) -> Result<LogFigure, Absent> {
        let value = self.statistic(statistic)?;
        if value <= 0.0 {
            return Err(Absent::NoRatio);
        }
        let log = value.ln();
        Ok(match self {
            Self::Runs(values) => of_runs(log, values, variation),
            Self::Requests(sample) => {
                let has = sample.values.len();
                if has < MIN_REQUESTS {
                    return Err(Absent::TooFew { needs: MIN_REQUESTS, has });
                }
                match statistic {
                    Statistic::Mean => {
                        let of = MeanError::of(*sample)?;
                        let variance = (of.error / value).powi(2);
                        LogFigure { log, variance, freedom: of.freedom }
                    }
                    _ => by_interval(statistic, *sample, log)?,
                }
            }
        })
    }
}

/// Runs of a load, each of which varies by the assumption, or as they do where they are several.
fn of_runs(log: f64, values: &[f64], variation: f64) -> LogFigure {
    let n = values.len() as f64;
    let logs: Vec<_> = values.iter().map(|value| value.max(f64::MIN_POSITIVE).ln()).collect();
    if values.len() < LOAD_RUNS {
        return LogFigure { log, variance: variation.powi(2) / n, freedom: ASSUMED_FREEDOM };
    }
    let own = Statistic::Sd.of(&logs).unwrap_or_default().powi(2);
    let freedom = PRIOR_RUNS + n - 1.0;
    let variance = (PRIOR_RUNS * variation.powi(2) + (n - 1.0) * own) / freedom;
    LogFigure { log, variance: variance / n, freedom }
}

/// The error of a statistic that only has an interval.
fn by_interval(
    statistic: Statistic,
    sample: StratifiedSample<'_>,
    log: f64,
) -> Result<LogFigure, Absent> {
    let interval = interval::of(statistic, sample, interval::CONFIDENCE)?;
    let Interval { low, high } = interval.ok_or(Absent::DescriptiveOnly)?;
    // The sample may not reach far enough for an end.
    let half = (high.ln() - low.max(0.0).ln()) / 2.0;
    let z = student(1e6).inverse_cdf((1.0 + interval::CONFIDENCE) / 2.0);
    Ok(LogFigure { log, variance: (half / z).powi(2), freedom: sample.values.len() as f64 - 1.0 })
}

/// The one-sided p value of a change with this error.
fn p_value(change: f64, error: f64, freedom: f64) -> f64 {
    match change == 0.0 || error.is_infinite() {
        true => 1.0,
        false => student(freedom).sf(change / error.max(f64::MIN_POSITIVE)),
    }
}

fn mean_log(figures: &[LogFigure]) -> Result<f64, Absent> {
    Statistic::Mean.of(&figures.iter().map(|of| of.log).collect::<Vec<_>>())
}

/// The error of the difference from the mean of the earlier runs, and the standard deviation between
/// runs. `paired` is the variance within the runs if they are paired by prompt.
fn log_error(
    before: &[LogFigure],
    now: &[LogFigure],
    paired: Option<&MeanError>,
    variation: f64,
    is_of_loads: bool,
) -> (LogError, f64) {
    let (k, m) = (before.len() as f64, now.len() as f64);
    let paired = paired.map(|of| (of.error.powi(2), of.freedom));
    let (of_now, of_before) = match paired {
        // A pair does not say whose noise it is.
        Some((variance, _)) => (variance * k / (k + m), variance * m / (k + m)),
        None => (within(now), within(before)),
    };
    if before.len() < MIN_HISTORY {
        // The error of runs of a load is the variation between them.
        let between = if is_of_loads { 0.0 } else { variation.powi(2) * (1.0 / m + 1.0 / k) };
        let freedom = |runs: &[LogFigure]| runs.iter().map(|of| of.freedom).sum::<f64>();
        let parts = match paired {
            Some(paired) => vec![paired],
            None => vec![(of_now, freedom(now)), (of_before, freedom(before))],
        };
        let freedom = satterthwaite(parts.into_iter().chain([(between, ASSUMED_FREEDOM)]));
        return (LogError { now: of_now, rest: of_before + between, freedom }, variation);
    }
    let logs: Vec<_> = before.iter().map(|of| of.log).collect();
    let spread = Statistic::Sd.of(&logs).unwrap_or_default().powi(2);
    let usual = within(before) * k;
    let freedom = PRIOR_RUNS + k - 1.0;
    let assumed = if is_of_loads { variation.powi(2) } else { variation.powi(2) + usual };
    let total = (PRIOR_RUNS * assumed + (k - 1.0) * spread) / freedom;
    // The noise within these runs in excess of the usual one.
    let excess = (within(now) - usual / m).max(0.0);
    let own = of_now.min(total / m);
    let rest = total * (1.0 / m + 1.0 / k) + excess - own;
    (LogError { now: own, rest, freedom: k - 1.0 + PRIOR_RUNS / 2.0 }, total.sqrt())
}

/// The variance of the mean of the logarithms, within the runs.
fn within(runs: &[LogFigure]) -> f64 {
    runs.iter().map(|of| of.variance).sum::<f64>() / (runs.len() as f64).powi(2)
}

/// The degrees of freedom of a sum of variances (Satterthwaite 1946).
fn satterthwaite(parts: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for (variance, freedom) in parts {
        sum += variance;
        squares += variance.powi(2) / freedom;
    }
    if squares > 0.0 && sum.is_finite() { sum.powi(2) / squares } else { 1.0 }
}

fn geometric_mean(statistic: Statistic, runs: &[RunValues<'_>]) -> Result<f64, Absent> {
    let values = runs.iter().map(|run| run.statistic(statistic)).collect::<Result<Vec<_>, _>>()?;
    Ok(match values[..] {
        [only] => only,
        _ => Statistic::Mean.of(&values.iter().map(|value| value.ln()).collect::<Vec<_>>())?.exp(),
    })
}

/// Runs that sent each prompt once: the ratios of the prompts vary less than the prompts.
struct Pairs {
    /// The number of prompts.
    count: usize,
    /// The error of the logarithm of the ratio of the means.
    by_means: MeanError,
    /// The mean of the logarithms of the prompts' ratios, in which all prompts weigh alike.
    log_change: f64,
    /// Its error.
    by_logs: MeanError,
}

impl Pairs {
    fn of(statistic: Statistic, before: &[RunValues<'_>], now: &[RunValues<'_>]) -> Option<Self> {
        let singles =
            |runs: &[RunValues<'_>]| runs.iter().map(single_values).collect::<Option<Vec<_>>>();
        let (earlier, later) = (singles(before)?, singles(now)?);
        // In the order of the first of these runs.
        let strata = now.first()?.sample().strata;
        let differences = |of: fn(f64, f64) -> f64| {
            let mean = |runs: &[BTreeMap<u32, f64>], stratum: &u32| {
                let values = runs.iter().map(|run| {
                    let mean = run.values().sum::<f64>() / run.len() as f64;
                    Some(of(*run.get(stratum)?, mean))
                });
                Statistic::Mean.of(&values.collect::<Option<Vec<_>>>()?).ok()
            };
            let difference = |stratum| Some(mean(&later, stratum)? - mean(&earlier, stratum)?);
            strata.iter().map(difference).collect::<Option<Vec<_>>>()
        };
        let shares = differences(|value, mean| value / mean)?;
        let logs = differences(|value, _| value.ln())?;
        let is_enough = statistic == Statistic::Mean && logs.len() >= MIN_REQUESTS;
        let is_finite = logs.iter().all(|log| log.is_finite());
        let error = |values: &[f64]| MeanError::of(StratifiedSample { values, strata: &[] }).ok();
        (is_enough && is_finite).then_some(())?;
        Some(Self {
            count: logs.len(),
            by_means: error(&shares)?,
            log_change: Statistic::Mean.of(&logs).ok()?,
            by_logs: error(&logs)?,
        })
    }
}

/// The value of each prompt, if each was sent once.
fn single_values(run: &RunValues<'_>) -> Option<BTreeMap<u32, f64>> {
    let RunValues::Requests(StratifiedSample { values, strata }) = *run else { return None };
    let single: BTreeMap<_, _> = strata.iter().copied().zip(values.iter().copied()).collect();
    (single.len() == strata.len() && single.len() > 1).then_some(single)
}

/// The evidence in the direction `sign`, given the p value of the statistic.
fn own_evidence(
    statistic: Statistic,
    before: &[RunValues<'_>],
    now: &[RunValues<'_>],
    (sign, own): (f64, f64),
    between: (f64, f64),
) -> Evidence {
    let is_center = matches!(statistic, Statistic::Mean | Statistic::Median);
    let runs = || before.iter().chain(now);
    let is_of_requests = runs().all(|run| matches!(run, RunValues::Requests(_)));
    let is_positive = runs().all(|run| run.values().iter().all(|value| *value > 0.0));
    if !is_center || !is_of_requests || !is_positive {
        return Evidence { statistic: own, ..Evidence::NONE };
    }
    let mut prompts: BTreeMap<u32, PromptLogs> = BTreeMap::new();
    for (stratum, log) in now.iter().flat_map(logs) {
        prompts.entry(stratum).or_default().now.push(log);
    }
    for (stratum, log) in before.iter().flat_map(logs) {
        prompts.entry(stratum).or_default().before.push(log);
    }
    Evidence {
        statistic: own,
        // A tail moves a mean, and no median.
        tail: match statistic {
            Statistic::Mean => tail(&prompts, before, now, sign),
            _ => 1.0,
        },
        prompt: evidence::of_prompts(&prompts, sign, between),
    }
}

/// The logarithm of each value with its stratum.
fn logs<'a>(run: &RunValues<'a>) -> impl Iterator<Item = (u32, f64)> + use<'a> {
    let sample = run.sample();
    let values = sample.values.iter().enumerate();
    values.map(move |(nth, value)| (stratum(sample, nth), value.ln()))
}

/// The p value of more slow requests now than before.
fn tail(
    prompts: &BTreeMap<u32, PromptLogs>,
    before: &[RunValues<'_>],
    now: &[RunValues<'_>],
    sign: f64,
) -> f64 {
    let is_single = prompts.values().all(|of| of.now.len() + of.before.len() < 3);
    if is_single {
        let ratios = prompts.values().filter_map(|of| Some(of.now.first()? - of.before.first()?));
        return evidence::slow_pairs(&ratios.collect::<Vec<_>>(), sign);
    }
    let centers: BTreeMap<_, _> = prompts
        .iter()
        .map(|(stratum, of)| (*stratum, evidence::median(&[&of.now[..], &of.before].concat())))
        .collect();
    let count = |runs: &[RunValues<'_>]| {
        let of_run = |run: &RunValues<'_>| {
            let logs: Vec<_> = logs(run).map(|(stratum, log)| log - centers[&stratum]).collect();
            (evidence::slow_events(&logs, sign), logs.len())
        };
        let runs = runs.iter().map(of_run);
        runs.fold((0, 0), |(slow, all), (more, of)| (slow + more, all + of))
    };
    evidence::fisher(count(now), count(before))
}

fn stratum(sample: StratifiedSample<'_>, nth: usize) -> u32 {
    sample.strata.get(nth).copied().unwrap_or_default()
}

fn by_prompt(sample: StratifiedSample<'_>) -> BTreeMap<u32, PromptLogs> {
    let mut prompts: BTreeMap<u32, PromptLogs> = BTreeMap::new();
    for (nth, value) in sample.values.iter().enumerate() {
        prompts.entry(stratum(sample, nth)).or_default().now.push(*value);
    }
    prompts
}

/// Values with their strata.
struct OwnedSample {
    values: Vec<f64>,
    strata: Vec<u32>,
}

/// Runs whose values are divided by the median of their prompt over all runs (aligned ranks, Hodges
/// and Lehmann 1962), which a median needs: between prompts of different lengths it moves by chance.
enum Aligned<'a> {
    AsIs([&'a [RunValues<'a>]; 2]),
    Divided([Vec<OwnedSample>; 2]),
}

impl<'a> Aligned<'a> {
    fn of(statistic: Statistic, before: &'a [RunValues<'a>], now: &'a [RunValues<'a>]) -> Self {
        let runs = || before.iter().chain(now);
        let is_of_requests = runs().all(|run| matches!(run, RunValues::Requests(_)));
        if statistic != Statistic::Median || !is_of_requests {
            return Self::AsIs([before, now]);
        }
        let mut all: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for run in runs() {
            for (nth, value) in run.values().iter().enumerate() {
                all.entry(stratum(run.sample(), nth)).or_default().push(*value);
            }
        }
        let centers: BTreeMap<_, _> =
            all.iter().map(|(stratum, values)| (*stratum, evidence::median(values))).collect();
        let divide = |run: &RunValues<'_>| {
            let sample = run.sample();
            let value = |(nth, value): (usize, &f64)| match centers[&stratum(sample, nth)] {
                0.0 => *value,
                center => value / center,
            };
            let values = sample.values.iter().enumerate().map(value).collect();
            OwnedSample { values, strata: sample.strata.to_vec() }
        };
        Self::Divided([before, now].map(|runs| runs.iter().map(divide).collect()))
    }

    /// The runs before and now.
    fn runs(&self) -> (Vec<RunValues<'_>>, Vec<RunValues<'_>>) {
        match self {
            Self::AsIs([before, now]) => (before.to_vec(), now.to_vec()),
            Self::Divided([before, now]) => (
                before.iter().map(OwnedSample::lend).collect(),
                now.iter().map(OwnedSample::lend).collect(),
            ),
        }
    }
}

impl OwnedSample {
    fn lend(&self) -> RunValues<'_> {
        RunValues::Requests(StratifiedSample { values: &self.values, strata: &self.strata })
    }
}
