//! What is said over the wire, apart from how it is carried: a request's body, an event's meaning,
//! and, for the simulated endpoint, the way back.
//!
//! A protocol is one file here, one arm of [`by_name`] and one folder of fixtures.

mod anthropic_messages;
mod delta;
mod error_text;
mod fast_path;
mod json;
mod llamacpp_completion;
mod ollama_chat;
mod openai;
mod openai_chat;
mod openai_completions;
mod openai_responses;
mod tgi_generate_stream;
mod wire;

use std::{borrow::Cow, fmt, time::Duration};

use http::{HeaderName, HeaderValue, header};

use serde_json::{Map, Value};

pub use self::{
    anthropic_messages::AnthropicMessages, fast_path::EventTemplate,
    llamacpp_completion::LlamaCppCompletion, ollama_chat::OllamaChat, openai_chat::OpenAiChat,
    openai_completions::OpenAiCompletions, openai_responses::OpenAiResponses,
    tgi_generate_stream::TgiGenerateStream, wire::NEVER_LEFT_OUT,
};
use crate::{
    exact,
    framing::{Frame, Framing},
    prompt::{ChatMessage, Image, Tools},
};

/// A wire protocol: both directions of its messages.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// Its name in the config and the results, such as `openai_chat`.
    fn name(&self) -> &'static str;

    /// The path that is appended to the base URL, such as `/chat/completions`.
    fn path(&self) -> &'static str;

    /// What stands between the two where the base URL has no path of its own.
    fn prefix(&self) -> &'static str {
        "/v1"
    }

    /// How its frames are told apart.
    fn framing(&self) -> Framing {
        Framing::Events
    }

    /// Texts of which the event that ends an answer holds one. Others may hold them, too: they only
    /// spare a look at the rest.
    fn end_marks(&self) -> &'static [&'static str] {
        &["DONE"]
    }

    /// Headers that it wants with every request.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    /// The header that carries a key, and what stands before the key in it.
    fn key_header(&self) -> (HeaderName, &'static str) {
        (header::AUTHORIZATION, "Bearer ")
    }

    /// The request's body.
    fn body(&self, ask: &ChatRequest<'_>) -> Value;

    /// Fewest tokens that a request can ask for.
    fn fewest_tokens(&self) -> u64 {
        1
    }

    /// The fields by which an answer's length can be demanded: `ignore_eos`, `min_tokens`.
    fn length_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The fields by which tools can be offered: `tools`, `tool_choice`.
    fn tool_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether messages are sent as such, for the server to put into the model's chat template. A
    /// protocol without roles sends one text.
    fn has_roles(&self) -> bool {
        true
    }

    /// Whether `image` can be sent.
    fn takes(&self, _image: &Image) -> bool {
        false
    }

    /// The fields of a body that limit the answer's length, as JSON pointers; the first counts.
    fn limits(&self) -> &'static [&'static str] {
        &["/max_tokens"]
    }

    /// Most tokens that a request's `body` lets the server generate, where it says so.
    fn most_tokens(&self, body: &Value) -> Option<u64> {
        let limit = self.limits().iter().find_map(|limit| body.pointer(limit));
        limit.and_then(exact::whole)
    }

    /// Why `key: value` of a model's `extra_body` must not be sent: it would break the
    /// measurement. `None` when it may. `null` leaves a field out.
    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String>;

    /// What a request's body asks for, as the simulated endpoint has to know it.
    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent;

    /// What one frame of the answer says, where the config says nothing of its fields.
    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        self.decode_with(frame, TextFields::NONE)
    }

    /// What one frame of the answer says. A frame that says nothing gives no parts. `fields` are
    /// what the config says of fields: a field that is named there is handed on as [`MessagePart::Unread`],
    /// for [`TextFields::resolve`], also where its name is that of a field without text.
    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError>;

    /// The bytes of the frame that says `message`; `decode` of them gives `message` again.
    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8>;

    /// The messages that end an answer of the simulated endpoint, from what they say: a finish
    /// reason, a usage, times, the end, whichever of them there are. Times stand beside what comes
    /// before them.
    fn ending(&self, parts: Vec<MessagePart<'static>>) -> Vec<Vec<MessagePart<'static>>> {
        let mut messages: Vec<Vec<MessagePart<'static>>> = Vec::new();
        for part in parts {
            match (&part, messages.last_mut()) {
                (MessagePart::Timings(_), Some(before)) => before.push(part),
                _ => messages.push(vec![part]),
            }
        }
        messages
    }

    /// The JSON body of an error answer with HTTP status `status`.
    fn encode_error(&self, status: u16, message: &str) -> Vec<u8>;

    /// What a JSON body says went wrong, if it is an error answer.
    fn decode_error(&self, body: &[u8]) -> Option<String> {
        wire::complaint_in(body)
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct ChatRequest<'a> {
    /// The model's name for the server.
    pub model: &'a str,
    /// The conversation: as in [`Prompt`](crate::prompt::Prompt).
    pub messages: &'a [ChatMessage],
    /// Sampling temperature; `None` leaves it to the server.
    pub temperature: Option<f64>,
    /// Most tokens to generate.
    pub max_tokens: u64,
    /// Fewest tokens to generate, where the protocol has such a field.
    pub min_tokens: Option<u64>,
    /// Whether the model is not to end by itself, where the protocol has such a field.
    pub ignore_eos: bool,
    /// The tools that the model may call, where the protocol has such fields.
    pub tools: &'a Tools,
    /// The user's own fields, merged last.
    pub extra_body: &'a Map<String, Value>,
}

/// What a request's body asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIntent {
    /// The model, which is only repeated in the answer.
    pub model: String,
    /// Most tokens to generate.
    pub max_tokens: Option<u64>,
    /// Fewest tokens to generate.
    pub min_tokens: u64,
    /// Characters of the prompt's text.
    pub prompt_chars: u64,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the usage is to be told.
    pub usage: bool,
}

impl RequestIntent {
    /// What is the same in most protocols: the model, and `stream: true`.
    pub fn of(body: &Map<String, Value>) -> Self {
        let model = body.get("model").and_then(Value::as_str);
        Self {
            model: model.unwrap_or("simulated").to_owned(),
            max_tokens: None,
            min_tokens: 0,
            prompt_chars: 0,
            stream: body.get("stream") == Some(&Value::Bool(true)),
            usage: true,
        }
    }
}

/// What the simulated endpoint puts around each message.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The model's name as it was asked for.
    pub model: &'a str,
    /// Seconds since 1970.
    pub created: u64,
}

/// What one frame says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message<'a> {
    /// The completion's id.
    pub id: Option<Cow<'a, str>>,
    /// What it says, in the order in which it says it.
    pub parts: Vec<MessagePart<'a>>,
}

/// One thing that a frame says. A frame can say several: some servers put the last text, the
/// finish reason and the usage into one.
#[derive(Debug, Clone, PartialEq)]
pub enum MessagePart<'a> {
    /// The answer begins: a role, without a token.
    Role,
    /// Generated text that is not empty. A borrowed one is all of a JSON string.
    Token(TokenKind, Cow<'a, str>),
    /// The parts that follow are of the choice with this index; without it, of choice 0.
    Choice(i64),
    /// Text in a field of the delta that the protocol does not know: the field's name, the text.
    Unread(Cow<'a, str>, Cow<'a, str>),
    /// An event that is not of this protocol, in short.
    Unknown(String),
    /// Why generation ended.
    Finish(Cow<'a, str>),
    /// Token counts so far. The last one counts.
    Usage(Usage),
    /// Counts that cannot be read, in short.
    UnreadUsage(String),
    /// How long it took, by the server's own clock. The last one counts.
    Timings(Timings),
    /// The server reports an error inside the stream.
    Error(String),
    /// The end marker, `[DONE]`.
    End,
}

/// What a generated token is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// The answer's text.
    Answer,
    /// The reasoning before it.
    Reasoning,
    /// A tool call's name or arguments.
    ToolCall,
}

/// Token counts, by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Tokens generated, reasoning included.
    pub completion_tokens: Option<u64>,
    /// Their sum as the server states it.
    pub total_tokens: Option<u64>,
    /// Tokens of the prompt that came from a cache.
    pub cached_tokens: Option<u64>,
    /// Generated tokens that were reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Whether the counts stood under the names of another protocol.
    pub renamed: bool,
}

/// What the config says of fields of the delta that a protocol does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextFields {
    /// Fields that hold generated text, and of which kind.
    pub text: Vec<(String, TokenKind)>,
    /// Fields whose text is not generated.
    pub ignored: Vec<String>,
}

impl TextFields {
    /// Says nothing.
    pub const NONE: &'static Self = &Self { text: Vec::new(), ignored: Vec::new() };

    /// Returns `part` as the config reads it: text in a field of `text` is a token, text in a field
    /// of `ignored` is dropped. The last part of a name such as `reasoning.detail` also names it.
    pub fn resolve<'a>(&self, part: MessagePart<'a>) -> Option<MessagePart<'a>> {
        let MessagePart::Unread(field, text) = part else { return Some(part) };
        if let Some((_, kind)) = self.text.iter().find(|(name, _)| delta::names(&field, name)) {
            return Some(MessagePart::Token(*kind, text));
        }
        (!self.ignored.iter().any(|name| delta::names(&field, name)))
            .then_some(MessagePart::Unread(field, text))
    }
}

/// How long an answer took by the server's own clock, as far as it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Before its work began: in a queue, or until the model was loaded.
    pub queue: Option<Duration>,
    /// From the beginning of its work to the first token.
    pub prompt: Option<Duration>,
    /// From the first token to the last.
    pub generation: Option<Duration>,
    /// Whether `generation` may hold the making of the first token, too: its documentation does not
    /// say.
    pub may_hold_first: bool,
}

/// A frame that is not of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// The protocols by name.
pub fn by_name(name: &str) -> Option<&'static dyn Protocol> {
    ALL.iter().copied().find(|protocol| protocol.name() == name)
}

/// Every protocol.
pub const ALL: &[&dyn Protocol] = &[
    &OpenAiChat,
    &OpenAiCompletions,
    &OpenAiResponses,
    &AnthropicMessages,
    &OllamaChat,
    &LlamaCppCompletion,
    &TgiGenerateStream,
];
