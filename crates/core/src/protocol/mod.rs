//! Wire protocols, independent of transport: the body of a request, the meaning of an event and,
//! for the simulated endpoint, the opposite direction.
//!
//! A protocol is one file, one entry in [`ALL`] and one folder of fixtures.

mod anthropic_messages;
mod delta;
mod error_text;
mod fast_path;
mod items;
mod json;
mod llamacpp_completion;
mod ollama_chat;
mod openai;
mod openai_chat;
mod openai_completions;
mod openai_responses;
mod tgi_generate_stream;
mod unstreamed;
mod wire;

use std::{borrow::Cow, fmt, time::Duration};

use http::{HeaderName, HeaderValue, header};

use serde_json::{Map, Value};

pub use self::{
    anthropic_messages::AnthropicMessages,
    fast_path::EventTemplate,
    items::{OpenAiEmbeddings, Rerank},
    llamacpp_completion::LlamaCppCompletion,
    ollama_chat::OllamaChat,
    openai_chat::OpenAiChat,
    openai_completions::OpenAiCompletions,
    openai_responses::OpenAiResponses,
    tgi_generate_stream::TgiGenerateStream,
    wire::NEVER_LEFT_OUT,
};
use crate::{
    exact,
    framing::{Frame, Framing},
    prompt::{ChatMessage, Image, Tools},
};

/// A wire protocol, in both directions.
pub trait Protocol: fmt::Debug + Send + Sync {
    /// The name in the config and the results, such as `openai_chat`.
    fn name(&self) -> &'static str;

    /// The path after the base URL, such as `/chat/completions`.
    fn path(&self) -> &'static str;

    /// The path between the two if the base URL has none.
    fn prefix(&self) -> &'static str {
        "/v1"
    }

    /// The framing of the body.
    fn framing(&self) -> Framing {
        Framing::Events
    }

    /// Texts of which the last event of an answer contains one. Other events may contain them too:
    /// they only save a full decoding.
    fn end_marks(&self) -> &'static [&'static str] {
        &["DONE"]
    }

    /// The variant of the protocol whose answers are not streamed, for a model with `stream: false`;
    /// `None` if the protocol has no such answers.
    fn unstreamed(&self) -> Option<&'static dyn Protocol> {
        None
    }

    /// Whether answers are streams of tokens.
    fn is_streamed(&self) -> bool {
        self.framing() != Framing::Document
    }

    /// The headers of every request.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    /// The header of the key, and the text before the key in it.
    fn key_header(&self) -> (HeaderName, &'static str) {
        (header::AUTHORIZATION, "Bearer ")
    }

    /// The body of a request.
    fn body(&self, ask: &ChatRequest<'_>) -> Value;

    /// The smallest limit that a request can have.
    fn fewest_tokens(&self) -> u64 {
        1
    }

    /// The fields that demand a length of the answer: `ignore_eos`, `min_tokens`.
    fn length_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// The number of items that a request with this body asks for; `None` if answers are generated
    /// text. Items are embeddings, or documents with a score.
    fn items_asked(&self, _body: &Value) -> Option<u64> {
        None
    }

    /// Whether answers are items instead of generated text.
    fn has_items(&self) -> bool {
        self.items_asked(&Value::Null).is_some()
    }

    /// Whether requests have documents next to the prompt's text.
    fn takes_documents(&self) -> bool {
        false
    }

    /// The fields for tools: `tools`, `tool_choice`.
    fn tool_fields(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether messages have roles, for the server's chat template. A protocol without roles sends
    /// one text.
    fn has_roles(&self) -> bool {
        true
    }

    /// Whether `image` can be sent.
    fn takes(&self, _image: &Image) -> bool {
        false
    }

    /// The fields that limit the length of the answer, as JSON pointers. The first one applies.
    fn limits(&self) -> &'static [&'static str] {
        &["/max_tokens"]
    }

    /// The largest number of tokens that `body` allows, if it has a limit.
    fn most_tokens(&self, body: &Value) -> Option<u64> {
        let limit = self.limits().iter().find_map(|limit| body.pointer(limit));
        limit.and_then(exact::whole)
    }

    /// Why a model's `extra_body` must not contain `key: value`, because it would break the
    /// measurement; `None` if it may. `null` removes a field.
    fn forbidden_field(&self, key: &str, value: &Value) -> Option<String>;

    /// Parses the body of a request for the simulated endpoint.
    fn request_intent(&self, body: &Map<String, Value>) -> RequestIntent;

    /// Decodes one frame without configured fields.
    fn decode<'a>(&self, frame: &Frame<'a>) -> Result<Message<'a>, DecodeError> {
        self.decode_with(frame, TextFields::NONE)
    }

    /// Decodes one frame of the answer. A frame without contents has no parts. `fields` is the
    /// config's meaning of fields. A field that it names becomes [`MessagePart::Unread`], for
    /// [`TextFields::resolve`], even if the protocol ignores it otherwise.
    fn decode_with<'a>(
        &self,
        frame: &Frame<'a>,
        fields: &TextFields,
    ) -> Result<Message<'a>, DecodeError>;

    /// Returns the traits of a frame that decide for other tools whether it has a token.
    fn text_traits(&self, _frame: &Frame<'_>) -> TextTraits {
        TextTraits::default()
    }

    /// Encodes `message` as a frame, from which `decode` returns `message`.
    fn encode(&self, message: &Message<'_>, envelope: &Envelope<'_>) -> Vec<u8>;

    /// Arranges the last messages of the simulated endpoint: a finish reason, a usage, times and
    /// the end, if present. By default times join the previous message.
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

    /// The JSON body of an error with HTTP status `status`.
    fn encode_error(&self, status: u16, message: &str) -> Vec<u8>;

    /// Returns the message of a JSON body, if it is an error.
    fn decode_error(&self, body: &[u8]) -> Option<String> {
        wire::complaint_in(body)
    }
}

/// A request to a server.
#[derive(Debug, Clone, Copy)]
pub struct ChatRequest<'a> {
    /// The model's name on the server.
    pub model: &'a str,
    /// The conversation, as in [`Prompt`](crate::prompt::Prompt).
    pub messages: &'a [ChatMessage],
    /// Sampling temperature; `None` leaves it to the server.
    pub temperature: Option<f64>,
    /// Most tokens to generate.
    pub max_tokens: u64,
    /// Fewest tokens to generate, if the protocol has such a field.
    pub min_tokens: Option<u64>,
    /// Whether the model must not end the answer by itself, if the protocol has such a field.
    pub ignore_eos: bool,
    /// The documents that are scored, if the protocol has such a field.
    pub documents: &'a [String],
    /// The number of texts in one request, if the protocol can have several.
    pub batch: u64,
    /// The tools that the model may call, if the protocol has such fields.
    pub tools: &'a Tools,
    /// The user's fields, which are merged last.
    pub extra_body: &'a Map<String, Value>,
}

/// The settings in a request's body, for the simulated endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIntent {
    /// The model, which the answer repeats.
    pub model: String,
    /// Most tokens to generate.
    pub max_tokens: Option<u64>,
    /// Fewest tokens to generate.
    pub min_tokens: u64,
    /// Characters of the prompt's text.
    pub prompt_chars: u64,
    /// The number of items that the answer must have; `None` for generated text.
    pub items: Option<u64>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the answer must contain the usage.
    pub usage: bool,
}

impl RequestIntent {
    /// Parses what most protocols have in common: the model, and `stream: true`.
    pub fn of(body: &Map<String, Value>) -> Self {
        let model = body.get("model").and_then(Value::as_str);
        Self {
            model: model.unwrap_or("simulated").to_owned(),
            max_tokens: None,
            min_tokens: 0,
            prompt_chars: 0,
            items: None,
            stream: body.get("stream") == Some(&Value::Bool(true)),
            usage: true,
        }
    }
}

/// The fields that the simulated endpoint adds to each message.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The model's name in the request.
    pub model: &'a str,
    /// Seconds since 1970.
    pub created: u64,
}

/// The contents of one frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Message<'a> {
    /// The completion's id.
    pub id: Option<Cow<'a, str>>,
    /// The parts, in the order of the frame.
    pub parts: Vec<MessagePart<'a>>,
}

/// One part of a frame. A frame can have several: some servers send the last text, the finish
/// reason and the usage in one.
#[derive(Debug, Clone, PartialEq)]
pub enum MessagePart<'a> {
    /// The answer begins: a role, without a token.
    Role,
    /// Generated text, not empty. A borrowed text is a complete JSON string.
    Token(TokenKind, Cow<'a, str>),
    /// The following parts belong to the choice with this index. The default is choice 0.
    Choice(i64),
    /// The number of items of the answer, all valid: see [`Protocol::items_asked`].
    Items(u64),
    /// Text in an unknown field of the delta: the name and the text.
    Unread(Cow<'a, str>, Cow<'a, str>),
    /// An excerpt of an event that is not part of the protocol.
    Unknown(String),
    /// Why generation ended.
    Finish(Cow<'a, str>),
    /// Token counts so far. Later ones replace it.
    Usage(Usage),
    /// An excerpt of unreadable token counts.
    UnreadUsage(String),
    /// The server's times. Later ones replace it.
    Timings(Timings),
    /// An error that the server reports inside the stream.
    Error(String),
    /// The end marker, `[DONE]`.
    End,
}

/// Traits of a frame that change none of our figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextTraits {
    /// Whether it has an empty text where an answer token's text belongs, and no role.
    pub has_empty_text: bool,
    /// Whether it has reasoning in `reasoning_content` and none in `reasoning`.
    pub has_reasoning_content: bool,
}

/// The kind of a generated token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// The answer's text.
    Answer,
    /// The reasoning before it.
    Reasoning,
    /// A tool call's name or arguments.
    ToolCall,
}

/// Token counts of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Tokens generated, reasoning included.
    pub completion_tokens: Option<u64>,
    /// The server's sum of both.
    pub total_tokens: Option<u64>,
    /// Tokens of the prompt from a cache.
    pub cached_tokens: Option<u64>,
    /// Generated tokens of reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Whether the counts have the names of another protocol.
    pub renamed: bool,
}

/// The config's meaning of unknown fields of the delta.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TextFields {
    /// Fields with generated text, and its kind.
    pub text: Vec<(String, TokenKind)>,
    /// Fields whose text is not generated.
    pub ignored: Vec<String>,
}

impl TextFields {
    /// No configured fields.
    pub const NONE: &'static Self = &Self { text: Vec::new(), ignored: Vec::new() };

    /// Applies the configuration to `part`: text in a field of `text` is a token, and text in a
    /// field of `ignored` is dropped. The last component of a name such as `reasoning.detail` also
    /// matches.
    pub fn resolve<'a>(&self, part: MessagePart<'a>) -> Option<MessagePart<'a>> {
        let MessagePart::Unread(field, text) = part else { return Some(part) };
        if let Some((_, kind)) = self.text.iter().find(|(name, _)| delta::names(&field, name)) {
            return Some(MessagePart::Token(*kind, text));
        }
        (!self.ignored.iter().any(|name| delta::names(&field, name)))
            .then_some(MessagePart::Unread(field, text))
    }
}

/// The times of an answer as the server reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Before the start of the work: in a queue, or loading the model.
    pub queue: Option<Duration>,
    /// From the start of the work to the first token.
    pub prompt: Option<Duration>,
    /// From the first token to the last.
    pub generation: Option<Duration>,
    /// Whether `generation` may include the generation of the first token; the server's
    /// documentation does not say.
    pub may_hold_first: bool,
}

/// A frame that is not part of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Returns the protocol with this name.
pub fn by_name(name: &str) -> Option<&'static dyn Protocol> {
    all().find(|protocol| protocol.name() == name)
}

/// Returns all protocols.
pub fn all() -> impl Iterator<Item = &'static dyn Protocol> {
    ALL.iter().chain(OF_ITEMS).copied()
}

/// Returns the names of all protocols.
pub fn names() -> Vec<&'static str> {
    all().map(Protocol::name).collect()
}

/// The protocols whose answers are items.
pub const OF_ITEMS: &[&dyn Protocol] = &[&OpenAiEmbeddings, &Rerank];

/// The protocols of generated text, whose answers are streamed.
pub const ALL: &[&dyn Protocol] = &[
    &OpenAiChat,
    &OpenAiCompletions,
    &OpenAiResponses,
    &AnthropicMessages,
    &OllamaChat,
    &LlamaCppCompletion,
    &TgiGenerateStream,
];
