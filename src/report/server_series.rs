//! The columns of `results.server_series.csv`: one row per scrape of the server's metrics, or of the
//! power of its GPUs, while a trial ran.

use std::sync::Arc;

use llm_stream_core::{
    energy::{PowerReading, ServerSamples},
    metric::DEFINITIONS,
    server_series::{ServerState, TimedSample},
};

use super::csv::{Column, CsvRow, optional, text};
use crate::plan::Case;

/// One scrape.
#[derive(Debug)]
pub struct ServerSeriesRow {
    case: Arc<Case>,
    at: f64,
    took: f64,
    value: Scraped,
}

/// What a scrape read.
#[derive(Debug)]
enum Scraped {
    Metrics(Result<ServerState, String>),
    Power(Result<PowerReading, String>),
}

impl ServerSeriesRow {
    /// Returns the rows of the trial `case` in the order of time.
    pub fn of(case: &Arc<Case>, samples: &ServerSamples) -> Vec<Self> {
        let ServerSamples { metrics, power } = samples.clone();
        let metrics = metrics.into_iter().map(|sample| Self::new(case, sample, Scraped::Metrics));
        let power = power.into_iter().map(|sample| Self::new(case, sample, Scraped::Power));
        let mut rows: Vec<_> = metrics.chain(power).collect();
        rows.sort_by(|a, b| a.at.total_cmp(&b.at));
        rows
    }

    fn new<T>(
        case: &Arc<Case>,
        TimedSample { at, took, value }: TimedSample<T>,
        scraped: fn(Result<T, String>) -> Scraped,
    ) -> Self {
        Self { case: case.clone(), at, took, value: scraped(value) }
    }

    /// Formats a value of the server's metrics.
    fn metric(&self, name: &str) -> String {
        optional(match &self.value {
            Scraped::Metrics(Ok(state)) => state.value(name),
            _ => None,
        })
    }

    /// Formats a value of the GPUs' power.
    fn power(&self, read: impl Fn(&PowerReading) -> Option<f64>) -> String {
        optional(match &self.value {
            Scraped::Power(Ok(reading)) => read(reading).map(|value| format!("{value:.3}")),
            _ => None,
        })
    }

    /// Why nothing was read.
    fn gap(&self) -> &str {
        match &self.value {
            Scraped::Metrics(Err(why)) | Scraped::Power(Err(why)) => why,
            _ => "",
        }
    }
}

impl CsvRow for ServerSeriesRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("model_name", |row| text(&row.case.target.name)),
        ("trial", |row| text(&row.case.name)),
        ("run", |row| row.case.run.to_string()),
        ("source", |row| {
            let is_power = matches!(row.value, Scraped::Power(_));
            if is_power { "power_url".into() } else { "metrics_url".into() }
        }),
        ("at", |row| format!("{:.6}", row.at)),
        ("scrape_time", |row| format!("{:.6}", row.took)),
        ("gap", |row| text(row.gap())),
        ("running", |row| row.metric("running")),
        ("waiting", |row| row.metric("waiting")),
        ("kv_cache_use", |row| row.metric("kv_cache_use")),
        ("preemptions", |row| row.metric("preemptions")),
        ("cache_hits", |row| row.metric("cache_hits")),
        ("cache_queries", |row| row.metric("cache_queries")),
        ("draft_tokens", |row| row.metric("draft_tokens")),
        ("accepted_tokens", |row| row.metric("accepted_tokens")),
        ("accept_rate", |row| row.metric("accept_rate")),
        ("gpus", |row| match &row.value {
            Scraped::Power(Ok(reading)) => reading.gpus().to_string(),
            _ => String::new(),
        }),
        ("power", |row| row.power(PowerReading::watts)),
        ("energy", |row| row.power(PowerReading::joules)),
        ("definitions", |_| DEFINITIONS.into()),
        ("version", |_| env!("CARGO_PKG_VERSION").into()),
    ];
}
