//! The columns of `results.server.csv`: one row per trial and figure of the server's Prometheus
//! metrics.

use std::sync::Arc;

use llm_stream_core::{
    metric::DEFINITIONS,
    server_metrics::{HistogramTimes, MetricComparison, MetricSample},
};

use super::csv::{Column, CsvRow, optional, text};
use crate::plan::Case;

/// One figure of a trial.
#[derive(Debug)]
pub struct ServerMetricRow {
    case: Arc<Case>,
    requests: usize,
    sample: MetricSample,
    ours: Option<f64>,
}

impl ServerMetricRow {
    /// Returns the rows of the trial `case`.
    pub fn of(case: &Arc<Case>, comparison: &MetricComparison) -> Vec<Self> {
        let requests = comparison.requests;
        let row = |&(sample, ours): &(MetricSample, Option<f64>)| Self {
            case: case.clone(),
            requests,
            sample,
            ours,
        };
        comparison.samples.iter().map(row).collect()
    }

    /// Formats a cell of the times, if the figure has some.
    fn time(&self, read: impl Fn(&HistogramTimes) -> Option<f64>) -> String {
        seconds(self.sample.times.as_ref().and_then(read))
    }
}

impl CsvRow for ServerMetricRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("model_name", |row| text(&row.case.target.name)),
        ("trial", |row| text(&row.case.name)),
        ("run", |row| row.case.run.to_string()),
        ("requests", |row| row.requests.to_string()),
        ("figure", |row| row.sample.figure.name.into()),
        ("series", |row| row.sample.series.into()),
        ("sort", |row| row.sample.figure.kind.name().into()),
        ("before", |row| row.sample.before.to_string()),
        ("after", |row| row.sample.after.to_string()),
        ("mean", |row| row.time(|times| Some(times.mean))),
        ("median_above", |row| row.time(|times| Some(times.median?.0))),
        ("median_up_to", |row| row.time(|times| Some(times.median?.1))),
        ("p99_above", |row| row.time(|times| Some(times.p99?.0))),
        ("p99_up_to", |row| row.time(|times| Some(times.p99?.1))),
        ("ours", |row| seconds(row.ours)),
        ("difference", |row| {
            seconds(row.ours.zip(row.sample.times).map(|(ours, theirs)| ours - theirs.mean))
        }),
        ("definitions", |_| DEFINITIONS.into()),
        ("version", |_| env!("CARGO_PKG_VERSION").into()),
    ];
}

/// Formats a time; one that is not finite is unknown.
fn seconds(value: Option<f64>) -> String {
    let known = value.filter(|value| value.is_finite());
    optional(known.map(|value| format!("{value:.9}")))
}
