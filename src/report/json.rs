//! The whole run as JSON, for programs. The types in `model` define the report, and the schema
//! `fixtures/schema/run.v2.json` is generated from them.
//!
//! Times are in seconds, as in every file. An unknown value is `null`, and so is a number that is not
//! finite, such as the end of an unbounded interval.

pub(crate) mod model;
#[cfg(feature = "schema")]
mod schema;

use std::{
    borrow::Cow,
    io::{self, BufWriter, Write},
};

use llm_stream_core::{
    capacity::{FinishedSearch, SearchFinding, SearchPoint},
    comparison::Change,
    drift::Drift,
    energy::{Energy, NoEnergy},
    goodput::RequestLimits,
    group::WorkloadSpec,
    interval::Interval,
    lacking::{MissingFigures, MissingReason},
    load_stats::LoadStats,
    metric::{Better, DEFINITIONS, METRICS, Metric, SUCCESS_RATE, Unit},
    punctuality::Deviation,
    schedule::Shape,
    server_series::{CountedShare, GaugeOverTime, ServerOverTime},
    statistic::{Absent, Statistic},
    summary::{Group, Tally},
    text::visible_json,
    verdict::{BeyondLimit, Course, Needed, Outcome, Verdict},
};

use self::model::{
    BeyondReport, ByName, CacheShareReport, ChangeReport, CountedShareReport, DeviationReport,
    DoubtReport, DriftByMetric, DriftReport, EnergyReport, FailureReport, FigureReport,
    GaugeReport, GroupReport, InstrumentReport, IntervalReport, IntervalsReport, LoadReport,
    MeasuredPartReport, MetricReport, PairedReport, PrecisionReport, RequestCounts, ResultReport,
    RunReport, SearchPointReport, SearchReport, ServerCourseReport, ServerMetricReport,
    ServerOverTimeReport, ServerReport, SimulatorReport, ThresholdReport, ToolReport, TrendReport,
    TrialCounts, TrialReport, TrialReports, TurnReport, WorkloadReport,
};
#[cfg(feature = "schema")]
pub use self::schema::schema;
use super::{
    Exporter, GroupPrecision, GroupVerdicts, Instrument, Run, TrialResult,
    finished::{Failure, TurnResult},
    precision::why_missed,
    ranking::PairedDifference,
    search, thresholds,
};

/// Name of the schema.
pub(crate) const NAME: &str = "llm-stream-bench/run";

/// Version of the schema.
const VERSION: u32 = 2;

/// Exports the whole run as JSON.
#[derive(Debug, Clone, Copy)]
pub struct JsonReport;

impl Exporter for JsonReport {
    fn render(&self, run: &Run) -> String {
        let mut bytes = Vec::new();
        let written = self.write(run, &mut bytes);
        written.unwrap_or_else(|error| unreachable!("all keys are strings: {error}"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn write(&self, run: &Run, out: &mut dyn Write) -> io::Result<()> {
        let mut out = VisibleJson(BufWriter::new(out));
        serde_json::to_writer_pretty(&mut out, &report(run))?;
        out.write_all(b"\n")?;
        out.flush()
    }
}

/// Returns the report of a run as a stored one, of which it has only the loads among the trials: a
/// long run has more trials than fit into memory.
pub(crate) fn without_requests(run: &Run) -> io::Result<RunReport<'static>> {
    let report = RunReport { trials: TrialReports::Loads(&run.trials), ..report(run) };
    Ok(serde_json::from_slice(&serde_json::to_vec(&report)?)?)
}

/// Reads a report that [`JsonReport`] wrote, of this version or of version 1.
pub(crate) fn read(report: impl io::Read) -> Result<RunReport<'static>, ReadError> {
    let report: RunReport<'static> =
        serde_json::from_reader(report).map_err(|error| ReadError::Json(error.to_string()))?;
    match (&*report.schema, report.version) {
        (NAME, 1..=VERSION) => Ok(RunReport { version: VERSION, ..report }),
        (NAME, version) => Err(ReadError::Version(version)),
        ("", _) => Err(ReadError::Json("it has no `schema`".to_owned())),
        (other, _) => Err(ReadError::Schema(other.to_owned())),
    }
}

/// Formats stored results: those of one run, or a list of several.
pub(crate) fn format(reports: &[&RunReport<'_>]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut out = VisibleJson(&mut bytes);
    match reports {
        [only] => serde_json::to_writer_pretty(&mut out, only)?,
        several => serde_json::to_writer_pretty(&mut out, several)?,
    }
    bytes.push(b'\n');
    Ok(bytes)
}

/// Why a file is not the report of a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is not JSON, or has other keys.
    #[error("it is not the results of a run: {0}")]
    Json(String),
    /// It is another kind of file.
    #[error("it is `{0}`, not `{NAME}`")]
    Schema(String),
    /// A later version of this program wrote it.
    #[error("it has version {0} of its format; this program reads up to version {VERSION}")]
    Version(u32),
}

/// Escapes characters that change what a terminal or an editor shows. serde_json writes each part
/// of a text at once, so that no character is cut.
struct VisibleJson<W>(W);

impl<W: Write> Write for VisibleJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(visible_json(text).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn report(run: &Run) -> RunReport<'_> {
    RunReport {
        schema: NAME.into(),
        version: VERSION,
        tool: ToolReport {
            name: "llm-stream-bench".into(),
            version: env!("CARGO_PKG_VERSION").into(),
        },
        definitions: DEFINITIONS.into(),
        machine: (&run.machine).into(),
        setup: run.setup.as_deref().map(Cow::Borrowed),
        result: ResultReport { ended: run.ending.ended, reasons: (&run.ending.reasons).into() },
        confidence: run.confidence,
        metrics: METRICS.iter().chain([&SUCCESS_RATE]).map(definition).collect(),
        groups: run.summary.groups.iter().map(|of| group(of, run)).collect(),
        thresholds: run.verdicts.iter().flat_map(|of| threshold_reports(of, run)).collect(),
        order: (&run.order).into(),
        precision: run.precision.iter().flat_map(|of| precision(of, run)).collect(),
        instruments: run.instruments.iter().map(instrument).collect(),
        trials: TrialReports::Run(&run.trials),
    }
}

/// Returns the unit in files.
const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        _ => unit.display().0,
    }
}

fn definition(metric: &Metric) -> (&'static str, MetricReport) {
    let better = match metric.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
        Better::Neither => "neither",
    };
    let Metric { name, definition, .. } = metric;
    (
        name,
        MetricReport {
            unit: unit(metric.unit).into(),
            better: better.into(),
            definition: (*definition).into(),
        },
    )
}

fn group<'a>(group: &'a Group, run: &Run) -> GroupReport<'a> {
    let spec = &group.spec;
    let figures = METRICS.iter().filter_map(|metric| {
        let figure = figure(group, metric, run.confidence)?;
        Some((metric.name, figure))
    });
    GroupReport {
        name: group.name(),
        model: (&spec.model).into(),
        model_name: (&spec.served_model).into(),
        endpoint: (&spec.endpoint).into(),
        simulated: spec.is_simulated,
        protocol: spec.protocol.into(),
        transport: spec.transport.into(),
        connection: spec.connection.into(),
        prefix_cache: spec.prefix_cache.into(),
        workload: spec.workload.as_ref().map(|of| workload(of, &spec.goodput)),
        trials: TrialCounts {
            planned: group.planned,
            finished: group.finished,
            failed: group.failed,
            interrupted: group.interrupted,
        },
        requests: requests(&group.tally),
        metrics: figures.collect(),
        loads: group.loads.iter().map(load).collect(),
        searches: group.searches.iter().map(search_report).collect(),
        shortfalls: (&group.shortfalls).into(),
        drift: DriftByMetric {
            generation_speed: drift(group, Metric::GENERATION_SPEED),
            ttft: drift(group, Metric::TTFT),
        },
        simulator: simulator(group),
        server: server(group),
        paired: paired(group, run),
    }
}

fn requests(tally: &Tally) -> RequestCounts {
    let failures = tally.failures.iter().map(|(kind, count)| (kind.name(), *count));
    RequestCounts { valid: tally.valid, failed: tally.failed(), failures: failures.collect() }
}

fn server(group: &Group) -> ServerReport {
    let metric = |metric: &'static Metric| {
        let (server, ours, requests) = group.by_metrics(metric)?;
        Some((metric.name, ServerMetricReport { server, ours, requests }))
    };
    let metrics = [Metric::TTFT, Metric::TPOT, Metric::E2E].into_iter().filter_map(metric);
    ServerReport { disagrees: group.tally.server_disagrees, metrics: metrics.collect() }
}

fn drift(group: &Group, metric: &Metric) -> Option<DriftReport> {
    let change: Drift = group.drift(metric).ok()?;
    Some(DriftReport {
        relative: Some(change.relative).filter(|relative| relative.is_finite()),
        interval: interval(change.interval),
        p: Some(change.p),
        significant: change.is_significant(),
    })
}

fn simulator(group: &Group) -> Option<SimulatorReport> {
    let deviation =
        |Deviation { median, mean, p99, scripted }| DeviationReport { scripted, mean, median, p99 };
    let first_token = group.punctuality.first()?;
    Some(SimulatorReport {
        first_token: Some(deviation(first_token)),
        generation: group.punctuality.generation().map(deviation),
    })
}

/// Returns the difference from the speed of the fastest model, if the models took turns.
fn paired(group: &Group, run: &Run) -> Option<PairedReport> {
    if !run.took_turns || group.spec.workload.is_some() {
        return None;
    }
    let first = *run.summary.comparable().first()?.first()?;
    if first.spec.id == group.spec.id {
        return None;
    }
    let PairedDifference { relative, interval: within, n } =
        PairedDifference::of(group, first).ok()?;
    let interval = within.map(interval);
    Some(PairedReport { with: first.name(), n, generation_speed: relative, interval })
}

fn workload<'a>(workload: &'a WorkloadSpec, goodput: &RequestLimits) -> WorkloadReport<'a> {
    let WorkloadSpec { name, shape, until, phases, prompts, search, trace, part } = workload;
    let (concurrency, max_in_flight) = match shape {
        Shape::Closed { .. } if search.is_some() => (None, None),
        Shape::Closed { concurrency } => (Some(*concurrency), None),
        Shape::Open { max_in_flight, .. } => (None, Some(*max_in_flight)),
    };
    WorkloadReport {
        name: name.into(),
        load: workload.load(),
        concurrency,
        rate: shape.asked_rate().filter(|_| search.is_none()),
        max_in_flight,
        requests: until.requests,
        duration: until.duration.map(|duration| duration.as_secs_f64()),
        phases: (!phases.is_whole()).then(|| phases.to_string()),
        goodput: (!goodput.is_empty()).then(|| goodput.to_string()),
        prompts: prompts.into(),
        part: *part,
        prompt_lengths: trace.map(|lengths| lengths.name().into()),
    }
}

fn search_report(search: &FinishedSearch) -> SearchReport {
    let FinishedSearch { objective, result, points, is_complete, shown } = search;
    let (found, within) = match result.found {
        _ if !is_complete => (None, None),
        SearchFinding::Load { value, interval } => (Some(value), Some(interval)),
        SearchFinding::AtLeast(low) => (Some(low), Some(Interval { low, high: f64::INFINITY })),
        SearchFinding::Below(_) => (None, None),
    };
    SearchReport {
        subject_to: objective.limits.iter().map(ToString::to_string).collect(),
        of_concurrency: objective.is_concurrency,
        found,
        interval: within.map(interval),
        precise: result.is_precise && *is_complete,
        summary: search::result(search),
        shown: shown.clone(),
        points: points.iter().map(search_point).collect(),
    }
}

fn search_point(point: &SearchPoint) -> SearchPointReport {
    SearchPointReport {
        load: point.load,
        arrival_rate: point.arrival_rate,
        requests: point.requests,
        left_out: point.left_out,
        completed: point.completed,
        holds: point.looks_held(),
        overload: point.overload.as_ref().map(search::overload),
        figures: point.limits.iter().map(|of| of.figure.filter(|it| it.is_finite())).collect(),
    }
}

/// Returns the statistics of a metric; `None` if it has no value and the server does not send the
/// data that it is computed from.
fn figure(group: &Group, metric: &Metric, confidence: f64) -> Option<FigureReport> {
    // Of a load, a value is that of a run.
    let n = group.count(metric);
    let lacking = group.lacking(metric);
    if n == 0 && !lacking.has_reason() {
        return None;
    }
    let mut needs = Vec::new();
    let mut of = |statistic: Statistic| match group.statistic(metric, statistic) {
        Ok(value) => Some(value),
        Err(Absent::TooFew { needs: least, .. }) => {
            needs.push((statistic.to_string(), least));
            None
        }
        Err(_) => None,
    };
    Some(FigureReport {
        n,
        lacking: lacking.lack(),
        lacking_because: reasons(&lacking),
        mean: of(Statistic::Mean),
        median: of(Statistic::Median),
        sd: of(Statistic::Sd),
        min: of(Statistic::Min),
        max: of(Statistic::Max),
        p5: of(Statistic::Percentile(5.0)),
        p25: of(Statistic::Percentile(25.0)),
        p75: of(Statistic::Percentile(75.0)),
        p90: of(Statistic::Percentile(90.0)),
        p95: of(Statistic::Percentile(95.0)),
        p99: of(Statistic::Percentile(99.0)),
        needs: needs.into_iter().collect(),
        intervals: intervals(group, metric, confidence),
    })
}

fn intervals(group: &Group, metric: &Metric, confidence: f64) -> IntervalsReport {
    let of = |statistic| {
        let estimate = group.estimate(metric, statistic, confidence).ok()?;
        estimate.interval.ok()?.map(interval)
    };
    IntervalsReport { mean: of(Statistic::Mean), median: of(Statistic::Median) }
}

/// Returns the number of values without a figure, by reason.
fn reasons(lacking: &MissingFigures) -> ByName<usize> {
    lacking
        .reasons
        .iter()
        .map(|(lack, count): (&MissingReason, &usize)| (lack.name(), *count))
        .collect()
}

const fn interval(Interval { low, high }: Interval) -> IntervalReport {
    IntervalReport { low, high }
}

fn load(stats: &LoadStats) -> LoadReport {
    LoadReport {
        requests: stats.requests,
        valid: stats.valid,
        seconds: stats.seconds,
        concurrency: stats.concurrency,
        peak: stats.peak,
        request_rate: stats.request_rate,
        request_throughput: stats.request_throughput,
        output_throughput: stats.output_throughput,
        item_throughput: stats.item_throughput,
        goodput: stats.goodput,
        goodput_ratio: stats.goodput_ratio,
        lateness_p99: stats.lateness,
        receiver_busy: stats.busy,
        cache_share: stats.cache.map(|cache| CacheShareReport {
            intended: cache.intended,
            achieved: cache.achieved,
            silent: cache.silent,
        }),
        measured: stats.part.as_ref().map(|part| MeasuredPartReport {
            from: part.window.from.as_secs_f64(),
            to: part.window.to.as_secs_f64(),
            requests_of_load: part.requests,
            seconds_of_load: part.seconds,
            means_of_load: part.means.iter().map(|(metric, mean)| (metric.name, *mean)).collect(),
        }),
        server: stats.server.as_ref().map(server_over_time),
        energy: stats.energy.as_ref().map(energy),
    }
}

fn server_over_time(over: &ServerOverTime) -> ServerOverTimeReport {
    let gauge = |GaugeOverTime { name, mean, max, n }: &GaugeOverTime| {
        (*name, GaugeReport { n: *n, mean: *mean, max: *max })
    };
    let share =
        |of: CountedShare| CountedShareReport { part: of.part, all: of.all, share: of.share() };
    let course = |name| over.course.iter().map(|(_, state)| state.value(name)).collect();
    ServerOverTimeReport {
        scrapes: over.scrapes,
        failed: over.failed,
        failure: over.first_failure.clone(),
        scrape_mean: over.scrape_mean,
        scrape_max: over.scrape_max,
        gauges: over.gauges.iter().map(gauge).collect(),
        preemptions: over.preemptions,
        cache_hits: over.cache_hits.map(share),
        acceptance: over.acceptance.map(share),
        synthetic_text: over.is_synthetic,
        course: ServerCourseReport {
            at: over.course.iter().map(|(at, _)| *at).collect(),
            running: course("running"),
            waiting: course("waiting"),
            kv_cache_use: course("kv_cache_use"),
        },
    }
}

fn energy(energy: &Result<Energy, NoEnergy>) -> EnergyReport {
    let known = energy.as_ref().ok();
    EnergyReport {
        joules: known.map(|energy| energy.joules),
        error: known.map(|energy| energy.error),
        gpus: known.map(|energy| energy.gpus),
        counted: known.map(|energy| energy.is_counted),
        samples: known.map(|energy| energy.samples),
        missing: energy.as_ref().err().map(ToString::to_string),
    }
}

fn threshold_reports<'a>(
    of: &'a GroupVerdicts,
    run: &'a Run,
) -> impl Iterator<Item = ThresholdReport<'a>> {
    let group = run.summary.get(of.group);
    of.verdicts.iter().map(move |verdict| threshold(of, group, verdict))
}

fn threshold<'a>(
    GroupVerdicts { name, notes, .. }: &'a GroupVerdicts,
    group: Option<&'a Group>,
    verdict: &'a Verdict,
) -> ThresholdReport<'a> {
    let limit = &verdict.threshold;
    let actual = verdict.actual.as_ref().ok();
    let (more_requests, more_runs) = match verdict.needed() {
        Some(Needed::Requests(more)) => (Some(more), None),
        Some(Needed::Runs(more)) => (None, Some(more)),
        _ => (None, None),
    };
    let bounds = actual.and_then(|actual| actual.interval.ok().flatten());
    ThresholdReport {
        group: name.into(),
        model: group.map(|group| group.spec.model.as_str().into()),
        workload: group.and_then(|group| group.spec.workload_name()).map(Into::into),
        threshold: limit.to_string(),
        metric: limit.metric.name.into(),
        statistic: limit.statistic.to_string(),
        comparison: limit.comparison.symbol().into(),
        limit: limit.limit,
        relative: limit.is_relative(),
        unit: unit(limit.metric.unit).into(),
        actual: actual.map(|actual| actual.value),
        n: actual.map(|actual| actual.n),
        lacking: verdict.lacking.lack(),
        lacking_because: reasons(&verdict.lacking),
        doubts: verdict.doubts.iter().map(doubt).collect(),
        interval: bounds.map(interval),
        change: verdict.change.as_ref().and_then(|change| change.as_ref().ok()).map(change),
        trend: verdict.trend.as_ref().and_then(|trend| trend.as_ref().ok()).map(trend),
        beyond: verdict.beyond.map(beyond),
        effective_requests: verdict.effective_requests(),
        instrument_error: verdict.error,
        simulator_lateness: verdict.simulator,
        arrival_uncertainty: verdict.uncertainty,
        verdict: outcome(verdict.outcome()).into(),
        told: thresholds::format_actual(verdict),
        reason: thresholds::format_why(verdict),
        would_have_caught: thresholds::format_detectable(verdict),
        smallest_detectable: (verdict.outcome() == Outcome::Pass)
            .then(|| verdict.smallest_detectable())
            .flatten()
            .filter(|change| change.is_finite()),
        remarks: thresholds::format_circumstances(verdict, notes),
        wanting: thresholds::format_needed(verdict),
        more_requests,
        more_runs,
    }
}

const fn trend(course: &Course) -> TrendReport {
    let Course { relative, p, runs_ago, runs } = *course;
    TrendReport { relative, p, runs_ago, runs }
}

const fn beyond(of: BeyondLimit) -> BeyondReport {
    let BeyondLimit { beyond, failed, all, allowed, .. } = of;
    BeyondReport { beyond, failed, requests: all, allowed }
}

fn precision<'a>(
    of: &'a GroupPrecision,
    run: &'a Run,
) -> impl Iterator<Item = PrecisionReport<'a>> {
    of.figures.iter().map(|figure| PrecisionReport {
        group: (&of.name).into(),
        metric: figure.goal.metric.name.into(),
        goal: figure.goal.share,
        actual: figure.share.ok(),
        reached: figure.is_reached(),
        why: why_missed(figure, run),
    })
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Inconclusive => "inconclusive",
    }
}

fn doubt((reason, answers): &(String, usize)) -> DoubtReport<'_> {
    DoubtReport { reason: reason.into(), answers: *answers }
}

fn change(change: &Change) -> ChangeReport {
    ChangeReport {
        before: change.before,
        now: change.now,
        relative: change.relative,
        interval: interval(change.interval),
        p: Some(change.p()),
    }
}

fn instrument(Instrument { transport, calibration }: &Instrument) -> InstrumentReport {
    InstrumentReport { transport: transport.name().into(), calibration: *calibration }
}

pub(super) fn trial(trial: &TrialResult) -> TrialReport<'_> {
    let TrialResult { case, failure, figures, notes, turns, .. } = trial;
    let workload = case.task.workload();
    TrialReport {
        name: (&case.name).into(),
        model: (&case.target.name).into(),
        prompt: workload.is_none().then(|| case.task.name().into()),
        workload: workload.map(|workload| workload.name.as_str().into()),
        run: case.run,
        started: format!("{:.3}", trial.started),
        seconds: trial.seconds,
        failure: failure.as_ref().map(failed),
        figures: by_metric(figures),
        notes: notes.into(),
        arrival_uncertainty: trial.arrival_uncertainty,
        turns: turns.iter().zip(1..).map(turn).collect(),
    }
}

fn turn((result, turn): (&TurnResult, usize)) -> TurnReport<'_> {
    let TurnResult { failure, figures, notes, arrival_uncertainty } = result;
    TurnReport {
        turn,
        failure: failure.as_ref().map(failed),
        figures: by_metric(figures),
        notes: notes.into(),
        arrival_uncertainty: *arrival_uncertainty,
    }
}

fn failed(failure: &Failure) -> FailureReport<'_> {
    FailureReport { kind: failure.kind.into(), message: failure.message.as_str().into() }
}

fn by_metric(figures: &[(&Metric, f64)]) -> ByName<f64> {
    figures.iter().map(|(metric, value)| (metric.name, *value)).collect()
}
