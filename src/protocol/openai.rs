//! What OpenAI's own protocols share: the chat's and the completion's usage, errors and options.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Ask, Part, Timings, Usage, Wish,
    wire::{self, Count, counted, known, timed},
};

/// The `usage` of a chat completion or a completion, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Counts {
    prompt_tokens: Option<Count>,
    completion_tokens: Option<Count>,
    total_tokens: Option<Count>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// What some say without details: Kimi, DeepSeek and Mistral in this order, and SGLang.
    cached_tokens: Option<Count>,
    prompt_cache_hit_tokens: Option<Count>,
    num_cached_tokens: Option<Count>,
    reasoning_tokens: Option<Count>,
    /// Groq's times, in seconds.
    queue_time: Option<Value>,
    prompt_time: Option<Value>,
    completion_time: Option<Value>,
}

/// What servers say of their own speed, in a chunk.
pub(super) struct OwnWord {
    /// llama.cpp's.
    pub(super) timings: Option<Box<Value>>,
    /// vLLM's.
    pub(super) metrics: Option<Box<Value>>,
    /// Cerebras's.
    pub(super) time_info: Option<Box<Value>>,
}

impl OwnWord {
    fn read(&self) -> Option<Timings> {
        let some = |timings: Timings| (timings != Timings::default()).then_some(timings);
        let llama = self.timings.as_deref().map(wire::llama_timings).and_then(some);
        let vllm = || self.metrics.as_deref().map(wire::vllm_metrics).and_then(some);
        let cerebras = || self.time_info.as_deref().map(times_in_seconds).and_then(some);
        llama.or_else(vllm).or_else(cerebras)
    }
}

/// The usage and the times of a chunk, where there are any.
pub(super) fn counted_and_timed<'a>(
    counts: Option<Counts>,
    own: &OwnWord,
    parts: &mut Vec<Part<'a>>,
) {
    let timings = own.read().or_else(|| counts.as_ref().map(Counts::timings));
    parts.extend(counts.and_then(|counts| counted(counts.usage())));
    parts.extend(timings.and_then(timed));
}

/// Groq's and Cerebras's names. Neither says where `completion_time` begins.
fn times_in_seconds(times: &Value) -> Timings {
    let generation = wire::time(times, "completion_time", 1.0);
    Timings {
        queue: wire::time(times, "queue_time", 1.0),
        prompt: wire::time(times, "prompt_time", 1.0),
        generation,
        may_hold_first: generation.is_some(),
    }
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<Count>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<Count>,
}

impl Counts {
    fn timings(&self) -> Timings {
        if self.completion_time.is_none() && self.prompt_time.is_none() {
            return Timings::default();
        }
        times_in_seconds(&json!({
            "queue_time": self.queue_time,
            "prompt_time": self.prompt_time,
            "completion_time": self.completion_time,
        }))
    }

    pub(super) fn usage(self) -> Usage {
        let of_prompt = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        let of_answer = self.completion_tokens_details.and_then(|details| details.reasoning_tokens);
        let apart = [self.cached_tokens, self.prompt_cache_hit_tokens, self.num_cached_tokens];
        let usage = Usage {
            prompt_tokens: known(self.prompt_tokens),
            completion_tokens: known(self.completion_tokens),
            total_tokens: known(self.total_tokens),
            cached_tokens: known(of_prompt).or_else(|| apart.into_iter().find_map(known)),
            reasoning_tokens: known(of_answer).or(known(self.reasoning_tokens)),
        };
        with_reasoning(usage)
    }
}

/// xAI counts reasoning beside the completion and not in it: its total tells. That of all others is
/// of the prompt and the completion.
fn with_reasoning(usage: Usage) -> Usage {
    let Usage { prompt_tokens, completion_tokens, total_tokens, reasoning_tokens, .. } = usage;
    let apart = completion_tokens.zip(reasoning_tokens).filter(|(_, reasoning)| *reasoning > 0);
    let generated = apart.and_then(|(answer, reasoning)| answer.checked_add(reasoning));
    match generated.zip(prompt_tokens).and_then(|(all, prompt)| all.checked_add(prompt)) {
        sum @ Some(_) if sum == total_tokens => Usage { completion_tokens: generated, ..usage },
        _ => usage,
    }
}

/// The same as it is written.
pub(super) fn usage_json(usage: &Usage) -> Value {
    let mut counts = json!({
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.completion_tokens,
    });
    if let Some(cached) = usage.cached_tokens {
        counts["prompt_tokens_details"] = json!({"cached_tokens": cached});
    }
    if let Some(reasoning) = usage.reasoning_tokens {
        counts["completion_tokens_details"] = json!({"reasoning_tokens": reasoning});
    }
    counts
}

/// An error's body, as vLLM writes it.
pub(super) fn error_json(status: u16, message: &str) -> Value {
    let kind = match status {
        401 | 403 => "AuthenticationError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        400..500 => "BadRequestError",
        _ => "InternalServerError",
    };
    json!({"error": {"message": message, "type": kind, "code": status}})
}

/// Adds the answer's length, the stream, its usage and the user's own fields to a body.
pub(super) fn add_stream(body: &mut Value, ask: &Ask<'_>) {
    wire::add_length(body, ask);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    for (key, value) in ask.extra_body {
        match key.as_str() {
            "stream_options" => wire::merge(body, key, value),
            _ => body[key] = value.clone(),
        }
    }
}

/// Why `key: value` must not be sent, where both protocols agree; `prompt` is the field that holds
/// the prompt.
pub(super) fn refuses(prompt: &str, key: &str, value: &Value) -> Option<String> {
    // `null` asks for the default.
    let sets_other_than = |neutral: Value| !value.is_null() && *value != neutral;
    let why = match key {
        _ if key == prompt => {
            return Some(format!("`{prompt}` is made from the prompts: use `prompts`"));
        }
        "model" => return Some("`model` is set by the model's own field `model_name`".into()),
        "temperature" | "max_tokens" => {
            return Some(format!("`{key}` is set by the model's own field `{key}`"));
        }
        "stream" if *value != true => "would turn off the stream that is measured",
        "stream_options" if !value.is_object() => "is no mapping",
        "stream_options" if value.get("include_usage").is_some_and(|on| *on != true) => {
            "would turn off the token counts that the speeds are computed from"
        }
        "n" if sets_other_than(1.into()) => {
            "would mix several answers in the stream that is measured"
        }
        "best_of" if sets_other_than(1.into()) => {
            "would have answers generated that are never streamed"
        }
        "use_beam_search" if sets_other_than(false.into()) => {
            "would hold tokens back until the search ends"
        }
        "echo" if sets_other_than(false.into()) => {
            "would stream the prompt as if it were generated"
        }
        _ => return None,
    };
    Some(format!("`{key}: {value}` {why}"))
}

/// What a body asks for; `prompt` is the field that holds the prompt.
pub(super) fn wish(prompt: &str, body: &Map<String, Value>) -> Wish {
    let options = body.get("stream_options");
    let include_usage = options.and_then(|options| options.get("include_usage"));
    let max_tokens =
        wire::number(body, "max_completion_tokens").or_else(|| wire::number(body, "max_tokens"));
    Wish {
        max_tokens,
        min_tokens: wire::min_tokens(body, max_tokens),
        prompt_chars: body.get(prompt).map_or(0, wire::text_chars),
        usage: include_usage == Some(&Value::Bool(true)),
        ..Wish::of(body)
    }
}
