//! A trial that has finished, in short: what reports about trials show. A load of many requests is
//! one, so that a long run stays small.

use std::sync::Arc;

use jiff::Timestamp;
use llm_stream_core::{
    load_stats::LoadStats,
    metric::{METRICS, Metric, MetricSource},
    statistic::Statistic,
};

use crate::{plan::Case, row::Row};

/// A trial that has finished.
#[derive(Debug, Clone)]
pub struct TrialResult {
    /// The trial.
    pub case: Arc<Case>,
    /// When it began, by the wall clock.
    pub started: Timestamp,
    /// How long it took, by the wall clock.
    pub seconds: f64,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its figures, in their base units; those of a load are what it reached.
    pub figures: Vec<(&'static Metric, f64)>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
    /// How much earlier than noted its tokens can have arrived, seconds; of a conversation, the
    /// largest of its turns. `None` for a failure or a load.
    pub arrival_uncertainty: Option<f64>,
    /// The turns of a conversation, in their order, up to one that failed; else none.
    pub turns: Vec<Turn>,
}

/// What a request brought: a trial, or a turn of one.
#[derive(Debug, Clone)]
pub struct Turn {
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Its figures, in their base units.
    pub figures: Vec<(&'static Metric, f64)>,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
    /// How much earlier than noted its tokens can have arrived, seconds; `None` for a failure.
    pub arrival_uncertainty: Option<f64>,
}

/// Why a trial failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The name of the request's kind of error, or [`LOAD`].
    pub kind: &'static str,
    /// What went wrong.
    pub message: String,
}

/// The kind of a load's failure.
pub const LOAD: &str = "load";

impl TrialResult {
    /// A trial of one request.
    pub fn request(row: &Row, ended: Timestamp) -> Self {
        let Turn { failure, figures, notes, arrival_uncertainty } = Turn::of(row);
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

    /// A trial of several turns: its figures are the means over them, where all have one.
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
        trial.turns = rows.iter().map(Turn::of).collect();
        Some(trial)
    }

    /// A trial that was a load; `reached` is what it reached if it was the load asked for.
    pub fn load(
        case: &Arc<Case>,
        (started, ended): (Timestamp, Timestamp),
        reached: Option<&LoadStats>,
        failure: Option<&str>,
    ) -> Self {
        let of = |reached| {
            figures(|metric| match metric.read {
                MetricSource::Load(read) => read(reached),
                MetricSource::Sample(_) | MetricSource::All => None,
            })
        };
        Self {
            case: case.clone(),
            started,
            seconds: seconds(started, ended),
            failure: failure.map(|message| Failure { kind: LOAD, message: message.into() }),
            figures: reached.map(of).unwrap_or_default(),
            notes: Vec::new(),
            arrival_uncertainty: None,
            turns: Vec::new(),
        }
    }
}

impl Turn {
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

/// The figures of the summary, as far as there are any.
fn figures(read: impl Fn(&Metric) -> Option<f64>) -> Vec<(&'static Metric, f64)> {
    let shown = METRICS.iter().filter(|metric| metric.in_summary);
    shown.filter_map(|metric| Some((metric, read(metric)?))).collect()
}

/// The wall clock may have been set back in between.
fn seconds(started: Timestamp, ended: Timestamp) -> f64 {
    ended.duration_since(started).as_secs_f64().max(0.0)
}
