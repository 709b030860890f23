//! The uncertainty of figures that results from the uncertainty of arrivals. Pure.
//!
//! It describes the requests of this run, which the client may have read late. The error of the
//! instrument when it reads on time is separate ([`InstrumentError`]).
//!
//! [`InstrumentError`]: crate::verdict::InstrumentError

use std::time::Duration;

use crate::{
    metric::{ErrorOf, Metric, TimedArrival, Unit},
    sample::Sample,
    statistic::Statistic,
};

/// Returns how far the figure of one answer can be off, in the metric's base unit.
pub fn of(metric: &Metric, sample: &Sample) -> f64 {
    let known = &sample.uncertainty;
    match metric.error {
        ErrorOf::Arrival(arrival) => of_arrival(arrival, sample).as_secs_f64(),
        ErrorOf::Gap => known.largest.as_secs_f64(),
        ErrorOf::FirstToken => {
            in_proportion(metric, sample, known.first_token, sample.first_token())
        }
        ErrorOf::Whole => in_proportion(metric, sample, known.end, sample.end),
        ErrorOf::Generation => {
            let time = sample.generation_time().unwrap_or_default();
            in_proportion(metric, sample, sample.generation_uncertainty(), time)
        }
        ErrorOf::BeyondServer => {
            let theirs = sample.server_generation_time().unwrap_or_default();
            let is_known = metric.of(sample).is_some() && !theirs.is_zero();
            let part = || sample.generation_uncertainty().div_duration_f64(theirs);
            if is_known { 100.0 * part() } else { 0.0 }
        }
        ErrorOf::Nothing => 0.0,
    }
}

/// How far the time of one arrival can be off.
const fn of_arrival(arrival: TimedArrival, sample: &Sample) -> Duration {
    let known = &sample.uncertainty;
    match arrival {
        TimedArrival::Headers => known.headers,
        TimedArrival::FirstEvent => known.first_event,
        TimedArrival::FirstReasoning => known.first_reasoning,
        TimedArrival::FirstToken => known.first_token,
        TimedArrival::FirstAnswer => known.first_answer,
        TimedArrival::LastToken => known.last_token,
        TimedArrival::End => known.end,
    }
}

/// Returns the larger of the two errors of a figure that is proportional or inversely proportional
/// to `time`, if `time` is off by `uncertainty`.
///
/// A speed has no upper bound if its time can be zero. The time is then taken to be half as long at
/// least, which makes the error at most twice the speed.
fn in_proportion(metric: &Metric, sample: &Sample, uncertainty: Duration, time: Duration) -> f64 {
    let value = metric.of(sample).unwrap_or_default().abs();
    let (uncertainty, time) = (uncertainty.as_secs_f64(), time.as_secs_f64());
    if uncertainty <= 0.0 || time <= 0.0 {
        return 0.0;
    }
    let is_speed = metric.unit == Unit::TokensPerSecond;
    let part = match is_speed {
        true => uncertainty / (time - uncertainty).max(time / 2.0),
        false => uncertainty / time,
    };
    value * part
}

/// The index of a value in a list, and how far it can be off. The types are small because a long
/// run has many.
pub type Uncertain = (u32, f32);

/// Returns how far `statistic` of `values` can be off if some of them are `uncertain`.
///
/// A mean or an order statistic does not fall when a value grows. Its bounds are therefore those of
/// the lowest and of the highest possible values. A standard deviation changes by at most the
/// standard deviation of the errors.
pub fn of_statistic(statistic: Statistic, values: &[f64], uncertain: &[Uncertain]) -> f64 {
    if uncertain.is_empty() {
        return 0.0;
    }
    if statistic == Statistic::Sd {
        let squares: f64 = uncertain.iter().map(|(_, error)| f64::from(*error).powi(2)).sum();
        return (squares / (values.len().saturating_sub(1).max(1)) as f64).sqrt();
    }
    let shifted = |sign: f64| {
        let mut values = values.to_vec();
        for (place, error) in uncertain {
            values[*place as usize] += sign * f64::from(*error);
        }
        statistic.of(&values)
    };
    let Ok(value) = statistic.of(values) else { return 0.0 };
    let distance = |bound: f64| (bound - value).abs();
    shifted(-1.0).map_or(0.0, distance).max(shifted(1.0).map_or(0.0, distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uncertain_value_of_many_moves_a_mean_a_little_and_a_median_hardly() {
        let values: Vec<f64> = (0..101).map(f64::from).collect();
        let uncertain = [(100, 50.0)];
        let of = |statistic| of_statistic(statistic, &values, &uncertain);
        assert!((of(Statistic::Mean) - 50.0 / 101.0).abs() < 1e-9);
        assert!(of(Statistic::Median) <= 1.0);
        assert_eq!(of(Statistic::Max), 50.0);
        assert_eq!(of(Statistic::Min), 0.0);
        assert!((of(Statistic::Sd) - 5.0).abs() < 1e-9);
    }

    #[test]
    fn values_that_are_exact_have_no_uncertainty() {
        assert_eq!(of_statistic(Statistic::Mean, &[1.0, 2.0], &[]), 0.0);
    }
}
