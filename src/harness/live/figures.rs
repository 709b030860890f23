//! The figures of a group so far, and how its thresholds stand.

use std::sync::Arc;

use llm_stream_core::{
    group::GroupSpec,
    load_stats::LoadStats,
    metric::{Metric, MetricSource},
    recording::RequestError,
    sample::Sample,
    statistic::Statistic,
    threshold::{Against, Threshold},
};

use super::histogram::LogHistogram;

/// The figures of a model, or of a model under a workload, so far.
#[derive(Debug)]
pub(super) struct GroupFigures {
    pub(super) spec: Arc<GroupSpec>,
    pub(super) ttft: LogHistogram,
    pub(super) tpot: LogHistogram,
    /// The values of each threshold's metric, in the order of the thresholds.
    limited: Vec<LogHistogram>,
    valid: usize,
    failed: usize,
    /// The tokens of the answers whose reads were counted, and those reads.
    tokens: u64,
    reads: u64,
}

/// How a threshold stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Standing {
    /// The figure meets the limit.
    Holds,
    /// This figure does not.
    Missed(f64),
    /// There are too few values, or the end of the run decides.
    Open,
}

impl GroupFigures {
    /// Starts with no figures.
    pub(super) fn new(spec: Arc<GroupSpec>) -> Self {
        Self {
            ttft: LogHistogram::default(),
            tpot: LogHistogram::default(),
            limited: vec![LogHistogram::default(); spec.thresholds.len()],
            spec,
            valid: 0,
            failed: 0,
            tokens: 0,
            reads: 0,
        }
    }

    /// Adds a request.
    pub(super) fn add(&mut self, outcome: &Result<Sample, RequestError>) {
        let Ok(sample) = outcome else {
            self.failed += 1;
            return;
        };
        self.valid += 1;
        Metric::TTFT.of(sample).into_iter().for_each(|ttft| self.ttft.add(ttft));
        Metric::TPOT.of(sample).into_iter().for_each(|tpot| self.tpot.add(tpot));
        for (threshold, values) in self.spec.thresholds.iter().zip(&mut self.limited) {
            threshold.metric.of(sample).into_iter().for_each(|value| values.add(value));
        }
    }

    /// Adds a run of a load.
    pub(super) fn add_load(&mut self, stats: &LoadStats) {
        for (threshold, values) in self.spec.thresholds.iter().zip(&mut self.limited) {
            if let MetricSource::Load(read) = threshold.metric.read {
                read(stats).into_iter().for_each(|value| values.add(value));
            }
        }
    }

    /// Notes that an answer of `tokens` tokens took `reads` reads.
    pub(super) fn count_reads(&mut self, tokens: u64, reads: u64) {
        self.tokens += tokens;
        self.reads += reads;
    }

    /// The tokens of a read, on average; 1 before the first answer.
    pub(super) fn tokens_per_read(&self) -> f64 {
        if self.reads == 0 { 1.0 } else { self.tokens as f64 / self.reads as f64 }
    }

    /// Each threshold, and how it stands.
    pub(super) fn standings(&self) -> impl Iterator<Item = (&Threshold, Standing)> {
        let limits = self.spec.thresholds.iter().zip(&self.limited);
        limits.map(|(threshold, values)| (threshold, self.standing(threshold, values)))
    }

    fn standing(&self, threshold: &Threshold, values: &LogHistogram) -> Standing {
        let figure = match (&threshold.against, threshold.metric.read) {
            (Against::Value, MetricSource::All) => self.success_rate(),
            (Against::Value, _) if values.count() + self.failed > 0 => {
                values.statistic(threshold.statistic, self.beyond(threshold))
            }
            _ => None,
        };
        match figure {
            None => Standing::Open,
            Some(figure) if threshold.holds(figure) => Standing::Holds,
            Some(figure) => Standing::Missed(figure),
        }
    }

    /// The failed requests that a percentile counts as slower than any limit.
    fn beyond(&self, threshold: &Threshold) -> usize {
        let is_percentile =
            matches!(threshold.statistic, Statistic::Percentile(_) | Statistic::Median);
        let is_of_requests = matches!(threshold.metric.read, MetricSource::Sample(_));
        let counts = is_percentile && is_of_requests && threshold.limits_increase();
        if counts { self.failed } else { 0 }
    }

    fn success_rate(&self) -> Option<f64> {
        let all = self.valid + self.failed;
        (all > 0).then(|| 100.0 * self.valid as f64 / all as f64)
    }
}
