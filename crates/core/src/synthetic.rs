//! Generates prompts of a given number of tokens: texts of common words, whose number of words is
//! searched until the server, or the user's tokenizer, counts the requested tokens. Pure.
//!
//! The count is nearly linear in the number of words, with an offset for the chat template. Two
//! counts determine the line, and further counts refine it near the goal. Texts of the same number
//! of words use the same words in a different order, so that their token counts are equal for most
//! tokenizers and no prefix cache applies.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::{
    lengths::{LengthDistribution, LengthRange},
    prompt::{SharedPrefix, Synthetic},
    protocol::Protocol,
};

/// The relative deviation of a prompt's length that is accepted.
pub const TOLERANCE: f64 = 0.02;

/// The largest number of tokens that a chat template adds, with room for a built-in system message.
const TEMPLATE: u64 = 512;

/// The largest number of tokens added without a template: the special ones at the beginning.
const SPECIAL: u64 = 4;

/// The effort of a search for a length.
#[derive(Debug, Clone, Copy)]
pub struct SearchBudget {
    /// The relative deviation below which the search ends.
    near: f64,
    /// The number of counts after which the tolerance is good enough.
    enough: usize,
    /// The largest number of counts.
    most: usize,
}

impl SearchBudget {
    /// The budget if each count is a request.
    pub const REQUESTS: Self = Self { near: 0.002, enough: 4, most: 8 };
    /// The budget if counts are free: the length must be exact.
    pub const FREE: Self = Self { near: 0.0, enough: 64, most: 64 };
}

/// The requested length of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// This many tokens, counted by the server.
    Prompt(u64),
    /// A text of this many `tokens`, counted by a tokenizer. The server may count up to `more` in
    /// addition; `None` means an unknown number.
    Text {
        /// The tokens of the text.
        tokens: u64,
        /// The largest number of other tokens.
        more: Option<u64>,
    },
}

impl Length {
    /// Returns the length of the `nth` prompt of `synthetic`.
    pub fn of(synthetic: &Synthetic, nth: u64, protocol: &dyn Protocol, has_tools: bool) -> Self {
        let tokens = synthetic.tokens(nth);
        match &synthetic.tokenizer {
            None => Self::Prompt(tokens),
            Some(_) => Self::of_text(tokens, protocol, has_tools),
        }
    }

    /// Returns the length of a prompt whose text has this many tokens.
    pub fn of_text(tokens: u64, protocol: &dyn Protocol, has_tools: bool) -> Self {
        let more = match protocol.has_roles() {
            _ if has_tools => None,
            true => Some(TEMPLATE),
            false => Some(SPECIAL),
        };
        Self::Text { tokens, more }
    }

    /// Returns the number of tokens to generate.
    pub const fn tokens(self) -> u64 {
        match self {
            Self::Prompt(tokens) | Self::Text { tokens, .. } => tokens,
        }
    }

    /// Returns whether the server's count agrees. A missing count does not contradict a tokenizer.
    pub fn allows(self, counted: Option<u64>) -> bool {
        match (self, counted) {
            (Self::Prompt(_), None) => false,
            (Self::Text { .. }, None) => true,
            (Self::Prompt(wanted), Some(counted)) => is_right(counted, wanted),
            (Self::Text { tokens, more }, Some(counted)) => {
                let around = counted.saturating_sub(tokens).min(more.unwrap_or(u64::MAX));
                is_right(counted - around, tokens)
            }
        }
    }
}

/// Returns whether `counted` is `wanted` within the tolerance.
pub fn is_right(counted: u64, wanted: u64) -> bool {
    off(counted, wanted) <= TOLERANCE
}

/// Returns the relative deviation from `wanted`.
fn off(counted: u64, wanted: u64) -> f64 {
    counted.abs_diff(wanted) as f64 / wanted.max(1) as f64
}

impl Synthetic {
    /// Returns everything that its texts depend on, as one text. Baselines contain its hash.
    pub fn identity(&self) -> String {
        let Self { length, seed, tokenizer, shared } = self;
        let LengthRange { least, most, distribution } = length;
        let by = tokenizer.as_ref().map_or_else(String::new, |by| format!(" by {}", by.name()));
        let distribution = match distribution {
            LengthDistribution::Uniform => String::new(),
            _ => format!(" of {length}"),
        };
        let shared = shared.map_or_else(String::new, |SharedPrefix { groups, tokens }| {
            format!(", {groups} groups share {tokens}")
        });
        format!(
            "Synthetic {{ least: {least}, most: {most}, seed: {seed} }}{by}{distribution}{shared}"
        )
    }

    /// Returns the number of tokens of the `nth` text, random if a range was requested.
    pub fn tokens(&self, nth: u64) -> u64 {
        self.length.draw(self.seed, nth)
    }

    /// Returns the `nth` text of this many words for `tokens` tokens, which shares its beginning with
    /// the texts of its group; `None` without a shared prefix. `salt` selects the beginnings.
    pub fn text_with_shared_prefix(
        &self,
        (words, tokens): (u64, u64),
        nth: u64,
        salt: u64,
    ) -> Option<String> {
        /// Makes the group independent of the length, which is drawn with the same numbers.
        const GROUP: u64 = 0x0067_726f_7570;
        let SharedPrefix { groups, tokens: shared } = self.shared?;
        let group = LengthRange { least: 0, most: groups - 1, ..LengthRange::fixed(0) };
        let group = group.draw(self.seed ^ GROUP, nth);
        let mut random = Pcg64Mcg::seed_from_u64(self.seed);
        let mut text: Vec<_> =
            (0..words).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
        // All texts have the same words, so that they are equally long. Those of the beginning are in
        // the order of the group, the others in that of the request.
        let part = (words as f64 * shared as f64 / tokens.max(1) as f64).round() as usize;
        let (beginning, rest) = text.split_at_mut(part.min(words as usize));
        let order = |number: u64| salt ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        beginning.shuffle(&mut Pcg64Mcg::seed_from_u64(self.seed ^ GROUP ^ order(group)));
        rest.shuffle(&mut Pcg64Mcg::seed_from_u64(self.seed ^ order(nth)));
        Some(text.join(" "))
    }

    /// Returns a text of this many words. The seed alone determines the words; `shuffle` changes
    /// their order.
    pub fn text(&self, words: u64, shuffle: Option<u64>) -> String {
        let mut random = Pcg64Mcg::seed_from_u64(self.seed);
        let mut text: Vec<_> =
            (0..words).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
        if let Some(shuffle) = shuffle {
            text.shuffle(&mut Pcg64Mcg::seed_from_u64(self.seed ^ shuffle));
        }
        text.join(" ")
    }
}

/// The search for the number of words that has a given number of tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LengthSearch {
    /// Numbers of words, each with its count of tokens.
    counted: Vec<(u64, u64)>,
    /// The smallest number of words that the server refused as too long.
    too_many: Option<u64>,
    /// The number of refusals.
    refusals: usize,
}

impl LengthSearch {
    /// Adds a count.
    pub fn add(&mut self, words: u64, tokens: u64) {
        self.counted.push((words, tokens));
        self.counted.sort_unstable();
        self.counted.dedup_by_key(|(words, _)| *words);
    }

    /// Adds a refusal of `words` as too long for the model.
    pub fn refuse(&mut self, words: u64) {
        self.too_many = Some(self.too_many.map_or(words, |known| known.min(words)));
        self.refusals += 1;
    }

    /// Returns the smallest number of words that was refused as too long.
    pub fn too_many(&self) -> Option<u64> {
        self.too_many
    }

    /// Returns the number of counts.
    pub fn len(&self) -> usize {
        self.counted.len()
    }

    /// Returns whether there are no counts.
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// Returns the count that is nearest to `tokens`.
    pub fn nearest(&self, tokens: u64) -> Option<(u64, u64)> {
        self.counted.iter().copied().min_by_key(|(_, counted)| counted.abs_diff(tokens))
    }

    /// Estimates the number of words for `tokens` by the line through the two nearest counts.
    /// Without two counts, it assumes one token per word.
    pub fn words(&self, tokens: u64) -> u64 {
        if let Some((words, _)) = self.counted.iter().find(|(_, counted)| *counted == tokens) {
            return *words;
        }
        let [first, .., last] = self.counted.as_slice() else { return tokens };
        let above = self.counted.iter().position(|(_, counted)| *counted > tokens);
        let (low, high) = match above {
            Some(0) => (*first, self.counted[1]),
            Some(above) => (self.counted[above - 1], self.counted[above]),
            None => (self.counted[self.counted.len() - 2], *last),
        };
        let (low, high) = ((low.0 as f64, low.1 as f64), (high.0 as f64, high.1 as f64));
        let slope = (high.1 - low.1) / (high.0 - low.0);
        if slope <= 0.0 {
            return tokens;
        }
        // Extrapolation is limited, because two close counts can give an absurd slope.
        let words = low.0 + (tokens as f64 - low.1) / slope;
        words.round().clamp(1.0, tokens.saturating_mul(8) as f64) as u64
    }

    /// Returns the next number of words to count; `None` if the nearest count is good enough or the
    /// budget is exhausted.
    pub fn next(&self, wanted: u64, budget: SearchBudget) -> Option<u64> {
        let nearest =
            self.nearest(wanted).map_or(f64::INFINITY, |(_, counted)| off(counted, wanted));
        let enough = if nearest <= TOLERANCE { budget.enough } else { budget.most };
        if nearest <= budget.near || self.len() + self.refusals >= enough {
            return None;
        }
        let guess = self.within(self.guess(wanted))?;
        (!self.is_counted(guess)).then_some(guess)
    }

    fn guess(&self, wanted: u64) -> u64 {
        match self.counted.as_slice() {
            [] => (wanted / 2).max(1),
            // Proportional. The offset of the template makes this guess too small rather than too
            // large, so that it does not exceed the model's context.
            [(words, tokens)] => {
                let guess = *words as f64 * wanted as f64 / (*tokens).max(1) as f64;
                match guess.round().clamp(1.0, wanted.saturating_mul(8) as f64) as u64 {
                    same if same == *words && *tokens > wanted => (words - 1).max(1),
                    same if same == *words => words + 1,
                    guess => guess,
                }
            }
            _ => self.words(wanted),
        }
    }

    /// Returns `guess`, or after a refusal the midpoint between the largest accepted and the
    /// smallest refused number of words.
    fn within(&self, guess: u64) -> Option<u64> {
        let Some(too_many) = self.too_many.filter(|too_many| guess >= *too_many) else {
            return Some(guess);
        };
        let taken = self.counted.iter().map(|(words, _)| *words).filter(|words| *words < too_many);
        let most = taken.max().unwrap_or(0);
        let middle = most + (too_many - most) / 2;
        (middle > most).then_some(middle)
    }

    fn is_counted(&self, words: u64) -> bool {
        self.counted.iter().any(|(counted, _)| *counted == words)
    }
}

/// Common words. Most tokenizers encode each as one token.
pub(crate) const WORDS: &[&str] = &[
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "was",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "have",
    "or",
    "by",
    "one",
    "had",
    "not",
    "but",
    "what",
    "all",
    "were",
    "when",
    "we",
    "there",
    "can",
    "an",
    "your",
    "which",
    "their",
    "said",
    "if",
    "do",
    "will",
    "each",
    "about",
    "how",
    "up",
    "out",
    "them",
    "then",
    "she",
    "many",
    "some",
    "so",
    "these",
    "would",
    "other",
    "into",
    "has",
    "more",
    "her",
    "two",
    "like",
    "him",
    "see",
    "time",
    "could",
    "no",
    "make",
    "than",
    "first",
    "been",
    "its",
    "who",
    "now",
    "people",
    "my",
    "made",
    "over",
    "did",
    "down",
    "only",
    "way",
    "find",
    "use",
    "may",
    "water",
    "long",
    "little",
    "very",
    "after",
    "words",
    "called",
    "just",
    "where",
    "most",
    "know",
    "get",
    "through",
    "back",
    "much",
    "before",
    "go",
    "good",
    "new",
    "write",
    "our",
    "used",
    "me",
    "man",
    "too",
    "any",
    "day",
    "same",
    "right",
    "look",
    "think",
    "also",
    "around",
    "another",
    "came",
    "come",
    "work",
    "three",
    "word",
    "must",
    "because",
    "does",
    "part",
    "even",
    "place",
    "well",
    "such",
    "here",
    "take",
    "why",
    "things",
    "help",
    "put",
    "years",
    "different",
    "away",
    "again",
    "off",
    "went",
    "old",
    "number",
    "great",
    "tell",
    "men",
    "say",
    "small",
    "every",
    "found",
    "still",
    "between",
    "name",
    "should",
    "home",
    "big",
    "give",
    "air",
    "line",
    "set",
    "own",
    "under",
    "read",
    "last",
    "never",
    "us",
    "left",
    "end",
    "along",
    "while",
    "might",
    "next",
    "sound",
    "below",
    "saw",
    "something",
    "thought",
    "both",
    "few",
    "those",
    "always",
    "show",
    "large",
    "often",
    "together",
    "asked",
    "house",
    "world",
    "going",
    "want",
    "school",
    "important",
    "until",
    "form",
    "food",
    "keep",
    "children",
    "feet",
    "land",
    "side",
    "without",
    "boy",
    "once",
    "animals",
    "life",
    "enough",
    "took",
    "sometimes",
    "four",
    "head",
    "above",
    "kind",
    "began",
    "almost",
    "live",
    "page",
    "got",
    "earth",
    "need",
    "far",
    "hand",
    "high",
    "year",
    "mother",
    "light",
    "parts",
    "country",
    "father",
    "let",
    "night",
    "following",
    "picture",
    "being",
    "study",
    "second",
    "eyes",
    "soon",
    "times",
    "story",
    "boys",
    "since",
    "white",
    "days",
    "ever",
    "paper",
    "hard",
    "near",
    "sentence",
    "better",
    "best",
    "across",
    "during",
    "today",
    "others",
    "however",
    "sure",
    "means",
    "knew",
    "try",
    "told",
    "young",
    "miles",
    "sun",
    "ways",
    "thing",
    "whole",
    "hear",
    "example",
    "heard",
    "several",
    "change",
    "answer",
    "room",
    "sea",
    "against",
    "top",
    "turned",
    "learn",
    "point",
    "city",
    "play",
    "toward",
    "five",
    "using",
    "himself",
    "usually",
];
