//! What servers said of trials by their metrics, as CSV: a row a trial and figure. Times are in
//! seconds; what is unknown is an empty cell.

use std::io::{self, Write};

use llm_stream_core::{
    metric::DEFINITIONS,
    server_metrics::{HistogramTimes, MetricComparison, MetricSample},
};

use super::csv::text;
use crate::plan::Case;

/// Writes rows as they come, each trial's whole and flushed.
#[derive(Debug)]
pub struct Writer<W: Write>(::csv::Writer<W>);

/// One figure of a trial.
struct Row<'a> {
    case: &'a Case,
    requests: usize,
    sample: &'a MetricSample,
    ours: Option<f64>,
}

impl<W: Write> Writer<W> {
    /// Writes the column heads to `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = ::csv::Writer::from_writer(out);
        writer.write_record(COLUMNS.iter().map(|(name, _)| name))?;
        writer.flush()?;
        Ok(Self(writer))
    }

    /// Writes what was said of the trial `case`.
    pub fn write(&mut self, case: &Case, comparison: &MetricComparison) -> io::Result<()> {
        for (sample, ours) in &comparison.samples {
            let row = Row { case, requests: comparison.requests, sample, ours: *ours };
            self.0.write_record(COLUMNS.iter().map(|(_, cell)| cell(&row)))?;
        }
        self.0.flush()
    }
}

type Column = (&'static str, fn(&Row<'_>) -> String);

const COLUMNS: &[Column] = &[
    ("model_name", |row| text(&row.case.target.name)),
    ("trial", |row| text(&row.case.name)),
    ("run", |row| row.case.run.to_string()),
    ("requests", |row| row.requests.to_string()),
    ("figure", |row| row.sample.figure.name.into()),
    ("series", |row| row.sample.series.into()),
    ("sort", |row| row.sample.figure.kind.name().into()),
    ("before", |row| row.sample.before.to_string()),
    ("after", |row| row.sample.after.to_string()),
    ("mean", |row| of(row, |times| Some(times.mean))),
    ("median_above", |row| of(row, |times| Some(times.median?.0))),
    ("median_up_to", |row| of(row, |times| Some(times.median?.1))),
    ("p99_above", |row| of(row, |times| Some(times.p99?.0))),
    ("p99_up_to", |row| of(row, |times| Some(times.p99?.1))),
    ("ours", |row| seconds(row.ours)),
    ("difference", |row| {
        seconds(row.ours.zip(row.sample.times).map(|(ours, theirs)| ours - theirs.mean))
    }),
    ("definitions", |_| DEFINITIONS.into()),
    ("version", |_| env!("CARGO_PKG_VERSION").into()),
];

fn of(row: &Row<'_>, read: impl Fn(&HistogramTimes) -> Option<f64>) -> String {
    seconds(row.sample.times.as_ref().and_then(read))
}

fn seconds(value: Option<f64>) -> String {
    let known = value.filter(|value| value.is_finite());
    known.map(|value| format!("{value:.9}")).unwrap_or_default()
}
