//! The values of a figure in several runs, before and now.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupBaseline, Side};
use crate::{
    comparison::{Change, RunValues},
    metric::{Metric, MetricSource},
    statistic::{Absent, Statistic},
};

/// The values of a figure in earlier runs and in later ones, for the prompts that have values in
/// all of them. The mean over other prompts would be a different figure.
#[derive(Debug, Clone)]
pub struct RunFigures {
    metric: &'static Metric,
    before: Vec<Side>,
    now: Vec<Side>,
    is_load: bool,
    /// The names of the prompts that some of the runs have no value for.
    pub left_out: Vec<String>,
}

impl RunFigures {
    /// Takes the runs of `group`, oldest first. All runs number the prompts equally, which
    /// [`comparable_to`](GroupBaseline::comparable_to) has checked.
    pub fn of(
        metric: &'static Metric,
        group: &GroupBaseline,
        before: &[Side],
        now: &[Side],
    ) -> Self {
        let strata = |side: &Side| side.strata().iter().copied().collect::<BTreeSet<_>>();
        let all: Vec<_> = before.iter().chain(now).map(strata).collect();
        let any: BTreeSet<_> = all.iter().flatten().copied().collect();
        let is_common = |stratum: &u32| all.iter().all(|strata| strata.contains(stratum));
        let common: BTreeSet<_> = any.iter().copied().filter(is_common).collect();
        // A figure of loads has no prompts.
        let only = |side: &Side| match side.strata().is_empty() {
            true => side.clone(),
            false => side.only(&common),
        };
        let names = group.prompt_names();
        let left_out = any.difference(&common).filter_map(|of| names.get(*of as usize).cloned());
        Self {
            metric,
            before: before.iter().map(only).collect(),
            now: now.iter().map(only).collect(),
            is_load: group.is_load(),
            left_out: left_out.collect(),
        }
    }

    /// Compares `statistic` of the figure; `variation` is the assumed variation between runs.
    pub fn change(
        &self,
        statistic: Statistic,
        variation: f64,
        confidence: f64,
    ) -> Result<Change, Absent> {
        let by_run = |sides: &[Side]| -> Vec<Vec<f64>> {
            sides.iter().map(|side| self.of_runs(side, statistic)).collect()
        };
        let (runs_before, runs_now) = (by_run(&self.before), by_run(&self.now));
        let (before, now): (Vec<_>, Vec<_>) = match self.is_load {
            true => (
                runs_before.iter().map(|values| RunValues::Runs(values)).collect(),
                runs_now.iter().map(|values| RunValues::Runs(values)).collect(),
            ),
            false => (
                self.before.iter().map(|side| RunValues::Requests(side.stratified())).collect(),
                self.now.iter().map(|side| RunValues::Requests(side.stratified())).collect(),
            ),
        };
        Change::since(statistic, &before, &now, variation, confidence)
    }

    /// Returns how far the difference can be off because of uncertain arrivals.
    pub fn uncertainty(&self, statistic: Statistic) -> f64 {
        let latest = |sides: &[Side]| sides.last().map_or(0.0, |side| side.uncertainty(statistic));
        latest(&self.before) + latest(&self.now)
    }

    /// Returns the mean of the latest run, before and now.
    pub fn latest_means(&self) -> Option<(f64, f64)> {
        let mean = |sides: &[Side]| Statistic::Mean.of(sides.last()?.values()).ok();
        Some((mean(&self.before)?, mean(&self.now)?))
    }

    /// Returns the number of values of the smallest earlier run.
    pub fn fewest_before(&self) -> usize {
        self.before.iter().map(|side| side.values().len()).min().unwrap_or_default()
    }

    /// The statistic of each run of a load.
    fn of_runs(&self, side: &Side, statistic: Statistic) -> Vec<f64> {
        if matches!(self.metric.read, MetricSource::Load(_)) {
            return side.of_runs().into_iter().map(|(_, value)| value).collect();
        }
        let mut by_run: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (run, value) in side.runs().iter().zip(side.values()) {
            by_run.entry(*run).or_default().push(*value);
        }
        by_run.values().filter_map(|values| statistic.of(values).ok()).collect()
    }
}
