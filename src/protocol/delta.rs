//! The text in a piece of an answer, wherever a server puts it.

use std::borrow::Cow;

use super::{Part, TokenKind, json::Json};

/// Fields that hold reasoning. Some servers send the same text under several of them, so only the
/// first that is not empty counts.
///
/// `reasoning_content`: llama.cpp, SGLang, DeepSeek. `reasoning`: vLLM, OpenRouter.
/// `reasoning_text`: GitHub Copilot. `thinking`: Ollama, Anthropic. `thinking_blocks`: LiteLLM.
/// `reasoning_details`: OpenRouter, MiniMax.
pub(super) const REASONING: &[&str] = &[
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "thinking_content",
    "thinking_blocks",
    "reasoning_details",
];

/// Fields that hold text which the model did not generate, or which is not shown: names, links,
/// sources, encrypted reasoning, padding.
const NOT_TEXT: &[&str] = &[
    "annotations",
    "channel",
    "citation",
    "citations",
    "created",
    "created_at",
    "data",
    "encrypted_content",
    "finish_details",
    "finish_reason",
    "format",
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
    "role",
    "search_results",
    "service_tier",
    "status",
    "stop",
    "stop_reason",
    "stop_sequence",
    "type",
    "url",
];

/// Ends of such names.
const NOT_TEXT_ENDS: &[&str] = &["id", "ids", "signature", "signatures", "fingerprint", "hash"];

/// The texts of a piece of an answer, by kind.
#[derive(Debug, Default)]
pub(super) struct Texts<'a> {
    pub(super) reasoning: Option<Cow<'a, str>>,
    pub(super) answer: Option<Cow<'a, str>>,
    pub(super) call: Option<Cow<'a, str>>,
}

impl<'a> Texts<'a> {
    /// The texts in `content`, which are of `kind` unless they say otherwise: a text, or a list of
    /// typed parts.
    pub(super) fn of(content: &Json<'a>, kind: TokenKind) -> Self {
        let mut texts = Self::default();
        texts.gather(content, kind);
        texts
    }

    /// The reasoning in the first field of `piece` that has any.
    pub(super) fn reasoning_in(piece: &Json<'a>) -> Option<Cow<'a, str>> {
        REASONING.iter().find_map(|field| match piece.get(field) {
            Json::Null => None,
            value => Self::of(value, TokenKind::Reasoning).reasoning,
        })
    }

    fn gather(&mut self, content: &Json<'a>, kind: TokenKind) {
        match content {
            Json::List(items) => items.iter().for_each(|item| self.gather(item, kind)),
            Json::Object(_) => self.gather_part(content, kind),
            _ => self.add(kind, content.scalar()),
        }
    }

    /// A part such as `{"type": "text", "text": …}` or `{"type": "thinking", "thinking": […]}`.
    fn gather_part(&mut self, part: &Json<'a>, kind: TokenKind) {
        let kind = match part.get("type").str() {
            Some(name) if is_of_reasoning(name) => TokenKind::Reasoning,
            Some(name) if name.contains("tool") || name.contains("function") => {
                return self.add(TokenKind::ToolCall, call(part));
            }
            _ => kind,
        };
        for (field, value) in part.fields() {
            match field {
                "text" | "content" | "refusal" | "transcript" => self.gather(value, kind),
                "summary" => self.gather(value, TokenKind::Reasoning),
                _ if REASONING.contains(&field) => self.gather(value, TokenKind::Reasoning),
                _ => {}
            }
        }
    }

    /// Adds `text` to what there is of its kind.
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

    /// A token for each kind of which there is a text.
    pub(super) fn tokens(self) -> impl Iterator<Item = Part<'a>> {
        let reasoning = self.reasoning.map(|text| Part::Token(TokenKind::Reasoning, text));
        let answer = self.answer.map(|text| Part::Token(TokenKind::Answer, text));
        let call = self.call.map(|text| Part::Token(TokenKind::ToolCall, text));
        reasoning.into_iter().chain(answer).chain(call)
    }
}

/// Whether a type's name is that of reasoning.
pub(super) fn is_of_reasoning(name: &str) -> bool {
    ["reason", "think", "thought", "summary"].iter().any(|word| name.contains(word))
}

/// The name and the arguments of a call, as they were generated: one piece. Arguments are a text,
/// or the document itself where a server has parsed them.
pub(super) fn call<'a>(function: &Json<'a>) -> Option<Cow<'a, str>> {
    let arguments = function.first(&["arguments", "input", "parameters"]);
    let arguments = match arguments {
        Json::Text(_) => arguments.text(),
        empty if empty.is_empty() => None,
        document => Some(document.written().into()),
    };
    match (function.get("name").text(), arguments) {
        (Some(name), Some(arguments)) => Some(name + arguments),
        (name, arguments) => name.or(arguments),
    }
}

/// The text in fields of `piece` that are neither `known` nor known to hold something else.
pub(super) fn unread<'a>(piece: &Json<'a>, known: &[&str]) -> Vec<Part<'a>> {
    let is_unknown =
        |field: &str| !known.contains(&field) && !REASONING.contains(&field) && !is_not_text(field);
    let fields = piece.fields().filter(|(field, value)| is_unknown(field) && !value.is_empty());
    let parts = fields.filter_map(|(field, value)| {
        let text = text_in(value)?;
        Some(Part::Unread(field.to_owned().into(), text))
    });
    parts.collect()
}

fn is_not_text(field: &str) -> bool {
    let name = field.to_ascii_lowercase();
    NOT_TEXT.contains(&name.as_str()) || NOT_TEXT_ENDS.iter().any(|end| name.ends_with(end))
}

/// All the text in `value`.
fn text_in<'a>(value: &Json<'a>) -> Option<Cow<'a, str>> {
    let mut texts = Texts::default();
    add_text(value, &mut texts);
    texts.answer
}

fn add_text<'a>(value: &Json<'a>, texts: &mut Texts<'a>) {
    match value {
        Json::Text(_) => texts.add(TokenKind::Answer, value.text()),
        Json::List(items) => items.iter().for_each(|item| add_text(item, texts)),
        Json::Object(_) => value
            .fields()
            .filter(|(field, _)| !is_not_text(field))
            .for_each(|(_, value)| add_text(value, texts)),
        _ => {}
    }
}
