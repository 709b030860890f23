//! Searches the number of words that gives a synthetic prompt its length in tokens. The counts come
//! from the server's `usage`, or from a tokenizer that the user names.

use std::sync::Arc;

use llm_stream_client::{AnswerObserver, Client, Redactor};
use llm_stream_core::{
    exact,
    prompt::{Prompt, Synthetic},
    protocol::ChatRequest,
    recording::{ErrorKind, Recording, RequestError},
    sample,
    synthetic::{LengthSearch, SearchBudget, is_right},
    tokenizer::Tokenizer,
};

use super::{enough, read_hiding, salt, shuffle};
use crate::plan::Target;

/// The counts of each synthetic prompt at one server.
#[derive(Debug, Default)]
pub struct PromptSizer {
    counts: Vec<(Arc<Prompt>, LengthSearch)>,
    /// Selects the beginnings that prompts share outside of loads.
    pub salt: u64,
}

impl PromptSizer {
    /// Creates one without counts for `target`.
    pub fn new(target: &Target) -> Self {
        Self { counts: Vec::new(), salt: salt(target.prefix_cache) }
    }

    /// Stores the counts for `prompt`.
    pub fn keep(&mut self, prompt: &Arc<Prompt>, counts: LengthSearch) {
        self.counts.push((prompt.clone(), counts));
    }

    /// Whether counts for `prompt` are stored.
    pub fn has(&self, prompt: &Prompt) -> bool {
        self.of(prompt).is_some()
    }

    /// Estimates the number of words of a text of `tokens` tokens; without counts, one word a
    /// token.
    pub fn words(&self, prompt: &Prompt, tokens: u64) -> u64 {
        self.of(prompt).map_or(tokens, |counts| counts.words(tokens))
    }

    fn of(&self, prompt: &Prompt) -> Option<&LengthSearch> {
        let found = self.counts.iter().find(|(known, _)| std::ptr::eq(Arc::as_ptr(known), prompt));
        found.map(|(_, counts)| counts)
    }
}

/// Counts texts of `prompt` until the length is right, for a range at both ends.
pub fn measure(
    target: &Target,
    prompt: &Prompt,
    synthetic: &Synthetic,
    client: &Client,
    observer: &dyn AnswerObserver,
) -> Result<LengthSearch, RequestError> {
    let mut counts = LengthSearch::default();
    let (effort, who) = match &synthetic.tokenizer {
        Some(tokenizer) => (SearchBudget::FREE, format!("`{}`", tokenizer.name())),
        None => (SearchBudget::REQUESTS, "the server".into()),
    };
    for wanted in [synthetic.length.least, synthetic.length.most] {
        let mut refusal = None;
        while let Some(words) = counts.next(wanted, effort) {
            if observer.is_cancelled() {
                return Err(RequestError::new(ErrorKind::Interrupted, "interrupted"));
            }
            let text = synthetic.text(words, shuffle(target.prefix_cache));
            let counted = match &synthetic.tokenizer {
                Some(tokenizer) => count(tokenizer, &text).map(Counted::Tokens),
                None => have_counted(target, &prompt.with_question(text), client, observer),
            };
            match counted? {
                Counted::Tokens(tokens) => counts.add(words, tokens),
                Counted::TooLong(error) => {
                    counts.refuse(words);
                    refusal = Some(error);
                }
            }
        }
        let nearest = counts.nearest(wanted);
        if let Some(refusal) = refusal
            && !nearest.is_some_and(|(_, tokens)| is_right(tokens, wanted))
        {
            let most = counts.too_many().unwrap_or_default();
            let message = format!(
                "no text of {wanted} tokens can be sent: the server refuses {most} words: {}",
                refusal.message
            );
            return Err(RequestError::new(ErrorKind::PromptLength, message));
        }
        if let Some((words, tokens)) = nearest
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

/// Counts the tokens of `text`. Yields first, so that a cancelled search stops between two texts.
fn count(tokenizer: &Tokenizer, text: &str) -> Result<u64, RequestError> {
    tokenizer.count(text).map_err(|why| {
        let name = tokenizer.name();
        let message = format!("`{name}` cannot count the tokens of a prompt: {why}");
        RequestError::new(ErrorKind::PromptLength, message)
    })
}

/// The result of counting a text.
enum Counted {
    /// The number of tokens.
    Tokens(u64),
    /// The server refuses the text as too long for the model.
    TooLong(RequestError),
}

/// Counts the tokens of `prompt` with a request to the server.
fn have_counted(
    target: &Target,
    prompt: &Prompt,
    client: &Client,
    observer: &dyn AnswerObserver,
) -> Result<Counted, RequestError> {
    let request = ChatRequest {
        documents: &[],
        batch: 1,
        model: prompt.model.as_deref().unwrap_or(&target.model),
        messages: &prompt.messages,
        temperature: target.temperature,
        max_tokens: enough(target, target.protocol.fewest_tokens()),
        min_tokens: None,
        ignore_eos: false,
        tools: &prompt.tools.over(&target.tools),
        extra_body: &target.extra_body,
    };
    let body = exact::to_string(&target.protocol.body(&request));
    let recording = client.send(body, observer);
    let recording = recording.map_err(|error| client.redactor().redact_error(error))?;
    match counted(&recording, target, client.redactor()) {
        Ok(tokens) => Ok(Counted::Tokens(tokens)),
        Err(error) if is_too_long(&recording) => Ok(Counted::TooLong(error)),
        Err(error) => Err(error),
    }
}

/// Whether the server refuses a prompt because of its length. The words come from messages of
/// common servers; few send an error code.
fn is_too_long(answer: &Recording) -> bool {
    const LENGTH: &[&str] = &[
        "context",
        "exceed",
        "too long",
        "too large",
        "too many tokens",
        "maximum length",
        "max length",
        "model length",
        "max_model_len",
        "token limit",
        "input length",
        "prompt length",
        "longer than",
        "larger than",
        "less than",
        "must be <=",
        "at most",
    ];
    let body_text = String::from_utf8_lossy(&answer.body()).to_lowercase();
    match answer.status {
        413 => true,
        400 | 422 | 500 => LENGTH.iter().any(|words| body_text.contains(words)),
        _ => false,
    }
}

fn counted(
    recording: &Recording,
    target: &Target,
    secrets: &Redactor,
) -> Result<u64, RequestError> {
    // Checked before the answer is read: an answer of one token may have no visible text, and is
    // then not a valid sample, but its usage counts the prompt.
    if let Some(tokens) = sample::prompt_tokens(recording, target.protocol) {
        return Ok(tokens);
    }
    read_hiding(recording, target, secrets)?;
    let message = "the server's usage has no count of prompt tokens, so a prompt of a stated \
                   length cannot be made";
    Err(RequestError::new(ErrorKind::PromptLength, message))
}
