//! How many words a synthetic prompt needs: the server is asked until its count is right, or a
//! tokenizer of the user's own.

use std::sync::Arc;

use super::{Follow, Watcher, enough, shuffle};
use crate::{
    client::Client,
    plan::Target,
    prompt::{Prompt, Synthetic},
    protocol::Ask,
    recording::{ErrorKind, Recording, RequestError},
    sample,
    synthetic::{Counts, Effort, is_right},
    tokenizer::Tokenizer,
};

/// What was counted for each synthetic prompt at one server.
#[derive(Debug, Default)]
pub struct Lengths(Vec<(Arc<Prompt>, Counts)>);

impl Lengths {
    /// Keeps what was counted for `prompt`.
    pub fn keep(&mut self, prompt: &Arc<Prompt>, counts: Counts) {
        self.0.push((prompt.clone(), counts));
    }

    /// Whether something was counted for `prompt`.
    pub fn has(&self, prompt: &Prompt) -> bool {
        self.of(prompt).is_some()
    }

    /// The number of words that are probably so many `tokens`; a word a token where nothing was
    /// counted.
    pub fn words(&self, prompt: &Prompt, tokens: u64) -> u64 {
        self.of(prompt).map_or(tokens, |counts| counts.words(tokens))
    }

    fn of(&self, prompt: &Prompt) -> Option<&Counts> {
        let found = self.0.iter().find(|(known, _)| std::ptr::eq(Arc::as_ptr(known), prompt));
        found.map(|(_, counts)| counts)
    }
}

/// Has texts of `prompt` counted until the length is right, for a range at both ends: by its
/// tokenizer, or by the server.
pub async fn measure(
    target: &Target,
    prompt: &Prompt,
    synthetic: &Synthetic,
    client: &Client,
    follow: &dyn Follow,
) -> Result<Counts, RequestError> {
    let mut counts = Counts::default();
    let (effort, who) = match &synthetic.tokenizer {
        Some(tokenizer) => (Effort::FREE, format!("`{}`", tokenizer.name())),
        None => (Effort::REQUESTS, "the server".into()),
    };
    for wanted in [synthetic.least, synthetic.most] {
        while let Some(words) = counts.next(wanted, effort) {
            let text = synthetic.text(words, shuffle(target.prefix_cache));
            let tokens = match &synthetic.tokenizer {
                Some(tokenizer) => count(tokenizer, &text).await,
                None => have_counted(target, &prompt.saying(text), client, follow).await,
            };
            counts.add(words, tokens?);
        }
        if let Some((words, tokens)) = counts.nearest(wanted)
            && !is_right(tokens, wanted)
        {
            return Err(RequestError::new(
                ErrorKind::PromptLength,
                format!(
                    "no text of {wanted} tokens was found, give or take 2 %: the nearest that \
                     {who} counts is {tokens}, for {words} word{}",
                    if words == 1 { "" } else { "s" }
                ),
            ));
        }
    }
    Ok(counts)
}

/// The tokens of `text`. Whoever waits for it may think otherwise before.
async fn count(tokenizer: &Tokenizer, text: &str) -> Result<u64, RequestError> {
    tokio::task::yield_now().await;
    tokenizer.count(text).map_err(|why| {
        let name = tokenizer.name();
        let message = format!("`{name}` counts no tokens of a prompt: {why}");
        RequestError::new(ErrorKind::PromptLength, message)
    })
}

/// The tokens of `prompt`, by the server.
async fn have_counted(
    target: &Target,
    prompt: &Prompt,
    client: &Client,
    follow: &dyn Follow,
) -> Result<u64, RequestError> {
    let ask = Ask {
        model: &target.model,
        messages: &prompt.messages,
        temperature: target.temperature,
        max_tokens: enough(target, target.protocol.fewest_tokens()),
        min_tokens: None,
        ignore_eos: false,
        tools: &prompt.tools.over(&target.tools),
        extra_body: &target.extra_body,
    };
    let body = target.protocol.body(&ask).to_string().into();
    let watch = Watcher { protocol: target.protocol, follow };
    let recording = client.send(body, &watch).await?;
    counted(&recording, target)
}

fn counted(recording: &Recording, target: &Target) -> Result<u64, RequestError> {
    // An answer of one token may have none that is shown, and its count is there all the same.
    if let Some(tokens) = sample::prompt_tokens(recording, target.protocol) {
        return Ok(tokens);
    }
    super::read(recording, target)?;
    let message = "the server's usage counts no tokens of the prompt, so that none of a stated \
                   length can be made";
    Err(RequestError::new(ErrorKind::PromptLength, message))
}
