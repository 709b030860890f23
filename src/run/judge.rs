//! The verdicts of a run's groups.

use llm_stream_core::{
    baseline::GroupBaseline,
    summary::Group,
    verdict::{Reference, Verdict},
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
        let groups = self.summary.groups.iter();
        groups.map(|group| judge(group, instruments, self.reference(), confidence)).collect()
    }
}

/// Judges a group.
fn judge(
    group: &Group,
    instruments: &Instruments,
    reference: Option<Reference<'_>>,
    confidence: f64,
) -> GroupVerdicts {
    let instrument = instruments.of(group).map(|known| known.bounds());
    let instrument = instrument.map(|bounds| bounds.with_simulator(&group.punctuality));
    let verdict = |&threshold| Verdict::of(threshold, group, instrument, reference, confidence);
    // Without a baseline there is no change to judge: the command line allowed that.
    let limits = group.thresholds().iter();
    let judged = limits.filter(|limit| reference.is_some() || !limit.is_relative);
    let verdicts: Vec<_> = judged.map(verdict).collect();
    let compares = verdicts.iter().any(|verdict| verdict.change.is_some());
    let notes = reference.filter(|_| compares).and_then(|reference| {
        let now = GroupBaseline::of(group, reference.machine);
        reference.baseline.group(&now).ok()?.comparable_to(&now).ok()
    });
    GroupVerdicts {
        group: group.spec.id,
        name: group.name(),
        verdicts,
        notes: notes.unwrap_or_default(),
    }
}
