//! The description of a group of trials, for summaries, verdicts and baselines.
//!
//! The plan makes one [`GroupSpec`] for each model with prompts and one for each model under each
//! workload. Everything after the measurement identifies groups by [`GroupId`], never by display
//! names: two models can have names that look alike in a report.

use std::collections::BTreeMap;

use crate::{
    capacity::Objective,
    goodput::RequestLimits,
    phases::Phases,
    precision::PrecisionGoal,
    schedule::{Shape, Until},
    summary::group_name,
    threshold::Threshold,
    trace::PromptLengths,
};

/// The default of `run_variation` for prompts that are sent one by one.
pub const PROMPT_RUN_VARIATION: f64 = 0.03;

/// The default of `run_variation` under load, where queueing amplifies small differences.
pub const LOAD_RUN_VARIATION: f64 = 0.20;

/// Identifies a group within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId {
    /// The model's position in the config, from 0.
    pub model: usize,
    /// The number of the workload, or of the part of a mix, in the order of the config, from 0;
    /// `None` for prompts one by one.
    pub workload: Option<usize>,
}

/// A model with prompts one by one, or under one workload.
#[derive(Debug, Clone)]
pub struct GroupSpec {
    /// Its identity.
    pub id: GroupId,
    /// The model's name in reports.
    pub model: String,
    /// The model's name in requests to the server.
    pub served_model: String,
    /// The endpoint in reports.
    pub endpoint: String,
    /// Whether the endpoint is the simulator, so that the figures are those of a script.
    pub is_simulated: bool,
    /// The protocol's name.
    pub protocol: &'static str,
    /// The transport's name.
    pub transport: &'static str,
    /// The value of `connection`.
    pub connection: &'static str,
    /// The value of `prefix_cache`.
    pub prefix_cache: &'static str,
    /// The workload.
    pub workload: Option<WorkloadSpec>,
    /// The thresholds that the group must meet.
    pub thresholds: Vec<Threshold>,
    /// The limits of each request, for `goodput`.
    pub goodput: RequestLimits,
    /// How precisely means are to be known.
    pub precision: Vec<PrecisionGoal>,
    /// The part of the valid answers that must have a figure for the figure to be reported, 0 to 1.
    pub min_share: f64,
    /// The assumed relative standard deviation of a figure between runs on an unchanged server.
    pub run_variation: f64,
    /// The settings that must be equal in two runs for their figures to be comparable, by name.
    pub settings: BTreeMap<String, String>,
}

/// A workload of a group.
#[derive(Debug, Clone)]
pub struct WorkloadSpec {
    /// Its name in reports.
    pub name: String,
    /// When requests are sent.
    pub shape: Shape,
    /// The search for the highest load, of which `shape` is the first one.
    pub search: Option<Objective>,
    /// When it ends.
    pub until: Until,
    /// Which part of it is measured.
    pub phases: Phases,
    /// The names of its prompts.
    pub prompts: Vec<String>,
    /// The source of the prompts' lengths, if it replays a trace.
    pub trace: Option<PromptLengths>,
    /// The share of the requests, of a part of a mix. The trials count in the group of the whole load.
    pub part: Option<f64>,
}

impl WorkloadSpec {
    /// The load in words.
    pub fn load(&self) -> String {
        load_text(&self.shape, self.search.as_ref(), &self.until, &self.phases)
    }
}

/// Describes a load, or a search for one.
pub fn load_text(
    shape: &Shape,
    search: Option<&Objective>,
    until: &Until,
    phases: &Phases,
) -> String {
    let load = match search {
        Some(search) => format!("{search}, {until} each"),
        None => format!("{shape}, {until}"),
    };
    match phases.is_whole() {
        true => load,
        false => format!("{load}, {phases}"),
    }
}

impl GroupSpec {
    /// The model's name, with the workload's if there is one.
    pub fn name(&self) -> String {
        group_name(&self.model, self.workload_name())
    }

    /// Returns whether it is a part of a mix.
    pub fn is_part(&self) -> bool {
        self.workload.as_ref().is_some_and(|workload| workload.part.is_some())
    }

    /// The workload's name.
    pub fn workload_name(&self) -> Option<&str> {
        self.workload.as_ref().map(|workload| workload.name.as_str())
    }
}
