//! [`Threshold`] × [`Group`] → [`Verdict`]: on which side of its limit is a figure, are there enough
//! requests to say, and is the instrument exact enough? Pure.

use crate::{
    baseline::{Baseline, GroupBaseline, NoBaseline},
    comparison::Change,
    interval::Interval,
    lacking::Lacking,
    metric::{ErrorOf, Metric, Read},
    punctuality::{Deviation, Punctuality},
    statistic::{Absent, Statistic},
    summary::{Estimate, Group},
    threshold::Threshold,
};

/// What came of a threshold.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The threshold.
    pub threshold: Threshold,
    /// The figure, in the metric's base unit, or why there is none.
    pub actual: Result<Estimate, Absent>,
    /// How far the instrument can be off, in the base unit, where that is known:
    /// [`uncertainty`](Self::uncertainty) included.
    pub error: Option<f64>,
    /// The part of it that is of these requests: how late this program read them. Of a change also
    /// how late it read those of the baseline.
    pub uncertainty: f64,
    /// Of a threshold that is relative: the change, or why it is not known.
    pub change: Option<Result<Change, NoChange>>,
    /// The valid answers that lack the figure, and why.
    pub lacking: Lacking,
    /// Why the figure may be wrong, and in how many valid answers: nothing is then decided.
    pub doubts: Vec<(String, usize)>,
    /// Of a change: the prompts that it is not of, since one of the runs has no value of theirs.
    pub left_out: Vec<String>,
}

/// A run to compare with, and what measures now.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// The run.
    pub baseline: &'a Baseline,
    /// The machine that measures now.
    pub machine: &'a str,
}

/// Why a change against a baseline is not known.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoChange {
    /// There is nothing to compare with.
    #[error(transparent)]
    Baseline(#[from] NoBaseline),
    /// A figure is missing, then or now.
    #[error("{0}")]
    Absent(Absent),
    /// Too many requests of the baseline lack the figure.
    #[error("in the baseline {0}")]
    Then(Absent),
    /// Too many requests now lack the figure.
    #[error("{0}")]
    Lacking(Lacking),
    /// The baseline does not have the figure.
    #[error("the baseline has no {0}")]
    Figure(&'static str),
}

/// On which side of its limit a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// On the right side, with all of its interval.
    Pass,
    /// On the wrong side with all of its interval, or there is no figure.
    Fail,
    /// The limit lies in its interval, or nearer than the instrument is exact.
    Inconclusive,
}

/// What would decide an inconclusive verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// About so many more requests, if they are like those before.
    Requests(usize),
    /// About so many more runs of the load.
    Runs(usize),
    /// A baseline of more requests: what it has does not bound the figure.
    Baseline,
    /// An end of the doubts about the figure.
    Certainty,
    /// No number of them: the figure is at the limit, or nearer to it than the instrument is exact.
    MorePrecision,
}

impl Verdict {
    /// Judges a group, as sure as `confidence`, by figures of an instrument that is off by up to
    /// `instrument`, where that was measured. A figure that is absent never passes.
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

    /// How large a difference between two runs can be by the instrument's error in each and by what
    /// is known of arrivals, in the base unit.
    pub fn floor(&self) -> f64 {
        2.0 * (self.error.unwrap_or(0.0) - self.uncertainty).max(0.0) + self.uncertainty
    }

    /// The verdict. What is absent fails; what may be wrong decides nothing.
    pub fn outcome(&self) -> Outcome {
        match self.undoubted() {
            _ if self.is_doubtful() => Outcome::Inconclusive,
            outcome => outcome,
        }
    }

    /// Whether there is a figure that may be wrong.
    fn is_doubtful(&self) -> bool {
        let is_there = match &self.change {
            None => self.actual.is_ok() && !self.threshold.is_relative,
            Some(change) => change.is_ok(),
        };
        is_there && !self.doubts.is_empty()
    }

    /// The verdict, if no figure is wrong.
    fn undoubted(&self) -> Outcome {
        match &self.change {
            Some(Ok(change)) => self.of_change(change),
            Some(Err(_)) => Outcome::Fail,
            None if self.threshold.is_relative => Outcome::Fail,
            None => self.of_figure(),
        }
    }

    /// A regression is more than luck, larger than its limit, and larger than what the instrument
    /// may have been off in either run.
    fn of_change(&self, change: &Change) -> Outcome {
        let floor = self.floor();
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
        let Interval { low, high } =
            interval.unwrap_or(as_it_is).widened(self.error.unwrap_or(0.0));
        match (self.threshold.holds(low), self.threshold.holds(high)) {
            // Without an interval nobody knows whether it was luck.
            (true, true) if interval.is_err() => Outcome::Inconclusive,
            (true, true) => Outcome::Pass,
            (false, false) => Outcome::Fail,
            _ => Outcome::Inconclusive,
        }
    }

    /// What would decide it, if it is inconclusive. The interval is taken to shrink with the root
    /// of the number of requests.
    pub fn needed(&self) -> Option<Needed> {
        let wanting = self.wanting_of_its_unit()?;
        match (wanting, self.threshold.metric.read) {
            // A load's figure is one of a run.
            (Needed::Requests(runs), Read::Load(_)) => Some(Needed::Runs(runs)),
            _ => Some(wanting),
        }
    }

    fn wanting_of_its_unit(&self) -> Option<Needed> {
        let actual = self.actual.ok().filter(|_| self.outcome() == Outcome::Inconclusive)?;
        if self.is_doubtful() {
            return Some(Needed::Certainty);
        }
        if let Some(Ok(change)) = &self.change {
            return Some(self.wanting_of_change(change, actual.n));
        }
        let room = (actual.value - self.threshold.limit).abs() - self.error.unwrap_or(0.0);
        if self.uncertainty > 0.0 && room <= 0.0 {
            return Some(Needed::MorePrecision);
        }
        let interval = match actual.interval {
            Ok(Some(interval)) => interval,
            Ok(None) => return Some(Needed::MorePrecision),
            Err(Absent::TooFew { needs, has }) => {
                // Of a load these are pieces of its runs.
                let a_run = match self.threshold.metric.read {
                    Read::Load(_) => (has / actual.n.max(1)).max(1),
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

    /// What keeps it from passing, or from being significant.
    fn wanting_of_change(&self, change: &Change, n: usize) -> Needed {
        let floor = self.floor() / change.before;
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

/// How many requests more than `n` make an interval so narrow that the half of it is `room`.
fn needed(half: f64, room: f64, n: usize) -> Needed {
    if room > 0.0 { more((half / room).powi(2), n) } else { Needed::MorePrecision }
}

/// How many requests more than `n` are so many `times` as many.
fn more(times: f64, n: usize) -> Needed {
    let more = (times - 1.0) * n as f64;
    match more.is_finite() && more < 1e7 {
        true => Needed::Requests((more.ceil() as usize).max(1)),
        false => Needed::MorePrecision,
    }
}

/// A change, and what is to be known of it.
struct Compared {
    change: Change,
    uncertainty: f64,
    /// Why the baseline's figure may be wrong, and in how many answers.
    doubts: Vec<(String, usize)>,
    left_out: Vec<String>,
}

fn compare(
    threshold: Threshold,
    group: &Group,
    reference: Reference<'_>,
    confidence: f64,
) -> Result<Compared, NoChange> {
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
    let (before, later) = (pair.before.sampled(), pair.now.sampled());
    let change = Change::of(statistic, before, later, confidence).map_err(NoChange::Absent)?;
    let doubts = then.doubts(metric).iter();
    let doubts = doubts.map(|(why, answers)| (format!("in the baseline {why}"), *answers));
    Ok(Compared {
        change,
        uncertainty: pair.uncertainty(statistic),
        doubts: doubts.collect(),
        left_out: pair.left_out,
    })
}

/// The 99th percentiles of the instrument's errors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InstrumentError {
    /// Of an arrival, seconds.
    pub arrival: f64,
    /// Of a gap between tokens, seconds.
    pub gap: f64,
    /// Of `generation_time`, as a part of it.
    pub generation: f64,
}

impl InstrumentError {
    /// These errors of a figure that is to say something of a script, by an endpoint that was late: on
    /// average, since how lateness varies is in the spread of the requests already.
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

    /// How far `actual`, a figure of `group` in the metric's base unit, can be off. `None` where no
    /// error is known.
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
