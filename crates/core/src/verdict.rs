//! Judges a threshold on a group: passed, failed or inconclusive. Pure.
//!
//! A verdict needs more than a figure on one side of its limit. The confidence interval, widened by
//! the error of the instrument, must be on that side too. Otherwise the verdict is inconclusive and
//! says what would decide it.

use crate::{
    baseline::{Baseline, BaselineMismatch, GroupBaseline},
    comparison::Change,
    interval::Interval,
    lacking::MissingFigures,
    metric::{ErrorOf, Metric, MetricSource},
    punctuality::{Deviation, Punctuality},
    statistic::{Absent, Statistic},
    summary::{Estimate, Group},
    threshold::Threshold,
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
    /// those of the baseline.
    pub uncertainty: f64,
    /// The change, for a relative threshold, or why it is unknown.
    pub change: Option<Result<Change, NoChange>>,
    /// The valid answers without the figure, by reason.
    pub lacking: MissingFigures,
    /// Why the figure may be wrong, with the number of affected answers. A doubtful figure decides
    /// nothing.
    pub doubts: Vec<(String, usize)>,
    /// The prompts that a change leaves out because one of the runs has no value for them.
    pub left_out: Vec<String>,
}

/// A baseline, and the current machine.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// The earlier run.
    pub baseline: &'a Baseline,
    /// The current machine.
    pub machine: &'a str,
}

/// Why the change against a baseline is unknown.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
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
}

/// The outcome of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole interval meets the limit.
    Pass,
    /// The whole interval misses the limit, or the figure is absent.
    Fail,
    /// The interval or the error of the instrument includes the limit.
    Inconclusive,
}

/// What an inconclusive verdict needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// About this many more requests of the same kind.
    Requests(usize),
    /// About this many more runs of the load.
    Runs(usize),
    /// A baseline with more requests: the present one does not bound the change.
    Baseline,
    /// A remedy for the doubts about the figure.
    Certainty,
    /// A more precise instrument: more requests would not help.
    MorePrecision,
}

impl Verdict {
    /// Judges a group at the given confidence. `instrument` is the measured error of the
    /// instrument. An absent figure never passes.
    pub fn of(
        threshold: Threshold,
        group: &Group,
        instrument: Option<InstrumentError>,
        reference: Option<Reference<'_>>,
        confidence: f64,
    ) -> Self {
        let actual = group.estimate(threshold.metric, threshold.statistic, confidence);
        let doubts = group.tally.doubts(threshold.metric);
        let mut doubts: Vec<_> =
            doubts.map(|(reason, answers)| (reason.to_owned(), answers)).collect();
        // Only a relative threshold looks at the baseline.
        let compared = threshold
            .is_relative
            .then_some(reference)
            .flatten()
            .map(|reference| compare(threshold, group, reference, confidence));
        let uncertainty = match &compared {
            Some(Ok(compared)) => compared.uncertainty,
            _ => group.tally.uncertainty(threshold.metric, threshold.statistic),
        };
        let error = actual
            .ok()
            .zip(instrument)
            .and_then(|(actual, instrument)| instrument.of(threshold.metric, actual.value, group));
        // Late reads widen the error even if the instrument was not calibrated.
        let error = match uncertainty > 0.0 {
            true => Some(error.unwrap_or(0.0) + uncertainty),
            false => error,
        };
        let mut left_out = Vec::new();
        let change = compared.map(|compared| {
            compared.map(|compared| {
                doubts.extend(compared.doubts);
                left_out = compared.left_out;
                compared.change
            })
        });
        let lacking = group.lacking(threshold.metric);
        Self { threshold, actual, error, uncertainty, change, lacking, doubts, left_out }
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
    fn is_doubtful(&self) -> bool {
        let is_there = match &self.change {
            None => self.actual.is_ok() && !self.threshold.is_relative,
            Some(change) => change.is_ok(),
        };
        is_there && !self.doubts.is_empty()
    }

    /// Returns the outcome, doubts aside.
    fn undoubted(&self) -> Outcome {
        match &self.change {
            Some(Ok(change)) => self.of_change(change),
            Some(Err(_)) => Outcome::Fail,
            None if self.threshold.is_relative => Outcome::Fail,
            None => self.of_figure(),
        }
    }

    /// Judges a change. A regression is statistically significant, exceeds the limit, and exceeds
    /// what the instrument can cause.
    fn of_change(&self, change: &Change) -> Outcome {
        let floor = self.floor();
        // Both conditions are on the point estimate. Significance is a separate condition, so that
        // neither a large change by chance nor a tiny certain one fails.
        let is_beyond =
            !self.threshold.holds(change.relative) && (change.now - change.before).abs() > floor;
        let Interval { low, high } = change.interval.widened(floor / change.before);
        match (self.threshold.holds(low), self.threshold.holds(high)) {
            _ if is_beyond && change.is_significant() => Outcome::Fail,
            (true, true) => Outcome::Pass,
            _ => Outcome::Inconclusive,
        }
    }

    fn of_figure(&self) -> Outcome {
        let Ok(actual) = self.actual else { return Outcome::Fail };
        let as_it_is = Interval { low: actual.value, high: actual.value };
        let interval = actual.interval.map(|interval| interval.unwrap_or(as_it_is));
        // Minimum and maximum have no interval; they describe these requests.
        let Interval { low, high } =
            interval.unwrap_or(as_it_is).widened(self.error.unwrap_or(0.0));
        match (self.threshold.holds(low), self.threshold.holds(high)) {
            // Without an interval, a figure that meets its limit may do so by chance. A figure that
            // misses it fails anyway.
            (true, true) if interval.is_err() => Outcome::Inconclusive,
            (true, true) => Outcome::Pass,
            (false, false) => Outcome::Fail,
            _ => Outcome::Inconclusive,
        }
    }

    /// Returns what an inconclusive verdict needs. The interval is assumed to shrink with the
    /// square root of the number of requests.
    pub fn needed(&self) -> Option<Needed> {
        let needed = self.needed_in_its_unit()?;
        match (needed, self.threshold.metric.read) {
            // A figure of loads has one value per run.
            (Needed::Requests(runs), MetricSource::Load(_)) => Some(Needed::Runs(runs)),
            _ => Some(needed),
        }
    }

    fn needed_in_its_unit(&self) -> Option<Needed> {
        let actual = self.actual.ok().filter(|_| self.outcome() == Outcome::Inconclusive)?;
        if self.is_doubtful() {
            return Some(Needed::Certainty);
        }
        if let Some(Ok(change)) = &self.change {
            return Some(self.needed_for_change(change, actual.n));
        }
        let room = (actual.value - self.threshold.limit).abs() - self.error.unwrap_or(0.0);
        if self.uncertainty > 0.0 && room <= 0.0 {
            return Some(Needed::MorePrecision);
        }
        let interval = match actual.interval {
            Ok(Some(interval)) => interval,
            Ok(None) => return Some(Needed::MorePrecision),
            Err(Absent::TooFew { needs, has }) => {
                // For a load, these are batches of its runs.
                let a_run = match self.threshold.metric.read {
                    MetricSource::Load(_) => (has / actual.n.max(1)).max(1),
                    _ => 1,
                };
                return Some(Needed::Requests((needs - has).div_ceil(a_run)));
            }
            Err(_) => return None,
        };
        let above = actual.value > self.threshold.limit;
        let half = if above { actual.value - interval.low } else { interval.high - actual.value };
        Some(needed(half, room, actual.n))
    }

    /// Returns what a change needs to pass or to become significant.
    fn needed_for_change(&self, change: &Change, n: usize) -> Needed {
        let floor = self.floor() / change.before;
        // More requests now cannot help if the baseline is too small.
        if !change.is_bounded() {
            return Needed::Baseline;
        }
        let Interval { low, high } = change.interval;
        if !self.threshold.holds(change.relative) {
            let is_within_error = (change.now - change.before).abs() <= floor * change.before;
            return match is_within_error {
                true => Needed::MorePrecision,
                false => more(change.times_to_significance(), n),
            };
        }
        needed((high - low) / 2.0, (change.relative - self.threshold.limit).abs() - floor, n)
    }
}

/// Returns how many requests, in addition to `n`, make half of the interval as small as `room`.
fn needed(half: f64, room: f64, n: usize) -> Needed {
    if room > 0.0 { more((half / room).powi(2), n) } else { Needed::MorePrecision }
}

/// Returns how many requests, in addition to `n`, make `times` as many.
fn more(times: f64, n: usize) -> Needed {
    let more = (times - 1.0) * n as f64;
    match more.is_finite() && more < 1e7 {
        true => Needed::Requests((more.ceil() as usize).max(1)),
        false => Needed::MorePrecision,
    }
}

/// A change with the circumstances of the comparison.
struct ComparedChange {
    change: Change,
    uncertainty: f64,
    /// Why the baseline's figure may be wrong, with the number of affected answers.
    doubts: Vec<(String, usize)>,
    left_out: Vec<String>,
}

fn compare(
    threshold: Threshold,
    group: &Group,
    reference: Reference<'_>,
    confidence: f64,
) -> Result<ComparedChange, NoChange> {
    let Threshold { metric, statistic, .. } = threshold;
    let now = GroupBaseline::of(group, reference.machine);
    let then = reference.baseline.group(&now)?;
    then.comparable_to(&now)?;
    let absent = || match group.lacking(metric) {
        lacking if lacking.all == 0 => {
            NoChange::Absent(Absent::NoValidTrial { failed: group.tally.failed() })
        }
        lacking => NoChange::Lacking(lacking),
    };
    let share = group.spec.min_share;
    let before = then.side(metric, share).ok_or(NoChange::Figure(metric.name))?;
    let before = before.map_err(NoChange::Then)?;
    let later = now.side(metric, share).and_then(Result::ok).ok_or_else(absent)?;
    let pair = now.pair(before, later);
    let (before, later) = (pair.before.stratified(), pair.now.stratified());
    let change = Change::of(statistic, before, later, confidence).map_err(NoChange::Absent)?;
    let doubts = then.doubts(metric).iter();
    let doubts = doubts.map(|(why, answers)| (format!("in the baseline {why}"), *answers));
    Ok(ComparedChange {
        change,
        uncertainty: pair.uncertainty(statistic),
        doubts: doubts.collect(),
        left_out: pair.left_out,
    })
}

/// The 99th percentiles of the errors of the instrument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InstrumentError {
    /// The error of an arrival, seconds.
    pub arrival: f64,
    /// The error of a gap between tokens, seconds.
    pub gap: f64,
    /// The relative error of `generation_time`.
    pub generation: f64,
}

impl InstrumentError {
    /// Adds the lateness of the simulated endpoint, for figures that stand for a script. The mean
    /// lateness is enough, because its variation is already in the spread of the requests.
    pub fn with_simulator(self, punctuality: &Punctuality) -> Self {
        let mean = |of: Option<Deviation>| of.map_or(0.0, |deviation| deviation.mean.abs());
        let generation = punctuality.generation();
        let part = generation.map_or(0.0, |late| late.mean.abs() / late.scripted);
        Self {
            arrival: self.arrival + mean(punctuality.first()),
            gap: self.gap + punctuality.latest(),
            generation: self.generation + part,
        }
    }

    /// Returns how far `actual`, a figure of `group` in the metric's base unit, can be off; `None`
    /// if no error is known.
    pub fn of(&self, metric: &Metric, actual: f64, group: &Group) -> Option<f64> {
        let in_proportion_to = |time: &Metric| {
            let time = group.figure(time, Statistic::Mean).ok()?;
            (time > 0.0).then(|| actual.abs() * self.arrival / time)
        };
        match metric.error {
            ErrorOf::Arrival(_) => Some(self.arrival),
            ErrorOf::Gap => Some(self.gap),
            ErrorOf::Generation => Some(actual.abs() * self.generation),
            ErrorOf::FirstToken => in_proportion_to(Metric::TTFT),
            ErrorOf::Whole => in_proportion_to(Metric::TOTAL_TIME),
            ErrorOf::BeyondServer => Some(100.0 * self.generation),
            ErrorOf::Nothing => None,
        }
    }
}
