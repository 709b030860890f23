//! The change of a figure against its counterpart: the stored runs, or another model of the run.

use std::collections::{BTreeMap, BTreeSet};

use super::{NoChange, Reference};
use crate::{
    baseline::{GroupBaseline, Side},
    comparison::{Change, RunValues},
    interval::StratifiedSample,
    metric::{Metric, MetricSource},
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
    let (common, left_out) = common_prompts(&now, &later, sides.iter().map(|(_, side)| side));
    // A figure of loads has no prompts.
    let only = |side: &Side| match side.strata().is_empty() {
        true => side.clone(),
        false => side.only(&common),
    };
    let before: Vec<_> = sides.iter().map(|(_, side)| only(side)).collect();
    let later = only(&later);
    let is_load = group.spec.workload.is_some();
    let of_runs: Vec<_> = before.iter().map(|side| of_runs(side, metric, statistic)).collect();
    let of_runs_now = [self::of_runs(&later, metric, statistic)];
    let (values, values_now): (Vec<_>, Vec<_>) = match is_load {
        true => (
            of_runs.iter().map(|values| RunValues::Runs(values)).collect(),
            of_runs_now.iter().map(|values| RunValues::Runs(values)).collect(),
        ),
        false => (
            before.iter().map(|side| RunValues::Requests(side.stratified())).collect(),
            vec![RunValues::Requests(later.stratified())],
        ),
    };
    let variation = group.spec.run_variation;
    let change = Change::since(statistic, &values, &values_now, variation, confidence)
        .map_err(NoChange::Absent)?;
    let earlier = before.last().map_or(0.0, |side| side.uncertainty(statistic));
    let doubts = sides.iter().flat_map(|(of, _)| of.doubts(metric));
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    doubts.for_each(|(why, answers)| *counted.entry(why).or_default() += answers);
    Ok(ComparedChange {
        change,
        uncertainty: earlier + later.uncertainty(statistic),
        doubts: counted.iter().map(|(why, of)| (format!("in the baseline {why}"), *of)).collect(),
        left_out,
        prompts: now.prompt_names(),
    })
}

/// The prompts with values in every run, and the names of the others.
fn common_prompts<'a>(
    group: &GroupBaseline,
    now: &Side,
    before: impl Iterator<Item = &'a Side>,
) -> (BTreeSet<u32>, Vec<String>) {
    let of = |side: &Side| side.strata().iter().copied().collect::<BTreeSet<_>>();
    let (mut common, mut all) = (of(now), of(now));
    for side in before {
        let strata = of(side);
        common.retain(|stratum| strata.contains(stratum));
        all.extend(strata);
    }
    let names = group.prompt_names();
    let left_out = all.difference(&common).filter_map(|of| names.get(*of as usize).cloned());
    let left_out = left_out.collect();
    (common, left_out)
}

/// The statistic of each run of a load.
fn of_runs(side: &Side, metric: &Metric, statistic: Statistic) -> Vec<f64> {
    if matches!(metric.read, MetricSource::Load(_)) {
        return side.of_runs().into_iter().map(|(_, value)| value).collect();
    }
    let mut by_run: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (run, value) in side.runs().iter().zip(side.values()) {
        by_run.entry(*run).or_default().push(*value);
    }
    by_run.values().filter_map(|values| statistic.of(values).ok()).collect()
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
    let change = match statistic {
        Statistic::Mean | Statistic::Median => {
            let (logs, strata) = group.log_ratios(other, metric, statistic);
            let pairs = StratifiedSample { values: &logs, strata: &strata };
            Change::of_pairs(pairs, figures, confidence)
        }
        // Other statistics belong to all requests of an endpoint, and have no pairs.
        _ => {
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
