//! Thresholds that the plan cannot decide, known before the first request.

use std::{collections::BTreeSet, fmt};

use llm_stream_core::{
    metric::MetricSource,
    requirement::{self, LOAD_RUNS},
    statistic::Statistic,
    text::counted,
    threshold::{Against, Threshold},
};

use super::{Case, Plan, Task};

/// A threshold that the plan cannot decide.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Undecidable {
    /// The model, and its workload.
    pub group: String,
    /// The threshold.
    pub threshold: Threshold,
    /// The fewest requests, or runs of the load, that decide it.
    pub needs: usize,
    /// How many the plan has at most.
    pub has: usize,
    /// How often each prompt or the load must be run for that.
    pub runs: usize,
    /// Whether runs of a load count, not requests.
    pub counts_runs: bool,
    /// Whether it is a figure of a workload, which has its own `runs`.
    pub is_of_load: bool,
}

impl fmt::Display for Undecidable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, threshold, needs, has, runs, .. } = self;
        let unit = if self.counts_runs { "run" } else { "request" };
        let place = if self.is_of_load { " for the workload" } else { "" };
        write!(
            f,
            "{group}: {threshold}: {} cannot decide it, at least {needs} can: `runs: {runs}`{place}, \
             or `--runs {runs}`",
            counted(*has, unit)
        )
    }
}

impl Plan {
    /// Returns the thresholds that cannot pass with as many requests as are planned, `max_runs`
    /// included. The figure can then only fail, or stay undecided.
    pub fn undecidable(&self) -> Vec<Undecidable> {
        let mut seen = BTreeSet::new();
        let firsts = self.cases.iter().filter(|case| seen.insert(case.group.id));
        firsts.flat_map(|case| self.undecidable_of(case)).collect()
    }

    /// Those of the group of `first`.
    fn undecidable_of(&self, first: &Case) -> Vec<Undecidable> {
        let size = GroupSize::of(self, first);
        let judged = first.thresholds().iter().filter_map(|threshold| {
            let (needs, has, counts_runs) = size.lacks(threshold, self.confidence())?;
            Some(Undecidable {
                group: first.group.name(),
                threshold: threshold.clone(),
                needs,
                has,
                runs: size.runs_for(needs, counts_runs),
                counts_runs,
                is_of_load: first.task.workload().is_some(),
            })
        });
        judged.collect()
    }
}

/// How much is measured of a group at most.
struct GroupSize {
    /// How often each prompt or the load is run.
    runs: f64,
    /// The requests of one run of all of them; `None` where the time decides.
    requests: Option<usize>,
    /// The number of different prompts.
    prompts: usize,
    is_load: bool,
}

impl GroupSize {
    fn of(plan: &Plan, first: &Case) -> Self {
        let workload = first.task.workload();
        let tasks = plan.cases.iter().filter(|case| case.group.id == first.group.id);
        let mut seen = BTreeSet::new();
        let tasks: Vec<_> =
            tasks.filter(|case| seen.insert(case.task.key())).map(|case| &case.task).collect();
        let most =
            f64::from(plan.first_runs(workload.map(|workload| &**workload))) * plan.most_runs;
        Self {
            runs: most.ceil(),
            requests: tasks.iter().map(|task| requests_of(task)).sum(),
            prompts: workload.map_or(tasks.len(), |workload| workload.prompts.len()),
            is_load: workload.is_some(),
        }
    }

    /// How many requests, or runs, the threshold needs and how many there are, if these are too few;
    /// and whether runs count.
    fn lacks(&self, threshold: &Threshold, confidence: f64) -> Option<(usize, usize, bool)> {
        let is_of_requests = matches!(threshold.metric.read, MetricSource::Sample(_));
        if !is_of_requests || threshold.against == Against::History {
            return None;
        }
        let runs = self.runs as usize;
        let describes = matches!(threshold.statistic, Statistic::Min | Statistic::Max);
        if self.is_load {
            // A change between loads is judged by the assumed variation between runs.
            let is_undecidable = !threshold.is_relative() && !describes && runs < LOAD_RUNS;
            return is_undecidable.then_some((LOAD_RUNS, runs, true));
        }
        let has = self.requests? * runs;
        let needs = requirement::of_threshold(threshold, self.prompts, confidence);
        // The change of a statistic needs the statistic itself; a limit on a percentile only needs the
        // number of requests beyond it.
        let needs = match threshold.is_relative() {
            true => needs.max(threshold.statistic.needs()),
            false => needs,
        };
        (has < needs).then_some((needs, has, false))
    }

    /// How many runs have that many requests or runs.
    fn runs_for(&self, needs: usize, counts_runs: bool) -> usize {
        match self.requests {
            Some(requests) if !counts_runs => needs.div_ceil(requests.max(1)),
            _ => needs,
        }
    }
}

/// The requests of a run of `task`; `None` where the time decides.
pub(crate) fn requests_of(task: &Task) -> Option<usize> {
    match task {
        Task::Prompt(prompt) => Some(1 + prompt.turns.len()),
        Task::Workload(workload) => workload.until.requests,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::Config, plan::Overrides};

    /// The warnings of a config with one model.
    fn warnings(yaml: &str) -> Vec<String> {
        let yaml = format!("{yaml}\nmodels: {{ m: {{ simulate: {{}} }} }}\n");
        let config = Config::parse(&yaml, "c.yaml", Path::new("")).unwrap();
        let plan = Plan::new(&config, &Overrides::default()).unwrap();
        plan.undecidable().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_threshold_that_too_few_requests_cannot_decide_names_the_runs_that_can() {
        let one = "prompts: [{ name: a, text: x }]\nthresholds: [\"ttft <= 500 ms\"]\n";
        assert_eq!(
            warnings(&format!("runs: 1\n{one}")),
            ["m-simulated: ttft mean <= 500 ms: 1 request cannot decide it, at least 2 can: \
                 `runs: 2`, or `--runs 2`"]
        );
        for decidable in ["", "runs: 1\nmax_runs: 2\n", "runs: auto\n"] {
            assert_eq!(warnings(&format!("{decidable}{one}")), [""; 0], "{decidable}");
        }
        // Of the ten built-in prompts.
        let limit = |limit: &str| warnings(&format!("thresholds: [\"{limit}\"]"));
        assert!(limit("ttft p95 <= 500 ms")[0].contains("30 requests cannot decide it"));
        assert!(limit("ttft p99 <= 500 ms")[0].contains("`runs: "));
        for limit_that_30_decide in [
            "ttft median <= 500 ms",
            "ttft max <= 500 ms",
            "tpot sd <= 5 ms",
            "success_rate >= 99 %",
        ] {
            assert_eq!(limit(limit_that_30_decide), [""; 0], "{limit_that_30_decide}");
        }
        assert!(
            warnings("runs: 1\nthresholds: [\"tpot sd <= 5 ms\"]")[0].contains("at least 17 can")
        );
    }

    #[test]
    fn a_latency_under_load_needs_four_runs() {
        let load = |runs: u32, limit: &str| {
            warnings(&format!(
                "workloads: {{ w: {{ concurrency: 2, requests: 200, runs: {runs}, thresholds: [\"{limit}\"] }} }}"
            ))
        };
        assert_eq!(
            load(1, "ttft <= 1 s"),
            [
                "m-simulated, w: ttft mean <= 1000 ms: 1 run cannot decide it, at least 4 can: `runs: 4` \
                 for the workload, or `--runs 4`"
            ]
        );
        assert_eq!(load(4, "ttft <= 1 s"), [""; 0]);
        assert_eq!(load(1, "ttft max <= 1 s"), [""; 0]);
        assert_eq!(load(1, "output_throughput >= 1"), [""; 0]);
    }
}
