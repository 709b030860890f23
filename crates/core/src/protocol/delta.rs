//! Finds the text in a part of an answer, in whichever field a server puts it.

use std::borrow::Cow;

use super::{MessagePart, TextFields, TokenKind, json::JsonTree};

/// Fields of reasoning. Some servers send the same text in several of them, so only the first one
/// that is not empty is read.
///
/// `reasoning_content`: llama.cpp, SGLang, DeepSeek. `reasoning`: vLLM, OpenRouter.
/// `reasoning_text`: GitHub Copilot. `thinking`: Ollama, Anthropic. `thinking_blocks`: LiteLLM.
/// `reasoning_details`: OpenRouter, MiniMax. `reasoningText`: Bedrock.
pub(super) const REASONING: &[&str] = &[
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "thinking_content",
    "thinking_blocks",
    "reasoning_details",
    "reasoningContent",
    "reasoningText",
];

/// Fields with the text of a part.
const TEXTS: &[&str] = &["text", "content", "refusal", "transcript"];

/// Fields with the text of a part that has none of [`TEXTS`]. They can contain other data too, so
/// only strings are read.
const OTHER_TEXTS: &[&str] = &["value", "delta", "parts", "output_text", "thought", "thoughts"];

/// Fields with text that is not generated or not visible: names, links, sources, encrypted
/// reasoning, padding.
const NOT_TEXT: &[&str] = &[
    "annotations",
    "channel",
    "citation",
    "citations",
    "created",
    "created_at",
    "data",
    "effort",
    "encrypted_content",
    "finish_details",
    "finish_reason",
    "format",
    "hash",
    "id",
    "ids",
    "image_url",
    "images",
    "index",
    "logprobs",
    "matched_stop",
    "metadata",
    "model",
    "name",
    "native_finish_reason",
    "object",
    "obfuscation",
    "phase",
    "recipient",
    "reference_ids",
    "role",
    "search_results",
    "service_tier",
    "sha256",
    "signature",
    "signatures",
    "status",
    "stop",
    "stop_reason",
    "stop_sequence",
    "type",
    "url",
    "uuid",
];

/// Last words of such names, after `_` or with a capital: `item_id`, `itemId`.
const NOT_TEXT_ENDS: &[&str] = &["id", "ids", "signature", "signatures", "fingerprint", "hash"];

/// Fields with text that the model wrote for a tool, at any depth of a call.
const CALL_TEXTS: &[&str] = &[
    "arguments",
    "args",
    "code",
    "delta",
    "input",
    "input_delta",
    "parameters",
    "partial_json",
    "text",
];

/// The texts of a part of an answer, by kind.
#[derive(Debug)]
pub(super) struct Texts<'a, 'f> {
    pub(super) reasoning: Option<Cow<'a, str>>,
    pub(super) answer: Option<Cow<'a, str>>,
    pub(super) call: Option<Cow<'a, str>>,
    /// Text in fields of unknown meaning: the name and the text.
    unread: Vec<(String, Cow<'a, str>)>,
    fields: &'f TextFields,
}

impl<'a, 'f> Texts<'a, 'f> {
    /// Creates an empty collection. `fields` is the config's meaning of unknown fields.
    pub(super) fn new(fields: &'f TextFields) -> Self {
        Self { reasoning: None, answer: None, call: None, unread: Vec::new(), fields }
    }

    /// Collects the texts in the field `name` of `piece`: a string, or a list of typed parts. They
    /// are of `kind` unless their type differs.
    pub(super) fn of(
        piece: &JsonTree<'a>,
        name: &str,
        kind: TokenKind,
        fields: &'f TextFields,
    ) -> Self {
        let mut texts = Self::new(fields);
        texts.read(piece, name, kind);
        texts
    }

    /// Adds the texts in the field `name` of `piece`.
    pub(super) fn read(&mut self, piece: &JsonTree<'a>, name: &str, kind: TokenKind) {
        match piece.get(name) {
            // A flag such as `"refusal": false` is not text.
            JsonTree::Bool(_) if name != "content" && name != "text" => {}
            value => self.gather(value, kind, name),
        }
    }

    /// Adds the reasoning in the first field of `piece` that has some.
    pub(super) fn read_reasoning(&mut self, piece: &JsonTree<'a>) {
        let mut unread = Vec::new();
        for field in REASONING {
            if piece.find(field).is_none_or(JsonTree::is_empty) {
                continue;
            }
            let found = Self::of(piece, field, TokenKind::Reasoning, self.fields);
            // Some servers wrap reasoning in a part of type `text`.
            if found.reasoning.is_some() {
                self.reasoning = found.reasoning;
                return;
            }
            unread.extend(found.unread);
        }
        self.unread.extend(unread);
    }

    /// Adds the text of the tool calls in `calls`: a list, or a single call.
    pub(super) fn read_calls(&mut self, calls: &JsonTree<'a>, name: &str) {
        for item in calls.items() {
            match tool_call(item) {
                Some(text) => self.add(TokenKind::ToolCall, Some(text)),
                None => self.leave(name, name, item),
            }
        }
    }

    /// Adds the text of `value`, in the field `leaf` below the field `root`, as text of unknown
    /// meaning.
    fn leave(&mut self, root: &str, leaf: &str, value: &JsonTree<'a>) {
        if let Some(text) = text_in(value) {
            let is_alone = root == leaf || root == "content";
            let name = if is_alone { leaf.to_owned() } else { format!("{root}.{leaf}") };
            self.unread.push((name, text));
        }
    }

    /// Returns the number of texts so far.
    fn len(&self) -> usize {
        let texts = [&self.reasoning, &self.answer, &self.call];
        texts.into_iter().flatten().map(|text| text.len()).sum()
    }

    fn gather(&mut self, content: &JsonTree<'a>, kind: TokenKind, root: &str) {
        match content {
            JsonTree::List(items) => items.iter().for_each(|item| self.gather(item, kind, root)),
            JsonTree::Object(_) => self.gather_part(content, kind, root),
            _ => self.add(kind, content.scalar()),
        }
    }

    /// Adds a part such as `{"type": "text", "text": …}` or `{"type": "thinking", "thinking":
    /// […]}`. Text in fields of unknown meaning remains unread.
    fn gather_part(&mut self, part: &JsonTree<'a>, kind: TokenKind, root: &str) {
        let name = part.get("type").str().unwrap_or_default();
        let is_of_tool = name.contains("tool") || name.contains("function");
        let kind = if is_of_reasoning(name) { TokenKind::Reasoning } else { kind };
        let before = self.len();
        if is_of_tool && !is_of_reasoning(name) {
            self.add(TokenKind::ToolCall, call(part));
        } else {
            self.gather_fields(part, kind, root);
        }
        let took = self.len() > before;
        // `data` is encrypted unless the part's type ends in `text`.
        let is_text = |field: &str| field == "data" && !took && name.ends_with("text");
        for (field, value) in part.fields().filter(|(_, value)| !value.is_empty()) {
            let is_read = TEXTS.contains(&field)
                || OTHER_TEXTS.contains(&field)
                || REASONING.contains(&field)
                || field == "summary"
                || took && is_of_tool;
            if is_text(field) || !is_read && !is_quiet(field, self.fields) {
                self.leave(root, field, value);
            }
        }
    }

    fn gather_fields(&mut self, part: &JsonTree<'a>, kind: TokenKind, root: &str) {
        let before = self.len();
        for (field, value) in part.fields() {
            match field {
                _ if TEXTS.contains(&field) => self.gather(value, kind, root),
                "summary" => self.gather(value, TokenKind::Reasoning, root),
                _ if REASONING.contains(&field) => self.gather(value, TokenKind::Reasoning, root),
                _ => {}
            }
        }
        for (field, value) in part.fields() {
            let is_text = !matches!(value, JsonTree::Number(_) | JsonTree::Bool(_));
            if self.len() == before && is_text && OTHER_TEXTS.contains(&field) {
                self.gather(value, kind, root);
            }
        }
    }

    /// Appends `text` to the texts of its kind.
    pub(super) fn add(&mut self, kind: TokenKind, text: Option<Cow<'a, str>>) {
        let before = match kind {
            TokenKind::Reasoning => &mut self.reasoning,
            TokenKind::Answer => &mut self.answer,
            TokenKind::ToolCall => &mut self.call,
        };
        *before = match (before.take(), text) {
            (Some(before), Some(text)) => Some(before + text),
            (before, text) => before.or(text),
        };
    }

    /// Returns a token for each kind with text, and the unread texts.
    pub(super) fn parts(self) -> impl Iterator<Item = MessagePart<'a>> {
        let reasoning = self.reasoning.map(|text| MessagePart::Token(TokenKind::Reasoning, text));
        let answer = self.answer.map(|text| MessagePart::Token(TokenKind::Answer, text));
        let call = self.call.map(|text| MessagePart::Token(TokenKind::ToolCall, text));
        let unread =
            self.unread.into_iter().map(|(name, text)| MessagePart::Unread(name.into(), text));
        reasoning.into_iter().chain(answer).chain(call).chain(unread)
    }
}

/// Returns whether a type's name is one of reasoning.
pub(super) fn is_of_reasoning(name: &str) -> bool {
    ["reason", "think", "thought", "summary"].iter().any(|word| name.contains(word))
}

/// Returns the name and the arguments of a call as one text, as they were generated. Arguments are
/// a string, or a document if the server has parsed them.
pub(super) fn call<'a>(function: &JsonTree<'a>) -> Option<Cow<'a, str>> {
    let arguments = function.first(&["arguments", "input", "parameters"]);
    let arguments = match arguments {
        JsonTree::Text(_) => arguments.text(),
        empty if empty.is_empty() => None,
        document => Some(document.written().into()),
    };
    match (function.get("name").text(), arguments) {
        (Some(name), Some(arguments)) => Some(name + arguments),
        (name, arguments) => name.or(arguments),
    }
}

/// Returns the generated text of a tool call: of a function, a custom tool, or another call.
/// Servers that have a field for each of their tools put it there. `None` if the text may be the
/// result of a tool.
fn tool_call<'a>(item: &JsonTree<'a>) -> Option<Cow<'a, str>> {
    let inner = match item.first(&["function", "custom"]) {
        JsonTree::Null => item,
        function => function,
    };
    inner.text().or_else(|| call(inner)).or_else(|| {
        let mut found = FoundText::default();
        found.add_calls(item);
        found.0
    })
}

/// Returns the text in fields of `piece` that are neither `known` nor ignored, unless `fields`
/// names them.
pub(super) fn unread<'a>(
    piece: &JsonTree<'a>,
    known: &[&str],
    fields: &TextFields,
) -> Vec<MessagePart<'a>> {
    // A typed part uses `data` for contents that are not text.
    let is_part = !piece.get("type").is_null();
    let is_data =
        |field: &str, value: &JsonTree<'a>| field == "data" && !is_part && value.str().is_some();
    let is_unknown = |field: &str, value: &JsonTree<'a>| {
        !known.contains(&field)
            && !REASONING.contains(&field)
            && (!is_quiet(field, fields) || is_data(field, value) || holds_reasoning(value))
    };
    let found =
        piece.fields().filter(|(field, value)| !value.is_empty() && is_unknown(field, value));
    let parts = found.filter_map(|(field, value)| {
        Some(MessagePart::Unread(field.to_owned().into(), text_in(value)?))
    });
    parts.collect()
}

/// Returns the text in fields of `event` that have a name of text but belong to another protocol.
/// An event has many other fields, so those are skipped unless `fields` names them.
pub(super) fn misplaced<'a>(
    event: &JsonTree<'a>,
    known: &[&str],
    fields: &TextFields,
) -> Vec<MessagePart<'a>> {
    const NAMES: &[&str] = &["answer", "completion", "output", "response", "token"];
    let is_of_text = |field: &str| {
        let is_named = || fields.text.iter().any(|(name, _)| names(name, field));
        [TEXTS, OTHER_TEXTS, REASONING, NAMES].iter().any(|list| list.contains(&field))
            || is_named()
    };
    let found = event.fields().filter(|(field, _)| !known.contains(field) && is_of_text(field));
    let text = |(field, value): (&str, &JsonTree<'a>)| {
        value.text().map(|text| MessagePart::Unread(field.to_owned().into(), text))
    };
    found.filter_map(text).collect()
}

/// Returns whether `value`, such as a delta's `metadata`, has a field of reasoning.
fn holds_reasoning(value: &JsonTree<'_>) -> bool {
    REASONING.iter().any(|field| text_in(value.get(field)).is_some())
}

/// Returns whether a field's text is not generated: its name says so, and the config does not name
/// it.
fn is_quiet(field: &str, fields: &TextFields) -> bool {
    is_not_text(field) && !fields.text.iter().any(|(name, _)| names(name, field))
}

/// Returns whether `name` is `field` or ends with it, as `content.data` ends with `data`.
pub(super) fn names(name: &str, field: &str) -> bool {
    name.strip_suffix(field).is_some_and(|root| root.is_empty() || root.ends_with('.'))
}

fn is_not_text(field: &str) -> bool {
    let is_word = NOT_TEXT.iter().any(|name| field.eq_ignore_ascii_case(name));
    is_word || NOT_TEXT_ENDS.iter().any(|end| is_last_word(field, end))
}

/// Returns whether `word` is the last word of `field`, as in `item_id` and `itemId`.
fn is_last_word(field: &str, word: &str) -> bool {
    let Some((root, last)) =
        field.len().checked_sub(word.len()).and_then(|at| field.split_at_checked(at))
    else {
        return false;
    };
    let is_apart = root.ends_with(['_', '-', '.'])
        || last.starts_with(|c: char| c.is_ascii_uppercase())
            && root.ends_with(|c: char| c.is_ascii_lowercase());
    is_apart && last.eq_ignore_ascii_case(word)
}

/// Returns all text in `value`, except in fields that contain other data. If such a field itself is
/// the value, as an unknown `data` is, it is read.
fn text_in<'a>(value: &JsonTree<'a>) -> Option<Cow<'a, str>> {
    let mut texts = FoundText::default();
    texts.add_but(value, &is_not_text);
    texts.0
}

/// Joined text.
#[derive(Default)]
struct FoundText<'a>(Option<Cow<'a, str>>);

impl<'a> FoundText<'a> {
    /// Adds the text in fields of [`CALL_TEXTS`].
    fn add_calls(&mut self, value: &JsonTree<'a>) {
        match value {
            JsonTree::List(items) => items.iter().for_each(|item| self.add_calls(item)),
            JsonTree::Object(_) => value.fields().for_each(|(field, value)| match value {
                JsonTree::Text(_) if CALL_TEXTS.contains(&field) => {
                    self.add_but(value, &is_not_text)
                }
                JsonTree::Text(_) => {}
                value => self.add_calls(value),
            }),
            _ => {}
        }
    }

    fn add_but(&mut self, value: &JsonTree<'a>, is_left_out: &impl Fn(&str) -> bool) {
        match value {
            JsonTree::Text(_) => {
                self.0 = match (self.0.take(), value.text()) {
                    (Some(before), Some(text)) => Some(before + text),
                    (before, text) => before.or(text),
                };
            }
            JsonTree::List(items) => items.iter().for_each(|item| self.add_but(item, is_left_out)),
            JsonTree::Object(_) => value
                .fields()
                .filter(|(field, _)| !is_left_out(field))
                .for_each(|(_, value)| self.add_but(value, is_left_out)),
            _ => {}
        }
    }
}
