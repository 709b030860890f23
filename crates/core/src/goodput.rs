//! Limits that each request must meet on its own to count for `goodput`.

use std::fmt;

use crate::{
    metric::{Metric, MetricSource},
    recording::RequestError,
    sample::Sample,
    threshold::{ParseThresholdError, Threshold},
};

/// The limits of one request, such as `ttft <= 500 ms`. A request is good if it meets all of them; a
/// failed request is not good.
#[derive(Debug, Clone, Default)]
pub struct RequestLimits(Vec<Threshold>);

/// Why a text is not the limit of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseLimitError {
    /// What is wrong.
    pub message: String,
    /// The position in the text, in bytes.
    pub offset: usize,
    /// How to fix it.
    pub help: String,
}

impl From<ParseThresholdError> for ParseLimitError {
    fn from(error: ParseThresholdError) -> Self {
        Self { message: error.message, offset: error.offset, help: error.help }
    }
}

impl RequestLimits {
    /// Creates limits of these thresholds, each of which [`parse`](Self::parse) returned.
    pub fn new(limits: Vec<Threshold>) -> Self {
        Self(limits)
    }

    /// Parses one limit: a metric of requests, a comparison and a value, without a statistic.
    pub fn parse(text: &str) -> Result<Threshold, ParseLimitError> {
        let limit = Threshold::parse(text)?;
        let error = |what: String, help: &str| ParseLimitError {
            message: what,
            offset: 0,
            help: help.to_owned(),
        };
        let name = limit.metric.name;
        if !matches!(limit.metric.read, MetricSource::Sample(_)) {
            let what = format!("`{name}` is not a figure of one request");
            return Err(error(what, "limit `ttft`, `tpot`, `e2e` or another figure of a request"));
        }
        if limit.is_relative() {
            let what = format!("the limit on `{name}` is relative");
            return Err(error(what, "write a value, such as `ttft <= 500 ms`"));
        }
        let written = text.split(['<', '>', '≤', '≥']).next().unwrap_or_default();
        if written.split_whitespace().count() > 1 {
            let what = format!("the limit on `{name}` has a statistic, but is of each request");
            return Err(error(what, "leave the statistic out: `ttft <= 500 ms`"));
        }
        Ok(limit)
    }

    /// Returns whether there are no limits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a request is good; `None` without limits.
    pub fn are_met(&self, outcome: &Result<Sample, RequestError>) -> Option<bool> {
        if self.is_empty() {
            return None;
        }
        let Ok(sample) = outcome else { return Some(false) };
        Some(self.0.iter().all(|limit| is_met(limit, sample)))
    }
}

/// Returns whether the answer meets the limit. One token has no time between tokens, so such a limit
/// does not apply to it; a figure that is absent for another reason is not within a limit.
fn is_met(limit: &Threshold, sample: &Sample) -> bool {
    match limit.metric.of(sample) {
        Some(value) => limit.holds(value),
        None => sample.is_streamed && sample.response_tokens == 1 && between_tokens(limit.metric),
    }
}

fn between_tokens(metric: &Metric) -> bool {
    [Metric::TPOT, Metric::ITL, Metric::ITL_MAX, Metric::GENERATION_TIME, Metric::GENERATION_SPEED]
        .contains(&metric)
}

impl fmt::Display for RequestLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, limit) in self.0.iter().enumerate() {
            let gap = if nth > 0 { ", " } else { "" };
            let (name, comparison) = (limit.metric.name, limit.comparison.symbol());
            write!(f, "{gap}{name} {comparison} {}", limit.format_limit())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_of_one_request() {
        let limits = ["ttft <= 0.5 s", "tpot<25ms"].map(|text| RequestLimits::parse(text).unwrap());
        let limits = RequestLimits::new(limits.into());
        assert_eq!(limits.to_string(), "ttft <= 500 ms, tpot < 25 ms");
        for (text, message) in [
            ("request_throughput >= 3", "not a figure of one request"),
            ("success_rate >= 99 %", "not a figure of one request"),
            ("ttft p95 <= 500 ms", "has a statistic"),
            ("ttft mean <= 500 ms", "has a statistic"),
            ("ttft <= +5 % of baseline", "is relative"),
            ("ttft", "a comparison is missing"),
        ] {
            let error = RequestLimits::parse(text).unwrap_err();
            assert!(error.message.contains(message), "{text}: {error:?}");
        }
        assert_eq!(RequestLimits::default().to_string(), "");
    }
}
