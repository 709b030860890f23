//! The result of a finished trial, as reports show it. A load of many requests is one trial, so that a
//! long run needs little memory.

use std::sync::Arc;

use jiff::Timestamp;
use llm_stream_core::{
    load_stats::LoadStats,
    metric::{METRICS, Metric, MetricSource},
    recording::ErrorKind,
    statistic::Statistic,
};
use serde::Serialize;

use crate::{plan::Case, row::Row};

/// The result of a finished trial.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TrialResult {
    /// The trial.
    pub case: Arc<Case>,
    /// Its start by the wall clock.
    pub started: Timestamp,
    /// Its duration by the wall clock.
    pub seconds: f64,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its figures, in their base units; of a load, its statistics.
    pub figures: Vec<(&'static Metric, f64)>,
    /// Remarks on the figures.
    pub notes: Vec<String>,
    /// How much earlier than noted its tokens may have arrived, seconds; of a conversation, the
    /// largest of its turns. `None` for a failure or a load.
    pub arrival_uncertainty: Option<f64>,
    /// The turns of a conversation, in their order, up to one that failed; empty for other trials.
    pub turns: Vec<TurnResult>,
}

/// The result of one request: a trial, or a turn of a trial.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TurnResult {
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its figures, in their base units.
    pub figures: Vec<(&'static Metric, f64)>,
    /// Remarks on the figures.
    pub notes: Vec<String>,
    /// How much earlier than noted its tokens may have arrived, seconds; `None` for a failure.
    pub arrival_uncertainty: Option<f64>,
}

/// Why a trial failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Failure {
    /// The kind of error of the request; `load` for a load.
    pub kind: &'static str,
    /// The error.
    pub message: String,
}

/// The kind of failure of a load.
pub const LOAD: &str = "load";

impl TrialResult {
    /// Returns the result of a trial of one request.
    pub fn request(row: &Row, ended: Timestamp) -> Self {
        let TurnResult { failure, figures, notes, arrival_uncertainty } = TurnResult::of(row);
        Self {
            case: row.case.clone(),
            started: row.started,
            seconds: seconds(row.started, ended),
            failure,
            figures,
            notes,
            arrival_uncertainty,
            turns: Vec::new(),
        }
    }

    /// Returns the result of a conversation. A figure is the mean over its turns if all have one.
    pub fn conversation(rows: &[Row], ended: Timestamp) -> Option<Self> {
        let [first, others @ ..] = rows else { return None };
        let mut trial = Self::request(others.last().unwrap_or(first), ended);
        trial.started = first.started;
        trial.seconds = seconds(first.started, ended);
        let samples: Vec<_> = rows.iter().filter_map(|row| row.outcome.as_ref().ok()).collect();
        let mean = |metric: &Metric| {
            let values: Option<Vec<_>> = samples.iter().map(|sample| metric.of(sample)).collect();
            Statistic::Mean.of(&values?).ok()
        };
        trial.figures = if trial.failure.is_none() { figures(mean) } else { Vec::new() };
        let mut notes: Vec<_> = samples.iter().flat_map(|sample| sample.noted()).collect();
        notes.sort();
        notes.dedup();
        trial.notes = notes.into_iter().map(|(_, words)| words).collect();
        let uncertain = samples.iter().map(|sample| sample.uncertainty.largest.as_secs_f64());
        trial.arrival_uncertainty = trial.arrival_uncertainty.and(uncertain.reduce(f64::max));
        trial.turns = rows.iter().map(TurnResult::of).collect();
        Some(trial)
    }

    /// Returns the result of a load; it has statistics if it was the load asked for.
    pub fn load(
        case: &Arc<Case>,
        (started, ended): (Timestamp, Timestamp),
        stats: Option<&LoadStats>,
        failure: Option<&str>,
    ) -> Self {
        let of = |stats| {
            figures(|metric| match metric.read {
                MetricSource::Load(read) => read(stats),
                MetricSource::Sample(_) | MetricSource::All => None,
            })
        };
        Self {
            case: case.clone(),
            started,
            seconds: seconds(started, ended),
            failure: failure.map(|message| Failure { kind: LOAD, message: message.into() }),
            figures: stats.map(of).unwrap_or_default(),
            notes: Vec::new(),
            arrival_uncertainty: None,
            turns: Vec::new(),
        }
    }
}

impl TrialResult {
    /// Marks a trial that an interrupt ended.
    #[must_use]
    pub fn interrupted(self, message: String) -> Self {
        let kind = ErrorKind::Interrupted.name();
        Self { failure: Some(Failure { kind, message }), ..self }
    }
}

impl TurnResult {
    fn of(row: &Row) -> Self {
        match &row.outcome {
            Ok(sample) => Self {
                failure: None,
                figures: figures(|metric| metric.of(sample)),
                notes: sample.noted().map(|(_, words)| words).collect(),
                arrival_uncertainty: Some(sample.uncertainty.largest.as_secs_f64()),
            },
            Err(error) => Self {
                failure: Some(Failure { kind: error.kind.name(), message: error.message.clone() }),
                figures: Vec::new(),
                notes: Vec::new(),
                arrival_uncertainty: None,
            },
        }
    }
}

/// Returns the figures of the summary that exist.
fn figures(read: impl Fn(&Metric) -> Option<f64>) -> Vec<(&'static Metric, f64)> {
    let shown = METRICS.iter().filter(|metric| metric.in_summary);
    shown.filter_map(|metric| Some((metric, read(metric)?))).collect()
}

/// Returns the time between two dates; 0 if the wall clock was set back in between.
fn seconds(started: Timestamp, ended: Timestamp) -> f64 {
    ended.duration_since(started).as_secs_f64().max(0.0)
}
