//! A run → bytes. A format is one file, one pure method, one snapshot.

pub mod annotations;
pub mod bencher;
pub mod changes;
pub mod csv;
pub mod finished;
pub mod github_action_benchmark;
pub mod json;
pub mod junit;
pub mod loads;
pub mod ranking;
pub mod server;
pub mod step_summary;
pub mod summary;
mod table;
pub mod thresholds;

use llm_stream_core::{
    metric::{Better, METRICS, Metric, SUCCESS_RATE},
    statistic::Statistic,
    summary::{Estimate, Group, Summary},
    verdict::Verdict,
};

pub use self::finished::TrialResult;
use crate::{calibrate::Calibration, config::Inconclusive, plan::Transport};

/// A finished run: all that a report can show.
#[derive(Debug)]
pub struct Run {
    /// What the trials say together.
    pub summary: Summary,
    /// What came of each model's thresholds: a list for each of the summary's groups that has any.
    pub verdicts: Vec<GroupVerdicts>,
    /// How sure each interval is.
    pub confidence: f64,
    /// Whether models took turns, so that their answers are pairs.
    pub took_turns: bool,
    /// The trials that finished, in the order in which they ran.
    pub trials: Vec<TrialResult>,
    /// How exact the instrument is, where that was measured.
    pub instruments: Vec<Instrument>,
    /// The machine, in a line.
    pub machine: String,
    /// How it ended.
    pub ending: RunOutcome,
}

/// How exact a transport is, under so many streams as it was used for.
#[derive(Debug, Clone, Copy)]
pub struct Instrument {
    /// The transport.
    pub transport: Transport,
    /// Its errors.
    pub calibration: Calibration,
}

/// How a run ended, and why so.
#[derive(Debug, Clone, Default)]
pub struct RunOutcome {
    /// How it ended.
    pub ended: RunStatus,
    /// Why, a line each.
    pub reasons: Vec<String>,
    /// What becomes of a run with inconclusive thresholds.
    pub inconclusive: Inconclusive,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunStatus {
    /// All trials succeeded, and no threshold failed it.
    #[default]
    Passed,
    /// A trial or a threshold failed it.
    Failed,
    /// The user ended it; thresholds are not judged.
    Interrupted,
}

impl RunStatus {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What came of the thresholds of one group.
#[derive(Debug)]
pub struct GroupVerdicts {
    /// The group, by its place in the summary.
    pub group: usize,
    /// Its name, to be shown.
    pub name: String,
    /// One verdict a threshold.
    pub verdicts: Vec<Verdict>,
    /// What is different from the baseline and should not be.
    pub notes: Vec<String>,
}

/// A way to write a run down.
pub trait Exporter {
    /// The whole report.
    fn render(&self, run: &Run) -> String;
}

/// The means that a tool can follow from run to run: of the summary's metrics that have a better
/// direction, those that the group has.
fn tracked(group: &Group, confidence: f64) -> Vec<(&'static Metric, Estimate)> {
    let shown = METRICS.iter().filter(|metric| metric.in_summary).chain([&SUCCESS_RATE]);
    let directed = shown.filter(|metric| metric.better != Better::Neither);
    let mean = |metric| {
        let estimate = group.estimate(metric, Statistic::Mean, confidence);
        Some((metric, estimate.ok()?))
    };
    directed.filter_map(mean).collect()
}

/// A figure for other tools, without the noise of its last digits.
fn exported(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A figure in its unit on the terminal, with the digits that it is worth.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "∞".into() } else { "-∞".into() };
    }
    let digits = match value.abs() {
        magnitude if magnitude >= 1000.0 => 0,
        magnitude if magnitude >= 100.0 => 1,
        magnitude if magnitude >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}
