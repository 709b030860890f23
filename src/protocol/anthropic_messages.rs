//! Anthropic messages. Anthropic, vLLM and llama.cpp speak it.
//!
//! <https://platform.claude.com/docs/en/build-with-claude/streaming>
//!
//! The prompt is counted in the first event, the answer in the last but one. A key goes into a
//! header of its own.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{
    Ask, DecodeError, Envelope, Message, Part, Protocol, TokenKind, Usage, Wish,
    wire::{self, Count, Id, Text, alone, counted, filled, known},
};
use crate::{
    framing::Frame,
    prompt::{ChatMessage, Image, Tool, ToolChoice},
};

/// The version of the API that is spoken.
const VERSION: &str = "2023-06-01";

/// `POST /messages` with `stream: true`.
///
/// One frame can say: a role and the prompt's counts, if any, which is `message_start` and alone
/// has an id; or one token; or a finish reason and a usage with at least one count, either or
/// both; or an error; or the end. The total is not told, and of the counts after the start the
/// number of generated tokens is always one.
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

    fn body(&self, ask: &Ask<'_>) -> Value {
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
        for (key, value) in ask.extra_body {
            body[key] = value.clone();
        }
        // Some models refuse a temperature: `temperature: null` leaves it out.
        wire::without_nulls(body)
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools", "tool_choice"]
    }

    fn takes(&self, _: &Image) -> bool {
        true
    }

    fn refuses(&self, key: &str, value: &Value) -> Option<String> {
        Some(match key {
            "messages" => "`messages` is made from the prompts: use `prompts`".into(),
            "system" => "`system` is a prompt's own field: use `prompts`".into(),
            "model" => "`model` is set by the model's own field `model_name`".into(),
            "max_tokens" => "`max_tokens` is set by the model's own field `max_tokens`".into(),
            "temperature" if !value.is_null() => {
                "`temperature` is set by the model's own field `temperature`".into()
            }
            "stream" if *value != true => {
                format!("`stream: {value}` would turn off the stream that is measured")
            }
            _ => return None,
        })
    }

    fn wish(&self, body: &Map<String, Value>) -> Wish {
        let chars = |key| body.get(key).map_or(0, wire::text_chars);
        Wish {
            max_tokens: wire::number(body, "max_tokens"),
            prompt_chars: chars("system") + chars("messages"),
            ..Wish::of(body)
        }
    }

    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, "event of a message", message)
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let mut frames = String::new();
        if parts.contains(&Part::Role) {
            frames += &start(message, envelope);
        }
        for part in parts {
            match part {
                Part::Token(kind, text) => frames += &token_event(*kind, text),
                Part::Error(error) => frames += &event(&error_json(500, error)),
                _ => {}
            }
        }
        let (finish, usage) = (wire::finish_of(parts), wire::usage_of(parts));
        let usage = usage.filter(|_| !parts.contains(&Part::Role));
        if finish.is_some() || usage.is_some() {
            frames += &event(&json!({
                "type": "message_delta",
                "delta": {"stop_reason": finish, "stop_sequence": null},
                "usage": usage.map(|usage| usage_json(&usage)),
            }));
        }
        if parts.contains(&Part::End) {
            frames += &event(&json!({"type": "message_stop"}));
        }
        frames.into_bytes()
    }

    fn ending(&self, parts: Vec<Part<'static>>) -> Vec<Vec<Part<'static>>> {
        let parts = wire::in_words(parts, ("end_turn", "max_tokens"));
        let (end, last): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| *part == Part::End);
        [last, end].into_iter().filter(|parts| !parts.is_empty()).collect()
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        error_json(status, message).to_string().into_bytes()
    }
}

/// A tool, whose parameters must be there.
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

/// An image of a message.
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

/// An event, as far as it is read.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    message: Option<Start<'a>>,
    #[serde(borrow)]
    content_block: Option<Block<'a>>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    usage: Option<Counts>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow)]
    id: Option<Id<'a>>,
    usage: Option<Counts>,
}

/// What a content block begins with: as a rule empty texts, or a tool's name.
#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
}

/// What is added to a content block, or, at the end, to the message. A signature is no token.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Text<'a>>,
    #[serde(borrow)]
    partial_json: Option<Text<'a>>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Counts {
    input_tokens: Option<Count>,
    cache_creation_input_tokens: Option<Count>,
    cache_read_input_tokens: Option<Count>,
    output_tokens: Option<Count>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<Count>,
}

fn message<'a>(event: Event<'a>, data: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let kind = event.kind.as_ref().map_or("", |kind| &kind.0);
    let parts = match kind {
        "message_start" => return Ok(begun(event)),
        "content_block_start" => event.content_block.and_then(Block::token).into_iter().collect(),
        "content_block_delta" => event.delta.and_then(Delta::token).into_iter().collect(),
        "message_delta" => {
            let reason = event.delta.and_then(|delta| filled(delta.stop_reason));
            let usage = event.usage.and_then(|counts| counted(counts.usage()));
            reason.map(Part::Finish).into_iter().chain(usage).collect()
        }
        "message_stop" => vec![Part::End],
        _ if kind == "error" || event.error.is_some() => {
            let complaint = wire::complaint_in(data);
            let unsaid = || "the server reported an error and does not say which".into();
            return Ok(alone(Part::Error(complaint.unwrap_or_else(unsaid))));
        }
        _ => Vec::new(),
    };
    Ok(Message { id: None, parts })
}

/// The start. Some versions of vLLM have the usage beside the message. Its number of generated
/// tokens stands for none: nothing has been generated.
fn begun(event: Event<'_>) -> Message<'_> {
    let (id, counts) = event.message.map_or((None, None), |start| (start.id, start.usage));
    let usage = counts.or(event.usage).map(Counts::usage).unwrap_or_default();
    let Usage { prompt_tokens, cached_tokens, .. } = usage;
    let of_prompt = Usage { prompt_tokens, cached_tokens, ..Usage::default() };
    let parts = [Part::Role].into_iter().chain(counted(of_prompt)).collect();
    Message { id: id.map(Id::text), parts }
}

impl<'a> Block<'a> {
    fn token(self) -> Option<Part<'a>> {
        token(filled(self.text), filled(self.thinking), filled(self.name))
    }
}

impl<'a> Delta<'a> {
    fn token(self) -> Option<Part<'a>> {
        token(filled(self.text), filled(self.thinking), filled(self.partial_json))
    }
}

fn token<'a>(
    text: Option<Cow<'a, str>>,
    thinking: Option<Cow<'a, str>>,
    call: Option<Cow<'a, str>>,
) -> Option<Part<'a>> {
    let answer = text.map(|text| (TokenKind::Answer, text));
    let reasoning = thinking.map(|text| (TokenKind::Reasoning, text));
    let call = call.map(|text| (TokenKind::ToolCall, text));
    answer.or(reasoning).or(call).map(|(kind, text)| Part::Token(kind, text))
}

impl Counts {
    /// All of the prompt is what is new, what was read from the cache and what was written to it.
    fn usage(self) -> Usage {
        let cached_tokens = known(self.cache_read_input_tokens);
        let written = known(self.cache_creation_input_tokens);
        let prompt_tokens = known(self.input_tokens).map(|new| {
            new.saturating_add(cached_tokens.unwrap_or(0)).saturating_add(written.unwrap_or(0))
        });
        let of_output = self.output_tokens_details.and_then(|details| details.thinking_tokens);
        Usage {
            prompt_tokens,
            completion_tokens: known(self.output_tokens),
            total_tokens: None,
            cached_tokens,
            reasoning_tokens: known(of_output),
        }
    }
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
