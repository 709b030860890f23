//! More runs, where thresholds are undecided or means are not known precisely: twice as many, and
//! twice as many again, up to the most that is allowed. With `runs: auto` the second look has as many
//! runs as the noise of the first ones requires.
//!
//! Repeated looks inflate false positives. With `k` looks, the first included, each interval has
//! confidence 1 − 0.05 / k (Bonferroni), whatever the looks have to do with one another.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use llm_stream_core::{
    group::GroupId,
    summary::Group,
    verdict::{Needed, Verdict},
};

use super::{AddedBecause, Cancelled, Event, Runner, instrument::Instruments, position::Positions};
use crate::{
    plan::{self, Case, Look},
    report::GroupVerdicts,
};

/// The width of an interval is estimated from few values, so a little more than needed is measured.
const RESERVE: f64 = 1.15;

impl Runner<'_> {
    /// The confidence of each interval, given how often it may be looked at.
    pub(super) fn confidence(&self) -> f64 {
        self.plan.confidence()
    }

    /// Measures on while that may decide a threshold or reach a goal of precision; returns how many
    /// trials failed.
    pub(super) fn run_until_decided(
        &mut self,
        instruments: &Instruments,
    ) -> Result<u64, Cancelled> {
        let mut failed = 0;
        for look in self.plan.looks() {
            if self.is_cancelled() {
                break;
            }
            let (mut cases, reason) = self.undecided(instruments, look);
            // A later look may have more runs than this group already has.
            if cases.is_empty() {
                continue;
            }
            let all = cases.len();
            cases.truncate(self.within_time(&cases));
            failed += self.run_added(&cases, reason)?;
            if self.is_out_of_time || cases.len() < all {
                self.is_out_of_time = true;
                self.tell(Event::TimeOver);
                break;
            }
        }
        Ok(failed)
    }

    /// Runs additional trials, round by round while there is time; returns how many failed.
    fn run_added(&mut self, cases: &[Arc<Case>], reason: AddedBecause) -> Result<u64, Cancelled> {
        if cases.is_empty() {
            return Ok(0);
        }
        self.tell(Event::TrialsAdded { cases, reason });
        for case in cases {
            case.groups().for_each(|group| self.summary.plan(group.id));
            self.plan.cases.push(case.clone());
        }
        self.positions = Positions::of(&self.plan.cases);
        let (mut failed, mut done) = (0, 0);
        for round in cases.chunk_by(|a, b| a.run == b.run) {
            if self.within_time(round) < round.len() {
                self.is_out_of_time = true;
                break;
            }
            failed += self.run_trials(round)?;
            done += round.len();
        }
        for case in &cases[done..] {
            case.groups().for_each(|group| self.summary.withdraw(group.id));
        }
        self.plan.cases.truncate(self.plan.cases.len() - (cases.len() - done));
        Ok(failed)
    }

    /// How many of `cases`, which are in the order in which they would run, end in time. Rounds are not
    /// cut, so that prompts and models have equally many runs.
    fn within_time(&self, cases: &[Arc<Case>]) -> usize {
        let Some(most) = self.plan.max_time else { return cases.len() };
        let mut left = most.saturating_sub(since(self.started)).as_secs_f64();
        let usual = self.usual_seconds();
        let mut in_time = 0;
        for round in cases.chunk_by(|a, b| a.run == b.run) {
            let seconds = |case: &Arc<Case>| usual.get(&case.group.id).copied().unwrap_or_default();
            left -= round.iter().map(seconds).sum::<f64>();
            if left < 0.0 {
                break;
            }
            in_time += round.len();
        }
        in_time
    }

    /// The mean duration of a trial of each group.
    fn usual_seconds(&self) -> HashMap<GroupId, f64> {
        let mut sums: HashMap<GroupId, (f64, f64)> = HashMap::new();
        for trial in self.trials.iter() {
            let (sum, count) = sums.entry(trial.case.group.id).or_default();
            *sum += trial.seconds;
            *count += 1.0;
        }
        sums.into_iter().map(|(group, (sum, count))| (group, sum / count)).collect()
    }

    /// The additional trials of each group that more requests may decide, up to the number of runs of
    /// `look`, and why they are needed.
    fn undecided(&self, instruments: &Instruments, look: Look) -> (Vec<Arc<Case>>, AddedBecause) {
        let judged = self.judge_all(instruments, self.confidence());
        let (mut cases, mut reason) = (Vec::new(), AddedBecause::default());
        for of in &judged {
            let Some(group) = self.summary.get(of.group) else { continue };
            let needed = self.times_needed(group, of);
            let Some(times) = needed.times() else { continue };
            let factor = match look {
                Look::Times(factor) => factor,
                Look::AsNeeded => times.min(self.plan.most_runs),
            };
            let added = self.additional_cases(group, factor);
            if !added.is_empty() {
                reason.is_undecided |= needed.by_thresholds.is_some();
                reason.is_imprecise |= needed.by_goals.is_some();
            }
            cases.extend(added);
        }
        // The parts of a mix and the whole load have the same trials.
        let mut names = HashSet::new();
        cases.retain(|case| names.insert(case.name.clone()));
        plan::arrange(&mut cases, self.plan.order);
        if self.plan.max_time.is_some() {
            // The time may be over after any round.
            cases.sort_by_key(|case| case.run);
        }
        (cases, reason)
    }

    /// How many times as many requests may decide the group's thresholds and reach its goals, roughly.
    fn times_needed(&self, group: &Group, judged: &GroupVerdicts) -> TimesNeeded {
        let goals = group
            .spec
            .precision
            .iter()
            .filter_map(|goal| goal.measure(group, self.confidence()).times_needed());
        TimesNeeded {
            by_thresholds: judged.verdicts.iter().filter_map(times).reduce(f64::max),
            by_goals: goals.reduce(f64::max),
        }
    }

    /// The next runs of each prompt of the group, or of its workload.
    fn additional_cases(&self, group: &Group, factor: f64) -> Vec<Arc<Case>> {
        let mut tasks: Vec<(&Case, u32)> = Vec::new();
        let mut positions: HashMap<usize, usize> = HashMap::new();
        for case in self.plan.cases.iter().filter(|case| case.is_in(group.spec.id)) {
            let position = *positions.entry(case.task.key()).or_insert(tasks.len());
            match tasks.get_mut(position) {
                Some((_, last)) => *last = case.run.max(*last),
                None => tasks.push((case, case.run)),
            }
        }
        let workload = tasks.first().and_then(|(case, _)| case.task.workload());
        let first = self.plan.first_runs(workload.map(|workload| &**workload));
        let most = (f64::from(first) * factor).ceil() as u32;
        let cases = tasks.into_iter().flat_map(|(case, last)| {
            (last + 1..=most).map(move |run| Arc::new(case.repeated(run)))
        });
        cases.collect()
    }
}

/// How many times as many requests a group needs; `None` where it is decided, or no number decides it.
struct TimesNeeded {
    by_thresholds: Option<f64>,
    by_goals: Option<f64>,
}

impl TimesNeeded {
    fn times(&self) -> Option<f64> {
        let both = self.by_thresholds.into_iter().chain(self.by_goals);
        both.reduce(f64::max).map(|times| times * RESERVE)
    }
}

/// The time since `start`.
#[expect(clippy::disallowed_methods, reason = "`max_time` limits the run; no figure comes from it")]
fn since(start: Instant) -> Duration {
    Instant::now().saturating_duration_since(start)
}

/// How many times as many requests may decide a threshold; `None` where no number does.
fn times(verdict: &Verdict) -> Option<f64> {
    match verdict.needed()? {
        Needed::Requests(more) | Needed::Runs(more) => {
            Some(f64::from(verdict.runs_for(more)) / f64::from(verdict.runs.max(1)))
        }
        // More requests may also do, and nothing says how many.
        Needed::Baseline => Some(f64::INFINITY),
        Needed::StoredRuns(_) | Needed::Duet | Needed::Certainty | Needed::MorePrecision => None,
    }
}
