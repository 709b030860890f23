//! Helpers that several protocols share for reading and writing: frames as JSON, texts, counts,
//! times and errors.

use std::{borrow::Cow, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Message, MessagePart, Timings, TokenKind, Usage, error_text,
    json::JsonTree,
};
use crate::{
    framing::Frame,
    prompt::{ChatMessage, ContentPart, Image, Role, Tool, ToolChoice},
};

// -- from the server ------------------------------------------------------------------------------

/// Names and payloads of events that only keep the connection open.
const KEEP_ALIVES: &[&str] =
    &["ping", "pong", "heartbeat", "keepalive", "keep-alive", "keep_alive"];

/// The contents of a frame before its JSON is parsed.
enum Content<'a> {
    /// Nothing: a comment, an event without data, or a keep-alive.
    Nothing,
    /// The end marker `[DONE]`.
    Done,
    /// An error, by the event's name.
    Error(String),
    /// Probably JSON.
    Json(&'a [u8]),
    /// Plain text.
    Plain(&'a [u8]),
    /// Lines that are not fields of an event.
    Stray(&'a [u8]),
}

impl<'a> Content<'a> {
    fn of(frame: &Frame<'a>) -> Self {
        let (name, data) = match *frame {
            Frame::Event { name, data, .. } => (name, data.trim_ascii()),
            Frame::Stray(lines) => return Self::Stray(lines.trim_ascii()),
            Frame::Comment(_) => return Self::Nothing,
        };
        match data {
            _ if is_error_name(name) => Self::Error(error_event(data)),
            b"" | b"null" => Self::Nothing,
            _ if is_done(data) => Self::Done,
            [b'{' | b'[' | b'"', ..] => Self::Json(data),
            _ if is_keep_alive(name.as_bytes()) || is_keep_alive(data) => Self::Nothing,
            _ => Self::Plain(data),
        }
    }
}

/// Returns whether an event with this name is always an error.
fn is_error_name(name: &str) -> bool {
    ["error", "exception", "failed", "failure", "fatal", "timeout"]
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word))
}

/// Returns whether an event with this name is an error if its data looks like one. `server_error`
/// is; `tool_error` is about a tool, and the answer continues after it.
pub(super) fn may_be_error(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends = ["error", "exception", "failed", "failure"];
    let others = ["tool", "call", "search", "item", "step"];
    ends.iter().any(|word| name.ends_with(word))
        && !others.iter().any(|word| name.contains(word))
        && !name.starts_with("no")
}

/// Returns whether `data` is the end marker: `[DONE]`, also without brackets or in quotes.
fn is_done(data: &[u8]) -> bool {
    let bare = data.strip_prefix(b"\"").and_then(|data| data.strip_suffix(b"\"")).unwrap_or(data);
    let bare = bare.trim_ascii();
    bare.eq_ignore_ascii_case(b"[DONE]") || bare.eq_ignore_ascii_case(b"DONE")
}

fn is_keep_alive(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]"));
    let text = inner.unwrap_or(text);
    KEEP_ALIVES.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// Decodes a frame as one message; `read` interprets its JSON and the event's name.
///
/// An event with invalid JSON invalidates the answer only if it may contain a part of it: the
/// protocol `knows` its name, and it looks like JSON. Others become [`MessagePart::Unknown`].
pub(super) fn decode<'a>(
    frame: &Frame<'a>,
    knows: impl Fn(&str) -> bool,
    read: impl Fn(&JsonTree<'a>, &str) -> Message<'a>,
) -> Result<Message<'a>, DecodeError> {
    let name = if let Frame::Event { name, .. } = *frame { name } else { "" };
    let data = match Content::of(frame) {
        Content::Nothing => return Ok(Message::default()),
        Content::Done => return Ok(alone(MessagePart::End)),
        Content::Error(message) => return Ok(alone(MessagePart::Error(message))),
        Content::Plain(text) if may_be_error(name) => {
            return Ok(alone(MessagePart::Error(excerpt(text))));
        }
        Content::Plain(text) => return Ok(alone(plain(text))),
        Content::Stray(lines) => return Ok(alone(stray(lines))),
        Content::Json(data) => data,
    };
    match JsonTree::parse(data) {
        Ok(JsonTree::List(items)) => {
            Ok(joined(items.iter().map(|item| of_json(item, name, &read))))
        }
        Ok(tree) if !knows(name) && may_be_error(name) => {
            let error = error_text::in_error_event(&tree).map(MessagePart::Error);
            let unknown = || MessagePart::Unknown(format!("{name}: {}", excerpt(data)));
            Ok(alone(error.unwrap_or_else(unknown)))
        }
        Ok(tree) => Ok(of_json(&tree, name, &read)),
        // The remaining cases are text that is not JSON. The order goes from harmless to harmful:
        // only a defect in an event that may contain tokens invalidates the answer.
        Err(_) if is_keep_alive(data) => Ok(Message::default()),
        Err(_) if is_bracketed(data) => Ok(alone(plain(data))),
        Err(_) if !name.is_empty() && !knows(name) => {
            Ok(alone(MessagePart::Unknown(format!("{name}: {}", excerpt(data)))))
        }
        Err(error) => Err(undecodable(frame, data, &error)),
    }
}

/// Decodes one JSON document of an event.
fn of_json<'a>(
    tree: &JsonTree<'a>,
    name: &str,
    read: impl Fn(&JsonTree<'a>, &str) -> Message<'a>,
) -> Message<'a> {
    match tree {
        JsonTree::Object(_) => read(tree, name),
        JsonTree::Text(text) if is_keep_alive(text.as_bytes()) => Message::default(),
        tree if tree.is_empty() => Message::default(),
        JsonTree::Text(text) => alone(plain(text.as_bytes())),
        tree => alone(MessagePart::Unknown(excerpt(tree.written().as_bytes()))),
    }
}

/// Joins `messages` into one.
fn joined<'a>(messages: impl Iterator<Item = Message<'a>>) -> Message<'a> {
    messages.fold(Message::default(), |mut all, message| {
        all.id = all.id.or(message.id);
        all.parts.extend(message.parts);
        all
    })
}

/// Interprets plain text: an error if it begins with that word, or if it is a gateway's page or
/// message.
fn plain<'a>(text: &[u8]) -> MessagePart<'a> {
    match is_error_text(text) {
        true => MessagePart::Error(excerpt(text)),
        false => MessagePart::Unknown(excerpt(text)),
    }
}

fn is_error_text(text: &[u8]) -> bool {
    const BEGINNINGS: &[&str] =
        &["error", "[error", "<html", "<!doctype", "fatal", "exception", "traceback (", "{'error'"];
    const WORDS: &[&str] = &[
        "internal server error",
        "bad gateway",
        "service unavailable",
        "gateway time",
        "upstream connect error",
    ];
    let beginning = &text[..text.len().min(200)];
    let beginning = String::from_utf8_lossy(beginning).to_ascii_lowercase();
    BEGINNINGS.iter().any(|with| beginning.starts_with(with))
        || WORDS.iter().any(|words| beginning.contains(words))
}

/// Interprets stray lines. Proxies and back ends write their errors like that into a started
/// stream, in JSON or as text.
fn stray<'a>(lines: &[u8]) -> MessagePart<'a> {
    // An error may be pretty-printed JSON over several lines, or one line of JSON before others.
    let whole = JsonTree::parse(lines).ok();
    let first = || JsonTree::parse(lines.split(|&byte| byte == b'\n').next()?).ok();
    match whole.or_else(first).and_then(|tree| error_text::in_document(&tree)) {
        Some(error) => MessagePart::Error(error),
        None => plain(lines),
    }
}

/// Returns whether `data`, which is not JSON, begins with a word in brackets.
fn is_bracketed(data: &[u8]) -> bool {
    let Some((inner, _)) = data
        .strip_prefix(b"[")
        .and_then(|rest| rest.split_at_checked(rest.iter().position(|&b| b == b']')?))
    else {
        return false;
    };
    let is_of_word =
        |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_' | b' ' | b'/');
    !inner.is_empty() && inner.iter().all(is_of_word)
}

/// Returns the answer's id. Some gateways use numbers.
pub(super) fn id<'a>(tree: &JsonTree<'a>) -> Option<Cow<'a, str>> {
    match tree.get("id") {
        JsonTree::Text(text) => Some(text.clone()),
        other => other.scalar(),
    }
}

/// Returns the finish reason. Some servers send `"null"` before there is one, wrap it in an object
/// or a list, or use a number or `true`.
pub(super) fn finish_reason<'a>(reason: &JsonTree<'a>) -> Option<MessagePart<'a>> {
    let text = match reason {
        JsonTree::Object(_) => reason.first(&["type", "reason", "finish_reason"]).text(),
        JsonTree::List(_) => return reason.items().find_map(finish_reason),
        JsonTree::Bool(false) => None,
        JsonTree::Number(number) if number.as_f64().is_none_or(|number| number <= 0.0) => None,
        _ => reason.scalar(),
    };
    let is_reason = |text: &Cow<'_, str>| {
        !["null", "none"].iter().any(|none| text.trim().eq_ignore_ascii_case(none))
    };
    text.filter(is_reason).map(MessagePart::Finish)
}

/// Returns the choice of an event; `None` for the first choice, which nearly all events have.
pub(super) fn choice<'a>(index: &JsonTree<'_>) -> Option<MessagePart<'a>> {
    let index = index.number().unwrap_or(0.0) as i64;
    (index != 0).then_some(MessagePart::Choice(index))
}

/// Returns a part with `usage`, if it has a count.
pub(super) fn counted<'a>(usage: Usage) -> Option<MessagePart<'a>> {
    (usage != Usage::default()).then_some(MessagePart::Usage(usage))
}

/// Returns a part with `usage`, which was read from `counts`. If `counts` has values that are not
/// counts or have unknown names, a part with the raw counts follows.
pub(super) fn read_usage<'a>(
    usage: Usage,
    counts: &JsonTree<'_>,
) -> impl Iterator<Item = MessagePart<'a>> {
    let is_odd = |(name, value): (&str, &JsonTree<'_>)| match usage == Usage::default() {
        true => value.number().is_some_and(|number| number != 0.0),
        false => name.contains("oken") && value.number().is_some() && value.count().is_none(),
    };
    let is_unread = usage.completion_tokens.is_none() && counts.fields().any(is_odd);
    let unread = is_unread.then(|| MessagePart::UnreadUsage(excerpt(counts.written().as_bytes())));
    counted(usage).into_iter().chain(unread)
}

/// Returns a part with `timings`, if there are any.
pub(super) fn timed<'a>(timings: Timings) -> Option<MessagePart<'a>> {
    (timings != Timings::default()).then_some(MessagePart::Timings(timings))
}

/// Returns the time in `key`, in units of `unit` seconds. Invalid values are skipped: no figure
/// needs them, so the answer stays valid.
pub(super) fn time(object: &JsonTree<'_>, key: &str, unit: f64) -> Option<Duration> {
    let JsonTree::Number(number) = object.get(key) else { return None };
    Duration::try_from_secs_f64(number.as_f64()? * unit).ok()
}

/// Reads llama.cpp's `timings`. `predicted_ms` is the time from the first token, which ends
/// `prompt_ms`, to the last (`server_slot_stats` in `server-common.h`). Neither includes the wait
/// for a slot. `predicted_per_second` is not used, because newer versions count one token less.
pub(super) fn llama_timings(timings: &JsonTree<'_>) -> Timings {
    Timings {
        prompt: time(timings, "prompt_ms", 1e-3),
        generation: time(timings, "predicted_ms", 1e-3),
        ..Timings::default()
    }
}

/// Reads vLLM's `metrics` (`--enable-per-request-metrics`). Its time to first token begins at the
/// end of its queue time.
///
/// <https://docs.vllm.ai/en/stable/features/per_request_metrics/>
pub(super) fn vllm_metrics(metrics: &JsonTree<'_>) -> Timings {
    Timings {
        queue: time(metrics, "queue_time_ms", 1e-3),
        prompt: time(metrics, "time_to_first_token_ms", 1e-3),
        generation: time(metrics, "generation_time_ms", 1e-3),
        may_hold_first: false,
    }
}

/// Creates a message of one part, without an id.
pub(super) fn alone(part: MessagePart<'_>) -> Message<'_> {
    Message { id: None, parts: vec![part] }
}

/// Returns the error in an event called `name`. `answers` says whether the event has a part of the
/// answer. A lone `message` is an error only in an event without a name: in other kinds of events
/// it can mean anything.
pub(super) fn error<'a>(
    event: &JsonTree<'_>,
    name: &str,
    answers: bool,
) -> Option<MessagePart<'a>> {
    let error = match answers || !matches!(name, "" | "message") {
        true => error_text::in_event(event),
        false => error_text::in_document(event),
    };
    error.map(MessagePart::Error)
}

/// Returns the error in a part of an event, such as a choice.
pub(super) fn error_in<'a>(part: &JsonTree<'_>) -> Option<MessagePart<'a>> {
    error_text::in_event(part).map(MessagePart::Error)
}

/// Returns the text of an event called `error`, whatever its format.
fn error_event(data: &[u8]) -> String {
    match JsonTree::parse(data) {
        Ok(tree) => error_text::described(&tree),
        Err(_) if data.is_empty() => "the server sent an error event without data".into(),
        Err(_) => excerpt(data),
    }
}

/// Returns the error message of a JSON body.
pub(super) fn complaint_in(body: &[u8]) -> Option<String> {
    error_text::in_body(&JsonTree::parse(body.trim_ascii()).ok()?)
}

fn undecodable(frame: &Frame<'_>, data: &[u8], error: &serde_json::Error) -> DecodeError {
    let excerpt = excerpt(data);
    let cut = matches!(frame, Frame::Event { terminated: false, .. });
    let lines = documents_in_lines(data);
    DecodeError(if lines > 1 {
        format!(
            "{lines} `data:` lines came without a blank line between them, which makes them one \
             event by the specification of server-sent events: {excerpt}"
        )
    } else if cut {
        format!("the stream was cut in the middle of an event: {excerpt}")
    } else {
        format!("an event is not JSON ({error}): {excerpt}")
    })
}

/// Returns the number of lines of `data` that are JSON documents, if the first one is.
fn documents_in_lines(data: &[u8]) -> usize {
    let mut lines = data.split(|&byte| byte == b'\n');
    let is_document = |line: &&[u8]| matches!(JsonTree::parse(line), Ok(JsonTree::Object(_)));
    let first = lines.next().filter(is_document);
    first.map_or(0, |_| 1 + lines.filter(|line| is_document(line) || is_done(line)).count())
}

/// Returns the beginning of `data` on one line.
pub(super) fn excerpt(data: &[u8]) -> String {
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

/// Formats an event without a name.
pub(super) fn event(json: &Value) -> String {
    format!("data: {json}\n\n")
}

/// Merges the user's fields into `body`. A map in the key `merged` is merged field by field.
///
/// `null` removes a field, and so does a map that becomes empty.
pub(super) fn add_own(body: &mut Value, ask: &ChatRequest<'_>, merged: Option<&str>) {
    let Value::Object(body) = body else { return };
    for (key, own) in ask.extra_body {
        let field = match (body.get_mut(key), own) {
            (Some(Value::Object(fields)), Value::Object(own)) if merged == Some(key) => {
                fields.extend(own.clone());
                without_nulls(Value::Object(std::mem::take(fields)))
            }
            (None, Value::Object(_)) if merged == Some(key) => without_nulls(own.clone()),
            _ => own.clone(),
        };
        let is_empty = merged == Some(key) && field.as_object().is_some_and(Map::is_empty);
        body.insert(key.clone(), if is_empty { Value::Null } else { field });
    }
    body.retain(|_, value| !value.is_null());
}

/// Why `extra_body` must not turn off the stream.
pub(super) const STREAM_FIELD: &str =
    "would turn off the stream that is measured: write it as a field of the model instead";

/// Fields of all protocols that `null` must not remove: the model, the prompt, the cache buster and
/// the stream.
pub const NEVER_LEFT_OUT: &[&str] =
    &["model", "messages", "prompt", "input", "inputs", "system", "instructions", "stream"];

/// Returns whether `null` for `key` in a model's `extra_body` may remove the field.
pub(super) fn may_be_left_out(key: &str) -> bool {
    !NEVER_LEFT_OUT.contains(&key)
}

/// Joins the prompt's messages with blank lines, for protocols without roles.
pub(super) fn plain_prompt(ask: &ChatRequest<'_>) -> String {
    ask.messages.iter().map(ChatMessage::joined).collect::<Vec<_>>().join("\n\n")
}

/// Formats the messages for OpenAI's chat.
pub(super) fn chat_messages(ask: &ChatRequest<'_>) -> Value {
    let image = |image: &Image| json!({"type": "image_url", "image_url": {"url": image.url()}});
    let message = |message: &ChatMessage| json!({"role": message.role.name(), "content": content(message, "text", image)});
    ask.messages.iter().map(message).collect()
}

/// Adds the tools for OpenAI's chat.
pub(super) fn add_chat_tools(body: &mut Value, ask: &ChatRequest<'_>) {
    let tool = |tool: &Tool| json!({"type": "function", "function": tool.0});
    if !ask.tools.offered().is_empty() {
        body["tools"] = ask.tools.offered().iter().map(tool).collect();
    }
}

/// Adds the choice of a tool. `function` formats its name.
pub(super) fn add_choice(
    body: &mut Value,
    ask: &ChatRequest<'_>,
    function: impl Fn(&str) -> Value,
) {
    match ask.tools.chosen() {
        None => {}
        Some(ToolChoice::Named(name)) => body["tool_choice"] = function(name),
        Some(word) => body["tool_choice"] = word.name().into(),
    }
}

/// Returns the system message and the others.
pub(super) fn system_apart<'a>(ask: &ChatRequest<'a>) -> (Option<Cow<'a, str>>, &'a [ChatMessage]) {
    match ask.messages {
        [first, others @ ..] if first.role == Role::System => (Some(first.joined()), others),
        all => (None, all),
    }
}

/// Formats a message: a string if it is only text, otherwise a list of parts with the type `text`
/// for text. `image` formats an image.
pub(super) fn content(message: &ChatMessage, text: &str, image: impl Fn(&Image) -> Value) -> Value {
    let piece = |piece: &ContentPart| match piece {
        ContentPart::Text(error) => json!({"type": text, "text": error}),
        ContentPart::Image(shown) => image(shown),
    };
    match message.content.as_slice() {
        [ContentPart::Text(only)] => only.as_str().into(),
        pieces => pieces.iter().map(piece).collect(),
    }
}

/// Joins the text of one kind.
pub(super) fn text_of(wanted: TokenKind, parts: &[MessagePart<'_>]) -> Option<String> {
    let texts = parts.iter().filter_map(|part| match part {
        MessagePart::Token(kind, text) if *kind == wanted => Some(text.as_ref()),
        _ => None,
    });
    Some(texts.collect::<String>()).filter(|text| !text.is_empty())
}

/// Joins the text of all tokens, for protocols without kinds.
pub(super) fn all_text(parts: &[MessagePart<'_>]) -> Option<String> {
    let texts = parts.iter().filter_map(|part| match part {
        MessagePart::Token(_, text) => Some(text.as_ref()),
        _ => None,
    });
    Some(texts.collect::<String>()).filter(|text| !text.is_empty())
}

/// Returns the finish reason.
pub(super) fn finish_of<'a>(parts: &'a [MessagePart<'_>]) -> Option<&'a str> {
    parts.iter().find_map(|part| match part {
        MessagePart::Finish(reason) => Some(reason.as_ref()),
        _ => None,
    })
}

/// Returns the usage.
pub(super) fn usage_of(parts: &[MessagePart<'_>]) -> Option<Usage> {
    parts.iter().find_map(|part| match part {
        MessagePart::Usage(usage) => Some(*usage),
        _ => None,
    })
}

/// Returns the server's times.
pub(super) fn timings_of(parts: &[MessagePart<'_>]) -> Option<Timings> {
    parts.iter().find_map(|part| match part {
        MessagePart::Timings(timings) => Some(*timings),
        _ => None,
    })
}

/// Formats times like vLLM.
pub(super) fn metrics_json(timings: &Timings) -> Value {
    without_nulls(json!({
        "time_to_first_token_ms": timings.prompt.map(milliseconds),
        "generation_time_ms": timings.generation.map(milliseconds),
        "queue_time_ms": timings.queue.map(milliseconds),
    }))
}

/// Returns a time in milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

/// Returns the finish reason in the protocol's `words`: for an answer that the model ended, and for
/// an answer that `max_tokens` ended.
pub(super) fn in_words(
    parts: Vec<MessagePart<'static>>,
    words: (&'static str, &'static str),
) -> Vec<MessagePart<'static>> {
    let word = |part| match part {
        MessagePart::Finish(reason) if reason == "length" => MessagePart::Finish(words.1.into()),
        MessagePart::Finish(_) => MessagePart::Finish(words.0.into()),
        other => other,
    };
    parts.into_iter().map(word).collect()
}

/// Arranges the ending of a protocol whose last event has everything and is the end marker.
pub(super) fn in_one(
    parts: Vec<MessagePart<'static>>,
    words: (&'static str, &'static str),
) -> Vec<Vec<MessagePart<'static>>> {
    let parts = in_words(parts, words);
    let is_whole = finish_of(&parts).is_some() && parts.contains(&MessagePart::End);
    is_whole.then_some(parts).into_iter().collect()
}

/// Formats `seconds` since 1970 as RFC 3339.
pub(super) fn utc(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Returns the errors.
pub(super) fn errors_of<'a>(parts: &'a [MessagePart<'_>]) -> impl Iterator<Item = &'a str> {
    parts.iter().filter_map(|part| match part {
        MessagePart::Error(message) => Some(message.as_str()),
        _ => None,
    })
}

/// Removes the fields of `object` that are null.
pub(super) fn without_nulls(mut object: Value) -> Value {
    if let Value::Object(fields) = &mut object {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

/// Returns the number of characters in a request's text: a string, a list of strings, or objects
/// with a `content` or a `text`.
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

/// Adds the fields that demand a length of the answer: vLLM's, which SGLang and llama.cpp also
/// accept.
pub(super) fn add_length(body: &mut Value, ask: &ChatRequest<'_>) {
    if let Some(tokens) = ask.min_tokens {
        body["min_tokens"] = tokens.into();
    }
    if ask.ignore_eos {
        body["ignore_eos"] = true.into();
    }
}

/// Returns the smallest number of tokens that a body demands, limited by `most`.
pub(super) fn min_tokens(body: &Map<String, Value>, most: Option<u64>) -> u64 {
    match body.get("ignore_eos") {
        Some(Value::Bool(true)) => most.unwrap_or(u64::MAX),
        _ => number(body, "min_tokens").unwrap_or(0),
    }
}

/// Returns the whole number in a request's field.
pub(super) fn number(fields: &Map<String, Value>, key: &str) -> Option<u64> {
    fields.get(key).and_then(Value::as_u64)
}
