//! More runs, where thresholds are not decided: twice as many, and twice as many again, up to the
//! most that is allowed.
//!
//! Whoever looks often sees something some time. Every look, the first included, is therefore as
//! sure as leaves all of them together as sure as one alone (Bonferroni): with `k` looks an interval
//! has a confidence of `1 − 0.05 / k`, whatever the looks have to do with one another.

use std::{collections::HashMap, sync::Arc};

use llm_stream_core::{
    interval::CONFIDENCE,
    statistic::Absent,
    summary::Group,
    text::counted,
    verdict::{Needed, Verdict},
};

use super::{Session, Stopped, judge, places::Places};
use crate::{
    harness::calibrate::Instruments,
    plan::{self, Case},
};

impl Session {
    /// How sure each interval is, given how often it may be looked at.
    pub(super) fn confidence(&self) -> f64 {
        let looks = factors(self.plan.most_runs).len() + 1;
        1.0 - (1.0 - CONFIDENCE) / looks as f64
    }

    /// Goes on measuring while that may decide a threshold; the number of trials that failed, or
    /// `Interrupted`.
    pub(in crate::harness) fn run_until_decided(
        &mut self,
        instruments: &Instruments,
    ) -> Result<u64, Stopped> {
        let mut failed = 0;
        for factor in factors(self.plan.most_runs) {
            let cases = self.undecided(instruments, factor);
            if cases.is_empty() || self.interrupt.came() {
                return Ok(failed);
            }
            let more = counted(cases.len(), "more trial");
            self.terminal.err(&format!("Going on, since thresholds are undecided: {more}\n"));
            for case in &cases {
                self.summary.plan(case.group.id);
                self.plan.cases.push(case.clone());
            }
            self.places = Places::of(&self.plan.cases);
            for case in &cases {
                match self.trial(case) {
                    Ok(_) => {}
                    Err(Stopped::Failed(_)) => failed += 1,
                    Err(Stopped::Interrupted) => return Err(Stopped::Interrupted),
                }
            }
        }
        Ok(failed)
    }

    /// The additional trials of each group that more requests may decide, up to `factor` times its
    /// first number of runs.
    fn undecided(&self, instruments: &Instruments, factor: f64) -> Vec<Arc<Case>> {
        let confidence = self.confidence();
        let groups = self.summary.groups.iter().enumerate().filter(|group| {
            let judged = judge(*group, instruments, self.reference(), confidence);
            judged.verdicts.iter().any(more_may_decide)
        });
        let mut cases: Vec<_> =
            groups.flat_map(|(_, group)| self.additional_cases(group, factor)).collect();
        plan::arrange(&mut cases, self.plan.order);
        cases
    }

    /// The next runs of all that the group was asked.
    fn additional_cases(&self, group: &Group, factor: f64) -> Vec<Arc<Case>> {
        let mut tasks: Vec<(&Case, u32)> = Vec::new();
        let mut places: HashMap<usize, usize> = HashMap::new();
        for case in self.plan.cases.iter().filter(|case| case.group.id == group.spec.id) {
            let place = *places.entry(case.task.key()).or_insert(tasks.len());
            match tasks.get_mut(place) {
                Some((_, last)) => *last = case.run.max(*last),
                None => tasks.push((case, case.run)),
            }
        }
        let workload = tasks.first().and_then(|(case, _)| case.task.workload());
        let first = self.plan.first_runs(workload.map(|workload| &**workload));
        let most = (f64::from(first) * factor).ceil() as u32;
        let additional_cases = tasks.into_iter().flat_map(|(case, last)| {
            (last + 1..=most).map(move |run| Arc::new(case.repeated(run)))
        });
        additional_cases.collect()
    }
}

fn more_may_decide(verdict: &Verdict) -> bool {
    let refused = matches!(verdict.actual, Err(Absent::TooFew { .. }));
    refused
        || matches!(
            verdict.needed(),
            Some(Needed::Requests(_) | Needed::Runs(_) | Needed::Baseline)
        )
}

/// By how much the runs are multiplied at each further look: 2, 4, … and the most at last.
fn factors(most: f64) -> Vec<f64> {
    let doubled = std::iter::successors(Some(2.0), |factor| Some(factor * 2.0));
    let mut factors: Vec<_> = doubled.take_while(|factor| *factor < most).collect();
    if most > 1.0 {
        factors.push(most);
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_double_up_to_the_most() {
        assert_eq!(factors(1.0), [0.0; 0]);
        assert_eq!(factors(1.5), [1.5]);
        assert_eq!(factors(2.0), [2.0]);
        assert_eq!(factors(10.0), [2.0, 4.0, 8.0, 10.0]);
    }
}
