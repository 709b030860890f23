//! OpenAI Completions, which continue a text without roles, as served by vLLM, SGLang and
//! llama.cpp.
//!
//! <https://platform.openai.com/docs/api-reference/completions>

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    TextTraits, TokenKind,
    delta::{self, Texts},
    json::JsonTree,
    openai,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, event},
};
use crate::framing::Frame;

/// `POST /completions` with `stream: true`.
///
/// A frame contains, in this order: an answer token; a finish reason; a usage with at least one
/// count; times. Or, without an id, only an error or only the end. There are no roles, reasoning or
/// tool calls: a model's reasoning is part of its text.
#[derive(Debug)]
pub struct OpenAiCompletions;

impl Protocol for OpenAiCompletions {
    fn name(&self) -> &'static str {
        "openai_completions"
    }

    fn path(&self) -> &'static str {
        "/completions"
    }

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(OpenAiCompletions))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let mut body = json!({
            "model": ask.model,
            "prompt": wire::plain_prompt(ask),
            "temperature": ask.temperature,
            "max_tokens": ask.max_tokens,
        });
        openai::add_stream(&mut body, ask);
        body
    }

    fn length_fields(&self) -> &'static [&'static str] {
        &["ignore_eos", "min_tokens"]
    }

    fn has_roles(&self) -> bool {
        false
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        openai::forbidden_field("prompt", key, value)
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        openai::request_intent("prompt", body)
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, openai::knows_event, |tree, name| message(tree, name, fields))
    }

    fn text_traits(&self, frame: &Frame<'_>) -> TextTraits {
        openai::first_choice(frame, |choice| TextTraits {
            has_empty_text: choice.get("text").is_empty_text(),
            has_reasoning_content: false,
        })
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let has_contents = |part: &MessagePart<'_>| {
            !matches!(part, MessagePart::Error(_) | MessagePart::End | MessagePart::Role)
        };
        let mut frames = String::new();
        if parts.iter().any(has_contents) {
            frames += &event(&chunk_json(message, envelope));
        }
        for error in wire::errors_of(parts) {
            frames += &event(&openai::error_json(500, error));
        }
        if parts.contains(&MessagePart::End) {
            frames += "data: [DONE]\n\n";
        }
        frames.into_bytes()
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

impl DocumentForm for OpenAiCompletions {
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        message(tree, "", fields)
    }

    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
        chunk_json(message, envelope)
    }
}

fn message<'a>(chunk: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    openai::message(chunk, name, |choice, parts| {
        let mut texts = Texts::of(choice, "text", TokenKind::Answer, fields);
        texts.read_reasoning(choice);
        parts.extend(texts.parts());
        parts.extend(delta::unread(choice, &["text", "error"], fields));
    })
}

/// Formats a message like vLLM, without errors and the end.
fn chunk_json(message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
    let text = wire::all_text(&message.parts).unwrap_or_default();
    let finish = wire::finish_of(&message.parts);
    let has_contents = !text.is_empty() || finish.is_some();
    let choice = has_contents
        .then(|| json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish}));
    let mut chunk = json!({
        "id": message.id,
        "object": "text_completion",
        "created": envelope.created,
        "model": envelope.model,
        "choices": choice.into_iter().collect::<Vec<_>>(),
    });
    if let Some(usage) = wire::usage_of(&message.parts) {
        chunk["usage"] = openai::usage_json(&usage);
    }
    if let Some(timings) = wire::timings_of(&message.parts) {
        chunk["metrics"] = wire::metrics_json(&timings);
    }
    chunk
}
