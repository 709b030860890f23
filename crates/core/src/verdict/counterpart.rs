//! The change of a figure against its counterpart: the stored runs, or another model of the run.

use std::collections::BTreeMap;

use super::{NoChange, Reference};
use crate::{
    baseline::{GroupBaseline, RunFigures},
    comparison::{Change, RunValues},
    interval::StratifiedSample,
    statistic::{Absent, Statistic},
    summary::Group,
    threshold::Threshold,
};

/// A change with the circumstances of the comparison.
pub(super) struct ComparedChange {
    pub(super) change: Change,
    /// How far the difference can be off because of uncertain arrivals.
    pub(super) uncertainty: f64,
    /// Why the counterpart's figure may be wrong, with the number of affected answers.
    pub(super) doubts: Vec<(String, usize)>,
    /// The prompts that one of the runs has no value for.
    pub(super) left_out: Vec<String>,
    /// The names of the prompts by their numbers.
    pub(super) prompts: Vec<String>,
}

/// Compares `group` with the stored runs.
pub(super) fn with_baseline(
    threshold: &Threshold,
    group: &Group,
    reference: Reference<'_>,
    confidence: f64,
) -> Result<ComparedChange, NoChange> {
    let Threshold { metric, statistic, .. } = *threshold;
    let now = GroupBaseline::of(group, reference.machine);
    let history = reference.baseline.history(&now)?;
    let share = group.spec.min_share;
    let stored: Vec<_> = history.since_accepted().iter().map(|entry| entry.group).collect();
    let latest = *stored.last().ok_or(NoChange::Figure(metric.name))?;
    // A figure that the latest run lacks is not judged by older runs.
    latest.side(metric, share).ok_or(NoChange::Figure(metric.name))?.map_err(NoChange::Then)?;
    let sides: Vec<_> =
        stored.iter().filter_map(|of| Some((*of, of.side(metric, share)?.ok()?))).collect();
    let absent = || match group.lacking(metric) {
        lacking if lacking.all == 0 => {
            NoChange::Absent(Absent::NoValidTrial { failed: group.tally.failed() })
        }
        lacking => NoChange::Lacking(lacking),
    };
    let later = now.side(metric, share).and_then(Result::ok).ok_or_else(absent)?;
    let doubts = sides.iter().flat_map(|(of, _)| of.doubts(metric));
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    doubts.for_each(|(why, answers)| *counted.entry(why).or_default() += answers);
    let doubts = counted.iter().map(|(why, of)| (format!("in the baseline {why}"), *of)).collect();
    let before: Vec<_> = sides.into_iter().map(|(_, side)| side).collect();
    let figures = RunFigures::of(metric, &now, &before, &[later]);
    let change = figures.change(statistic, group.spec.run_variation, confidence);
    Ok(ComparedChange {
        change: change.map_err(NoChange::Absent)?,
        uncertainty: figures.uncertainty(statistic),
        doubts,
        left_out: figures.left_out,
        prompts: now.prompt_names(),
    })
}

/// Compares `group` with `other`, another model that was measured in turns with it.
pub(super) fn with_model(
    threshold: &Threshold,
    group: &Group,
    other: &Group,
    confidence: f64,
) -> Result<ComparedChange, NoChange> {
    let Threshold { metric, statistic, .. } = *threshold;
    let figure = |of: &Group| {
        of.figure(metric, statistic).map_err(|absent| match absent {
            Absent::Lacking { .. } => NoChange::Lacking(of.lacking(metric)),
            absent => NoChange::Absent(absent),
        })
    };
    let figures = (figure(other)?, figure(group)?);
    // under load the run is the unit of every statistic.
    let has_pairs =
        group.spec.workload.is_some() || matches!(statistic, Statistic::Mean | Statistic::Median);
    let change = match has_pairs {
        true => pairs_of(group, other, threshold, figures, confidence),
        // Other statistics belong to all requests of an endpoint, and have no pairs.
        false => {
            let (before, now) = (other.valued(metric), group.valued(metric));
            before.and_then(|before| {
                let before = [RunValues::Requests(before.stratified())];
                let now = now?;
                let now = [RunValues::Requests(now.stratified())];
                Change::since(statistic, &before, &now, 0.0, confidence)
            })
        }
    };
    let doubts = other.tally.doubts(metric);
    Ok(ComparedChange {
        change: change.map_err(NoChange::Absent)?,
        uncertainty: group.tally.uncertainty(metric, statistic)
            + other.tally.uncertainty(metric, statistic),
        doubts: doubts.map(|(why, of)| (format!("of {}: {why}", other.name()), of)).collect(),
        left_out: Vec::new(),
        prompts: group.tally.prompts().map(|prompt| prompt.name.clone()).collect(),
    })
}

/// Compares the pairs of requests, or of runs of a load.
fn pairs_of(
    group: &Group,
    other: &Group,
    threshold: &Threshold,
    figures: (f64, f64),
    confidence: f64,
) -> Result<Change, Absent> {
    let (logs, strata) = group.log_ratios(other, threshold.metric, threshold.statistic);
    Change::of_pairs(StratifiedSample { values: &logs, strata: &strata }, figures, confidence)
}
