//! Judges a threshold on a group: passed, failed or inconclusive. Pure.
//!
//! A verdict needs more than a figure on one side of its limit.
//!
//! - It **passes** if the whole 95 % interval, widened by the error of the instrument, meets the
//!   limit.
//! - It **fails** if the figure misses the limit and the p value of the limit being met is below the
//!   level that the run's thresholds share ([`assign_levels`]). An absent figure fails.
//! - Otherwise it is **inconclusive** and says what would decide it.

mod counterpart;
mod family;
mod instrument;
mod needed;
mod share;

use statrs::distribution::ContinuousCDF;

pub use self::{
    family::{assign_levels, significant_levels},
    instrument::InstrumentError,
    needed::Needed,
    share::{BeyondLimit, p_of_failures},
};
use crate::{
    baseline::{Baseline, BaselineMismatch},
    comparison::{Change, SIGNIFICANT},
    evidence::PromptChange,
    group::LOAD_RUN_VARIATION,
    interval::{Interval, student},
    lacking::MissingFigures,
    metric::MetricSource,
    statistic::{Absent, Statistic},
    summary::{Estimate, Group},
    threshold::{Against, Threshold},
    trend,
};

/// The result of a threshold.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The threshold.
    pub threshold: Threshold,
    /// The figure in the metric's base unit, or why it is absent.
    pub actual: Result<Estimate, Absent>,
    /// How far the instrument can be off, in the base unit, if known. It includes
    /// [`uncertainty`](Self::uncertainty).
    pub error: Option<f64>,
    /// The part of the error that comes from late reads of these requests and, for a change, of
    /// those of the counterpart.
    pub uncertainty: f64,
    /// The part of the error that is the lateness of a simulated endpoint.
    pub simulator: f64,
    /// The requests beyond the limit of a percentile, or the failed ones for the success rate.
    pub beyond: Option<BeyondLimit>,
    /// The change, for a threshold on one, or why it is unknown.
    pub change: Option<Result<Change, NoChange>>,
    /// The course over the stored runs, for a threshold on it, or why it is unknown.
    pub trend: Option<Result<Course, NoChange>>,
    /// The valid answers without the figure, by reason.
    pub lacking: MissingFigures,
    /// Why the figure may be wrong, with the number of affected answers. A doubtful figure decides
    /// nothing.
    pub doubts: Vec<(String, usize)>,
    /// The prompts that a change leaves out because one of the runs has no value for them.
    pub left_out: Vec<String>,
    /// The confidence of intervals.
    pub confidence: f64,
    /// The number of runs of each prompt, or of the workload.
    pub runs: u32,
    /// The probability that may fall to a wrong fail of this threshold.
    pub level: f64,
    /// Whether it is of a workload, whose runs are the unit.
    pub is_of_load: bool,
    /// Whether thresholds with smaller p values have failed, so that this one may fail as well.
    pub may_fail: bool,
    /// The names of the prompts by their numbers in a change.
    pub prompts: Vec<String>,
}

/// The circumstances of a verdict.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// The measured error of the instrument, without the lateness of a simulated endpoint.
    pub instrument: Option<InstrumentError>,
    /// The stored runs.
    pub reference: Option<Reference<'a>>,
    /// The groups of the run.
    pub groups: &'a [Group],
    /// The confidence of intervals.
    pub confidence: f64,
}

/// A baseline, and the current machine.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// The stored runs.
    pub baseline: &'a Baseline,
    /// The current machine.
    pub machine: &'a str,
}

/// Why a change is unknown.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoChange {
    /// The baseline has no comparable group.
    #[error(transparent)]
    Baseline(#[from] BaselineMismatch),
    /// A figure is absent.
    #[error("{0}")]
    Absent(Absent),
    /// Too many requests of the baseline lack the figure.
    #[error("in the baseline {0}")]
    Then(Absent),
    /// Too many requests of this run lack the figure.
    #[error("{0}")]
    Lacking(MissingFigures),
    /// The baseline does not have the figure.
    #[error("the baseline has no {0}")]
    Figure(&'static str),
    /// The other model is not in this run.
    #[error("`{0}` was not measured in this run")]
    Model(String),
}

/// The course of a figure over the stored runs and this one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// The relative change from the best level by the steps and trends that are found, and at most that
    /// of the latest run; 0 if nothing is found or the latest run is back at that level.
    pub relative: f64,
    /// The p value of the order of the runs not mattering.
    pub p: f64,
    /// How many runs ago the best level was left.
    pub runs_ago: usize,
    /// The number of runs, this one included.
    pub runs: usize,
}

/// The outcome of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole interval meets the limit.
    Pass,
    /// The limit is missed beyond chance, or the figure is absent.
    Fail,
    /// Neither is certain.
    Inconclusive,
}

impl Judge<'_> {
    /// Judges a threshold on a group. An absent figure never passes.
    pub fn verdict(&self, threshold: &Threshold, group: &Group) -> Verdict {
        let actual = group.estimate(threshold.metric, threshold.statistic, self.confidence);
        let mut verdict = Verdict {
            threshold: threshold.clone(),
            error: None,
            uncertainty: group.tally.uncertainty(threshold.metric, threshold.statistic),
            simulator: 0.0,
            beyond: None,
            change: None,
            trend: None,
            lacking: group.lacking(threshold.metric),
            doubts: group
                .tally
                .doubts(threshold.metric)
                .map(|(why, of)| (why.into(), of))
                .collect(),
            left_out: Vec::new(),
            confidence: self.confidence,
            runs: group.runs(),
            level: (1.0 - self.confidence) / 0.05 * SIGNIFICANT,
            is_of_load: group.spec.workload.is_some(),
            may_fail: true,
            prompts: Vec::new(),
            actual,
        };
        let compared = match &threshold.against {
            Against::Value => None,
            Against::Baseline => self.reference.map(|reference| {
                counterpart::with_baseline(threshold, group, reference, self.confidence)
            }),
            Against::Model(name) => Some(self.with_model(threshold, group, name)),
            Against::History => {
                verdict.trend = self.reference.map(|of| course_of(threshold, group, of));
                None
            }
        };
        if let Some(compared) = compared {
            verdict.set_change(compared);
        }
        verdict.set_error(self.instrument, group);
        verdict.beyond = verdict.beyond_limit(group);
        verdict
    }

    fn with_model(
        &self,
        threshold: &Threshold,
        group: &Group,
        name: &str,
    ) -> Result<counterpart::ComparedChange, NoChange> {
        let is_other =
            |of: &&Group| of.spec.model == name && of.spec.id.workload == group.spec.id.workload;
        let other = self.groups.iter().find(is_other);
        let other = other.ok_or_else(|| NoChange::Model(name.to_owned()))?;
        counterpart::with_model(threshold, group, other, self.confidence)
    }
}

fn course_of(
    threshold: &Threshold,
    group: &Group,
    reference: Reference<'_>,
) -> Result<Course, NoChange> {
    let now = crate::baseline::GroupBaseline::of(group, reference.machine);
    let history = reference.baseline.history(&now)?;
    let share = group.spec.min_share;
    let figure = group.figure(threshold.metric, Statistic::Mean).map_err(NoChange::Absent)?;
    let stored = history.since_accepted().iter().filter_map(|entry| {
        let side = entry.group.side(threshold.metric, share)?.ok()?;
        Statistic::Mean.of(side.values()).ok()
    });
    let series: Vec<_> = stored.chain([figure]).collect();
    let runs = series.len();
    let too_few = NoChange::Absent(Absent::TooFew { needs: trend::FEWEST, has: runs });
    let (found, levels) =
        trend::test(&series).zip(trend::Levels::of(&series, SIGNIFICANT)).ok_or(too_few)?;
    let (since, loss) = levels.since_best(threshold.limits_increase());
    // A run that is back at the best level has repaired what the course shows.
    let own = series[runs - 1] / levels.fitted[since].exp() - 1.0;
    let relative = if own * loss > 0.0 { loss.signum() * loss.abs().min(own.abs()) } else { 0.0 };
    Ok(Course { relative, p: found.p, runs_ago: runs - 1 - since, runs })
}

impl Verdict {
    /// Sets how far the figure can be off. Late reads widen the error even if the instrument was not
    /// calibrated.
    fn set_error(&mut self, instrument: Option<InstrumentError>, group: &Group) {
        let known = self.actual.ok().zip(instrument);
        let error = known.and_then(|(actual, own)| {
            let of = |error: InstrumentError| error.of(self.threshold.metric, actual.value, group);
            let with_simulator = of(own.with_simulator(&group.punctuality))?;
            self.simulator = with_simulator - of(own)?;
            Some(with_simulator)
        });
        self.error = match self.uncertainty > 0.0 {
            true => Some(error.unwrap_or(0.0) + self.uncertainty),
            false => error,
        };
    }

    fn set_change(&mut self, compared: Result<counterpart::ComparedChange, NoChange>) {
        self.change = Some(compared.map(|compared| {
            self.doubts.extend(compared.doubts);
            self.left_out = compared.left_out;
            self.uncertainty = compared.uncertainty;
            self.prompts = compared.prompts;
            compared.change
        }));
    }

    fn beyond_limit(&self, group: &Group) -> Option<BeyondLimit> {
        match self.actual {
            Err(Absent::TooFew { .. }) | Ok(_) => {}
            Err(_) => return None,
        }
        let beyond = BeyondLimit::of(&self.threshold, group, self.error.unwrap_or(0.0))?;
        match self.threshold.metric.read {
            // The runs of a load decide, unless failed requests alone do.
            MetricSource::Sample(_) if self.is_of_load => {
                Some(beyond.of_failed()).filter(|of| of.p_of_miss <= self.level)
            }
            _ => Some(beyond),
        }
    }

    /// Returns the largest difference between two runs that the instrument alone can cause, in the
    /// base unit: its error in both runs and the uncertainty of arrivals.
    pub fn floor(&self) -> f64 {
        2.0 * (self.error.unwrap_or(0.0) - self.uncertainty).max(0.0) + self.uncertainty
    }

    /// Returns the outcome. An absent figure fails; a doubtful figure is inconclusive.
    pub fn outcome(&self) -> Outcome {
        match self.undoubted() {
            _ if self.is_doubtful() => Outcome::Inconclusive,
            outcome => outcome,
        }
    }

    /// Returns whether the figure exists and may be wrong.
    pub(crate) fn is_doubtful(&self) -> bool {
        let is_there = match (&self.change, &self.trend) {
            (Some(change), _) => change.is_ok(),
            (None, Some(trend)) => trend.is_ok(),
            (None, None) => self.actual.is_ok() && !self.threshold.is_relative(),
        };
        is_there && !self.doubts.is_empty()
    }

    /// Returns the outcome, doubts aside.
    fn undoubted(&self) -> Outcome {
        if !self.exists() {
            return Outcome::Fail;
        }
        let is_missed = self.p_of_miss().is_some_and(|p| p <= self.level && self.may_fail);
        match self.is_certain() {
            Some(true) => Outcome::Pass,
            Some(false) => Outcome::Fail,
            None if is_missed => Outcome::Fail,
            None if self.is_held() => Outcome::Pass,
            None => Outcome::Inconclusive,
        }
    }

    /// Returns whether there is a figure to judge, or too few values for one yet.
    fn exists(&self) -> bool {
        let is_there = |absent: &NoChange| {
            matches!(absent, NoChange::Absent(Absent::TooFew { .. } | Absent::TooFewRuns { .. }))
        };
        match (&self.change, &self.trend) {
            (Some(change), _) => change.as_ref().map_or_else(is_there, |_| true),
            (None, Some(trend)) => trend.as_ref().map_or_else(is_there, |_| true),
            (None, None) if self.threshold.is_relative() => false,
            (None, None) => {
                !matches!(self.actual, Err(absent) if !matches!(absent, Absent::TooFew { .. }))
            }
        }
    }

    /// Returns whether a figure without sampling error meets its limit: the smallest and the largest
    /// value describe these requests only, and a success rate of 100 % is a count of failures.
    fn is_certain(&self) -> Option<bool> {
        let Estimate { value, interval, .. } =
            self.actual.ok().filter(|_| !self.threshold.is_relative())?;
        if let Some(beyond) = self.beyond.filter(|_| self.is_success_rate()) {
            // Without a valid request nothing was measured.
            let has_none = beyond.failed == beyond.all && !self.threshold.holds(0.0);
            return if has_none { Some(false) } else { beyond.is_certain() };
        }
        let error = self.error.unwrap_or(0.0);
        let [low, high] = [value - error, value + error].map(|of| self.threshold.holds(of));
        (interval == Ok(None) && low == high).then_some(low)
    }

    /// Returns whether it limits the share of successful requests.
    pub fn is_success_rate(&self) -> bool {
        matches!(self.threshold.metric.read, MetricSource::All)
    }

    /// Returns the p value of the limit being met, if the figure has a sampling error: small if the
    /// limit is missed beyond chance. A figure on the right side has 1.
    pub fn p_of_miss(&self) -> Option<f64> {
        if let Some(change) = &self.change {
            return change.as_ref().ok().map(|change| self.p_of_change(change));
        }
        if let Some(trend) = &self.trend {
            return trend.as_ref().ok().map(|trend| self.p_of_trend(trend));
        }
        // A count has no sampling error.
        if self.is_certain().is_some() {
            return None;
        }
        if let Some(beyond) = &self.beyond {
            return Some(beyond.p_of_miss);
        }
        let estimate = self.actual.ok().filter(|_| !self.threshold.is_relative())?;
        if estimate.interval == Ok(None) {
            return None;
        }
        let error = self.error.unwrap_or(0.0);
        let off = if self.threshold.limits_increase() { -error } else { error };
        let nearest = estimate.value + off;
        if self.threshold.holds(nearest) {
            return Some(1.0);
        }
        let distance = (nearest - self.threshold.limit).abs();
        Some(match (estimate.mean_error, estimate.interval) {
            (_, Err(_)) => self.p_of_gross_miss(nearest),
            (Some(mean), _) => {
                student(mean.freedom).sf(distance / mean.error.max(f64::MIN_POSITIVE))
            }
            (None, Ok(interval)) => {
                let interval = interval.unwrap_or(Interval::ALL);
                let side = match self.threshold.limits_increase() {
                    true => estimate.value - interval.low,
                    false => interval.high - estimate.value,
                };
                by_interval(distance, side, self.confidence)
            }
        })
    }

    /// The p value of a figure without an interval, whose error is assumed: only a gross miss, half
    /// as much again or more, is beyond it.
    fn p_of_gross_miss(&self, nearest: f64) -> f64 {
        let ratio = (nearest / self.threshold.limit).ln().abs();
        // A limit of zero or below is missed by any factor.
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        student(1e6).sf(ratio / LOAD_RUN_VARIATION)
    }

    fn p_of_change(&self, change: &Change) -> f64 {
        let floor = self.floor();
        let misses = |relative: f64, before: f64| {
            !self.threshold.holds(relative) && (relative * before).abs() > floor
        };
        if self.demands_improvement() {
            return change.p_beyond(self.threshold.limit, self.threshold.limits_increase());
        }
        change.p_of_miss(self.threshold.limits_increase(), misses)
    }

    /// Returns whether an unchanged figure would miss the limit.
    fn demands_improvement(&self) -> bool {
        !self.threshold.holds(0.0)
    }

    fn p_of_trend(&self, trend: &Course) -> f64 {
        if self.threshold.holds(trend.relative) { 1.0 } else { trend.p }
    }

    /// Returns whether the interval, widened by the error of the instrument, meets the limit.
    fn is_held(&self) -> bool {
        let holds = |Interval { low, high }: Interval| {
            self.threshold.holds(low) && self.threshold.holds(high)
        };
        if let Some(change) = &self.change {
            return change.as_ref().is_ok_and(|change| {
                holds(change.interval.widened(self.floor() / change.before.abs()))
            });
        }
        if let Some(trend) = &self.trend {
            return trend
                .as_ref()
                .is_ok_and(|trend| self.threshold.holds(trend.relative) || trend.p > SIGNIFICANT);
        }
        if let Some(beyond) = &self.beyond {
            return beyond.p_of_hold <= self.tail();
        }
        let interval = self.actual.ok().and_then(|actual| actual.interval.ok().flatten());
        interval.is_some_and(|interval| holds(interval.widened(self.error.unwrap_or(0.0))))
    }

    /// The probability beyond each end of an interval.
    fn tail(&self) -> f64 {
        (1.0 - self.confidence) / 2.0
    }

    /// Returns the prompt that is the reason of a fail, by name: its own change misses the limit, and
    /// it stands out from the change as a whole.
    pub fn slower_prompt(&self) -> Option<(&str, PromptChange)> {
        let change = self.change.as_ref()?.as_ref().ok()?;
        let misses = |relative: f64| !self.threshold.holds(relative);
        let found =
            change.outstanding_prompt(self.threshold.limits_increase(), self.level, misses)?;
        Some((self.prompts.get(found.stratum as usize)?, found))
    }

    /// Returns the smallest relative change of the figure that would have been found with a
    /// probability of 95 %, in the direction that the threshold limits. For a percentile it is the
    /// share of requests beyond the limit, and for the success rate that of failed requests.
    pub fn smallest_detectable(&self) -> Option<f64> {
        let sign = if self.threshold.limits_increase() { 1.0 } else { -1.0 };
        if let Some(change) = &self.change {
            let change = change.as_ref().ok()?;
            return Some(change.smallest_detectable(self.threshold.limit, sign, self.level));
        }
        if let Some(beyond) = &self.beyond {
            return Some(beyond.smallest_detectable(self.level));
        }
        let estimate = self.actual.ok()?;
        let mean = estimate.mean_error.filter(|_| !self.threshold.is_relative())?;
        let t = student(mean.freedom);
        let quantiles = t.inverse_cdf(1.0 - self.level) + t.inverse_cdf(0.95);
        let fails =
            self.threshold.limit + sign * (quantiles * mean.error + self.error.unwrap_or(0.0));
        (estimate.value > 0.0).then(|| fails / estimate.value - 1.0)
    }

    /// Returns the number of requests, or of pairs, that the figure is of.
    pub fn requests(&self) -> Option<usize> {
        match (&self.change, self.beyond) {
            (Some(change), _) => Some(change.as_ref().ok()?.effective?.0),
            (None, Some(beyond)) => Some(beyond.all),
            (None, None) => Some(self.actual.ok()?.n),
        }
    }

    /// Returns the number of independent requests that tell as much as the requests of the figure, which
    /// depend on their neighbours; `None` if the figure's interval does not account for that.
    pub fn effective_requests(&self) -> Option<f64> {
        let independent = |n: usize, share: f64| (n as f64 * share).max(1.0);
        if let Some(change) = &self.change {
            let (n, share) = change.as_ref().ok()?.effective?;
            return Some(independent(n, share));
        }
        if let Some(beyond) = self.beyond.filter(|_| !self.is_success_rate()) {
            return Some(independent(beyond.all, beyond.effective));
        }
        let estimate = self.actual.ok().filter(|_| !self.is_of_load)?;
        let share = estimate.mean_error?.dependence.effective;
        Some(independent(estimate.n, share))
    }
}

/// The p value of a figure at `distance` beyond its limit, given how far its interval reaches towards
/// the limit.
fn by_interval(distance: f64, side: f64, confidence: f64) -> f64 {
    let normal = student(1e6);
    let quantile = normal.inverse_cdf((1.0 + confidence) / 2.0);
    normal.sf(distance / side.max(f64::MIN_POSITIVE) * quantile)
}
