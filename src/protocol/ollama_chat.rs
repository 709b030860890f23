//! Ollama's own chat: a JSON document a line.
//!
//! <https://docs.ollama.com/api/chat>

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{
    Ask, DecodeError, Envelope, Message, Part, Protocol, Timings, TokenKind, Usage, Wish,
    wire::{self, Count, Text, counted, filled, known, timed},
};
use crate::{
    framing::{Frame, Framing},
    prompt::{ChatMessage, Image},
};

/// `POST /api/chat`.
///
/// One frame can say, in this order: one token of each kind (reasoning, answer, tool call); a
/// finish reason; the numbers of the prompt's, of its cached and of the answer's tokens; times; the
/// end. Or a role alone.
/// Or an error alone. There is no id, and of reasoning tokens nothing is told.
///
/// A tool call comes whole; its token's text is the tool's name.
#[derive(Debug)]
pub struct OllamaChat;

impl Protocol for OllamaChat {
    fn name(&self) -> &'static str {
        "ollama_chat"
    }

    fn path(&self) -> &'static str {
        "/api/chat"
    }

    fn prefix(&self) -> &'static str {
        ""
    }

    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let mut body = json!({
            "model": ask.model,
            "messages": ask.messages.iter().map(message_json).collect::<Vec<_>>(),
            "stream": true,
            "options": {"temperature": ask.temperature, "num_predict": ask.max_tokens},
        });
        wire::add_chat_tools(&mut body, ask);
        for (key, value) in ask.extra_body {
            match key.as_str() {
                "options" => wire::merge(&mut body, key, value),
                _ => body[key] = value.clone(),
            }
        }
        body
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools"]
    }

    fn takes(&self, image: &Image) -> bool {
        matches!(image, Image::Data { .. })
    }

    fn refuses(&self, key: &str, value: &Value) -> Option<String> {
        let set_by = |inner: &str, field: &str| {
            let sets = value.get(inner).is_some();
            sets.then(|| format!("`options.{inner}` is set by the model's own field `{field}`"))
        };
        match key {
            "messages" => Some("`messages` is made from the prompts: use `prompts`".into()),
            "model" => Some("`model` is set by the model's own field `model_name`".into()),
            "stream" if *value != true => {
                Some(format!("`stream: {value}` would turn off the stream that is measured"))
            }
            "options" if !value.is_object() => Some(format!("`options: {value}` is no mapping")),
            "options" => {
                set_by("temperature", "temperature").or_else(|| set_by("num_predict", "max_tokens"))
            }
            _ => None,
        }
    }

    fn wish(&self, body: &Map<String, Value>) -> Wish {
        let options = body.get("options").and_then(Value::as_object);
        Wish {
            max_tokens: options.and_then(|options| wire::number(options, "num_predict")),
            prompt_chars: body.get("messages").map_or(0, wire::text_chars),
            // What is not said asks for a stream.
            stream: body.get("stream").is_none_or(|stream| *stream == true),
            ..Wish::of(body)
        }
    }

    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, "line of a chat", message)
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let is_error = |part: &Part<'_>| matches!(part, Part::Error(_));
        let mut lines = String::new();
        if message.parts.is_empty() || !message.parts.iter().all(is_error) {
            lines += &format!("{}\n", line_json(&message.parts, envelope));
        }
        for error in wire::errors_of(&message.parts) {
            lines += &format!("{}\n", json!({"error": error}));
        }
        lines.into_bytes()
    }

    fn ending(&self, parts: Vec<Part<'static>>) -> Vec<Vec<Part<'static>>> {
        wire::in_one(parts, ("stop", "length"))
    }

    fn encode_error(&self, _: u16, message: &str) -> Vec<u8> {
        json!({"error": message}).to_string().into_bytes()
    }
}

/// A message of the conversation. Its images stand beside its text, and none is fetched.
fn message_json(message: &ChatMessage) -> Value {
    let images: Vec<_> = message
        .images()
        .filter_map(|image| match image {
            Image::Data { base64, .. } => Some(&**base64),
            Image::Url(_) => None,
        })
        .collect();
    let mut json = json!({"role": message.role.name(), "content": message.joined()});
    if !images.is_empty() {
        json["images"] = images.into();
    }
    json
}

/// A line, as far as it is read.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    message: Option<Said<'a>>,
    done: Option<bool>,
    #[serde(borrow)]
    done_reason: Option<Text<'a>>,
    prompt_eval_count: Option<Count>,
    prompt_eval_cached_count: Option<Count>,
    eval_count: Option<Count>,
    load_duration: Option<Value>,
    prompt_eval_duration: Option<Value>,
    eval_duration: Option<Value>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Said<'a> {
    role: Option<IgnoredAny>,
    #[serde(borrow)]
    content: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

fn message<'a>(line: Line<'a>, data: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let mut parts = Vec::new();
    let has_role = line.message.as_ref().is_some_and(|said| said.role.is_some());
    if let Some(said) = line.message {
        said.say(&mut parts);
    }
    parts.extend(filled(line.done_reason).map(Part::Finish));
    parts.extend(counted(Usage {
        prompt_tokens: known(line.prompt_eval_count),
        completion_tokens: known(line.eval_count),
        cached_tokens: known(line.prompt_eval_cached_count),
        ..Usage::default()
    }));
    let nanoseconds = |value: Option<Value>| wire::time_of(&value?, 1e-9);
    parts.extend(timed(Timings {
        queue: nanoseconds(line.load_duration),
        prompt: nanoseconds(line.prompt_eval_duration),
        generation: nanoseconds(line.eval_duration),
        may_hold_first: false,
    }));
    if line.done == Some(true) {
        parts.push(Part::End);
    }
    if line.error.is_some() {
        parts.extend(wire::complaint_in(data).map(Part::Error));
    }
    if parts.is_empty() && has_role {
        parts.push(Part::Role);
    }
    Ok(Message { id: None, parts })
}

impl<'a> Said<'a> {
    fn say(self, parts: &mut Vec<Part<'a>>) {
        let thinking = filled(self.thinking);
        parts.extend(thinking.map(|text| Part::Token(TokenKind::Reasoning, text)));
        let content = filled(self.content);
        parts.extend(content.map(|text| Part::Token(TokenKind::Answer, text)));
        let calls = self.tool_calls.into_iter().flatten().filter_map(|call| call.function);
        let names = calls.filter_map(|function| filled(function.name));
        parts.extend(names.map(|name| Part::Token(TokenKind::ToolCall, name)));
    }
}

/// The message as Ollama writes it, without its errors.
fn line_json(parts: &[Part<'_>], envelope: &Envelope<'_>) -> Value {
    let text = |kind| wire::text_of(kind, parts);
    let mut line = json!({"model": envelope.model, "created_at": wire::utc(envelope.created)});
    if !parts.is_empty() {
        let call = text(TokenKind::ToolCall);
        line["message"] = wire::without_nulls(json!({
            "role": "assistant",
            "content": text(TokenKind::Answer).unwrap_or_default(),
            "thinking": text(TokenKind::Reasoning),
            "tool_calls": call.map(|name| json!([{"function": {"name": name, "arguments": {}}}])),
        }));
    }
    line["done"] = parts.contains(&Part::End).into();
    if let Some(reason) = wire::finish_of(parts) {
        line["done_reason"] = reason.into();
    }
    if let Some(usage) = wire::usage_of(parts) {
        line["prompt_eval_count"] = usage.prompt_tokens.into();
        line["eval_count"] = usage.completion_tokens.into();
        if let Some(cached) = usage.cached_tokens {
            line["prompt_eval_cached_count"] = cached.into();
        }
    }
    if let Some(timings) = wire::timings_of(parts) {
        let times = [
            ("load_duration", timings.queue),
            ("prompt_eval_duration", timings.prompt),
            ("eval_duration", timings.generation),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                line[name] = (time.as_nanos() as u64).into();
            }
        }
    }
    line
}
