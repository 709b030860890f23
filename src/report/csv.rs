//! The results as CSV: a row a request. The seed's 14 columns first, in its order and meaning, then
//! ours. Times are in seconds, speeds in tokens a second; what is unknown is an empty cell.

use std::{
    io::{self, Write},
    time::Duration,
};

use llm_stream_core::{
    metric::{DEFINITIONS, Metric, Unit},
    sample::{CountKind, Sample},
    text::visible_lines,
};

use crate::row::{LoadPosition, Row};

/// Writes rows as they come, each whole and flushed, so that a run that is killed loses at most
/// the trial in flight.
#[derive(Debug)]
pub struct Writer<W: Write>(csv::Writer<W>);

impl<W: Write> Writer<W> {
    /// Writes the column heads to `out`.
    pub fn new(out: W) -> io::Result<Self> {
        // Every record is flushed, so the buffer has to hold one whole.
        let mut writer = csv::WriterBuilder::new().buffer_capacity(1 << 20).from_writer(out);
        writer.write_record(COLUMNS.iter().map(|column| column.name))?;
        writer.flush()?;
        Ok(Self(writer))
    }

    /// Writes one row.
    pub fn write(&mut self, row: &Row) -> io::Result<()> {
        self.0.write_record(COLUMNS.iter().map(|column| (column.cell)(row)))?;
        self.0.flush()
    }
}

struct Column {
    name: &'static str,
    cell: fn(&Row) -> String,
}

macro_rules! columns {
    ($($name:literal => $cell:expr,)+) => { &[$(Column { name: $name, cell: $cell },)+] };
}

const COLUMNS: &[Column] = columns! {
    "model_name" => |row| text(&row.case.target.name),
    "prompt_tokens" => |row| of(row, |sample| whole(sample.prompt_tokens)),
    "response_tokens" => |row| of(row, |sample| sample.response_tokens.to_string()),
    "total_tokens" => |row| of(row, |sample| whole(sample.total_tokens)),
    "total_time" => |row| figure(row, "total_time"),
    "preprocess_time" => |row| figure(row, "ttft"),
    "generation_time" => |row| figure(row, "generation_time"),
    "total_tokens_per_second" => |row| figure(row, "total_tokens_per_second"),
    "preprocess_speed" => |row| figure(row, "preprocess_speed"),
    "generation_speed" => |row| figure(row, "generation_speed"),
    "timestamp" => |row| format!("{:.6}", row.started),
    "success" => |row| row.outcome.is_ok().to_string(),
    "error_message" => |row| row.outcome.as_ref().err().map(|e| text(&e.message)).unwrap_or_default(),
    "streaming_used" => |_| "true".into(),
    "trial" => |row| text(&row.case.name),
    "prompt" => |row| text(row.prompt.title()),
    "run" => |row| row.case.run.to_string(),
    "turn" => |row| row.prompt.turn.as_ref().map(|turn| turn.number.to_string()).unwrap_or_default(),
    "workload" => |row| text(row.case.task.workload().map_or("", |workload| &workload.name)),
    "request" => |row| placed(row, |place| Some(place.request.to_string())),
    "scheduled" => |row| placed(row, |place| place.scheduled.map(seconds)),
    "sent" => |row| placed(row, |place| place.sent.map(seconds)),
    "send_lag" => |row| figure(row, "send_lag"),
    "model" => |row| text(&row.case.target.model),
    "endpoint" => |row| text(row.case.target.endpoint_name()),
    "simulated" => |row| row.case.target.is_simulated().to_string(),
    "protocol" => |row| row.case.target.protocol.name().into(),
    "request_id" => |row| of(row, |sample| text(sample.request_id.as_deref().unwrap_or_default())),
    "ttfo" => |row| figure(row, "ttfo"),
    "tpot" => |row| figure(row, "tpot"),
    "itl" => |row| figure(row, "itl"),
    "itl_max" => |row| figure(row, "itl_max"),
    "e2e" => |row| figure(row, "e2e"),
    "first_byte_time" => |row| figure(row, "first_byte_time"),
    "first_event_time" => |row| figure(row, "first_event_time"),
    "connect_time" => |row| figure(row, "connect_time"),
    "tls_time" => |row| figure(row, "tls_time"),
    "send_time" => |row| figure(row, "send_time"),
    "clock" => |row| of(row, |sample| sample.stamped_by.name().into()),
    "finish_reason" => |row| of(row, |sample| text(&sample.finish_reason)),
    "cached_tokens" => |row| of(row, |sample| whole(sample.cached_tokens)),
    "uncached_preprocess_speed" => |row| figure(row, "uncached_preprocess_speed"),
    "reasoning_tokens" => |row| of(row, |sample| whole(sample.reasoning_tokens)),
    "token_events" => |row| of(row, |sample| sample.token_events.len().to_string()),
    "shared_arrivals" => |row| of(row, |sample| sample.shared_arrivals().to_string()),
    "tokens_per_event" => |row| of(row, tokens_per_event),
    "token_count_source" => |row| of(row, |sample| sample.token_count.name().into()),
    "notes" => |row| of(row, notes),
    "error_kind" => |row| row.outcome.as_ref().err().map(|e| e.kind.to_string()).unwrap_or_default(),
    "definitions" => |_| DEFINITIONS.into(),
    "version" => |_| env!("CARGO_PKG_VERSION").into(),
    "server_generation_speed" => |row| figure(row, "server_generation_speed"),
    "server_generation_time" => |row| figure(row, "server_generation_time"),
    "generation_beyond_server" => |row| figure(row, "generation_beyond_server"),
    "server_ttft" => |row| figure(row, "server_ttft"),
    "server_queue_time" => |row| figure(row, "server_queue_time"),
    "server_prompt_time" => |row| figure(row, "server_prompt_time"),
    "ttft_beyond_server" => |row| figure(row, "ttft_beyond_server"),
    "server_head_time" => |row| figure(row, "server_head_time"),
    "first_byte_beyond_server" => |row| figure(row, "first_byte_beyond_server"),
    "first_reasoning_time" => |row| figure(row, "first_reasoning_time"),
    "arrival_uncertainty" => |row| of(row, |sample| seconds(sample.uncertainty.largest)),
};

fn of(row: &Row, read: impl Fn(&Sample) -> String) -> String {
    row.outcome.as_ref().map(read).unwrap_or_default()
}

fn placed(row: &Row, read: impl Fn(&LoadPosition) -> Option<String>) -> String {
    row.place.as_ref().and_then(read).unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.9}", time.as_secs_f64())
}

fn whole(count: Option<u64>) -> String {
    count.map(|count| count.to_string()).unwrap_or_default()
}

/// The metric's value: times to the nanosecond, speeds to a thousandth of a token a second.
fn figure(row: &Row, name: &str) -> String {
    let metric = Metric::named(name);
    let value = metric.zip(row.outcome.as_ref().ok()).and_then(|(metric, sample)| {
        let digits = if metric.unit == Unit::Seconds { 9 } else { 3 };
        metric.of(sample).map(|value| format!("{value:.digits$}"))
    });
    value.unwrap_or_default()
}

fn tokens_per_event(sample: &Sample) -> String {
    if sample.refused(CountKind::Streamed).is_some() {
        return String::new();
    }
    format!("{:.3}", sample.streamed_tokens() as f64 / sample.token_events.len() as f64)
}

fn notes(sample: &Sample) -> String {
    sample.noted().map(|(_, words)| words).collect::<Vec<_>>().join(" ")
}

/// A text that no spreadsheet runs: one that begins like a formula gets a leading apostrophe. Control
/// characters but tabs and ends of lines are escaped.
///
/// <https://owasp.org/www-community/attacks/CSV_Injection>
pub(super) fn text(text: &str) -> String {
    match text.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠') => {
            format!("'{}", visible_lines(text))
        }
        _ => visible_lines(text).into_owned(),
    }
}
