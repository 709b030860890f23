//! OpenAI responses: a stream of typed events. OpenAI, vLLM and llama.cpp speak it.
//!
//! <https://platform.openai.com/docs/api-reference/responses-streaming>
//!
//! The last event, `response.completed`, `response.incomplete` or `response.failed`, says how it
//! ended, counts the tokens, and is the end marker. There is no `[DONE]`.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{
    Ask, DecodeError, Envelope, Message, Part, Protocol, TokenKind, Usage, Wish,
    maybe_text::MaybeText,
    openai,
    wire::{self, Count, Id, Text, alone, counted, filled, known, timed},
};
use crate::{
    framing::Frame,
    prompt::{ChatMessage, Image, Piece, Role, Tool},
};

/// `POST /responses` with `stream: true`.
///
/// One frame can say: a role, which is `response.created`; or one token; or a finish reason, a
/// usage with at least one count, if any, times, and the end; or an error. Only the first and the third
/// sort have an id.
///
/// A summary of the reasoning is what is shown of it: its tokens are fewer than those that the
/// usage counts, and the first of it comes later than the first token of the reasoning.
#[derive(Debug)]
pub struct OpenAiResponses;

impl Protocol for OpenAiResponses {
    fn name(&self) -> &'static str {
        "openai_responses"
    }

    fn path(&self) -> &'static str {
        "/responses"
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let mut body = json!({"model": ask.model});
        let (system, messages) = wire::system_apart(ask);
        if let Some(system) = system {
            body["instructions"] = system.into();
        }
        body["input"] = input(messages);
        body["temperature"] = ask.temperature.into();
        body["max_output_tokens"] = ask.max_tokens.into();
        body["stream"] = true.into();
        if !ask.tools.offered().is_empty() {
            body["tools"] = ask.tools.offered().iter().map(tool).collect();
            let function = |name: &str| json!({"type": "function", "name": name});
            wire::add_choice(&mut body, ask, function);
        }
        for (key, value) in ask.extra_body {
            body[key] = value.clone();
        }
        // Reasoning models refuse a temperature: `temperature: null` leaves it out.
        wire::without_nulls(body)
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools", "tool_choice"]
    }

    fn takes(&self, _: &Image) -> bool {
        true
    }

    fn fewest_tokens(&self) -> u64 {
        // OpenAI refuses fewer.
        16
    }

    fn refuses(&self, key: &str, value: &Value) -> Option<String> {
        let why = match key {
            "input" => return Some("`input` is made from the prompts: use `prompts`".into()),
            "instructions" => {
                return Some("`instructions` is a prompt's `system`: use `prompts`".into());
            }
            "model" => return Some("`model` is set by the model's own field `model_name`".into()),
            "temperature" if !value.is_null() => {
                return Some("`temperature` is set by the model's own field `temperature`".into());
            }
            "max_output_tokens" => {
                return Some(
                    "`max_output_tokens` is set by the model's own field `max_tokens`".into(),
                );
            }
            "stream" if *value != true => "would turn off the stream that is measured",
            "background" if *value == true => "would have the answer generated out of sight",
            _ => return None,
        };
        Some(format!("`{key}: {value}` {why}"))
    }

    fn wish(&self, body: &Map<String, Value>) -> Wish {
        let chars = |key| body.get(key).map_or(0, wire::text_chars);
        Wish {
            max_tokens: wire::number(body, "max_output_tokens"),
            prompt_chars: chars("instructions") + chars("input"),
            ..Wish::of(body)
        }
    }

    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, "event of a response", message)
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let mut frames = String::new();
        if parts.contains(&Part::Role) {
            frames += &event("response.created", response_json(message, envelope, "in_progress"));
        }
        for part in parts {
            match part {
                Part::Token(kind, text) => frames += &event(delta(*kind), json!({"delta": text})),
                Part::Error(error) => {
                    let error = json!({"code": "server_error", "message": error, "param": null});
                    frames += &event("error", error);
                }
                _ => {}
            }
        }
        if wire::finish_of(parts).is_some() {
            frames += &last_event(message, envelope);
        }
        frames.into_bytes()
    }

    fn ending(&self, parts: Vec<Part<'static>>) -> Vec<Vec<Part<'static>>> {
        wire::in_one(parts, ("completed", "max_output_tokens"))
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

/// A tool. What is strict unless it says so is told that it is not, which is the chat's default.
fn tool(tool: &Tool) -> Value {
    let mut json = json!({"type": "function"});
    for (key, value) in &tool.0 {
        json[key] = value.clone();
    }
    if !tool.0.contains_key("strict") {
        json["strict"] = false.into();
    }
    json
}

/// The conversation: a single question of text as it is, all else as messages.
fn input(messages: &[ChatMessage]) -> Value {
    if let [only] = messages
        && let [Piece::Text(text)] = only.content.as_slice()
    {
        return text.as_str().into();
    }
    let image = |image: &Image| json!({"type": "input_image", "image_url": image.url()});
    let message = |message: &ChatMessage| {
        let kind = if message.role == Role::Assistant { "output_text" } else { "input_text" };
        json!({"role": message.role.name(), "content": wire::content(message, kind, image)})
    };
    messages.iter().map(message).collect()
}

// -- from the server ------------------------------------------------------------------------------

/// An event, as far as it is read.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    delta: MaybeText<'a>,
    #[serde(borrow)]
    item: Option<Item<'a>>,
    #[serde(borrow)]
    response: Option<Response<'a>>,
    /// llama.cpp's own times.
    timings: Option<Box<Value>>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    name: MaybeText<'a>,
    #[serde(borrow, default)]
    arguments: MaybeText<'a>,
}

#[derive(Deserialize, Default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<Id<'a>>,
    #[serde(borrow, default)]
    status: MaybeText<'a>,
    usage: Option<Counts>,
    /// vLLM's own times.
    metrics: Option<Box<Value>>,
    #[serde(borrow)]
    incomplete_details: Option<Incomplete<'a>>,
}

#[derive(Deserialize)]
struct Incomplete<'a> {
    #[serde(borrow)]
    reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Counts {
    input_tokens: Option<Count>,
    output_tokens: Option<Count>,
    total_tokens: Option<Count>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<Count>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<Count>,
}

fn message<'a>(event: Event<'a>, data: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let kind = event.kind.as_ref().map_or("", |kind| &kind.0);
    let token = |kind| {
        let text = event.delta.0.clone();
        Ok(Message {
            id: None,
            parts: text.map(|text| Part::Token(kind, text)).into_iter().collect(),
        })
    };
    match kind {
        "response.created" => {
            let id = event.response.and_then(|response| response.id).map(Id::text);
            Ok(Message { id, parts: vec![Part::Role] })
        }
        "response.output_text.delta" | "response.refusal.delta" => token(TokenKind::Answer),
        "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" => {
            token(TokenKind::Reasoning)
        }
        "response.function_call_arguments.delta"
        | "response.mcp_call_arguments.delta"
        | "response.custom_tool_call_input.delta"
        | "response.shell_call_command.delta"
        | "response.apply_patch_call_operation_diff.delta"
        | "response.code_interpreter_call_code.delta" => token(TokenKind::ToolCall),
        "response.output_item.added" => {
            let call = event.item.and_then(Item::call);
            let token = call.map(|text| Part::Token(TokenKind::ToolCall, text));
            Ok(Message { id: None, parts: token.into_iter().collect() })
        }
        "response.completed" | "response.incomplete" => {
            // vLLM says that it has completed also what was cancelled.
            let status = event.response.as_ref().and_then(|response| response.status.0.clone());
            match status.as_deref() {
                Some(status @ ("cancelled" | "failed")) => {
                    Ok(alone(Part::Error(failure(data, status))))
                }
                Some("incomplete") => Ok(last(event.response, event.timings, "incomplete")),
                _ => {
                    let why = kind.strip_prefix("response.").unwrap_or(kind).to_owned();
                    Ok(last(event.response, event.timings, why))
                }
            }
        }
        "response.failed" => Ok(alone(Part::Error(failure(data, "failed")))),
        // llama.cpp's has no type.
        "error" => Ok(alone(Part::Error(failure(data, "failed")))),
        _ if event.error.is_some() => Ok(alone(Part::Error(failure(data, "failed")))),
        _ => Ok(Message::default()),
    }
}

impl<'a> Item<'a> {
    /// The name of a function that is called, and what of its arguments is there already.
    fn call(self) -> Option<Cow<'a, str>> {
        match (self.name.0, self.arguments.0) {
            (Some(name), Some(arguments)) => Some(name + arguments),
            (name, _) => name,
        }
    }
}

impl Counts {
    fn usage(self) -> Usage {
        let of_input = self.input_tokens_details.and_then(|details| details.cached_tokens);
        let of_output = self.output_tokens_details.and_then(|details| details.reasoning_tokens);
        Usage {
            prompt_tokens: known(self.input_tokens),
            completion_tokens: known(self.output_tokens),
            total_tokens: known(self.total_tokens),
            cached_tokens: known(of_input),
            reasoning_tokens: known(of_output),
        }
    }
}

/// What the last event says: why it came, unless it gives a reason of its own.
fn last<'a>(
    response: Option<Response<'a>>,
    timings: Option<Box<Value>>,
    why: impl Into<Cow<'a, str>>,
) -> Message<'a> {
    let response = response.unwrap_or_default();
    let reason = response.incomplete_details.and_then(|details| filled(details.reason));
    let mut parts = vec![Part::Finish(reason.unwrap_or_else(|| why.into()))];
    parts.extend(response.usage.and_then(|counts| counted(counts.usage())));
    let timings = timings.as_deref().map(wire::llama_timings);
    let timings = timings.or_else(|| response.metrics.as_deref().map(wire::vllm_metrics));
    parts.extend(timings.and_then(timed));
    parts.push(Part::End);
    Message { id: response.id.map(Id::text), parts }
}

/// What a response that has `failed`, or was cancelled, complains of: in itself or in its response.
fn failure(data: &[u8], failed: &str) -> String {
    let event: Value = serde_json::from_slice(data).unwrap_or_default();
    let inner = event.get("response").map(|response| response.to_string());
    let complaint = inner.and_then(|response| wire::complaint_in(response.as_bytes()));
    complaint.or_else(|| wire::complaint_in(data)).unwrap_or_else(|| match failed {
        "cancelled" => "the server cancelled the response, and does not say why".into(),
        _ => "the response failed, and the server does not say why".into(),
    })
}

// -- from the simulated server --------------------------------------------------------------------

fn delta(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Answer => "response.output_text.delta",
        TokenKind::Reasoning => "response.reasoning_text.delta",
        TokenKind::ToolCall => "response.function_call_arguments.delta",
    }
}

/// An event, by its name and, in its data, its type.
fn event(name: &str, fields: Value) -> String {
    let mut data = json!({"type": name});
    if let (Value::Object(data), Value::Object(fields)) = (&mut data, fields) {
        data.extend(fields);
    }
    format!("event: {name}\ndata: {data}\n\n")
}

fn last_event(message: &Message<'_>, envelope: &Envelope<'_>) -> String {
    let (name, status) = match wire::finish_of(&message.parts) {
        Some("completed") => ("response.completed", "completed"),
        _ => ("response.incomplete", "incomplete"),
    };
    event(name, response_json(message, envelope, status))
}

fn response_json(message: &Message<'_>, envelope: &Envelope<'_>, status: &str) -> Value {
    let finish = wire::finish_of(&message.parts).filter(|_| status == "incomplete");
    json!({"response": {
        "id": message.id,
        "object": "response",
        "created_at": envelope.created,
        "status": status,
        "error": null,
        "incomplete_details": finish.map(|reason| json!({"reason": reason})),
        "model": envelope.model,
        "output": [],
        "usage": wire::usage_of(&message.parts).map(|usage| usage_json(&usage)),
        "metrics": wire::timings_of(&message.parts).map(|timings| wire::metrics_json(&timings)),
    }})
}

fn usage_json(usage: &Usage) -> Value {
    let details = |name: &str, count: Option<u64>| count.map(|count| json!({name: count}));
    wire::without_nulls(json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": details("cached_tokens", usage.cached_tokens),
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": details("reasoning_tokens", usage.reasoning_tokens),
        "total_tokens": usage.total_tokens,
    }))
}
