//! A conversation of several turns: each carries the answers before it.

use super::{Answer, Follow, ask, body_of, max_tokens, nonce};
use crate::{
    client::Client,
    config::PrefixCache,
    plan::Target,
    prompt::{ChatMessage, Prompt, Role},
    recording::{ErrorKind, RequestError},
    sample,
};

/// What was said so far.
#[derive(Debug, Default)]
pub struct Conversation {
    messages: Vec<ChatMessage>,
    /// Whether the last answer has nothing to go on with.
    is_silent: bool,
}

impl Conversation {
    /// Asks the next turn. What makes the conversation a new one to a prefix cache stands in front of
    /// the first and stays there, so that a later one finds all before it in the cache.
    pub async fn ask(
        &mut self,
        target: &Target,
        turn: &Prompt,
        client: &Client,
        follow: &dyn Follow,
    ) -> Answer {
        if self.is_silent {
            let message = "the answer before has no text, only reasoning or tool calls: the \
                           conversation cannot go on";
            let outcome = Err(RequestError::new(ErrorKind::NoToken, message));
            return Answer { recording: None, outcome };
        }
        let is_first = self.messages.is_empty();
        let question = match target.prefix_cache {
            PrefixCache::Fresh if is_first => turn.begun_with(&nonce()).messages,
            _ => turn.messages.clone(),
        };
        self.messages.extend(question);
        let request = body_of(target, turn, &self.messages, max_tokens(target, turn));
        let mut answer = ask(target, request, client, follow).await;
        if let (Ok(_), Some(recording)) = (&answer.outcome, &answer.recording) {
            let text = sample::answer_text(recording, target.protocol);
            self.is_silent = text.is_empty();
            self.messages.push(ChatMessage::text(Role::Assistant, text));
        }
        if !is_first {
            answer.outcome = answer.outcome.map(sample::Sample::of_later_turn);
        }
        answer
    }
}
