//! The statistics of many requests by the definitions of all tools, next to ours.

use std::{collections::BTreeMap, time::Duration};

use serde::{Serialize, Serializer};

use super::{
    FIGURES, OtherTool, PercentileMethod, Reason, ToolFigure,
    figures::Value,
    reasons::TimeReasons,
    times::{Nanos, RequestTimes, TokenRule, nanos, seconds},
};
use crate::{
    column::{Storage, ValueColumn},
    metric::{Metric, MetricSource},
    sample::{CountKind, Sample},
    statistic::{Statistic, rank},
};

/// Our metrics with figures of other tools, in the order of the tables.
const METRICS: [&Metric; 7] = [
    Metric::TTFT,
    Metric::TPOT,
    Metric::ITL,
    Metric::E2E,
    Metric::GENERATION_SPEED,
    Metric::OUTPUT_THROUGHPUT,
    Metric::REQUEST_THROUGHPUT,
];

/// The figures of all groups by all definitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Definitions {
    /// The groups, in the order of their first request.
    pub groups: Vec<GroupTables>,
}

/// The figures of one group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupTables {
    /// The name of the group, such as that of its model.
    pub name: String,
    /// The number of valid answers.
    pub requests: usize,
    /// A table for each metric. Throughput is only defined for a load.
    pub tables: Vec<FigureTable>,
}

/// A figure by all definitions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureTable {
    /// Our metric.
    #[serde(serialize_with = "metric_name")]
    pub metric: &'static Metric,
    /// Our values.
    pub ours: Statistics,
    /// The values of the tools.
    pub rows: Vec<ToolRow>,
    /// The tools without such a figure.
    pub without: Vec<OtherTool>,
}

/// The value of a figure by the definition of a tool.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolRow {
    /// The tool.
    pub tool: OtherTool,
    /// The name in the tool's output.
    pub name: &'static str,
    /// The formula in words.
    pub formula: &'static str,
    /// The values.
    pub theirs: Statistics,
    /// The relative difference of the mean from ours, or of the median if the tool reports no mean;
    /// `None` if one of the two is absent.
    pub difference: Option<f64>,
    /// The reasons for the difference.
    pub reasons: Vec<ReasonCount>,
}

/// A reason for a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// The reason.
    pub reason: Reason,
    /// The number of requests to which it applies, or of runs for a throughput; `None` if it is in the
    /// way of taking statistics.
    pub count: Option<usize>,
}

/// The statistics of a figure; `None` where one is not reported.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Statistics {
    /// The number of values.
    pub n: usize,
    /// The mean.
    pub mean: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
}

fn metric_name<S: Serializer>(metric: &&'static Metric, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(metric.name)
}

/// The place of a request in a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadPlace {
    /// The run of the load.
    pub run: u32,
    /// When the request was handed to an open connection, since the start of the run.
    pub handed_over: Duration,
}

/// Collects the requests of all groups.
#[derive(Debug)]
pub struct DefinitionsCollector {
    storage: Storage,
    groups: Vec<(String, GroupCollector)>,
}

impl DefinitionsCollector {
    /// Creates an empty collector that keeps long lists in `storage`.
    pub fn new(storage: &Storage) -> Self {
        Self { storage: storage.clone(), groups: Vec::new() }
    }

    /// Adds a valid answer to the group `name`. `place` is its place in a load, if it has one. The
    /// definitions differ in the times of tokens, so an answer that was not streamed is left out.
    pub fn add(&mut self, name: &str, place: Option<LoadPlace>, sample: &Sample) {
        if !sample.is_streamed {
            return;
        }
        let found = self.groups.iter().position(|(group, _)| group == name);
        let index = found.unwrap_or_else(|| {
            self.groups.push((name.to_owned(), GroupCollector::new(&self.storage)));
            self.groups.len() - 1
        });
        self.groups[index].1.add(place, sample);
    }

    /// Returns the figures of all groups.
    pub fn finish(self) -> Definitions {
        let tables = |(name, group): (String, GroupCollector)| GroupTables {
            name,
            requests: group.requests,
            tables: METRICS.iter().filter_map(|metric| group.table(metric)).collect(),
        };
        Definitions { groups: self.groups.into_iter().map(tables).collect() }
    }
}

/// Collects valid answers: the name of the group, the place in a load, and the sample.
impl<S: AsRef<str>> FromIterator<(S, Option<LoadPlace>, Sample)> for Definitions {
    fn from_iter<I: IntoIterator<Item = (S, Option<LoadPlace>, Sample)>>(requests: I) -> Self {
        let mut collector = DefinitionsCollector::new(&Storage::default());
        for (name, place, sample) in requests {
            collector.add(name.as_ref(), place, &sample);
        }
        collector.finish()
    }
}

/// The requests of one group.
#[derive(Debug)]
struct GroupCollector {
    requests: usize,
    /// Our values, by metric.
    ours: [ValueColumn<f64>; METRICS.len()],
    /// The values of the tools, by figure.
    figures: Vec<FigureValues>,
    gaps: GapPool,
    /// The runs of a load; `None` if a request is not one of a load.
    runs: Option<BTreeMap<u32, RunTotals>>,
}

#[derive(Debug)]
struct FigureValues {
    figure: &'static ToolFigure,
    values: ValueColumn<f64>,
    /// The weights, if they differ.
    weights: ValueColumn<f64>,
    reasons: BTreeMap<Reason, usize>,
}

impl GroupCollector {
    fn new(storage: &Storage) -> Self {
        let figures = FIGURES.iter().map(|figure| FigureValues {
            figure,
            values: ValueColumn::new(storage),
            weights: ValueColumn::new(storage),
            reasons: BTreeMap::new(),
        });
        Self {
            requests: 0,
            ours: METRICS.map(|_| ValueColumn::new(storage)),
            figures: figures.collect(),
            gaps: GapPool::new(storage),
            runs: Some(BTreeMap::new()),
        }
    }

    fn add(&mut self, place: Option<LoadPlace>, sample: &Sample) {
        self.requests += 1;
        for (metric, column) in METRICS.iter().zip(&mut self.ours) {
            column.extend(metric.of(sample));
        }
        self.gaps.add(sample);
        let times = OtherTool::ALL.map(|tool| RequestTimes::of(sample, tool.rules()));
        for values in &mut self.figures {
            values.add(sample, times[values.figure.tool as usize]);
        }
        self.runs = self.runs.take().zip(place).map(|(mut runs, place)| {
            runs.entry(place.run).or_default().add(place.handed_over, sample, &times);
            runs
        });
    }

    fn table(&self, metric: &'static Metric) -> Option<FigureTable> {
        let figures = self.figures.iter().filter(|values| values.figure.metric == metric);
        let is_of_load = matches!(metric.read, MetricSource::Load(_));
        let runs: Vec<_> = match (is_of_load, &self.runs) {
            (true, Some(runs)) => runs.values().collect(),
            (true, None) => return None,
            (false, _) => Vec::new(),
        };
        let ours = match is_of_load {
            true => RunTotals::statistics(&runs, |run| run.ours(metric)),
            false => self.ours(metric),
        };
        let rows: Vec<_> = figures
            .map(|values| match is_of_load {
                true => throughput_row(values.figure, &runs, ours),
                false => self.row(values, ours),
            })
            .collect();
        let has_none = |tool: &OtherTool| rows.iter().all(|row| row.tool != *tool);
        let without = OtherTool::ALL.into_iter().filter(has_none).collect();
        Some(FigureTable { metric, ours, rows, without })
    }

    fn ours(&self, metric: &Metric) -> Statistics {
        let index = METRICS.iter().position(|other| *other == metric).unwrap_or_default();
        let values = self.ours[index].load();
        let statistic = |statistic: Statistic| statistic.of(&values).ok();
        Statistics {
            n: values.len(),
            mean: statistic(Statistic::Mean),
            p50: statistic(Statistic::Median),
            p99: statistic(Statistic::Percentile(99.0)),
        }
    }

    fn row(&self, values: &FigureValues, ours: Statistics) -> ToolRow {
        let figure = values.figure;
        let theirs = match figure.value {
            Value::Gaps => self.gaps.statistics(figure),
            _ => values.statistics(),
        };
        let counted = values
            .reasons
            .iter()
            .map(|(reason, count)| ReasonCount { reason: *reason, count: Some(*count) });
        let structural = match figure.value {
            Value::Gaps => Some(Reason::PooledGaps),
            _ if values.has_different_weights() => Some(Reason::WeightedByTokens),
            _ => None,
        };
        let structural =
            structural.map(|reason| ReasonCount { reason, count: None }).filter(|_| theirs.n > 0);
        tool_row(figure, theirs, ours, counted.chain(structural).collect())
    }
}

fn tool_row(
    figure: &ToolFigure,
    theirs: Statistics,
    ours: Statistics,
    reasons: Vec<ReasonCount>,
) -> ToolRow {
    let pair = match figure.has_mean {
        true => theirs.mean.zip(ours.mean),
        false => theirs.p50.zip(ours.p50),
    };
    let relative = pair.filter(|(_, ours)| *ours != 0.0).map(|(theirs, ours)| theirs / ours - 1.0);
    ToolRow {
        tool: figure.tool,
        name: figure.name,
        formula: figure.formula,
        theirs,
        difference: relative,
        reasons,
    }
}

impl FigureValues {
    fn add(&mut self, sample: &Sample, times: RequestTimes) {
        let figure = self.figure;
        if let Some(value) = figure.value(sample, times) {
            self.values.push(value);
            if figure.is_weighted() {
                self.weights.push(figure.weight(sample));
            }
        }
        if matches!(figure.value, Value::OutputThroughput | Value::RequestThroughput) {
            return;
        }
        let at = TimeReasons::of(sample, figure.tool.rules(), times);
        for reason in figure.reasons_at(sample, times, &at) {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    fn has_different_weights(&self) -> bool {
        let weights = self.weights.load();
        weights.windows(2).any(|pair| pair[0] != pair[1])
    }

    fn statistics(&self) -> Statistics {
        let values = self.values.load();
        let weights = self.weights.load();
        match self.figure.is_weighted() {
            true => weighted(values.iter().copied().zip(weights.iter().copied()).collect()),
            false => unweighted(values.to_vec(), self.figure),
        }
    }
}

/// Returns the statistics of values with equal weights.
fn unweighted(mut values: Vec<f64>, figure: &ToolFigure) -> Statistics {
    let n = values.len();
    if n == 0 {
        return Statistics::default();
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    values.sort_unstable_by(f64::total_cmp);
    let percentile = |percent: f64| match figure.tool.percentiles() {
        PercentileMethod::Linear => rank(&values, percent),
        PercentileMethod::NearestRank => {
            let rank = (n as f64 * percent / 100.0).ceil() as usize;
            values[rank.saturating_sub(1)]
        }
        PercentileMethod::CumulativeWeight => {
            cumulative(values.iter().map(|value| (*value, 1.0)), n as f64, percent)
        }
    };
    Statistics {
        n,
        mean: figure.has_mean.then_some(mean),
        p50: Some(percentile(50.0)),
        p99: Some(percentile(99.0)),
    }
}

/// Returns the statistics of values with weights; values without weight do not count.
fn weighted(mut values: Vec<(f64, f64)>) -> Statistics {
    values.retain(|(_, weight)| *weight > 0.0);
    if values.is_empty() {
        return Statistics::default();
    }
    values.sort_unstable_by(|(first, _), (second, _)| first.total_cmp(second));
    let total: f64 = values.iter().map(|(_, weight)| weight).sum();
    let mean = values.iter().map(|(value, weight)| value * (weight / total)).sum();
    let percentile = |percent| Some(cumulative(values.iter().copied(), total, percent));
    Statistics { n: values.len(), mean: Some(mean), p50: percentile(50.0), p99: percentile(99.0) }
}

/// Returns the smallest of the sorted values whose cumulative weight reaches `percent` of `total`.
fn cumulative(
    sorted: impl DoubleEndedIterator<Item = (f64, f64)> + Clone,
    total: f64,
    percent: f64,
) -> f64 {
    let mut reached = 0.0;
    let found = sorted.clone().find(|(_, weight)| {
        reached += weight / total;
        reached >= percent / 100.0
    });
    // The sum of all weights can be a rounding error below one.
    found.or_else(|| sorted.last()).map_or(f64::NAN, |(value, _)| value)
}

/// The gaps of all requests by each token rule. A gap that all rules have is kept once, which is
/// nearly every gap.
#[derive(Debug)]
struct GapPool {
    common: ValueColumn<f64>,
    /// The other gaps, in the order of [`TokenRule::ALL`].
    own: [ValueColumn<f64>; TokenRule::ALL.len()],
}

impl GapPool {
    fn new(storage: &Storage) -> Self {
        Self {
            common: ValueColumn::new(storage),
            own: TokenRule::ALL.map(|_| ValueColumn::new(storage)),
        }
    }

    fn add(&mut self, sample: &Sample) {
        let mut last: [Option<Duration>; TokenRule::ALL.len()] = [None; TokenRule::ALL.len()];
        for (at, contents) in sample.events() {
            let counts = TokenRule::ALL.map(|rule| rule.counts(contents));
            let gap = |since: Duration| at.saturating_sub(since).as_secs_f64();
            match last[0] {
                Some(since) if counts == [true; 3] && last == [Some(since); 3] => {
                    self.common.push(gap(since));
                }
                _ => {
                    for ((own, since), counts) in self.own.iter_mut().zip(last).zip(counts) {
                        own.extend(since.filter(|_| counts).map(gap));
                    }
                }
            }
            for (last, counts) in last.iter_mut().zip(counts) {
                *last = if counts { Some(at) } else { *last };
            }
        }
    }

    fn statistics(&self, figure: &ToolFigure) -> Statistics {
        let rule = figure.tool.rules().tokens;
        let index = TokenRule::ALL.iter().position(|other| *other == rule).unwrap_or_default();
        let mut gaps = self.common.load().to_vec();
        gaps.extend_from_slice(&self.own[index].load());
        unweighted(gaps, figure)
    }
}

/// The sums of a run of a load. All times count from its start.
#[derive(Debug, Default)]
struct RunTotals {
    requests: usize,
    tokens: u64,
    /// Whether a count is refused, so that our throughput is absent.
    is_refused: bool,
    ours: RunTimes,
    tools: [RunTimes; OtherTool::ALL.len()],
    /// The last start, which can be after the last end.
    last_start: Nanos,
}

/// The first start and the last end of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RunTimes(Option<(Nanos, Nanos)>);

impl RunTimes {
    fn add(&mut self, start: Nanos, end: Nanos) {
        let (first, last) = self.0.unwrap_or((start, end));
        self.0 = Some((first.min(start), last.max(end)));
    }

    /// Returns `count` per second.
    fn rate(self, count: f64) -> Option<f64> {
        let (start, end) = self.0?;
        (end > start).then(|| count / seconds(start, end))
    }
}

impl RunTotals {
    fn add(
        &mut self,
        handed_over: Duration,
        sample: &Sample,
        times: &[RequestTimes; OtherTool::ALL.len()],
    ) {
        self.requests += 1;
        self.tokens += sample.response_tokens;
        self.is_refused |= sample.refused(CountKind::Response).is_some();
        let handed_over = nanos(handed_over);
        // The sample's times count from the scheduled start.
        let zero = handed_over - nanos(sample.lag.unwrap_or_default());
        self.ours.add(handed_over, zero + nanos(sample.end));
        self.last_start = self.last_start.max(handed_over);
        for (run, times) in self.tools.iter_mut().zip(times) {
            run.add(zero + times.start, zero + times.run_end);
        }
    }

    /// Returns our throughput, as in the statistics of a load.
    fn ours(&self, metric: &Metric) -> Option<f64> {
        let mut times = self.ours;
        times.add(self.last_start, self.last_start);
        match metric == Metric::OUTPUT_THROUGHPUT {
            true if self.is_refused => None,
            true => times.rate(self.tokens as f64),
            false => times.rate(self.requests as f64),
        }
    }

    fn theirs(&self, figure: &ToolFigure) -> Option<f64> {
        let times = self.tools[figure.tool as usize];
        match figure.value {
            Value::OutputThroughput => times.rate(self.tokens as f64),
            _ => times.rate(self.requests as f64),
        }
    }

    /// Returns the mean over the runs. A run has one value, so there are no percentiles.
    fn statistics(runs: &[&Self], of: impl Fn(&Self) -> Option<f64>) -> Statistics {
        let values: Vec<_> = runs.iter().filter_map(|run| of(run)).collect();
        let mean = Statistic::Mean.of(&values).ok();
        Statistics { n: values.len(), mean, p50: None, p99: None }
    }

    /// Returns why the throughput of the run differs from ours.
    fn reasons(&self, figure: &ToolFigure) -> Vec<Reason> {
        let metric = figure.metric;
        match (self.theirs(figure).is_some(), self.ours(metric).is_some()) {
            (true, false) => return vec![Reason::NotRefused],
            (false, _) => return Vec::new(),
            (true, true) => {}
        }
        let Some(((start, end), (our_start, our_end))) =
            self.tools[figure.tool as usize].0.zip(self.ours.0)
        else {
            return Vec::new();
        };
        let end_reason = figure.tool.rules().run_end.reason();
        let connect = (start != our_start).then_some(Reason::IncludesConnect);
        let ended = (end != our_end.max(self.last_start)).then_some(end_reason);
        connect.into_iter().chain(ended).collect()
    }
}

fn throughput_row(figure: &ToolFigure, runs: &[&RunTotals], ours: Statistics) -> ToolRow {
    let theirs = RunTotals::statistics(runs, |run| run.theirs(figure));
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    for reason in runs.iter().flat_map(|run| run.reasons(figure)) {
        *counts.entry(reason).or_default() += 1;
    }
    let reasons =
        counts.into_iter().map(|(reason, count)| ReasonCount { reason, count: Some(count) });
    tool_row(figure, theirs, ours, reasons.collect())
}
