//! OpenAI chat completions, as vLLM, SGLang, llama.cpp, transformers and the hosted APIs speak it.
//!
//! <https://platform.openai.com/docs/api-reference/chat-streaming>
//!
//! What the servers disagree on is all here: where reasoning goes, what the first chunk holds,
//! where the usage sits, what an error looks like.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{
    Ask, DecodeError, Envelope, Message, Part, Protocol, TokenKind, Wish,
    openai::{self, Counts, OwnWord},
    wire::{self, Id, Text, event, filled, text_of},
};
use crate::{framing::Frame, prompt::Image};

/// `POST /chat/completions` with `stream: true`.
///
/// One frame can say, in this order: a role or else one token of each kind (reasoning, answer, tool
/// call); a finish reason; a usage with at least one count; times. Or nothing of these. Or, without an id,
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
        let mut body = json!({"model": ask.model, "messages": wire::chat_messages(ask), "temperature": ask.temperature});
        // OpenAI refuses a request that has both.
        if !ask.extra_body.contains_key("max_completion_tokens") {
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

    fn most_tokens(&self, ask: &Ask<'_>) -> Option<u64> {
        match ask.extra_body.get("max_completion_tokens") {
            Some(other) => other.as_u64(),
            None => Some(ask.max_tokens),
        }
    }

    fn length_fields(&self) -> &'static [&'static str] {
        &["ignore_eos", "min_tokens"]
    }

    fn refuses(&self, key: &str, value: &Value) -> Option<String> {
        openai::refuses("messages", key, value)
    }

    fn wish(&self, body: &Map<String, Value>) -> Wish {
        openai::wish("messages", body)
    }

    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        wire::decode(frame, "chat completion chunk", message)
    }

    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8> {
        let is_apart = |part: &Part<'_>| matches!(part, Part::Error(_) | Part::End);
        let mut frames = String::new();
        if message.parts.is_empty() || !message.parts.iter().all(is_apart) {
            frames += &event(&chunk_json(message, envelope));
        }
        for part in &message.parts {
            match part {
                Part::Error(message) => frames += &event(&openai::error_json(500, message)),
                Part::End => frames += "data: [DONE]\n\n",
                _ => {}
            }
        }
        frames.into_bytes()
    }

    fn encode_error(&self, status: u16, message: &str) -> Vec<u8> {
        openai::error_json(status, message).to_string().into_bytes()
    }
}

// -- from the server ------------------------------------------------------------------------------

/// A `chat.completion.chunk`, as far as it is read. What few events have is boxed: each event moves
/// this several times.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    id: Option<Id<'a>>,
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<Box<Counts>>,
    x_groq: Option<Box<XGroq>>,
    timings: Option<Box<Value>>,
    metrics: Option<Box<Value>>,
    time_info: Option<Box<Value>>,
    error: Option<IgnoredAny>,
}

/// Where Groq has the usage that nobody asked for.
#[derive(Deserialize)]
struct XGroq {
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<i64>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
    /// Where Kimi has it.
    usage: Option<Box<Counts>>,
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
    tool_calls: Option<ToolCalls<'a>>,
    #[serde(borrow)]
    function_call: Option<Box<Function<'a>>>,
}

/// A list, or as TGI wrote it before 3.2, the only one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "the tool calls are neither a list nor one")]
enum ToolCalls<'a> {
    Many(#[serde(borrow)] Vec<ToolCall<'a>>),
    One(#[serde(borrow)] ToolCall<'a>),
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, alias = "custom")]
    function: Option<Function<'a>>,
}

/// A function with arguments, or a custom tool with an input.
#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow, alias = "input")]
    arguments: Option<Text<'a>>,
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

fn message<'a>(chunk: Chunk<'a>, data: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    let may_be_error = chunk.error.is_some() || chunk.choices.is_none();
    let mut parts = Vec::with_capacity(1);
    let mut of_choice = None;
    for mut choice in chunk.choices.into_iter().flatten() {
        wire::refuse_others(choice.index)?;
        of_choice = choice.usage.take();
        choice.say(&mut parts);
    }
    let Chunk { timings, metrics, time_info, .. } = chunk;
    let counts = chunk.usage.or(of_choice).map(|counts| *counts);
    let counts = counts.or(chunk.x_groq.and_then(|groq| groq.usage));
    openai::counted_and_timed(counts, &OwnWord { timings, metrics, time_info }, &mut parts);
    if may_be_error {
        parts.extend(wire::complaint_in(data).map(Part::Error));
    }
    Ok(Message { id: chunk.id.map(Id::text), parts })
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
        let calls = match self.tool_calls {
            None => Vec::new(),
            Some(ToolCalls::Many(calls)) => calls,
            Some(ToolCalls::One(call)) => vec![call],
        };
        let calls = calls.into_iter().filter_map(|call| call.function);
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

// -- to the server, and from the simulated one ----------------------------------------------------

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
            chunk["usage"] = openai::usage_json(usage);
        }
        if let Part::Timings(timings) = part {
            chunk["metrics"] = wire::metrics_json(timings);
        }
    }
    chunk
}

/// The only choice; `None` if the parts say nothing about it, as in a usage chunk.
fn choice_json(parts: &[Part<'_>]) -> Option<Value> {
    let finish = wire::finish_of(parts);
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
