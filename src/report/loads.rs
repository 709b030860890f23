//! What the loads reached, as CSV: a row a run of a workload, beside the rows of its requests.
//! Times are in seconds; what is unknown is an empty cell.

use std::io::{self, Write};

use llm_stream_core::{
    load_stats::LoadStats, metric::DEFINITIONS, schedule::Shape, summary::Tally,
};

use super::csv::text;
use crate::plan::{Case, Workload};

/// One run of a workload.
#[derive(Debug)]
pub struct LoadRow<'a> {
    case: &'a Case,
    workload: &'a Workload,
    reached: Option<LoadStats>,
    shortfall: Option<&'a str>,
}

impl<'a> LoadRow<'a> {
    /// The run of `case` that `reached` this, if anything; an error says why it was not the load
    /// that was asked for.
    pub fn of(
        case: &'a Case,
        workload: &'a Workload,
        reached: Option<LoadStats>,
        outcome: &'a Result<(Tally, LoadStats), String>,
    ) -> Self {
        Self { case, workload, reached, shortfall: outcome.as_ref().err().map(String::as_str) }
    }
}

/// Writes rows as they come, each whole and flushed.
#[derive(Debug)]
pub struct Writer<W: Write>(::csv::Writer<W>);

impl<W: Write> Writer<W> {
    /// Writes the column heads to `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = ::csv::Writer::from_writer(out);
        writer.write_record(COLUMNS.iter().map(|(name, _)| name))?;
        writer.flush()?;
        Ok(Self(writer))
    }

    /// Writes one row.
    pub fn write(&mut self, row: &LoadRow<'_>) -> io::Result<()> {
        self.0.write_record(COLUMNS.iter().map(|(_, cell)| cell(row)))?;
        self.0.flush()
    }
}

type Column = (&'static str, fn(&LoadRow<'_>) -> String);

const COLUMNS: &[Column] = &[
    ("model_name", |row| text(&row.case.target.name)),
    ("trial", |row| text(&row.case.name)),
    ("workload", |row| text(&row.workload.name)),
    ("run", |row| row.case.run.to_string()),
    ("simulated", |row| row.case.target.is_simulated().to_string()),
    ("load", |row| format!("{}, {}", row.workload.shape, row.workload.until)),
    ("valid", |row| row.shortfall.is_none().to_string()),
    ("shortfall", |row| text(row.shortfall.unwrap_or_default())),
    ("requests", |row| of(row, |reached| Some(reached.requests.to_string()))),
    ("successful", |row| of(row, |reached| Some(reached.valid.to_string()))),
    ("seconds", |row| of(row, |reached| Some(format!("{:.6}", reached.seconds)))),
    ("concurrency_asked", |row| match row.workload.shape {
        Shape::Closed { concurrency } => concurrency.to_string(),
        Shape::Open { .. } => String::new(),
    }),
    ("concurrency", |row| of(row, |reached| Some(format!("{:.3}", reached.concurrency)))),
    ("peak", |row| of(row, |reached| Some(reached.peak.to_string()))),
    ("rate_asked", |row| {
        row.workload.shape.asked_rate().map(|rate| rate.to_string()).unwrap_or_default()
    }),
    ("request_rate", |row| {
        of(row, |reached| reached.request_rate.map(|rate| format!("{rate:.3}")))
    }),
    ("request_throughput", |row| {
        of(row, |reached| Some(format!("{:.3}", reached.request_throughput)))
    }),
    ("output_throughput", |row| {
        of(row, |reached| reached.output_throughput.map(|speed| format!("{speed:.3}")))
    }),
    ("lateness_p99", |row| of(row, |reached| reached.lateness.map(|late| format!("{late:.9}")))),
    ("receiver_busy", |row| of(row, |reached| reached.busy.map(|busy| format!("{busy:.4}")))),
    ("definitions", |_| DEFINITIONS.into()),
    ("version", |_| env!("CARGO_PKG_VERSION").into()),
];

fn of(row: &LoadRow<'_>, read: impl Fn(&LoadStats) -> Option<String>) -> String {
    row.reached.as_ref().and_then(read).unwrap_or_default()
}
