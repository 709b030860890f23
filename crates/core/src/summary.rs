//! Rows → [`Summary`]: what a model's trials say together. Pure.
//!
//! Of each valid answer the figures are kept and no more, so that a long run fits into memory.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    comparison::Change,
    group::{GroupId, GroupSpec},
    interval::{self, Interval, Sampled},
    lacking::{Lack, Lacking},
    load_stats::{Batch, LoadStats},
    metric::{METRICS, Metric, Read},
    prompt::Prompt,
    punctuality::Punctuality,
    recording::{ErrorKind, RequestError},
    sample::{Doubt, Note, Sample},
    server_metrics::MetricComparison,
    statistic::{Absent, Statistic},
    threshold::Threshold,
    uncertainty::{self, Uncertain},
};

/// One request of a finished trial.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What was asked.
    pub prompt: &'a Arc<Prompt>,
    /// Which run of the trial it belongs to, from 1.
    pub run: u32,
    /// What came.
    pub outcome: &'a Result<Sample, RequestError>,
}

/// A figure that servers report in their answers, and our figure of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerComparison {
    /// `server_generation_speed` and `generation_speed`.
    Generation,
    /// `server_ttft` and `ttft`.
    FirstToken,
    /// `server_head_time` and `first_byte_time`.
    Headers,
}

impl ServerComparison {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Generation, Self::FirstToken, Self::Headers];

    /// Returns the server's metric, ours, and the metric of the difference.
    pub const fn metrics(self) -> [&'static Metric; 3] {
        match self {
            Self::Generation => [
                Metric::SERVER_GENERATION_SPEED,
                Metric::GENERATION_SPEED,
                Metric::GENERATION_BEYOND_SERVER,
            ],
            Self::FirstToken => [Metric::SERVER_TTFT, Metric::TTFT, Metric::TTFT_BEYOND_SERVER],
            Self::Headers => [
                Metric::SERVER_HEAD_TIME,
                Metric::FIRST_BYTE_TIME,
                Metric::FIRST_BYTE_BEYOND_SERVER,
            ],
        }
    }

    /// Returns the three figures of an answer that has all of them. The server's speed includes
    /// tokens of hidden reasoning and ours does not, so such an answer has no comparison. The time
    /// before an open loop's request was sent is not the server's and is subtracted.
    fn of(self, sample: &Sample) -> Option<[f64; 3]> {
        let [theirs, ours, beyond] = self.metrics().map(|metric| metric.of(sample));
        let is_speed = self == Self::Generation;
        if is_speed && sample.hidden_reasoning_tokens() > 0 {
            return None;
        }
        let lag = sample.lag.filter(|_| !is_speed).unwrap_or_default().as_secs_f64();
        Some([theirs?, ours? - lag, beyond?])
    }
}

/// The figures of some requests.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Valid answers.
    pub valid: usize,
    /// Failures by kind.
    pub failures: BTreeMap<ErrorKind, usize>,
    /// Valid answers whose server disagrees with us about their time.
    pub server_disagrees: usize,
    /// Valid answers of more than one token.
    pub several_tokens: usize,
    /// The time per token of those of them whose tokens were all streamed.
    pub per_token: Vec<f64>,
    /// A list for each [`ServerComparison`]: the three figures of each answer that has them.
    server_timings: [Vec<[f64; 3]>; ServerComparison::ALL.len()],
    /// A list for each of [`METRICS`]: the value of each valid answer that has one.
    figures: Vec<Vec<f64>>,
    /// Which of [`METRICS`] each valid answer has, a bit each.
    has: Vec<u64>,
    /// How many valid answers lack each of [`METRICS`], and why.
    lacks: BTreeMap<(usize, Lack), usize>,
    /// What makes figures doubtful, and in how many valid answers.
    doubts: BTreeMap<Doubt, usize>,
    /// A list for each of [`METRICS`]: how far some of these values can be off.
    uncertain: Vec<Vec<Uncertain>>,
    /// The prompts that were asked.
    prompts: Vec<Arc<Prompt>>,
    /// Which of them each valid answer is to.
    strata: Vec<u32>,
    /// The number of each prompt by its address, which it keeps as long as it is one of them.
    numbers: HashMap<usize, u32>,
    /// Which run of it each valid answer is.
    runs: Vec<u32>,
    /// The turns of conversations: the first of all, the second, and so on.
    turns: Vec<Turns>,
}

/// The values of a figure, and the prompt that each is of.
#[derive(Debug, Clone)]
pub struct Valued<'a> {
    /// The values.
    pub values: &'a [f64],
    /// As many prompts, by their numbers.
    pub strata: Cow<'a, [u32]>,
}

impl Valued<'_> {
    /// The values with their strata.
    pub fn sampled(&self) -> Sampled<'_> {
        Sampled { values: self.values, strata: &self.strata }
    }
}

/// A bit for each metric, and one that no answer has for `success_rate`.
const _: () = assert!(METRICS.len() < u64::BITS as usize);

impl Tally {
    /// Counts one more request: a run of `prompt`.
    pub fn add(&mut self, prompt: &Arc<Prompt>, run: u32, outcome: &Result<Sample, RequestError>) {
        match outcome {
            Err(error) => *self.failures.entry(error.kind).or_default() += 1,
            Ok(sample) => {
                self.valid += 1;
                self.server_disagrees += usize::from(sample.notes.contains(&Note::ServerDisagrees));
                let stratum = self.stratum(prompt);
                self.strata.push(stratum);
                self.runs.push(run);
                if let Some(turn) = &prompt.turn {
                    self.turn(turn.number - 1).add(sample);
                }
                self.keep(sample);
                self.compare_with_server(sample);
            }
        }
    }

    /// Keeps the figures of a valid answer, how far they can be off, and why it lacks others.
    fn keep(&mut self, sample: &Sample) {
        self.figures.resize_with(METRICS.len(), Vec::new);
        self.uncertain.resize_with(METRICS.len(), Vec::new);
        let mut has = 0;
        let lists = self.figures.iter_mut().zip(&mut self.uncertain);
        for ((values, uncertain), metric) in lists.zip(METRICS) {
            if let Some(value) = metric.of(sample) {
                let error = uncertainty::of(metric, sample);
                if error > 0.0 {
                    uncertain.push((values.len() as u32, error as f32));
                }
                values.push(value);
                has |= 1 << metric.index;
            } else if matches!(metric.read, Read::Sample(_)) {
                *self.lacks.entry((metric.index, Lack::of(metric, sample))).or_default() += 1;
            }
        }
        self.has.push(has);
        for doubt in &sample.doubts {
            *self.doubts.entry(doubt.clone()).or_default() += 1;
        }
    }

    /// Keeps what is compared with the server's own figures.
    fn compare_with_server(&mut self, sample: &Sample) {
        for (rows, comparison) in self.server_timings.iter_mut().zip(ServerComparison::ALL) {
            rows.extend(comparison.of(sample));
        }
        if sample.response_tokens > 1 {
            self.several_tokens += 1;
            let is_whole = sample.hidden_reasoning_tokens() == 0;
            self.per_token.extend(Metric::TPOT.of(sample).filter(|_| is_whole));
        }
    }

    /// Returns the median of each of the three figures of `comparison`, over the answers that have
    /// all of them, and the number of these answers.
    pub fn server_timing(&self, comparison: ServerComparison) -> Option<([f64; 3], usize)> {
        let rows = &self.server_timings[comparison as usize];
        let median = |column: usize| {
            let values: Vec<_> = rows.iter().map(|row| row[column]).collect();
            Statistic::Median.of(&values).ok()
        };
        Some(([median(0)?, median(1)?, median(2)?], rows.len()))
    }

    /// The number by which `prompt` goes.
    fn stratum(&mut self, prompt: &Arc<Prompt>) -> u32 {
        let prompts = &mut self.prompts;
        *self.numbers.entry(Arc::as_ptr(prompt).addr()).or_insert_with(|| {
            prompts.push(prompt.clone());
            number(prompts.len() - 1)
        })
    }

    fn turn(&mut self, nth: usize) -> &mut Turns {
        self.turns.resize_with(self.turns.len().max(nth + 1), Turns::default);
        &mut self.turns[nth]
    }

    /// Counts those of `other`, too.
    pub fn merge(&mut self, other: Self) {
        self.valid += other.valid;
        self.server_disagrees += other.server_disagrees;
        self.several_tokens += other.several_tokens;
        self.per_token.extend(other.per_token);
        for (rows, more) in self.server_timings.iter_mut().zip(other.server_timings) {
            rows.extend(more);
        }
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.figures.resize_with(METRICS.len(), Vec::new);
        self.uncertain.resize_with(METRICS.len(), Vec::new);
        for (uncertain, (more, values)) in
            self.uncertain.iter_mut().zip(other.uncertain.iter().zip(&self.figures))
        {
            let before = values.len() as u32;
            uncertain.extend(more.iter().map(|(place, error)| (before + place, *error)));
        }
        for (values, more) in self.figures.iter_mut().zip(other.figures) {
            values.extend(more);
        }
        let strata: Vec<_> = other.prompts.iter().map(|prompt| self.stratum(prompt)).collect();
        for (turn, nth) in other.turns.into_iter().zip(0..) {
            self.turn(nth).merge(turn);
        }
        self.runs.extend(other.runs);
        self.strata.extend(other.strata.iter().map(|stratum| strata[*stratum as usize]));
        self.has.extend(other.has);
        for (lack, count) in other.lacks {
            *self.lacks.entry(lack).or_default() += count;
        }
        for (doubt, count) in other.doubts {
            *self.doubts.entry(doubt).or_default() += count;
        }
    }

    /// The figure of each valid answer that has it, with its prompt.
    pub fn valued(&self, metric: &Metric) -> Valued<'_> {
        let values = self.values(metric);
        let strata = match values.len() == self.valid {
            true => Cow::Borrowed(self.strata.as_slice()),
            false => Cow::Owned(self.of_those_with(metric, &self.strata).collect()),
        };
        Valued { values, strata }
    }

    /// What of `list`, which has an entry for each valid answer, is of those with a figure.
    fn of_those_with<T: Copy>(&self, metric: &Metric, list: &[T]) -> impl Iterator<Item = T> {
        let bit = 1 << metric.index;
        let has = self.has.iter().zip(list).filter(move |(has, _)| **has & bit != 0);
        has.map(|(_, entry)| *entry)
    }

    /// How many valid answers lack a figure, and why.
    pub fn lacking(&self, metric: &Metric) -> Lacking {
        let of_metric = self.lacks.iter().filter(|((index, _), _)| *index == metric.index);
        let reasons = of_metric.map(|((_, lack), count)| (*lack, *count)).collect();
        Lacking { metric: metric.name, is_of_runs: false, all: self.valid, reasons }
    }

    /// Why a figure may be wrong, and in how many valid answers.
    pub fn doubts(&self, metric: &Metric) -> impl Iterator<Item = (&str, usize)> {
        let of_metric =
            self.doubts.iter().filter(|(doubt, _)| doubt.metrics.contains(&metric.name));
        of_metric.map(|(doubt, count)| (doubt.reason.as_str(), *count))
    }

    /// The prompts that were asked, by the numbers of [`strata`](Self::strata).
    pub fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.prompts.iter().map(|prompt| &**prompt)
    }

    /// The turns of its conversations: the first of all, the second, and so on.
    pub fn turns(&self) -> &[Turns] {
        &self.turns
    }

    /// Which prompt each valid answer is to.
    pub fn strata(&self) -> &[u32] {
        &self.strata
    }

    /// Requests that failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Requests that ended.
    pub fn finished(&self) -> usize {
        self.valid + self.failed()
    }

    /// The figure of each valid answer that has it.
    pub fn values(&self, metric: &Metric) -> &[f64] {
        self.figures.get(metric.index).map_or(&[], Vec::as_slice)
    }

    /// How far some of these figures can be off.
    pub fn uncertain(&self, metric: &Metric) -> &[Uncertain] {
        self.uncertain.get(metric.index).map_or(&[], Vec::as_slice)
    }

    /// How far `statistic` of these figures can be off, since arrivals are known to within some time
    /// only.
    pub fn uncertainty(&self, metric: &Metric, statistic: Statistic) -> f64 {
        uncertainty::of_statistic(statistic, self.values(metric), self.uncertain(metric))
    }

    /// The prompts with valid answers of which none has `metric`, although other prompts' have it.
    pub fn prompts_without(&self, metric: &Metric) -> Vec<&str> {
        let with: BTreeSet<_> = self.of_those_with(metric, &self.strata).collect();
        let all: BTreeSet<_> = self.strata.iter().copied().collect();
        let without = all.difference(&with).filter(|_| !with.is_empty());
        without.map(|stratum| self.prompts[*stratum as usize].name.as_str()).collect()
    }
}

/// The `nth` stratum's number.
fn number(nth: usize) -> u32 {
    u32::try_from(nth).unwrap_or(u32::MAX)
}

/// What the same turn of several conversations brought.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Time to the first token, in seconds.
    pub ttft: Vec<f64>,
    /// Tokens of the prompt, where the server told.
    pub prompt_tokens: Vec<f64>,
    /// Tokens of it from a cache, where the server told.
    pub cached_tokens: Vec<f64>,
}

impl Turns {
    fn add(&mut self, sample: &Sample) {
        self.ttft.push(sample.first_token().as_secs_f64());
        self.prompt_tokens.extend(sample.prompt_tokens.map(|tokens| tokens as f64));
        self.cached_tokens.extend(sample.cached_tokens.map(|tokens| tokens as f64));
    }

    fn merge(&mut self, other: Self) {
        self.ttft.extend(other.ttft);
        self.prompt_tokens.extend(other.prompt_tokens);
        self.cached_tokens.extend(other.cached_tokens);
    }
}

/// A statistic, and how far it may be from the truth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The statistic, in the metric's base unit.
    pub value: f64,
    /// Where the truth is; `None` for what describes these requests alone, such as the largest
    /// value. An error where there are too few for an interval.
    pub interval: Result<Option<Interval>, Absent>,
    /// Of how many values it is.
    pub n: usize,
}

/// All models of a run, in the config's order, each with its prompts first and then its loads.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// One entry for each model that was selected with prompts, and one for each of its workloads.
    pub groups: Vec<Group>,
    /// The position of each in `groups`.
    positions: HashMap<GroupId, usize>,
}

/// One model's trials, with prompts one by one or under one load.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name in reports, which no other group of the run has.
    name: String,
    /// What it measures.
    pub spec: Arc<GroupSpec>,
    /// Trials that were selected.
    pub planned: usize,
    /// Trials that finished, well or not.
    pub finished: usize,
    /// Trials that failed.
    pub failed: usize,
    /// The requests: all of those with prompts one by one, and those of each load that was offered
    /// as it was asked for.
    pub tally: Tally,
    /// What the loads reached that were offered as they were asked for.
    pub loads: Vec<LoadStats>,
    /// Why other runs were not the load that was asked for.
    pub shortfalls: Vec<String>,
    /// What the server's metrics said of each trial, where they were read.
    pub server: Vec<MetricComparison>,
    /// How the simulated endpoint kept to its script in the requests that have figures; empty where
    /// the endpoint is not simulated.
    pub punctuality: Punctuality,
}

impl Summary {
    /// Of the trials that were selected, none of which has finished.
    pub fn new<'a>(trials: impl IntoIterator<Item = &'a Arc<GroupSpec>>) -> Self {
        let mut summary = Self::default();
        for spec in trials {
            match summary.group(spec.id) {
                Some(group) => group.planned += 1,
                None => {
                    let name = summary.free_name(spec);
                    summary.positions.insert(spec.id, summary.groups.len());
                    summary.groups.push(Group::of(spec, name));
                }
            }
        }
        summary
    }

    /// A name for the group of `spec` that no group has yet: a model may be called as another one is
    /// under a load.
    fn free_name(&self, spec: &GroupSpec) -> String {
        let name = group_name(&spec.model, spec.workload_name());
        let what = if spec.workload.is_some() { "workload" } else { "model" };
        let others = (2..).map(|number| format!("{name} ({what} {number})"));
        let names = [name.clone(), format!("{name} ({what})")].into_iter().chain(others);
        let is_free = |name: &String| self.groups.iter().all(|group| group.name != *name);
        names.into_iter().find(is_free).unwrap_or_default()
    }

    /// One more trial is planned.
    pub fn plan(&mut self, id: GroupId) {
        if let Some(group) = self.group(id) {
            group.planned += 1;
        }
    }

    /// Returns the group.
    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.iter().find(|group| group.spec.id == id)
    }

    fn group(&mut self, id: GroupId) -> Option<&mut Group> {
        let position = self.positions.get(&id)?;
        self.groups.get_mut(*position)
    }

    /// Counts a finished trial by its requests: one, or the turns of a conversation.
    pub fn add(&mut self, id: GroupId, requests: &[Request<'_>]) {
        let Some(group) = self.group(id) else { return };
        group.finished += 1;
        group.failed += usize::from(requests.iter().any(|request| request.outcome.is_err()));
        for Request { prompt, run, outcome } in requests {
            group.tally.add(prompt, *run, outcome);
        }
    }

    /// Keeps what the server's metrics said of a trial.
    pub fn add_server(&mut self, id: GroupId, beside: MetricComparison) {
        if let Some(group) = self.group(id) {
            group.server.push(beside);
        }
    }

    /// Keeps how the simulated endpoint kept to its script in a trial.
    pub fn add_punctuality(&mut self, id: GroupId, punctuality: Punctuality) {
        if let Some(group) = self.group(id) {
            group.punctuality.merge(punctuality);
        }
    }

    /// Counts a load that has ended, with `tally` of its requests. One that was not the load that
    /// was asked for gives a reason and no figure.
    pub fn add_load(
        &mut self,
        id: GroupId,
        load: Result<(Tally, LoadStats), String>,
        failed: bool,
    ) {
        let Some(group) = self.group(id) else { return };
        group.finished += 1;
        group.failed += usize::from(failed);
        match load {
            Ok((tally, reached)) => {
                group.tally.merge(tally);
                group.loads.push(reached);
            }
            Err(shortfall) => group.shortfalls.push(shortfall),
        }
    }

    /// The groups in which models can be compared: those with prompts one by one, then those of
    /// each workload.
    pub fn comparable(&self) -> Vec<Vec<&Group>> {
        let mut comparable: Vec<Vec<&Group>> = Vec::new();
        for group in &self.groups {
            match comparable.iter_mut().find(|of| of[0].is_comparable_to(group)) {
                Some(of) => of.push(group),
                None => comparable.push(vec![group]),
            }
        }
        comparable.iter_mut().for_each(|of| of.sort_by(|a, b| b.speed().total_cmp(&a.speed())));
        comparable.sort_by_key(|of| of[0].spec.workload.is_some());
        comparable
    }

    /// Trials that finished.
    pub fn finished(&self) -> usize {
        self.groups.iter().map(|group| group.finished).sum()
    }

    /// Trials that were selected.
    pub fn planned(&self) -> usize {
        self.groups.iter().map(|group| group.planned).sum()
    }
}

/// How a model, maybe under a load, is shown.
pub fn group_name(model: &str, workload: Option<&str>) -> String {
    workload.map_or_else(|| model.to_owned(), |workload| format!("{model}, {workload}"))
}

impl Group {
    fn of(spec: &Arc<GroupSpec>, name: String) -> Self {
        Self {
            name,
            spec: spec.clone(),
            planned: 1,
            finished: 0,
            failed: 0,
            tally: Tally::default(),
            loads: Vec::new(),
            shortfalls: Vec::new(),
            server: Vec::new(),
            punctuality: Punctuality::default(),
        }
    }

    /// Whether both groups have prompts one by one, or the same workload.
    fn is_comparable_to(&self, other: &Self) -> bool {
        self.spec.id.workload == other.spec.id.workload
    }

    /// The model's name, and its load's where it was under one; and what it is, where another group
    /// would have the same name. For display only: [`GroupId`] identifies a group.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the mean of `metric` by the server's Prometheus metrics and ours, over the trials in
    /// which the two can be compared, and the number of their requests.
    pub fn by_metrics(&self, metric: &Metric) -> Option<(f64, f64, usize)> {
        let mut sums = (0.0, 0.0, 0.0);
        for (said, ours) in self.server.iter().flat_map(|beside| &beside.said) {
            let times = said.times.filter(|_| said.figure.ours == Some(metric));
            if let Some((times, ours)) = times.zip(*ours) {
                sums.0 += times.mean * times.count;
                sums.1 += ours * times.count;
                sums.2 += times.count;
            }
        }
        let (theirs, ours, requests) = sums;
        (requests > 0.0).then(|| (theirs / requests, ours / requests, requests as usize))
    }

    /// The limits that it is held to.
    pub fn thresholds(&self) -> &[Threshold] {
        &self.spec.thresholds
    }

    /// The figure of each valid request that has it, or of each load.
    pub fn values(&self, metric: &Metric) -> Vec<f64> {
        match metric.read {
            Read::Load(read) => self.loads.iter().filter_map(read).collect(),
            Read::Sample(_) | Read::All => self.tally.values(metric).to_vec(),
        }
    }

    /// `statistic` of `metric` over the valid requests, or over the loads, in the metric's base
    /// unit.
    ///
    /// A figure that more of them lack than [`GroupSpec::min_share`] allows is absent as a whole: the
    /// rest would be a selection.
    pub fn figure(&self, metric: &Metric, statistic: Statistic) -> Result<f64, Absent> {
        if matches!(metric.read, Read::All) {
            return self.success_rate();
        }
        self.enough_have(metric)?;
        statistic.of(&self.values(metric))
    }

    fn enough_have(&self, metric: &Metric) -> Result<(), Absent> {
        if matches!(metric.read, Read::Load(_)) && self.spec.workload.is_none() {
            return Err(Absent::NoLoad);
        }
        let lacking = self.lacking(metric);
        match lacking.all {
            0 => Err(Absent::NoValidTrial { failed: self.failed.max(self.tally.failed()) }),
            _ if lacking.leaves(self.spec.min_share) => Ok(()),
            all => Err(Absent::Lacking { lack: lacking.lack(), all }),
        }
    }

    /// How many valid answers, or loads, lack a figure, and why.
    pub fn lacking(&self, metric: &Metric) -> Lacking {
        let Read::Load(read) = metric.read else { return self.tally.lacking(metric) };
        let mut reasons = BTreeMap::new();
        for reached in self.loads.iter().filter(|reached| read(reached).is_none()) {
            let lack = reached.refused.map_or(Lack::NotAvailable, Lack::Refused);
            *reasons.entry(lack).or_default() += 1;
        }
        Lacking { metric: metric.name, is_of_runs: true, all: self.loads.len(), reasons }
    }

    /// The figure of each valid answer that has it, if enough of them do.
    pub fn valued(&self, metric: &Metric) -> Result<Valued<'_>, Absent> {
        self.enough_have(metric)?;
        Ok(self.tally.valued(metric))
    }

    /// The same with its interval, as sure as `confidence`.
    pub fn estimate(
        &self,
        metric: &Metric,
        statistic: Statistic,
        confidence: f64,
    ) -> Result<Estimate, Absent> {
        let value = self.figure(metric, statistic)?;
        let interval = match metric.read {
            Read::Sample(_) => interval::of(statistic, self.valued(metric)?.sampled(), confidence),
            Read::Load(_) => self.interval_of_loads(metric, value, statistic, confidence),
            // It says of these requests how many failed, and no more.
            Read::All => Ok(None),
        };
        let n = match metric.read {
            Read::Load(_) | Read::Sample(_) => self.values(metric).len(),
            Read::All => self.tally.valid,
        };
        Ok(Estimate { value, interval, n })
    }

    /// How much more of `metric` each answer has than that of `other` to the same run of the same
    /// prompt, as a part of the latter; with the prompts as strata. For trials that took turns.
    pub fn pairs(&self, other: &Self, metric: &Metric) -> (Vec<f64>, Vec<u32>) {
        // A prompt is one by its place in memory, which both groups share; numbered as the first group
        // met them, so that the pairs have one order.
        let number =
            |prompt: &Arc<Prompt>| self.tally.numbers.get(&Arc::as_ptr(prompt).addr()).copied();
        let keyed = |group: &Self| -> BTreeMap<(u32, u32), f64> {
            let tally = &group.tally;
            let Ok(Valued { values, strata }) = group.valued(metric) else {
                return BTreeMap::new();
            };
            let numbers: Vec<_> = tally.prompts.iter().map(number).collect();
            let runs = tally.of_those_with(metric, &tally.runs);
            let rows = strata.iter().zip(runs).zip(values);
            rows.filter_map(|((stratum, run), value)| {
                Some(((numbers[*stratum as usize]?, run), *value))
            })
            .collect()
        };
        let others = keyed(other);
        let pairs = keyed(self).into_iter().filter_map(|(key, value)| {
            let base = others.get(&key).filter(|base| **base > 0.0)?;
            Some((value / base - 1.0, key.0))
        });
        pairs.unzip()
    }

    /// The change of the median of `metric` from the first half of each prompt's answers to the
    /// second, in the order in which they came.
    pub fn drift(&self, metric: &Metric) -> Result<Change, Absent> {
        let Valued { values, strata } = self.valued(metric)?;
        // Of each prompt: all of its answers, and those seen so far.
        let mut counts = vec![(0, 0); self.tally.prompts.len()];
        strata.iter().for_each(|stratum| counts[*stratum as usize].0 += 1);
        let mut halves = [(vec![], vec![]), (vec![], vec![])];
        for (value, stratum) in values.iter().zip(&*strata) {
            let (all, seen) = &mut counts[*stratum as usize];
            let half = &mut halves[usize::from(*seen >= *all / 2)];
            *seen += 1;
            half.0.push(*value);
            half.1.push(*stratum);
        }
        let sampled = |half: usize| {
            let (values, strata): &(Vec<f64>, Vec<u32>) = &halves[half];
            Sampled { values, strata }
        };
        Change::of(Statistic::Median, sampled(0), sampled(1), interval::CONFIDENCE)
    }

    /// The interval of a load's mean throughput, by the pieces of its runs.
    fn interval_of_loads(
        &self,
        metric: &Metric,
        value: f64,
        statistic: Statistic,
        confidence: f64,
    ) -> Result<Option<Interval>, Absent> {
        let read: fn(&Batch) -> f64 = match metric {
            _ if metric == Metric::OUTPUT_THROUGHPUT => |batch| batch.output_throughput,
            _ if metric == Metric::REQUEST_THROUGHPUT => |batch| batch.request_throughput,
            // The load that was offered, not a result of it.
            _ => return Ok(None),
        };
        let Read::Load(of_run) = metric.read else { return Ok(None) };
        let runs = self.loads.iter().filter(|reached| of_run(reached).is_some());
        let batches = runs.flat_map(|reached| &reached.batches);
        let values: Vec<_> = batches.map(read).collect();
        let mean = Statistic::Mean.of(&values)?;
        if statistic != Statistic::Mean {
            return Ok(None);
        }
        let sampled = Sampled { values: &values, strata: &[] };
        let interval = interval::of(statistic, sampled, confidence)?;
        // The pieces need not have the mean of the whole.
        let scale = if mean > 0.0 { value / mean } else { 1.0 };
        Ok(interval.map(|Interval { low, high }| Interval { low: low * scale, high: high * scale }))
    }

    fn success_rate(&self) -> Result<f64, Absent> {
        match self.tally.finished() {
            0 => Err(Absent::NoValidTrial { failed: self.failed }),
            all => Ok(100.0 * self.tally.valid as f64 / all as f64),
        }
    }

    /// Mean `generation_speed`, for the ranking; below every speed when there is none.
    fn speed(&self) -> f64 {
        self.figure(Metric::GENERATION_SPEED, Statistic::Mean).unwrap_or(-1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_prompt_is_a_stratum_however_many_there_are() {
        let mut tally = Tally::default();
        let prompts: Vec<_> =
            (0..70_000).map(|nth| Arc::new(Prompt::new(nth.to_string(), None, "x"))).collect();
        for round in 0..2 {
            let strata = prompts.iter().map(|prompt| tally.stratum(prompt));
            assert!(strata.eq(0..70_000), "round {round}");
        }
    }
}
