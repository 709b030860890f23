//! The position of each trial among the selected ones, for the lines that announce it.

use std::{collections::HashMap, sync::Arc};

use crate::plan::Case;

/// The position of a trial among the selected ones; all numbers count from 1.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TrialPosition {
    /// Which trial.
    pub trial: usize,
    /// How many trials there are.
    pub trials: usize,
    /// Which of the model's selected prompts, or workloads.
    pub task: usize,
    /// How many of them there are.
    pub tasks: usize,
    /// Which of the task's selected runs.
    pub run: usize,
    /// How many of them there are.
    pub runs: usize,
}

/// The positions by the addresses of their cases. Computed once: a search for each trial would take
/// minutes with a large data set.
#[derive(Debug, Default)]
pub(super) struct Positions(HashMap<usize, TrialPosition>);

/// A model's prompts, or its workloads.
type Kind = (usize, bool);

impl Positions {
    /// The positions of all `cases`, in one pass over them.
    pub(super) fn of(cases: &[Arc<Case>]) -> Self {
        // The number of each task among those of its kind, and how many runs of it there are.
        let mut tasks: HashMap<(Kind, usize), (usize, usize)> = HashMap::new();
        let mut totals: HashMap<Kind, usize> = HashMap::new();
        let mut positions = HashMap::with_capacity(cases.len());
        for (case, trial) in cases.iter().zip(1..) {
            let (kind, task) = keys(case);
            let (number, run) = tasks.entry((kind, task)).or_insert_with(|| {
                let total = totals.entry(kind).or_default();
                *total += 1;
                (*total, 0)
            });
            *run += 1;
            let (task, run) = (*number, *run);
            let position =
                TrialPosition { trial, trials: cases.len(), task, tasks: 0, run, runs: 0 };
            positions.insert(Arc::as_ptr(case).addr(), position);
        }
        for case in cases {
            let (kind, task) = keys(case);
            if let Some(position) = positions.get_mut(&Arc::as_ptr(case).addr()) {
                position.tasks = totals[&kind];
                position.runs = tasks[&(kind, task)].1;
            }
        }
        Self(positions)
    }

    /// The position of `case`, which is one of them.
    pub(super) fn get(&self, case: &Arc<Case>) -> TrialPosition {
        let nowhere = TrialPosition { trial: 0, trials: 0, task: 0, tasks: 0, run: 0, runs: 0 };
        self.0.get(&Arc::as_ptr(case).addr()).copied().unwrap_or(nowhere)
    }
}

fn keys(case: &Case) -> (Kind, usize) {
    let kind = (Arc::as_ptr(&case.target).addr(), case.task.workload().is_some());
    (kind, case.task.key())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;
    use crate::{cli::Cli, config::Config, plan::Plan};

    #[test]
    fn a_task_keeps_its_number_in_each_run_whatever_the_order() {
        let config = "runs: 2\norder: interleaved(3)\n\
                      prompts: [{ name: a, text: x }, { name: b, text: y }]\n\
                      workloads: { w: { concurrency: 1, requests: 1 } }\n\
                      models: { m: { simulate: {} }, n: { simulate: {} } }\n";
        let config = Config::parse(config, "c.yaml", Path::new("")).unwrap();
        let plan = Plan::new(&config, &Cli::parse_from(["llm"]).overrides()).unwrap();
        let positions = Positions::of(&plan.cases);
        let names: Vec<_> = plan
            .cases
            .iter()
            .map(|case| {
                let TrialPosition { trial, trials, task, tasks, run, runs } = positions.get(case);
                let name = case.name.replace("-simulated", "");
                format!("{name} {trial}/{trials} {task}/{tasks} {run}/{runs}")
            })
            .collect();
        assert_eq!(
            names,
            [
                "n::b::run-1 1/12 1/2 1/2",
                "m::b::run-1 2/12 1/2 1/2",
                "m::a::run-1 3/12 2/2 1/2",
                "n::a::run-1 4/12 2/2 1/2",
                "m::w::run-1 5/12 1/1 1/2",
                "n::w::run-1 6/12 1/1 1/2",
                "m::b::run-2 7/12 1/2 2/2",
                "n::b::run-2 8/12 1/2 2/2",
                "n::a::run-2 9/12 2/2 2/2",
                "m::a::run-2 10/12 2/2 2/2",
                "m::w::run-2 11/12 1/1 2/2",
                "n::w::run-2 12/12 1/1 2/2",
            ]
        );
    }
}
