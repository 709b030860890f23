//! Asks, waits, and reads the answer once it has ended: one prompt, or a whole load.

mod offer;

use std::{
    borrow::Cow,
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use bytes::Bytes;

pub use self::offer::{Ended, Offered, offer};
use crate::{
    client::{Client, Watch},
    config::PrefixCache,
    plan::{Case, Target},
    prompt::{self, Prompt},
    protocol::{Ask, Protocol},
    recording::{Chunk, Recording, RequestError},
    sample::{self, Sample},
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

/// Asks the prompt of `case`; of a load, its first one.
pub async fn run(case: &Case, client: &Client, follow: &dyn Follow) -> Answer {
    ask(&case.target, case.task.prompt(), case.target.max_tokens, client, follow).await
}

/// Asks the warm-up question, over the connection that the trials will use.
pub async fn warm_up(target: &Target, client: &Client, follow: &dyn Follow) -> Answer {
    let max_tokens = target.max_tokens.min(WARM_UP_TOKENS);
    ask(target, &prompt::warm_up(), max_tokens, client, follow).await
}

async fn ask(
    target: &Target,
    prompt: &Prompt,
    max_tokens: u64,
    client: &Client,
    follow: &dyn Follow,
) -> Answer {
    let watch = Watcher { protocol: target.protocol, follow };
    let (body, most_tokens) = request(target, prompt, max_tokens);
    Answer::of(client.send(body, &watch).await, target, most_tokens)
}

impl Answer {
    /// Reads what came, of a request that allowed `most_tokens`.
    fn of(
        answer: Result<Recording, RequestError>,
        target: &Target,
        most_tokens: Option<u64>,
    ) -> Self {
        match answer {
            Err(error) => Self { recording: None, outcome: Err(error) },
            Ok(recording) => {
                let outcome = sample::read(&recording, target.protocol, target.token_count)
                    .map(|sample| sample.asked_for(most_tokens));
                Self { recording: Some(recording), outcome }
            }
        }
    }
}

/// The request's body as it is sent, and how many tokens it allows.
fn request(target: &Target, prompt: &Prompt, max_tokens: u64) -> (Bytes, Option<u64>) {
    let prompt = match target.prefix_cache {
        PrefixCache::Reuse => Cow::Borrowed(prompt),
        PrefixCache::Fresh => Cow::Owned(prompt.begun_with(&nonce())),
    };
    let ask = Ask {
        model: &target.model,
        messages: &prompt.messages,
        temperature: target.temperature,
        max_tokens,
        extra_body: &target.extra_body,
    };
    let body = target.protocol.body(&ask).to_string().into();
    (body, target.protocol.most_tokens(&ask))
}

/// A line that no request had before, not even one of an earlier run: a cache may have kept those.
fn nonce() -> String {
    // The standard library keys its hash tables at random, each anew.
    let random = RandomState::new().build_hasher().finish();
    format!("[{:012x}]\n", random & 0xffff_ffff_ffff)
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

    fn is_cancelled(&self) -> bool {
        self.follow.is_cancelled()
    }
}
