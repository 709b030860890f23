//! The error of the instrument.

use crate::{
    metric::{ErrorOf, Metric},
    punctuality::{Deviation, Punctuality},
    statistic::Statistic,
    summary::Group,
};

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
