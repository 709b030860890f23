//! Prompts as they are sent: the ten built-in ones, and those that the config names.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{lengths::LengthRange, text::visible, tokenizer::Tokenizer};

/// A prompt, or one turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// The name in results, printable.
    pub name: String,
    /// The name as the user wrote it.
    pub written: String,
    /// The conversation so far. It is not empty, the last message is the user's, and only the first
    /// can be a system message.
    pub messages: Vec<ChatMessage>,
    /// The data set that contains it.
    pub set: Option<String>,
    /// The server's name of its model, if it differs from that of the model in the config: an
    /// adapter, such as a LoRA.
    pub model: Option<String>,
    /// The requested length of its answer.
    pub output: AnswerLength,
    /// The documents that are scored for it, by a protocol that does so.
    pub documents: Vec<String>,
    /// Its tools, if they differ from the model's.
    pub tools: Tools,
    /// The later turns, each with the user's next question. They are sent one after the other,
    /// together with the answers received.
    pub turns: Vec<Arc<Self>>,
    /// Its position, if it is a turn of a conversation.
    pub turn: Option<ConversationTurn>,
    /// How to generate its text. The last message is then empty.
    pub synthetic: Option<Synthetic>,
}

/// The position of a turn in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationTurn {
    /// The number of the turn, from 1.
    pub number: usize,
    /// The name of the conversation.
    pub of: String,
}

/// A generated text of a given length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// The tokens: of the whole prompt as the server counts, or of the text as the tokenizer counts.
    pub length: LengthRange,
    /// The seed that selects the words.
    pub seed: u64,
    /// Counts the text instead of the server. It does not count the chat template.
    pub tokenizer: Option<Tokenizer>,
    /// The beginnings that texts share.
    pub shared: Option<SharedPrefix>,
}

/// Beginnings that generated texts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPrefix {
    /// The number of different beginnings.
    pub groups: u64,
    /// The tokens of a beginning, less than those of a text.
    pub tokens: u64,
}

/// The requested length of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerLength {
    /// Most tokens to generate, instead of the model's setting; of a range, its upper end.
    pub tokens: Option<u64>,
    /// The range from which each request draws its number of tokens.
    pub range: Option<LengthRange>,
    /// Fewest tokens to generate. Not every server supports it.
    pub min_tokens: Option<u64>,
    /// Whether the model must not end the answer by itself. Not every server supports it.
    pub ignore_eos: bool,
}

/// The tools that a model may call. Unset fields are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// The list of tools.
    pub listed: Option<Arc<[Tool]>>,
    /// The tool to call.
    pub choice: Option<ToolChoice>,
}

/// A function that a model may call: OpenAI's `name`, `description`, `parameters` and `strict`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool(pub Map<String, Value>);

/// Which tool a model must call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// Any or none: the model decides.
    Auto,
    /// Any.
    Required,
    /// None.
    None,
    /// The tool with this name.
    Named(String),
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// The author.
    pub role: Role,
    /// The contents, in order.
    pub content: Vec<ContentPart>,
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator, who configures the model.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPart {
    /// Text.
    Text(String),
    /// An image.
    Image(Image),
}

/// An image in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// Sent with the message.
    Data {
        /// The media type, such as `image/png`.
        mime: String,
        /// The bytes in base64.
        base64: Arc<str>,
    },
    /// Fetched by the server.
    Url(String),
}

impl Role {
    /// Returns the name in most protocols.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Image {
    /// Returns the URL: a `data:` URL of an image that is sent with the message.
    pub fn url(&self) -> Cow<'_, str> {
        match self {
            Self::Data { mime, base64 } => format!("data:{mime};base64,{base64}").into(),
            Self::Url(url) => url.into(),
        }
    }
}

impl Tools {
    /// Fills unset fields from `defaults`.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        Self {
            listed: self.listed.clone().or_else(|| defaults.listed.clone()),
            choice: self.choice.clone().or_else(|| defaults.choice.clone()),
        }
    }

    /// Returns the list of tools.
    pub fn offered(&self) -> &[Tool] {
        self.listed.as_deref().unwrap_or_default()
    }

    /// Returns the tool to call; `None` without tools.
    pub fn chosen(&self) -> Option<&ToolChoice> {
        self.choice.as_ref().filter(|_| !self.offered().is_empty())
    }

    /// Returns whether a request contains the field `key`, `tools` or `tool_choice`.
    pub fn sends(&self, key: &str) -> bool {
        match key {
            "tools" => !self.offered().is_empty(),
            _ => self.chosen().is_some(),
        }
    }

    /// Returns what is wrong with the choice, and how to fix it.
    pub fn choice_error(&self) -> Option<(String, String)> {
        let names: Vec<_> =
            self.offered().iter().map(|tool| format!("`{}`", tool.name())).collect();
        match &self.choice {
            Some(_) if names.is_empty() => {
                let help = "add `tools`, or remove `tool_choice`";
                Some(("`tool_choice` is set without `tools`".into(), help.into()))
            }
            Some(ToolChoice::Named(name)) if !names.contains(&format!("`{name}`")) => {
                let what = format!("`tool_choice` names `{name}`, which is not one of the `tools`");
                Some((what, format!("they are {}", names.join(", "))))
            }
            _ => None,
        }
    }

    /// Returns everything that a request contains about tools as one text; `None` without tools.
    pub fn identity(&self) -> Option<String> {
        let tools: Vec<_> = self.offered().iter().map(|tool| &tool.0).collect();
        let choice = self.chosen().map(|choice| format!("{choice:?}"));
        (!tools.is_empty()).then(|| json!([tools, choice]).to_string())
    }
}

impl AnswerLength {
    /// The settings as text. Baselines contain a hash of it, so its format must not change, whatever
    /// the names of the type and the fields are.
    fn identity(&self) -> String {
        let Self { tokens, range, min_tokens, ignore_eos } = self;
        let range = range.map(|range| format!(" of {range}")).unwrap_or_default();
        format!(
            "Output {{ tokens: {tokens:?}, min_tokens: {min_tokens:?}, ignore_eos: {ignore_eos} }}{range}"
        )
    }

    /// Sets the length, or the range of lengths.
    pub fn set_range(&mut self, range: LengthRange) {
        self.tokens = Some(range.most);
        self.range = Some(range).filter(|range| range.only().is_none());
    }

    /// Returns the most tokens of the answer to the `nth` request; `None` leaves it to the model's
    /// setting. `seed` is that of the prompt.
    pub fn most(&self, seed: u64, nth: u64) -> Option<u64> {
        /// Makes the lengths of answers independent of those of prompts with the same seed.
        const ANSWERS: u64 = 0x616e_7377_6572;
        self.range.map(|range| range.draw(seed ^ ANSWERS, nth)).or(self.tokens)
    }
}

impl Tool {
    /// Returns the name.
    pub fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

impl ToolChoice {
    /// Returns the keyword, or the name of the tool.
    pub fn name(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::Required => "required",
            Self::None => "none",
            Self::Named(name) => name,
        }
    }
}

impl ChatMessage {
    /// Creates a message of text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![ContentPart::Text(text.into())] }
    }

    /// Returns its text, parts joined by newlines.
    pub fn joined(&self) -> Cow<'_, str> {
        let mut texts = self.content.iter().filter_map(ContentPart::as_text);
        match (texts.next(), texts.next()) {
            (None, _) => "".into(),
            (Some(text), None) => text.into(),
            (Some(first), Some(second)) => {
                [first, second].into_iter().chain(texts).collect::<Vec<_>>().join("\n").into()
            }
        }
    }

    /// Returns its images.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.content.iter().filter_map(|piece| match piece {
            ContentPart::Text(_) => None,
            ContentPart::Image(image) => Some(image),
        })
    }

    /// Inserts `text` at the beginning.
    fn insert_prefix(&mut self, text: &str) {
        match self.content.first_mut() {
            Some(ContentPart::Text(first)) => first.insert_str(0, text),
            _ => self.content.insert(0, ContentPart::Text(text.to_owned())),
        }
    }
}

impl ContentPart {
    /// Returns the text, if the part is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) => None,
        }
    }
}

impl Prompt {
    /// Creates a prompt from a question and a system message.
    pub fn new(name: impl Into<String>, system: Option<&str>, text: impl Into<String>) -> Self {
        let system = system.map(|system| ChatMessage::text(Role::System, system));
        let user = ChatMessage::text(Role::User, text);
        let name = name.into();
        Self {
            written: name.clone(),
            name,
            messages: system.into_iter().chain([user]).collect(),
            set: None,
            model: None,
            output: AnswerLength::default(),
            documents: Vec::new(),
            tools: Tools::default(),
            turns: Vec::new(),
            turn: None,
            synthetic: None,
        }
    }

    /// Returns the names that select it: its name and that of its data set.
    pub fn called(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.set.as_deref())
    }

    /// Makes the names printable.
    #[must_use]
    pub fn shown(mut self) -> Self {
        self.name = visible(&self.name).into_owned();
        self.set = self.set.map(|set| visible(&set).into_owned());
        if let Some(turn) = &mut self.turn {
            turn.of = visible(&turn.of).into_owned();
        }
        let turns = std::mem::take(&mut self.turns).into_iter();
        self.turns = turns.map(|turn| Arc::new(Arc::unwrap_or_clone(turn).shown())).collect();
        self
    }

    /// Adds `questions` as the later turns of the conversation.
    #[must_use]
    pub fn followed_by(mut self, questions: Vec<ChatMessage>) -> Self {
        if questions.is_empty() {
            return self;
        }
        let turn = |number| Some(ConversationTurn { number, of: self.name.clone() });
        let next = |(nth, question)| {
            let number = nth + 2;
            Arc::new(Self {
                name: format!("{} turn {number}", self.name),
                written: format!("{} turn {number}", self.written),
                messages: vec![question],
                turns: Vec::new(),
                turn: turn(number),
                ..self.clone()
            })
        };
        self.turns = questions.into_iter().enumerate().map(next).collect();
        self.turn = turn(1);
        self
    }

    /// Replaces the tools of the prompt and of its turns.
    #[must_use]
    pub fn with_tools(mut self, tools: &Tools) -> Self {
        for turn in &mut self.turns {
            Arc::make_mut(turn).tools = tools.clone();
        }
        self.tools = tools.clone();
        self
    }

    /// Returns whether it is a later turn, whose beginning is expected to be cached.
    pub fn is_later_turn(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.number > 1)
    }

    /// Returns whether its beginning is expected to be cached: a later turn, or a shared prefix.
    pub fn expects_cache(&self) -> bool {
        let shared = self.synthetic.as_ref().and_then(|synthetic| synthetic.shared);
        self.is_later_turn() || shared.is_some()
    }

    /// Returns the name for users: that of the whole conversation.
    pub fn title(&self) -> &str {
        self.turn.as_ref().map_or(&self.name, |turn| &turn.of)
    }

    /// Sets the model of the prompt and of its turns.
    #[must_use]
    pub fn with_model(mut self, model: Option<&str>) -> Self {
        for turn in &mut self.turns {
            Arc::make_mut(turn).model = model.map(str::to_owned);
        }
        self.model = model.map(str::to_owned);
        self
    }

    /// Sets the documents that are scored for the prompt, unless it has some.
    #[must_use]
    pub fn with_documents(mut self, documents: &[String]) -> Self {
        if self.documents.is_empty() {
            self.documents = documents.to_vec();
        }
        self
    }

    /// Replaces the question by `text`.
    pub fn with_question(&self, text: String) -> Self {
        let mut prompt = self.clone();
        if let Some(last) = prompt.messages.last_mut() {
            last.content = vec![ContentPart::Text(text)];
        }
        prompt
    }

    /// Inserts `text` at the beginning of the request, where it defeats a prefix cache.
    pub fn with_prefix(&self, text: &str) -> Self {
        let mut prompt = self.clone();
        if let Some(first) = prompt.messages.first_mut() {
            first.insert_prefix(text);
        }
        prompt
    }

    /// Returns everything that the prompt sends as one unambiguous text: the system message or an
    /// empty text, the other messages, and the length and the tools if they are set. Baselines
    /// contain its hash.
    pub fn identity(&self) -> String {
        let begins = self.messages.first().is_some_and(|first| first.role == Role::System);
        let mut texts: Vec<Cow<'_, str>> = if begins { vec![] } else { vec!["".into()] };
        for message in &self.messages {
            texts.push(message.joined());
            texts.extend(message.images().map(Image::url));
        }
        if self.output != AnswerLength::default() {
            texts.push(self.output.identity().into());
        }
        texts.extend(self.tools.identity().map(Cow::from));
        texts.extend(self.synthetic.as_ref().map(|synthetic| synthetic.identity().into()));
        texts.extend(self.model.as_ref().map(|model| format!("Model {model}").into()));
        texts.extend(self.documents.iter().map(|document| format!("Document {document}").into()));
        texts.join("\0")
    }
}

/// Returns the question that warms up a model before its first trial.
pub fn warm_up() -> Prompt {
    Prompt::new("warm-up", None, "Hello, how are you?")
}

/// Returns the built-in prompts in order.
pub fn built_in() -> Vec<Prompt> {
    BUILT_IN
        .iter()
        .map(|(name, text)| Prompt::new(*name, None, text.trim_end_matches('\n')))
        .collect()
}

macro_rules! built_in {
    ($($number:literal - $name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../prompts/", $number, "-", $name, ".txt")))),+]
    };
}

const BUILT_IN: &[(&str, &str)] = built_in![
    "01" - "chat-en",
    "02" - "chat-zh",
    "03" - "code",
    "04" - "code-review",
    "05" - "summary",
    "06" - "summary-zh",
    "07" - "translate",
    "08" - "json",
    "09" - "reasoning",
    "10" - "write-zh",
];
