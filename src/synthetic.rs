//! Prompts of a stated number of tokens, without a tokenizer: texts of common words, as many as the
//! server counts the right number of tokens for. Pure.
//!
//! What a server counts is a line, roughly: so many tokens a word, and those of its template. Two
//! counts make the line, and each further one mends it where it is needed. All texts of as many
//! words have the same words in another order, and so the same number of tokens, but for a
//! tokenizer that joins words.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::prompt::Synthetic;

/// A prompt may be longer or shorter than was asked for by this part of it.
pub const TOLERANCE: f64 = 0.02;

/// A count that is as near as this is not mended further.
const NEAR: f64 = 0.002;

/// Counts that are made to get nearer than the tolerance, and most of all.
const ENOUGH: usize = 4;
const MOST: usize = 8;

/// Whether `counted` tokens are the `wanted` ones.
pub fn is_right(counted: u64, wanted: u64) -> bool {
    off(counted, wanted) <= TOLERANCE
}

/// By which part of `wanted` the tokens are off.
fn off(counted: u64, wanted: u64) -> f64 {
    counted.abs_diff(wanted) as f64 / wanted.max(1) as f64
}

impl Synthetic {
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
pub struct Counts(Vec<(u64, u64)>);

impl Counts {
    /// Adds that so many `words` are so many `tokens`.
    pub fn add(&mut self, words: u64, tokens: u64) {
        self.0.push((words, tokens));
        self.0.sort_unstable();
        self.0.dedup_by_key(|(words, _)| *words);
    }

    /// How many counts there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The count that is nearest to `tokens`.
    pub fn nearest(&self, tokens: u64) -> Option<(u64, u64)> {
        self.0.iter().copied().min_by_key(|(_, counted)| counted.abs_diff(tokens))
    }

    /// The number of words that is probably so many `tokens`: by the line through the two counts
    /// around it; a word a token where there are no two.
    pub fn words(&self, tokens: u64) -> u64 {
        if let Some((words, _)) = self.0.iter().find(|(_, counted)| *counted == tokens) {
            return *words;
        }
        let [first, .., last] = self.0.as_slice() else { return tokens };
        let above = self.0.iter().position(|(_, counted)| *counted > tokens);
        let (low, high) = match above {
            Some(0) => (*first, self.0[1]),
            Some(above) => (self.0[above - 1], self.0[above]),
            None => (self.0[self.0.len() - 2], *last),
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
    pub fn next(&self, wanted: u64) -> Option<u64> {
        let nearest =
            self.nearest(wanted).map_or(f64::INFINITY, |(_, counted)| off(counted, wanted));
        let enough = if nearest <= TOLERANCE { ENOUGH } else { MOST };
        if nearest <= NEAR || self.len() >= enough {
            return None;
        }
        let guess = match self.len() {
            0 => (wanted / 2).max(1),
            1 if !self.is_counted(wanted) => wanted,
            _ => self.words(wanted),
        };
        (!self.is_counted(guess)).then_some(guess)
    }

    fn is_counted(&self, words: u64) -> bool {
        self.0.iter().any(|(counted, _)| *counted == words)
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
