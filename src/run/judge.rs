//! The verdicts of a run's groups.

use llm_stream_core::{
    baseline::GroupBaseline,
    comparison::SIGNIFICANT,
    interval::CONFIDENCE,
    summary::Group,
    verdict::{Judge, assign_levels},
};

use super::{Runner, instrument::Instruments};
use crate::report::GroupVerdicts;

impl Runner<'_> {
    /// Judges every group, in the summary's order.
    pub(super) fn judge_all(
        &self,
        instruments: &Instruments,
        confidence: f64,
    ) -> Vec<GroupVerdicts> {
        let (groups, reference) = (&self.summary.groups, self.reference());
        let judged = groups.iter().map(|group| {
            let instrument = instruments.of(group).map(|known| known.bounds());
            verdicts(group, &Judge { instrument, reference, groups, confidence })
        });
        let mut judged: Vec<_> = judged.collect();
        // Each look at the data has its part of the level.
        let level = SIGNIFICANT * (1.0 - confidence) / (1.0 - CONFIDENCE);
        assign_levels(judged.iter_mut().flat_map(|of| &mut of.verdicts), level);
        judged
    }
}

/// Judges a group.
fn verdicts(group: &Group, judge: &Judge<'_>) -> GroupVerdicts {
    // Without a baseline there is no change to judge: the command line allowed that.
    let limits = group.thresholds().iter();
    let judged = limits.filter(|limit| judge.reference.is_some() || !limit.needs_baseline());
    let verdicts: Vec<_> = judged.map(|limit| judge.verdict(limit, group)).collect();
    let compares = verdicts.iter().any(|verdict| verdict.threshold.needs_baseline());
    let notes = judge.reference.filter(|_| compares).and_then(|reference| {
        let now = GroupBaseline::of(group, reference.machine);
        Some(reference.baseline.history(&now).ok()?.notes)
    });
    GroupVerdicts {
        group: group.spec.id,
        name: group.name(),
        verdicts,
        notes: notes.unwrap_or_default(),
    }
}
