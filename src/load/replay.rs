//! The requests of a trace. Another thread makes them before they are due: the text of a long prompt
//! takes milliseconds, by which the next request would start late.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc},
    thread::Scope,
};

use llm_stream_core::{
    exact,
    prompt::{ChatMessage, Prompt, Role},
    protocol::ChatRequest,
    recording::{ErrorKind, RequestError},
    sample::{RequestedTokens, TokenCount},
    synthetic::Length,
    trace::{BlockWriter, TracedContent, TracedLengths, TracedRequest, Vocabulary},
};
use serde_json::{Map, Value};

use super::{body_of, random, requested_tokens};
use crate::{
    config::{PrefixCache, TraceReplay},
    plan::Target,
};

/// The requests that are made before the load begins, and as many again while it runs.
const AHEAD: usize = 64;

/// A request that is ready: its body, and the number of tokens that it asks for.
pub(super) type ReadyRequest = (Vec<u8>, RequestedTokens);

/// The requests of a replay in their order.
pub(super) struct Replay {
    first: VecDeque<ReadyRequest>,
    later: mpsc::Receiver<ReadyRequest>,
}

impl Replay {
    /// Makes the first requests, and the others on a thread of `scope`.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        target: &'env Target,
        prompt: &Arc<Prompt>,
        maker: &'env RequestMaker,
    ) -> Result<Self, RequestError> {
        let writer = maker.writer()?;
        let requests = maker.replay.trace.requests.iter().enumerate();
        let prompt = prompt.clone();
        let mut ready = requests
            .map(move |(nth, request)| maker.make(target, &prompt, (nth, request), &writer));
        let first = ready.by_ref().take(AHEAD).collect();
        let (sender, later) = mpsc::sync_channel(AHEAD);
        // The thread ends when the load does, which drops the receiver.
        scope.spawn(move || ready.try_for_each(|request| sender.send(request)).ok());
        Ok(Self { first, later })
    }

    /// Returns the next request; `None` after the last one.
    pub(super) fn next(&mut self) -> Option<ReadyRequest> {
        self.first.pop_front().or_else(|| self.later.recv().ok())
    }
}

/// Makes the requests of a trace for one load.
pub(super) struct RequestMaker {
    replay: TraceReplay,
    vocabulary: Arc<Vocabulary>,
    /// Selects the texts. With `prefix_cache: fresh` each load has different ones, so that requests
    /// share what the trace shares and nothing with an earlier load.
    salt: u64,
}

impl RequestMaker {
    /// Creates the maker for `target`. Its tokenizer counts if the trace names none.
    pub(super) fn new(replay: &TraceReplay, target: &Target) -> Result<Self, RequestError> {
        let vocabulary = match (&replay.vocabulary, &target.token_count) {
            (Some(vocabulary), _) => vocabulary.clone(),
            (None, TokenCount::Tokenizer(tokenizer)) => {
                Arc::new(Vocabulary::of(tokenizer).map_err(unfit)?)
            }
            (None, _) => Arc::new(Vocabulary::approximate()),
        };
        let salt = match target.prefix_cache {
            PrefixCache::Reuse => replay.seed,
            PrefixCache::Fresh => random(),
        };
        Ok(Self { replay: replay.clone(), vocabulary, salt })
    }

    fn writer(&self) -> Result<BlockWriter<'_>, RequestError> {
        self.replay.trace.writer(&self.vocabulary, self.salt).map_err(unfit)
    }

    fn make(
        &self,
        target: &Target,
        prompt: &Prompt,
        (nth, request): (usize, &TracedRequest),
        writer: &BlockWriter<'_>,
    ) -> ReadyRequest {
        match &request.content {
            TracedContent::Lengths(lengths) => {
                let text = self.replay.trace.prompt(nth, lengths, writer);
                self.generated(target, prompt, lengths, text)
            }
            TracedContent::Body(body) => self.recorded(target, prompt, body),
        }
    }

    /// Returns a request with a generated `text`.
    fn generated(
        &self,
        target: &Target,
        prompt: &Prompt,
        lengths: &TracedLengths,
        text: String,
    ) -> ReadyRequest {
        let messages = [ChatMessage::text(Role::User, text)];
        let (body, asked) = body_of(target, prompt, &messages, lengths.output);
        let has_tools = !target.tools.offered().is_empty();
        let length = Length::of_text(lengths.input, target.protocol, has_tools);
        (body, RequestedTokens { prompt: self.vocabulary.is_exact.then_some(length), ..asked })
    }

    /// Returns a recorded request with the model of `target`, streamed or not, and the fields of its
    /// `extra_body`.
    fn recorded(&self, target: &Target, prompt: &Prompt, body: &Value) -> ReadyRequest {
        let mut body = body.clone();
        let request = ChatRequest {
            documents: &[],
            batch: 1,
            model: prompt.model.as_deref().unwrap_or(&target.model),
            messages: &prompt.messages,
            temperature: None,
            max_tokens: 1,
            min_tokens: None,
            ignore_eos: false,
            tools: &prompt.tools,
            extra_body: &target.extra_body,
        };
        let own = target.protocol.body(&request);
        for (key, value) in own.as_object().into_iter().flatten() {
            let is_set = ["model", "stream", "stream_options"].contains(&key.as_str())
                || target.extra_body.contains_key(key);
            if is_set {
                body[key] = value.clone();
            }
        }
        if let (false, Some(fields)) = (target.protocol.is_streamed(), body.as_object_mut()) {
            fields.remove("stream_options");
        }
        if let (PrefixCache::Fresh, Some(fields)) = (target.prefix_cache, body.as_object_mut()) {
            mark(fields, &format!("[{:012x}]\n", self.salt & 0xffff_ffff_ffff));
        }
        let asked = requested_tokens(&body, target.protocol);
        (exact::to_string(&body).into_bytes(), asked)
    }
}

/// Inserts `mark` at the beginning of a recorded prompt. All requests of a load have the same mark:
/// they share what the recorded ones share, and nothing with an earlier load.
fn mark(body: &mut Map<String, Value>, mark: &str) {
    let first = ["system", "instructions", "messages", "prompt", "inputs", "input"]
        .into_iter()
        .find(|key| body.get(*key).is_some_and(|value| !value.is_null()));
    let Some(text) = first.and_then(|key| text_of(body.get_mut(key)?)) else { return };
    text.insert_str(0, mark);
}

/// Returns the first text of a prompt: a text, or that of its first message or part.
fn text_of(prompt: &mut Value) -> Option<&mut String> {
    match prompt {
        Value::String(text) => Some(text),
        Value::Array(items) => text_of(items.first_mut()?),
        Value::Object(fields) => {
            let key = if fields.contains_key("content") { "content" } else { "text" };
            text_of(fields.get_mut(key)?)
        }
        _ => None,
    }
}

fn unfit(what: String) -> RequestError {
    RequestError::new(ErrorKind::PromptLength, what)
}
