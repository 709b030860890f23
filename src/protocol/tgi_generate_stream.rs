//! Text Generation Inference's own stream.
//!
//! <https://huggingface.github.io/text-generation-inference/>

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{
    Ask, DecodeError, Envelope, Message, Part, Protocol, TokenKind, Usage, Wish,
    wire::{self, Count, Text, counted, event, filled, known},
};
use crate::framing::Frame;

/// `POST /generate_stream` with `details: true`.
///
/// One frame can say, in this order: an answer token; a finish reason with, if any, the numbers of
/// the answer's and, of newer servers, the prompt's tokens; the end. Or an error alone. There are
/// no ids and no roles, and neither reasoning nor tool calls: what a model thinks is part of its
/// text. A special token, such as the one that ends a text, is none of the text, though the server
/// counts it.
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

    fn body(&self, ask: &Ask<'_>) -> Value {
        let mut parameters = json!({"max_new_tokens": ask.max_tokens, "details": true});
        // A temperature of 0 is refused: it is what not sampling is.
        parameters["do_sample"] = (ask.temperature > 0.0).into();
        if ask.temperature > 0.0 {
            parameters["temperature"] = ask.temperature.into();
        }
        let mut body = json!({"inputs": wire::plain_prompt(ask), "parameters": parameters});
        for (key, value) in ask.extra_body {
            match key.as_str() {
                "parameters" => wire::merge(&mut body, key, value),
                _ => body[key] = value.clone(),
            }
        }
        body
    }

    fn has_roles(&self) -> bool {
        false
    }

    fn refuses(&self, key: &str, value: &Value) -> Option<String> {
        match key {
            "inputs" => Some("`inputs` is made from the prompts: use `prompts`".into()),
            "parameters" => match value {
                Value::Object(parameters) => {
                    parameters.iter().find_map(|(key, value)| refuses_parameter(key, value))
                }
                _ => Some(format!("`parameters: {value}` is no mapping")),
            },
            _ => None,
        }
    }

    fn wish(&self, body: &Map<String, Value>) -> Wish {
        let parameters = body.get("parameters").and_then(Value::as_object);
        let details = parameters.and_then(|parameters| parameters.get("details"));
        Wish {
            max_tokens: parameters.and_then(|fields| wire::number(fields, "max_new_tokens")),
            prompt_chars: body.get("inputs").map_or(0, wire::text_chars),
            // The path says so.
            stream: true,
            usage: details == Some(&Value::Bool(true)),
            ..Wish::of(body)
        }
    }

    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, "token of a stream", message)
    }

    fn encode(&self, message: &Message<'_>, _: &Envelope<'_>) -> Vec<u8> {
        let parts = &message.parts;
        let says = |part: &Part<'_>| !matches!(part, Part::Error(_) | Part::Role);
        let mut frames = String::new();
        if parts.iter().any(says) {
            frames += &event(&token_json(parts));
        }
        for error in wire::errors_of(parts) {
            frames += &event(&json!({"error": error, "error_type": "generation"}));
        }
        frames.into_bytes()
    }

    fn ending(&self, parts: Vec<Part<'static>>) -> Vec<Vec<Part<'static>>> {
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

fn refuses_parameter(key: &str, value: &Value) -> Option<String> {
    let why = match key {
        "max_new_tokens" => "is set by the model's own field `max_tokens`",
        "temperature" => "is set by the model's own field `temperature`",
        "do_sample" => "follows the model's own field `temperature`",
        "details" if *value != true => {
            "would turn off the token counts that the speeds are computed from"
        }
        "best_of" if !value.is_null() && *value != 1 => {
            "would have answers generated that are never streamed"
        }
        _ => return None,
    };
    Some(format!("`parameters.{key}: {value}` {why}"))
}

/// An event, as far as it is read.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    token: Option<Token<'a>>,
    /// All of the text, in the last event.
    generated_text: Option<IgnoredAny>,
    #[serde(borrow)]
    details: Option<Details<'a>>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    special: Option<bool>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
    generated_tokens: Option<Count>,
    input_length: Option<Count>,
}

fn message<'a>(event: Event<'a>, data: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let token = event.token.filter(|token| token.special != Some(true));
    let text = token.and_then(|token| filled(token.text));
    let mut parts: Vec<_> =
        text.map(|text| Part::Token(TokenKind::Answer, text)).into_iter().collect();
    if let Some(details) = event.details {
        parts.extend(filled(details.finish_reason).map(Part::Finish));
        parts.extend(counted(Usage {
            prompt_tokens: known(details.input_length),
            completion_tokens: known(details.generated_tokens),
            ..Usage::default()
        }));
    }
    if event.generated_text.is_some() {
        parts.push(Part::End);
    }
    if event.error.is_some() {
        parts.extend(wire::complaint_in(data).map(Part::Error));
    }
    Ok(Message { id: None, parts })
}

/// The message as TGI writes it, without its errors. A token without text is a special one.
fn token_json(parts: &[Part<'_>]) -> Value {
    let (text, is_last) = (wire::all_text(parts), parts.contains(&Part::End));
    let usage = wire::usage_of(parts);
    let details = wire::finish_of(parts).map(|reason| {
        wire::without_nulls(json!({
            "finish_reason": reason,
            "generated_tokens": usage.and_then(|usage| usage.completion_tokens),
            "input_length": usage.and_then(|usage| usage.prompt_tokens),
        }))
    });
    json!({
        "index": 0,
        "token": {"id": 0, "text": text, "logprob": 0.0, "special": text.is_none()},
        "generated_text": is_last.then_some(""),
        "details": details,
    })
}
