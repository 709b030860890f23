//! A run that later ones are compared with: its values, and under what they were measured. Pure.

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

/// What a baseline's file says it is.
const SCHEMA: &str = "llm-stream-bench/baseline/1";

/// A run that was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    schema: String,
    /// The version of the definitions.
    definitions: String,
    /// The version of this program.
    pub version: String,
    /// The machine that measured.
    pub machine: String,
    /// Each model with its prompts, and under each load.
    pub groups: Vec<GroupBaseline>,
}

/// One model's requests, with prompts one by one or under one load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupBaseline {
    /// The name of the group, to be shown.
    pub name: String,
    /// The model's name; older files have only the group's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// The name of its load, if it was under one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    /// What must be the same for its figures to be comparable.
    setting: BTreeMap<String, String>,
    /// What should be, and is told where it is not.
    #[serde(rename = "surroundings")]
    environment: BTreeMap<String, String>,
    /// The prompts that were asked, each with a hash of its text.
    prompts: Vec<(String, String)>,
    /// Which of them each value is of.
    strata: Vec<u32>,
    /// The values by their metrics, in base units.
    figures: BTreeMap<String, Vec<f64>>,
    /// Those of metrics that some requests lack.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    partial: BTreeMap<String, Partial>,
    /// How far some values can be off, by their metrics.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    uncertain: BTreeMap<String, Vec<Uncertain>>,
    /// Why figures may be wrong, by their metrics, and in how many answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    doubts: BTreeMap<String, Vec<(String, usize)>>,
    /// The part of the requests that must have a figure, by the config of that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_share: Option<f64>,
}

/// The values of a metric that some requests, or runs of a load, lack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Partial {
    /// Requests or runs that could have it.
    could: usize,
    /// Runs that have it; a request that has it has a single value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    have: Option<usize>,
    /// The values.
    values: Vec<f64>,
    /// Which of the prompts each value is of.
    strata: Vec<u32>,
}

impl Partial {
    fn have(&self) -> usize {
        self.have.unwrap_or(self.values.len())
    }
}

/// The values of a metric in one of two runs that are compared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Side {
    values: Vec<f64>,
    strata: Vec<u32>,
    uncertain: Vec<Uncertain>,
}

impl Side {
    /// The values with the prompt of each.
    pub fn stratified(&self) -> StratifiedSample<'_> {
        StratifiedSample { values: &self.values, strata: &self.strata }
    }

    /// How far `statistic` of them can be off, since arrivals are known to within some time only.
    pub fn uncertainty(&self, statistic: Statistic) -> f64 {
        uncertainty::of_statistic(statistic, &self.values, &self.uncertain)
    }

    /// Those of the prompts in `kept`.
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

/// The values of a metric then and now, of the prompts for which both runs have some: the mean of
/// other prompts is another figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Those of the baseline.
    pub before: Side,
    /// Those of the later run.
    pub now: Side,
    /// The names of the prompts for which only one of them has values.
    pub left_out: Vec<String>,
}

impl Pair {
    /// How far the difference of `statistic` can be off.
    pub fn uncertainty(&self, statistic: Statistic) -> f64 {
        self.before.uncertainty(statistic) + self.now.uncertainty(statistic)
    }
}

/// Why there is nothing to compare with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaselineMismatch {
    /// The baseline does not have the model, or the load.
    #[error("the baseline has no `{0}`")]
    Missing(String),
    /// It was measured otherwise.
    #[error("the baseline has another {what}: {then}, not {now}")]
    Differs {
        /// What is different.
        what: String,
        /// As it was.
        then: String,
        /// As it is.
        now: String,
    },
}

/// A file is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum ParseBaselineError {
    /// It is not what it should be.
    #[error("it is not a baseline: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is of another kind or version.
    #[error("it is `{0}`, not `{SCHEMA}`")]
    Other(String),
    /// Its figures mean something else.
    #[error("its figures have the definitions {0}, not {DEFINITIONS}")]
    Definitions(String),
}

impl Baseline {
    /// What is to be kept of `summary`.
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

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(text: &str) -> Result<Self, ParseBaselineError> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        let says = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        if says("schema") != SCHEMA {
            return Err(ParseBaselineError::Other(says("schema")));
        }
        if says("definitions") != DEFINITIONS {
            return Err(ParseBaselineError::Definitions(says("definitions")));
        }
        Ok(serde_json::from_value(value)?)
    }

    /// The baseline as a file.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// What it has of the same model, under the load of the same name if it was under one.
    pub fn group(&self, of: &GroupBaseline) -> Result<&GroupBaseline, BaselineMismatch> {
        let found = self.groups.iter().find(|group| group.is_of_the_same(of));
        found.ok_or_else(|| BaselineMismatch::Missing(of.name.clone()))
    }
}

impl GroupBaseline {
    /// What is to be kept of `group`, measured by `machine`.
    pub fn of(group: &Group, machine: &str) -> Self {
        let mut prompts: Vec<_> = group.tally.prompts().enumerate().collect();
        // By name, so that an order of asking changes no number.
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
        let of_loads = group.loads.iter().flat_map(|reached| &reached.batches);
        if group.spec.workload.is_some() {
            let requests = of_loads.clone().map(|batch| batch.request_throughput).collect();
            figures.insert("request_throughput".into(), requests);
        }
        // A run with an impossible count has no token throughput.
        let counted = || group.loads.iter().filter(|reached| reached.refused.is_none());
        let output = counted().flat_map(|reached| &reached.batches);
        let output: Vec<_> = output.map(|batch| batch.output_throughput).collect();
        let (have, could) = (counted().count(), group.loads.len());
        if group.spec.workload.is_some() && have == could {
            figures.insert("output_throughput".into(), output);
        } else if have > 0 {
            let strata = Vec::new();
            let output = Partial { could, have: Some(have), values: output, strata };
            partial.insert("output_throughput".into(), output);
        }
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

    /// Whether both are of the same model, and under the same load or none.
    fn is_of_the_same(&self, other: &Self) -> bool {
        match (&self.model, &other.model) {
            (Some(ours), Some(theirs)) => ours == theirs && self.workload == other.workload,
            // A model may be called as another one is under a load: what has a load says so.
            _ => {
                let is_load = |of: &Self| of.setting.contains_key("load");
                self.shown_name() == other.shown_name() && is_load(self) == is_load(other)
            }
        }
    }

    /// Its name as older files have it.
    fn shown_name(&self) -> String {
        let model = self.model.as_ref();
        model.map_or_else(|| self.name.clone(), |model| group_name(model, self.workload.as_deref()))
    }

    /// The part of the requests that must have a figure for it to be compared.
    pub fn min_share(&self) -> f64 {
        self.min_share.unwrap_or(MIN_SHARE)
    }

    /// The values of `metric`; an error where fewer than `min_share` of the requests that could
    /// have it do, `None` where none does.
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

    /// Both sides, without the prompts for which one of them has no value. The numbers of the
    /// prompts are the same in both, which [`comparable_to`](Self::comparable_to) has checked.
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

    /// Why `metric` may be wrong, and in how many answers.
    pub fn doubts(&self, metric: &Metric) -> &[(String, usize)] {
        self.doubts.get(metric.name).map_or(&[], Vec::as_slice)
    }

    /// How many requests or runs have `metric`, and how many could; `None` where none has it.
    pub fn have(&self, metric: &Metric) -> Option<(usize, usize)> {
        if let Some(partial) = self.partial.get(metric.name) {
            return Some((partial.have(), partial.could));
        }
        let values = self.figures.get(metric.name)?;
        Some((values.len(), values.len()))
    }

    /// Whether `now` was measured in the same way; what else is different besides.
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

/// What has another value in `now`.
fn differences<'a>(
    then: &'a BTreeMap<String, String>,
    now: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    let keys: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let told = |of: &'a BTreeMap<String, String>, key: &String| {
        of.get(key).map_or("unknown", String::as_str)
    };
    keys.into_iter().filter_map(move |key| {
        let (old, new) = (told(then, key), told(now, key));
        (old != new).then_some((key.as_str(), old, new))
    })
}

/// What should be the same in two runs that are compared, and is printed where it is not.
fn environment(spec: &GroupSpec, machine: &str) -> BTreeMap<String, String> {
    [("machine", machine), ("endpoint", &spec.endpoint), ("model", &spec.served_model)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// A hash of `text` that never changes between versions: FNV-1a, 64 bits.
pub fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
