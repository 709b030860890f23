//! A run → bytes. Each format is one file with one pure method; only `write_to` touches files.

pub mod annotations;
pub mod bencher;
pub mod changes;
pub mod csv;
pub mod definitions;
pub mod finished;
pub mod github_action_benchmark;
pub(crate) mod html;
pub mod json;
pub mod junit;
pub mod loads;
mod models_table;
pub mod overview;
pub mod precision;
pub mod ranking;
pub mod requests;
pub(crate) mod search;
pub mod server;
pub mod server_series;
pub mod step_summary;
pub(crate) mod stored;
pub mod summary;
mod table;
pub mod thresholds;
pub mod trends;
mod trial_list;
mod write_to;

use std::{
    io::{self, Write},
    sync::{Arc, OnceLock},
};

use llm_stream_core::{
    group::GroupId,
    metric::{Better, METRICS, Metric, SUCCESS_RATE},
    statistic::Statistic,
    summary::{Estimate, Group, Summary},
    verdict::Verdict,
};

use serde::{Deserialize, Serialize};

pub use self::{
    finished::TrialResult, precision::GroupPrecision, trial_list::TrialList, write_to::ReportError,
};
use crate::{calibrate::Calibration, config::Inconclusive, plan::Transport, setup::Setup};

/// A finished run: the data of all reports.
#[derive(Debug)]
pub struct Run {
    /// The figures of all trials, by group.
    pub summary: Summary,
    /// The verdicts on the thresholds of each group that has some.
    pub verdicts: Vec<GroupVerdicts>,
    /// The confidence of each interval.
    pub confidence: f64,
    /// How precisely the means are known for which there are goals.
    pub precision: Vec<GroupPrecision>,
    /// Whether `max_time` kept further runs from being measured.
    pub is_out_of_time: bool,
    /// The order of the trials, as in the config.
    pub order: String,
    /// Whether the models were measured in turn, so that their answers form pairs.
    pub took_turns: bool,
    /// The trials that finished, in the order in which they ran.
    pub trials: TrialList,
    /// The errors of the instrument, if they were measured.
    pub instruments: Vec<Instrument>,
    /// The machine, in a line.
    pub machine: String,
    /// The circumstances of the run, if they were gathered.
    pub setup: Option<Box<Setup>>,
    /// The outcome.
    pub ending: RunOutcome,
    /// Why figures could not be read back, if so.
    pub unreadable: Unreadable,
}

/// Why figures could not be read back, if so. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Unreadable(Arc<OnceLock<String>>);

impl Unreadable {
    /// Notes the first error.
    pub(crate) fn note(&self, error: &io::Error) {
        self.0.get_or_init(|| error.to_string());
    }

    /// The reason, as a line of the run's outcome.
    pub(crate) fn reason(&self) -> Option<String> {
        let error = self.0.get()?;
        Some(format!("FAILED: the temporary file of the figures cannot be read: {error}"))
    }
}

impl Run {
    /// The verdict on the whole run: passed, failed or interrupted.
    pub fn verdict(&self) -> RunStatus {
        self.ending.ended
    }

    /// The reasons for the verdict, a line each.
    pub fn reasons(&self) -> &[String] {
        &self.ending.reasons
    }

    /// Whether all trials succeeded and no threshold failed the run.
    pub fn passed(&self) -> bool {
        self.verdict() == RunStatus::Passed
    }

    /// The figures of all trials, by group.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The groups, each a model with its prompts or under one workload, with the verdicts on the
    /// thresholds of each.
    pub fn groups(&self) -> impl Iterator<Item = (&Group, &[Verdict])> {
        self.summary.groups.iter().map(|group| {
            let judged = self.verdicts.iter().find(|judged| judged.group == group.spec.id);
            (group, judged.map_or(&[][..], |judged| &judged.verdicts))
        })
    }
}

/// The errors of a transport, with as many streams as it was used for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Instrument {
    /// The transport.
    pub transport: Transport,
    /// Its errors.
    pub calibration: Calibration,
}

/// The outcome of a run and its reasons.
#[derive(Debug, Clone, Default)]
pub struct RunOutcome {
    /// The outcome.
    pub ended: RunStatus,
    /// The reasons, a line each.
    pub reasons: Vec<String>,
    /// The effect of inconclusive thresholds on the run.
    pub inconclusive: Inconclusive,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// All trials succeeded, and no threshold failed it.
    #[default]
    Passed,
    /// A trial or a threshold failed it.
    Failed,
    /// The user ended it; thresholds were not judged.
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

/// The verdicts on the thresholds of one group.
#[derive(Debug)]
pub struct GroupVerdicts {
    /// The group.
    pub group: GroupId,
    /// Its name in reports.
    pub name: String,
    /// One verdict per threshold.
    pub verdicts: Vec<Verdict>,
    /// Differences from the baseline that may affect the figures.
    pub notes: Vec<String>,
}

/// A format of reports.
pub trait Exporter {
    /// Returns the whole report.
    fn render(&self, run: &Run) -> String;

    /// Writes the report. Formats with an entry for each trial do not hold it in memory.
    fn write(&self, run: &Run, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.render(run).as_bytes())
    }
}

/// Returns the means that a tool can track from run to run: those of the summary's metrics with a
/// better direction, if the group has them.
fn tracked(group: &Group, confidence: f64) -> Vec<(&'static Metric, Estimate)> {
    let shown = METRICS.iter().filter(|metric| metric.in_summary).chain([&SUCCESS_RATE]);
    let directed = shown.filter(|metric| metric.better != Better::Neither);
    let mean = |metric| {
        let estimate = group.estimate(metric, Statistic::Mean, confidence);
        Some((metric, estimate.ok()?))
    };
    directed.filter_map(mean).collect()
}

/// Returns the group's name for other tools. Figures of a part of the trials must not continue the
/// series of whole runs.
fn tracked_name(group: &Group) -> String {
    let is_whole = group.finished == group.planned;
    if is_whole { group.name() } else { format!("{} (interrupted)", group.name()) }
}

/// Rounds a figure for other tools to six decimals.
fn exported(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Formats a figure for the terminal with about three significant digits.
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
