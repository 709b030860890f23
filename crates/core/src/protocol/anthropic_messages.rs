//! Anthropic Messages, as served by Anthropic, vLLM and llama.cpp.
//!
//! <https://platform.claude.com/docs/en/build-with-claude/streaming>
//!
//! The first event counts the prompt, the last but one the answer. The key has a separate header.

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    TokenKind, Usage,
    delta::{self, Texts},
    json::JsonTree,
    openai,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, counted},
};
use crate::{
    framing::Frame,
    prompt::{ChatMessage, Image, Tool, ToolChoice},
};

/// The version of the API.
const VERSION: &str = "2023-06-01";

/// `POST /messages` with `stream: true`.
///
/// A frame contains one of these: a role, with the prompt's counts if known (`message_start`, the
/// only one with an id); a token; a finish reason, a usage with at least one count, or both; an
/// error; the end. The server sends no total. Counts after the start always include the generated tokens.
#[derive(Debug)]
pub struct AnthropicMessages;

impl Protocol for AnthropicMessages {
    fn name(&self) -> &'static str {
        "anthropic_messages"
    }

    fn path(&self) -> &'static str {
        "/messages"
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_static("anthropic-version");
        vec![(name, HeaderValue::from_static(VERSION))]
    }

    fn key_header(&self) -> (HeaderName, &'static str) {
        (HeaderName::from_static("x-api-key"), "")
    }

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(AnthropicMessages))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let mut body = json!({"model": ask.model, "max_tokens": ask.max_tokens});
        let (system, messages) = wire::system_apart(ask);
        if let Some(system) = system {
            body["system"] = system.into();
        }
        let message = |message: &ChatMessage| json!({"role": message.role.name(), "content": wire::content(message, "text", image)});
        body["messages"] = messages.iter().map(message).collect();
        body["temperature"] = ask.temperature.into();
        body["stream"] = true.into();
        if !ask.tools.offered().is_empty() {
            body["tools"] = ask.tools.offered().iter().map(tool).collect();
        }
        if let Some(choice) = ask.tools.chosen() {
            body["tool_choice"] = self::choice(choice);
        }
        wire::add_own(&mut body, ask, None);
        body
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools", "tool_choice"]
    }

    fn takes(&self, _: &Image) -> bool {
        true
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        Some(match key {
            _ if value.is_null() && wire::may_be_left_out(key) => return None,
            "messages" => "`messages` is made from the prompts: use `prompts`".into(),
            "system" => "`system` is a field of prompts: use `prompts`".into(),
            "model" => "`model` is set by the model's field `model_name`".into(),
            "max_tokens" => "`max_tokens` is set by the model's field `max_tokens`".into(),
            "temperature" => "`temperature` is set by the model's field `temperature`".into(),
            "stream" if *value != true => {
                format!("`stream: {value}` {}", wire::STREAM_FIELD)
            }
            _ => return None,
        })
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        let chars = |key| body.get(key).map_or(0, wire::text_chars);
        RequestIntent {
            max_tokens: wire::number(body, "max_tokens"),
            prompt_chars: chars("system") + chars("messages"),
            ..RequestIntent::of(body)
        }
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &["message_stop", "DONE"]
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        let knows = |name: &str| name.starts_with("message") || name.starts_with("content_block");
        wire::decode(frame, knows, |tree, name| message(tree, name, fields))
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let mut frames = String::new();
        if parts.contains(&MessagePart::Role) {
            frames += &start(message, envelope);
        }
        for part in parts {
            match part {
                MessagePart::Token(kind, text) => frames += &token_event(*kind, text),
                MessagePart::Error(error) => frames += &event(&error_json(500, error)),
                _ => {}
            }
        }
        let (finish, usage) = (wire::finish_of(parts), wire::usage_of(parts));
        let usage = usage.filter(|_| !parts.contains(&MessagePart::Role));
        if finish.is_some() || usage.is_some() {
            frames += &event(&json!({
                "type": "message_delta",
                "delta": {"stop_reason": finish, "stop_sequence": null},
                "usage": usage.map(|usage| usage_json(&usage)),
            }));
        }
        if parts.contains(&MessagePart::End) {
            frames += &event(&json!({"type": "message_stop"}));
        }
        frames.into_bytes()
    }

    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        let parts = wire::in_words(parts, ("end_turn", "max_tokens"));
        let (end, last): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|part| *part == MessagePart::End);
        [last, end].into_iter().filter(|parts| !parts.is_empty()).collect()
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        error_json(status, message).to_string().into_bytes()
    }
}

impl DocumentForm for AnthropicMessages {
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        let blocks = tree.get("content");
        let mut parts: Vec<_> = blocks.items().flat_map(|block| started(block, fields)).collect();
        parts.extend(wire::finish_reason(tree.get("stop_reason")));
        parts.extend(wire::read_usage(usage(tree.get("usage")), tree.get("usage")));
        parts.extend(wire::error(tree, "", !blocks.is_empty()));
        Message { id: wire::id(tree), parts }
    }

    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
        let text = |kind| wire::text_of(kind, &message.parts);
        let thinking = text(TokenKind::Reasoning)
            .map(|text| json!({"type": "thinking", "thinking": text, "signature": ""}));
        let answer = text(TokenKind::Answer).map(|text| json!({"type": "text", "text": text}));
        let call = text(TokenKind::ToolCall)
            .map(|name| json!({"type": "tool_use", "id": "toolu_0", "name": name, "input": {}}));
        let content: Vec<_> = [thinking, answer, call].into_iter().flatten().collect();
        json!({
            "id": message.id,
            "type": "message",
            "role": "assistant",
            "model": envelope.model,
            "content": content,
            "stop_reason": wire::finish_of(&message.parts),
            "stop_sequence": null,
            "usage": wire::usage_of(&message.parts).map(|usage| usage_json(&usage)),
        })
    }
}

/// Formats a tool. The field for parameters is mandatory.
fn tool(tool: &Tool) -> Value {
    let mut json = json!({"name": tool.name()});
    if let Some(description) = tool.0.get("description") {
        json["description"] = description.clone();
    }
    json["input_schema"] =
        tool.0.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
    if let Some(strict) = tool.0.get("strict") {
        json["strict"] = strict.clone();
    }
    json
}

fn choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({"type": "auto"}),
        ToolChoice::Required => json!({"type": "any"}),
        ToolChoice::None => json!({"type": "none"}),
        ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
    }
}

/// Formats an image.
fn image(image: &Image) -> Value {
    let source = match image {
        Image::Data { mime, base64 } => {
            json!({"type": "base64", "media_type": mime, "data": &**base64})
        }
        Image::Url(url) => json!({"type": "url", "url": url}),
    };
    json!({"type": "image", "source": source})
}

// -- from the server ------------------------------------------------------------------------------

/// Fields of a delta besides reasoning.
const KNOWN: &[&str] = &["type", "text", "partial_json", "citation"];

/// Decodes an event. Its type is in its data or, if missing, its name.
fn message<'a>(event: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    let kind = event.get("type").str().unwrap_or(name);
    let (delta, block) = (event.get("delta"), event.get("content_block"));
    let (mut id, mut parts) = (None, Vec::with_capacity(1));
    match kind {
        "message_start" => {
            id = wire::id(event.get("message"));
            parts.extend(begun(event));
        }
        "content_block_start" => parts.extend(started(block, fields)),
        "content_block_delta" => parts.extend(continued(delta, fields)),
        "message_delta" => {
            parts.extend(wire::finish_reason(delta.get("stop_reason")));
            parts.extend(wire::read_usage(usage(event.get("usage")), event.get("usage")));
        }
        "message_stop" => {
            parts.extend(wire::read_usage(usage(event.get("usage")), event.get("usage")));
            parts.push(MessagePart::End);
        }
        _ => {}
    }
    let inner = [event.get("message"), block, delta];
    let error = wire::error(event, kind, false);
    parts.extend(error.or_else(|| inner.into_iter().find_map(wire::error_in)));
    Message { id, parts }
}

/// Decodes the start. Some versions of vLLM put the usage next to the message. Its number of
/// generated tokens is ignored, because nothing has been generated yet.
fn begun<'a>(event: &JsonTree<'a>) -> impl Iterator<Item = MessagePart<'a>> {
    let start = event.get("message");
    let counts =
        [start.get("usage"), event.get("usage")].into_iter().find(|usage| !usage.is_empty());
    let usage = counts.map(usage).unwrap_or_default();
    let Usage { prompt_tokens, cached_tokens, .. } = usage;
    let of_prompt = Usage { prompt_tokens, cached_tokens, ..Usage::default() };
    [MessagePart::Role].into_iter().chain(counted(of_prompt))
}

/// Decodes the start of a content block: usually empty texts, or the name of a tool.
fn started<'a>(block: &JsonTree<'a>, fields: &TextFields) -> Vec<MessagePart<'a>> {
    let mut texts = Texts::of(block, "text", TokenKind::Answer, fields);
    texts.read_reasoning(block);
    texts.call = delta::call(block);
    texts.parts().collect()
}

/// Decodes a delta of a content block. A signature is not a token.
fn continued<'a>(delta: &JsonTree<'a>, fields: &TextFields) -> Vec<MessagePart<'a>> {
    let mut texts = Texts::of(delta, "text", TokenKind::Answer, fields);
    texts.read_reasoning(delta);
    let call = delta.get("partial_json");
    texts.call = match call {
        JsonTree::Object(_) | JsonTree::List(_) if !call.is_empty() => Some(call.written().into()),
        _ => call.scalar(),
    };
    texts.parts().chain(delta::unread(delta, KNOWN, fields)).collect()
}

/// Reads the usage. The prompt is the sum of new tokens, tokens read from the cache and tokens
/// written to it.
fn usage(counts: &JsonTree<'_>) -> Usage {
    let names = (&["input_tokens", "prompt_tokens"], &["output_tokens", "completion_tokens"]);
    let usage = openai::usage_named(counts, names.0, names.1);
    let cached_tokens = counts.get("cache_read_input_tokens").count();
    let written = counts.get("cache_creation_input_tokens").count();
    let prompt_tokens = usage.prompt_tokens.map(|new| {
        new.saturating_add(cached_tokens.unwrap_or(0)).saturating_add(written.unwrap_or(0))
    });
    let reasoning_tokens = counts.get("output_tokens_details").get("thinking_tokens").count();
    Usage { prompt_tokens, cached_tokens, reasoning_tokens, total_tokens: None, ..usage }
}

// -- from the simulated server --------------------------------------------------------------------

fn event(json: &Value) -> String {
    let name = json["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {json}\n\n")
}

fn start(message: &Message<'_>, envelope: &Envelope<'_>) -> String {
    event(&json!({
        "type": "message_start",
        "message": {
            "id": message.id,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": envelope.model,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": wire::usage_of(&message.parts).map(|usage| usage_json(&usage)),
        },
    }))
}

fn token_event(kind: TokenKind, text: &str) -> String {
    let (index, delta) = match kind {
        TokenKind::Reasoning => (0, json!({"type": "thinking_delta", "thinking": text})),
        TokenKind::Answer => (1, json!({"type": "text_delta", "text": text})),
        TokenKind::ToolCall => (2, json!({"type": "input_json_delta", "partial_json": text})),
    };
    event(&json!({"type": "content_block_delta", "index": index, "delta": delta}))
}

fn usage_json(usage: &Usage) -> Value {
    let cached = usage.cached_tokens;
    let new = usage.prompt_tokens.map(|prompt| prompt.saturating_sub(cached.unwrap_or(0)));
    let reasoning = usage.reasoning_tokens.map(|count| json!({"thinking_tokens": count}));
    wire::without_nulls(json!({
        "input_tokens": new,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": reasoning,
    }))
}

fn error_json(status: u16, message: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}
