//! The events of an answer in order, with what each of them contains and when it arrived.
//!
//! Our metrics need only the token events. Other tools end a request at the usage or at the end
//! marker, or count an empty text as a token, so the sample keeps the events between the tokens
//! too. Most events of a stream have the same contents as the previous one, so the contents are
//! stored as runs.

use std::{fmt, iter, time::Duration};

use serde::{Deserialize, Serialize};

use crate::protocol::{TextTraits, TokenKind};

/// One part of the contents of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventPart {
    /// A generated token of the answer's text.
    Answer,
    /// A generated token of reasoning.
    Reasoning,
    /// A part of a tool call.
    ToolCall,
    /// A role without a token: the answer begins.
    Role,
    /// An empty text where a token's text belongs, without a role. A special token has no text.
    EmptyText,
    /// Reasoning in the field `reasoning_content` and none in `reasoning`, which vLLM uses.
    ReasoningContent,
    /// Text in an unknown field.
    UnreadText,
    /// The finish reason.
    Finish,
    /// Token counts.
    Usage,
    /// The end marker.
    End,
    /// The event arrived after the end marker.
    AfterEnd,
}

impl EventPart {
    /// All parts, in the order of [`EventContents::parts`].
    pub const ALL: [Self; 11] = [
        Self::Answer,
        Self::Reasoning,
        Self::ToolCall,
        Self::Role,
        Self::EmptyText,
        Self::ReasoningContent,
        Self::UnreadText,
        Self::Finish,
        Self::Usage,
        Self::End,
        Self::AfterEnd,
    ];

    /// The parts that make an event a token event.
    const TOKENS: [Self; 3] = [Self::Answer, Self::Reasoning, Self::ToolCall];

    /// Returns the name in stored samples.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Reasoning => "reasoning",
            Self::ToolCall => "tool_call",
            Self::Role => "role",
            Self::EmptyText => "empty_text",
            Self::ReasoningContent => "reasoning_content",
            Self::UnreadText => "unread_text",
            Self::Finish => "finish",
            Self::Usage => "usage",
            Self::End => "end",
            Self::AfterEnd => "after_end",
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl From<TokenKind> for EventPart {
    fn from(kind: TokenKind) -> Self {
        match kind {
            TokenKind::Answer => Self::Answer,
            TokenKind::Reasoning => Self::Reasoning,
            TokenKind::ToolCall => Self::ToolCall,
        }
    }
}

/// The contents of an event: a set of parts. An empty set is an event without known contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<EventPart>", into = "Vec<EventPart>")]
pub struct EventContents(u16);

impl EventContents {
    /// Returns whether `part` is in the event.
    pub const fn has(self, part: EventPart) -> bool {
        self.0 & part.bit() != 0
    }

    /// Adds `part`.
    pub const fn insert(&mut self, part: EventPart) {
        self.0 |= part.bit();
    }

    /// Adds the traits of an event without an answer token or a tool call; those of others are not
    /// needed.
    pub(super) fn add_traits(&mut self, traits: impl FnOnce() -> TextTraits) {
        if self.has(EventPart::Answer) || self.has(EventPart::ToolCall) {
            return;
        }
        let TextTraits { has_empty_text, has_reasoning_content } = traits();
        if has_empty_text {
            self.insert(EventPart::EmptyText);
        }
        if has_reasoning_content && self.has(EventPart::Reasoning) {
            self.insert(EventPart::ReasoningContent);
        }
    }

    /// Returns whether the event has a generated token, so that its arrival is in
    /// [`token_events`](super::Sample::token_events).
    pub fn is_token_event(self) -> bool {
        EventPart::TOKENS.into_iter().any(|part| self.has(part))
    }

    /// Returns the parts, in the order of [`EventPart::ALL`].
    pub fn parts(self) -> impl Iterator<Item = EventPart> {
        EventPart::ALL.into_iter().filter(move |part| self.has(*part))
    }
}

impl FromIterator<EventPart> for EventContents {
    fn from_iter<I: IntoIterator<Item = EventPart>>(parts: I) -> Self {
        let mut contents = Self::default();
        for part in parts {
            contents.insert(part);
        }
        contents
    }
}

impl From<Vec<EventPart>> for EventContents {
    fn from(parts: Vec<EventPart>) -> Self {
        parts.into_iter().collect()
    }
}

impl From<EventContents> for Vec<EventPart> {
    fn from(contents: EventContents) -> Self {
        contents.parts().collect()
    }
}

impl fmt::Debug for EventContents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.parts()).finish()
    }
}

/// Successive events with the same contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRun {
    /// What each of the events contains.
    pub contents: EventContents,
    /// The number of events.
    pub events: usize,
}

/// The events of an answer. [`Sample::events`](super::Sample::events) adds the arrivals of the
/// token events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventLog {
    /// The contents of all events in order.
    pub runs: Vec<EventRun>,
    /// The arrivals of the events without a generated token, in order.
    pub other_arrivals: Vec<Duration>,
}

impl EventLog {
    /// Adds an event that arrived `at`.
    pub(super) fn push(&mut self, at: Duration, contents: EventContents) {
        if !contents.is_token_event() {
            self.other_arrivals.push(at);
        }
        match self.runs.last_mut() {
            Some(run) if run.contents == contents => run.events += 1,
            _ => self.runs.push(EventRun { contents, events: 1 }),
        }
    }

    /// Returns whether the runs have as many events as there are arrivals, `token_events` of them with
    /// a token.
    pub fn is_consistent(&self, token_events: usize) -> bool {
        let count = |with_token: bool| {
            let runs = self.runs.iter().filter(|run| run.contents.is_token_event() == with_token);
            runs.map(|run| run.events).try_fold(0_usize, usize::checked_add)
        };
        count(true) == Some(token_events) && count(false) == Some(self.other_arrivals.len())
    }

    /// Returns all events in order, with the arrivals of the token events from `token_events`.
    pub(super) fn events<'a>(
        &'a self,
        token_events: &'a [Duration],
    ) -> impl Iterator<Item = (Duration, EventContents)> + 'a {
        let (mut tokens, mut others) = (token_events.iter(), self.other_arrivals.iter());
        let contents = self.runs.iter().flat_map(|run| iter::repeat_n(run.contents, run.events));
        contents.map_while(move |contents| {
            let arrivals = if contents.is_token_event() { &mut tokens } else { &mut others };
            arrivals.next().map(|at| (*at, contents))
        })
    }
}
