//! The prompts: ten of our own, compiled in, and the user's by text, file, folder or data set.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Map, Value, json};

use crate::{text::visible, tokenizer::Tokenizer};

/// One prompt as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its name in results.
    pub name: String,
    /// Its name as it is written, with what cannot be shown.
    pub written: String,
    /// The conversation so far. Never empty; its last message is the user's, and a system message
    /// can only be the first.
    pub messages: Vec<ChatMessage>,
    /// The data set that it is a record of.
    pub set: Option<String>,
    /// How long its answer is to be.
    pub output: AnswerLength,
    /// The tools that the model may call, where they are not those of the model.
    pub tools: Tools,
    /// The turns after the first, each with the user's next question: they are asked with the
    /// answers received, one after the other.
    pub turns: Vec<Arc<Self>>,
    /// Which turn it is, from 1, where it is one of several.
    pub turn: Option<ConversationTurn>,
    /// How its text is made, where it is not written. The last message is then empty.
    pub synthetic: Option<Synthetic>,
}

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationTurn {
    /// Which one, from 1.
    pub number: usize,
    /// The name of the conversation.
    pub of: String,
}

/// A text of a stated length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synthetic {
    /// Fewest tokens: of the whole prompt by the server, or of the text by the tokenizer.
    pub least: u64,
    /// Most tokens; as many as the fewest where it is no range.
    pub most: u64,
    /// Which words it is made of.
    pub seed: u64,
    /// What counts the text, in place of the server. A chat template is not counted by it.
    pub tokenizer: Option<Tokenizer>,
}

/// How long an answer is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerLength {
    /// Most tokens to generate, in place of the model's own number.
    pub tokens: Option<u64>,
    /// Fewest tokens to generate, of servers that can be told so.
    pub min_tokens: Option<u64>,
    /// Whether the model is not to end by itself, of servers that can be told so.
    pub ignore_eos: bool,
}

/// Tools that a model may call. What is not said is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// Which there are.
    pub listed: Option<Arc<[Tool]>>,
    /// Which of them is to be called.
    pub choice: Option<ToolChoice>,
}

/// A function that a model may call: OpenAI's `name`, `description`, `parameters` and `strict`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool(pub Map<String, Value>);

/// Which tool is to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// Any or none, as the model likes.
    Auto,
    /// Any.
    Required,
    /// None.
    None,
    /// The one of this name.
    Named(String),
}

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Who says it.
    pub role: Role,
    /// What is said, in its order.
    pub content: Vec<ContentPart>,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whoever set the model up.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPart {
    /// Text.
    Text(String),
    /// A picture.
    Image(Image),
}

/// A picture in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// One that is sent with the message.
    Data {
        /// Its media type, such as `image/png`.
        mime: String,
        /// Its bytes in base64.
        base64: Arc<str>,
    },
    /// One that the server fetches.
    Url(String),
}

impl Role {
    /// Its name in most protocols.
    pub const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl Image {
    /// Its URL, which holds all of it where it is sent.
    pub fn url(&self) -> Cow<'_, str> {
        match self {
            Self::Data { mime, base64 } => format!("data:{mime};base64,{base64}").into(),
            Self::Url(url) => url.into(),
        }
    }
}

impl Tools {
    /// These, and those of `defaults` where these say nothing.
    #[must_use]
    pub fn over(&self, defaults: &Self) -> Self {
        Self {
            listed: self.listed.clone().or_else(|| defaults.listed.clone()),
            choice: self.choice.clone().or_else(|| defaults.choice.clone()),
        }
    }

    /// Those that there are.
    pub fn offered(&self) -> &[Tool] {
        self.listed.as_deref().unwrap_or_default()
    }

    /// Which is to be called, where there are any.
    pub fn chosen(&self) -> Option<&ToolChoice> {
        self.choice.as_ref().filter(|_| !self.offered().is_empty())
    }

    /// Whether the field `key` of a request, `tools` or `tool_choice`, has something to say.
    pub fn sends(&self, key: &str) -> bool {
        match key {
            "tools" => !self.offered().is_empty(),
            _ => self.chosen().is_some(),
        }
    }

    /// What is wrong with the choice, and what would be right.
    pub fn mistake(&self) -> Option<(String, String)> {
        let names: Vec<_> =
            self.offered().iter().map(|tool| format!("`{}`", tool.name())).collect();
        match &self.choice {
            Some(_) if names.is_empty() => {
                let help = "add `tools`, or remove `tool_choice`";
                Some(("there is a `tool_choice` without `tools`".into(), help.into()))
            }
            Some(ToolChoice::Named(name)) if !names.contains(&format!("`{name}`")) => {
                let what = format!("`tool_choice` names `{name}`, which is none of the `tools`");
                Some((what, format!("they are {}", names.join(", "))))
            }
            _ => None,
        }
    }

    /// All that is sent of them, in one text; nothing where nothing is.
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
        let Self { tokens, min_tokens, ignore_eos } = self;
        format!(
            "Output {{ tokens: {tokens:?}, min_tokens: {min_tokens:?}, ignore_eos: {ignore_eos} }}"
        )
    }
}

impl Tool {
    /// Its name.
    pub fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

impl ToolChoice {
    /// The word for it, or the name of the tool.
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
    /// A message of text only.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![ContentPart::Text(text.into())] }
    }

    /// All of its text.
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

    /// Its images.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        self.content.iter().filter_map(|piece| match piece {
            ContentPart::Text(_) => None,
            ContentPart::Image(image) => Some(image),
        })
    }

    /// Puts `text` in front of what it says.
    fn begin_with(&mut self, text: &str) {
        match self.content.first_mut() {
            Some(ContentPart::Text(first)) => first.insert_str(0, text),
            _ => self.content.insert(0, ContentPart::Text(text.to_owned())),
        }
    }
}

impl ContentPart {
    /// Its text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) => None,
        }
    }
}

impl Prompt {
    /// A question, and what the model is to be.
    pub fn new(name: impl Into<String>, system: Option<&str>, text: impl Into<String>) -> Self {
        let system = system.map(|system| ChatMessage::text(Role::System, system));
        let user = ChatMessage::text(Role::User, text);
        let name = name.into();
        Self {
            written: name.clone(),
            name,
            messages: system.into_iter().chain([user]).collect(),
            set: None,
            output: AnswerLength::default(),
            tools: Tools::default(),
            turns: Vec::new(),
            turn: None,
            synthetic: None,
        }
    }

    /// Its own name, and that of its data set.
    pub fn called(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.set.as_deref())
    }

    /// The same with names that can be shown anywhere.
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

    /// The conversation that goes on with these `questions`.
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

    /// The prompt, each of its turns included, with `tools`.
    #[must_use]
    pub fn with_tools(mut self, tools: &Tools) -> Self {
        for turn in &mut self.turns {
            Arc::make_mut(turn).tools = tools.clone();
        }
        self.tools = tools.clone();
        self
    }

    /// Whether it is a turn after the first, whose past is meant to be cached.
    pub fn is_later_turn(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.number > 1)
    }

    /// The name by which it is known to the user: that of all of the conversation.
    pub fn title(&self) -> &str {
        self.turn.as_ref().map_or(&self.name, |turn| &turn.of)
    }

    /// The prompt with `text` as its question.
    pub fn saying(&self, text: String) -> Self {
        let mut saying = self.clone();
        if let Some(last) = saying.messages.last_mut() {
            last.content = vec![ContentPart::Text(text)];
        }
        saying
    }

    /// The prompt with `text` at the very front of what is sent, where a prefix cache looks first.
    pub fn begun_with(&self, text: &str) -> Self {
        let mut begun = self.clone();
        if let Some(first) = begun.messages.first_mut() {
            first.begin_with(text);
        }
        begun
    }

    /// All that it asks, in one text that no other prompt has: the system message, or nothing, each
    /// further message, and where they are said, how long the answer is to be and the tools.
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
        texts.join("\0")
    }
}

/// The question that warms a model up before its first trial.
pub fn warm_up() -> Prompt {
    Prompt::new("warm-up", None, "Hello, how are you?")
}

/// The built-in prompts, in their order.
pub fn built_in() -> Vec<Prompt> {
    BUILT_IN
        .iter()
        .map(|(name, text)| Prompt::new(*name, None, text.trim_end_matches('\n')))
        .collect()
}

macro_rules! built_in {
    ($($number:literal - $name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../fixtures/prompts/", $number, "-", $name, ".txt")))),+]
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
