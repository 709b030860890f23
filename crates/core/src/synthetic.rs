//! Prompts of a stated number of tokens: texts of common words, as many as the server, or a tokenizer
//! of the user's own, counts the right number of tokens for. Pure.
//!
//! What a server counts is a line, roughly: so many tokens a word, and those of its template. Two
//! counts make the line, and each further one mends it where it is needed. All texts of as many
//! words have the same words in another order, and so the same number of tokens, but for a
//! tokenizer that joins words.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::{prompt::Synthetic, protocol::Protocol};

/// A prompt may be longer or shorter than was asked for by this part of it.
pub const TOLERANCE: f64 = 0.02;

/// What a chat template may add to a text, tokens: room for the system message that some bring along.
const TEMPLATE: u64 = 512;

/// What is added to a text without a template: the tokens that a model has before each.
const SPECIAL: u64 = 4;

/// How much is done for a length.
#[derive(Debug, Clone, Copy)]
pub struct SearchBudget {
    /// A count that is as near as this is not mended further.
    near: f64,
    /// Counts that are made to get nearer than the tolerance.
    enough: usize,
    /// Most counts of all.
    most: usize,
}

impl SearchBudget {
    /// Where each count is a request.
    pub const REQUESTS: Self = Self { near: 0.002, enough: 4, most: 8 };
    /// Where a count costs nothing: it is to be met.
    pub const FREE: Self = Self { near: 0.0, enough: 64, most: 64 };
}

/// How long a prompt is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many tokens, by the server.
    Prompt(u64),
    /// Its text is so many `tokens`, by a tokenizer, and the server may count some `more`; `None`
    /// where nobody knows how many.
    Text {
        /// Of the text.
        tokens: u64,
        /// Most of what is around it.
        more: Option<u64>,
    },
}

impl Length {
    /// That of the `nth` prompt as `synthetic` wants it, sent by `protocol`, with tools or without.
    pub fn of(synthetic: &Synthetic, nth: u64, protocol: &dyn Protocol, has_tools: bool) -> Self {
        let tokens = synthetic.tokens(nth);
        match (&synthetic.tokenizer, protocol.has_roles()) {
            (None, _) => Self::Prompt(tokens),
            (Some(_), _) if has_tools => Self::Text { tokens, more: None },
            (Some(_), true) => Self::Text { tokens, more: Some(TEMPLATE) },
            (Some(_), false) => Self::Text { tokens, more: Some(SPECIAL) },
        }
    }

    /// The tokens that are to be made.
    pub const fn tokens(self) -> u64 {
        match self {
            Self::Prompt(tokens) | Self::Text { tokens, .. } => tokens,
        }
    }

    /// Whether the prompt can be so long when the server counts these tokens. A server that does not
    /// count denies nothing that a tokenizer counted.
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

/// Whether `counted` tokens are the `wanted` ones.
pub fn is_right(counted: u64, wanted: u64) -> bool {
    off(counted, wanted) <= TOLERANCE
}

/// By which part of `wanted` the tokens are off.
fn off(counted: u64, wanted: u64) -> f64 {
    counted.abs_diff(wanted) as f64 / wanted.max(1) as f64
}

impl Synthetic {
    /// All that decides about its texts, in one.
    pub fn identity(&self) -> String {
        let Self { least, most, seed, tokenizer } = self;
        let by = tokenizer.as_ref().map_or_else(String::new, |by| format!(" by {}", by.name()));
        format!("Synthetic {{ least: {least}, most: {most}, seed: {seed} }}{by}")
    }

    /// The tokens of the `nth` text: one number, or for a range a number of it by chance.
    pub fn tokens(&self, nth: u64) -> u64 {
        let mut random =
            Pcg64Mcg::seed_from_u64(self.seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.random_range(self.least..=self.most)
    }

    /// A text of so many words: the first of a list that depends on the seed alone, in the order of
    /// `shuffle` where there is one.
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

/// How many tokens a server counted for how many words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LengthSearch {
    /// Words and tokens.
    counted: Vec<(u64, u64)>,
    /// Fewest words that the server refused as too long for its model.
    too_many: Option<u64>,
    /// How often it did.
    refusals: usize,
}

impl LengthSearch {
    /// Adds that so many `words` are so many `tokens`.
    pub fn add(&mut self, words: u64, tokens: u64) {
        self.counted.push((words, tokens));
        self.counted.sort_unstable();
        self.counted.dedup_by_key(|(words, _)| *words);
    }

    /// Notes that so many `words` are more than the model takes.
    pub fn refuse(&mut self, words: u64) {
        self.too_many = Some(self.too_many.map_or(words, |known| known.min(words)));
        self.refusals += 1;
    }

    /// Fewest words that were refused as too long.
    pub fn too_many(&self) -> Option<u64> {
        self.too_many
    }

    /// How many counts there are.
    pub fn len(&self) -> usize {
        self.counted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// The count that is nearest to `tokens`.
    pub fn nearest(&self, tokens: u64) -> Option<(u64, u64)> {
        self.counted.iter().copied().min_by_key(|(_, counted)| counted.abs_diff(tokens))
    }

    /// The number of words that is probably so many `tokens`: by the line through the two counts
    /// around it; a word a token where there are no two.
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
        // A guess may be far beyond what was counted, but not out of sight.
        let words = low.0 + (tokens as f64 - low.1) / slope;
        words.round().clamp(1.0, tokens.saturating_mul(8) as f64) as u64
    }

    /// The next number of words to have counted on the way to `wanted` tokens; `None` when the
    /// nearest count is as good as it gets.
    pub fn next(&self, wanted: u64, effort: SearchBudget) -> Option<u64> {
        let nearest =
            self.nearest(wanted).map_or(f64::INFINITY, |(_, counted)| off(counted, wanted));
        let enough = if nearest <= TOLERANCE { effort.enough } else { effort.most };
        if nearest <= effort.near || self.len() + self.refusals >= enough {
            return None;
        }
        let guess = self.within(self.guess(wanted))?;
        (!self.is_counted(guess)).then_some(guess)
    }

    fn guess(&self, wanted: u64) -> u64 {
        match self.counted.as_slice() {
            [] => (wanted / 2).max(1),
            // In proportion: what a template adds makes that a little short of the tokens that are
            // wanted, so that it is not more than the model takes where they are not.
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

    /// `guess`, or where so many words were refused, what is half way to them from the most that were
    /// not.
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

/// Common words, each of which most tokenizers have as one token.
const WORDS: &[&str] = &[
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
