//! The common part of OpenAI's chat and completions: usage, errors and options.

use serde_json::{Map, Value, json};

use super::{
    ChatRequest, Message, MessagePart, RequestIntent, TextTraits, Timings, Usage,
    json::JsonTree,
    wire::{self, timed},
};
use crate::framing::Frame;

/// Decodes a chunk. `add_texts` adds the texts of a choice.
pub(super) fn message<'a>(
    chunk: &JsonTree<'a>,
    name: &str,
    add_texts: impl Fn(&JsonTree<'a>, &mut Vec<MessagePart<'a>>),
) -> Message<'a> {
    let choices = chunk.get("choices");
    let mut parts = Vec::with_capacity(1);
    let mut last = choices;
    for choice in choices.items() {
        parts.extend(wire::choice(choice.get("index")));
        add_texts(choice, &mut parts);
        parts.extend(wire::finish_reason(choice.get("finish_reason")));
        parts.extend(wire::error_in(choice));
        last = choice;
    }
    counted_and_timed(chunk, last, &mut parts);
    parts.extend(wire::error(chunk, name, !choices.is_empty()));
    Message { id: wire::id(chunk), parts }
}

/// Names of the two counts: the protocol's first, then those of other protocols, which gateways and
/// mlx-vlm use.
const PROMPT: &[&str] = &[
    "prompt_tokens",
    "input_tokens",
    "promptTokens",
    "inputTokens",
    "promptTokenCount",
    "inputTokenCount",
    "prompt_eval_count",
    "prompt",
];
const COMPLETION: &[&str] = &[
    "completion_tokens",
    "output_tokens",
    "completionTokens",
    "outputTokens",
    "generated_tokens",
    "candidatesTokenCount",
    "outputTokenCount",
    "eval_count",
    "completion",
];

/// Returns whether chunks can have this event name. Usually they have none.
pub(super) fn knows_event(name: &str) -> bool {
    ["message", "chunk", "completion", "delta", "data"].iter().any(|word| name.contains(word))
}

/// Reads the `usage` of a chat or a completion.
pub(super) fn usage(counts: &JsonTree<'_>) -> Usage {
    with_thoughts(with_reasoning(usage_named(counts, PROMPT, COMPLETION)), counts)
}

/// Adds Gemini's reasoning, which it counts next to the answer's tokens.
fn with_thoughts(usage: Usage, counts: &JsonTree<'_>) -> Usage {
    let thoughts = counts.get("thoughtsTokenCount").count();
    let answer = counts.get("candidatesTokenCount").count();
    match thoughts.zip(answer).filter(|_| usage.completion_tokens == answer) {
        Some((thoughts, answer)) => Usage {
            completion_tokens: answer.checked_add(thoughts),
            reasoning_tokens: Some(thoughts),
            ..usage
        },
        None => usage,
    }
}

/// Reads a `usage` by the names of its counts, the protocol's names first.
pub(super) fn usage_named(counts: &JsonTree<'_>, prompt: &[&str], completion: &[&str]) -> Usage {
    let known = |names: &[&str]| {
        let counts =
            names.iter().zip(0..).filter_map(|(name, at)| Some((counts.get(name).count()?, at)));
        counts.into_iter().next()
    };
    let of = |details: &[&str], names: &[&str]| {
        let details = details.iter().map(|details| counts.get(details)).chain([counts]);
        let mut found =
            details.flat_map(|object| names.iter().map(|name| object.get(name).count()));
        found.find_map(|count| count)
    };
    let (prompt, completion) = (known(prompt), known(completion));
    Usage {
        prompt_tokens: prompt.map(|(count, _)| count),
        completion_tokens: completion.map(|(count, _)| count),
        total_tokens: ["total_tokens", "totalTokens", "totalTokenCount"]
            .iter()
            .find_map(|name| counts.get(name).count()),
        cached_tokens: of(
            &["prompt_tokens_details", "input_tokens_details"],
            // Without details: Kimi, DeepSeek and Mistral, in this order.
            &["cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens"],
        ),
        reasoning_tokens: of(
            &["completion_tokens_details", "output_tokens_details"],
            &["reasoning_tokens"],
        ),
        renamed: prompt.or(completion).is_some_and(|_| {
            prompt.is_some_and(|(_, at)| at > 0) || completion.is_some_and(|(_, at)| at > 0)
        }),
    }
}

/// Reads the usage and the server's times in a chunk. Kimi puts the usage into the `choice`, Groq
/// puts a second one into `x_groq`, and Gemini has a different name for it.
fn counted_and_timed<'a>(
    chunk: &JsonTree<'a>,
    choice: &JsonTree<'a>,
    parts: &mut Vec<MessagePart<'a>>,
) {
    let usages = [
        chunk.get("usage"),
        choice.get("usage"),
        chunk.get("x_groq").get("usage"),
        chunk.get("usageMetadata"),
        chunk.get("usage_metadata"),
        choice.get("delta").get("usage"),
        chunk.get("response").get("usage"),
    ];
    let counts = usages.into_iter().find(|usage| !usage.is_empty());
    if let Some(counts) = counts {
        parts.extend(wire::read_usage(usage(counts), counts));
    }
    parts.extend(own_times(chunk, counts));
}

/// Reads the times of llama.cpp, vLLM, Cerebras, and of Groq in its usage.
fn own_times<'a>(chunk: &JsonTree<'_>, counts: Option<&JsonTree<'_>>) -> Option<MessagePart<'a>> {
    let llama = timed(wire::llama_timings(chunk.get("timings")));
    let vllm = || timed(wire::vllm_metrics(chunk.get("metrics")));
    let cerebras = || timed(times_in_seconds(chunk.get("time_info")));
    let groq = || {
        let counts = counts?;
        let are_there = !counts.first(&["completion_time", "prompt_time"]).is_null();
        are_there.then(|| timed(times_in_seconds(counts)))?
    };
    llama.or_else(vllm).or_else(cerebras).or_else(groq)
}

/// Reads the times of Groq and Cerebras. Neither documents where `completion_time` begins.
fn times_in_seconds(times: &JsonTree<'_>) -> Timings {
    let generation = wire::time(times, "completion_time", 1.0);
    Timings {
        queue: wire::time(times, "queue_time", 1.0),
        prompt: wire::time(times, "prompt_time", 1.0),
        generation,
        may_hold_first: generation.is_some(),
    }
}

/// Returns the traits of the first choice in the JSON of `frame`.
pub(super) fn first_choice(
    frame: &Frame<'_>,
    traits: impl Fn(&JsonTree<'_>) -> TextTraits,
) -> TextTraits {
    let Frame::Event { data, .. } = frame else { return TextTraits::default() };
    let chunk = JsonTree::parse(data).unwrap_or(JsonTree::Null);
    chunk.get("choices").items().next().map(traits).unwrap_or_default()
}

/// Includes xAI's reasoning, which it counts next to the completion. Its total reveals that: for
/// other servers the total is that of prompt and completion.
fn with_reasoning(usage: Usage) -> Usage {
    let Usage { prompt_tokens, completion_tokens, total_tokens, reasoning_tokens, .. } = usage;
    let apart = completion_tokens.zip(reasoning_tokens).filter(|(_, reasoning)| *reasoning > 0);
    let generated = apart.and_then(|(answer, reasoning)| answer.checked_add(reasoning));
    match generated.zip(prompt_tokens).and_then(|(all, prompt)| all.checked_add(prompt)) {
        sum @ Some(_) if sum == total_tokens => Usage { completion_tokens: generated, ..usage },
        _ => usage,
    }
}

/// Formats a usage.
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

/// Formats an error's body like vLLM.
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

/// Adds the answer's length, the stream options and the user's fields to a body.
pub(super) fn add_stream(body: &mut Value, ask: &ChatRequest<'_>) {
    wire::add_length(body, ask);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    wire::add_own(body, ask, Some("stream_options"));
}

/// Returns why `key: value` must not be sent, for both protocols. `prompt` is the field with the
/// prompt.
pub(super) fn forbidden_field(prompt: &str, key: &str, value: &Value) -> Option<String> {
    let sets_other_than = |neutral: Value| *value != neutral;
    let why = match key {
        _ if value.is_null() && wire::may_be_left_out(key) => return None,
        _ if key == prompt => {
            return Some(format!("`{prompt}` is made from the prompts: use `prompts`"));
        }
        "model" => return Some("`model` is set by the model's field `model_name`".into()),
        "temperature" | "max_tokens" => {
            return Some(format!("`{key}` is set by the model's field `{key}`"));
        }
        "stream" if *value != true => wire::STREAM_FIELD,
        "stream_options" if !value.is_object() => {
            "is not a mapping; for a server that refuses the field, `stream_options: null` leaves \
             it out"
        }
        "stream_options"
            if value.get("include_usage").is_some_and(|on| *on != true && !on.is_null()) =>
        {
            "would turn off the token counts that the speeds are computed from; for a server that \
             refuses the field, `stream_options: null` leaves it out, and `token_count` says who \
             counts then"
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

/// Parses a body. `prompt` is the field with the prompt.
pub(super) fn request_intent(prompt: &str, body: &Map<String, Value>) -> RequestIntent {
    let options = body.get("stream_options");
    let include_usage = options.and_then(|options| options.get("include_usage"));
    let max_tokens =
        wire::number(body, "max_completion_tokens").or_else(|| wire::number(body, "max_tokens"));
    RequestIntent {
        max_tokens,
        min_tokens: wire::min_tokens(body, max_tokens),
        prompt_chars: body.get(prompt).map_or(0, wire::text_chars),
        usage: include_usage == Some(&Value::Bool(true)),
        ..RequestIntent::of(body)
    }
}
