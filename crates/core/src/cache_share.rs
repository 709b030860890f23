//! The share of prompt tokens that a replayed trace can find in a prefix cache, and the share that the
//! server reports. Pure.

use std::fmt;

use crate::{sample::Sample, text::counted, trace::TracedLengths};

/// The prompt tokens of a load's valid answers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheTally {
    /// The tokens of the recorded prompts, and the shared ones among them.
    recorded: u64,
    shared: u64,
    /// The tokens that the server counted, and the cached ones among them.
    counted: u64,
    cached: u64,
    answers: usize,
    /// The answers with a count of the prompt, and those with a count of cached tokens.
    with_prompt: usize,
    with_cached: usize,
}

/// The share of prompt tokens that came from a prefix cache, as fractions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CacheShare {
    /// The tokens at the beginning of a prompt that an earlier request of the trace has in the same
    /// place: a cache that forgets nothing serves them. `None` for recorded bodies.
    pub intended: Option<f64>,
    /// The cached tokens of the server's usage; `None` if no answer has a count of them.
    pub achieved: Option<f64>,
    /// The valid answers.
    pub answers: usize,
    /// The answers whose usage has no cached tokens. If others have some, these had none: servers
    /// leave a count of zero out.
    pub silent: usize,
}

impl CacheTally {
    /// Adds a valid answer to a request with these recorded `lengths`.
    pub fn add(&mut self, lengths: Option<&TracedLengths>, sample: &Sample) {
        if let Some(lengths) = lengths {
            self.recorded += lengths.input;
            self.shared += lengths.shared;
        }
        self.answers += 1;
        if let Some(prompt) = sample.prompt_tokens {
            self.with_prompt += 1;
            self.counted += prompt;
            self.with_cached += usize::from(sample.cached_tokens.is_some());
            self.cached += sample.cached_tokens.unwrap_or_default().min(prompt);
        }
    }

    /// Returns the shares; `None` without valid answers.
    pub fn share(&self) -> Option<CacheShare> {
        let share = |part: u64, all: u64| (all > 0).then(|| part as f64 / all as f64);
        (self.answers > 0).then(|| CacheShare {
            intended: share(self.shared, self.recorded),
            achieved: share(self.cached, self.counted).filter(|_| self.with_cached > 0),
            answers: self.answers,
            silent: self.answers - self.with_cached,
        })
    }
}

impl CacheShare {
    /// Returns why the achieved share is absent, if it is.
    pub fn reason(&self) -> Option<&'static str> {
        self.achieved.is_none().then_some("the server's usage has no cached tokens")
    }
}

impl fmt::Display for CacheShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cached prompt tokens: ")?;
        if let Some(intended) = self.intended {
            write!(f, "{:.1} % intended, ", intended * 100.0)?;
        }
        match (self.achieved, self.reason()) {
            (Some(achieved), _) => write!(f, "{:.1} % achieved", achieved * 100.0)?,
            (None, reason) => write!(f, "unknown: {}", reason.unwrap_or_default())?,
        }
        if self.achieved.is_some() && self.silent > 0 {
            let answers = counted(self.answers, "answer");
            write!(f, " ({} of {answers} have no count, which is taken as 0)", self.silent)?;
        }
        Ok(())
    }
}
