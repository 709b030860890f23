//! What several protocols read and write alike: JSON that is borrowed from the bytes, counts, and
//! what a server complains of.

use std::{borrow::Cow, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::{Ask, DecodeError, Message, Part, Timings, TokenKind, Usage};
use crate::{
    framing::Frame,
    prompt::{ChatMessage, Image, Piece, Role, Tool, ToolChoice},
};

// -- from the server ------------------------------------------------------------------------------

/// What a frame holds, before its JSON is read.
pub(super) enum Content<'a> {
    /// Nothing: a comment, or an event without data.
    Nothing,
    /// The end marker `[DONE]`.
    Done,
    /// An error, by the event's name.
    Error(String),
    /// JSON, as far as can be told from outside.
    Json(&'a [u8]),
}

impl<'a> Content<'a> {
    /// The content of `frame`.
    pub(super) fn of(frame: &Frame<'a>) -> Self {
        let Frame::Event { name, data, .. } = *frame else {
            return Self::Nothing;
        };
        match data.trim_ascii() {
            data if name == "error" => Self::Error(error_event(data)),
            b"" => Self::Nothing,
            b"[DONE]" => Self::Done,
            data => Self::Json(data),
        }
    }
}

/// Reads a frame as one message: its JSON as a `T`, which `read` makes a message of.
pub(super) fn decode<'a, T: Deserialize<'a>>(
    frame: &Frame<'a>,
    what: &str,
    read: impl FnOnce(T, &'a [u8]) -> Result<Message<'a>, DecodeError>,
) -> Result<Message<'a>, DecodeError> {
    match Content::of(frame) {
        Content::Nothing => Ok(Message::default()),
        Content::Done => Ok(alone(Part::End)),
        Content::Error(message) => Ok(alone(Part::Error(message))),
        Content::Json(data) => match json(data) {
            Ok(json) => read(json, data),
            Err(error) => Err(undecodable(frame, data, what, &error)),
        },
    }
}

/// Reads JSON. To check once that all of it is text is faster than string by string.
fn json<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, serde_json::Error> {
    match std::str::from_utf8(data) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(data),
    }
}

/// A string that borrows where it has no escapes: serde copies a bare `Option<Cow<str>>`.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// A text that says something.
pub(super) fn filled(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|text| text.0).filter(|text| !text.is_empty())
}

/// Some gateways number their answers.
#[derive(Deserialize)]
#[serde(untagged, expecting = "the id is neither text nor a number")]
pub(super) enum Id<'a> {
    Text(#[serde(borrow)] Text<'a>),
    Number(Number),
}

impl<'a> Id<'a> {
    pub(super) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.0,
            Self::Number(number) => number.to_string().into(),
        }
    }
}

/// A number of tokens, `None` where it is negative: -1 stands for one that is not known. Gateways
/// in languages without integers write `12.0`.
#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "Number")]
pub(super) struct Count(Option<u64>);

impl TryFrom<Number> for Count {
    type Error = String;

    fn try_from(number: Number) -> Result<Self, String> {
        /// Beyond it, not every whole number is an `f64`.
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        let whole = |value: &f64| value.fract() == 0.0 && *value <= EXACT;
        match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => Ok(Self(Some(count))),
            (None, Some(value)) if value < 0.0 => Ok(Self(None)),
            (None, Some(value)) if whole(&value) => Ok(Self(Some(value as u64))),
            _ => Err(format!("`{number}` is no number of tokens")),
        }
    }
}

/// The count, if it is known.
pub(super) fn known(count: Option<Count>) -> Option<u64> {
    count.and_then(|count| count.0)
}

/// The part that says `usage`, if it counts anything.
pub(super) fn counted<'a>(usage: Usage) -> Option<Part<'a>> {
    (usage != Usage::default()).then_some(Part::Usage(usage))
}

/// The part that says `timings`, if there are any.
pub(super) fn timed<'a>(timings: Timings) -> Option<Part<'a>> {
    (timings != Timings::default()).then_some(Part::Timings(timings))
}

/// The time under `key`, in units of so many seconds. What is no time is none: an answer does not
/// fail by what is said beside it.
pub(super) fn time(object: &Value, key: &str, unit: f64) -> Option<Duration> {
    time_of(object.get(key)?, unit)
}

/// The same of a value.
pub(super) fn time_of(value: &Value, unit: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()? * unit).ok()
}

/// llama.cpp's `timings`. `predicted_ms` goes from the first token, which ends `prompt_ms`, to the
/// last (`server_slot_stats` in `server-common.h`); waiting for a slot is in neither. Its
/// `predicted_per_second` is of one token less in newer versions, so it is not read.
pub(super) fn llama_timings(timings: &Value) -> Timings {
    Timings {
        prompt: time(timings, "prompt_ms", 1e-3),
        generation: time(timings, "predicted_ms", 1e-3),
        ..Timings::default()
    }
}

/// vLLM's `metrics`, with `--enable-per-request-metrics`. Its time to first token begins where its
/// queue ends.
///
/// <https://docs.vllm.ai/en/stable/features/per_request_metrics/>
pub(super) fn vllm_metrics(metrics: &Value) -> Timings {
    Timings {
        queue: time(metrics, "queue_time_ms", 1e-3),
        prompt: time(metrics, "time_to_first_token_ms", 1e-3),
        generation: time(metrics, "generation_time_ms", 1e-3),
        may_hold_first: false,
    }
}

/// Fails for a token of another answer than the first.
pub(super) fn refuse_others(index: Option<i64>) -> Result<(), DecodeError> {
    match index {
        None | Some(0) => Ok(()),
        Some(_) => {
            let why = "the answer has several choices, whose tokens are not counted apart";
            Err(DecodeError(why.into()))
        }
    }
}

/// A message of one part, without an id.
pub(super) fn alone(part: Part<'_>) -> Message<'_> {
    Message { id: None, parts: vec![part] }
}

/// What an event with the name `error` says: anything in it is the error.
fn error_event(data: &[u8]) -> String {
    match complaint_in(data) {
        Some(message) => message,
        None if data.is_empty() => "the server sent an error event without data".into(),
        None => excerpt(data),
    }
}

/// What a JSON body complains of.
pub(super) fn complaint_in(body: &[u8]) -> Option<String> {
    complaint(&serde_json::from_slice(body).ok()?)
}

/// What a JSON document complains of:
/// `{"error": {"message": …}}` (OpenAI), `{"error": …}` (transformers, Ollama), `{"message": …}`
/// (older vLLM), `{"detail": …}` (FastAPI), or a list of such (Gemini).
fn complaint(document: &Value) -> Option<String> {
    match document {
        Value::Array(documents) => documents.iter().find_map(complaint),
        Value::Object(fields) => {
            let error = fields.get("error").and_then(error_text);
            error.or_else(|| text(fields.get("message"))).or_else(|| detail(fields.get("detail")?))
        }
        _ => None,
    }
}

fn error_text(error: &Value) -> Option<String> {
    match error {
        Value::Object(fields) if !fields.is_empty() => {
            Some(text(fields.get("message")).unwrap_or_else(|| error.to_string()))
        }
        _ => text(Some(error)),
    }
}

/// FastAPI's `detail`: a sentence, or a list of `{"loc": ["body", "n"], "msg": …}`.
fn detail(detail: &Value) -> Option<String> {
    match detail {
        Value::Array(problems) if !problems.is_empty() => {
            Some(problems.iter().map(located).collect::<Vec<_>>().join("; "))
        }
        _ => text(Some(detail)),
    }
}

fn located(problem: &Value) -> String {
    let steps = problem["loc"].as_array().into_iter().flatten();
    let place: Vec<_> = steps.map(|step| step.to_string().replace('"', "")).collect();
    match problem["msg"].as_str() {
        Some(message) if place.is_empty() => message.into(),
        Some(message) => format!("{}: {message}", place.join(".")),
        None => problem.to_string(),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| !text.is_empty()).map(Into::into)
}

fn undecodable(
    frame: &Frame<'_>,
    data: &[u8],
    what: &str,
    error: &serde_json::Error,
) -> DecodeError {
    let excerpt = excerpt(data);
    let cut = matches!(frame, Frame::Event { terminated: false, .. });
    DecodeError(if cut {
        format!("the stream was cut in the middle of an event: {excerpt}")
    } else if error.is_data() {
        format!("an event is no {what} ({error}): {excerpt}")
    } else {
        format!("an event is not JSON ({error}): {excerpt}")
    })
}

/// The first characters of `data`, in one line.
fn excerpt(data: &[u8]) -> String {
    const LENGTH: usize = 120;
    let text = String::from_utf8_lossy(data);
    let shown = text.chars().take(LENGTH).flat_map(|c| match c.is_control() {
        true => c.escape_default().collect(),
        false => vec![c],
    });
    let rest = if text.chars().nth(LENGTH).is_some() { "…" } else { "" };
    shown.chain(rest.chars()).collect()
}

// -- to the server, and from the simulated one ----------------------------------------------------

/// An event without a name.
pub(super) fn event(json: &Value) -> String {
    format!("data: {json}\n\n")
}

/// Adds the fields of `more` to those of the object `body[key]`, or sets it.
pub(super) fn merge(body: &mut Value, key: &str, more: &Value) {
    match (&mut body[key], more) {
        (Value::Object(fields), Value::Object(more)) => fields.extend(more.clone()),
        (field, more) => *field = more.clone(),
    }
}

/// The prompt where there are no roles: one message after the other, a blank line between them.
pub(super) fn plain_prompt(ask: &Ask<'_>) -> String {
    ask.messages.iter().map(ChatMessage::joined).collect::<Vec<_>>().join("\n\n")
}

/// The messages as OpenAI's chat has them.
pub(super) fn chat_messages(ask: &Ask<'_>) -> Value {
    let image = |image: &Image| json!({"type": "image_url", "image_url": {"url": image.url()}});
    let message = |message: &ChatMessage| json!({"role": message.role.name(), "content": content(message, "text", image)});
    ask.messages.iter().map(message).collect()
}

/// Adds the tools as OpenAI's chat has them.
pub(super) fn add_chat_tools(body: &mut Value, ask: &Ask<'_>) {
    let tool = |tool: &Tool| json!({"type": "function", "function": tool.0});
    if !ask.tools.offered().is_empty() {
        body["tools"] = ask.tools.offered().iter().map(tool).collect();
    }
}

/// Adds which tool is to be called: in OpenAI's words, or as `function` has its name.
pub(super) fn add_choice(body: &mut Value, ask: &Ask<'_>, function: impl Fn(&str) -> Value) {
    match ask.tools.chosen() {
        None => {}
        Some(ToolChoice::Named(name)) => body["tool_choice"] = function(name),
        Some(word) => body["tool_choice"] = word.name().into(),
    }
}

/// The system message, and the others.
pub(super) fn system_apart<'a>(ask: &Ask<'a>) -> (Option<Cow<'a, str>>, &'a [ChatMessage]) {
    match ask.messages {
        [first, others @ ..] if first.role == Role::System => (Some(first.joined()), others),
        all => (None, all),
    }
}

/// What a message says: text as it is where it is nothing else, or a list of its pieces, of which
/// those of text have the type `text` and images are made by `image`.
pub(super) fn content(message: &ChatMessage, text: &str, image: impl Fn(&Image) -> Value) -> Value {
    let piece = |piece: &Piece| match piece {
        Piece::Text(said) => json!({"type": text, "text": said}),
        Piece::Image(shown) => image(shown),
    };
    match message.content.as_slice() {
        [Piece::Text(only)] => only.as_str().into(),
        pieces => pieces.iter().map(piece).collect(),
    }
}

/// All the text of one kind.
pub(super) fn text_of(wanted: TokenKind, parts: &[Part<'_>]) -> Option<String> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Token(kind, text) if *kind == wanted => Some(text.as_ref()),
        _ => None,
    });
    Some(texts.collect::<String>()).filter(|text| !text.is_empty())
}

/// The text of all tokens, for protocols with one kind of them.
pub(super) fn all_text(parts: &[Part<'_>]) -> Option<String> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Token(_, text) => Some(text.as_ref()),
        _ => None,
    });
    Some(texts.collect::<String>()).filter(|text| !text.is_empty())
}

/// The finish reason in `parts`.
pub(super) fn finish_of<'a>(parts: &'a [Part<'_>]) -> Option<&'a str> {
    parts.iter().find_map(|part| match part {
        Part::Finish(reason) => Some(reason.as_ref()),
        _ => None,
    })
}

/// The usage in `parts`.
pub(super) fn usage_of(parts: &[Part<'_>]) -> Option<Usage> {
    parts.iter().find_map(|part| match part {
        Part::Usage(usage) => Some(*usage),
        _ => None,
    })
}

/// The server's own times in `parts`.
pub(super) fn timings_of(parts: &[Part<'_>]) -> Option<Timings> {
    parts.iter().find_map(|part| match part {
        Part::Timings(timings) => Some(*timings),
        _ => None,
    })
}

/// The times as vLLM writes them.
pub(super) fn metrics_json(timings: &Timings) -> Value {
    without_nulls(json!({
        "time_to_first_token_ms": timings.prompt.map(milliseconds),
        "generation_time_ms": timings.generation.map(milliseconds),
        "queue_time_ms": timings.queue.map(milliseconds),
    }))
}

/// A time as JSON, in milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

/// The finish reason in the protocol's `words`: for an answer that the model ended, and for one
/// that ran into `max_tokens`.
pub(super) fn in_words(
    parts: Vec<Part<'static>>,
    words: (&'static str, &'static str),
) -> Vec<Part<'static>> {
    let word = |part| match part {
        Part::Finish(reason) if reason == "length" => Part::Finish(words.1.into()),
        Part::Finish(_) => Part::Finish(words.0.into()),
        other => other,
    };
    parts.into_iter().map(word).collect()
}

/// The ending of a protocol whose last event says all of it and is the end marker: that event, or
/// none.
pub(super) fn in_one(
    parts: Vec<Part<'static>>,
    words: (&'static str, &'static str),
) -> Vec<Vec<Part<'static>>> {
    let parts = in_words(parts, words);
    let is_whole = finish_of(&parts).is_some() && parts.contains(&Part::End);
    is_whole.then_some(parts).into_iter().collect()
}

/// `seconds` since 1970 as RFC 3339 has it.
pub(super) fn utc(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The errors in `parts`.
pub(super) fn errors_of<'a>(parts: &'a [Part<'_>]) -> impl Iterator<Item = &'a str> {
    parts.iter().filter_map(|part| match part {
        Part::Error(message) => Some(message.as_str()),
        _ => None,
    })
}

/// `object` without the fields that are null.
pub(super) fn without_nulls(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// Characters of a request's text: strings, lists of such, or objects with a `content` or a `text`
/// of such.
pub(super) fn text_chars(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.chars().count() as u64,
        Value::Array(items) => items.iter().map(text_chars).sum(),
        Value::Object(fields) => {
            ["content", "text"].iter().filter_map(|key| fields.get(*key)).map(text_chars).sum()
        }
        _ => 0,
    }
}

/// Adds the fields by which an answer's length is demanded: vLLM's, which SGLang and llama.cpp have
/// taken over.
pub(super) fn add_length(body: &mut Value, ask: &Ask<'_>) {
    if let Some(tokens) = ask.min_tokens {
        body["min_tokens"] = tokens.into();
    }
    if ask.ignore_eos {
        body["ignore_eos"] = true.into();
    }
}

/// Fewest tokens that a body with such fields demands, of at most `most`.
pub(super) fn min_tokens(body: &Map<String, Value>, most: Option<u64>) -> u64 {
    match body.get("ignore_eos") {
        Some(Value::Bool(true)) => most.unwrap_or(u64::MAX),
        _ => number(body, "min_tokens").unwrap_or(0),
    }
}

/// The whole number in a request's field.
pub(super) fn number(fields: &Map<String, Value>, key: &str) -> Option<u64> {
    fields.get(key).and_then(Value::as_u64)
}
