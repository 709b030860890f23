//! Texts of a stated number of tokens that can be told apart.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_pcg::Pcg64Mcg;

use crate::{synthetic::WORDS, tokenizer::Tokenizer};

/// The number of pieces that texts are made of. The check of all pairs takes its square.
const PIECES: usize = 128;

/// The fewest pieces that make a text.
const FEWEST: usize = 8;

/// Pieces of text that have one token each, wherever they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    pieces: Vec<String>,
    /// The text between two pieces.
    joint: &'static str,
    /// Whether a tokenizer has counted the pieces. Otherwise a word stands for a token.
    pub is_exact: bool,
}

impl Vocabulary {
    /// Creates a vocabulary of common words, each of which is one token for most tokenizers.
    pub fn approximate() -> Self {
        let pieces = WORDS.iter().take(PIECES).map(|word| (*word).to_owned()).collect();
        Self { pieces, joint: " ", is_exact: false }
    }

    /// Creates a vocabulary of pieces that `tokenizer` counts as one token, alone and after each
    /// other: words, or letters for tokenizers that split words.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, String> {
        let words = || WORDS.iter().map(|word| (*word).to_owned());
        let letters = || ('a'..='z').map(String::from);
        let candidates: [(Vec<String>, &'static str); 2] =
            [(words().collect(), " "), (letters().collect(), "")];
        for (candidates, joint) in candidates {
            let mut pieces = Vec::new();
            for piece in candidates {
                let pair = format!("{piece}{joint}{piece}");
                if pieces.len() < PIECES
                    && count(tokenizer, &piece)? == 1
                    && count(tokenizer, &pair)? == 2
                {
                    pieces.push(piece);
                }
            }
            let vocabulary = Self { pieces, joint, is_exact: true };
            if vocabulary.pieces.len() >= FEWEST && vocabulary.adds_up(tokenizer)? {
                return Ok(vocabulary);
            }
        }
        let name = tokenizer.name();
        Err(format!("`{name}` counts neither common words nor letters as one token each"))
    }

    /// Whether the pieces keep their tokens next to every other piece. A text with all pairs shows
    /// it: a tokenizer joins or splits by what is next to a piece.
    fn adds_up(&self, tokenizer: &Tokenizer) -> Result<bool, String> {
        let mut text = String::new();
        for first in &self.pieces {
            for second in &self.pieces {
                for piece in [first, second] {
                    self.push_piece(piece, &mut text);
                }
            }
        }
        let pieces = 2 * self.pieces.len() * self.pieces.len();
        Ok(count(tokenizer, &text)? == pieces as u64)
    }

    fn push_piece(&self, piece: &str, text: &mut String) {
        if !text.is_empty() {
            text.push_str(self.joint);
        }
        text.push_str(piece);
    }

    /// Creates a writer of `texts` different texts.
    pub(super) fn writer(&self, texts: usize, salt: u64) -> BlockWriter<'_> {
        let mut order: Vec<_> = self.pieces.iter().map(String::as_str).collect();
        order.shuffle(&mut Pcg64Mcg::seed_from_u64(salt));
        let base = order.len() as u64;
        let mut digits = 1;
        let mut numbers = base;
        while numbers < texts as u64 {
            numbers = numbers.saturating_mul(base);
            digits += 1;
        }
        BlockWriter { vocabulary: self, order, salt, digits }
    }
}

fn count(tokenizer: &Tokenizer, text: &str) -> Result<u64, String> {
    let name = tokenizer.name();
    tokenizer
        .count(text)
        .map_err(|why| format!("`{name}` cannot count the tokens of a text: {why}"))
}

/// Writes blocks of text, a different one for each number.
///
/// The first pieces of a block are the digits of its number, so that no two blocks are equal by
/// chance. The lowest digit is first: blocks with neighbouring numbers differ from the first token
/// on, and share no prefix.
#[derive(Debug)]
pub struct BlockWriter<'v> {
    vocabulary: &'v Vocabulary,
    order: Vec<&'v str>,
    salt: u64,
    digits: usize,
}

impl BlockWriter<'_> {
    /// Returns the number of tokens that tell blocks apart.
    pub const fn digits(&self) -> usize {
        self.digits
    }

    /// Appends the first `tokens` tokens of the block `number`.
    pub fn push(&self, number: u64, tokens: u64, text: &mut String) {
        let base = self.order.len() as u64;
        let mut random =
            Pcg64Mcg::seed_from_u64(self.salt ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut rest = number;
        for nth in 0..tokens {
            let place = if nth < self.digits as u64 {
                let digit = rest % base;
                rest /= base;
                digit as usize
            } else {
                random.random_range(0..self.order.len())
            };
            self.vocabulary.push_piece(self.order[place], text);
        }
    }
}
