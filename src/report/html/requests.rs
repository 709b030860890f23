//! The requests of a run, gathered in one pass over the lines of `requests.jsonl`. Memory grows by a
//! few numbers per request; token arrivals are kept of a few requests only.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use llm_stream_core::{
    column::Storage,
    metric::Metric,
    other_tools::{Definitions, DefinitionsCollector, LoadPlace},
    request_line::{ParseLineError, RequestLine},
    sample::{Sample, TokenCount},
};

use super::{bins::TimeBins, histogram::TimeHistogram};
use crate::report::{
    finished::LOAD,
    json::model::{RunReport, TrialReport, TrialReports},
};

/// The metrics whose distribution the page draws, and the number of units that it shows in one of
/// the base unit.
pub(super) const DRAWN: [(&Metric, f64); 5] = [
    (Metric::TTFT, 1e3),
    (Metric::TPOT, 1e3),
    (Metric::GENERATION_SPEED, 1.0),
    (Metric::E2E, 1e3),
    (Metric::RESPONSE_TOKENS, 1.0),
];

/// The position in [`DRAWN`].
pub(super) const TTFT: usize = 0;
pub(super) const TPOT: usize = 1;
pub(super) const SPEED: usize = 2;
pub(super) const E2E: usize = 3;
pub(super) const TOKENS: usize = 4;

/// A request in its group.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestPoint {
    /// Its start in seconds since the group's first request, by the wall clock.
    pub(super) start: f64,
    /// The time to its first token in milliseconds, also of a load that is in no figure.
    pub(super) first_token: Option<f32>,
    /// In the first run of a load, its start in seconds since the load's start.
    pub(super) in_load: Option<f64>,
    /// Its values in the order of [`DRAWN`], in the units that the page shows; not a number where it
    /// has none.
    pub(super) values: [f32; DRAWN.len()],
    /// Whether it failed.
    pub(super) failed: bool,
}

/// A failed request.
#[derive(Debug, Clone)]
pub(super) struct FailedRequest {
    pub(super) kind: &'static str,
    pub(super) message: String,
    /// Its number among the requests of its group, from 1.
    pub(super) number: usize,
    pub(super) trial: String,
    pub(super) started: jiff::Timestamp,
}

/// The times of a request, in milliseconds since it was handed over.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    /// Before the request.
    pub(super) connect: Option<f64>,
    /// Part of `connect`.
    pub(super) tls: Option<f64>,
    pub(super) first_answer: Option<f64>,
    pub(super) has_reasoning: bool,
    pub(super) end: f64,
    pub(super) arrivals: Vec<f32>,
    pub(super) tokens: u64,
    pub(super) trial: String,
    /// Its number among the requests of its group, from 1.
    pub(super) number: usize,
}

impl Timeline {
    /// Returns when the first token arrived.
    pub(super) fn first(&self) -> f64 {
        self.arrivals.first().copied().map_or(f64::NAN, f64::from)
    }

    /// Returns when the last token arrived.
    pub(super) fn last(&self) -> f64 {
        self.arrivals.last().copied().map_or(f64::NAN, f64::from)
    }
}

/// The requests of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupRequests {
    pub(super) points: Vec<RequestPoint>,
    pub(super) gaps: TimeHistogram,
    /// The first failed requests; `failures` of `run.json` has the numbers of all.
    pub(super) failed: Vec<FailedRequest>,
    timelines: Sampled,
    /// Of the first run of a load.
    pub(super) over_time: TimeBins,
    first_run: Option<u32>,
    /// Whether the run that `over_time` shows was the load asked for.
    pub(super) drawn_run_counts: bool,
    origin: Option<jiff::Timestamp>,
}

/// The most failed requests that are kept of a group.
const KEPT_FAILURES: usize = 1000;

/// Every n-th request, so that at most 2 × `KEPT` are held.
#[derive(Debug, Clone)]
struct Sampled {
    every: usize,
    kept: Vec<Timeline>,
}

const KEPT: usize = 16;

impl Default for Sampled {
    fn default() -> Self {
        Self { every: 1, kept: Vec::new() }
    }
}

impl Sampled {
    fn is_due(&self, number: usize) -> bool {
        (number - 1).is_multiple_of(self.every)
    }

    fn push(&mut self, timeline: Timeline) {
        self.kept.push(timeline);
        if self.kept.len() > 2 * KEPT {
            let mut index = 0;
            self.kept.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
        }
    }
}

/// The requests of a run, by group in the order of `run.json`.
#[derive(Debug, Default)]
pub(super) struct RequestTable {
    pub(super) groups: Vec<GroupRequests>,
    /// When the first request started.
    pub(super) started: Option<jiff::Timestamp>,
    /// The figures by the definitions of other tools; `None` if the requests have too many tokens.
    pub(super) definitions: Option<Definitions>,
}

/// Figures by the definitions of other tools, up to a number of token events: each gap is kept.
#[derive(Debug)]
struct BoundedDefinitions {
    collector: Option<DefinitionsCollector>,
    events: usize,
}

/// The most token events: their gaps take a few megabytes.
const MOST_EVENTS: usize = 400_000;

impl Default for BoundedDefinitions {
    fn default() -> Self {
        Self { collector: Some(DefinitionsCollector::new(&Storage::default())), events: 0 }
    }
}

impl BoundedDefinitions {
    fn add(
        &mut self,
        report: &RunReport<'_>,
        group: usize,
        line: &RequestLine<'_>,
        sample: &Sample,
    ) {
        self.events += sample.token_events.len();
        if self.events > MOST_EVENTS {
            self.collector = None;
        }
        let Some(collector) = &mut self.collector else { return };
        let handed_over = line.place().handed_over.filter(|_| line.workload.is_some());
        let place = handed_over.map(|handed_over| LoadPlace { run: line.run, handed_over });
        collector.add(&report.groups[group].name, place, sample);
    }

    fn finish(self) -> Option<Definitions> {
        self.collector.map(DefinitionsCollector::finish)
    }
}

/// Reads the answer of a request; `None` for a failed one.
fn sample(line: &mut RequestLine<'_>) -> Result<Option<Sample>, ParseLineError> {
    // Only the source of the counts is lost, and no figure depends on it.
    line.token_count = line.token_count.take().map(|_| TokenCount::Usage.name().into());
    line.outcome(&TokenCount::Usage).map(Result::ok)
}

fn unusable(number: usize, error: &ParseLineError) -> io::Error {
    let what = format!("request {number} of the stored requests is unusable: {error}");
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl RequestTable {
    /// Gathers the requests of a run.
    pub(super) fn gather<'l>(
        report: &RunReport<'_>,
        lines: impl IntoIterator<Item = io::Result<RequestLine<'l>>>,
    ) -> io::Result<Self> {
        let key =
            |model: &str, workload: Option<&str>| (model.to_owned(), workload.map(str::to_owned));
        let groups = report.groups.iter().enumerate().map(|(index, group)| {
            let workload = group.workload.as_ref().map(|workload| &*workload.name);
            (key(&group.model, workload), index)
        });
        // The requests of a search are those of the load that stands for it.
        let searches = report.groups.iter().enumerate().flat_map(|(index, group)| {
            let shown = group.searches.iter().filter_map(|search| search.shown.as_deref());
            shown.map(move |shown| (key(&group.model, Some(shown)), index))
        });
        let positions: HashMap<_, _> = groups.chain(searches).collect();
        let not_counted = not_counted(report);
        let windows = windows(report, &not_counted);
        let mut table =
            Self { groups: vec![GroupRequests::default(); report.groups.len()], ..Self::default() };
        let mut definitions = BoundedDefinitions::default();
        for (line, number) in lines.into_iter().zip(1_usize..) {
            let mut line = line?;
            if table.started.is_none_or(|started| line.started < started) {
                table.started = Some(line.started);
            }
            let Some(&position) = positions.get(&key(&line.model, line.workload.as_deref())) else {
                continue;
            };
            let of_part = line.part.as_deref();
            let of_part = of_part.and_then(|part| positions.get(&key(&line.model, Some(part))));
            let counts = !not_counted.contains(&*line.trial);
            let of_part = of_part.copied();
            let sample = sample(&mut line).map_err(|error| unusable(number, &error))?;
            for position in of_part.into_iter().chain([position]) {
                let Some(group) = table.groups.get_mut(position) else { continue };
                let window = windows.get(&(position, line.run));
                let is_measured = is_measured(&line, window);
                if let Some(sample) = sample.as_ref().filter(|_| counts && is_measured) {
                    definitions.add(report, position, &line, sample);
                }
                group.add(&line, sample.clone(), (counts, is_measured));
            }
        }
        table.groups.iter_mut().for_each(GroupRequests::sort);
        table.definitions = definitions.finish();
        Ok(table)
    }
}

/// Returns the names of the loads that were not as asked for: their requests are in no figure.
fn not_counted<'r>(report: &'r RunReport<'_>) -> HashSet<&'r str> {
    let TrialReports::Stored(trials) = &report.trials else { return HashSet::new() };
    let is_not_counted = |trial: &&TrialReport<'_>| {
        trial.failure.as_ref().is_some_and(|failure| failure.kind == LOAD)
    };
    trials.iter().filter(is_not_counted).map(|trial| &*trial.name).collect()
}

/// Returns the measured part of each run of a load of which not all is measured, by the group's position
/// and the run: from when to when a request had to start, in seconds.
fn windows(
    report: &RunReport<'_>,
    not_counted: &HashSet<&str>,
) -> HashMap<(usize, u32), (f64, f64)> {
    let TrialReports::Stored(trials) = &report.trials else { return HashMap::new() };
    let mut windows = HashMap::new();
    for (group, position) in report.groups.iter().zip(0..) {
        let Some(workload) = &group.workload else { continue };
        // The parts of a mix belong to the trials of the whole load.
        let is_of = |trial: &&TrialReport<'_>| {
            let whole = trial.workload.as_deref().unwrap_or_default();
            let part = workload.name.strip_prefix(whole).filter(|_| !whole.is_empty());
            let is_part = part.is_some_and(|part| part.starts_with('@'));
            let is_same = part == Some("") || (workload.part.is_some() && is_part);
            trial.model == group.model && is_same && !not_counted.contains(&*trial.name)
        };
        let runs = trials.iter().filter(is_of).map(|trial| trial.run);
        for (run, load) in runs.zip(&group.loads) {
            if let Some(part) = &load.measured {
                windows.insert((position, run), (part.from, part.to));
            }
        }
    }
    windows
}

/// Returns whether a request counts for the figures of its load.
fn is_measured(line: &RequestLine<'_>, window: Option<&(f64, f64)>) -> bool {
    // The ends are starts of requests, in another unit.
    const ROUNDING: f64 = 1e-9;
    let begun = line.begun_us.map(|time| time.as_f64() / 1e6);
    window
        .zip(begun)
        .is_none_or(|((from, to), begun)| (from - ROUNDING..=to + ROUNDING).contains(&begun))
}

impl GroupRequests {
    /// Adds a request. It `counts` unless its load was not the one asked for, and is in the figures if it
    /// is also in the measured part.
    fn add(
        &mut self,
        line: &RequestLine<'_>,
        sample: Option<Sample>,
        (counts, is_measured): (bool, bool),
    ) {
        let origin = *self.origin.get_or_insert(line.started);
        let since = line.started.duration_since(origin).as_secs_f64();
        let run = *self.first_run.get_or_insert(line.run);
        self.drawn_run_counts |= counts && line.run == run;
        let position = line.scheduled_us.or(line.handed_over_us).map(|time| time.as_f64() / 1e6);
        let in_load =
            (line.workload.is_some() && line.run == run).then(|| position.unwrap_or(since));
        let number = line.request.unwrap_or(self.points.len() + 1);
        let figures = sample.as_ref().filter(|_| counts && is_measured);
        self.points.push(RequestPoint {
            failed: sample.is_none(),
            first_token: sample
                .as_ref()
                .and_then(|sample| Metric::TTFT.of(sample))
                .map(|time| (time * 1e3) as f32),
            ..point((since, in_load), figures)
        });
        let Some(sample) = sample else {
            self.add_failure(line, number);
            return;
        };
        if let Some(start) = in_load {
            self.add_to_load(start, &sample);
        }
        if !counts || !is_measured {
            return;
        }
        let arrivals = &sample.token_events;
        let gaps = arrivals.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
        gaps.for_each(|gap| self.gaps.add(gap.as_secs_f64() * 1e3));
        // An answer without a stream has nothing to draw between its ends.
        if sample.is_streamed && self.timelines.is_due(self.points.len()) {
            self.timelines.push(timeline(&sample, line, number));
        }
    }

    fn add_failure(&mut self, line: &RequestLine<'_>, number: usize) {
        let Some(kind) = line.error_kind else { return };
        if self.failed.len() < KEPT_FAILURES {
            self.failed.push(FailedRequest {
                kind: kind.name(),
                message: line.error_message.as_deref().unwrap_or_default().to_owned(),
                number,
                trial: line.trial.clone().into_owned(),
                started: line.started,
            });
        }
    }

    fn add_to_load(&mut self, start: f64, sample: &Sample) {
        let at = |time: &std::time::Duration| start + time.as_secs_f64();
        let arrivals = &sample.token_events;
        let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) else { return };
        self.over_time.add_stream(start, at(first), at(last));
        let each = sample.response_tokens as f64 / arrivals.len() as f64;
        arrivals.iter().for_each(|arrival| self.over_time.add_tokens(at(arrival), each));
    }

    /// Orders the requests by their start: a load finishes them in another order.
    fn sort(&mut self) {
        self.points.sort_by(|a, b| a.start.total_cmp(&b.start));
    }

    /// Returns the values of a metric in the order of starts, without requests that lack it.
    pub(super) fn values(&self, metric: usize) -> Vec<f64> {
        let all = self.points.iter().map(|point| f64::from(point.values[metric]));
        all.filter(|value| value.is_finite()).collect()
    }

    /// Returns the kept request whose duration is nearest to the median one.
    pub(super) fn typical(&self) -> Option<&Timeline> {
        let mut ends = self.values(E2E);
        ends.sort_by(f64::total_cmp);
        let median = *ends.get(ends.len() / 2)?;
        let distance = |timeline: &&Timeline| (timeline.last() - median).abs();
        self.timelines.kept.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }
}

fn point((start, in_load): (f64, Option<f64>), sample: Option<&Sample>) -> RequestPoint {
    let value = |(metric, scale): (&Metric, f64)| {
        sample.and_then(|sample| metric.of(sample)).map_or(f32::NAN, |value| (value * scale) as f32)
    };
    RequestPoint {
        start,
        in_load,
        first_token: None,
        values: DRAWN.map(value),
        failed: sample.is_none(),
    }
}

fn timeline(sample: &Sample, line: &RequestLine<'_>, number: usize) -> Timeline {
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    Timeline {
        connect: sample.connect.map(millis),
        tls: sample.tls.map(millis),
        first_answer: sample.first_answer.map(millis),
        has_reasoning: sample.first_reasoning.is_some(),
        end: millis(sample.end),
        arrivals: sample.token_events.iter().map(|time| millis(*time) as f32).collect(),
        tokens: sample.response_tokens,
        trial: line.trial.clone().into_owned(),
        number,
    }
}
