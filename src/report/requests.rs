//! The columns of `results.csv`: one row per request. The 14 columns of the first versions are the
//! leading ones, in their order and with their meaning.

use llm_stream_core::{
    metric::{DEFINITIONS, Metric, Unit},
    sample::{CountKind, Sample},
};

use super::csv::{Column, CsvRow, optional, seconds, text};
use crate::row::Row;

impl CsvRow for Row {
    const COLUMNS: &'static [Column<Self>] = &[
        ("model_name", |row| text(&row.case.target.name)),
        ("prompt_tokens", |row| of_sample(row, |sample| optional(sample.prompt_tokens))),
        ("response_tokens", |row| of_text(row, |sample| sample.response_tokens.to_string())),
        ("total_tokens", |row| of_sample(row, |sample| optional(sample.total_tokens))),
        ("total_time", |row| figure(row, Metric::TOTAL_TIME)),
        ("preprocess_time", |row| figure(row, Metric::TTFT)),
        ("generation_time", |row| figure(row, Metric::GENERATION_TIME)),
        ("total_tokens_per_second", |row| figure(row, Metric::TOTAL_TOKENS_PER_SECOND)),
        ("preprocess_speed", |row| figure(row, Metric::PREPROCESS_SPEED)),
        ("generation_speed", |row| figure(row, Metric::GENERATION_SPEED)),
        ("timestamp", |row| format!("{:.6}", row.started)),
        ("success", |row| row.outcome.is_ok().to_string()),
        ("error_message", |row| {
            optional(row.outcome.as_ref().err().map(|error| text(&error.message)))
        }),
        ("streaming_used", |row| row.case.target.protocol.is_streamed().to_string()),
        ("trial", |row| text(&row.case.name)),
        ("prompt", |row| text(row.prompt.title())),
        ("run", |row| row.case.run.to_string()),
        ("turn", |row| optional(row.prompt.turn.as_ref().map(|turn| turn.number))),
        ("workload", |row| text(row.case.task.workload().map_or("", |workload| &workload.name))),
        ("request", |row| optional(row.place.map(|place| place.request))),
        ("scheduled", |row| optional(row.place.and_then(|place| place.scheduled).map(seconds))),
        ("sent", |row| optional(row.place.and_then(|place| place.sent).map(seconds))),
        ("send_lag", |row| figure(row, Metric::SEND_LAG)),
        ("model", |row| text(row.prompt.model.as_deref().unwrap_or(&row.case.target.model))),
        ("endpoint", |row| {
            let replica = row.place.map(|place| place.replica).unwrap_or_default();
            text(row.case.target.replica_name(replica))
        }),
        ("simulated", |row| row.case.target.is_simulated().to_string()),
        ("protocol", |row| row.case.target.protocol.name().into()),
        ("request_id", |row| {
            of_sample(row, |sample| text(sample.request_id.as_deref().unwrap_or_default()))
        }),
        ("ttfo", |row| figure(row, Metric::TTFO)),
        ("tpot", |row| figure(row, Metric::TPOT)),
        ("itl", |row| figure(row, Metric::ITL)),
        ("itl_max", |row| figure(row, Metric::ITL_MAX)),
        ("e2e", |row| figure(row, Metric::E2E)),
        ("first_byte_time", |row| figure(row, Metric::FIRST_BYTE_TIME)),
        ("first_event_time", |row| figure(row, Metric::FIRST_EVENT_TIME)),
        ("connect_time", |row| figure(row, Metric::CONNECT_TIME)),
        ("tls_time", |row| figure(row, Metric::TLS_TIME)),
        ("send_time", |row| figure(row, Metric::SEND_TIME)),
        ("clock", |row| of_sample(row, |sample| sample.stamped_by.name().into())),
        ("finish_reason", |row| of_sample(row, |sample| text(&sample.finish_reason))),
        ("cached_tokens", |row| of_sample(row, |sample| optional(sample.cached_tokens))),
        ("uncached_preprocess_speed", |row| figure(row, Metric::UNCACHED_PREPROCESS_SPEED)),
        ("reasoning_tokens", |row| of_sample(row, |sample| optional(sample.reasoning_tokens))),
        ("token_events", |row| of_stream(row, |sample| sample.token_events.len().to_string())),
        ("shared_arrivals", |row| of_stream(row, |sample| sample.shared_arrivals().to_string())),
        ("tokens_per_event", |row| of_stream(row, tokens_per_event)),
        ("token_count_source", |row| of_text(row, |sample| sample.token_count.name().into())),
        ("notes", |row| of_sample(row, notes)),
        ("error_kind", |row| optional(row.outcome.as_ref().err().map(|error| error.kind))),
        ("definitions", |_| DEFINITIONS.into()),
        ("version", |_| env!("CARGO_PKG_VERSION").into()),
        ("server_generation_speed", |row| figure(row, Metric::SERVER_GENERATION_SPEED)),
        ("server_generation_time", |row| figure(row, Metric::SERVER_GENERATION_TIME)),
        ("generation_beyond_server", |row| figure(row, Metric::GENERATION_BEYOND_SERVER)),
        ("server_ttft", |row| figure(row, Metric::SERVER_TTFT)),
        ("server_queue_time", |row| figure(row, Metric::SERVER_QUEUE_TIME)),
        ("server_prompt_time", |row| figure(row, Metric::SERVER_PROMPT_TIME)),
        ("ttft_beyond_server", |row| figure(row, Metric::TTFT_BEYOND_SERVER)),
        ("server_head_time", |row| figure(row, Metric::SERVER_HEAD_TIME)),
        ("first_byte_beyond_server", |row| figure(row, Metric::FIRST_BYTE_BEYOND_SERVER)),
        ("first_reasoning_time", |row| figure(row, Metric::FIRST_REASONING_TIME)),
        ("arrival_uncertainty", |row| of_sample(row, |sample| seconds(sample.uncertainty.largest))),
        ("good", |row| optional(row.case.group.goodput.are_met(&row.outcome))),
        ("part", |row| text(row.part_name().unwrap_or_default())),
        ("begun", |row| optional(row.place.map(|place| seconds(place.begun)))),
        ("items", |row| of_sample(row, |sample| optional(sample.items))),
        ("items_per_second", |row| figure(row, Metric::ITEMS_PER_SECOND)),
    ];
}

/// Formats a cell of a valid answer; the cell of a failed request is empty.
fn of_sample(row: &Row, cell: impl Fn(&Sample) -> String) -> String {
    row.outcome.as_ref().map(cell).unwrap_or_default()
}

/// Formats a cell of a valid answer of generated text.
fn of_text(row: &Row, cell: impl Fn(&Sample) -> String) -> String {
    of_sample(row, |sample| if sample.items.is_none() { cell(sample) } else { String::new() })
}

/// Formats a cell of a valid answer that was streamed; others have no events.
fn of_stream(row: &Row, cell: impl Fn(&Sample) -> String) -> String {
    of_sample(row, |sample| if sample.is_streamed { cell(sample) } else { String::new() })
}

/// Formats the metric's value: times to the nanosecond, speeds to a thousandth of a token per second.
fn figure(row: &Row, metric: &Metric) -> String {
    let digits = if metric.unit == Unit::Seconds { 9 } else { 3 };
    let value = row.outcome.as_ref().ok().and_then(|sample| metric.of(sample));
    optional(value.map(|value| format!("{value:.digits$}")))
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
