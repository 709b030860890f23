//! Recorded traffic: when requests arrived, how long they were, and which parts they shared. Pure.
//!
//! A trace is JSON Lines. Two public formats describe prompts without their text: Mooncake's
//! (<https://github.com/kvcache-ai/Mooncake>) and that of Alibaba's Bailian
//! (<https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon>). Both split a prompt into blocks
//! of tokens and name equal blocks by the same id. A third format has the request bodies.

mod lines;
mod vocabulary;

use std::{collections::HashMap, time::Duration};

use serde_json::Value;

pub use self::{
    lines::{LineError, read},
    vocabulary::{BlockWriter, Vocabulary},
};

/// The format of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceFormat {
    /// Mooncake: times in milliseconds, blocks of 512 tokens.
    Mooncake,
    /// Alibaba Bailian: times in seconds, blocks of 16 tokens, chats.
    Bailian,
    /// Recorded request bodies: times in milliseconds.
    Bodies,
}

impl TraceFormat {
    /// The default number of tokens of a block.
    pub const fn block_size(self) -> u64 {
        match self {
            Self::Mooncake | Self::Bodies => 512,
            Self::Bailian => 16,
        }
    }

    /// The number of time units in a second.
    const fn per_second(self) -> f64 {
        match self {
            Self::Mooncake | Self::Bodies => 1e3,
            Self::Bailian => 1.0,
        }
    }
}

/// The source of a replayed prompt's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptLengths {
    /// A tokenizer counts the generated text.
    Exact,
    /// The text is generated, and a word stands for a token.
    Approximate,
    /// The body is recorded.
    Recorded,
}

impl PromptLengths {
    /// Returns the name in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Approximate => "approximate",
            Self::Recorded => "recorded",
        }
    }
}

/// Recorded requests in the order of their times.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The format of the file.
    pub format: TraceFormat,
    /// The tokens of a block.
    pub block_size: u64,
    /// The number of different blocks.
    pub blocks: usize,
    /// The requests. The first one is at zero.
    pub requests: Vec<TracedRequest>,
}

/// A recorded request.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedRequest {
    /// When it arrived, from the first request.
    pub at: Duration,
    /// What it sent.
    pub content: TracedContent,
}

/// The content of a recorded request.
#[derive(Debug, Clone, PartialEq)]
pub enum TracedContent {
    /// A prompt whose text is generated.
    Lengths(TracedLengths),
    /// The body as it was sent, a JSON object.
    Body(Value),
}

/// The lengths of a recorded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedLengths {
    /// The tokens of the prompt, 1 or more.
    pub input: u64,
    /// The tokens of the answer, 1 or more.
    pub output: u64,
    /// The blocks from the beginning of the prompt, by number; the last one can be shorter than
    /// the others. Tokens after them are not shared.
    pub blocks: Vec<u32>,
    /// The tokens at the beginning of the prompt that an earlier request has in the same place.
    pub shared: u64,
}

impl Trace {
    /// Returns the mean number of arrivals per second; `None` if all requests arrive at once.
    pub fn rate(&self) -> Option<f64> {
        let seconds = self.requests.last()?.at.as_secs_f64();
        (seconds > 0.0).then(|| (self.requests.len() - 1) as f64 / seconds)
    }

    /// Returns the largest number of arrivals within `window`.
    pub fn burst(&self, window: Duration) -> usize {
        let mut first = 0;
        let mut most = 0;
        for (nth, request) in self.requests.iter().enumerate() {
            while self.requests[first].at + window < request.at {
                first += 1;
            }
            most = most.max(nth - first + 1);
        }
        most
    }

    /// Returns the lengths of the request with this number, from 0; `None` of a recorded body.
    pub fn lengths(&self, nth: usize) -> Option<&TracedLengths> {
        match &self.requests.get(nth)?.content {
            TracedContent::Lengths(lengths) => Some(lengths),
            TracedContent::Body(_) => None,
        }
    }

    /// Returns the number of different texts: the blocks, and the rest of each request.
    const fn texts(&self) -> usize {
        self.blocks + self.requests.len()
    }

    /// Creates a writer of the prompts. Equal `salt`s give equal texts. Fails if the blocks are too
    /// short to be all different.
    pub fn writer<'v>(
        &self,
        vocabulary: &'v Vocabulary,
        salt: u64,
    ) -> Result<BlockWriter<'v>, String> {
        let writer = vocabulary.writer(self.texts(), salt);
        let needs = writer.digits() as u64;
        match self.blocks > 0 && self.block_size < needs {
            true => Err(format!(
                "blocks of {} cannot differ in {} different blocks: they need {needs} tokens or more",
                crate::text::counted(self.block_size as usize, "token"),
                self.blocks
            )),
            false => Ok(writer),
        }
    }

    /// Returns the prompt of the request with this number, from 0: as many pieces as it has tokens.
    pub fn prompt(&self, nth: usize, lengths: &TracedLengths, writer: &BlockWriter<'_>) -> String {
        let mut text = String::new();
        let mut left = lengths.input;
        for block in &lengths.blocks {
            let tokens = left.min(self.block_size);
            writer.push(u64::from(*block), tokens, &mut text);
            left -= tokens;
        }
        writer.push((self.blocks + nth) as u64, left, &mut text);
        text
    }
}

/// Finds the tokens that each request shares with an earlier one: those of the leading blocks that
/// an earlier request has in the same order. A cache that forgets nothing could serve them.
fn find_shared(requests: &mut [TracedRequest], block_size: u64) {
    /// The longest text of a block after certain other blocks, and the number of this sequence.
    struct Known {
        tokens: u64,
        sequence: u32,
    }
    let mut known: HashMap<(u32, u32), Known> = HashMap::new();
    for request in requests {
        let TracedContent::Lengths(lengths) = &mut request.content else { continue };
        let (mut before, mut left, mut is_shared) = (0, lengths.input, true);
        for block in &lengths.blocks {
            let tokens = left.min(block_size);
            left -= tokens;
            let next = known.len() as u32 + 1;
            let seen = known.entry((before, *block)).or_insert(Known { tokens: 0, sequence: next });
            if is_shared {
                lengths.shared += tokens.min(seen.tokens);
                is_shared = seen.tokens >= tokens;
            }
            seen.tokens = seen.tokens.max(tokens);
            before = seen.sequence;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::tokenizer::Tokenizer;

    fn trace(text: &str) -> Trace {
        read(text, (None, None), usize::MAX).unwrap()
    }

    const MOONCAKE: &str = r#"
        {"timestamp": 27, "input_length": 1100, "output_length": 5, "hash_ids": [7, 9, 100]}
        {"timestamp": 27.5, "input_length": 1024, "output_length": 0, "hash_ids": [7, 9]}

        {"timestamp": 3027, "input_length": 600, "output_length": 3, "hash_ids": [9, 7]}
        {"timestamp": 2027, "input_length": 1536, "output_length": 3, "hash_ids": [7]}
    "#;

    #[test]
    fn mooncake_counts_milliseconds_and_blocks_of_512() {
        let trace = trace(MOONCAKE);
        assert_eq!((trace.format, trace.block_size, trace.blocks), (TraceFormat::Mooncake, 512, 3));
        let times: Vec<_> = trace.requests.iter().map(|request| request.at.as_secs_f64()).collect();
        assert_eq!(times, [0.0, 0.0005, 2.0, 3.0], "in the order of time");
        let lengths: Vec<_> = (0..4).map(|nth| trace.lengths(nth).unwrap()).collect();
        assert_eq!(lengths.iter().map(|it| it.output).collect::<Vec<_>>(), [5, 1, 3, 3]);
        // Block 7 alone is shared by the third; the last one has it in another place.
        let shared: Vec<_> = lengths.iter().map(|lengths| lengths.shared).collect();
        assert_eq!(shared, [0, 1024, 512, 0]);
        assert_eq!(trace.rate(), Some(1.0));
        assert_eq!(trace.burst(Duration::from_secs(1)), 2);
        assert_eq!(trace.burst(Duration::from_secs(3)), 4);
    }

    #[test]
    fn bailian_counts_seconds_and_blocks_of_16() {
        let trace = trace(
            r#"{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 40, "output_length": 132, "type": "text", "turn": 1, "hash_ids": [1, 2, 3]}
               {"chat_id": 160, "parent_chat_id": 159, "timestamp": 62.364, "input_length": 41, "output_length": 1, "type": "text", "turn": 2, "hash_ids": [1, 2, 3]}"#,
        );
        assert_eq!((trace.format, trace.block_size), (TraceFormat::Bailian, 16));
        assert_eq!(trace.requests[1].at, Duration::from_millis(1250));
        // The last block of the first request has 8 tokens.
        assert_eq!(trace.lengths(1).unwrap().shared, 40);
    }

    #[test]
    fn a_recorded_body_keeps_its_numbers() {
        let line = r#"{"timestamp": 5, "body": {"messages": [], "top_p": 0.90}}"#;
        let TracedContent::Body(body) = &trace(line).requests[0].content else { panic!() };
        assert_eq!(crate::exact::to_string(body), r#"{"messages":[],"top_p":0.90}"#);
    }

    #[test]
    fn a_wrong_line_is_named_with_its_place() {
        let good = r#"{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [0]}"#;
        for (line, what) in [
            ("[1]", "this line is not a JSON object"),
            ("{\"timestamp\": 0,", "EOF while parsing"),
            (
                r#"{"timestamp": "0", "input_length": 9, "output_length": 1}"#,
                "`timestamp` must be a number",
            ),
            (r#"{"input_length": 9, "output_length": 1}"#, "`timestamp` must be a number"),
            (r#"{"timestamp": 1e30, "input_length": 9, "output_length": 1}"#, "more than 30 years"),
            (
                r#"{"timestamp": 0, "input_length": 0, "output_length": 1}"#,
                "`input_length` must be",
            ),
            (
                r#"{"timestamp": 0, "input_length": 1.5, "output_length": 1}"#,
                "`input_length` must be",
            ),
            (r#"{"timestamp": 0, "input_length": 9}"#, "`output_length` must be"),
            (
                r#"{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [0, 1]}"#,
                "2 hash ids for 9 tokens: in blocks of 512 they have 1",
            ),
            (
                r#"{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": [-1]}"#,
                "`-1` is not a hash id",
            ),
            (
                r#"{"timestamp": 0, "input_length": 9, "output_length": 1, "hash_ids": ["a"]}"#,
                "is not a hash id",
            ),
            (r#"{"timestamp": 0, "body": {}}"#, "this line has a `body`"),
        ] {
            let text = format!("{good}\n  {line}\n{good}\n");
            let error = read(&text, (None, None), usize::MAX).unwrap_err();
            assert!(error.what.contains(what), "{line}: {error:?}");
            let begins = good.len() + 3;
            assert!((begins..begins + line.len()).contains(&error.at), "{line}: {error:?}");
            // A line that is not replayed is not read.
            assert_eq!(read(&text, (None, None), 1).unwrap().requests.len(), 1);
        }
        assert!(read("\n \n", (None, None), 9).unwrap_err().what.contains("no requests"));
        let body = r#"{"timestamp": 0, "body": [1]}"#;
        assert!(read(body, (None, None), 9).unwrap_err().what.contains("must be a JSON object"));
    }

    /// Counts words; a word with `e` is two tokens.
    fn words() -> Tokenizer {
        Tokenizer::new("words", |text| {
            let tokens = |word: &str| if word.contains('e') { 2 } else { 1 };
            Ok(text.split_whitespace().map(tokens).sum())
        })
    }

    #[test]
    fn texts_have_the_stated_tokens_and_share_what_the_trace_shares() {
        let (trace, tokenizer) = (trace(MOONCAKE), words());
        let vocabulary = Vocabulary::of(&tokenizer).unwrap();
        let writer = trace.writer(&vocabulary, 7).unwrap();
        let prompts: Vec<_> =
            (0..4).map(|nth| trace.prompt(nth, trace.lengths(nth).unwrap(), &writer)).collect();
        let words: Vec<Vec<&str>> = prompts.iter().map(|text| text.split(' ').collect()).collect();
        for (nth, prompt) in prompts.iter().enumerate() {
            assert_eq!(tokenizer.count(prompt), Ok(trace.lengths(nth).unwrap().input));
        }
        assert_eq!(words[0][..1024], words[1][..1024]);
        assert_eq!(words[0][..512], words[2][..512]);
        assert_ne!(words[0][512..520], words[2][512..520]);
        assert_eq!(words[3][..512], words[0][512..1024], "block 9");
        assert_eq!(words[3][512..], words[0][..88], "a part of block 7");
        // Another salt gives other texts.
        let other = trace.writer(&vocabulary, 8).unwrap();
        assert_ne!(trace.prompt(0, trace.lengths(0).unwrap(), &other), prompts[0]);
    }

    #[test]
    fn a_tokenizer_of_characters_gets_letters_and_an_unfit_one_is_refused() {
        let letters = Tokenizer::new("letters", |text| Ok(text.len() as u64));
        let vocabulary = Vocabulary::of(&letters).unwrap();
        let mut text = String::new();
        vocabulary.writer(3, 0).push(1, 40, &mut text);
        assert_eq!(letters.count(&text), Ok(40));
        // Two equal letters next to each other are one token.
        let joins = Tokenizer::new("joins", |text| {
            let mut letters: Vec<_> = text.chars().collect();
            letters.dedup();
            Ok(letters.len() as u64)
        });
        assert!(Vocabulary::of(&joins).unwrap_err().contains("`joins` counts neither"));
    }

    #[test]
    fn the_union_of_the_blocks_of_10_000_requests_is_exact() {
        let mut lines = String::new();
        let mut chains: Vec<Vec<u64>> = Vec::new();
        for nth in 0..10_000_u64 {
            // Two of three continue the beginning of an earlier request; ids are large numbers.
            let earlier = (nth * 7919 % (nth + 1)) as usize;
            let mut ids = match nth % 3 {
                0 => Vec::new(),
                kept => chains
                    .get(earlier)
                    .map_or_else(Vec::new, |ids| ids.iter().copied().take(kept as usize).collect()),
            };
            ids.extend((0..=nth % 3).map(|place| (nth << 20) + place * 977));
            let tokens = 16 * ids.len();
            lines.push_str(&format!(
                "{{\"timestamp\": {nth}, \"input_length\": {tokens}, \"output_length\": 1, \"hash_ids\": {ids:?}}}\n"
            ));
            chains.push(ids);
        }
        let trace = read(&lines, (None, Some(16)), usize::MAX).unwrap();
        let vocabulary = Vocabulary::approximate();
        let writer = trace.writer(&vocabulary, 3).unwrap();
        let (mut texts, mut ids_of) = (BTreeMap::new(), BTreeMap::new());
        for (nth, ids) in chains.iter().enumerate() {
            let prompt = trace.prompt(nth, trace.lengths(nth).unwrap(), &writer);
            let words: Vec<_> = prompt.split(' ').collect();
            assert_eq!(words.len(), 16 * ids.len());
            for (id, block) in ids.iter().zip(words.chunks(16)) {
                let block = block.join(" ");
                assert_eq!(texts.entry(*id).or_insert_with(|| block.clone()), &block);
                assert_eq!(ids_of.entry(block).or_insert(*id), id);
            }
        }
        let union: BTreeSet<_> = chains.iter().flatten().collect();
        assert_eq!(
            (texts.len(), ids_of.len(), trace.blocks),
            (union.len(), union.len(), union.len())
        );
    }

    #[test]
    fn many_blocks_have_different_texts_and_too_short_ones_are_refused() {
        let line = |nth: usize| {
            format!(
                "{{\"timestamp\": {nth}, \"input_length\": 3, \"output_length\": 1, \"hash_ids\": [{nth}]}}\n"
            )
        };
        let text: String = (0..20_000).map(line).collect();
        let vocabulary = Vocabulary::approximate();
        let short = read(&text, (None, Some(3)), usize::MAX).unwrap();
        let writer = short.writer(&vocabulary, 0).unwrap();
        let texts: BTreeSet<_> = (0..20_000)
            .map(|nth| short.prompt(nth, short.lengths(nth).unwrap(), &writer))
            .collect();
        assert_eq!(texts.len(), 20_000);
        let firsts = texts.iter().map(|text| text.split(' ').next().unwrap());
        let mut starts: BTreeMap<_, usize> = BTreeMap::new();
        firsts.for_each(|first| *starts.entry(first).or_default() += 1);
        assert_eq!(starts.len(), 128, "the first token differs");
        let line = |nth: usize| {
            format!(
                "{{\"timestamp\": {nth}, \"input_length\": 2, \"output_length\": 1, \"hash_ids\": [{nth}]}}\n"
            )
        };
        let text: String = (0..20_000).map(line).collect();
        let shorter = read(&text, (None, Some(2)), usize::MAX).unwrap();
        let refused = shorter.writer(&vocabulary, 0).unwrap_err();
        assert!(refused.contains("blocks of 2 tokens cannot differ in 20000"), "{refused}");
    }
}
