//! `trace` of a workload: recorded traffic that is replayed.

use std::{path::Path, sync::Arc};

use llm_stream_core::{
    baseline::hash,
    protocol::OpenAiChat,
    schedule::{ArrivalProcess, Gaps, Shape},
    trace::{self, Trace, TraceFormat, TracedContent, TracedRequest, Vocabulary},
};

use super::{
    Config,
    dataset::{Mistake, Text},
    files::{read, tokenizer, unreadable},
    keys::Section,
    prompts::not_data,
    reader::{Entry, Fields, Reader},
    source::ConfigError,
    sweep,
    words::TRACE_FORMATS,
    yaml::Yaml,
};

/// The fastest replay.
const MOST_SPEED: f64 = 10_000.0;

/// Recorded traffic, and how it is replayed.
#[derive(Debug, Clone)]
pub struct TraceReplay {
    /// The name of the file without its extension: the prompt of its requests in results.
    pub name: String,
    /// The requests.
    pub trace: Arc<Trace>,
    /// How many times as fast as recorded the requests arrive.
    pub speed: f64,
    /// The seed of the texts.
    pub seed: u64,
    /// The pieces of the texts, if the trace names a tokenizer.
    pub vocabulary: Option<Arc<Vocabulary>>,
    /// Everything that the requests depend on, hashed.
    pub identity: String,
}

/// Reads `trace` and `speed`, and returns the shape of each replay with the end of its name. At most
/// `limit` requests are replayed.
pub(super) fn replays(
    reader: &mut Reader<'_>,
    entry: &Entry<'_>,
    workload: &Fields<'_>,
    limit: Option<usize>,
) -> Option<Vec<(String, Shape, TraceReplay)>> {
    for key in [
        "arrivals",
        "seed",
        "prompts",
        "mix",
        "think",
        "input_tokens",
        "output_tokens",
        "concurrency",
        "rate",
        "find",
    ] {
        if let Some(entry) = workload.get(key) {
            let what = format!("`{key}` cannot be combined with `trace`");
            let help = "the trace has the times and the prompts of its requests; remove it";
            reader.error_at_key(entry, what, help);
        }
    }
    let speeds = match workload.get("speed") {
        Some(entry) => sweep::speeds(reader, entry),
        None => Some(sweep::Points::One(1.0)),
    };
    let max_in_flight = match workload.get("max_in_flight") {
        Some(entry) => reader.whole(entry).and_then(|whole| usize::try_from(whole).ok()),
        None => Some(1_000),
    };
    let replay = replay(reader, entry, limit);
    let (speeds, max_in_flight, replay) = (speeds?, max_in_flight?, replay?);
    let point = |(name, speed): (String, f64)| {
        let mean = replay.trace.rate().unwrap_or(replay.trace.requests.len() as f64);
        let arrivals =
            ArrivalProcess { rate: rounded(mean * speed), gaps: Gaps::Recorded { speed }, seed: 0 };
        (name, Shape::Open { arrivals, max_in_flight }, TraceReplay { speed, ..replay.clone() })
    };
    Some(speeds.named(|speed| format!("@x{speed}")).into_iter().map(point).collect())
}

/// Rounds a rate to four digits: it describes the trace and schedules nothing.
fn rounded(rate: f64) -> f64 {
    format!("{rate:.3e}").parse().unwrap_or(rate)
}

/// Reads `trace`: a file, or a map.
fn replay(reader: &mut Reader<'_>, entry: &Entry<'_>, limit: Option<usize>) -> Option<TraceReplay> {
    let fields = match &entry.value.value {
        Yaml::Map(_) => reader.fields(entry, Section::Trace),
        _ => Fields::default(),
    };
    let file = match (&entry.value.value, fields.get("file")) {
        (Yaml::Map(_), None) => {
            if fields.meant.is_empty() {
                let help = format!("for example `trace: {}`", Section::Trace.info().example);
                reader.error(entry, "`trace` has no `file`", help);
            }
            return None;
        }
        (Yaml::Map(_), Some(file)) => file.clone(),
        _ => entry.clone(),
    };
    let format = fields.get("format").map(|entry| reader.word(entry, &TRACE_FORMATS));
    let block_size = fields.get("block_size").map(|entry| reader.whole(entry));
    let seed = fields.get("seed").map(|entry| reader.whole(entry));
    let vocabulary = fields.get("tokenizer").map(|entry| vocabulary(reader, entry));
    let seed = seed.unwrap_or(Some(0))?;
    let form = (transposed(format)?, transposed(block_size)?);
    let vocabulary = transposed(vocabulary)?;
    let name = reader.text_like(&file, "traces/conversation.jsonl")?.value;
    let path = reader.base_dir.join(&name);
    let (trace, bytes) = trace_of(reader, (&file, &path), form, limit)?;
    let used = vocabulary.as_deref();
    let approximate = Vocabulary::approximate();
    if let Err(what) = trace.writer(used.unwrap_or(&approximate), seed) {
        let help = "`block_size` is that of the trace: the tokens that a hash id stands for";
        reader.error(&file, what, help);
        return None;
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let by = fields.get("tokenizer").map(|entry| reader.written(entry));
    let identity = format!("{} {:?} {by:?} {seed} {limit:?}", hash(&bytes), trace.block_size);
    Some(TraceReplay {
        name: stem.unwrap_or(name),
        trace: Arc::new(trace),
        speed: 1.0,
        seed,
        vocabulary,
        identity: hash(&identity),
    })
}

/// `None` where a value is not valid; `Some(None)` where it is not written.
fn transposed<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    value.map_or(Some(None), |value| value.map(Some))
}

/// The pieces of which texts of exact lengths are made.
fn vocabulary(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Arc<Vocabulary>> {
    let tokenizer = tokenizer(reader, entry)?;
    match Vocabulary::of(&tokenizer) {
        Ok(vocabulary) => Some(Arc::new(vocabulary)),
        Err(what) => {
            let help = "without `tokenizer` a word stands for a token, and lengths are approximate";
            reader.error(entry, what, help);
            None
        }
    }
}

/// Reads the requests of a file; returns its text, too.
fn trace_of(
    reader: &mut Reader<'_>,
    (entry, path): (&Entry<'_>, &Path),
    form: (Option<TraceFormat>, Option<u64>),
    limit: Option<usize>,
) -> Option<(Trace, String)> {
    let bytes = match read(reader, path) {
        Ok(bytes) => bytes,
        Err(error) => {
            unreadable(reader, entry, path, &error);
            return None;
        }
    };
    let file = path.display().to_string();
    if let Some((what, help)) = not_data(&bytes) {
        reader.error(entry, format!("{file} {what}"), help);
        return None;
    }
    let text = Text::of(bytes).text;
    match trace::read(&text, form, limit.unwrap_or(usize::MAX)) {
        Ok(trace) => Some((trace, text)),
        Err(error) => {
            let trace::LineError { at, what, help } = error;
            let mistake = Mistake { at, number: None, what, help };
            reader.errors_in_data(vec![ConfigError::in_data(&file, &text, &entry.path, mistake)]);
            None
        }
    }
}

/// Reads a speed: `2x`.
pub(super) fn speed(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<f64> {
    let text = match &entry.value.value {
        Yaml::Text(text) => text.clone(),
        Yaml::Int(_) | Yaml::Float(_) => reader.written(entry),
        _ => {
            reader.wrong(entry, "a speed", entry.example());
            return None;
        }
    };
    let number = text.trim().strip_suffix('x').and_then(|number| number.trim().parse::<f64>().ok());
    let Some(number) = number else {
        match text.trim().parse::<f64>() {
            Ok(number) => {
                let help = format!("did you mean `{}{number}x`?", entry.lead);
                reader.error(entry, format!("{} requires the unit `x`", entry.label), help);
            }
            Err(_) => reader.wrong(entry, "a speed", entry.example()),
        }
        return None;
    };
    if !(number > 0.0 && number <= MOST_SPEED) {
        let what = format!("a speed must be above 0 and at most {MOST_SPEED}x");
        reader.error(entry, what, "`2x` replays a trace in half of its time");
        return None;
    }
    Some(number)
}

/// Finds recorded bodies that would break the measurement of a model.
pub(super) fn bodies_fit(config: &Config) -> Vec<ConfigError> {
    /// The fields that ask for something else than one streamed answer.
    const UNFIT: [&str; 5] = ["n", "n_cmpl", "best_of", "use_beam_search", "echo"];
    let mut errors = Vec::new();
    for workload in &config.workloads {
        let Some(replay) = &workload.trace else { continue };
        for model in &config.models {
            let settings = model.settings.over(&config.defaults);
            let protocol = settings.protocol.unwrap_or(&OpenAiChat);
            let unfit = |(nth, request): (usize, &TracedRequest)| {
                let TracedContent::Body(body) = &request.content else { return None };
                let why = UNFIT.iter().find_map(|key| {
                    protocol.forbidden_field(key, body.get(key).filter(|value| !value.is_null())?)
                })?;
                let what = format!("request {} of the trace cannot be measured: {why}", nth + 1);
                let help = "remove the field, or the line";
                Some(config.error_in(&workload.name, &what, help))
            };
            errors.extend(replay.trace.requests.iter().enumerate().find_map(unfit));
        }
    }
    errors.dedup_by_key(|error| error.to_string());
    errors
}
