//! One load of a search: whether the limits hold under it.

use std::{fmt, ops::Range};

use super::fit::MissedShare;
use crate::{
    interval::{self, Interval, StratifiedSample, of_share},
    metric::{Metric, MetricSource},
    recording::RequestError,
    sample::Sample,
    serial::Dependence,
    statistic::Statistic,
    threshold::{ParseThresholdError, Threshold},
};

/// The probability of a wrong decision about one limit under one load, on each side.
const RISK: f64 = 0.05;

/// The share of failed requests that a load without a limit on `success_rate` may have.
const MAX_FAILED: f64 = 0.01;

/// The growth of the number of requests in flight, as a share of the arrivals, above which a server
/// does not keep up with an open loop.
const MAX_GROWTH: f64 = 0.1;

/// How many standard deviations of a Poisson number the growth must have.
const CLEAR_GROWTH: f64 = 4.0;

/// The limits that a load must hold, such as `ttft p95 <= 500 ms`.
#[derive(Debug, Clone, Default)]
pub struct LoadLimits(Vec<Threshold>);

impl LoadLimits {
    /// Creates limits of these thresholds, each of which [`parse`](Self::parse) returned.
    pub fn new(limits: Vec<Threshold>) -> Self {
        Self(limits)
    }

    /// Parses one limit: a statistic of a figure of requests, `success_rate` or `goodput_ratio`.
    pub fn parse(text: &str) -> Result<Threshold, ParseThresholdError> {
        let limit = Threshold::parse(text)?;
        let error = |message: String, help: &str| ParseThresholdError {
            message,
            offset: 0,
            help: help.to_owned(),
        };
        let name = limit.metric.name;
        if limit.is_relative() {
            let message = format!("the limit on `{name}` is relative");
            return Err(error(message, "write a value, such as `ttft p95 <= 500 ms`"));
        }
        let is_share = is_share(limit.metric);
        if !is_share && !matches!(limit.metric.read, MetricSource::Sample(_)) {
            let message = format!("`{name}` is not a figure of requests");
            let help = "limit `ttft`, `tpot`, `e2e` or another figure of a request, `success_rate` \
                        or `goodput_ratio`";
            return Err(error(message, help));
        }
        if matches!(limit.statistic, Statistic::Min | Statistic::Max | Statistic::Sd) {
            let message = format!("`{}` of a load cannot be searched for", limit.statistic);
            return Err(error(message, "limit the mean or a percentile, such as p99"));
        }
        Ok(limit)
    }

    /// Returns the limits.
    pub fn iter(&self) -> impl Iterator<Item = &Threshold> {
        self.0.iter()
    }

    /// Returns the number of limits.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no limits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a request for each limit; `None` where it has none.
    pub fn values(
        &self,
        outcome: &Result<Sample, RequestError>,
        is_good: Option<bool>,
    ) -> Vec<Option<f64>> {
        let value = |limit: &Threshold| match limit.metric.read {
            MetricSource::All => Some(f64::from(u8::from(outcome.is_ok()))),
            _ if limit.metric == Metric::GOODPUT_RATIO => {
                is_good.map(|good| f64::from(u8::from(good)))
            }
            _ => outcome.as_ref().ok().and_then(|sample| limit.metric.of(sample)),
        };
        self.0.iter().map(value).collect()
    }
}

impl fmt::Display for LoadLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, limit) in self.0.iter().enumerate() {
            let gap = if nth > 0 { ", " } else { "" };
            write!(f, "{gap}{limit}")?;
        }
        Ok(())
    }
}

/// Whether the figure is a share of requests: its values are 0 and 1, the figure a percentage.
fn is_share(metric: &Metric) -> bool {
    matches!(metric.read, MetricSource::All) || metric == Metric::GOODPUT_RATIO
}

/// A request of a load that was searched with. Times are in seconds since the start of the load.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadRequest {
    /// When it was due or, in a closed loop, when it was sent.
    pub start: f64,
    /// When its answer ended.
    pub end: f64,
    /// Whether the answer is valid.
    pub is_valid: bool,
    /// Its value for each limit.
    pub values: Vec<Option<f64>>,
}

/// Whether a limit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitState {
    /// It holds beyond chance.
    Held,
    /// It is missed beyond chance.
    Missed,
    /// Neither is certain.
    Unclear,
}

/// A limit under a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitResult {
    /// The figure in the base unit; infinite if too many requests failed, `None` without requests.
    pub figure: Option<f64>,
    /// Its interval.
    pub interval: Interval,
    /// Whether the limit holds.
    pub state: LimitState,
    /// Whether the figure itself holds the limit.
    pub looks_held: bool,
    /// The share of requests that miss the limit of a percentile or a share, in an open loop.
    pub missed: Option<MissedShare>,
    /// The distance from the limit on a logarithmic scale, positive if the figure holds it; `None` if
    /// it has no such distance.
    pub margin: Option<f64>,
}

/// Why a load does not hold, other than by a limit.
#[derive(Debug, Clone, PartialEq)]
pub enum Overload {
    /// Requests arrived faster than they were answered: the growth of the number in flight, as a
    /// share of the arrivals.
    QueueGrows(f64),
    /// More requests failed than a load without a limit on `success_rate` may have: the share.
    Failures(f64),
    /// The load was not reached, and why.
    NotReached(String),
}

/// One load and what it showed.
#[derive(Debug, Clone)]
pub struct SearchPoint {
    /// The load: requests per second, or at a time.
    pub load: f64,
    /// The rate of the arrivals that were judged, in an open loop.
    pub arrival_rate: Option<f64>,
    /// The requests that were judged.
    pub requests: usize,
    /// The requests at its start that were left out.
    pub left_out: usize,
    /// The limits, in their order.
    pub limits: Vec<LimitResult>,
    /// Why it does not hold, other than by a limit.
    pub overload: Option<Overload>,
    /// The answers that ended per second in the middle of an open loop.
    pub completed: Option<f64>,
}

impl SearchPoint {
    /// Judges the requests of an open or a closed loop.
    pub(super) fn of(
        load: f64,
        mut requests: Vec<LoadRequest>,
        limits: &LoadLimits,
        is_open: bool,
    ) -> Self {
        requests.sort_by(|a, b| a.start.total_cmp(&b.start));
        let cut = (LEFT_OUT * requests.len() as f64) as usize;
        let judged = &requests[cut..];
        let failed = judged.iter().filter(|request| !request.is_valid).count() as f64
            / judged.len().max(1) as f64;
        let limits_failures = limits.0.iter().any(|of| matches!(of.metric.read, MetricSource::All));
        let growth = if is_open { growth(&requests, cut) } else { None };
        let overload = growth.map(Overload::QueueGrows).or_else(|| {
            (failed > MAX_FAILED && !limits_failures).then_some(Overload::Failures(failed))
        });
        let result = |(nth, limit): (usize, &Threshold)| {
            let values: Vec<_> = judged.iter().map(|request| request.values[nth]).collect();
            judge(limit, &values, is_open)
        };
        Self {
            load,
            arrival_rate: if is_open { arrival_rate(judged) } else { None },
            requests: judged.len(),
            left_out: cut,
            limits: limits.0.iter().enumerate().map(result).collect(),
            overload,
            completed: if is_open { completed(&requests) } else { None },
        }
    }

    /// A load that was not reached.
    pub(super) fn not_reached(load: f64, why: String) -> Self {
        Self {
            load,
            arrival_rate: None,
            requests: 0,
            left_out: 0,
            limits: Vec::new(),
            overload: Some(Overload::NotReached(why)),
            completed: None,
        }
    }

    /// Returns the load that the server got: the rate of the arrivals in an open loop.
    pub fn rate(&self) -> f64 {
        self.arrival_rate.unwrap_or(self.load)
    }

    /// Returns whether the load holds all limits.
    pub fn state(&self) -> LimitState {
        let has = |state| self.limits.iter().any(|limit| limit.state == state);
        if self.overload.is_some() || has(LimitState::Missed) || self.requests == 0 {
            LimitState::Missed
        } else if has(LimitState::Unclear) {
            LimitState::Unclear
        } else {
            LimitState::Held
        }
    }

    /// Returns whether all figures hold their limits.
    pub fn looks_held(&self) -> bool {
        let is_held = self.limits.iter().all(|limit| limit.looks_held);
        is_held && self.overload.is_none() && self.requests > 0
    }
}

/// The rate of the arrivals.
fn arrival_rate(requests: &[LoadRequest]) -> Option<f64> {
    let (first, last) = (requests.first()?, requests.last()?);
    let seconds = last.start - first.start;
    (seconds > 0.0).then(|| (requests.len() - 1) as f64 / seconds)
}

/// The rate at which answers ended, between a fifth and four fifths of them: at the start the server
/// fills, at the end it empties.
fn completed(requests: &[LoadRequest]) -> Option<f64> {
    let valid = requests.iter().filter(|request| request.is_valid);
    let mut ends: Vec<_> = valid.map(|request| request.end).collect();
    ends.sort_by(f64::total_cmp);
    let (from, to) = (ends.len() / 5, ends.len() * 4 / 5);
    let seconds = ends.get(to)? - ends.get(from)?;
    (seconds > 0.0).then(|| (to - from) as f64 / seconds)
}

/// The share of the first requests that are not judged: the server was empty when they came.
const LEFT_OUT: f64 = 0.2;

/// Returns the growth of the number of requests in flight after the first `cut` ones as a share of
/// the arrivals, where it is beyond chance. It compares the first and the last fifth of the arrivals.
fn growth(requests: &[LoadRequest], cut: usize) -> Option<f64> {
    let (all, fifth) = (requests.len(), (requests.len() - cut) / 5);
    if fifth == 0 {
        return None;
    }
    let mut ends: Vec<_> = requests.iter().map(|request| request.end).collect();
    ends.sort_by(f64::total_cmp);
    let in_flight = |nth: usize| {
        let ended = ends.partition_point(|end| *end <= requests[nth].start);
        nth as f64 - ended as f64
    };
    let mean_in_flight =
        |range: Range<usize>| range.clone().map(in_flight).sum::<f64>() / range.len() as f64;
    let early = mean_in_flight(cut..cut + fifth);
    let grown = mean_in_flight(all - fifth..all) - early;
    let share = grown / (all - cut - fifth) as f64;
    let is_clear = grown > CLEAR_GROWTH * early.max(1.0).sqrt();
    (share > MAX_GROWTH && is_clear).then_some(share)
}

/// Judges one limit.
fn judge(limit: &Threshold, values: &[Option<f64>], is_open: bool) -> LimitResult {
    let (figure, interval) = match is_share(limit.metric) {
        true => share(values),
        false => statistic(limit, values),
    };
    let is_upper = limit.limits_increase();
    let holds = |value: f64| limit.holds(value);
    let [best, worst] = match is_upper {
        true => [interval.low, interval.high],
        false => [interval.high, interval.low],
    };
    let state = match figure {
        None => LimitState::Missed,
        Some(_) if holds(worst) => LimitState::Held,
        Some(_) if !holds(best) => LimitState::Missed,
        Some(_) => LimitState::Unclear,
    };
    let margin = figure.filter(|figure| *figure > 0.0 && limit.limit > 0.0).map(|figure| {
        let ratio = (limit.limit / figure).ln();
        if is_upper { ratio } else { -ratio }
    });
    // A share is flat and then falls off, unlike a line.
    let margin = margin.filter(|margin| margin.is_finite() && !is_share(limit.metric));
    let missed = missed_share(limit, values).filter(|_| is_open || is_share(limit.metric));
    LimitResult { figure, interval, state, looks_held: figure.is_some_and(holds), missed, margin }
}

/// The share of requests that miss the limit, if it allows some to.
fn missed_share(limit: &Threshold, values: &[Option<f64>]) -> Option<MissedShare> {
    let allowed = match limit.statistic {
        _ if is_share(limit.metric) => 1.0 - limit.limit / 100.0,
        Statistic::Percentile(percent) if limit.limits_increase() => 1.0 - percent / 100.0,
        Statistic::Percentile(percent) => percent / 100.0,
        Statistic::Median => 0.5,
        _ => return None,
    };
    let is_met =
        |value: &f64| if is_share(limit.metric) { *value > 0.0 } else { limit.holds(*value) };
    let missed = values.iter().filter(|value| !value.as_ref().is_some_and(is_met)).count();
    let share = missed as f64 / values.len().max(1) as f64;
    let is_possible = allowed > 0.0 && allowed < 1.0;
    is_possible.then_some(MissedShare { share, allowed, requests: values.len() })
}

/// The percentage of ones among the values, with its interval.
fn share(values: &[Option<f64>]) -> (Option<f64>, Interval) {
    let values: Vec<_> = values.iter().map(|value| value.unwrap_or_default()).collect();
    if values.is_empty() {
        return (None, Interval::ALL);
    }
    let n = values.len() as f64;
    let share = values.iter().sum::<f64>() / n;
    let residuals: Vec<_> = values.iter().map(|value| value - share).collect();
    let all = (n * Dependence::of(&residuals).effective).round().max(1.0);
    let of = of_share((share * all).round() as usize, all as usize, 1.0 - 2.0 * RISK);
    (Some(100.0 * share), Interval { low: 100.0 * of.low, high: 100.0 * of.high })
}

/// The statistic of the values, with its interval. A failed request is worse than every value in a
/// percentile, and left out of a mean.
fn statistic(limit: &Threshold, values: &[Option<f64>]) -> (Option<f64>, Interval) {
    let worst = if limit.limits_increase() { f64::INFINITY } else { f64::NEG_INFINITY };
    let values: Vec<f64> = match limit.statistic {
        Statistic::Mean => values.iter().flatten().copied().collect(),
        _ => values.iter().map(|value| value.unwrap_or(worst)).collect(),
    };
    let sample = StratifiedSample { values: &values, strata: &[] };
    let figure = limit.statistic.of_few(&values);
    let interval = interval::of(limit.statistic, sample, 1.0 - 2.0 * RISK);
    (figure, interval.ok().flatten().unwrap_or(Interval::ALL))
}
