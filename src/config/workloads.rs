//! `workloads`: loads of many requests at once.

use std::{collections::HashSet, time::Duration};

use llm_stream_core::{
    lengths::LengthRange,
    prompt,
    schedule::{ArrivalProcess, Gaps, Shape, Until},
};
use serde_saphyr::Spanned;

use super::{
    FindConfig, PromptConfig, WorkloadConfig, find,
    keys::Section,
    lengths, mix, model, phases, precision,
    reader::{Entry, Fields, Reader},
    suggest::{any_of, did_you_mean, nearest},
    sweep, think,
    trace::{self, TraceReplay},
    yaml::Yaml,
};

/// Reads `workloads`. Their prompts are names in `prompts`, or in the built-in prompts if the key
/// is absent. If `prompts` has mistakes, no name is checked.
pub(super) fn workloads(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    prompts_written: bool,
    prompts: Option<&[PromptConfig]>,
) -> Vec<WorkloadConfig> {
    let known: Vec<String> = match prompts {
        // The name of a data set selects all of its records.
        Some(prompts) => {
            let sets = prompts.iter().filter_map(|prompt| prompt.prompt.set.as_ref());
            let names = prompts.iter().map(|prompt| &prompt.name.value);
            sets.chain(names).cloned().collect()
        }
        None if prompts_written => Vec::new(),
        None => prompt::built_in().into_iter().map(|prompt| prompt.name).collect(),
    };
    let named = reader.map(entry, "a map of workloads by their names", entry.example());
    let workloads = named.into_iter();
    workloads.flat_map(|(name, field)| workload(reader, name, &field, &known)).collect()
}

/// Reads a workload; of a sweep, one for each point.
fn workload(
    reader: &mut Reader<'_>,
    name: &str,
    entry: &Entry<'_>,
    prompts: &[String],
) -> Vec<WorkloadConfig> {
    reader.remember(entry);
    if name.trim().is_empty() {
        let help = "write its name before the colon";
        reader.error_at_key(entry, "a workload has an empty name", help);
    }
    let fields = reader.fields(entry, Section::Workload);
    let found = fields.get("find").map(|entry| find::find(reader, entry));
    let until = until(reader, entry, &fields);
    let points = points(reader, entry, (&fields, found.as_ref()), until);
    let runs = fields.get("runs").and_then(|entry| reader.whole(entry));
    let thresholds = fields.get("thresholds");
    let thresholds = thresholds.map(|entry| model::thresholds(reader, entry));
    let goodput = fields.get("goodput").map(|entry| model::thresholds(reader, entry));
    let precision = fields.get("precision");
    let precision = precision.and_then(|entry| precision::precision(reader, entry));
    let chosen = fields.get("prompts").map(|entry| chosen(reader, entry, prompts));
    let mix = fields.get("mix").map(|entry| mix::mix(reader, entry, prompts));
    if let (Some(entry), Some(_)) = (fields.get("prompts"), fields.get("mix")) {
        let help = "the names in `mix` are the prompts; remove `prompts`";
        reader.error_at_key(entry, "`prompts` cannot be combined with `mix`", help);
    }
    let points = points.and_then(|points| with_lengths(reader, entry, &fields, points));
    let think = fields.get("think").and_then(|entry| think::think(reader, entry));
    let seed = seed(reader, &fields);
    let phases = phases::phases(reader, &fields);
    let abort = fields.get("abort").map(|entry| phases::abort(reader, entry));
    let Some(until) = until else { return Vec::new() };
    let thresholds = thresholds.unwrap_or_default();
    let point = |LoadPoint { suffix, shape, trace, input, output }: LoadPoint| {
        let name = format!("{name}{suffix}");
        let until = trace.as_ref().map_or(until, |replay| until_end_of(replay, until));
        WorkloadConfig {
            name: Spanned::new(name, entry.key.referenced, entry.key.defined),
            shape,
            trace,
            find: found.clone().flatten(),
            until,
            phases: phases.unwrap_or_default(),
            abort: abort.flatten().unwrap_or_default(),
            prompts: chosen.clone().unwrap_or_default(),
            input_tokens: input,
            output_tokens: output,
            mix: mix.clone().flatten().unwrap_or_default(),
            think,
            seed: seed.unwrap_or(0),
            runs: runs.and_then(|runs| u32::try_from(runs).ok()),
            thresholds: thresholds.clone(),
            goodput: goodput.clone(),
            precision: precision.clone(),
        }
    };
    points.unwrap_or_default().into_iter().map(point).collect()
}

/// The seed of all random choices of a workload. It requires one of them.
fn seed(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<u64> {
    let entry = fields.get("seed")?;
    if !SEEDED.iter().any(|key| fields.get(key).is_some()) && fields.get("trace").is_none() {
        let keys: Vec<_> = SEEDED.iter().map(|key| format!("`{key}`")).collect();
        let what = format!("`seed` requires {}", any_of_texts(&keys));
        reader.error_at_key(entry, what, "the workload chooses nothing at random; remove it");
    }
    reader.whole(entry)
}

/// The keys whose random choices have the seed of the workload.
const SEEDED: &[&str] = &["rate", "mix", "think"];

fn any_of_texts(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    any_of(&texts)
}

/// A load of a workload: of a sweep, one of several.
#[derive(Clone)]
struct LoadPoint {
    /// The end of its name.
    suffix: String,
    shape: Shape,
    trace: Option<TraceReplay>,
    input: Option<LengthRange>,
    output: Option<LengthRange>,
}

impl LoadPoint {
    fn new((suffix, shape): (String, Shape)) -> Self {
        Self { suffix, shape, trace: None, input: None, output: None }
    }

    fn replay((suffix, shape, trace): (String, Shape, TraceReplay)) -> Self {
        Self { trace: Some(trace), ..Self::new((suffix, shape)) }
    }
}

/// The points of a workload with each of its `input_tokens` and `output_tokens`.
fn with_lengths(
    reader: &mut Reader<'_>,
    workload: &Entry<'_>,
    fields: &Fields<'_>,
    points: Vec<LoadPoint>,
) -> Option<Vec<LoadPoint>> {
    let mut lengths = |key: &str, suffix: &str| {
        let Some(entry) = fields.get(key) else { return Some(vec![(String::new(), None)]) };
        let points = lengths::swept(reader, entry, suffix)?;
        Some(points.into_iter().map(|(name, range)| (name, Some(range))).collect())
    };
    let (inputs, outputs) =
        (lengths("input_tokens", lengths::INPUT), lengths("output_tokens", lengths::OUTPUT));
    let lengths = lengths::combined(reader, workload, (inputs?, outputs?))?;
    let points = points.into_iter().map(|point| (point.suffix.clone(), point)).collect();
    let points = lengths::combined(reader, workload, (points, lengths))?;
    let point = |(suffix, (point, (input, output))): (String, (LoadPoint, _))| LoadPoint {
        suffix,
        input,
        output,
        ..point
    };
    Some(points.into_iter().map(point).collect())
}

/// Returns the end of a replay: a trace ends with its last request.
fn until_end_of(replay: &TraceReplay, until: Until) -> Until {
    Until { requests: Some(replay.trace.requests.len()), ..until }
}

/// The loads of a workload: of a sweep, one for each point.
fn points(
    reader: &mut Reader<'_>,
    workload: &Entry<'_>,
    (fields, found): (&Fields<'_>, Option<&Option<FindConfig>>),
    until: Option<Until>,
) -> Option<Vec<LoadPoint>> {
    if let (None, Some(speed)) = (fields.get("trace"), fields.get("speed")) {
        let help = "it is the speed of a replay: remove it, or add `trace`";
        reader.error_at_key(speed, "`speed` requires `trace`", help);
    }
    let replayed = fields.get("trace").map(|trace| {
        let limit = until.and_then(|until| until.requests);
        trace::replays(reader, trace, fields, limit)
    });
    match replayed {
        Some(replays) => {
            replays.map(|replays| replays.into_iter().map(LoadPoint::replay).collect())
        }
        None => shapes(reader, workload, (fields, found))
            .map(|shapes| shapes.into_iter().map(LoadPoint::new).collect::<Vec<_>>()),
    }
}

/// The keys of which a workload has one.
const SHAPES: [&str; 4] = ["concurrency", "rate", "trace", "find"];

/// The keys of a workload that say which load it is.
const OPEN_OR_CLOSED: [&str; 5] = ["concurrency", "rate", "arrivals", "seed", "max_in_flight"];

/// Exactly one of `concurrency`, `rate` and `find`; of a sweep, a shape for each point, with the end of its
/// name.
fn shapes(
    reader: &mut Reader<'_>,
    workload: &Entry<'_>,
    (fields, found): (&Fields<'_>, Option<&Option<FindConfig>>),
) -> Option<Vec<(String, Shape)>> {
    if let Some(found) = found {
        for entry in OPEN_OR_CLOSED.into_iter().filter_map(|name| fields.get(name)) {
            let what = format!("{} cannot be combined with `find`", entry.label);
            let help = "a search chooses the loads; keep `find`, or the load. `arrivals`, `seed` and \
                        `max_in_flight` of a search are written in `find`";
            reader.error_at_key(entry, what, help);
        }
        return Some(vec![(String::new(), found.as_ref()?.first)]);
    }
    match (fields.get("concurrency"), fields.get("rate")) {
        (Some(entry), None) => {
            let of_open_loops = Section::Workload.info().only_with.iter();
            let of_open_loops =
                of_open_loops.filter(|(_, of)| *of == "rate").map(|(name, _)| *name);
            let entries =
                of_open_loops.chain(["max_in_flight"]).filter_map(|name| fields.get(name));
            for entry in entries {
                let what = format!("{} cannot be combined with `concurrency`", entry.label);
                let help = "it is for an open loop, which has a `rate`; remove one of them";
                reader.error_at_key(entry, what, help);
            }
            let points = sweep::concurrencies(reader, entry)?.named(|point| format!("@c{point}"));
            let shape =
                |(name, concurrency): (String, usize)| (name, Shape::Closed { concurrency });
            Some(points.into_iter().map(shape).collect())
        }
        (None, Some(entry)) => open(reader, entry, fields),
        (Some(_), Some(entry)) => {
            let what = format!("{} has both `concurrency` and `rate`", workload.label);
            let help = "keep `concurrency` for requests in flight, `rate` for requests per \
                        second;\n`max_in_flight` limits the requests in flight of a rate";
            reader.error_at_key(entry, what, help);
            None
        }
        (None, None) => {
            let is_misspelt = fields.meant.iter().any(|meant| SHAPES.contains(meant));
            if !is_misspelt && matches!(workload.value.value, Yaml::Map(_)) {
                let what =
                    format!("{} has no `concurrency`, `rate`, `trace` or `find`", workload.label);
                let help = "add `concurrency: 64` for a closed loop, `rate: 20/s` for an open one,\n\
                            `trace` for recorded traffic, or `find` for a search of the highest load";
                reader.error_at_key(workload, what, help);
            }
            None
        }
    }
}

fn open(
    reader: &mut Reader<'_>,
    rates: &Entry<'_>,
    fields: &Fields<'_>,
) -> Option<Vec<(String, Shape)>> {
    let rates = sweep::rates(reader, rates);
    let gaps = fields.get("arrivals").map(|entry| gaps(reader, entry));
    // A mistake in it is noted where the seed of the workload is read.
    let seed = match fields.get("seed").map(|entry| &entry.value.value) {
        Some(Yaml::Int(seed)) => u64::try_from(*seed).unwrap_or(0),
        _ => 0,
    };
    let most = fields.get("max_in_flight").map(|entry| in_flight(reader, entry));
    let gaps = gaps.unwrap_or(Some(Gaps::Poisson))?;
    let max_in_flight = most.unwrap_or(Some(1_000))?;
    let shape = |(name, rate): (String, f64)| {
        (name, Shape::Open { arrivals: ArrivalProcess { rate, gaps, seed }, max_in_flight })
    };
    Some(rates?.named(|rate| format!("@r{}", decimal(*rate))).into_iter().map(shape).collect())
}

/// Formats a rate with up to three decimals.
fn decimal(rate: f64) -> String {
    let text = format!("{rate:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn in_flight(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<usize> {
    let whole = reader.whole(entry)?;
    usize::try_from(whole).ok()
}

/// A rate with its unit: `20/s`, `90/min`.
pub(super) fn rate(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<f64> {
    const MOST: f64 = 100_000.0;
    rate_up_to(reader, entry, MOST)
}

/// A rate with its unit, above 0 and at most `most` a second.
pub(super) fn rate_up_to(reader: &mut Reader<'_>, entry: &Entry<'_>, most: f64) -> Option<f64> {
    let example = entry.example();
    let text = match &entry.value.value {
        Yaml::Text(text) => text.clone(),
        Yaml::Int(_) | Yaml::Float(_) => reader.written(entry),
        _ => {
            reader.wrong(entry, "a rate", example);
            return None;
        }
    };
    let (number, unit) = text.split_once('/').unwrap_or((&text, ""));
    let Ok(number) = number.trim().parse::<f64>() else {
        reader.wrong(entry, "a rate", example);
        return None;
    };
    let seconds = match unit.trim() {
        "s" | "sec" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" => {
            let help = format!("did you mean `{}/s`?", text.trim().trim_end_matches('/'));
            reader.error(entry, format!("{} requires a unit", entry.label), help);
            return None;
        }
        other => {
            let what = format!("unknown unit `{other}` of a rate");
            reader.error(
                entry,
                what,
                "write it a second, minute or hour: `20/s`, `90/min`, `60/h`",
            );
            return None;
        }
    };
    let rate = number / seconds;
    if !(rate > 0.0 && rate <= most) {
        let what = format!("{} must be above 0 and at most {most} a second", entry.label);
        reader.error(entry, what, format!("for example `{example}`"));
        return None;
    }
    Some(rate)
}

/// `constant`, `poisson` or `gamma(BURSTINESS)`.
pub(super) fn gaps(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Gaps> {
    let text = reader.text(entry)?.value;
    let burstiness =
        text.strip_prefix("gamma").map(|rest| rest.trim().strip_prefix('(')?.strip_suffix(')'));
    match (text.as_str(), burstiness) {
        ("constant", _) => Some(Gaps::Constant),
        ("poisson", _) => Some(Gaps::Poisson),
        (_, Some(number)) => {
            let burstiness = number.and_then(|number| number.trim().parse::<f64>().ok());
            let burstiness = burstiness.filter(|number| (0.001..=1000.0).contains(number));
            if burstiness.is_none() {
                let help = "1 is like `poisson`, less is burstier, more is more even:\n\
                            for example `arrivals: gamma(0.5)`";
                reader.error(entry, "`gamma` takes its burstiness, from 0.001 to 1000", help);
            }
            burstiness.map(|burstiness| Gaps::Gamma { burstiness })
        }
        (other, None) => {
            let help = match nearest(other, ["constant", "poisson"]) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "there are `constant`, `poisson` and `gamma(0.5)`".to_owned(),
            };
            reader.error(entry, format!("unknown value `{other}` for `arrivals`"), help);
            None
        }
    }
}

/// `requests`, `duration`, or both.
fn until(reader: &mut Reader<'_>, workload: &Entry<'_>, fields: &Fields<'_>) -> Option<Until> {
    let requests = fields.get("requests");
    let duration = fields.get("duration");
    if requests.is_none() && duration.is_none() {
        if fields.get("trace").is_some() {
            return Some(Until { requests: None, duration: None });
        }
        let is_misspelt = fields.meant.iter().any(|meant| ["requests", "duration"].contains(meant));
        if !is_misspelt && matches!(workload.value.value, Yaml::Map(_)) {
            let what = format!("{} has neither `requests` nor `duration`", workload.label);
            reader.error_at_key(workload, what, "add `requests: 512` or `duration: 60s`");
        }
        return None;
    }
    let requests = requests.map(|entry| reader.whole(entry));
    let duration: Option<Option<Duration>> = duration.map(|entry| reader.duration(entry));
    Some(Until {
        requests: match requests {
            Some(requests) => Some(usize::try_from(requests?).ok()?),
            None => None,
        },
        duration: match duration {
            Some(duration) => Some(duration?),
            None => None,
        },
    })
}

/// The names in `prompts`, of the `known`.
fn chosen(reader: &mut Reader<'_>, entry: &Entry<'_>, known: &[String]) -> Vec<Spanned<String>> {
    let names = reader.texts(entry);
    if let (Yaml::List(items), true) = (&entry.value.value, names.is_empty())
        && items.is_empty()
    {
        let help = "name at least one, or remove `prompts` for all of them";
        reader.error(entry, "`prompts` is empty", help);
    }
    let those: HashSet<_> = known.iter().map(String::as_str).collect();
    for name in names.iter().filter(|_| !known.is_empty()) {
        if !those.contains(name.value.as_str()) {
            let place = reader.source.bytes(name.defined);
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            let help = did_you_mean(&name.value, &known);
            reader.error_at(place, &entry.path, format!("unknown prompt `{}`", name.value), help);
        }
    }
    names
}
