//! OpenAI Responses, a stream of typed events, as served by OpenAI, vLLM and llama.cpp.
//!
//! <https://platform.openai.com/docs/api-reference/responses-streaming>
//!
//! The last event, `response.completed`, `response.incomplete` or `response.failed`, has the finish
//! reason and the token counts, and is the end marker. There is no `[DONE]`.

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    TokenKind, Usage,
    delta::{self, Texts},
    error_text,
    json::JsonTree,
    openai,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, alone, timed},
};
use crate::{
    framing::Frame,
    prompt::{ChatMessage, ContentPart, Image, Role, Tool},
};

/// `POST /responses` with `stream: true`.
///
/// A frame contains one of these: a role (`response.created`); a token; a finish reason with a
/// usage, if it has a count, times and the end; an error. Only the first and the third have an id.
///
/// Reasoning is shown as a summary, which has fewer tokens than the usage counts and starts later
/// than the reasoning.
#[derive(Debug)]
pub struct OpenAiResponses;

impl Protocol for OpenAiResponses {
    fn name(&self) -> &'static str {
        "openai_responses"
    }

    fn path(&self) -> &'static str {
        "/responses"
    }

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(OpenAiResponses))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
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
        wire::add_own(&mut body, ask, None);
        body
    }

    fn limits(&self) -> &'static [&'static str] {
        &["/max_output_tokens"]
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools", "tool_choice"]
    }

    fn takes(&self, _: &Image) -> bool {
        true
    }

    fn fewest_tokens(&self) -> u64 {
        // The smallest limit that OpenAI accepts.
        16
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        let why = match key {
            _ if value.is_null() && wire::may_be_left_out(key) => return None,
            "input" => return Some("`input` is made from the prompts: use `prompts`".into()),
            "instructions" => {
                return Some("`instructions` is a prompt's `system`: use `prompts`".into());
            }
            "model" => return Some("`model` is set by the model's field `model_name`".into()),
            "temperature" => {
                return Some("`temperature` is set by the model's field `temperature`".into());
            }
            "max_output_tokens" => {
                return Some("`max_output_tokens` is set by the model's field `max_tokens`".into());
            }
            "stream" if *value != true => wire::STREAM_FIELD,
            "background" if *value == true => "would have the answer generated out of sight",
            _ => return None,
        };
        Some(format!("`{key}: {value}` {why}"))
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        let chars = |key| body.get(key).map_or(0, wire::text_chars);
        RequestIntent {
            max_tokens: wire::number(body, "max_output_tokens"),
            prompt_chars: chars("instructions") + chars("input"),
            ..RequestIntent::of(body)
        }
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &["response.completed", "response.incomplete", "response.failed", "DONE"]
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        let knows = |name: &str| name.starts_with("response.");
        wire::decode(frame, knows, |tree, name| message(tree, name, fields))
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let mut frames = String::new();
        if parts.contains(&MessagePart::Role) {
            frames += &event("response.created", response_json(message, envelope, "in_progress"));
        }
        for part in parts {
            match part {
                MessagePart::Token(kind, text) => {
                    frames += &event(delta_type(*kind), json!({"delta": text}))
                }
                MessagePart::Error(error) => {
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

    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        wire::in_one(parts, ("completed", "max_output_tokens"))
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

impl DocumentForm for OpenAiResponses {
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        let why = match tree.get("status").str() {
            Some(status @ ("cancelled" | "failed")) => return failed(tree, tree, status),
            // Without a status, as with any other error.
            None => None,
            Some(status) => ["completed", "incomplete"].into_iter().find(|of| *of == status),
        };
        let items = tree.get("output");
        let mut parts: Vec<_> = items.items().flat_map(|item| of_item(item, fields)).collect();
        if let Some(why) = why {
            parts.extend(counted_end(tree, tree, why));
        }
        parts.extend(wire::error(tree, "", !items.is_empty()));
        Message { id: wire::id(tree), parts }
    }

    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
        let text = |kind| wire::text_of(kind, &message.parts);
        let reasoning = text(TokenKind::Reasoning).map(|text| {
            let content = json!([{"type": "reasoning_text", "text": text}]);
            json!({"type": "reasoning", "summary": [], "content": content})
        });
        let answer = text(TokenKind::Answer).map(|text| {
            let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
            json!({"type": "message", "role": "assistant", "content": content})
        });
        let call = text(TokenKind::ToolCall)
            .map(|text| json!({"type": "function_call", "name": "tool", "arguments": text}));
        let status = match wire::finish_of(&message.parts) {
            Some("completed") => "completed",
            Some(_) => "incomplete",
            None => "in_progress",
        };
        let mut document = response_json(message, envelope, status)["response"].take();
        document["output"] = [reasoning, answer, call].into_iter().flatten().collect();
        document
    }
}

/// Formats a tool. The protocol's default is strict and the chat's is not, so `strict: false` is
/// explicit.
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

/// Formats the conversation: a single text as a string, otherwise messages.
fn input(messages: &[ChatMessage]) -> Value {
    if let [only] = messages
        && let [ContentPart::Text(text)] = only.content.as_slice()
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

/// Decodes an event. Its type is in its data or, if missing, its name.
fn message<'a>(event: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    let kind = event.get("type").str().unwrap_or(name);
    let response = event.get("response");
    let mut parts = match kind {
        "response.completed" | "response.incomplete" => {
            // vLLM reports a cancelled answer as completed.
            match response.get("status").str() {
                Some(status @ ("cancelled" | "failed")) => return failed(event, response, status),
                Some("incomplete") => return last(event, "incomplete"),
                _ => return last(event, kind.trim_start_matches("response.")),
            }
        }
        // llama.cpp's errors have no type.
        "response.failed" | "response.cancelled" => return failed(event, response, kind),
        _ if kind.ends_with("error") && wire::may_be_error(kind) => {
            return failed(event, response, kind);
        }
        _ if response.get("status").str() == Some("failed") => {
            return failed(event, response, "failed");
        }
        "response.created" => vec![MessagePart::Role],
        "response.output_item.added" => delta::call(event.get("item"))
            .map(|call| MessagePart::Token(TokenKind::ToolCall, call))
            .into_iter()
            .collect(),
        _ => of_delta(kind, event, fields),
    };
    parts.extend(error(event, kind));
    let is_first = kind == "response.created";
    Message { id: is_first.then(|| wire::id(response)).flatten(), parts }
}

/// Returns the error that an event of type `kind` reports in itself, its response or its delta.
fn error<'a>(event: &JsonTree<'a>, kind: &str) -> Option<MessagePart<'a>> {
    let in_delta = || wire::error_in(event.get("delta"));
    in_response(event.get("response")).or_else(|| wire::error(event, kind, false)).or_else(in_delta)
}

/// Returns the error in a response.
fn in_response<'a>(response: &JsonTree<'a>) -> Option<MessagePart<'a>> {
    let places = [
        response.get("error"),
        response.get("last_error"),
        response.get("status_details").get("error"),
    ];
    places.into_iter().find_map(error_text::in_field).map(MessagePart::Error)
}

/// Decodes an event with a delta. Its type determines the kind of text.
fn of_delta<'a>(kind: &str, event: &JsonTree<'a>, fields: &TextFields) -> Vec<MessagePart<'a>> {
    match delta_kind(kind) {
        Some(of) => {
            let texts = Texts::of(event, "delta", of, fields).parts();
            texts.chain(delta::misplaced(event, &["delta"], fields)).collect()
        }
        None if kind.contains("audio") || kind.contains("image") => Vec::new(),
        None => {
            let texts = Texts::of(event, "delta", TokenKind::Answer, fields);
            let unread = |part| match part {
                MessagePart::Token(_, text) => MessagePart::Unread(kind.to_owned().into(), text),
                other => other,
            };
            texts.parts().map(unread).collect()
        }
    }
}

/// Returns the kind of text of a delta's type.
fn delta_kind(kind: &str) -> Option<TokenKind> {
    const ANSWERS: &[&str] =
        &["output_text.delta", "refusal.delta", "text.delta", "transcript.delta"];
    const CALLS: &[&str] = &["_call", "call_", "arguments"];
    if !kind.ends_with(".delta") {
        None
    } else if delta::is_of_reasoning(kind) {
        Some(TokenKind::Reasoning)
    } else if CALLS.iter().any(|word| kind.contains(word)) {
        Some(TokenKind::ToolCall)
    } else {
        ANSWERS.iter().any(|end| kind.ends_with(end)).then_some(TokenKind::Answer)
    }
}

fn usage(counts: &JsonTree<'_>) -> Usage {
    let (prompt, completion) =
        (&["input_tokens", "prompt_tokens"], &["output_tokens", "completion_tokens"]);
    openai::usage_named(counts, prompt, completion)
}

/// Decodes the last event. Its finish reason, if missing, is `why`.
fn last<'a>(event: &JsonTree<'a>, why: &str) -> Message<'a> {
    let response = event.get("response");
    let mut parts = counted_end(event, response, why);
    parts.extend(error(event, why));
    parts.push(MessagePart::End);
    Message { id: wire::id(response), parts }
}

/// Returns the finish reason, the usage and the times of a response.
fn counted_end<'a>(
    event: &JsonTree<'a>,
    response: &JsonTree<'a>,
    why: &str,
) -> Vec<MessagePart<'a>> {
    let reason = wire::finish_reason(response.get("incomplete_details").get("reason"));
    let mut parts = vec![reason.unwrap_or_else(|| MessagePart::Finish(why.to_owned().into()))];
    let usages = [response.get("usage"), event.get("usage")];
    let counts = usages.into_iter().find(|usage| !usage.is_empty());
    if let Some(counts) = counts {
        parts.extend(wire::read_usage(usage(counts), counts));
    }
    let llama = timed(wire::llama_timings(event.get("timings")));
    parts.extend(llama.or_else(|| timed(wire::vllm_metrics(response.get("metrics")))));
    parts
}

/// Decodes an item of a whole response: a message, reasoning, or a call of a tool.
fn of_item<'a>(item: &JsonTree<'a>, fields: &TextFields) -> Vec<MessagePart<'a>> {
    let texts = |field: &str, kind: TokenKind| {
        Texts::of(item, field, kind, fields).parts().collect::<Vec<_>>()
    };
    match item.get("type").str() {
        Some("reasoning") => {
            let shown = texts("content", TokenKind::Reasoning);
            if shown.is_empty() { texts("summary", TokenKind::Reasoning) } else { shown }
        }
        Some("message") | None => texts("content", TokenKind::Answer),
        Some(_) => {
            let call = delta::call(item).map(|call| MessagePart::Token(TokenKind::ToolCall, call));
            call.into_iter().collect()
        }
    }
}

/// Decodes a response that failed or was cancelled.
fn failed<'a>(event: &JsonTree<'a>, response: &JsonTree<'a>, status: &str) -> Message<'a> {
    let words = in_response(response).or_else(|| wire::error(event, "", false));
    let without = match status.ends_with("cancelled") {
        true => "the server cancelled the response without a reason",
        false => "the response failed without a reason from the server",
    };
    alone(words.unwrap_or_else(|| MessagePart::Error(without.into())))
}

// -- from the simulated server --------------------------------------------------------------------

fn delta_type(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Answer => "response.output_text.delta",
        TokenKind::Reasoning => "response.reasoning_text.delta",
        TokenKind::ToolCall => "response.function_call_arguments.delta",
    }
}

/// Formats an event with a name, and with its type in its data.
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
