//! [`Threshold`] × [`Group`] → [`Verdict`]: on which side of its limit is a figure, are there enough
//! requests to say, and is the instrument exact enough? Pure.

use crate::{
    interval::Interval,
    metric::{ErrorOf, Metric},
    statistic::{Absent, Statistic},
    summary::{Estimate, Group},
    threshold::Threshold,
};

/// What came of a threshold.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// The threshold.
    pub threshold: Threshold,
    /// The figure, in the metric's base unit, or why there is none.
    pub actual: Result<Estimate, Absent>,
    /// How far the instrument can be off, in the base unit, where that is known.
    pub error: Option<f64>,
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
pub enum Wanting {
    /// About so many more requests, if they are like those before.
    Requests(usize),
    /// No number of them: the figure is at the limit, or nearer to it than the instrument is exact.
    Exactness,
}

impl Verdict {
    /// Judges a group, as sure as `confidence`, by figures of an instrument that is off by up to
    /// `instrument`, where that was measured. A figure that is absent never passes.
    pub fn of(
        threshold: Threshold,
        group: &Group,
        instrument: Option<InstrumentError>,
        confidence: f64,
    ) -> Self {
        let actual = group.estimate(threshold.metric, threshold.statistic, confidence);
        let error = actual
            .ok()
            .zip(instrument)
            .and_then(|(actual, instrument)| instrument.of(threshold.metric, actual.value, group));
        Self { threshold, actual, error }
    }

    /// The verdict.
    pub fn outcome(&self) -> Outcome {
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
    pub fn wanting(&self) -> Option<Wanting> {
        let actual = self.actual.ok().filter(|_| self.outcome() == Outcome::Inconclusive)?;
        let interval = match actual.interval {
            Ok(Some(interval)) => interval,
            Ok(None) => return Some(Wanting::Exactness),
            Err(Absent::TooFew { needs, has }) => return Some(Wanting::Requests(needs - has)),
            Err(_) => return None,
        };
        let above = actual.value > self.threshold.limit;
        let half = if above { actual.value - interval.low } else { interval.high - actual.value };
        let room = (actual.value - self.threshold.limit).abs() - self.error.unwrap_or(0.0);
        let times = (half / room).powi(2);
        let more = (times - 1.0) * actual.n as f64;
        Some(match room > 0.0 && more.is_finite() && more < 1e7 {
            true => Wanting::Requests((more.ceil() as usize).max(1)),
            false => Wanting::Exactness,
        })
    }
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
    /// How far `actual`, a figure of `group` in the metric's base unit, can be off. `None` where no
    /// error is known.
    pub fn of(&self, metric: &Metric, actual: f64, group: &Group) -> Option<f64> {
        let in_proportion_to = |name| {
            let time = group.figure(Metric::named(name)?, Statistic::Mean).ok()?;
            (time > 0.0).then(|| actual.abs() * self.arrival / time)
        };
        match metric.error {
            ErrorOf::Arrival => Some(self.arrival),
            ErrorOf::Gap => Some(self.gap),
            ErrorOf::Generation => Some(actual.abs() * self.generation),
            ErrorOf::FirstToken => in_proportion_to("ttft"),
            ErrorOf::Whole => in_proportion_to("total_time"),
            ErrorOf::Nothing => None,
        }
    }
}
