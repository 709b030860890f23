//! The JSON report as types. Their fields are the keys of the report in its order, and their
//! documentation is the text of its schema, `fixtures/schema/run.v2.json`.

use std::{borrow::Cow, fmt, marker::PhantomData};
#[cfg(feature = "schema")]
use std::{collections::BTreeMap, num::NonZeroUsize};

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeSeq as _,
};

use crate::{
    calibrate::Calibration,
    report::{RunStatus, TrialList, TrialResult},
    setup::Setup,
};

/// Values by name, in the order in which they were added.
#[derive(Debug, Clone)]
pub(crate) struct ByName<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByName<T> {
    /// Returns the value with this name.
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl<K: Into<String>, T> FromIterator<(K, T)> for ByName<T> {
    fn from_iter<I: IntoIterator<Item = (K, T)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

impl<T: Serialize> Serialize for ByName<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ByName<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByNameVisitor(PhantomData))
    }
}

struct ByNameVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ByNameVisitor<T> {
    type Value = ByName<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(ByName(entries))
    }
}

/// The trials.
#[derive(Debug)]
pub(crate) enum TrialReports<'a> {
    /// Of a run in this process. Each becomes an entry only while it is written.
    Run(&'a TrialList),
    /// The loads of such a run.
    Loads(&'a TrialList),
    /// Of a stored run.
    Stored(Vec<TrialReport<'a>>),
}

impl Default for TrialReports<'_> {
    fn default() -> Self {
        Self::Stored(Vec::new())
    }
}

impl Serialize for TrialReports<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Run(trials) => serialize_trials(serializer, trials.iter()),
            Self::Loads(trials) => {
                let loads = trials.iter().filter(|trial| trial.case.task.workload().is_some());
                serialize_trials(serializer, loads)
            }
            Self::Stored(trials) => trials.serialize(serializer),
        }
    }
}

fn serialize_trials<'t, S: Serializer>(
    serializer: S,
    trials: impl Iterator<Item = Cow<'t, TrialResult>>,
) -> Result<S::Ok, S::Error> {
    let mut entries = serializer.serialize_seq(None)?;
    for result in trials {
        entries.serialize_element(&super::trial(&result))?;
    }
    entries.end()
}

impl<'de> Deserialize<'de> for TrialReports<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::Stored)
    }
}

/// Reads the low end of an interval; null is unbounded.
fn low_end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(|end| end.unwrap_or(f64::NEG_INFINITY))
}

/// Reads the high end of an interval; null is unbounded.
fn high_end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Option::deserialize(deserializer).map(|end| end.unwrap_or(f64::INFINITY))
}

/// Defines types of the report: serializable, and with a JSON schema if the feature is on. A field
/// that an older file lacks is empty.
macro_rules! report {
    ($($(#[$meta:meta])* struct $name:ident $(<$lifetime:lifetime>)? {
        $($(#[doc = $doc:literal])* $(#[serde($($serde:tt)*)])? $(#[schema($($schema:tt)*)])? $field:ident: $type:ty,)+
    })+) => {$(
        #[derive(Debug, Default, Serialize, Deserialize)]
        #[serde(default)]
        #[cfg_attr(feature = "schema", derive(JsonSchema))]
        $(#[$meta])*
        pub(crate) struct $name $(<$lifetime>)? {
            $(
                $(#[doc = $doc])*
                $(#[serde($($serde)*)])?
                $(#[cfg_attr(feature = "schema", schemars($($schema)*))])?
                pub(crate) $field: $type,
            )+
        }
    )+};
}

report! {
    /// What `--json FILE` writes, and `run.json` of a run's folder. Times are in seconds, speeds in tokens per second. An unknown
    /// value is null; no number is infinite or NaN. Version 2 may gain fields; a field that is
    /// renamed, removed or changes its meaning makes version 3.
    struct RunReport<'a> {
        #[schema(extend("const" = super::NAME))]
        schema: Cow<'static, str>,
        #[schema(extend("const" = super::VERSION))]
        version: u32,
        /// The program that wrote the report.
        tool: ToolReport,
        /// Version of the metrics' definitions and of the built-in prompts. Figures of different
        /// versions are not comparable.
        definitions: Cow<'static, str>,
        /// The machine that measured: processor, cores, system.
        machine: Cow<'a, str>,
        /// The circumstances of the run; null in files of version 1, and for runs of the library.
        setup: Option<Cow<'a, Setup>>,
        /// How the run ended.
        result: ResultReport<'a>,
        /// The confidence of each interval: 0.95, or more if undecided thresholds may be tested
        /// several times, so that all tests together have 0.95.
        #[schema(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
        confidence: f64,
        /// Every metric by its name.
        metrics: ByName<MetricReport>,
        /// Each model with its prompts one by one, and each model under each workload, in the
        /// config's order.
        groups: Vec<GroupReport<'a>>,
        /// The result of each threshold.
        thresholds: Vec<ThresholdReport<'a>>,
        /// The order of the trials, as in the config, with its seed.
        order: Cow<'a, str>,
        /// How precisely means are known, for each goal of the config.
        precision: Vec<PrecisionReport<'a>>,
        /// The errors of each transport in use, measured on this machine during this run; empty
        /// with `--no-calibration`.
        instruments: Vec<InstrumentReport>,
        /// The trials that finished, in the order in which they ran; a load is one trial. The last one
        /// of an interrupted run may have ended in part: its failure is `interrupted`.
        #[schema(with = "Vec<TrialReport<'a>>")]
        trials: TrialReports<'a>,
    }

    struct ToolReport {
        name: Cow<'static, str>,
        version: Cow<'static, str>,
    }

    struct ResultReport<'a> {
        /// An interrupted run has no threshold results.
        ended: RunStatus,
        /// The reasons, a line each, as on the terminal.
        reasons: Cow<'a, [String]>,
    }

    struct MetricReport {
        /// Its unit in this file.
        unit: Cow<'static, str>,
        #[schema(extend("enum" = ["higher", "lower", "neither"]))]
        better: Cow<'static, str>,
        definition: Cow<'static, str>,
    }

    struct GroupReport<'a> {
        /// The model's name, and its workload's after a comma; if another group has the same name,
        /// followed by `(model)` or `(workload)`. No two groups have the same name.
        name: String,
        /// The model's name in the results.
        model: Cow<'a, str>,
        /// The model's name in requests to the server.
        model_name: Cow<'a, str>,
        /// The URL, or `simulated`.
        endpoint: Cow<'a, str>,
        /// Whether the figures are those of a script.
        simulated: bool,
        protocol: Cow<'static, str>,
        #[schema(extend("enum" = ["stamped", "reqwest"]))]
        transport: Cow<'static, str>,
        #[schema(extend("enum" = ["warm", "cold"]))]
        connection: Cow<'static, str>,
        #[schema(extend("enum" = ["fresh", "reuse"]))]
        prefix_cache: Cow<'static, str>,
        /// The load; null for prompts one by one.
        workload: Option<WorkloadReport<'a>>,
        trials: TrialCounts,
        /// The requests. Those of a load count only if the load was the one asked for.
        requests: RequestCounts,
        /// By name; a metric without any value is left out.
        metrics: ByName<FigureReport>,
        /// The statistics of each run of the workload that was the load asked for.
        loads: Vec<LoadReport>,
        /// Searches for the highest load that holds its limits; the load that it found to hold is
        /// among `loads`.
        #[serde(default)]
        searches: Vec<SearchReport>,
        /// Why the other runs were not the load asked for.
        shortfalls: Cow<'a, [String]>,
        /// By metric; a metric with too few requests is left out.
        drift: DriftByMetric,
        /// How the simulated endpoint deviated from its script in the requests that have figures,
        /// by its own log; null if the endpoint is not simulated.
        simulator: Option<SimulatorReport>,
        /// The server's own figures of its speed. Its times in answers are the metrics whose names
        /// begin with `server_`.
        server: ServerReport,
        /// With `order: interleaved`: the difference of `generation_speed` from the fastest model by
        /// the geometric mean of the ratios of their pairs, run by run, as a fraction.
        paired: Option<PairedReport>,
    }

    struct TrialCounts {
        planned: usize,
        finished: usize,
        failed: usize,
        /// Those that an interrupt ended after some of their requests, which are in the figures. They
        /// are not among the finished ones.
        interrupted: usize,
    }

    struct RequestCounts {
        valid: usize,
        failed: usize,
        /// Failures by kind.
        #[schema(with = "BTreeMap<String, NonZeroUsize>")]
        failures: ByName<usize>,
    }

    struct WorkloadReport<'a> {
        name: Cow<'a, str>,
        /// The load in words.
        load: String,
        /// Requests in flight, of a closed loop.
        concurrency: Option<usize>,
        /// Arrivals per second, of an open loop.
        rate: Option<f64>,
        /// The limit of requests in flight, of an open loop.
        max_in_flight: Option<usize>,
        /// The load ends after this number of requests.
        requests: Option<usize>,
        /// The load ends after this number of seconds.
        duration: Option<f64>,
        /// What is not measured, such as the ramp and the warm-up; null if the whole load is measured.
        #[serde(default)]
        phases: Option<String>,
        /// The limits that each request must meet to count for `goodput`; null without limits.
        goodput: Option<String>,
        /// The prompts that it takes in turn.
        prompts: Cow<'a, [String]>,
        /// The share of the requests, of a part of a mix; null for a whole load.
        part: Option<f64>,
        /// Of a trace: `exact` if a tokenizer counts the generated prompts, `approximate` if a word
        /// stands for a token, `recorded` if the bodies are recorded; null without a trace.
        prompt_lengths: Option<Cow<'a, str>>,
    }

    /// Statistics; percentiles by linear interpolation, sd within prompts: deviations from the mean of
    /// the same prompt, with n - 1 for each prompt.
    struct FigureReport {
        /// Values: requests, or runs of the load. 0 if all of them lack the figure for a reason.
        n: usize,
        /// Valid requests, or runs, without the figure. The statistics are those of the others; if
        /// these are fewer than the config's `min_share`, thresholds fail.
        lacking: usize,
        /// Those without the figure, by reason: a note, `not_streamed`, `one_event`, `not_available`,
        /// or `one_token_asked`, which does not count as missing.
        #[schema(with = "BTreeMap<String, NonZeroUsize>")]
        lacking_because: ByName<usize>,
        mean: Option<f64>,
        median: Option<f64>,
        sd: Option<f64>,
        min: Option<f64>,
        max: Option<f64>,
        p5: Option<f64>,
        p25: Option<f64>,
        p75: Option<f64>,
        p90: Option<f64>,
        p95: Option<f64>,
        p99: Option<f64>,
        /// For each statistic that is null: the number of values that it requires.
        needs: ByName<usize>,
        intervals: IntervalsReport,
    }

    struct IntervalsReport {
        /// null if there are too few values, or if the figure describes the load that was offered.
        mean: Option<IntervalReport>,
        /// null as for the mean.
        median: Option<IntervalReport>,
    }

    /// The confidence interval of the true value, with the probability `confidence`.
    struct IntervalReport {
        /// null if the sample does not bound it.
        #[serde(deserialize_with = "low_end")]
        #[schema(with = "Option<f64>")]
        low: f64,
        /// null if the sample does not bound it.
        #[serde(deserialize_with = "high_end")]
        #[schema(with = "Option<f64>")]
        high: f64,
    }

    struct LoadReport {
        requests: usize,
        valid: usize,
        /// First request's start to last answer's end.
        seconds: f64,
        /// Requests in flight on average.
        concurrency: f64,
        /// Most requests in flight.
        peak: usize,
        /// Starts per second.
        request_rate: Option<f64>,
        /// Valid requests per second.
        request_throughput: f64,
        /// Tokens of the valid requests per second; null if the server's count of an answer is
        /// impossible.
        output_throughput: Option<f64>,
        /// Items of the valid requests per second; null for generated text.
        #[serde(default)]
        item_throughput: Option<f64>,
        /// Requests per second that met every limit of `goodput`; null without limits.
        goodput: Option<f64>,
        /// Those as a percentage of all requests.
        #[schema(range(min = 0, max = 100))]
        goodput_ratio: Option<f64>,
        /// The delay of request starts against the schedule, of an open loop.
        lateness_p99: Option<f64>,
        /// The fraction of the time in which the receiving thread was busy.
        receiver_busy: Option<f64>,
        /// The share of cached prompt tokens; null for a load that does not replay a trace.
        cache_share: Option<CacheShareReport>,
        /// The part of the load to which the other figures belong; null if that is all of it.
        #[serde(default)]
        measured: Option<MeasuredPartReport>,
        /// The server's metrics over the time of the load; null without `metrics_url`.
        #[serde(default)]
        server: Option<ServerOverTimeReport>,
        /// The energy of the GPUs; null without `power_url`.
        #[serde(default)]
        energy: Option<EnergyReport>,
    }

    /// The measured part of a load, without its ramp, its warm-up and its drain.
    struct MeasuredPartReport {
        /// The first start that counts, in seconds from the start of the load.
        from: f64,
        /// The last start that counts.
        to: f64,
        /// The requests of the whole load.
        requests_of_load: usize,
        /// The time of the whole load.
        seconds_of_load: f64,
        /// The means of the whole load, by metric.
        means_of_load: ByName<f64>,
    }

    /// A server's metrics, scraped each second while the load ran.
    struct ServerOverTimeReport {
        /// Scrapes that succeeded.
        scrapes: usize,
        /// Scrapes that failed.
        failed: usize,
        /// Why the first of them failed.
        failure: Option<String>,
        /// The mean duration of a scrape, in seconds.
        scrape_mean: Option<f64>,
        /// The longest duration of a scrape, in seconds.
        scrape_max: Option<f64>,
        /// By name: `running`, `waiting`, `kv_cache_use` and `accept_rate`; a gauge that the server does
        /// not export is left out.
        gauges: ByName<GaugeReport>,
        /// Requests that lost their place; null if the server does not count them.
        preemptions: Option<f64>,
        /// Prompt tokens that were in the prefix cache.
        cache_hits: Option<CountedShareReport>,
        /// Draft tokens of speculative decoding that the model accepted.
        acceptance: Option<CountedShareReport>,
        /// Whether a prompt is synthetic text: the acceptance is then not that of real text.
        synthetic_text: bool,
        /// The gauges over time, at most 300 scrapes; `results.server_series.csv` has all.
        course: ServerCourseReport,
    }

    /// Lists of the same length; null where the server does not export the gauge.
    struct ServerCourseReport {
        /// Seconds since the first request's start.
        at: Vec<f64>,
        running: Vec<Option<f64>>,
        waiting: Vec<Option<f64>>,
        kv_cache_use: Vec<Option<f64>>,
    }

    /// A gauge over the scrapes between the first request's start and the last answer's end.
    struct GaugeReport {
        n: usize,
        mean: f64,
        max: f64,
    }

    struct CountedShareReport {
        part: f64,
        all: f64,
        /// Their ratio.
        #[schema(range(min = 0, max = 1))]
        share: f64,
    }

    struct EnergyReport {
        /// The energy of all GPUs in joules; null if it is unknown.
        joules: Option<f64>,
        /// The most by which it may be wrong, in joules, because a reading is up to a second old.
        error: Option<f64>,
        /// GPUs that the exporter has.
        gpus: Option<usize>,
        /// Whether it is from a counter of energy, not from the power.
        counted: Option<bool>,
        /// Samples that it was computed from.
        samples: Option<usize>,
        /// Why it is unknown.
        missing: Option<String>,
    }

    /// Cached prompt tokens of the valid requests, as fractions of all of them.
    struct CacheShareReport {
        /// Tokens that an earlier request of the trace has in the same place; null for recorded bodies.
        intended: Option<f64>,
        /// Cached tokens of the server's usage; null if no usage has a count of them.
        achieved: Option<f64>,
        /// Valid requests whose usage has no count of cached tokens. If others have one, these count as 0.
        silent: usize,
    }

    struct SearchReport {
        /// The limits that hold.
        subject_to: Vec<String>,
        /// Whether loads are requests at a time; otherwise they are requests per second.
        of_concurrency: bool,
        /// The highest load that holds; null if none does, or if the search was not finished.
        found: Option<f64>,
        /// Its 95 % interval; an end is null where no load decided it.
        interval: Option<IntervalReport>,
        /// Whether the interval is as narrow as asked.
        precise: bool,
        /// The result in words, with what a reader must know.
        summary: String,
        /// The name of the load, as of a workload, whose figures are those of the group.
        #[serde(default)]
        shown: Option<String>,
        /// The loads that were measured, in ascending order.
        points: Vec<SearchPointReport>,
    }

    struct SearchPointReport {
        /// The load that was asked for.
        load: f64,
        /// The rate of the arrivals that were judged, of an open loop.
        arrival_rate: Option<f64>,
        /// The requests that were judged.
        requests: usize,
        /// The requests at the start that were left out.
        left_out: usize,
        /// Valid answers per second in the middle of an open loop.
        completed: Option<f64>,
        /// Whether the figures hold the limits.
        holds: bool,
        /// Why it misses, other than by a limit.
        overload: Option<String>,
        /// The figures, in the order of `subject_to`; null where failed requests put it beyond any
        /// limit.
        figures: Vec<Option<f64>>,
    }

    struct DriftByMetric {
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(with = "DriftReport")]
        generation_speed: Option<DriftReport>,
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(with = "DriftReport")]
        ttft: Option<DriftReport>,
    }

    /// The change of the mean over the requests, from the start to the end of a fitted line, as a
    /// fraction of the start.
    struct DriftReport {
        /// Null if the line does not start above zero.
        relative: Option<f64>,
        interval: IntervalReport,
        /// That of the slope, two-sided.
        p: Option<f64>,
        significant: bool,
    }

    struct SimulatorReport {
        first_token: Option<DeviationReport>,
        generation: Option<DeviationReport>,
    }

    /// In seconds; null if no answer has it.
    struct DeviationReport {
        /// The time by the script, on average.
        scripted: f64,
        /// The additional time that it took, on average.
        mean: f64,
        /// The additional time of the median answer.
        median: f64,
        /// The 99th percentile of the size; of fewer than 100 answers, the largest.
        p99: f64,
    }

    struct ServerReport {
        /// Requests with the note `server_disagrees`.
        disagrees: usize,
        /// Means by the server's Prometheus metrics and ours, by figure, in seconds, over the trials
        /// during which the server had no other requests.
        metrics: ByName<ServerMetricReport>,
    }

    struct ServerMetricReport {
        server: f64,
        ours: f64,
        #[schema(range(min = 1))]
        requests: usize,
    }

    struct PairedReport {
        /// The name of the fastest model's group.
        with: String,
        n: usize,
        generation_speed: f64,
        interval: Option<IntervalReport>,
    }

    struct ThresholdReport<'a> {
        /// The name of its group.
        group: Cow<'a, str>,
        /// The model's name in the results.
        model: Option<Cow<'a, str>>,
        /// The workload's name; null for prompts one by one.
        workload: Option<Cow<'a, str>>,
        /// The threshold in full, as it can be written in the config.
        threshold: String,
        metric: Cow<'static, str>,
        statistic: String,
        #[schema(extend("enum" = [">=", ">", "<=", "<"]))]
        comparison: Cow<'static, str>,
        /// In `unit`; of a relative threshold, a fraction of the counterpart: -0.03 is 3 % less.
        limit: f64,
        /// Whether it limits a change: against stored runs, their course, or another model of the run.
        relative: bool,
        unit: Cow<'static, str>,
        /// The figure of this run; null if it is absent, which fails.
        actual: Option<f64>,
        /// The number of values of the figure.
        n: Option<usize>,
        /// Valid requests, or runs, without the figure.
        lacking: usize,
        /// Those without the figure, by reason, as in the figures.
        #[schema(with = "BTreeMap<String, NonZeroUsize>")]
        lacking_because: ByName<usize>,
        /// Why the figure may be wrong. It then decides nothing.
        doubts: Vec<DoubtReport<'a>>,
        /// null if there are too few values, or if the figure describes these requests only.
        interval: Option<IntervalReport>,
        /// Of a relative threshold: the change against its counterpart; null if it is unknown.
        change: Option<ChangeReport>,
        /// Of a threshold `trend`: the course over the stored runs; null if it is unknown.
        trend: Option<TrendReport>,
        /// Of a percentile and of `success_rate`: the requests beyond the limit, which decide.
        beyond: Option<BeyondReport>,
        /// The number of independent requests, or pairs, that tell as much as these, which depend on
        /// their neighbours (serial correlation); the interval accounts for it.
        #[schema(range(min = 1))]
        effective_requests: Option<f64>,
        /// The largest error of the instrument, `arrival_uncertainty` and `simulator_lateness`
        /// included.
        instrument_error: Option<f64>,
        /// The part of `instrument_error` that is the mean lateness of a simulated endpoint against its
        /// script.
        #[schema(range(min = 0))]
        simulator_lateness: f64,
        /// The largest error that results from late reads of these requests by this program.
        #[schema(range(min = 0))]
        arrival_uncertainty: f64,
        #[schema(extend("enum" = ["pass", "fail", "inconclusive"]))]
        verdict: Cow<'static, str>,
        /// The figure in words, or why it is absent.
        told: String,
        /// Why it failed, or what would decide it, as on the terminal; null for a pass.
        reason: Option<String>,
        /// The smallest change that a pass would have found with a probability of 95 %, in words.
        would_have_caught: Option<String>,
        /// That change as a fraction of the figure; of a percentile and of `success_rate`, the fraction
        /// of requests beyond the limit.
        smallest_detectable: Option<f64>,
        /// The circumstances of the verdict: missing figures, serial correlation, the variation between
        /// runs, differences from the stored runs.
        remarks: Vec<String>,
        /// What would decide an inconclusive threshold.
        wanting: Option<String>,
        /// The approximate number of additional requests that would decide it, if requests can.
        more_requests: Option<usize>,
        /// The approximate number of additional runs of the load that would decide it, for a figure
        /// of its runs.
        more_runs: Option<usize>,
    }

    struct TrendReport {
        /// The change since the best level; 0 if no step and no trend is found.
        relative: f64,
        /// The probability of such an order of the runs by chance.
        p: f64,
        /// How many runs ago the best level was left.
        runs_ago: usize,
        /// The number of runs, this one included.
        runs: usize,
    }

    struct BeyondReport {
        /// The requests beyond the limit, failed ones included. Of `success_rate`: the failed requests,
        /// or the successful ones if the limit is an upper one.
        beyond: usize,
        failed: usize,
        /// All requests.
        requests: usize,
        /// The fraction that may be beyond it.
        #[schema(range(min = 0, max = 1))]
        allowed: f64,
    }

    struct DoubtReport<'a> {
        reason: Cow<'a, str>,
        /// The number of answers with this doubt.
        #[schema(range(min = 1))]
        answers: usize,
    }

    struct ChangeReport {
        before: f64,
        now: f64,
        /// now / before - 1.
        relative: f64,
        interval: IntervalReport,
        /// The probability of such a change by chance, two-sided.
        p: Option<f64>,
    }

    struct PrecisionReport<'a> {
        /// The name of its group.
        group: Cow<'a, str>,
        metric: Cow<'static, str>,
        /// The largest distance from the mean to an end of its interval, as a fraction of the mean.
        goal: f64,
        /// That distance in this run; null if the figure has no interval.
        #[schema(range(min = 0))]
        actual: Option<f64>,
        reached: bool,
        /// Why the goal is not reached.
        why: Option<String>,
    }

    struct InstrumentReport {
        transport: Cow<'static, str>,
        #[serde(flatten)]
        calibration: Calibration,
    }

    struct TrialReport<'a> {
        /// MODEL::PROMPT::run-N or MODEL::WORKLOAD::run-N.
        name: Cow<'a, str>,
        model: Cow<'a, str>,
        prompt: Option<Cow<'a, str>>,
        workload: Option<Cow<'a, str>>,
        #[schema(range(min = 1))]
        run: u32,
        /// By the wall clock.
        #[schema(extend("format" = "date-time"))]
        started: String,
        /// Its duration by the wall clock.
        #[schema(range(min = 0))]
        seconds: f64,
        /// null if it succeeded.
        failure: Option<FailureReport<'a>>,
        /// Its figures by metric; of a load, its statistics.
        figures: ByName<f64>,
        /// Remarks on the figures, as in the CSV.
        notes: Cow<'a, [String]>,
        /// How much earlier than noted the tokens may have arrived; null if there are none, and for
        /// a load.
        #[schema(range(min = 0))]
        arrival_uncertainty: Option<f64>,
        /// The turns of a conversation, in their order, up to one that failed; empty for other
        /// trials.
        turns: Vec<TurnReport<'a>>,
    }

    /// Why a trial failed.
    struct FailureReport<'a> {
        /// The kind of error of the request; `load` for a load.
        kind: Cow<'a, str>,
        /// The error.
        message: Cow<'a, str>,
    }

    struct TurnReport<'a> {
        #[schema(range(min = 1))]
        turn: usize,
        /// null if it succeeded.
        failure: Option<FailureReport<'a>>,
        /// Its figures by metric.
        figures: ByName<f64>,
        /// Remarks on the figures, as in the CSV.
        notes: Cow<'a, [String]>,
        /// How much earlier than noted the tokens may have arrived; null if there are none.
        #[schema(range(min = 0))]
        arrival_uncertainty: Option<f64>,
    }
}
