//! Sends requests and reads their answers: one prompt, or a whole load.

mod converse;
mod phase;
mod prompt_choice;
mod prompt_sizer;
mod replay;
mod replicas;
mod run_load;
mod waiting_turns;

use std::{
    borrow::Cow,
    cell::RefCell,
    hash::{BuildHasher, Hasher, RandomState},
};

use llm_stream_client::{AnswerObserver, Client, Redactor};
use llm_stream_core::{
    exact,
    prompt::{self, ChatMessage, ContentPart, Prompt},
    protocol::{ChatRequest, Protocol},
    recording::{Chunk, Recording, RequestError},
    sample::{self, RequestedTokens, Sample},
    synthetic::Length,
};
use serde_json::Value;

pub use self::{
    converse::{Conversation, NO_TEXT},
    prompt_sizer::{PromptSizer, measure},
    run_load::{LoadCounters, LoadRun, RequestEnd, run_load},
};
use crate::{
    config::PrefixCache,
    plan::{Case, Target},
};

/// Limit of a warm-up answer, in tokens: enough to use every part of the server.
const WARM_UP_TOKENS: u64 = 64;

/// A trial's two halves: what arrived and what it means.
#[derive(Debug)]
pub struct Answer {
    /// The recorded response; `None` if the request failed before one began.
    pub recording: Option<Recording>,
    /// The measured sample, or why the answer is not valid.
    pub outcome: Result<Sample, RequestError>,
}

/// Sends the prompt of `case`; of a workload, its first one. `lengths` has the sizes of synthetic
/// prompts.
pub fn run(
    case: &Case,
    lengths: &PromptSizer,
    client: &Client,
    observer: &dyn AnswerObserver,
) -> Answer {
    let (target, prompt) = (&case.target, case.task.prompt());
    let (nth, most) = (case.run.into(), drawn_tokens(target, prompt, case.run.into()));
    let request = request(target, prompt, most, (lengths, nth, lengths.salt));
    ask(target, request, client, observer)
}

/// Sends the warm-up prompt, over the connection that the trials will use.
pub fn warm_up(target: &Target, client: &Client, observer: &dyn AnswerObserver) -> Answer {
    let max_tokens = enough(target, target.max_tokens.min(WARM_UP_TOKENS));
    let request = request(target, &prompt::warm_up(), max_tokens, (&PromptSizer::default(), 0, 0));
    ask(target, request, client, observer)
}

/// Requests the shortest answer to `prompt` that the protocol allows. Fields of the user's
/// `extra_body` may demand more, and the server then refuses the request: in this case it is
/// repeated with the limit of the trials, and cancelled after the first token. Returns the last
/// answer, and the number of requests.
pub fn probe(
    target: &Target,
    prompt: &Prompt,
    client: &Client,
    observer: &dyn AnswerObserver,
) -> (Answer, usize) {
    let request_for =
        |prompt: &Prompt, tokens| request(target, prompt, tokens, (&PromptSizer::default(), 0, 0));
    let first = || FirstToken { protocol: target.protocol, observer, chunks: RefCell::default() };
    let few = target.protocol.fewest_tokens();
    let mut short = prompt.clone();
    short.output.min_tokens = prompt.output.min_tokens.map(|least| least.min(few));
    let request = request_for(&short, few);
    let answer = match request.1.most {
        Some(_) => ask(target, request, client, observer),
        // Without a limit the answer is as long as the model likes.
        None => ask(target, request, client, &first()),
    };
    let status = answer.recording.as_ref().map(|recording| recording.status);
    let most = max_tokens(target, prompt);
    if !matches!(status, Some(400 | 422)) || most <= few {
        return (answer, 1);
    }
    (ask(target, request_for(prompt, most), client, &first()), 2)
}

/// Returns the body of a trial's request with `prompt`.
pub fn trial_body(target: &Target, prompt: &Prompt) -> Value {
    body(target, prompt, &prompt.messages, max_tokens(target, prompt))
}

/// Returns `few`, or the number of tokens that fields of `extra_body` demand: servers refuse a
/// limit below that.
fn enough(target: &Target, few: u64) -> u64 {
    let min_tokens = target.extra_body.get("min_tokens").and_then(exact::whole);
    let thinking = target.extra_body.get("thinking").and_then(|own| own.get("budget_tokens"));
    // The thinking budget is part of the answer, and the limit must be greater than the budget.
    let thinking = thinking.and_then(exact::whole).map(|tokens| tokens.saturating_add(1));
    let demanded = min_tokens.max(thinking).unwrap_or_default();
    few.max(demanded.min(target.max_tokens))
}

fn ask(
    target: &Target,
    (body, asked): (Vec<u8>, RequestedTokens),
    client: &Client,
    observer: &dyn AnswerObserver,
) -> Answer {
    Answer::of(client.send(body, observer), target, asked, client.redactor())
}

impl Answer {
    /// An answer without a response.
    pub fn failed(error: RequestError) -> Self {
        Self { recording: None, outcome: Err(error) }
    }

    /// Interprets the response to a request for `asked` tokens. The outcome is redacted; the
    /// recording keeps its bytes.
    fn of(
        answer: Result<Recording, RequestError>,
        target: &Target,
        asked: RequestedTokens,
        secrets: &Redactor,
    ) -> Self {
        match answer {
            Err(error) => Self { recording: None, outcome: Err(secrets.redact_error(error)) },
            Ok(recording) => {
                let outcome = read_hiding(&recording, target, secrets);
                let outcome = outcome.map(|sample| sample.checked_against(asked));
                let outcome = outcome.and_then(|sample| sample.with_items_of(asked.items));
                Self { recording: Some(recording), outcome }
            }
        }
    }
}

/// Interprets an answer of `target`.
fn read(recording: &Recording, target: &Target) -> Result<Sample, RequestError> {
    let token_count = target.token_count.clone();
    sample::read_with(recording, target.protocol, token_count, &target.text_fields)
}

/// As [`read`], with secrets redacted in the texts that the outcome quotes.
fn read_hiding(
    recording: &Recording,
    target: &Target,
    secrets: &Redactor,
) -> Result<Sample, RequestError> {
    let hidden =
        |secrets: &Redactor| read(&secrets.redact_recording(recording.clone()), target).err();
    secrets.redact_outcome(read(recording, target), hidden)
}

/// Returns the body of the `nth` request with `prompt`, and the number of tokens that it asks for.
/// `salt` selects the beginnings that prompts share.
fn request(
    target: &Target,
    prompt: &Prompt,
    max_tokens: u64,
    (lengths, nth, salt): (&PromptSizer, u64, u64),
) -> (Vec<u8>, RequestedTokens) {
    let length = |synthetic| {
        let has_tools = !prompt.tools.over(&target.tools).offered().is_empty();
        (synthetic, Length::of(synthetic, nth, target.protocol, has_tools))
    };
    let made = prompt.synthetic.as_ref().map(length);
    let prompt = match (made, target.prefix_cache) {
        (Some((synthetic, length)), cache) => {
            let words = lengths.words(prompt, length.tokens());
            let shared = synthetic.text_with_shared_prefix((words, length.tokens()), nth, salt);
            let text = shared.unwrap_or_else(|| synthetic.text(words, shuffle(cache)));
            Cow::Owned(prompt.with_question(text))
        }
        (None, PrefixCache::Reuse) => Cow::Borrowed(prompt),
        (None, PrefixCache::Fresh) => Cow::Owned(prompt.with_prefix(&nonce())),
    };
    let (body, asked) = body_of(target, &prompt, &prompt.messages, max_tokens);
    // A batch has its text several times.
    let length = made.filter(|_| target.batch == 1).map(|(_, length)| length);
    (body, RequestedTokens { prompt: length, ..asked })
}

/// Returns the body of a request with `messages`, and the number of tokens that it asks for.
fn body_of(
    target: &Target,
    prompt: &Prompt,
    messages: &[ChatMessage],
    max_tokens: u64,
) -> (Vec<u8>, RequestedTokens) {
    let body = body(target, prompt, messages, max_tokens);
    let text = exact::to_string(&body).into_bytes();
    let is_text = |piece: &ContentPart| matches!(piece, ContentPart::Text(_));
    let is_text = messages.iter().flat_map(|message| &message.content).all(is_text);
    let bytes = is_text.then_some(text.len() as u64);
    (text, RequestedTokens { bytes, ..requested_tokens(&body, target.protocol) })
}

fn body(target: &Target, prompt: &Prompt, messages: &[ChatMessage], max_tokens: u64) -> Value {
    let request = ChatRequest {
        model: prompt.model.as_deref().unwrap_or(&target.model),
        messages,
        temperature: target.temperature,
        max_tokens,
        min_tokens: prompt.output.min_tokens,
        ignore_eos: target.ignore_eos.unwrap_or(prompt.output.ignore_eos),
        documents: &prompt.documents,
        batch: target.batch,
        tools: &prompt.tools.over(&target.tools),
        extra_body: &target.extra_body,
    };
    target.protocol.body(&request)
}

/// Returns the number of tokens that a request with this `body` asks for.
fn requested_tokens(body: &Value, protocol: &dyn Protocol) -> RequestedTokens {
    let most = protocol.most_tokens(body);
    let ignores_eos = body["ignore_eos"] == Value::Bool(true);
    let least = if ignores_eos { most } else { exact::whole(&body["min_tokens"]) };
    let items = protocol.items_asked(body);
    RequestedTokens { most, least, items, ..RequestedTokens::default() }
}

/// Returns the limit of the answer to the `nth` request with `prompt`, in tokens.
fn drawn_tokens(target: &Target, prompt: &Prompt, nth: u64) -> u64 {
    let seed = prompt.synthetic.as_ref().map_or(0, |synthetic| synthetic.seed);
    prompt.output.most(seed, nth).unwrap_or(target.max_tokens)
}

/// Returns the largest limit of an answer to `prompt`, in tokens.
fn max_tokens(target: &Target, prompt: &Prompt) -> u64 {
    prompt.output.tokens.unwrap_or(target.max_tokens)
}

/// Returns a line that no request had before. It is random, not counted, because a cache may still
/// hold the prompts of an earlier run.
fn nonce() -> String {
    format!("[{:012x}]\n", random() & 0xffff_ffff_ffff)
}

/// Returns the seed of a synthetic prompt's word order. A new order has the effect of a [`nonce`]
/// and keeps the length.
fn shuffle(cache: PrefixCache) -> Option<u64> {
    match cache {
        PrefixCache::Reuse => None,
        PrefixCache::Fresh => Some(random()),
    }
}

/// Returns the number that selects the texts that requests share with each other. With `fresh`, none of
/// them was sent before.
fn salt(cache: PrefixCache) -> u64 {
    match cache {
        PrefixCache::Reuse => 0,
        PrefixCache::Fresh => random(),
    }
}

fn random() -> u64 {
    // The standard library keys each hasher at random; that saves a dependency on an entropy
    // source.
    RandomState::new().build_hasher().finish()
}

/// The bytes without a token after which a request for the first token is cancelled.
const ENOUGH: usize = 1 << 20;

/// Cancels the request after the first token.
struct FirstToken<'a> {
    protocol: &'static dyn Protocol,
    observer: &'a dyn AnswerObserver,
    chunks: RefCell<Vec<Chunk>>,
}

impl AnswerObserver for FirstToken<'_> {
    fn arrived(&self, chunk: &Chunk) {
        self.chunks.borrow_mut().push(chunk.clone());
        self.observer.arrived(chunk);
    }

    fn is_cancelled(&self) -> bool {
        let chunks = self.chunks.borrow();
        // Each look parses all bytes, so that many without a token are answer enough.
        let bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let has_come = || sample::tokens_so_far(&chunks, self.protocol).1 > 0;
        bytes > ENOUGH || has_come() || self.observer.is_cancelled()
    }
}
