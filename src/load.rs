//! Asks, waits, and reads the answer once it has ended: one prompt, or a whole load.

mod converse;
mod lengths;
mod offer;

use std::{
    borrow::Cow,
    cell::RefCell,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;

pub use self::{
    converse::Conversation,
    lengths::{Lengths, measure},
    offer::{Ended, Offered, offer},
};
use crate::{
    client::{Client, Watch},
    config::PrefixCache,
    plan::{Case, Target},
    prompt::{self, ChatMessage, Piece, Prompt},
    protocol::{Ask, Protocol},
    recording::{Chunk, Recording, RequestError},
    sample::{self, Asked, Sample},
    synthetic::Length,
};

/// Most tokens that a warm-up asks for: enough to have every part of the server at work.
const WARM_UP_TOKENS: u64 = 64;

/// Whoever follows a request while it runs. Each call must return at once.
pub trait Follow {
    /// Some bytes arrived.
    fn arrived(&self, _: &Chunk) {}

    /// Whether the answer is not wanted any more.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody follows.
impl Follow for () {}

/// A trial's two halves: what arrived and what it means.
#[derive(Debug)]
pub struct Answer {
    /// What arrived; `None` when nothing did.
    pub recording: Option<Recording>,
    /// What it means.
    pub outcome: Result<Sample, RequestError>,
}

/// Asks the prompt of `case`; of a load, its first one. A synthetic one is as long as `lengths`
/// says.
pub async fn run(case: &Case, lengths: &Lengths, client: &Client, follow: &dyn Follow) -> Answer {
    let (target, prompt) = (&case.target, case.task.prompt());
    let request = request(target, prompt, max_tokens(target, prompt), (lengths, case.run.into()));
    ask(target, request, client, follow).await
}

/// Asks the warm-up question, over the connection that the trials will use.
pub async fn warm_up(target: &Target, client: &Client, follow: &dyn Follow) -> Answer {
    let max_tokens = enough(target, target.max_tokens.min(WARM_UP_TOKENS));
    let request = request(target, &prompt::warm_up(), max_tokens, (&Lengths::default(), 0));
    ask(target, request, client, follow).await
}

/// Asks for as few tokens as the server gives. It may refuse just that, where fields of the user's own
/// demand more: it is then asked for as many as in the trials, and for the first of them only.
pub async fn probe(target: &Target, client: &Client, follow: &dyn Follow) -> Answer {
    let asking = |tokens| request(target, &prompt::warm_up(), tokens, (&Lengths::default(), 0));
    let few = target.protocol.fewest_tokens();
    let answer = ask(target, asking(few), client, follow).await;
    let status = answer.recording.as_ref().map(|recording| recording.status);
    if !matches!(status, Some(400 | 422)) || target.max_tokens <= few {
        return answer;
    }
    let first = FirstToken { protocol: target.protocol, follow, chunks: RefCell::default() };
    ask(target, asking(target.max_tokens), client, &first).await
}

/// `few` tokens, or as many as fields of the user's own demand: fewer are an error of the request.
fn enough(target: &Target, few: u64) -> u64 {
    let min_tokens = target.extra_body.get("min_tokens").and_then(Value::as_u64);
    let thinking = target.extra_body.get("thinking").and_then(|own| own.get("budget_tokens"));
    // What is thought is a part of the answer, and must not be all of it.
    let thinking = thinking.and_then(Value::as_u64).map(|tokens| tokens.saturating_add(1));
    let demanded = min_tokens.max(thinking).unwrap_or_default();
    few.max(demanded.min(target.max_tokens))
}

async fn ask(
    target: &Target,
    (body, asked): (Bytes, Asked),
    client: &Client,
    follow: &dyn Follow,
) -> Answer {
    let watch = Watcher { protocol: target.protocol, follow };
    Answer::of(client.send(body, &watch).await, target, asked)
}

impl Answer {
    /// Reads what came, of a request that `asked` for so many tokens.
    fn of(answer: Result<Recording, RequestError>, target: &Target, asked: Asked) -> Self {
        match answer {
            Err(error) => Self { recording: None, outcome: Err(error) },
            Ok(recording) => {
                let outcome = read(&recording, target).map(|sample| sample.asked_for(asked));
                Self { recording: Some(recording), outcome }
            }
        }
    }
}

/// Reads an answer of `target`.
fn read(recording: &Recording, target: &Target) -> Result<Sample, RequestError> {
    let token_count = target.token_count.clone();
    sample::read_with(recording, target.protocol, token_count, &target.text_fields)
}

/// The body of the `nth` request with `prompt` as it is sent, and how many tokens it wants.
fn request(
    target: &Target,
    prompt: &Prompt,
    max_tokens: u64,
    (lengths, nth): (&Lengths, u64),
) -> (Bytes, Asked) {
    let length = |synthetic| {
        let has_tools = !prompt.tools.over(&target.tools).offered().is_empty();
        (synthetic, Length::of(synthetic, nth, target.protocol, has_tools))
    };
    let made = prompt.synthetic.as_ref().map(length);
    let prompt = match (made, target.prefix_cache) {
        (Some((synthetic, length)), cache) => {
            let words = lengths.words(prompt, length.tokens());
            Cow::Owned(prompt.saying(synthetic.text(words, shuffle(cache))))
        }
        (None, PrefixCache::Reuse) => Cow::Borrowed(prompt),
        (None, PrefixCache::Fresh) => Cow::Owned(prompt.begun_with(&nonce())),
    };
    let (body, asked) = body_of(target, &prompt, &prompt.messages, max_tokens);
    (body, Asked { prompt: made.map(|(_, length)| length), ..asked })
}

/// The body of the request that asks `prompt` by `messages`, and how many tokens it wants.
fn body_of(
    target: &Target,
    prompt: &Prompt,
    messages: &[ChatMessage],
    max_tokens: u64,
) -> (Bytes, Asked) {
    let ask = Ask {
        model: &target.model,
        messages,
        temperature: target.temperature,
        max_tokens,
        min_tokens: prompt.output.min_tokens,
        ignore_eos: target.ignore_eos.unwrap_or(prompt.output.ignore_eos),
        tools: &prompt.tools.over(&target.tools),
        extra_body: &target.extra_body,
    };
    let body = Bytes::from(target.protocol.body(&ask).to_string());
    let is_text = |piece: &Piece| matches!(piece, Piece::Text(_));
    let is_text = messages.iter().flat_map(|message| &message.content).all(is_text);
    let bytes = is_text.then_some(body.len() as u64);
    (body, Asked { bytes, ..asked(&ask, target.protocol) })
}

/// How many tokens a request wants; what the user's own fields say is said last.
fn asked(ask: &Ask<'_>, protocol: &dyn Protocol) -> Asked {
    let own = |key| ask.extra_body.get(key);
    let most = protocol.most_tokens(ask);
    let ignores_eos = own("ignore_eos").and_then(Value::as_bool).unwrap_or(ask.ignore_eos);
    let min_tokens = own("min_tokens").and_then(Value::as_u64).or(ask.min_tokens);
    let least = if ignores_eos { most } else { min_tokens };
    Asked { most, least, ..Asked::default() }
}

/// Most tokens of the answer to `prompt`.
fn max_tokens(target: &Target, prompt: &Prompt) -> u64 {
    prompt.output.tokens.unwrap_or(target.max_tokens)
}

/// A line that no request had before, not even one of an earlier run: a cache may have kept those.
fn nonce() -> String {
    format!("[{:012x}]\n", random() & 0xffff_ffff_ffff)
}

/// The order of a synthetic prompt's words, which takes the place of such a line: one that no
/// request had before, or always the same.
fn shuffle(cache: PrefixCache) -> Option<u64> {
    match cache {
        PrefixCache::Reuse => None,
        PrefixCache::Fresh => Some(random()),
    }
}

fn random() -> u64 {
    // The standard library keys its hash tables at random, each anew.
    RandomState::new().build_hasher().finish()
}

/// Wants no more than the first token.
struct FirstToken<'a> {
    protocol: &'static dyn Protocol,
    follow: &'a dyn Follow,
    chunks: RefCell<Vec<Chunk>>,
}

impl Follow for FirstToken<'_> {
    fn arrived(&self, chunk: &Chunk) {
        self.chunks.borrow_mut().push(chunk.clone());
        self.follow.arrived(chunk);
    }

    fn is_cancelled(&self) -> bool {
        let has_come = sample::tokens_so_far(&self.chunks.borrow(), self.protocol).1 > 0;
        has_come || self.follow.is_cancelled()
    }
}

struct Watcher<'a> {
    protocol: &'static dyn Protocol,
    follow: &'a dyn Follow,
}

impl Watch for Watcher<'_> {
    fn arrived(&self, chunk: &Chunk) {
        self.follow.arrived(chunk);
    }

    fn last_token(&self, chunks: &[Chunk]) -> Option<Duration> {
        sample::tokens_so_far(chunks, self.protocol).0
    }

    fn has_ended(&self, chunks: &[Chunk], seen: usize) -> bool {
        sample::has_ended(chunks, seen, self.protocol)
    }

    fn is_cancelled(&self) -> bool {
        self.follow.is_cancelled()
    }
}
