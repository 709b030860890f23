//! Aggregates finished trials into a [`Summary`] of groups. Pure.
//!
//! It keeps only the figures of an answer, not the answer, and long columns of them go to the
//! [`Storage`], so that a long run fits into memory.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    capacity::{CapacityFigure, FinishedSearch},
    column::{ColumnEntry, Figures, Storage, ValueColumn},
    drift::Drift,
    group::{GroupId, GroupSpec},
    interval::{self, Interval, MeanError, StratifiedSample},
    lacking::{MissingFigures, MissingReason},
    load_stats::{Batch, LoadStats},
    metric::{Better, METRICS, Metric, MetricSource},
    prompt::Prompt,
    punctuality::Punctuality,
    recording::{ErrorKind, RequestError},
    requirement::LOAD_RUNS,
    sample::{Doubt, Note, Sample},
    server_metrics::MetricComparison,
    spread::within_strata,
    statistic::{Absent, Statistic},
    threshold::Threshold,
    uncertainty::{self, Uncertain},
};

/// One request of a finished trial.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The prompt.
    pub prompt: &'a Arc<Prompt>,
    /// The number of the run, from 1.
    pub run: u32,
    /// The result.
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

/// The results of requests.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Valid answers.
    pub valid: usize,
    /// Failures, by kind.
    pub failures: BTreeMap<ErrorKind, usize>,
    /// Valid answers whose timing the server contradicts.
    pub server_disagrees: usize,
    /// Valid answers of more than one token.
    pub several_tokens: usize,
    /// The time per token of those among them that streamed all tokens.
    pub per_token: ValueColumn<f64>,
    /// A list for each [`ServerComparison`]: the three figures of each answer that has them.
    server_timings: [ValueColumn<[f64; 3]>; ServerComparison::ALL.len()],
    /// A list for each of [`METRICS`]: the value of each valid answer that has one.
    figures: Vec<ValueColumn<f64>>,
    /// For each valid answer: a bit for each of [`METRICS`] that it has.
    has: ValueColumn<u64>,
    /// The number of valid answers that lack each of [`METRICS`], by reason.
    lacks: BTreeMap<(usize, MissingReason), usize>,
    /// The doubts, with the number of affected valid answers.
    doubts: BTreeMap<Doubt, usize>,
    /// For each of [`METRICS`]: how far some of the values can be off.
    uncertain: Vec<ValueColumn<Uncertain>>,
    /// The prompts.
    prompts: Vec<Arc<Prompt>>,
    /// The prompt of each valid answer, as an index.
    strata: ValueColumn<u32>,
    /// The index of each prompt by its address, which is stable while the prompt is in the list.
    numbers: HashMap<usize, u32>,
    /// The run of each valid answer.
    runs: ValueColumn<u32>,
    /// The turns of conversations: all first turns, all second turns, and so on.
    turns: Vec<Turns>,
    /// Where long columns are kept.
    storage: Storage,
}

/// The values of a metric with the prompt of each.
#[derive(Debug, Clone)]
pub struct MetricValues<'a> {
    /// The values.
    pub values: Figures<'a>,
    /// The prompt of each value, as an index.
    pub strata: Cow<'a, [u32]>,
}

impl MetricValues<'_> {
    /// Returns the values with their strata.
    pub fn stratified(&self) -> StratifiedSample<'_> {
        StratifiedSample { values: &self.values, strata: &self.strata }
    }
}

/// A bit for each metric. No answer has the bit of `success_rate`.
const _: () = assert!(METRICS.len() < u64::BITS as usize);

impl Tally {
    /// Creates a tally without requests, whose long columns are kept in `storage`.
    pub fn new(storage: &Storage) -> Self {
        Self {
            per_token: ValueColumn::new(storage),
            server_timings: std::array::from_fn(|_| ValueColumn::new(storage)),
            has: ValueColumn::new(storage),
            strata: ValueColumn::new(storage),
            runs: ValueColumn::new(storage),
            storage: storage.clone(),
            ..Self::default()
        }
    }

    /// Creates the lists of the metrics.
    fn make_lists(&mut self) {
        let storage = &self.storage;
        self.figures.resize_with(METRICS.len(), || ValueColumn::new(storage));
        self.uncertain.resize_with(METRICS.len(), || ValueColumn::new(storage));
    }

    /// Adds a request: run `run` of `prompt`.
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

    /// Adds the figures of a valid answer, their uncertainties, and the reasons for missing ones.
    fn keep(&mut self, sample: &Sample) {
        self.make_lists();
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
            } else if matches!(metric.read, MetricSource::Sample(_)) {
                *self
                    .lacks
                    .entry((metric.index, MissingReason::of(metric, sample)))
                    .or_default() += 1;
            }
        }
        self.has.push(has);
        for doubt in &sample.doubts {
            *self.doubts.entry(doubt.clone()).or_default() += 1;
        }
    }

    /// Adds the figures that are compared with the server's.
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
            let values: Vec<_> = rows.iter().map(|row: [f64; 3]| row[column]).collect();
            Statistic::Median.of(&values).ok()
        };
        Some(([median(0)?, median(1)?, median(2)?], rows.len()))
    }

    /// Returns the index of `prompt`.
    fn stratum(&mut self, prompt: &Arc<Prompt>) -> u32 {
        let prompts = &mut self.prompts;
        *self.numbers.entry(Arc::as_ptr(prompt).addr()).or_insert_with(|| {
            prompts.push(prompt.clone());
            number(prompts.len() - 1)
        })
    }

    fn turn(&mut self, nth: usize) -> &mut Turns {
        let storage = &self.storage;
        self.turns.resize_with(self.turns.len().max(nth + 1), || Turns::new(storage));
        &mut self.turns[nth]
    }

    /// Adds the requests of `other`.
    pub fn merge(&mut self, other: Self) {
        self.valid += other.valid;
        self.server_disagrees += other.server_disagrees;
        self.several_tokens += other.several_tokens;
        self.per_token.append(other.per_token);
        for (rows, more) in self.server_timings.iter_mut().zip(other.server_timings) {
            rows.append(more);
        }
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.make_lists();
        for (uncertain, (more, values)) in
            self.uncertain.iter_mut().zip(other.uncertain.iter().zip(&self.figures))
        {
            let before = values.len() as u32;
            uncertain.extend(more.iter().map(|(place, error)| (before + place, error)));
        }
        for (values, more) in self.figures.iter_mut().zip(other.figures) {
            values.append(more);
        }
        let strata: Vec<_> = other.prompts.iter().map(|prompt| self.stratum(prompt)).collect();
        for (turn, nth) in other.turns.into_iter().zip(0..) {
            self.turn(nth).merge(turn);
        }
        self.runs.append(other.runs);
        // A first load, or one with the same prompts, changes no number.
        match strata.iter().copied().eq(0..number(strata.len())) {
            true => self.strata.append(other.strata),
            false => {
                self.strata.extend(other.strata.iter().map(|stratum| strata[stratum as usize]));
            }
        }
        self.has.append(other.has);
        for (lack, count) in other.lacks {
            *self.lacks.entry(lack).or_default() += count;
        }
        for (doubt, count) in other.doubts {
            *self.doubts.entry(doubt).or_default() += count;
        }
    }

    /// Returns the values of `metric` with their prompts.
    pub(crate) fn valued(&self, metric: &Metric) -> MetricValues<'_> {
        let values = self.values(metric);
        let strata = match values.len() == self.valid {
            true => self.strata.values(),
            false => Cow::Owned(self.of_those_with(metric, &self.strata).collect()),
        };
        MetricValues { values, strata }
    }

    /// Returns the entries of `list`, which has one per valid answer, for the answers with the
    /// figure.
    fn of_those_with<T: ColumnEntry>(
        &self,
        metric: &Metric,
        list: &ValueColumn<T>,
    ) -> impl Iterator<Item = T> {
        let bit = 1 << metric.index;
        let has = self.has.iter().zip(list.iter()).filter(move |(has, _)| has & bit != 0);
        has.map(|(_, entry)| entry)
    }

    /// How many valid answers lack a figure, and why.
    pub fn lacking(&self, metric: &Metric) -> MissingFigures {
        let of_metric = self.lacks.iter().filter(|((index, _), _)| *index == metric.index);
        let reasons = of_metric.map(|((_, lack), count)| (*lack, *count)).collect();
        MissingFigures { metric: metric.name, is_of_runs: false, all: self.valid, reasons }
    }

    /// Returns why a figure may be wrong, with the number of affected valid answers.
    pub fn doubts(&self, metric: &Metric) -> impl Iterator<Item = (&str, usize)> {
        let of_metric = self.doubts.iter().filter(|(doubt, _)| metric.is_one_of(doubt.metrics));
        of_metric.map(|(doubt, count)| (doubt.reason.as_str(), *count))
    }

    /// Returns the prompts, indexed as in [`strata`](Self::strata).
    pub fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.prompts.iter().map(|prompt| &**prompt)
    }

    /// Returns the turns of conversations: all first turns, all second turns, and so on.
    pub fn turns(&self) -> &[Turns] {
        &self.turns
    }

    /// Returns the prompt of each valid answer, as an index.
    pub fn strata(&self) -> Cow<'_, [u32]> {
        self.strata.values()
    }

    /// Returns the run number of each valid answer, in order of time.
    pub fn runs(&self) -> Cow<'_, [u32]> {
        self.runs.values()
    }

    /// Returns the run number of each value of `metric`.
    pub fn runs_of(&self, metric: &Metric) -> Vec<u32> {
        self.of_those_with(metric, &self.runs).collect()
    }

    /// Returns the number of failed requests.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// Returns the number of finished requests.
    pub fn finished(&self) -> usize {
        self.valid + self.failed()
    }

    /// Returns the values of a metric.
    pub fn values(&self, metric: &Metric) -> Figures<'_> {
        self.figures.get(metric.index).map_or_else(Figures::default, ValueColumn::load)
    }

    /// Returns the number of values of a metric.
    pub fn count(&self, metric: &Metric) -> usize {
        self.figures.get(metric.index).map_or(0, ValueColumn::len)
    }

    /// Returns how far some of the values can be off.
    pub fn uncertain(&self, metric: &Metric) -> Cow<'_, [Uncertain]> {
        self.uncertain.get(metric.index).map(ValueColumn::values).unwrap_or_default()
    }

    /// Returns how far `statistic` of the values can be off because of uncertain arrivals.
    pub fn uncertainty(&self, metric: &Metric, statistic: Statistic) -> f64 {
        uncertainty::of_statistic(statistic, &self.values(metric), &self.uncertain(metric))
    }

    /// Returns the prompts whose valid answers all lack `metric`, although other prompts have it.
    pub fn prompts_without(&self, metric: &Metric) -> Vec<&str> {
        let with: BTreeSet<_> = self.of_those_with(metric, &self.strata).collect();
        let all: BTreeSet<_> = self.strata.iter().collect();
        let without = all.difference(&with).filter(|_| !with.is_empty());
        without.map(|stratum| self.prompts[*stratum as usize].name.as_str()).collect()
    }
}

/// The `nth` stratum's number.
fn number(nth: usize) -> u32 {
    u32::try_from(nth).unwrap_or(u32::MAX)
}

/// The same turn of several conversations.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Time to the first token, in seconds.
    pub ttft: ValueColumn<f64>,
    /// Tokens of the prompt, if the server reports them.
    pub prompt_tokens: ValueColumn<f64>,
    /// Cached tokens of the prompt, if the server reports them.
    pub cached_tokens: ValueColumn<f64>,
}

impl Turns {
    fn new(storage: &Storage) -> Self {
        let column = || ValueColumn::new(storage);
        Self { ttft: column(), prompt_tokens: column(), cached_tokens: column() }
    }

    fn add(&mut self, sample: &Sample) {
        self.ttft.extend(Metric::TTFT.of(sample));
        self.prompt_tokens.extend(sample.prompt_tokens.map(|tokens| tokens as f64));
        self.cached_tokens.extend(sample.cached_tokens.map(|tokens| tokens as f64));
    }

    fn merge(&mut self, other: Self) {
        self.ttft.append(other.ttft);
        self.prompt_tokens.append(other.prompt_tokens);
        self.cached_tokens.append(other.cached_tokens);
    }
}

/// A statistic with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The statistic, in the metric's base unit.
    pub value: f64,
    /// The interval; `None` for a statistic that only describes these requests, such as the largest
    /// value, and an error for too few values.
    pub interval: Result<Option<Interval>, Absent>,
    /// The number of values.
    pub n: usize,
    /// The standard error, if the statistic is a mean.
    pub mean_error: Option<MeanError>,
}

/// The values whose variation is that of a figure.
#[derive(Default)]
struct Replicates {
    values: Vec<f64>,
    strata: Vec<u32>,
    /// Whether each value is a statistic of a run of a load, or of a batch of it.
    is_of_runs: bool,
    /// Whether the figure has an interval.
    has_interval: bool,
    /// The fewest runs for an interval.
    needs_runs: usize,
}

impl Replicates {
    /// One value for each run of a load, of which an interval needs several.
    fn of_runs(values: Vec<f64>, has_interval: bool) -> Self {
        let needs_runs = LOAD_RUNS;
        Self { values, has_interval, is_of_runs: true, needs_runs, ..Self::default() }
    }

    /// Fails for too few runs.
    fn check(&self) -> Result<(), Absent> {
        let (needs, has) = (self.needs_runs, self.values.len());
        if has < needs { Err(Absent::TooFewRuns { needs, has }) } else { Ok(()) }
    }
}

/// The groups of a run, in the config's order. A model's prompts come before its workloads.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// One group for each selected model with prompts, and one for each of its workloads.
    pub groups: Vec<Group>,
    /// The position of each group.
    positions: HashMap<GroupId, usize>,
    /// Where long columns are kept.
    storage: Storage,
}

/// One model with prompts one by one, or under one workload.
#[derive(Debug, Clone)]
pub struct Group {
    /// The name in reports, which is unique in the run.
    name: String,
    /// The specification of the group.
    pub spec: Arc<GroupSpec>,
    /// The number of selected trials.
    pub planned: usize,
    /// The number of finished trials, failed ones included.
    pub finished: usize,
    /// The number of failed trials.
    pub failed: usize,
    /// The number of trials that an interrupt ended after some of their requests. They are not among
    /// the finished ones.
    pub interrupted: usize,
    /// The requests, without those of loads that were not reached.
    pub tally: Tally,
    /// The runs of loads that were reached.
    pub loads: Vec<LoadStats>,
    /// Why the other runs did not reach the load.
    pub shortfalls: Vec<String>,
    /// The searches, whose highest loads that held are among the loads.
    pub searches: Vec<FinishedSearch>,
    /// The server's metrics of each trial, if they were fetched.
    pub server: Vec<MetricComparison>,
    /// The punctuality of the simulated endpoint in these requests; empty for other endpoints.
    pub punctuality: Punctuality,
}

impl Summary {
    /// Creates the summary of selected trials before any of them has finished.
    pub fn new<'a>(trials: impl IntoIterator<Item = &'a Arc<GroupSpec>>) -> Self {
        Self::in_storage(trials, Storage::default())
    }

    /// The same, with long columns in `storage`.
    pub fn in_storage<'a>(
        trials: impl IntoIterator<Item = &'a Arc<GroupSpec>>,
        storage: Storage,
    ) -> Self {
        let mut summary = Self { storage, ..Self::default() };
        for spec in trials {
            match summary.group(spec.id) {
                Some(group) => group.planned += 1,
                None => {
                    let name = summary.free_name(spec);
                    summary.positions.insert(spec.id, summary.groups.len());
                    summary.groups.push(Group::of(spec, name, &summary.storage));
                }
            }
        }
        summary
    }

    /// Returns a name for the group of `spec` that no other group has. The name of a model may
    /// equal that of another model under a load.
    fn free_name(&self, spec: &GroupSpec) -> String {
        let name = group_name(&spec.model, spec.workload_name());
        let what = if spec.workload.is_some() { "workload" } else { "model" };
        let others = (2..).map(|number| format!("{name} ({what} {number})"));
        let names = [name.clone(), format!("{name} ({what})")].into_iter().chain(others);
        let is_free = |name: &String| self.groups.iter().all(|group| group.name != *name);
        names.into_iter().find(is_free).unwrap_or_default()
    }

    /// Counts one more selected trial.
    pub fn plan(&mut self, id: GroupId) {
        if let Some(group) = self.group(id) {
            group.planned += 1;
        }
    }

    /// Counts one selected trial less.
    pub fn withdraw(&mut self, id: GroupId) {
        if let Some(group) = self.group(id) {
            group.planned -= 1;
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

    /// Adds a finished trial with its requests: one, or the turns of a conversation.
    pub fn add(&mut self, id: GroupId, requests: &[Request<'_>]) {
        let Some(group) = self.group(id) else { return };
        group.finished += 1;
        group.failed += usize::from(requests.iter().any(|request| request.outcome.is_err()));
        for Request { prompt, run, outcome } in requests {
            group.tally.add(prompt, *run, outcome);
        }
    }

    /// Adds the finished requests of a trial that an interrupt ended.
    pub fn add_interrupted(&mut self, id: GroupId, tally: Tally) {
        if let Some(group) = self.group(id) {
            group.interrupted += 1;
            group.tally.merge(tally);
        }
    }

    /// Adds the server's metrics of a trial.
    pub fn add_server(&mut self, id: GroupId, comparison: MetricComparison) {
        if let Some(group) = self.group(id) {
            group.server.push(comparison);
        }
    }

    /// Adds the punctuality of the simulated endpoint in a trial.
    pub fn add_punctuality(&mut self, id: GroupId, punctuality: Punctuality) {
        if let Some(group) = self.group(id) {
            group.punctuality.merge(punctuality);
        }
    }

    /// Adds a finished run of a load with the `tally` of its requests. A run that did not reach the
    /// load contributes its reason and no figures.
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
            Ok((tally, stats)) => {
                group.tally.merge(tally);
                group.loads.push(stats);
            }
            Err(shortfall) => group.shortfalls.push(shortfall),
        }
    }

    /// Adds a search that has ended.
    pub fn add_search(&mut self, id: GroupId, search: FinishedSearch) {
        if let Some(group) = self.group(id) {
            group.searches.push(search);
        }
    }

    /// Returns the groups whose models can be compared: those with prompts, then those of each
    /// workload.
    pub fn comparable(&self) -> Vec<Vec<&Group>> {
        let mut comparable: Vec<Vec<&Group>> = Vec::new();
        for group in &self.groups {
            match comparable.iter_mut().find(|of| of[0].is_comparable_to(group)) {
                Some(of) => of.push(group),
                None => comparable.push(vec![group]),
            }
        }
        for of in &mut comparable {
            let metric = ranking_metric(of);
            of.sort_by(|a, b| b.rank_value(metric).total_cmp(&a.rank_value(metric)));
        }
        comparable.sort_by_key(|of| of[0].spec.workload.is_some());
        comparable
    }

    /// Returns the number of finished trials.
    pub fn finished(&self) -> usize {
        self.whole().map(|group| group.finished).sum()
    }

    /// Returns the number of trials that an interrupt ended after some of their requests.
    pub fn interrupted(&self) -> usize {
        self.whole().map(|group| group.interrupted).sum()
    }

    /// Returns the number of selected trials.
    pub fn planned(&self) -> usize {
        self.whole().map(|group| group.planned).sum()
    }

    /// Returns the groups whose trials do not count in another one.
    fn whole(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| !group.spec.is_part())
    }
}

/// Formats the name of a model, with its workload if it has one.
pub fn group_name(model: &str, workload: Option<&str>) -> String {
    workload.map_or_else(|| model.to_owned(), |workload| format!("{model}, {workload}"))
}

impl Group {
    fn of(spec: &Arc<GroupSpec>, name: String, storage: &Storage) -> Self {
        Self {
            name,
            spec: spec.clone(),
            planned: 1,
            finished: 0,
            failed: 0,
            interrupted: 0,
            tally: Tally::new(storage),
            loads: Vec::new(),
            shortfalls: Vec::new(),
            searches: Vec::new(),
            server: Vec::new(),
            punctuality: Punctuality::default(),
        }
    }

    /// Returns whether both groups have prompts one by one, or the same workload.
    fn is_comparable_to(&self, other: &Self) -> bool {
        self.spec.id.workload == other.spec.id.workload
    }

    /// Returns the unique name: the model's with its workload's, and a suffix if another group has
    /// the same name. It is for display; [`GroupId`] identifies a group.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns the mean of `metric` by the server's Prometheus metrics and ours, over the trials in
    /// which the two can be compared, and the number of their requests.
    pub fn by_metrics(&self, metric: &Metric) -> Option<(f64, f64, usize)> {
        let mut sums = (0.0, 0.0, 0.0);
        for (sample, ours) in self.server.iter().flat_map(|comparison| &comparison.samples) {
            let times = sample.times.filter(|_| sample.figure.ours == Some(metric));
            if let Some((times, ours)) = times.zip(*ours) {
                sums.0 += times.mean * times.count;
                sums.1 += ours * times.count;
                sums.2 += times.count;
            }
        }
        let (theirs, ours, requests) = sums;
        (requests > 0.0).then(|| (theirs / requests, ours / requests, requests as usize))
    }

    /// Returns the thresholds of the group.
    pub fn thresholds(&self) -> &[Threshold] {
        &self.spec.thresholds
    }

    /// Returns the value of each valid request, or of each run of a load.
    pub fn values(&self, metric: &Metric) -> Vec<f64> {
        match metric.read {
            MetricSource::Load(read) => self.loads.iter().filter_map(read).collect(),
            MetricSource::Sample(_) | MetricSource::All => self.tally.values(metric).to_vec(),
        }
    }

    /// Returns the number of valid requests, or of runs of a load, that have a value.
    pub fn count(&self, metric: &Metric) -> usize {
        match metric.read {
            MetricSource::Load(read) => self.loads.iter().filter_map(read).count(),
            MetricSource::Sample(_) | MetricSource::All => self.tally.count(metric),
        }
    }

    /// Computes `statistic` of `metric` over the valid requests, or over the runs of a load, in the
    /// base unit.
    ///
    /// If more of them lack the figure than [`GroupSpec::min_share`] allows, the figure is absent.
    /// The remaining values would be a biased selection.
    pub fn figure(&self, metric: &Metric, statistic: Statistic) -> Result<f64, Absent> {
        if matches!(metric.read, MetricSource::All) {
            return self.success_rate();
        }
        self.enough_have(metric)?;
        self.statistic(metric, statistic)
    }

    /// Computes `statistic` of the values that there are, however many lack the figure. A standard
    /// deviation is that within the prompts.
    pub fn statistic(&self, metric: &Metric, statistic: Statistic) -> Result<f64, Absent> {
        match (metric.read, statistic) {
            (MetricSource::Sample(_), Statistic::Sd) => {
                statistic.of(&within_strata(self.tally.valued(metric).stratified())?)
            }
            (MetricSource::Load(_), Statistic::Mean)
                if metric == Metric::COST_PER_MILLION_OUTPUT_TOKENS =>
            {
                let throughput = self.statistic(Metric::OUTPUT_THROUGHPUT, statistic)?;
                self.cost(throughput).ok_or(Absent::DescriptiveOnly)
            }
            (MetricSource::Load(_), _) => statistic.of(&self.values(metric)),
            _ => self.tally.values(metric).statistic(statistic),
        }
    }

    fn enough_have(&self, metric: &Metric) -> Result<(), Absent> {
        if matches!(metric.read, MetricSource::Load(_)) && self.spec.workload.is_none() {
            return Err(Absent::NoLoad);
        }
        let lacking = self.lacking(metric);
        match lacking.all {
            0 => Err(Absent::NoValidTrial { failed: self.failed.max(self.tally.failed()) }),
            _ if lacking.leaves(self.spec.min_share) => Ok(()),
            all => Err(Absent::Lacking { lack: lacking.lack(), all }),
        }
    }

    /// Returns how many valid answers, or runs, lack a figure, by reason.
    pub fn lacking(&self, metric: &Metric) -> MissingFigures {
        let MetricSource::Load(read) = metric.read else { return self.tally.lacking(metric) };
        let mut reasons = BTreeMap::new();
        for stats in self.loads.iter().filter(|stats| read(stats).is_none()) {
            let lack = MissingReason::of_load(metric, stats, self.spec.is_part());
            *reasons.entry(lack).or_default() += 1;
        }
        MissingFigures { metric: metric.name, is_of_runs: true, all: self.loads.len(), reasons }
    }

    /// Returns the values of a metric if enough valid answers have it.
    pub(crate) fn valued(&self, metric: &Metric) -> Result<MetricValues<'_>, Absent> {
        self.enough_have(metric)?;
        Ok(self.tally.valued(metric))
    }

    /// Computes `statistic` with its interval at the given confidence.
    pub fn estimate(
        &self,
        metric: &Metric,
        statistic: Statistic,
        confidence: f64,
    ) -> Result<Estimate, Absent> {
        let statistic = self.with_failures(metric, statistic);
        let value = self.figure(metric, statistic)?;
        let sample = self.replicates(metric, statistic)?;
        let (values, strata) = (&sample.values, &sample.strata);
        let stratified = StratifiedSample { values, strata };
        // The replicates of a load are means or other statistics of its runs already.
        let of = if sample.is_of_runs { Statistic::Mean } else { statistic };
        let share = self.interval_of_good(metric, confidence);
        let mean_error = match of {
            Statistic::Mean if sample.has_interval && share.is_none() => {
                MeanError::of(stratified).ok()
            }
            _ => None,
        };
        let interval = match metric.read {
            MetricSource::All => Ok(Some(self.interval_of_success_rate(confidence))),
            _ if !sample.has_interval => Ok(None),
            _ => sample.check().and_then(|()| match of {
                Statistic::Mean => {
                    MeanError::of(stratified).map(|error| Some(error.interval(value, confidence)))
                }
                _ => interval::of(of, stratified, confidence),
            }),
        };
        // Batches without any difference, such as those in which all requests are good, do not show
        // that the next ones are good too.
        let interval = match (interval, share) {
            (Ok(Some(interval)), Some(share)) => Ok(Some(Interval {
                low: interval.low.min(share.low),
                high: interval.high.max(share.high),
            })),
            (interval, _) => interval,
        };
        let interval = self.interval_of_search(metric).map_or(interval, |of| Ok(Some(of)));
        let interval = match statistic {
            Statistic::Mean if metric == Metric::COST_PER_MILLION_OUTPUT_TOKENS => {
                self.interval_of_cost(confidence)
            }
            _ => interval,
        };
        let n = match metric.read {
            MetricSource::Load(_) | MetricSource::Sample(_) => self.count(metric),
            MetricSource::All => self.tally.valid,
        };
        Ok(Estimate { value, interval, n, mean_error })
    }

    /// Returns the percentile of the valid requests of a load that is `statistic` of all requests,
    /// failed ones included: these are slower than any valid one.
    fn with_failures(&self, metric: &Metric, statistic: Statistic) -> Statistic {
        let Statistic::Percentile(percent) = statistic else { return statistic };
        let valid = self.tally.valid as f64 / self.tally.finished().max(1) as f64;
        let of_valid = percent / valid.max(f64::MIN_POSITIVE);
        match self.spec.workload.is_some() && metric.better == Better::Lower && of_valid < 100.0 {
            true => Statistic::Percentile(of_valid),
            false => statistic,
        }
    }

    /// Returns the values whose variation is that of `statistic`: of requests, of the batches of a
    /// load, or of its runs.
    fn replicates(&self, metric: &Metric, statistic: Statistic) -> Result<Replicates, Absent> {
        Ok(match metric.read {
            MetricSource::All => Replicates::default(),
            MetricSource::Load(_)
                if metric.is_one_of(&[Metric::ENERGY, Metric::ENERGY_PER_OUTPUT_TOKEN]) =>
            {
                // A run has one energy, so only its runs show how much it varies.
                Replicates::of_runs(self.values(metric), statistic == Statistic::Mean)
            }
            MetricSource::Load(of_run) => {
                let batches = self.batches(metric, of_run);
                let has_interval = statistic == Statistic::Mean && !batches.is_empty();
                let values = if has_interval { batches } else { Vec::new() };
                Replicates { values, has_interval, is_of_runs: true, ..Replicates::default() }
            }
            MetricSource::Sample(_) if self.spec.workload.is_some() => {
                let values = self.by_run(metric, statistic);
                let values = values.into_iter().map(|(_, value)| value).collect();
                let has_interval = !matches!(statistic, Statistic::Min | Statistic::Max);
                Replicates::of_runs(values, has_interval)
            }
            MetricSource::Sample(_) if statistic == Statistic::Sd => {
                let values = within_strata(self.valued(metric)?.stratified())?;
                Replicates { values, has_interval: true, ..Replicates::default() }
            }
            MetricSource::Sample(_) => {
                let MetricValues { values, strata } = self.valued(metric)?;
                Replicates {
                    values: values.to_vec(),
                    strata: strata.to_vec(),
                    has_interval: true,
                    ..Replicates::default()
                }
            }
        })
    }

    /// Returns `statistic` of the values of each run that has enough of them, by the run's number.
    pub fn by_run(&self, metric: &Metric, statistic: Statistic) -> Vec<(u32, f64)> {
        let mut by_run: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        let runs = self.tally.of_those_with(metric, &self.tally.runs);
        for (run, value) in runs.zip(self.tally.values(metric).iter()) {
            by_run.entry(run).or_default().push(*value);
        }
        let figure = |(run, values): (u32, Vec<f64>)| Some((run, statistic.of(&values).ok()?));
        by_run.into_iter().filter_map(figure).collect()
    }

    /// Returns the number of runs of each prompt, or of the workload.
    pub fn runs(&self) -> u32 {
        let of_requests = self.tally.runs.iter().max().unwrap_or_default();
        of_requests.max(u32::try_from(self.loads.len()).unwrap_or(u32::MAX))
    }

    /// Returns the interval that the number of good requests alone gives a share of them, or their
    /// rate at the rate of all requests; `None` for other metrics.
    fn interval_of_good(&self, metric: &Metric, confidence: f64) -> Option<Interval> {
        let loads = || self.loads.iter().filter(|stats| stats.goodput_ratio.is_some());
        let all: usize = loads().map(|stats| stats.requests).sum();
        let good = |stats: &LoadStats| stats.goodput_ratio.unwrap_or_default() / 100.0;
        let good: f64 = loads().map(|stats| good(stats) * stats.requests as f64).sum();
        let rates: Vec<_> = loads().map(|stats| stats.requests as f64 / stats.seconds).collect();
        let scale = match metric {
            _ if metric == Metric::GOODPUT_RATIO => 100.0,
            _ if metric == Metric::GOODPUT => Statistic::Mean.of(&rates).ok()?,
            _ => return None,
        };
        let Interval { low, high } = interval::of_share(good.round() as usize, all, confidence);
        Some(Interval { low: low * scale, high: high * scale })
    }

    /// Returns the interval of what searches found: the mean of their intervals, as if all of them
    /// were off in the same direction; `None` for other metrics.
    fn interval_of_search(&self, metric: &Metric) -> Option<Interval> {
        let is_concurrency = metric == Metric::MAX_CONCURRENCY;
        if !is_concurrency && metric != Metric::CAPACITY {
            return None;
        }
        let found = self.loads.iter().filter_map(|stats| stats.capacity);
        let found: Vec<_> = found.filter(|of| of.is_concurrency == is_concurrency).collect();
        let mean = |of: fn(&CapacityFigure) -> f64| {
            Statistic::Mean.of(&found.iter().map(of).collect::<Vec<_>>()).ok()
        };
        Some(Interval { low: mean(|of| of.interval.low)?, high: mean(|of| of.interval.high)? })
    }

    /// Returns the cost of a million tokens at `throughput`.
    fn cost(&self, throughput: f64) -> Option<f64> {
        self.loads.first()?.machine.cost_of_million(throughput)
    }

    /// Returns the interval of the cost of a million tokens: that of `output_throughput`, each end of
    /// which has its cost.
    fn interval_of_cost(&self, confidence: f64) -> Result<Option<Interval>, Absent> {
        let throughput =
            self.estimate(Metric::OUTPUT_THROUGHPUT, Statistic::Mean, confidence)?.interval?;
        Ok(throughput.and_then(|of| {
            let high = self.cost(of.low).unwrap_or(f64::INFINITY);
            Some(Interval { low: self.cost(of.high)?, high })
        }))
    }

    /// Returns the interval of the success rate, in percent.
    fn interval_of_success_rate(&self, confidence: f64) -> Interval {
        let Interval { low, high } =
            interval::of_share(self.tally.valid, self.tally.finished(), confidence);
        Interval { low: low * 100.0, high: high * 100.0 }
    }

    /// Returns the logarithms of the ratios of paired figures, in the order of time, with their
    /// prompts: of the same run of the same prompt in this group and in `other`, or of the same run
    /// of a workload.
    pub fn log_ratios(
        &self,
        other: &Self,
        metric: &Metric,
        statistic: Statistic,
    ) -> (Vec<f64>, Vec<u32>) {
        if self.spec.workload.is_none() {
            let (ratios, strata) = self.pairs(other, metric);
            return (ratios.into_iter().map(f64::ln_1p).collect(), strata);
        }
        let of_runs = |group: &Self| -> BTreeMap<u32, f64> {
            match metric.read {
                MetricSource::Load(read) => {
                    (1..).zip(group.loads.iter().filter_map(read)).collect()
                }
                _ => group.by_run(metric, statistic).into_iter().collect(),
            }
        };
        let others = of_runs(other);
        let ratio = |(run, value): (u32, f64)| {
            let ratio = value / others.get(&run)?;
            (ratio > 0.0 && ratio.is_finite()).then(|| ratio.ln())
        };
        (of_runs(self).into_iter().filter_map(ratio).collect(), Vec::new())
    }

    /// Returns the relative difference of `metric` between paired answers: the same run of the same
    /// prompt in this group and in `other`, with the prompts as strata. It is meant for interleaved
    /// trials.
    pub fn pairs(&self, other: &Self, metric: &Metric) -> (Vec<f64>, Vec<u32>) {
        // Both groups share the prompts in memory, so the address identifies a prompt.
        let number =
            |prompt: &Arc<Prompt>| self.tally.numbers.get(&Arc::as_ptr(prompt).addr()).copied();
        let keyed = |group: &Self| -> Vec<((u32, u32), f64)> {
            let tally = &group.tally;
            let Ok(MetricValues { values, strata }) = group.valued(metric) else {
                return Vec::new();
            };
            let numbers: Vec<_> = tally.prompts.iter().map(number).collect();
            let runs = tally.of_those_with(metric, &tally.runs);
            let rows = strata.iter().zip(runs).zip(values.iter());
            rows.filter_map(|((stratum, run), value)| {
                Some(((numbers[*stratum as usize]?, run), *value))
            })
            .collect()
        };
        let others: BTreeMap<_, _> = keyed(other).into_iter().collect();
        let pairs = keyed(self).into_iter().filter_map(|(key, value)| {
            let base = others.get(&key).filter(|base| **base > 0.0)?;
            Some((value / base - 1.0, key.0))
        });
        pairs.unzip()
    }

    /// Returns how far `metric` drifted over the requests, in order of time.
    pub fn drift(&self, metric: &Metric) -> Result<Drift, Absent> {
        let values = self.valued(metric)?;
        let runs: Vec<_> = self.tally.of_those_with(metric, &self.tally.runs).collect();
        Drift::of(values.stratified(), &runs)
    }

    /// Returns the figures of the summary that too few answers have, for a reason other than that
    /// answers do not contain them: thresholds on them fail, and baselines do without them.
    pub fn absent_figures(&self) -> Vec<MissingFigures> {
        let shown = METRICS.iter().filter(|metric| metric.in_summary);
        let lacking = shown.map(|metric| self.lacking(metric));
        let share = self.spec.min_share;
        lacking
            .filter(|lacking| lacking.could() > 0 && lacking.has_reason() && !lacking.leaves(share))
            .collect()
    }

    /// Returns the throughput in each batch of the runs, for the figures that batches have. Their
    /// mean may differ from that of the runs, so they are scaled to it.
    fn batches(&self, metric: &Metric, of_run: fn(&LoadStats) -> Option<f64>) -> Vec<f64> {
        let read: fn(&Batch) -> f64 = match metric {
            _ if metric.is_one_of(&[
                Metric::OUTPUT_THROUGHPUT,
                Metric::OUTPUT_THROUGHPUT_PER_GPU,
                Metric::ITEM_THROUGHPUT,
            ]) =>
            {
                |batch| batch.output_throughput
            }
            _ if metric == Metric::REQUEST_THROUGHPUT => |batch| batch.request_throughput,
            _ if metric == Metric::GOODPUT => |batch| batch.goodput,
            _ if metric == Metric::GOODPUT_RATIO => |batch| batch.goodput_ratio,
            // The load that was offered, not a result of it.
            _ => return Vec::new(),
        };
        let runs = || self.loads.iter().filter(|stats| of_run(stats).is_some());
        let values: Vec<_> = runs().flat_map(|stats| &stats.batches).map(read).collect();
        let whole: Vec<_> = runs().filter_map(of_run).collect();
        let mean = |values: &[f64]| Statistic::Mean.of(values).unwrap_or_default();
        let scale = if mean(&values) > 0.0 { mean(&whole) / mean(&values) } else { 1.0 };
        values.into_iter().map(|value| value * scale).collect()
    }

    fn success_rate(&self) -> Result<f64, Absent> {
        match self.tally.finished() {
            0 => Err(Absent::NoValidTrial { failed: self.failed }),
            all => Ok(100.0 * self.tally.valid as f64 / all as f64),
        }
    }

    /// Returns the mean of `metric` for the ranking, more being better; below every mean if it is
    /// absent.
    fn rank_value(&self, metric: &Metric) -> f64 {
        match self.figure(metric, Statistic::Mean) {
            Ok(mean) if metric.better == Better::Lower => -mean,
            Ok(mean) => mean,
            Err(_) => f64::NEG_INFINITY,
        }
    }

    /// Returns whether it has valid answers and all of them were not streamed.
    fn is_unstreamed(&self) -> bool {
        let lacking = self.tally.lacking(Metric::GENERATION_SPEED);
        let unstreamed = lacking.reasons.get(&MissingReason::NotStreamed);
        lacking.all > 0 && unstreamed == Some(&lacking.all)
    }
}

/// Returns the figure by which groups that can be compared are ranked: `generation_speed` or, if none
/// of their answers were streamed, `items_per_second` of items and `e2e` of others.
pub fn ranking_metric(groups: &[&Group]) -> &'static Metric {
    let with_answers = || groups.iter().filter(|group| group.tally.valid > 0);
    let is_unstreamed =
        with_answers().count() > 0 && with_answers().all(|group| group.is_unstreamed());
    let has_items = || with_answers().all(|group| group.count(Metric::ITEMS_PER_SECOND) > 0);
    match is_unstreamed {
        false => Metric::GENERATION_SPEED,
        true if has_items() => Metric::ITEMS_PER_SECOND,
        true => Metric::E2E,
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
