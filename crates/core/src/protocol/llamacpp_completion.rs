//! The native completion protocol of llama.cpp.
//!
//! <https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-completion-given-a-prompt-it-returns-the-predicted-completion>

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, DecodeError, Envelope, Message, MessagePart, Protocol, RequestIntent, TextFields,
    Timings, TokenKind, Usage,
    delta::{self, Texts},
    json::JsonTree,
    openai,
    unstreamed::{DocumentForm, Unstreamed},
    wire::{self, counted, event, timed},
};
use crate::framing::Frame;

/// `POST /completion` with `stream: true`.
///
/// A frame contains, in this order: an answer token; a finish reason; the token counts of the
/// prompt, of the answer and, in the last frame, of the cache; times; the end. Or only an error.
/// There are no ids, roles, reasoning or tool calls: a model's reasoning is part of its text.
#[derive(Debug)]
pub struct LlamaCppCompletion;

impl Protocol for LlamaCppCompletion {
    fn name(&self) -> &'static str {
        "llamacpp_completion"
    }

    fn path(&self) -> &'static str {
        "/completion"
    }

    fn prefix(&self) -> &'static str {
        ""
    }

    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        Some(&Unstreamed(LlamaCppCompletion))
    }

    fn body(&self, ask: &ChatRequest<'_>) -> Value {
        let mut body = json!({
            "model": ask.model,
            "prompt": wire::plain_prompt(ask),
            "temperature": ask.temperature,
            "n_predict": ask.max_tokens,
            "stream": true,
        });
        wire::add_length(&mut body, ask);
        wire::add_own(&mut body, ask, None);
        body
    }

    fn limits(&self) -> &'static [&'static str] {
        &["/n_predict"]
    }

    fn length_fields(&self) -> &'static [&'static str] {
        &["ignore_eos"]
    }

    fn has_roles(&self) -> bool {
        false
    }

    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String> {
        Some(match key {
            _ if value.is_null() && wire::may_be_left_out(key) => return None,
            "prompt" => "`prompt` is made from the prompts: use `prompts`".into(),
            "model" => "`model` is set by the model's field `model_name`".into(),
            "temperature" => "`temperature` is set by the model's field `temperature`".into(),
            "n_predict" | "max_tokens" => {
                format!("`{key}` is set by the model's field `max_tokens`")
            }
            "stream" if *value != true => {
                format!("`stream: {value}` {}", wire::STREAM_FIELD)
            }
            "n_cmpl" | "n" if *value != 1 => {
                format!("`{key}: {value}` would mix several answers in the stream that is measured")
            }
            "response_fields" => {
                "`response_fields` would leave out what the speeds are computed from".into()
            }
            _ => return None,
        })
    }

    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent {
        RequestIntent {
            max_tokens: wire::number(body, "n_predict"),
            min_tokens: wire::min_tokens(body, wire::number(body, "n_predict")),
            prompt_chars: body.get("prompt").map_or(0, wire::text_chars),
            ..RequestIntent::of(body)
        }
    }

    fn end_marks(&self) -> &'static [&'static str] {
        &["\"stop\":true", "\"stop\": true", "DONE"]
    }

    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, openai::knows_event, |tree, name| message(tree, name, fields))
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let has_contents =
            |part: &MessagePart<'_>| !matches!(part, MessagePart::Error(_) | MessagePart::Role);
        let mut frames = String::new();
        if parts.iter().any(has_contents) {
            frames += &event(&piece_json(parts, envelope));
        }
        for error in wire::errors_of(parts) {
            frames += &event(&openai::error_json(500, error));
        }
        frames.into_bytes()
    }

    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        wire::in_one(parts, ("eos", "limit"))
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

impl DocumentForm for LlamaCppCompletion {
    fn document<'a>(&self, tree: &JsonTree<'a>, fields: &TextFields) -> Message<'a> {
        message(tree, "", fields)
    }

    fn document_json(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
        piece_json(&message.parts, envelope)
    }
}

/// Decodes an event. `tokens_cached` is the size of the cache afterwards, not of a cached prefix;
/// that is in `timings`.
fn message<'a>(piece: &JsonTree<'a>, name: &str, fields: &TextFields) -> Message<'a> {
    let content = piece.get("content");
    let mut texts = Texts::of(piece, "content", TokenKind::Answer, fields);
    texts.read_reasoning(piece);
    let mut parts: Vec<_> = wire::choice(piece.get("index")).into_iter().collect();
    parts.extend(texts.parts());
    parts.extend(delta::misplaced(piece, &["content"], fields));
    parts.extend(stop_reason(piece));
    parts.extend(counted(usage(piece)));
    parts.extend(timed(wire::llama_timings(piece.get("timings"))));
    if piece.get("stop").is_true() {
        parts.push(MessagePart::End);
    }
    parts.extend(wire::error(piece, name, !content.is_null()));
    Message { id: None, parts }
}

fn usage(piece: &JsonTree<'_>) -> Usage {
    Usage {
        prompt_tokens: piece.get("tokens_evaluated").count(),
        completion_tokens: piece.get("tokens_predicted").count(),
        cached_tokens: piece.get("timings").get("cache_n").count(),
        ..Usage::default()
    }
}

/// Returns the finish reason. Before `stop_type` there was a flag for each reason.
fn stop_reason<'a>(piece: &JsonTree<'a>) -> Option<MessagePart<'a>> {
    let flags = [("stopped_eos", "eos"), ("stopped_word", "word"), ("stopped_limit", "limit")];
    wire::finish_reason(piece.get("stop_type")).or_else(|| {
        let (_, reason) = flags.iter().find(|(flag, _)| piece.get(flag).is_true())?;
        Some(MessagePart::Finish((*reason).into()))
    })
}

/// Formats a message like llama.cpp, without errors.
fn piece_json(parts: &[MessagePart<'_>], envelope: &Envelope<'_>) -> Value {
    let usage = wire::usage_of(parts).unwrap_or_default();
    let is_last = parts.contains(&MessagePart::End);
    wire::without_nulls(json!({
        "index": 0,
        "content": wire::all_text(parts).unwrap_or_default(),
        "stop": is_last,
        "model": is_last.then_some(envelope.model),
        "tokens_predicted": usage.completion_tokens,
        "tokens_evaluated": usage.prompt_tokens,
        "stop_type": wire::finish_of(parts),
        "timings": timings_json(parts, usage.cached_tokens),
    }))
}

fn timings_json(parts: &[MessagePart<'_>], cached: Option<u64>) -> Option<Value> {
    let timings = wire::timings_of(parts);
    let is_timed = timings.is_some() || cached.is_some();
    let Timings { prompt, generation, .. } = timings.unwrap_or_default();
    let timings = json!({
        "cache_n": cached,
        "prompt_ms": prompt.map(wire::milliseconds),
        "predicted_ms": generation.map(wire::milliseconds),
    });
    is_timed.then(|| wire::without_nulls(timings))
}
