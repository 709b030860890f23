//! Conversations of several turns: each request carries the answers to the previous ones.

use llm_stream_client::{AnswerObserver, Client};
use llm_stream_core::{
    prompt::{ChatMessage, Prompt, Role},
    recording::{ErrorKind, Recording, RequestError},
    sample::{self, RequestedTokens},
};

use super::{Answer, ask, body_of, drawn_tokens, nonce};
use crate::{config::PrefixCache, plan::Target};

/// The messages so far.
#[derive(Debug, Default)]
pub struct Conversation {
    messages: Vec<ChatMessage>,
    /// Whether the last answer only called tools. The next message would have to carry their
    /// results.
    is_call: bool,
    /// Whether the last answer has no text; [`NO_TEXT`] is sent as its text.
    is_blank: bool,
    /// Selects the lengths of its answers.
    nth: u64,
}

/// Stands for the text of an answer without one, such as an answer that was cut off while the model
/// was thinking. Many servers refuse an empty text, and many chat templates refuse two user
/// messages in a row.
pub const NO_TEXT: &str = "...";

impl Conversation {
    /// Creates the `nth` conversation of a run.
    pub fn numbered(nth: u64) -> Self {
        Self { nth, ..Self::default() }
    }

    /// Sends the next turn.
    pub fn ask(
        &mut self,
        target: &Target,
        turn: &Prompt,
        client: &Client,
        observer: &dyn AnswerObserver,
    ) -> Answer {
        if let Err(error) = self.can_go_on() {
            return Answer { recording: None, outcome: Err(error) };
        }
        let mut answer = ask(target, self.question(target, turn), client, observer);
        if let (Ok(_), Some(recording)) = (&answer.outcome, &answer.recording) {
            self.push_answer(recording, target);
        }
        if turn.is_later_turn() {
            answer.outcome = answer.outcome.map(sample::Sample::of_later_turn);
        }
        answer
    }

    /// Fails if the conversation cannot continue after the last answer.
    pub fn can_go_on(&self) -> Result<(), RequestError> {
        let message = "the previous answer only calls tools, whose results are not sent: the \
                       conversation cannot continue";
        match self.is_call {
            true => Err(RequestError::new(ErrorKind::NoToken, message)),
            false => Ok(()),
        }
    }

    /// Whether the last answer has no text.
    pub fn is_blank(&self) -> bool {
        self.is_blank
    }

    /// Returns the request of the next turn. The line that makes a conversation new to a prefix
    /// cache is only in front of the first message: a later turn finds all previous messages in the
    /// cache.
    pub(super) fn question(
        &mut self,
        target: &Target,
        turn: &Prompt,
    ) -> (Vec<u8>, RequestedTokens) {
        let question = match target.prefix_cache {
            PrefixCache::Fresh if self.messages.is_empty() => turn.with_prefix(&nonce()).messages,
            _ => turn.messages.clone(),
        };
        self.messages.extend(question);
        // Each turn has another length.
        let nth = self.nth ^ (self.messages.len() as u64) << 48;
        body_of(target, turn, &self.messages, drawn_tokens(target, turn, nth))
    }

    /// Appends the answer to the last request.
    pub(super) fn push_answer(&mut self, recording: &Recording, target: &Target) {
        let text = sample::answer_text(recording, target.protocol, &target.text_fields);
        self.is_blank = text.trim().is_empty();
        self.is_call =
            self.is_blank && sample::calls_tools(recording, target.protocol, &target.text_fields);
        let text = if self.is_blank { NO_TEXT.to_owned() } else { text };
        self.messages.push(ChatMessage::text(Role::Assistant, text));
    }
}
