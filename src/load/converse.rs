//! A conversation of several turns: each carries the answers before it.

use llm_stream_client::{AnswerObserver, Client};
use llm_stream_core::{
    prompt::{ChatMessage, Prompt, Role},
    recording::{ErrorKind, Recording, RequestError},
    sample::{self, RequestedTokens},
};

use super::{Answer, ask, body_of, max_tokens, nonce};
use crate::{config::PrefixCache, plan::Target};

/// What was said so far.
#[derive(Debug, Default)]
pub struct Conversation {
    messages: Vec<ChatMessage>,
    /// Whether the last answer only called tools: their results would have to come next.
    is_call: bool,
    /// Whether the last answer has no text, so that [`NO_TEXT`] is sent as its text.
    is_blank: bool,
}

/// What is sent as the text of an answer that has none, such as one that was cut off while the model
/// was thinking. Many servers refuse an empty text, and many templates two questions in a row.
pub const NO_TEXT: &str = "...";

impl Conversation {
    /// Asks the next turn.
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

    /// Whether there is an answer to go on with.
    pub fn can_go_on(&self) -> Result<(), RequestError> {
        let message = "the answer before only calls tools, whose results are not sent: the \
                       conversation cannot go on";
        match self.is_call {
            true => Err(RequestError::new(ErrorKind::NoToken, message)),
            false => Ok(()),
        }
    }

    /// Whether the last answer has no text.
    pub fn is_blank(&self) -> bool {
        self.is_blank
    }

    /// The request that asks the next turn. What makes the conversation a new one to a prefix cache
    /// stands in front of the first and stays there, so that a later one finds all before it in the
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
        body_of(target, turn, &self.messages, max_tokens(target, turn))
    }

    /// Keeps the answer to the last question.
    pub(super) fn push_answer(&mut self, recording: &Recording, target: &Target) {
        let text = sample::answer_text(recording, target.protocol, &target.text_fields);
        self.is_blank = text.trim().is_empty();
        self.is_call =
            self.is_blank && sample::calls_tools(recording, target.protocol, &target.text_fields);
        let text = if self.is_blank { NO_TEXT.to_owned() } else { text };
        self.messages.push(ChatMessage::text(Role::Assistant, text));
    }
}
