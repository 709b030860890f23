//! A stored run that later runs are compared with: its values and its settings. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    group::GroupSpec,
    interval::StratifiedSample,
    lacking::{self, MIN_SHARE},
    metric::{DEFINITIONS, METRICS, Metric, MetricSource},
    statistic::{Absent, Statistic},
    summary::{Group, MetricValues, Summary, group_name},
    uncertainty::{self, Uncertain},
};

/// The schema in the file.
const SCHEMA: &str = "llm-stream-bench/baseline/1";

/// A stored run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    schema: String,
    /// The version of the metric definitions.
    definitions: String,
    /// The version of this program.
    pub version: String,
    /// The machine of the run.
    pub machine: String,
    /// The groups: each model with its prompts, and under each load.
    pub groups: Vec<GroupBaseline>,
}

/// The values of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The index of each value's prompt.
    strata: Vec<u32>,
    /// The values of each metric, in base units.
    figures: BTreeMap<String, Vec<f64>>,
    /// The values of metrics that some requests lack.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    partial: BTreeMap<String, Partial>,
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

/// The values of a metric that some requests, or runs of a load, lack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    uncertain: Vec<Uncertain>,
}

impl Side {
    /// Returns the values with their strata.
    pub fn stratified(&self) -> StratifiedSample<'_> {
        StratifiedSample { values: &self.values, strata: &self.strata }
    }

    /// Returns how far `statistic` of the values can be off because of uncertain arrivals.
    pub fn uncertainty(&self, statistic: Statistic) -> f64 {
        uncertainty::of_statistic(statistic, &self.values, &self.uncertain)
    }

    /// Returns the values of the prompts in `kept`.
    fn only(&self, kept: &BTreeSet<u32>) -> Self {
        let mut side = Self::default();
        let mut uncertain = self.uncertain.iter().peekable();
        for ((value, stratum), place) in self.values.iter().zip(&self.strata).zip(0_u32..) {
            let error = uncertain.next_if(|(of, _)| *of == place).map(|(_, error)| *error);
            if kept.contains(stratum) {
                let moved = u32::try_from(side.values.len()).unwrap_or(u32::MAX);
                side.uncertain.extend(error.map(|error| (moved, error)));
                side.values.push(*value);
                side.strata.push(*stratum);
            }
        }
        side
    }
}

/// The values of a metric in two runs, for the prompts that have values in both. The mean over
/// other prompts would be a different figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The values of the baseline.
    pub before: Side,
    /// The values of the later run.
    pub now: Side,
    /// The names of the prompts with values in only one of the runs.
    pub left_out: Vec<String>,
}

impl Pair {
    /// Returns how far the difference of `statistic` can be off.
    pub fn uncertainty(&self, statistic: Statistic) -> f64 {
        self.before.uncertainty(statistic) + self.now.uncertainty(statistic)
    }
}

/// Why a baseline has no comparable group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaselineMismatch {
    /// The baseline lacks the model or the load.
    #[error("the baseline has no `{0}`")]
    Missing(String),
    /// A setting differs.
    #[error("the baseline has another {what}: {then}, not {now}")]
    Differs {
        /// The setting.
        what: String,
        /// Its value in the baseline.
        then: String,
        /// Its value now.
        now: String,
    },
}

/// Why a file is not a usable baseline.
#[derive(Debug, thiserror::Error)]
pub enum ParseBaselineError {
    /// The file does not have the format.
    #[error("it is not a baseline: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The file has another schema.
    #[error("it is `{0}`, not `{SCHEMA}`")]
    Other(String),
    /// The file has other metric definitions.
    #[error("its figures have the definitions {0}, not {DEFINITIONS}")]
    Definitions(String),
}

impl Baseline {
    /// Creates the baseline of a run.
    pub fn of(summary: &Summary, machine: &str) -> Self {
        let measured = summary.groups.iter().filter(|group| group.tally.valid > 0);
        Self {
            schema: SCHEMA.into(),
            definitions: DEFINITIONS.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            machine: machine.into(),
            groups: measured.map(|group| GroupBaseline::of(group, machine)).collect(),
        }
    }

    /// Parses a file that [`to_json`](Self::to_json) formatted.
    pub fn from_json(text: &str) -> Result<Self, ParseBaselineError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let field = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        if field("schema") != SCHEMA {
            return Err(ParseBaselineError::Other(field("schema")));
        }
        if field("definitions") != DEFINITIONS {
            return Err(ParseBaselineError::Definitions(field("definitions")));
        }
        Ok(serde_json::from_value(value)?)
    }

    /// Formats the baseline as a file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Returns the group with the same model and the same load.
    pub fn group(&self, of: &GroupBaseline) -> Result<&GroupBaseline, BaselineMismatch> {
        let found = self.groups.iter().find(|group| group.is_of_the_same(of));
        found.ok_or_else(|| BaselineMismatch::Missing(of.name.clone()))
    }
}

impl GroupBaseline {
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
            let (name, values) = (metric.name.to_owned(), values.to_vec());
            if values.len() == group.tally.valid {
                figures.insert(name, values);
            } else if !values.is_empty() {
                let could = group.lacking(metric).could();
                let strata = strata.iter().map(number).collect();
                partial.insert(name, Partial { could, have: None, values, strata });
            }
        }
        add_throughputs(group, &mut figures, &mut partial);
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
            figures,
            partial,
            uncertain: uncertain
                .map(|(metric, uncertain)| (metric.name.to_owned(), uncertain.to_vec()))
                .collect(),
            doubts: doubts.filter(|(_, doubts)| !doubts.is_empty()).collect(),
            min_share: Some(group.spec.min_share),
        }
    }

    /// Returns whether both groups have the same model and the same load.
    fn is_of_the_same(&self, other: &Self) -> bool {
        match (&self.model, &other.model) {
            (Some(ours), Some(theirs)) => ours == theirs && self.workload == other.workload,
            // The name of a model may equal the name of another model under a load, so the load is
            // compared too.
            _ => {
                let is_load = |of: &Self| of.setting.contains_key("load");
                self.shown_name() == other.shown_name() && is_load(self) == is_load(other)
            }
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
        if let Some(partial) = self.partial.get(metric.name) {
            let (have, all) = (partial.have(), partial.could);
            return Some(match lacking::is_enough(have, all, min_share) {
                true => {
                    let (values, strata) = (partial.values.clone(), partial.strata.clone());
                    Ok(Side { values, strata, uncertain })
                }
                false => Err(Absent::Lacking { lack: all.saturating_sub(have), all }),
            });
        }
        let values = self.figures.get(metric.name)?.clone();
        let of_requests = matches!(metric.read, MetricSource::Sample(_));
        let strata = if of_requests { self.strata.clone() } else { Vec::new() };
        Some(Ok(Side { values, strata, uncertain }))
    }

    /// Pairs two runs and drops the prompts that only one of them has values for. Both runs number
    /// the prompts equally, which [`comparable_to`](Self::comparable_to) has checked.
    pub fn pair(&self, before: Side, now: Side) -> Pair {
        let of = |side: &Side| side.strata.iter().copied().collect::<BTreeSet<_>>();
        let strata = [of(&before), of(&now)];
        let [then, later] = &strata;
        if then == later {
            return Pair { before, now, left_out: Vec::new() };
        }
        let both: BTreeSet<_> = then.intersection(later).copied().collect();
        let left_out = then.symmetric_difference(later);
        let name = |stratum: &u32| Some(self.prompts.get(*stratum as usize)?.0.clone());
        Pair {
            left_out: left_out.filter_map(name).collect(),
            before: before.only(&both),
            now: now.only(&both),
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
}

/// Adds the throughputs of a load, one value for each batch of its runs.
fn add_throughputs(
    group: &Group,
    figures: &mut BTreeMap<String, Vec<f64>>,
    partial: &mut BTreeMap<String, Partial>,
) {
    if group.spec.workload.is_none() {
        return;
    }
    let batches = group.loads.iter().flat_map(|stats| &stats.batches);
    let requests = batches.map(|batch| batch.request_throughput).collect();
    figures.insert("request_throughput".into(), requests);
    // A run with a refused count has no token throughput.
    let counted = || group.loads.iter().filter(|stats| stats.refused.is_none());
    let batches = counted().flat_map(|stats| &stats.batches);
    let values: Vec<_> = batches.map(|batch| batch.output_throughput).collect();
    let (have, could) = (counted().count(), group.loads.len());
    if have == could {
        figures.insert("output_throughput".into(), values);
    } else if have > 0 {
        let output = Partial { could, have: Some(have), values, strata: Vec::new() };
        partial.insert("output_throughput".into(), output);
    }
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
