//! The native stream protocol of Text Generation Inference.
//!
//! <https://huggingface.github.io/text-generation-inference/>

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    TokenKind, Usage,
    delta::{self, Texts},
    json::JsonTree,
    openai,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, counted, event},
};
use crate::framing::Frame;

/// `POST /generate_stream` with `details: true`.
///
/// A frame contains, in this order: an answer token; a finish reason with the token counts of the
/// answer and, with newer servers, of the prompt; the end. Or only an error. There are no ids,
/// roles, reasoning or tool calls: a model's reasoning is part of its text. A special token, such
/// as the end token, is counted but is not part of the text.
#[derive(Debug)]
pub struct TgiGenerateStream;

impl Protocol for TgiGenerateStream {
    fn name(&self) -> &'static str {
        "tgi_generate_stream"
    }

    fn path(&self) -> &'static str {
        "/generate_stream"
    }

    fn prefix(&self) -> &'static str {
        ""
    }

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(TgiGenerateStream))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let mut parameters = json!({"max_new_tokens": ask.max_tokens, "details": true});
        if let Some(temperature) = ask.temperature {
            // The server rejects a temperature of 0, which means no sampling.
            parameters["do_sample"] = (temperature > 0.0).into();
            if temperature > 0.0 {
                parameters["temperature"] = temperature.into();
            }
        }
        let mut body = json!({"inputs": wire::plain_prompt(ask), "parameters": parameters});
        wire::add_own(&mut body, ask, Some("parameters"));
        body
    }

    fn limits(&self) -> &'static [&'static str] {
        &["/parameters/max_new_tokens"]
    }

    fn has_roles(&self) -> bool {
        false
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        match key {
            _ if value.is_null() && wire::may_be_left_out(key) => None,
            "inputs" => Some("`inputs` is made from the prompts: use `prompts`".into()),
            "parameters" => match value {
                Value::Object(parameters) => {
                    parameters.iter().find_map(|(key, value)| refuses_parameter(key, value))
                }
                _ => Some(format!("`parameters: {value}` is not a mapping")),
            },
            _ => None,
        }
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        let parameters = body.get("parameters").and_then(Value::as_object);
        let details = parameters.and_then(|parameters| parameters.get("details"));
        RequestIntent {
            max_tokens: parameters.and_then(|fields| wire::number(fields, "max_new_tokens")),
            prompt_chars: body.get("inputs").map_or(0, wire::text_chars),
            // The path determines it.
            stream: true,
            usage: details == Some(&Value::Bool(true)),
            ..RequestIntent::of(body)
        }
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &["finish_reason", "\"generated_text\":\"", "\"generated_text\": \"", "DONE"]
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, openai::knows_event, |tree, name| message(tree, name, fields))
    }

    fn encode(&self, message: &Message<'_>, _: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let has_contents =
            |part: &MessagePart<'_>| !matches!(part, MessagePart::Error(_) | MessagePart::Role);
        let mut frames = String::new();
        if parts.iter().any(has_contents) {
            frames += &event(&token_json(parts));
        }
        for error in wire::errors_of(parts) {
            frames += &event(&json!({"error": error, "error_type": "generation"}));
        }
        frames.into_bytes()
    }

    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        wire::in_one(parts, ("eos_token", "length"))
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        let kind = match status {
            429 => "overloaded",
            400..500 => "validation",
            _ => "generation",
        };
        json!({"error": message, "error_type": kind}).to_string().into_bytes()
    }
}

/// `POST /generate`, which answers with one document.
impl DocumentForm for TgiGenerateStream {
    fn document_path(&self) -> &'static str {
        "/generate"
    }

    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        let texts = Texts::of(tree, "generated_text", TokenKind::Answer, fields);
        let details = tree.get("details");
        let mut parts: Vec<_> = texts.parts().collect();
        parts.extend(wire::finish_reason(details.get("finish_reason")));
        parts.extend(counted(usage(details)));
        parts.extend(wire::error(tree, "", !tree.get("generated_text").is_null()));
        Message { id: None, parts }
    }

    fn document_json(&self, message: &Message<'_>, _: &Envelope<'_>) -> Value {
        let text = wire::all_text(&message.parts).unwrap_or_default();
        json!({"generated_text": text, "details": details_json(&message.parts)})
    }
}

fn refuses_parameter(key: &str, value: &Value) -> Option<String> {
    let why = match key {
        _ if value.is_null() => return None,
        "max_new_tokens" => "is set by the model's field `max_tokens`",
        "temperature" => "is set by the model's field `temperature`",
        "do_sample" => "follows the model's field `temperature`",
        "details" if *value != true => {
            "would turn off the token counts that the speeds are computed from"
        }
        "best_of" if *value != 1 => "would have answers generated that are never streamed",
        _ => return None,
    };
    Some(format!("`parameters.{key}: {value}` {why}"))
}

fn message<'a>(event: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    let (token, details) = (event.get("token"), event.get("details"));
    let mut parts = Vec::with_capacity(1);
    if !token.get("special").is_true() {
        parts.extend(Texts::of(token, "text", TokenKind::Answer, fields).parts());
        parts.extend(delta::unread(token, &["text", "special", "error"], fields));
    }
    if !token.is_null() {
        parts.extend(delta::misplaced(event, &["token", "generated_text"], fields));
    }
    parts.extend(wire::finish_reason(details.get("finish_reason")));
    parts.extend(counted(usage(details)));
    // Some servers send an empty text with each token.
    let whole = event.get("generated_text");
    if !whole.is_empty() || !whole.is_null() && !details.is_empty() {
        parts.push(MessagePart::End);
    }
    parts.extend(wire::error(event, name, !token.is_null()));
    parts.extend([token, details].into_iter().find_map(wire::error_in));
    Message { id: None, parts }
}

fn usage(details: &JsonTree<'_>) -> Usage {
    Usage {
        prompt_tokens: details.get("input_length").count(),
        completion_tokens: details.get("generated_tokens").count(),
        ..Usage::default()
    }
}

/// Formats the finish reason and the token counts.
fn details_json(parts: &[MessagePart<'_>]) -> Option<Value> {
    let usage = wire::usage_of(parts);
    wire::finish_of(parts).map(|reason| {
        wire::without_nulls(json!({
            "finish_reason": reason,
            "generated_tokens": usage.and_then(|usage| usage.completion_tokens),
            "input_length": usage.and_then(|usage| usage.prompt_tokens),
        }))
    })
}

/// Formats a message like TGI, without errors. A token without text is a special token.
fn token_json(parts: &[MessagePart<'_>]) -> Value {
    let (text, is_last) = (wire::all_text(parts), parts.contains(&MessagePart::End));
    json!({
        "index": 0,
        "token": {"id": 0, "text": text, "logprob": 0.0, "special": text.is_none()},
        "generated_text": is_last.then_some(""),
        "details": details_json(parts),
    })
}
