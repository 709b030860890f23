//! The whole run as JSON, for programs. `fixtures/schema/run.v1.json` says what each field means,
//! and a test holds every report to it; what a reader could trip over is a new version of it.
//!
//! Times are in seconds, as in every file. What is unknown is `null`, and no number is infinite.

use llm_stream_core::{
    comparison::{Change, Evidence},
    group::WorkloadSpec,
    interval::Interval,
    lacking::{MissingFigures, MissingReason},
    load_stats::LoadStats,
    metric::{Better, DEFINITIONS, METRICS, Metric, SUCCESS_RATE, Unit},
    punctuality::Deviation,
    schedule::Shape,
    statistic::{Absent, Statistic},
    summary::{Group, Tally},
    verdict::{Needed, Outcome, Verdict},
};
use serde_json::{Map, Value, json};

use super::{
    Exporter, GroupVerdicts, Instrument, Run, TrialResult,
    finished::{Failure, Turn},
    ranking::Paired,
    thresholds,
};

/// Version of the schema.
const VERSION: u32 = 1;

const STATISTICS: [Statistic; 11] = [
    Statistic::Mean,
    Statistic::Median,
    Statistic::Sd,
    Statistic::Min,
    Statistic::Max,
    Statistic::Percentile(5.0),
    Statistic::Percentile(25.0),
    Statistic::Percentile(75.0),
    Statistic::Percentile(90.0),
    Statistic::Percentile(95.0),
    Statistic::Percentile(99.0),
];

/// All that is known of a run.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Exporter for Json {
    fn render(&self, run: &Run) -> String {
        let ended = run.ending.ended.name();
        let groups = run.summary.groups.iter();
        let report = json!({
            "schema": "llm-stream-bench/run",
            "version": VERSION,
            "tool": { "name": "llm-stream-bench", "version": env!("CARGO_PKG_VERSION") },
            "definitions": DEFINITIONS,
            "machine": run.machine,
            "result": { "ended": ended, "reasons": run.ending.reasons },
            "confidence": number(run.confidence),
            "metrics": METRICS.iter().chain([&SUCCESS_RATE]).map(definition).collect::<Map<_, _>>(),
            "groups": groups.map(|of| group(of, run)).collect::<Vec<_>>(),
            "thresholds": run.verdicts.iter().flat_map(|of| judged(of, run)).collect::<Vec<_>>(),
            "instruments": run.instruments.iter().map(instrument).collect::<Vec<_>>(),
            "trials": run.trials.iter().map(trial).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}

/// The number, unless it is not finite, as the end of an interval may be.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn optional(value: Option<f64>) -> Value {
    value.map_or(Value::Null, number)
}

/// The unit in files.
const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        _ => unit.display().0,
    }
}

fn definition(metric: &Metric) -> (String, Value) {
    let better = match metric.better {
        Better::Higher => "higher",
        Better::Lower => "lower",
        Better::Neither => "neither",
    };
    let Metric { name, definition, .. } = metric;
    let unit = unit(metric.unit);
    ((*name).into(), json!({ "unit": unit, "better": better, "definition": definition }))
}

fn group(group: &Group, run: &Run) -> Value {
    let confidence = run.confidence;
    let spec = &group.spec;
    let Tally { valid, failures, .. } = &group.tally;
    let kinds: Map<_, _> =
        failures.iter().map(|(kind, n)| (kind.name().to_owned(), json!(n))).collect();
    let of_metric = |metric| Some((metric_name(metric), figures(group, metric, confidence)?));
    json!({
        "name": group.name(),
        "model": spec.model,
        "model_name": spec.served_model,
        "endpoint": spec.endpoint,
        "simulated": spec.is_simulated,
        "protocol": spec.protocol,
        "transport": spec.transport,
        "connection": spec.connection,
        "prefix_cache": spec.prefix_cache,
        "workload": spec.workload.as_ref().map(workload),
        "trials": {
            "planned": group.planned,
            "finished": group.finished,
            "failed": group.failed,
        },
        "requests": { "valid": valid, "failed": group.tally.failed(), "failures": kinds },
        "metrics": METRICS.iter().filter_map(of_metric).collect::<Map<_, _>>(),
        "loads": group.loads.iter().map(load).collect::<Vec<_>>(),
        "shortfalls": group.shortfalls,
        "drift": drift(group),
        "simulator": simulator(group),
        "server": {
            "disagrees": group.tally.server_disagrees,
            "metrics": by_metrics(group),
        },
        "paired": paired(group, run),
    })
}

/// Means by the server's metrics beside ours, of what can be compared.
fn by_metrics(group: &Group) -> Map<String, Value> {
    let of = |name: &str| {
        let (theirs, ours, requests) = group.by_metrics(name)?;
        let told = json!({ "server": theirs, "ours": ours, "requests": requests });
        Some((name.to_owned(), told))
    };
    ["ttft", "tpot", "e2e"].into_iter().filter_map(of).collect()
}

/// The change between the halves of each prompt's requests, where there are enough.
fn drift(group: &Group) -> Value {
    let of = |name: &str| {
        let change = group.drift(Metric::named(name)?).ok()?;
        let told = json!({
            "relative": number(change.relative),
            "interval": interval(change.interval),
            "p": optional(p_of(&change)),
            "significant": change.is_significant(),
        });
        Some((name.to_owned(), told))
    };
    ["generation_speed", "ttft"].into_iter().filter_map(of).collect::<Map<_, _>>().into()
}

/// How the simulated endpoint differed from its script.
fn simulator(group: &Group) -> Value {
    let told = |deviation: Option<Deviation>| {
        deviation.map(|Deviation { median, mean, p99, scripted }| {
            json!({
                "scripted": number(scripted),
                "mean": number(mean),
                "median": number(median),
                "p99": number(p99),
            })
        })
    };
    let (first, generation) = (group.punctuality.first(), group.punctuality.generation());
    match first.is_some() {
        true => json!({ "first_token": told(first), "generation": told(generation) }),
        false => Value::Null,
    }
}

/// How the model's speed differs from that of the fastest, when they took turns.
fn paired(group: &Group, run: &Run) -> Value {
    let comparable = run.summary.comparable();
    let first = comparable.first().and_then(|groups| groups.first());
    let first = first.filter(|first| {
        run.took_turns && group.spec.workload.is_none() && first.spec.id != group.spec.id
    });
    let paired = first.and_then(|first| Some((first, Paired::of(group, first).ok()?)));
    paired.map_or(Value::Null, |(first, Paired { mean, interval: within, n })| {
        json!({
            "with": first.name(),
            "n": n,
            "generation_speed": number(mean),
            "interval": within.map(interval),
        })
    })
}

fn metric_name(metric: &Metric) -> String {
    metric.name.to_owned()
}

fn workload(workload: &WorkloadSpec) -> Value {
    let WorkloadSpec { name, shape, until, prompts, .. } = workload;
    let (concurrency, most) = match shape {
        Shape::Closed { concurrency } => (Some(concurrency), None),
        Shape::Open { max_in_flight, .. } => (None, Some(max_in_flight)),
    };
    json!({
        "name": name,
        "load": format!("{shape}, {until}"),
        "concurrency": concurrency,
        "rate": optional(shape.asked_rate()),
        "max_in_flight": most,
        "requests": until.requests,
        "duration": until.duration.map(|duration| duration.as_secs_f64()),
        "prompts": prompts,
    })
}

/// The statistics of a metric over the values that there are; `None` when there are none and the
/// server does not send what it is made of.
fn figures(group: &Group, metric: &Metric, confidence: f64) -> Option<Value> {
    let values = group.values(metric);
    // Of loads, a value is a run.
    let lacking = group.lacking(metric);
    if values.is_empty() && !lacking.has_reason() {
        return None;
    }
    let mut figures = Map::from_iter([
        ("n".to_owned(), json!(values.len())),
        ("lacking".to_owned(), json!(lacking.lack())),
        ("lacking_because".to_owned(), because(&lacking)),
    ]);
    let mut needs = Map::new();
    for statistic in STATISTICS {
        let value = statistic.of(&values);
        if let Err(Absent::TooFew { needs: least, .. }) = value {
            needs.insert(statistic.to_string(), json!(least));
        }
        figures.insert(statistic.to_string(), optional(value.ok()));
    }
    figures.insert("needs".into(), needs.into());
    let of = |statistic| {
        let estimate = group.estimate(metric, statistic, confidence).ok()?;
        estimate.interval.ok()?.map(interval)
    };
    let intervals = json!({ "mean": of(Statistic::Mean), "median": of(Statistic::Median) });
    figures.insert("intervals".into(), intervals);
    Some(figures.into())
}

/// How many lack a figure, by reason.
fn because(lacking: &MissingFigures) -> Value {
    let of = |(lack, count): (&MissingReason, &usize)| (lack.name().to_owned(), json!(count));
    lacking.reasons.iter().map(of).collect::<Map<_, _>>().into()
}

fn interval(Interval { low, high }: Interval) -> Value {
    json!({ "low": number(low), "high": number(high) })
}

fn load(reached: &LoadStats) -> Value {
    let LoadStats { requests, valid, peak, .. } = reached;
    json!({
        "requests": requests,
        "valid": valid,
        "seconds": number(reached.seconds),
        "concurrency": number(reached.concurrency),
        "peak": peak,
        "request_rate": optional(reached.request_rate),
        "request_throughput": number(reached.request_throughput),
        "output_throughput": optional(reached.output_throughput),
        "lateness_p99": optional(reached.lateness),
        "receiver_busy": optional(reached.busy),
    })
}

fn judged(judged: &GroupVerdicts, run: &Run) -> impl Iterator<Item = Value> {
    let group = run.summary.groups.get(judged.group);
    judged.verdicts.iter().map(move |verdict| threshold((&judged.name, group), verdict))
}

fn threshold((name, group): (&str, Option<&Group>), verdict: &Verdict) -> Value {
    let limit = &verdict.threshold;
    let actual = verdict.actual.as_ref().ok();
    let outcome = match verdict.outcome() {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Inconclusive => "inconclusive",
    };
    let (requests, runs) = match verdict.needed() {
        Some(Needed::Requests(more)) => (Some(more), None),
        Some(Needed::Runs(more)) => (None, Some(more)),
        Some(Needed::MorePrecision | Needed::Baseline | Needed::Certainty) | None => (None, None),
    };
    let bounds = actual.and_then(|actual| actual.interval.ok().flatten());
    let change = verdict.change.as_ref().and_then(|change| change.as_ref().ok());
    json!({
        "group": name,
        "model": group.map(|group| &group.spec.model),
        "workload": group.and_then(|group| group.spec.workload.as_ref()).map(|workload| &workload.name),
        "threshold": limit.to_string(),
        "metric": limit.metric.name,
        "statistic": limit.statistic.to_string(),
        "comparison": limit.comparison.symbol(),
        "limit": number(limit.limit),
        "relative": limit.is_relative,
        "unit": unit(limit.metric.unit),
        "actual": optional(actual.map(|actual| actual.value)),
        "n": actual.map(|actual| actual.n),
        "lacking": verdict.lacking.lack(),
        "lacking_because": because(&verdict.lacking),
        "doubts": verdict.doubts.iter().map(|(reason, answers)| json!({
            "reason": reason,
            "answers": answers,
        })).collect::<Vec<_>>(),
        "interval": bounds.map(interval),
        "change": change.map(|change| json!({
            "before": number(change.before),
            "now": number(change.now),
            "relative": number(change.relative),
            "interval": interval(change.interval),
            "p": optional(p_of(change)),
        })),
        "instrument_error": optional(verdict.error),
        "arrival_uncertainty": number(verdict.uncertainty),
        "verdict": outcome,
        "told": thresholds::actual(verdict),
        "wanting": thresholds::needed(verdict),
        "more_requests": requests,
        "more_runs": runs,
    })
}

/// What ranks say of a mean or median.
fn p_of(change: &Change) -> Option<f64> {
    match change.evidence {
        Evidence::RankTest { p, .. } => Some(p),
        Evidence::Interval(_) => None,
    }
}

/// As `results.instrument.json` has it.
fn instrument(Instrument { transport, calibration }: &Instrument) -> Value {
    let errors = serde_json::to_value(calibration).unwrap_or_default();
    let mut instrument = Map::from_iter([("transport".to_owned(), transport.name().into())]);
    instrument.extend(errors.as_object().cloned().unwrap_or_default());
    instrument.into()
}

fn trial(trial: &TrialResult) -> Value {
    let TrialResult { case, started, failure: why, figures, notes, turns, .. } = trial;
    let uncertainty = trial.arrival_uncertainty;
    let workload = case.task.workload();
    json!({
        "name": case.name,
        "model": case.target.name,
        "prompt": workload.is_none().then(|| case.task.name()),
        "workload": workload.map(|workload| &workload.name),
        "run": case.run,
        "started": format!("{started:.3}"),
        "seconds": number(trial.seconds),
        "failure": failure(why.as_ref()),
        "figures": by_metric(figures),
        "notes": notes,
        "arrival_uncertainty": optional(uncertainty),
        "turns": turns.iter().zip(1..).map(turn).collect::<Vec<_>>(),
    })
}

fn turn((turn, number): (&Turn, u64)) -> Value {
    let Turn { failure: why, figures, notes, arrival_uncertainty } = turn;
    json!({
        "turn": number,
        "failure": failure(why.as_ref()),
        "figures": by_metric(figures),
        "notes": notes,
        "arrival_uncertainty": optional(*arrival_uncertainty),
    })
}

fn failure(failure: Option<&Failure>) -> Value {
    failure.map_or(
        Value::Null,
        |Failure { kind, message }| json!({ "kind": kind, "message": message }),
    )
}

fn by_metric(figures: &[(&Metric, f64)]) -> Map<String, Value> {
    figures.iter().map(|(metric, value)| (metric_name(metric), number(*value))).collect()
}
