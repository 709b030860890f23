//! OpenAI Chat Completions, as served by vLLM, SGLang, llama.cpp, transformers and the hosted APIs.
//!
//! <https://platform.openai.com/docs/api-reference/chat-streaming>
//!
//! The differences between servers are all handled here: the field of reasoning, the contents of
//! the first chunk, the position of the usage, the format of errors.

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    TextTraits, TokenKind,
    delta::{self, Texts},
    json::JsonTree,
    openai,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, event, text_of},
};
use crate::{framing::Frame, prompt::Image};

/// `POST /chat/completions` with `stream: true`.
///
/// A frame contains, in this order: a role, or a token of each kind (reasoning, answer, tool call);
/// a finish reason; a usage with at least one count; times; all optional. Or, without an id, only
/// an error or only the end. Texts are not empty. `decode` returns such a message after `encode`.
/// Of any other message, `encode` writes all contents, with errors and the end in separate frames.
#[derive(Debug)]
pub struct OpenAiChat;

impl Protocol for OpenAiChat {
    fn name(&self) -> &'static str {
        "openai_chat"
    }

    fn path(&self) -> &'static str {
        "/chat/completions"
    }

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(OpenAiChat))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let mut body = json!({"model": ask.model, "messages": wire::chat_messages(ask), "temperature": ask.temperature});
        // OpenAI rejects a request with both limits.
        let other = ask.extra_body.get("max_completion_tokens");
        if other.is_none_or(Value::is_null) {
            body["max_tokens"] = ask.max_tokens.into();
        }
        wire::add_chat_tools(&mut body, ask);
        let function = |name: &str| json!({"type": "function", "function": {"name": name}});
        wire::add_choice(&mut body, ask, function);
        openai::add_stream(&mut body, ask);
        body
    }

    fn tool_fields(&self) -> &'static [&'static str] {
        &["tools", "tool_choice"]
    }

    fn takes(&self, _: &Image) -> bool {
        true
    }

    fn limits(&self) -> &'static [&'static str] {
        &["/max_completion_tokens", "/max_tokens"]
    }

    fn length_fields(&self) -> &'static [&'static str] {
        &["ignore_eos", "min_tokens"]
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        openai::forbidden_field("messages", key, value)
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        openai::request_intent("messages", body)
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, openai::knows_event, |tree, name| message(tree, name, fields))
    }

    fn text_traits(&self, frame: &Frame<'_>) -> TextTraits {
        openai::first_choice(frame, |choice| {
            let delta = choice.get("delta");
            let is_empty = |name: &str| delta.get(name).is_empty();
            TextTraits {
                has_empty_text: delta.get("content").is_empty_text()
                    && delta.find("role").is_none(),
                has_reasoning_content: !is_empty("reasoning_content") && is_empty("reasoning"),
            }
        })
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let is_apart =
            |part: &MessagePart<'_>| matches!(part, MessagePart::Error(_) | MessagePart::End);
        let mut frames = String::new();
        if message.parts.is_empty() || !message.parts.iter().all(is_apart) {
            frames += &event(&chunk_json(message, envelope));
        }
        for part in &message.parts {
            match part {
                MessagePart::Error(message) => frames += &event(&openai::error_json(500, message)),
                MessagePart::End => frames += "data: [DONE]\n\n",
                _ => {}
            }
        }
        frames.into_bytes()
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

impl DocumentForm for OpenAiChat {
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        openai::message(tree, "", |choice, parts| {
            add_texts((choice, choice.get("message")), fields, parts);
        })
    }

    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
        let mut document = chunk_json(message, envelope);
        document["object"] = "chat.completion".into();
        let mut answer = Value::Object(delta_json(&message.parts));
        answer["role"] = "assistant".into();
        let finish = wire::finish_of(&message.parts);
        document["choices"] = json!([{"index": 0, "message": answer, "finish_reason": finish}]);
        document
    }
}

// -- from the server ------------------------------------------------------------------------------

/// Fields of the delta besides reasoning.
const KNOWN: &[&str] = &[
    "role",
    "content",
    "refusal",
    "tool_calls",
    "function_call",
    "audio",
    "usage",
    "provider_specific_fields",
];

fn message<'a>(chunk: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    openai::message(chunk, name, |choice, parts| {
        add_texts((choice, choice.get("delta")), fields, parts);
    })
}

/// Adds the texts of a choice's delta or, in a whole answer, of its message.
fn add_texts<'a>(
    (choice, delta): (&JsonTree<'a>, &JsonTree<'a>),
    fields: &TextFields,
    parts: &mut Vec<MessagePart<'a>>,
) {
    let before = parts.len();
    parts.extend(texts(delta, fields).parts());
    parts.extend(delta::unread(delta, KNOWN, fields));
    // LiteLLM repeats parts of the delta there.
    if parts.len() == before {
        parts.extend(delta::unread(delta, &KNOWN[..KNOWN.len() - 1], fields));
    }
    if parts.len() == before {
        parts.extend(delta::misplaced(choice, &[], fields));
    }
    if parts.len() == before && !delta.get("role").is_null() {
        parts.push(MessagePart::Role);
    }
    parts.extend(wire::error_in(delta));
}

/// Collects the texts of a delta.
fn texts<'a, 'f>(delta: &JsonTree<'a>, fields: &'f TextFields) -> Texts<'a, 'f> {
    let mut texts = Texts::of(delta, "content", TokenKind::Answer, fields);
    texts.read_reasoning(delta);
    texts.read(delta, "refusal", TokenKind::Answer);
    texts.read(delta, "audio", TokenKind::Answer);
    texts.read_calls(delta.get("tool_calls"), "tool_calls");
    texts.read_calls(delta.get("function_call"), "function_call");
    texts
}

// -- to the server, and from the simulated one ----------------------------------------------------

/// Formats a message like vLLM, without errors and the end.
fn chunk_json(message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
    let mut chunk = json!({
        "id": message.id,
        "object": "chat.completion.chunk",
        "created": envelope.created,
        "model": envelope.model,
        "choices": choice_json(&message.parts).into_iter().collect::<Vec<_>>(),
    });
    for part in &message.parts {
        if let MessagePart::Usage(usage) = part {
            chunk["usage"] = openai::usage_json(usage);
        }
        if let MessagePart::Timings(timings) = part {
            chunk["metrics"] = wire::metrics_json(timings);
        }
    }
    chunk
}

/// Formats the only choice; `None` if no part belongs to it, as in a usage chunk.
fn choice_json(parts: &[MessagePart<'_>]) -> Option<Value> {
    let finish = wire::finish_of(parts);
    let delta = delta_json(parts);
    let says_something = finish.is_some() || !delta.is_empty();
    says_something
        .then(|| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}))
}

fn delta_json(parts: &[MessagePart<'_>]) -> Map<String, Value> {
    let mut delta = Map::new();
    if parts.contains(&MessagePart::Role) {
        delta.insert("role".into(), "assistant".into());
        delta.insert("content".into(), "".into());
    }
    if let Some(text) = text_of(TokenKind::Reasoning, parts) {
        delta.insert("reasoning".into(), text.into());
    }
    if let Some(text) = text_of(TokenKind::Answer, parts) {
        delta.insert("content".into(), text.into());
    }
    if let Some(text) = text_of(TokenKind::ToolCall, parts) {
        delta.insert("tool_calls".into(), json!([{"index": 0, "function": {"arguments": text}}]));
    }
    delta
}
