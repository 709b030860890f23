//! [`Threshold`] × [`Group`] → [`Verdict`]: on which side of its limit is a figure, and is the
//! instrument exact enough to say? Pure.

use crate::{
    metric::{ErrorOf, Metric},
    statistic::{Absent, Statistic},
    summary::Group,
    threshold::Threshold,
};

/// What came of a threshold.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// The threshold.
    pub threshold: Threshold,
    /// The figure, in the metric's base unit, or why there is none.
    pub actual: Result<f64, Absent>,
    /// How far the figure can be off, in the base unit, where that is known.
    pub error: Option<f64>,
}

/// On which side of its limit a figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// On the right side.
    Pass,
    /// On the wrong side, or there is none.
    Fail,
    /// Nearer to the limit than the instrument is exact.
    Inconclusive,
}

impl Verdict {
    /// Judges a model by figures of an instrument that is off by up to `instrument`, where that
    /// was measured. A figure that is absent never passes.
    pub fn of(threshold: Threshold, group: &Group, instrument: Option<InstrumentError>) -> Self {
        let actual = group.figure(threshold.metric, threshold.statistic);
        let error = actual
            .ok()
            .zip(instrument)
            .and_then(|(actual, instrument)| instrument.of(threshold.metric, actual, group));
        Self { threshold, actual, error }
    }

    /// The verdict.
    pub fn outcome(&self) -> Outcome {
        let Ok(actual) = self.actual else { return Outcome::Fail };
        let distance = (actual - self.threshold.limit).abs();
        match self.error {
            Some(error) if distance < error => Outcome::Inconclusive,
            _ if self.threshold.holds(actual) => Outcome::Pass,
            _ => Outcome::Fail,
        }
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
    /// How far `actual`, a figure of `model` in the metric's base unit, can be off. `None` where no
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
