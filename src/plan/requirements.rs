//! Thresholds that the plan cannot decide, known before the first request.

use std::{collections::BTreeSet, fmt};

use llm_stream_core::{
    baseline::Baseline,
    comparison::{self, MIN_HISTORY, MIN_REQUESTS},
    group::GroupSpec,
    metric::{Metric, MetricSource},
    requirement::{self, LOAD_RUNS},
    statistic::Statistic,
    text::counted,
    threshold::{Against, Threshold},
    trend,
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
    /// Why it cannot be decided.
    pub cause: UndecidableCause,
}

/// Why a plan cannot decide a threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum UndecidableCause {
    /// The plan has too few requests, or runs of the load.
    #[non_exhaustive]
    TooFew {
        /// The fewest requests, or runs of the load, that decide it.
        needs: usize,
        /// How many the plan has at most.
        has: usize,
        /// How often each prompt or the load must be run for that.
        runs: usize,
        /// Whether runs of a load count, not requests.
        counts_runs: bool,
        /// Whether it is a figure of a workload, which has its own `runs`.
        is_of_load: bool,
    },
    /// Each run of the load has too few requests for the statistic.
    #[non_exhaustive]
    ShortRuns {
        /// The fewest requests of a run.
        needs: usize,
        /// The requests of a run.
        has: usize,
        /// The requests of the whole load that give this many; more for a part of a mix.
        of_load: usize,
    },
    /// The variation between runs is larger than the limit.
    #[non_exhaustive]
    Variation {
        /// The smallest limit that can be decided, as a fraction.
        smallest: f64,
        /// The assumed variation, as a fraction.
        assumed: f64,
        /// The number of stored runs; `None` if it is not known.
        stored: Option<usize>,
    },
    /// A course over the stored runs needs more of them.
    #[non_exhaustive]
    TooFewStored {
        /// The fewest runs, this one included.
        needs: usize,
        /// The runs, this one included.
        has: usize,
    },
}

impl fmt::Display for Undecidable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, threshold, cause } = self;
        write!(f, "{group}: {threshold}: ")?;
        match *cause {
            UndecidableCause::TooFew { needs, has, runs, counts_runs, is_of_load } => {
                let has = counted(has, if counts_runs { "run" } else { "request" });
                let place = if is_of_load { " for the workload" } else { "" };
                write!(
                    f,
                    "{has} cannot decide it, at least {needs} can: `runs: {runs}`{place}, or \
                     `--runs {runs}`"
                )
            }
            UndecidableCause::ShortRuns { needs, has, of_load } => write!(
                f,
                "each run has {}, and its {} needs {needs}: `requests: {of_load}` for the workload",
                counted(has, "request"),
                threshold.statistic
            ),
            UndecidableCause::Variation { smallest, assumed, stored } => {
                let assumed = format!("{:.3}", 100.0 * assumed);
                let assumed = assumed.trim_end_matches('0').trim_end_matches('.');
                let smallest = format!("{:+.1} %", 100.0 * smallest);
                match stored {
                    Some(stored) if stored >= MIN_HISTORY => write!(
                        f,
                        "the {stored} stored runs vary too much for it, and decide {smallest} at \
                         best: "
                    )?,
                    _ => write!(
                        f,
                        "runs are assumed to vary by ± {assumed} % (`run_variation`), so that {} \
                         can decide {smallest} at best: store {MIN_HISTORY} or more \
                         (`--save-baseline`), or ",
                        counted(stored.unwrap_or(1), "stored run")
                    )?,
                }
                let change = threshold.format_change();
                write!(f, "measure both builds in one run (`{change} of MODEL`)")
            }
            UndecidableCause::TooFewStored { needs, has } => write!(
                f,
                "a course needs {needs} runs, and this one is number {has}: store {} \
                 (`--save-baseline`)",
                counted(needs - has, "more run")
            ),
        }
    }
}

impl Plan {
    /// Returns the thresholds that cannot pass with as many requests as are planned, `max_runs`
    /// included. The figure can then only fail, or stay undecided. Without the `baseline` that the run
    /// is compared with, a single stored run is assumed.
    pub fn undecidable(&self, baseline: Option<&Baseline>) -> Vec<Undecidable> {
        let mut seen = BTreeSet::new();
        let groups = self.cases.iter().flat_map(|case| case.groups().map(move |of| (case, of)));
        let firsts = groups.filter(|(_, group)| seen.insert(group.id));
        firsts.flat_map(|(case, group)| self.undecidable_of(case, group, baseline)).collect()
    }

    /// Those of a group whose first trial is `first`.
    fn undecidable_of(
        &self,
        first: &Case,
        group: &GroupSpec,
        baseline: Option<&Baseline>,
    ) -> Vec<Undecidable> {
        let size = GroupSize::of(self, first, group);
        let cause = |threshold: &Threshold| {
            size.lacks(threshold, self.confidence())
                .or_else(|| size.varies(threshold, group, (baseline, self.confidence())))
        };
        let judged = group.thresholds.iter().filter_map(|threshold| {
            let cause = cause(threshold)?;
            Some(Undecidable { group: group.name(), threshold: threshold.clone(), cause })
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
    /// The share of the requests, of a part of a mix; otherwise 1.
    share: f64,
}

impl GroupSize {
    fn of(plan: &Plan, first: &Case, group: &GroupSpec) -> Self {
        let workload = first.task.workload();
        let tasks = plan.cases.iter().filter(|case| case.is_in(group.id));
        let parts = workload.into_iter().flat_map(|workload| &workload.parts);
        let part = parts.into_iter().find(|part| Some(part.index) == group.id.workload);
        let of_part = |requests: usize| match part {
            Some(part) => (requests as f64 * part.share).round() as usize,
            None => requests,
        };
        let mut seen = BTreeSet::new();
        let tasks: Vec<_> =
            tasks.filter(|case| seen.insert(case.task.key())).map(|case| &case.task).collect();
        let most =
            f64::from(plan.first_runs(workload.map(|workload| &**workload))) * plan.most_runs;
        Self {
            runs: most.ceil(),
            requests: tasks
                .iter()
                .map(|task| requests_of(task))
                .sum::<Option<usize>>()
                .map(of_part),
            prompts: part.or(workload).map_or(tasks.len(), |workload| workload.prompts.len()),
            is_load: workload.is_some(),
            share: part.map_or(1.0, |part| part.share),
        }
    }

    /// Why the requests, or the runs, are too few for the threshold, if they are.
    fn lacks(&self, threshold: &Threshold, confidence: f64) -> Option<UndecidableCause> {
        if threshold.against == Against::History {
            return None;
        }
        match threshold.metric.read {
            MetricSource::All => {
                let needs = requirement::of_success_rate(threshold, confidence);
                self.lacks_requests(needs)
            }
            _ if self.is_load => self.lacks_runs(threshold),
            MetricSource::Load(_) => None,
            MetricSource::Sample(_) => {
                let needs = requirement::of_threshold(threshold, self.prompts, confidence);
                // The change of a statistic needs the statistic itself; a limit on a percentile only
                // needs the number of requests beyond it.
                self.lacks_requests(match threshold.is_relative() {
                    true => needs.max(threshold.statistic.needs()),
                    false => needs,
                })
            }
        }
    }

    fn lacks_requests(&self, needs: usize) -> Option<UndecidableCause> {
        let has = self.requests? * self.runs as usize;
        (has < needs).then(|| self.too_few((needs, has), false))
    }

    /// Why the runs of a load are too few, or too short, for the threshold.
    fn lacks_runs(&self, threshold: &Threshold) -> Option<UndecidableCause> {
        let is_of_requests = matches!(threshold.metric.read, MetricSource::Sample(_));
        let needs = threshold.statistic.needs();
        if let Some(has) = self.requests.filter(|has| is_of_requests && *has < needs) {
            let of_load = (needs as f64 / self.share).ceil() as usize;
            return Some(UndecidableCause::ShortRuns { needs, has, of_load });
        }
        let describes = matches!(threshold.statistic, Statistic::Min | Statistic::Max);
        let is_of_energy =
            threshold.metric.is_one_of(&[Metric::ENERGY, Metric::ENERGY_PER_OUTPUT_TOKEN]);
        let needs = match threshold.against {
            Against::Model(_) => MIN_REQUESTS,
            // A change between loads is judged by the variation between runs.
            Against::Baseline | Against::History => 1,
            Against::Value if (is_of_requests || is_of_energy) && !describes => LOAD_RUNS,
            Against::Value => 1,
        };
        let has = self.runs as usize;
        (has < needs).then(|| self.too_few((needs, has), true))
    }

    fn too_few(&self, (needs, has): (usize, usize), counts_runs: bool) -> UndecidableCause {
        let runs = self.runs_for(needs, counts_runs);
        UndecidableCause::TooFew { needs, has, runs, counts_runs, is_of_load: self.is_load }
    }

    /// Why the stored runs cannot decide the threshold: they are too few, or vary too much.
    fn varies(
        &self,
        threshold: &Threshold,
        spec: &GroupSpec,
        (baseline, confidence): (Option<&Baseline>, f64),
    ) -> Option<UndecidableCause> {
        let levels = baseline.map(|baseline| baseline.levels(spec, threshold.metric));
        let stored = levels.as_ref().map(Vec::len);
        if threshold.against == Against::History {
            let (needs, has) = (trend::FEWEST, stored? + 1);
            return (has < needs).then_some(UndecidableCause::TooFewStored { needs, has });
        }
        // A figure that no stored run has is reported with the verdicts. A limit that demands an
        // improvement is decided by a large one.
        if threshold.against != Against::Baseline || stored == Some(0) || !threshold.holds(0.0) {
            return None;
        }
        let load_runs = self.is_load.then_some(self.runs as usize);
        let half = comparison::smallest_change(
            levels.as_deref().unwrap_or_default(),
            spec.run_variation,
            load_runs,
            confidence,
        );
        let smallest = if threshold.limits_increase() { half } else { -half }.exp_m1();
        let assumed = spec.run_variation;
        (!threshold.holds(smallest)).then_some(UndecidableCause::Variation {
            smallest,
            assumed,
            stored,
        })
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
        plan.undecidable(None).iter().map(ToString::to_string).collect()
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
            "success_rate >= 100 %",
            "success_rate >= 85 %",
            "generation_speed >= -9 % of baseline",
            "generation_speed >= +1 % of baseline",
        ] {
            assert_eq!(limit(limit_that_30_decide), [""; 0], "{limit_that_30_decide}");
        }
        assert!(
            warnings("runs: 1\nthresholds: [\"tpot sd <= 5 ms\"]")[0].contains("at least 17 can")
        );
    }

    #[test]
    fn a_limit_within_the_variation_between_runs_names_the_smallest_that_can_be_decided() {
        let limit =
            |more: &str, limit: &str| warnings(&format!("{more}\nthresholds: [\"{limit}\"]"));
        // 1.96 × 3 % × √2, on the scale of logarithms.
        assert_eq!(
            limit("", "generation_speed >= -3 % of baseline"),
            [
                "m-simulated: generation_speed mean >= -3 % of baseline: runs are assumed to vary by \
                 ± 3 % (`run_variation`), so that 1 stored run can decide -8.0 % at best: store 5 or \
                 more (`--save-baseline`), or measure both builds in one run (`-3 % of MODEL`)"
            ]
        );
        assert!(limit("", "ttft <= +5 % of baseline")[0].contains("can decide +8.7 % at best"));
        assert_eq!(limit("run_variation: 1 %", "ttft <= +5 % of baseline"), [""; 0]);
        let p95 = limit("", "ttft p95 <= +20 % of baseline");
        assert!(p95[0].contains("30 requests cannot decide it, at least 93 can"), "{p95:?}");
    }

    #[test]
    fn a_success_rate_below_a_hundred_percent_needs_many_requests() {
        let limit = |limit: &str| warnings(&format!("thresholds: [\"{limit}\"]"));
        assert!(limit("success_rate >= 99 %")[0].contains("at least 368 can: `runs: 37`"));
    }

    #[test]
    fn a_duet_of_loads_needs_three_runs_and_a_percentile_runs_that_are_long_enough() {
        let load = |runs: u32, requests: u32, limit: &str| {
            let yaml = format!(
                "runs: {runs}\nworkloads: {{ w: {{ concurrency: 2, requests: {requests}, thresholds: [\"{limit}\"] }} }}\n\
                 models: {{ m: {{ simulate: {{}} }}, old: {{ simulate: {{}} }} }}\n"
            );
            let config = Config::parse(&yaml, "c.yaml", Path::new("")).unwrap();
            let plan = Plan::new(&config, &Overrides::default()).unwrap();
            let warnings = plan.undecidable(None);
            warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for figure in ["output_throughput >= -3 %", "ttft <= +3 %", "ttft p90 <= +3 %"] {
            let found = load(1, 200, &format!("{figure} of old"));
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains("1 run cannot decide it, at least 3 can"), "{found:?}");
            assert_eq!(load(3, 200, &format!("{figure} of old")), [""; 0]);
        }
        let short = load(4, 20, "ttft p95 <= 1 s");
        let why = "each run has 20 requests, and its p95 needs 93: `requests: 93` for the workload";
        assert!(short[0].ends_with(why), "{short:?}");
        let throughput = load(3, 200, "output_throughput >= -5 % of baseline");
        assert!(throughput[0].contains("± 20 % (`run_variation`)"), "{throughput:?}");
        assert!(
            throughput[0].contains("1 stored run can decide -27.4 % at best"),
            "{throughput:?}"
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
