//! The native chat protocol of Ollama: one JSON document per line.
//!
//! <https://docs.ollama.com/api/chat>

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    Timings, TokenKind, Usage,
    delta::{self, Texts},
    json::JsonTree,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, counted, timed},
};
use crate::{
    framing::{Frame, Framing},
    prompt::{ChatMessage, Image},
};

/// `POST /api/chat`.
///
/// A frame contains, in this order: a token of each kind (reasoning, answer, tool call); a finish
/// reason; the token counts of the prompt, of its cached part and of the answer; times; the end. Or
/// only a role, or only an error. The server sends no id and does not count reasoning tokens.
///
/// A tool call is sent as a whole; the text of its token is the tool's name.
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

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(OllamaChat))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let options = json!({"temperature": ask.temperature, "num_predict": ask.max_tokens});
        let mut body = json!({
            "model": ask.model,
            "messages": ask.messages.iter().map(message_json).collect::<Vec<_>>(),
            "stream": true,
            "options": wire::without_nulls(options),
        });
        wire::add_chat_tools(&mut body, ask);
        wire::add_own(&mut body, ask, Some("options"));
        body
    }

    fn limits(&self) -> &'static [&'static str] {
        &["/options/num_predict"]
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools"]
    }

    fn takes(&self, image: &Image) -> bool {
        matches!(image, Image::Data { .. })
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        let set_by = |inner: &str, field: &str| {
            let sets = value.get(inner).is_some_and(|value| !value.is_null());
            sets.then(|| format!("`options.{inner}` is set by the model's field `{field}`"))
        };
        match key {
            _ if value.is_null() && wire::may_be_left_out(key) => None,
            "messages" => Some("`messages` is made from the prompts: use `prompts`".into()),
            "model" => Some("`model` is set by the model's field `model_name`".into()),
            "stream" if *value != true => Some(format!("`stream: {value}` {}", wire::STREAM_FIELD)),
            "options" if !value.is_object() => Some(format!("`options: {value}` is not a mapping")),
            "options" => {
                set_by("temperature", "temperature").or_else(|| set_by("num_predict", "max_tokens"))
            }
            _ => None,
        }
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        let options = body.get("options").and_then(Value::as_object);
        RequestIntent {
            max_tokens: options.and_then(|options| wire::number(options, "num_predict")),
            prompt_chars: body.get("messages").map_or(0, wire::text_chars),
            // Streaming is the default.
            stream: body.get("stream").is_none_or(|stream| *stream == true),
            ..RequestIntent::of(body)
        }
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &["done_reason", "\"done\":true", "\"done\": true"]
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, |_| true, |tree, name| message(tree, name, fields))
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let is_error = |part: &MessagePart<'_>| matches!(part, MessagePart::Error(_));
        let mut lines = String::new();
        if message.parts.is_empty() || !message.parts.iter().all(is_error) {
            lines += &format!("{}\n", line_json(&message.parts, envelope));
        }
        for error in wire::errors_of(&message.parts) {
            lines += &format!("{}\n", json!({"error": error}));
        }
        lines.into_bytes()
    }

    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        wire::in_one(parts, ("stop", "length"))
    }

    fn encode_error(&self, _: u16, message: &str) -> Vec<u8> {
        json!({"error": message}).to_string().into_bytes()
    }
}

impl DocumentForm for OllamaChat {
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        message(tree, "", fields)
    }

    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
        line_json(&message.parts, envelope)
    }
}

/// Formats a message. Images are next to its text, and Ollama does not fetch URLs.
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

/// Fields of a message besides reasoning.
const KNOWN: &[&str] = &["role", "content", "tool_calls", "images", "tool_name"];

fn message<'a>(line: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    let message = line.get("message");
    let mut parts: Vec<_> = texts(message, fields).parts().collect();
    parts.extend(delta::unread(message, KNOWN, fields));
    parts.extend(delta::misplaced(line, &["message"], fields));
    parts.extend(wire::finish_reason(line.get("done_reason")));
    parts.extend(counted(Usage {
        prompt_tokens: line.get("prompt_eval_count").count(),
        completion_tokens: line.get("eval_count").count(),
        cached_tokens: line.get("prompt_eval_cached_count").count(),
        ..Usage::default()
    }));
    parts.extend(timed(Timings {
        queue: wire::time(line, "load_duration", 1e-9),
        prompt: wire::time(line, "prompt_eval_duration", 1e-9),
        generation: wire::time(line, "eval_duration", 1e-9),
        may_hold_first: false,
    }));
    if line.get("done").is_true() {
        parts.push(MessagePart::End);
    }
    parts.extend(wire::error(line, name, !message.is_null() || line.get("done").is_true()));
    parts.extend(wire::error_in(message));
    if parts.is_empty() && !message.get("role").is_null() {
        parts.push(MessagePart::Role);
    }
    Message { id: None, parts }
}

fn texts<'a, 'f>(message: &JsonTree<'a>, fields: &'f TextFields) -> Texts<'a, 'f> {
    let mut texts = Texts::of(message, "content", TokenKind::Answer, fields);
    texts.read_reasoning(message);
    for call in message.get("tool_calls").items() {
        match call.get("function").get("name").text() {
            name @ Some(_) => texts.add(TokenKind::ToolCall, name),
            None => texts.read_calls(call, "tool_calls"),
        }
    }
    texts
}

/// Formats a message like Ollama, without errors.
fn line_json(parts: &[MessagePart<'_>], envelope: &Envelope<'_>) -> Value {
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
    line["done"] = parts.contains(&MessagePart::End).into();
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
