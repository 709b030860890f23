//! Stored runs that later runs are compared with: their values and their settings. Pure.

mod file;
mod rows;
mod run_figures;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    group::GroupSpec,
    interval::StratifiedSample,
    lacking::{self, MIN_SHARE},
    load_stats::{Batch, LoadStats},
    metric::{METRICS, Metric, MetricSource},
    statistic::{Absent, Statistic},
    summary::{Group, MetricValues, group_name},
    uncertainty::{self, Uncertain},
};

pub use self::file::{
    Baseline, BaselineMismatch, History, HistoryEntry, ParseBaselineError, StoredRun,
};
pub use self::{
    rows::{StoredLoad, StoredRow},
    run_figures::RunFigures,
};

/// The values of one group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupBaseline {
    /// The name for display.
    pub name: String,
    /// The model's name; older files only have the group's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The workload's name, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    /// Settings that must be equal for figures to be comparable.
    setting: BTreeMap<String, String>,
    /// Circumstances that should be equal. Differences are printed.
    #[serde(rename = "surroundings")]
    environment: BTreeMap<String, String>,
    /// The prompts, each with a hash of its content.
    prompts: Vec<(String, String)>,
    /// The index of each valid request's prompt, in order of time.
    strata: Vec<u32>,
    /// The run number of each valid request. Older files lack it.
    #[serde(default)]
    runs: Vec<u32>,
    /// The number of failed requests.
    #[serde(default)]
    failed: usize,
    /// The values of each metric, in base units: of requests, or of the batches of a load.
    figures: BTreeMap<String, Vec<f64>>,
    /// The values of metrics that some requests lack.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    partial: BTreeMap<String, Partial>,
    /// The runs of a load, by metric. Older files lack them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    loads: BTreeMap<String, Vec<LoadRun>>,
    /// How far some values can be off, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    uncertain: BTreeMap<String, Vec<Uncertain>>,
    /// Why figures may be wrong, with the number of affected answers, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    doubts: BTreeMap<String, Vec<(String, usize)>>,
    /// The setting `min_share` of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_share: Option<f64>,
}

/// The figure of one run of a load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct LoadRun {
    /// The number of the run among the runs that reached the load, from 1.
    run: u32,
    /// The figure of the whole run.
    value: f64,
    /// The number of its batches, which are stored as values.
    batches: usize,
}

/// The values of a metric that some requests, or runs of a load, lack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Partial {
    /// The number of requests or runs that could have it.
    could: usize,
    /// The number of runs that have it. For requests it is the number of values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    have: Option<usize>,
    /// The values.
    values: Vec<f64>,
    /// The index of each value's prompt.
    strata: Vec<u32>,
    /// The run number of each value. Older files lack it.
    #[serde(default)]
    runs: Vec<u32>,
}

impl Partial {
    fn have(&self) -> usize {
        self.have.unwrap_or(self.values.len())
    }
}

/// The values of a metric in one of two compared runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Side {
    values: Vec<f64>,
    strata: Vec<u32>,
    runs: Vec<u32>,
    of_runs: Vec<(u32, f64)>,
    uncertain: Vec<Uncertain>,
}

impl Side {
    /// Returns the values in order of time: one for each request, or for each batch of a load.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Returns the index of each value's prompt; empty for a figure of loads.
    pub fn strata(&self) -> &[u32] {
        &self.strata
    }

    /// Returns the run number of each value.
    pub fn runs(&self) -> &[u32] {
        &self.runs
    }

    /// Returns the figure of each run with the run's number, ascending. For requests it is the mean
    /// over the requests of the run; for a load, the figure of the whole run, which may differ from
    /// the mean of its batches.
    pub fn of_runs(&self) -> Vec<(u32, f64)> {
        if !self.of_runs.is_empty() {
            return self.of_runs.clone();
        }
        let mut by_run: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (run, value) in self.runs.iter().zip(&self.values) {
            by_run.entry(*run).or_default().push(*value);
        }
        let mean = |(run, values): (u32, Vec<f64>)| Some((run, Statistic::Mean.of(&values).ok()?));
        by_run.into_iter().filter_map(mean).collect()
    }

    /// Returns the values with their strata.
    pub fn stratified(&self) -> StratifiedSample<'_> {
        StratifiedSample { values: &self.values, strata: &self.strata }
    }

    /// Returns how far `statistic` of the values can be off because of uncertain arrivals.
    pub fn uncertainty(&self, statistic: Statistic) -> f64 {
        uncertainty::of_statistic(statistic, &self.values, &self.uncertain)
    }

    /// Returns the values of the prompts in `kept`.
    pub fn only(&self, kept: &BTreeSet<u32>) -> Self {
        let mut side = Self::default();
        let mut uncertain = self.uncertain.iter().peekable();
        let rows = self.values.iter().zip(&self.strata).zip(&self.runs).zip(0_u32..);
        for (((value, stratum), run), place) in rows {
            let error = uncertain.next_if(|(of, _)| *of == place).map(|(_, error)| *error);
            if kept.contains(stratum) {
                let moved = u32::try_from(side.values.len()).unwrap_or(u32::MAX);
                side.uncertain.extend(error.map(|error| (moved, error)));
                side.values.push(*value);
                side.strata.push(*stratum);
                side.runs.push(*run);
            }
        }
        side
    }
}

impl GroupBaseline {
    /// Returns a value that no run measures, with its metric: it is not finite, is too large to be
    /// summed, or is negative although the metric is not a difference.
    fn impossible_value(&self) -> Option<(&str, f64)> {
        const LARGEST: f64 = 1e15;
        let figures = self.figures.iter().map(|(name, values)| (name, values.as_slice()));
        let partial = self.partial.iter().map(|(name, partial)| (name, partial.values.as_slice()));
        let values = figures
            .chain(partial)
            .flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), *value)));
        let loads = self
            .loads
            .iter()
            .flat_map(|(name, runs)| runs.iter().map(move |run| (name.as_str(), run.value)));
        let errors = self.uncertain.iter().flat_map(|(name, values)| {
            values.iter().map(move |(_, error)| (name.as_str(), f64::from(*error).abs()))
        });
        values.chain(loads).chain(errors).find(|(name, value)| {
            let is_difference = Metric::named(name).is_some_and(Metric::can_be_negative);
            !value.is_finite() || value.abs() > LARGEST || *value < 0.0 && !is_difference
        })
    }

    /// Creates the baseline of a group, measured by `machine`.
    pub fn of(group: &Group, machine: &str) -> Self {
        let mut prompts: Vec<_> = group.tally.prompts().enumerate().collect();
        // Sorted by name, so that the order of requests does not change the indices.
        prompts.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        let mut numbers = vec![0; prompts.len()];
        for ((stratum, _), place) in prompts.iter().zip(0_u32..) {
            numbers[*stratum] = place;
        }
        let number = |stratum: &u32| numbers.get(*stratum as usize).copied().unwrap_or_default();
        let of_requests =
            METRICS.iter().filter(|metric| matches!(metric.read, MetricSource::Sample(_)));
        let (mut figures, mut partial) = (BTreeMap::new(), BTreeMap::new());
        for metric in of_requests {
            let MetricValues { values, strata } = group.tally.valued(metric);
            let runs = || group.tally.runs_of(metric);
            let (name, values) = (metric.name.to_owned(), values.to_vec());
            if values.len() == group.tally.valid {
                figures.insert(name, values);
            } else if !values.is_empty() {
                let could = group.lacking(metric).could();
                let strata = strata.iter().map(number).collect();
                partial.insert(name, Partial { could, have: None, values, strata, runs: runs() });
            }
        }
        let loads = add_throughputs(group, &mut figures, &mut partial);
        let uncertain = METRICS.iter().map(|metric| (metric, group.tally.uncertain(metric)));
        let uncertain = uncertain.filter(|(_, uncertain)| !uncertain.is_empty());
        let doubts = METRICS.iter().map(|metric| {
            let doubts = group.tally.doubts(metric);
            let doubts: Vec<_> = doubts.map(|(why, answers)| (why.to_owned(), answers)).collect();
            (metric.name.to_owned(), doubts)
        });
        Self {
            name: group.name(),
            model: Some(group.spec.model.clone()),
            workload: group.spec.workload_name().map(str::to_owned),
            setting: group.spec.settings.clone(),
            environment: environment(&group.spec, machine),
            strata: group.tally.strata().iter().map(number).collect(),
            prompts: prompts
                .iter()
                .map(|(_, prompt)| (prompt.name.clone(), hash(&prompt.identity())))
                .collect(),
            runs: group.tally.runs().to_vec(),
            failed: group.tally.failed(),
            figures,
            partial,
            loads,
            uncertain: uncertain
                .map(|(metric, uncertain)| (metric.name.to_owned(), uncertain.to_vec()))
                .collect(),
            doubts: doubts.filter(|(_, doubts)| !doubts.is_empty()).collect(),
            min_share: Some(group.spec.min_share),
        }
    }

    /// Returns the names of the prompts by their numbers.
    pub fn prompt_names(&self) -> Vec<String> {
        self.prompts.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Returns whether both groups have the same model and the same load.
    fn is_of_the_same(&self, other: &Self) -> bool {
        match (&self.model, &other.model) {
            (Some(ours), Some(theirs)) => ours == theirs && self.workload == other.workload,
            // The name of a model may equal the name of another model under a load, so the load is
            // compared too.
            _ => self.shown_name() == other.shown_name() && self.is_load() == other.is_load(),
        }
    }

    /// Returns the model's name.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Returns whether the group is that of a model, with or without a load.
    fn is_of(&self, model: &str, workload: Option<&str>) -> bool {
        match &self.model {
            Some(ours) => ours == model && self.workload.as_deref() == workload,
            None => self.name == group_name(model, workload),
        }
    }

    /// Returns the name as in older files.
    fn shown_name(&self) -> String {
        let model = self.model.as_ref();
        model.map_or_else(|| self.name.clone(), |model| group_name(model, self.workload.as_deref()))
    }

    /// Returns the share of requests that must have a figure for a comparison.
    pub fn min_share(&self) -> f64 {
        self.min_share.unwrap_or(MIN_SHARE)
    }

    /// Returns the values of `metric`. It is an error if fewer than `min_share` of the requests
    /// have it, and `None` if no request has it.
    pub fn side(&self, metric: &Metric, min_share: f64) -> Option<Result<Side, Absent>> {
        let uncertain = self.uncertain.get(metric.name).cloned().unwrap_or_default();
        let of_runs = self.of_runs(metric);
        if let Some(partial) = self.partial.get(metric.name) {
            let (have, all) = (partial.have(), partial.could);
            return Some(match lacking::is_enough(have, all, min_share) {
                true => {
                    let Partial { values, strata, runs, .. } = partial.clone();
                    Ok(Side { values, strata, runs, of_runs, uncertain })
                }
                false => Err(Absent::Lacking { lack: all.saturating_sub(have), all }),
            });
        }
        let values = self.figures.get(metric.name)?.clone();
        let (strata, runs) = match metric.read {
            MetricSource::Sample(_) => (self.strata.clone(), self.runs.clone()),
            MetricSource::Load(_) | MetricSource::All => {
                (Vec::new(), self.batch_runs(metric, values.len()))
            }
        };
        Some(Ok(Side { values, strata, runs, of_runs, uncertain }))
    }

    /// Returns the figure of each run of a load; empty for figures of requests and in older files.
    fn of_runs(&self, metric: &Metric) -> Vec<(u32, f64)> {
        let runs = self.loads.get(metric.name).into_iter().flatten();
        runs.map(|of| (of.run, of.value)).collect()
    }

    /// Returns the run number of each of `batches` batches of a load. Older files lack it: all
    /// batches then belong to run 1.
    fn batch_runs(&self, metric: &Metric, batches: usize) -> Vec<u32> {
        let Some(runs) = self.loads.get(metric.name) else { return vec![1; batches] };
        runs.iter().flat_map(|of| std::iter::repeat_n(of.run, of.batches)).collect()
    }

    /// Returns whether the group is one of a workload.
    pub fn is_load(&self) -> bool {
        self.setting.contains_key("load")
    }

    /// Returns the number of failed requests.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Returns the number of valid requests.
    pub fn valid(&self) -> usize {
        self.strata.len()
    }

    /// Completes a group of an older file, which lacks the run numbers.
    ///
    /// Prompts that are sent one by one occur once per run, so the nth request of a prompt belongs
    /// to run n. Under a load a prompt occurs many times in a run and the file does not tell how
    /// many runs there were: all values then belong to run 1.
    fn number_runs(&mut self) {
        let is_load = self.is_load();
        if self.runs.len() != self.strata.len() {
            self.runs = numbered(&self.strata, is_load);
        }
        for partial in self.partial.values_mut() {
            if partial.runs.len() != partial.values.len() {
                partial.runs = match partial.strata.is_empty() {
                    true => vec![1; partial.values.len()],
                    false => numbered(&partial.strata, is_load),
                };
            }
        }
    }

    /// Returns why `metric` may be wrong, with the number of affected answers.
    pub fn doubts(&self, metric: &Metric) -> &[(String, usize)] {
        self.doubts.get(metric.name).map_or(&[], Vec::as_slice)
    }

    /// Returns how many requests or runs have `metric`, and how many could have it; `None` if no
    /// request has it.
    pub fn have(&self, metric: &Metric) -> Option<(usize, usize)> {
        if let Some(partial) = self.partial.get(metric.name) {
            return Some((partial.have(), partial.could));
        }
        let values = self.figures.get(metric.name)?;
        Some((values.len(), values.len()))
    }

    /// Checks that `now` has the same settings and prompts. Returns the other differences.
    pub fn comparable_to(&self, now: &Self) -> Result<Vec<String>, BaselineMismatch> {
        // Rows do not have the settings.
        let without_settings = [(self, "earlier"), (now, "later")];
        let mut without_settings =
            without_settings.into_iter().filter(|(group, _)| group.setting.is_empty());
        if let Some((_, which)) = without_settings.next() {
            return self.comparable_by_names(now, which);
        }
        if let Some((what, then, now)) = differences(&self.setting, &now.setting).next() {
            return Err(BaselineMismatch::Differs {
                what: what.into(),
                then: then.into(),
                now: now.into(),
            });
        }
        if self.prompts != now.prompts {
            let names = |prompts: &[(String, String)]| {
                let named: Vec<_> =
                    prompts.iter().map(|(name, hash)| format!("{name} ({hash})")).collect();
                named.join(", ")
            };
            let (then, now) = (names(&self.prompts), names(&now.prompts));
            return Err(BaselineMismatch::Differs { what: "set of prompts".into(), then, now });
        }
        let others = differences(&self.environment, &now.environment);
        Ok(others.map(|(what, then, now)| format!("another {what}: {then}, now {now}")).collect())
    }

    /// As [`comparable_to`](Self::comparable_to), if one of both, the `unknown` one, was made from
    /// rows: only the names of the prompts can be compared.
    fn comparable_by_names(
        &self,
        now: &Self,
        unknown: &str,
    ) -> Result<Vec<String>, BaselineMismatch> {
        let (then, now) = (self.prompt_names(), now.prompt_names());
        if then != now {
            let what = "set of prompts".to_owned();
            let (then, now) = (then.join(", "), now.join(", "));
            return Err(BaselineMismatch::Differs { what, then, now });
        }
        Ok(vec![format!(
            "the settings of the {unknown} run are unknown: its rows do not have them"
        )])
    }
}

/// Returns the run of each request: the number of times that its prompt has occurred, or 1 if all
/// belong to one run.
fn numbered(strata: &[u32], is_load: bool) -> Vec<u32> {
    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    let mut next = |stratum: &u32| {
        let count = seen.entry(*stratum).or_default();
        *count += 1;
        if is_load { 1 } else { *count }
    };
    strata.iter().map(&mut next).collect()
}

/// Returns the figure of each of `groups`, stored runs of the same prompts: the mean over the
/// prompts of the mean of each prompt, or for throughput the mean over the runs of the load. A group
/// whose figure may be wrong, or that has too few values, has none.
///
/// Prompts have equal weight and only the prompts that all groups have count, so that a failed
/// request in one run does not look like a change.
pub fn series(groups: &[&GroupBaseline], metric: &Metric, min_share: f64) -> Vec<Option<f64>> {
    let side = |group: &&GroupBaseline| {
        let side = group.side(metric, min_share)?.ok()?;
        group.doubts(metric).is_empty().then_some(side)
    };
    let sides: Vec<_> = groups.iter().map(side).collect();
    if matches!(metric.read, MetricSource::Load(_)) {
        let of_runs = |side: &Option<Side>| {
            let runs = side.as_ref()?.of_runs();
            mean(&runs.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
        };
        return sides.iter().map(of_runs).collect();
    }
    let strata = sides.iter().flatten().map(|side| side.strata.iter().copied().collect());
    let shared: BTreeSet<u32> = strata.reduce(|a, b| &a & &b).unwrap_or_default();
    let of_prompts = |side: &Option<Side>| {
        let side = side.as_ref()?;
        let of = |stratum: &u32| {
            let rows = side.strata.iter().zip(&side.values);
            let values: Vec<_> = rows.filter(|(of, _)| *of == stratum).map(|row| *row.1).collect();
            mean(&values)
        };
        mean(&shared.iter().filter_map(of).collect::<Vec<_>>())
    };
    sides.iter().map(of_prompts).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    Statistic::Mean.of(values).ok()
}

/// Adds the throughputs of a load, one value for each batch of its runs. Returns the figures of
/// the runs.
fn add_throughputs(
    group: &Group,
    figures: &mut BTreeMap<String, Vec<f64>>,
    partial: &mut BTreeMap<String, Partial>,
) -> BTreeMap<String, Vec<LoadRun>> {
    let mut loads = BTreeMap::new();
    if group.spec.workload.is_none() {
        return loads;
    }
    let batches = group.loads.iter().flat_map(|stats| &stats.batches);
    let requests = batches.map(|batch| batch.request_throughput).collect();
    figures.insert("request_throughput".into(), requests);
    let of_runs = load_runs(group, |stats| Some(stats.request_throughput));
    loads.insert("request_throughput".into(), of_runs);
    for (metric, is_concurrency) in [(Metric::CAPACITY, false), (Metric::MAX_CONCURRENCY, true)] {
        let found = |stats: &LoadStats| {
            stats.capacity.filter(|of| of.is_concurrency == is_concurrency).map(|of| of.value)
        };
        // A search has no batches: its result is one value.
        let of_runs: Vec<_> =
            load_runs(group, found).into_iter().map(|of| LoadRun { batches: 1, ..of }).collect();
        if !of_runs.is_empty() {
            figures.insert(metric.name.into(), of_runs.iter().map(|of| of.value).collect());
            loads.insert(metric.name.into(), of_runs);
        }
    }
    let mut add = |metric: &Metric, of_runs: Vec<LoadRun>, of_batch: fn(&Batch) -> f64| {
        // Runs without limits of `goodput` do not have it.
        if !of_runs.is_empty() && of_runs.len() == group.loads.len() {
            let batches = group.loads.iter().flat_map(|stats| &stats.batches);
            figures.insert(metric.name.into(), batches.map(of_batch).collect());
            loads.insert(metric.name.into(), of_runs);
        }
    };
    add(Metric::GOODPUT, load_runs(group, |stats| stats.goodput), |batch| batch.goodput);
    let ratios = load_runs(group, |stats| stats.goodput_ratio);
    add(Metric::GOODPUT_RATIO, ratios, |batch| batch.goodput_ratio);
    let of_items = load_runs(group, |stats| stats.item_throughput);
    add(Metric::ITEM_THROUGHPUT, of_items, |batch| batch.output_throughput);
    // A run with a refused count has no token throughput.
    let counted = || group.loads.iter().filter(|stats| stats.refused.is_none());
    let batches = counted().flat_map(|stats| &stats.batches);
    let values: Vec<_> = batches.map(|batch| batch.output_throughput).collect();
    let of_runs = load_runs(group, |stats| stats.output_throughput);
    let (have, could) = (of_runs.len(), group.loads.len());
    if have == could {
        figures.insert("output_throughput".into(), values);
    } else if have > 0 {
        let batches = of_runs.iter().flat_map(|of| std::iter::repeat_n(of.run, of.batches));
        let runs = batches.collect();
        let output = Partial { could, have: Some(have), values, strata: Vec::new(), runs };
        partial.insert("output_throughput".into(), output);
    }
    loads.insert("output_throughput".into(), of_runs);
    add_of_machine(group, figures, &mut loads);
    loads
}

/// Adds what the throughput costs, of loads whose runs all have it. A run has one energy, and no
/// batches of it.
fn add_of_machine(
    group: &Group,
    figures: &mut BTreeMap<String, Vec<f64>>,
    loads: &mut BTreeMap<String, Vec<LoadRun>>,
) {
    let mut add = |metric: &Metric, of_runs: Vec<LoadRun>, values: Vec<f64>| {
        if !of_runs.is_empty() && of_runs.len() == group.loads.len() {
            figures.insert(metric.name.into(), values);
            loads.insert(metric.name.into(), of_runs);
        }
    };
    let of_batches = |read: fn(&LoadStats, f64) -> Option<f64>| -> Vec<f64> {
        let batches =
            group.loads.iter().flat_map(|stats| stats.batches.iter().map(move |of| (stats, of)));
        batches.filter_map(|(stats, of)| read(stats, of.output_throughput)).collect()
    };
    let per_gpu = load_runs(group, LoadStats::output_throughput_per_gpu);
    let of_batch = |stats: &LoadStats, of: f64| stats.machine.gpus.map(|gpus| of / gpus as f64);
    add(Metric::OUTPUT_THROUGHPUT_PER_GPU, per_gpu, of_batches(of_batch));
    let costs = load_runs(group, LoadStats::cost_per_million_output_tokens);
    let values = of_batches(|stats, of| stats.machine.cost_of_million(of));
    // A batch without tokens has no cost, so that the others would be a selection.
    let batches: usize = group.loads.iter().map(|stats| stats.batches.len()).sum();
    if values.len() == batches {
        add(Metric::COST_PER_MILLION_OUTPUT_TOKENS, costs, values);
    }
    let single = |read: fn(&LoadStats) -> Option<f64>| {
        let of_runs = load_runs(group, read).into_iter().map(|of| LoadRun { batches: 1, ..of });
        let of_runs: Vec<_> = of_runs.collect();
        let values = of_runs.iter().map(|of| of.value).collect();
        (of_runs, values)
    };
    for (metric, read) in [
        (Metric::ENERGY, LoadStats::joules as fn(&LoadStats) -> Option<f64>),
        (Metric::ENERGY_PER_OUTPUT_TOKEN, LoadStats::joules_per_output_token),
    ] {
        let (of_runs, values) = single(read);
        add(metric, of_runs, values);
    }
}

/// Returns the figure of each run of a load that has one.
fn load_runs(group: &Group, read: impl Fn(&LoadStats) -> Option<f64>) -> Vec<LoadRun> {
    let runs = group.loads.iter().zip(1..);
    let of = |(stats, run): (&LoadStats, u32)| {
        Some(LoadRun { run, value: read(stats)?, batches: stats.batches.len() })
    };
    runs.filter_map(of).collect()
}

/// Returns the keys with different values.
fn differences<'a>(
    then: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    let keys: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let value = |of: &'a BTreeMap<String, String>, key: &String| {
        of.get(key).map_or("unknown", String::as_str)
    };
    keys.into_iter().filter_map(move |key| {
        let (old, new) = (value(then, key), value(now, key));
        (old != new).then_some((key.as_str(), old, new))
    })
}

/// Returns the circumstances that should be equal in two compared runs.
fn environment(spec: &GroupSpec, machine: &str) -> BTreeMap<String, String> {
    [("machine", machine), ("endpoint", &spec.endpoint), ("model", &spec.served_model)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Hashes `text` with 64-bit FNV-1a, which must never change: files contain the hashes.
pub fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
