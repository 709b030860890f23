//! The columns of `results.workloads.csv`: one row per run of a workload. Its requests have their
//! rows in `results.csv`.

use std::sync::Arc;

use llm_stream_core::{
    cache_share::CacheShare,
    load_stats::{LoadStats, MeasuredPart},
    metric::{DEFINITIONS, Metric},
    schedule::Shape,
    trace::PromptLengths,
};

use super::csv::{Column, CsvRow, optional, text};
use crate::plan::{Case, Workload};

/// One run of a workload.
#[derive(Debug)]
#[non_exhaustive]
pub struct LoadRow {
    case: Arc<Case>,
    workload: String,
    shape: Shape,
    load: String,
    stats: Option<LoadStats>,
    shortfall: Option<String>,
}

impl LoadRow {
    /// Returns the row of `case`, whose load measured `stats`, if anything. `shortfall` says why the
    /// load differs from what the config asks for.
    pub fn of(
        case: &Arc<Case>,
        workload: &Workload,
        stats: Option<LoadStats>,
        shortfall: Option<String>,
    ) -> Self {
        let Workload { name, shape, .. } = workload;
        let (load, case, name) = (workload.load(), case.clone(), name.clone());
        Self { case, workload: name, shape: *shape, load, stats, shortfall }
    }

    /// Formats a share of cached prompt tokens as a percentage, if it is known.
    fn cache(&self, share: impl Fn(&CacheShare) -> Option<f64>) -> String {
        let percentage = |share: f64| format!("{:.3}", share * 100.0);
        self.stat(|stats| stats.cache.as_ref().and_then(&share).map(percentage))
    }

    /// Formats a cell of a load of which only a part is measured.
    fn part(&self, cell: impl Fn(&MeasuredPart) -> String) -> String {
        self.stat(|stats| stats.part.as_ref().map(&cell))
    }

    /// Formats a throughput of the whole of such a load.
    fn of_whole(&self, metric: &Metric) -> String {
        self.stat(|stats| stats.part.as_ref()?.mean(metric).map(|mean| format!("{mean:.3}")))
    }

    /// Formats a cell of the statistics, if the run has some.
    fn stat(&self, cell: impl Fn(&LoadStats) -> Option<String>) -> String {
        optional(self.stats.as_ref().and_then(cell))
    }
}

impl CsvRow for LoadRow {
    const COLUMNS: &'static [Column<Self>] = &[
        ("model_name", |row| text(&row.case.target.name)),
        ("trial", |row| text(&row.case.name)),
        ("workload", |row| text(&row.workload)),
        ("run", |row| row.case.run.to_string()),
        ("simulated", |row| row.case.target.is_simulated().to_string()),
        ("load", |row| text(&row.load)),
        ("valid", |row| row.shortfall.is_none().to_string()),
        ("shortfall", |row| text(row.shortfall.as_deref().unwrap_or_default())),
        ("requests", |row| row.stat(|stats| Some(stats.requests.to_string()))),
        ("successful", |row| row.stat(|stats| Some(stats.valid.to_string()))),
        ("seconds", |row| row.stat(|stats| Some(format!("{:.6}", stats.seconds)))),
        ("concurrency_asked", |row| match row.shape {
            Shape::Closed { concurrency } => concurrency.to_string(),
            Shape::Open { .. } => String::new(),
        }),
        ("concurrency", |row| row.stat(|stats| Some(format!("{:.3}", stats.concurrency)))),
        ("peak", |row| row.stat(|stats| Some(stats.peak.to_string()))),
        ("rate_asked", |row| optional(row.shape.asked_rate())),
        ("request_rate", |row| {
            row.stat(|stats| stats.request_rate.map(|rate| format!("{rate:.3}")))
        }),
        ("request_throughput", |row| {
            row.stat(|stats| Some(format!("{:.3}", stats.request_throughput)))
        }),
        ("output_throughput", |row| {
            row.stat(|stats| stats.output_throughput.map(|speed| format!("{speed:.3}")))
        }),
        ("lateness_p99", |row| row.stat(|stats| stats.lateness.map(|late| format!("{late:.9}")))),
        ("receiver_busy", |row| row.stat(|stats| stats.busy.map(|busy| format!("{busy:.4}")))),
        ("definitions", |_| DEFINITIONS.into()),
        ("version", |_| env!("CARGO_PKG_VERSION").into()),
        ("goodput", |row| row.stat(|stats| stats.goodput.map(|rate| format!("{rate:.3}")))),
        ("goodput_ratio", |row| {
            row.stat(|stats| stats.goodput_ratio.map(|share| format!("{share:.3}")))
        }),
        ("prompt_lengths", |row| {
            let spec = row.case.group.workload.as_ref();
            optional(spec.and_then(|spec| spec.trace).map(PromptLengths::name))
        }),
        ("cache_share_intended", |row| row.cache(|cache| cache.intended)),
        ("cache_share_achieved", |row| row.cache(|cache| cache.achieved)),
        ("measured_from", |row| row.part(|part| format!("{:.9}", part.window.from.as_secs_f64()))),
        ("measured_to", |row| row.part(|part| format!("{:.9}", part.window.to.as_secs_f64()))),
        ("requests_of_load", |row| row.part(|part| part.requests.to_string())),
        ("seconds_of_load", |row| row.part(|part| format!("{:.6}", part.seconds))),
        ("request_throughput_of_load", |row| row.of_whole(Metric::REQUEST_THROUGHPUT)),
        ("output_throughput_of_load", |row| row.of_whole(Metric::OUTPUT_THROUGHPUT)),
        ("output_throughput_per_gpu", |row| {
            row.stat(|stats| stats.output_throughput_per_gpu().map(|speed| format!("{speed:.3}")))
        }),
        ("cost_per_million_output_tokens", |row| {
            row.stat(|stats| {
                stats.cost_per_million_output_tokens().map(|cost| format!("{cost:.6}"))
            })
        }),
        ("energy", |row| row.stat(|stats| stats.joules().map(|joules| format!("{joules:.3}")))),
        ("energy_per_output_token", |row| {
            row.stat(|stats| stats.joules_per_output_token().map(|joules| format!("{joules:.6}")))
        }),
        ("item_throughput", |row| {
            row.stat(|stats| stats.item_throughput.map(|rate| format!("{rate:.3}")))
        }),
    ];
}
