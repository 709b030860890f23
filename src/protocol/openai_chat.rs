//! OpenAI chat completions, as vLLM, SGLang, llama.cpp, transformers and the hosted APIs speak it.
//!
//! <https://platform.openai.com/docs/api-reference/chat-streaming>
//!
//! What the servers disagree on is all here: where reasoning goes, what the first chunk holds,
//! where the usage sits, what an error looks like.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Number, Value, json};

use super::{Ask, DecodeError, Envelope, Message, Part, Protocol, TokenKind, Usage};
use crate::framing::Frame;

/// `POST /chat/completions` with `stream: true`.
///
/// One frame can say, in this order: a role or else one token of each kind (reasoning, answer, tool
/// call); a finish reason; a usage with at least one count. Or nothing of these. Or, without an id,
/// an error alone or the end alone. Texts are not empty. Such a message is what `decode` gives
/// again after `encode`; of any other, `encode` says all it holds, errors and the end in frames of
/// their own.
#[derive(Debug)]
pub struct OpenAiChat;

impl Protocol for OpenAiChat {
    fn name(&self) -> &'static str {
        "openai_chat"
    }

    fn path(&self) -> &'static str {
        "/chat/completions"
    }

    fn body(&self, ask: &Ask<'_>) -> Value {
        let system = ask.system.map(|text| json!({"role": "system", "content": text}));
        let user = json!({"role": "user", "content": ask.prompt});
        let messages: Vec<_> = system.into_iter().chain([user]).collect();
        let mut body =
            json!({"model": ask.model, "messages": messages, "temperature": ask.temperature});
        // OpenAI refuses a request that has both.
        if !ask.extra_body.contains_key("max_completion_tokens") {
            body["max_tokens"] = ask.max_tokens.into();
        }
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        for (key, value) in ask.extra_body {
            match (key.as_str(), value) {
                ("stream_options", Value::Object(options)) => add_all(&mut body[key], options),
                _ => body[key] = value.clone(),
            }
        }
        body
    }

    fn most_tokens(&self, ask: &Ask<'_>) -> Option<u64> {
        match ask.extra_body.get("max_completion_tokens") {
            Some(other) => other.as_u64(),
            None => Some(ask.max_tokens),
        }
    }

    fn refuses(&self, key: &str, value: &Value) -> Option<String> {
        // `null` asks for the default.
        let sets_other_than = |neutral: Value| !value.is_null() && *value != neutral;
        let why = match key {
            "messages" => return Some("`messages` is made from the prompts: use `prompts`".into()),
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

    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        let Frame::Event { name, data, terminated } = *frame else {
            return Ok(Message::default());
        };
        match data.trim_ascii() {
            data if name == "error" => Ok(alone(Part::Error(self.error_event(data)))),
            b"" => Ok(Message::default()),
            b"[DONE]" => Ok(alone(Part::End)),
            data => match chunk(data) {
                Ok(chunk) => self.message(chunk, data),
                Err(error) => Err(undecodable(data, terminated, &error)),
            },
        }
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let is_apart = |part: &Part<'_>| matches!(part, Part::Error(_) | Part::End);
        let mut frames = String::new();
        if message.parts.is_empty() || !message.parts.iter().all(is_apart) {
            frames += &event(&chunk_json(message, envelope));
        }
        for part in &message.parts {
            match part {
                Part::Error(message) => frames += &event(&error_json(500, message)),
                Part::End => frames += "data: [DONE]\n\n",
                _ => {}
            }
        }
        frames.into_bytes()
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        error_json(status, message).to_string().into_bytes()
    }

    fn decode_error(&self, body: &[u8]) -> Option<String> {
        complaint(&serde_json::from_slice(body).ok()?)
    }
}

// -- from the server ------------------------------------------------------------------------------

/// Reads the JSON of an event. To check once that all of it is text is faster than string by string.
fn chunk(data: &[u8]) -> Result<Chunk<'_>, serde_json::Error> {
    match str::from_utf8(data) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(data),
    }
}

/// A `chat.completion.chunk`, as far as it is read. What few events have is boxed: each event moves
/// this several times.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<Id<'a>>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Box<Counts>>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<i64>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    role: Option<IgnoredAny>,
    #[serde(borrow)]
    content: Option<Content<'a>>,
    #[serde(borrow)]
    refusal: Option<Text<'a>>,
    /// llama.cpp, SGLang, DeepSeek.
    #[serde(borrow)]
    reasoning_content: Option<Text<'a>>,
    /// vLLM, OpenRouter.
    #[serde(borrow)]
    reasoning: Option<Text<'a>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    function_call: Option<Box<Function<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<Count>,
    completion_tokens: Option<Count>,
    total_tokens: Option<Count>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<Count>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<Count>,
}

/// A number of tokens, `None` where it is negative: -1 stands for one that is not known. Gateways
/// in languages without integers write `12.0`.
#[derive(Deserialize)]
#[serde(try_from = "Number")]
struct Count(Option<u64>);

/// Some gateways number their answers.
#[derive(Deserialize)]
#[serde(untagged, expecting = "the id is neither text nor a number")]
enum Id<'a> {
    Text(#[serde(borrow)] Text<'a>),
    Number(Number),
}

/// The answer's text, or as Mistral's reasoning models write it, a list of parts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "the content is neither text nor a list of parts")]
enum Content<'a> {
    Text(#[serde(borrow)] Text<'a>),
    Parts(#[serde(borrow)] Vec<ContentPart<'a>>),
}

/// `{"type": "text", "text": …}`, or `{"type": "thinking", "thinking": …}` with such parts or text
/// again. Of others, such as references, nothing is a token.
#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    thinking: Option<Content<'a>>,
}

/// A string that borrows where it has no escapes: serde copies a bare `Option<Cow<str>>`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl OpenAiChat {
    fn message<'a>(&self, chunk: Chunk<'a>, data: &[u8]) -> Result<Message<'a>, DecodeError> {
        let may_be_error = chunk.error.is_some() || chunk.choices.is_none();
        let mut parts = Vec::with_capacity(1);
        for choice in chunk.choices.into_iter().flatten() {
            if choice.index.is_some_and(|index| index != 0) {
                let why = "the answer has several choices, whose tokens are not counted apart";
                return Err(DecodeError(why.into()));
            }
            choice.say(&mut parts);
        }
        parts.extend(chunk.usage.and_then(|counts| counts.usage()).map(Part::Usage));
        if may_be_error {
            parts.extend(self.decode_error(data).map(Part::Error));
        }
        Ok(Message { id: chunk.id.map(Id::text), parts })
    }

    /// What an event with the name `error` says: anything in it is the error.
    fn error_event(&self, data: &[u8]) -> String {
        match self.decode_error(data) {
            Some(message) => message,
            None if data.is_empty() => "the server sent an error event without data".into(),
            None => excerpt(data),
        }
    }
}

impl<'a> Choice<'a> {
    fn say(self, parts: &mut Vec<Part<'a>>) {
        if let Some(delta) = self.delta {
            delta.say(parts);
        }
        parts.extend(filled(self.finish_reason).map(Part::Finish));
    }
}

impl<'a> Delta<'a> {
    fn say(self, parts: &mut Vec<Part<'a>>) {
        let before = parts.len();
        let (thinking, answer) = self.content.map_or((None, None), Content::thinking_and_answer);
        // Some servers send the same reasoning under both names.
        let reasoning = filled(self.reasoning_content).or_else(|| filled(self.reasoning));
        let reasoning = reasoning.or(thinking);
        parts.extend(reasoning.map(|text| Part::Token(TokenKind::Reasoning, text)));
        let answer = answer.into_iter().chain(filled(self.refusal));
        parts.extend(answer.map(|text| Part::Token(TokenKind::Answer, text)));
        let calls = self.tool_calls.into_iter().flatten().filter_map(|call| call.function);
        let calls = calls.chain(self.function_call.map(|call| *call)).filter_map(Function::text);
        parts.extend(calls.map(|text| Part::Token(TokenKind::ToolCall, text)));
        if parts.len() == before && self.role.is_some() {
            parts.push(Part::Role);
        }
    }
}

impl<'a> Function<'a> {
    /// The name and the arguments, as generated: one token-bearing piece.
    fn text(self) -> Option<Cow<'a, str>> {
        match (filled(self.name), filled(self.arguments)) {
            (Some(name), Some(arguments)) => Some(name + arguments),
            (name, arguments) => name.or(arguments),
        }
    }
}

impl<'a> Id<'a> {
    fn text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.0,
            Self::Number(number) => number.to_string().into(),
        }
    }
}

impl<'a> Content<'a> {
    /// What of it is reasoning and what is not, where it is not empty.
    fn thinking_and_answer(self) -> (Option<Cow<'a, str>>, Option<Cow<'a, str>>) {
        let parts = match self {
            Self::Text(text) => return (None, filled(Some(text))),
            Self::Parts(parts) => parts,
        };
        let (mut thinking, mut answer) = (String::new(), String::new());
        for part in parts {
            answer.extend(filled(part.text));
            if let Some(content) = part.thinking {
                let (deeper, thought) = content.thinking_and_answer();
                thinking.extend(deeper.into_iter().chain(thought));
            }
        }
        let filled = |text: String| Some(Cow::from(text)).filter(|text| !text.is_empty());
        (filled(thinking), filled(answer))
    }
}

impl TryFrom<Number> for Count {
    type Error = String;

    fn try_from(number: Number) -> Result<Self, String> {
        /// Beyond it, not every whole number is an `f64`.
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        let whole = |value: &f64| value.fract() == 0.0 && *value <= EXACT;
        match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => Ok(Self(Some(count))),
            (None, Some(value)) if value < 0.0 => Ok(Self(None)),
            (None, Some(value)) if whole(&value) => Ok(Self(Some(value as u64))),
            _ => Err(format!("`{number}` is no number of tokens")),
        }
    }
}

impl Counts {
    /// `None` if it counts nothing.
    fn usage(self) -> Option<Usage> {
        let known = |count: Option<Count>| count.and_then(|count| count.0);
        let of_prompt = self.prompt_tokens_details.and_then(|details| details.cached_tokens);
        let of_answer = self.completion_tokens_details.and_then(|details| details.reasoning_tokens);
        let usage = Usage {
            prompt_tokens: known(self.prompt_tokens),
            completion_tokens: known(self.completion_tokens),
            total_tokens: known(self.total_tokens),
            cached_tokens: known(of_prompt),
            reasoning_tokens: known(of_answer),
        };
        (usage != Usage::default()).then_some(usage)
    }
}

fn alone(part: Part<'_>) -> Message<'_> {
    Message { id: None, parts: vec![part] }
}

/// A text that says something.
fn filled(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|text| text.0).filter(|text| !text.is_empty())
}

/// What a JSON document complains of:
/// `{"error": {"message": …}}` (OpenAI), `{"error": …}` (transformers), `{"message": …}` (older
/// vLLM), `{"detail": …}` (FastAPI), or a list of such (Gemini).
fn complaint(document: &Value) -> Option<String> {
    match document {
        Value::Array(documents) => documents.iter().find_map(complaint),
        Value::Object(fields) => {
            let error = fields.get("error").and_then(error_text);
            error.or_else(|| text(fields.get("message"))).or_else(|| detail(fields.get("detail")?))
        }
        _ => None,
    }
}

fn error_text(error: &Value) -> Option<String> {
    match error {
        Value::Object(fields) if !fields.is_empty() => {
            Some(text(fields.get("message")).unwrap_or_else(|| error.to_string()))
        }
        _ => text(Some(error)),
    }
}

/// FastAPI's `detail`: a sentence, or a list of `{"loc": ["body", "n"], "msg": …}`.
fn detail(detail: &Value) -> Option<String> {
    match detail {
        Value::Array(problems) if !problems.is_empty() => {
            Some(problems.iter().map(located).collect::<Vec<_>>().join("; "))
        }
        _ => text(Some(detail)),
    }
}

fn located(problem: &Value) -> String {
    let steps = problem["loc"].as_array().into_iter().flatten();
    let place: Vec<_> = steps.map(|step| step.to_string().replace('"', "")).collect();
    match problem["msg"].as_str() {
        Some(message) if place.is_empty() => message.into(),
        Some(message) => format!("{}: {message}", place.join(".")),
        None => problem.to_string(),
    }
}

fn text(value: Option<&Value>) -> Option<String> {
    value?.as_str().filter(|text| !text.is_empty()).map(Into::into)
}

fn undecodable(data: &[u8], terminated: bool, error: &serde_json::Error) -> DecodeError {
    let excerpt = excerpt(data);
    DecodeError(if !terminated {
        format!("the stream was cut in the middle of an event: {excerpt}")
    } else if error.is_data() {
        format!("an event is no chat completion chunk ({error}): {excerpt}")
    } else {
        format!("an event is not JSON ({error}): {excerpt}")
    })
}

/// The first characters of `data`, in one line.
fn excerpt(data: &[u8]) -> String {
    const LENGTH: usize = 120;
    let text = String::from_utf8_lossy(data);
    let shown = text.chars().take(LENGTH).flat_map(|c| match c.is_control() {
        true => c.escape_default().collect(),
        false => vec![c],
    });
    let rest = if text.chars().nth(LENGTH).is_some() { "…" } else { "" };
    shown.chain(rest.chars()).collect()
}

// -- to the server, and from the simulated one ----------------------------------------------------

fn add_all(options: &mut Value, more: &Map<String, Value>) {
    for (key, value) in more {
        options[key] = value.clone();
    }
}

fn event(json: &Value) -> String {
    format!("data: {json}\n\n")
}

/// The message as vLLM writes it, without its errors and its end.
fn chunk_json(message: &Message<'_>, envelope: &Envelope<'_>) -> Value {
    let mut chunk = json!({
        "id": message.id,
        "object": "chat.completion.chunk",
        "created": envelope.created,
        "model": envelope.model,
        "choices": choice_json(&message.parts).into_iter().collect::<Vec<_>>(),
    });
    for part in &message.parts {
        if let Part::Usage(usage) = part {
            chunk["usage"] = usage_json(usage);
        }
    }
    chunk
}

/// The only choice; `None` if the parts say nothing about it, as in a usage chunk.
fn choice_json(parts: &[Part<'_>]) -> Option<Value> {
    let finish = parts.iter().find_map(|part| match part {
        Part::Finish(reason) => Some(reason),
        _ => None,
    });
    let delta = delta_json(parts);
    let says_something = finish.is_some() || !delta.is_empty();
    says_something
        .then(|| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}))
}

fn delta_json(parts: &[Part<'_>]) -> Map<String, Value> {
    let mut delta = Map::new();
    if parts.contains(&Part::Role) {
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

/// All the text of one kind.
fn text_of(wanted: TokenKind, parts: &[Part<'_>]) -> Option<String> {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Token(kind, text) if *kind == wanted => Some(text.as_ref()),
        _ => None,
    });
    Some(texts.collect::<String>()).filter(|text| !text.is_empty())
}

fn usage_json(usage: &Usage) -> Value {
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

fn error_json(status: u16, message: &str) -> Value {
    let kind = match status {
        401 | 403 => "AuthenticationError",
        404 => "NotFoundError",
        429 => "RateLimitError",
        400..500 => "BadRequestError",
        _ => "InternalServerError",
    };
    json!({"error": {"message": message, "type": kind, "code": status}})
}
