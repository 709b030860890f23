//! How many tokens a text can hold, and whether it contains the model's reasoning. Pure.

/// Above the mean number of characters per token of any language, code included.
const CHARS_PER_TOKEN: u64 = 8;

/// Above the mean number of bytes per token of any text. Indentation and rules have the longest.
pub(super) const BYTES_PER_TOKEN: u64 = 32;

/// Tags that open and close inline reasoning. Some models write headings instead.
const TAGS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<reflection>", "</reflection>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<mm:think>", "</mm:think>"),
    ("<seed:think>", "</seed:think>"),
    ("<|think|>", "<|/think|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel|>analysis", "<|channel|>final"),
    ("<|channel>thought", "<channel|>"),
    ("<unused94>thought", "<unused95>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("Here is my thought process:", "Here is my response:"),
];

/// Returns an upper estimate of the tokens in a text. It assumes that a token has at least two
/// letters of a word, and that a blank belongs to the word after it. Each digit, each sign and each
/// byte of another script counts as a token.
///
/// The estimate holds for the text that models write, not for every text. One token per byte would
/// hold for every text, but it is four times the usual number, so that it would not reveal tokens
/// that were counted and not streamed.
pub(super) fn most_tokens(text: &str) -> u64 {
    let mut tokens = 0;
    // The length of the run of letters of one case that is being read.
    let (mut run, mut is_upper) = (0_u64, false);
    let mut blank = false;
    for byte in text.bytes() {
        let is_letter = byte.is_ascii_alphabetic();
        // A capital goes with the small letters after it.
        let goes_on = is_letter
            && run > 0
            && (is_upper == byte.is_ascii_uppercase() || (is_upper && run == 1));
        if !goes_on {
            tokens += run.div_ceil(2);
            run = 0;
        }
        if is_letter {
            (run, is_upper) = (run + 1, byte.is_ascii_uppercase());
        }
        tokens += u64::from(blank && !is_letter);
        blank = byte == b' ';
        tokens += u64::from(!is_letter && !blank);
    }
    tokens + run.div_ceil(2) + u64::from(blank)
}

/// Returns whether `text`, the streamed answer, contains the reasoning. It does if it begins with an
/// opening tag, if it has a closing tag without an opening one (the prompt then opened the
/// reasoning), or if it is too long for `others`, the number of tokens that are not reasoning.
pub(super) fn shows_reasoning(text: &str, others: u64) -> bool {
    let begun = text.trim_start();
    let by_tag = TAGS.iter().any(|(open, close)| {
        let closed_alone = text.find(close).is_some_and(|at| !text[..at].contains(open));
        begun.starts_with(open) || closed_alone
    });
    // A few long words prove nothing.
    let longest = others.saturating_add(2).saturating_mul(CHARS_PER_TOKEN);
    by_tag || text.chars().count() as u64 > longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_holds_no_fewer_tokens_than_tokenizers_make_of_it() {
        // Text, and tokens by a tokenizer: o200k where not stated otherwise.
        let texts = [
            ("", 0),
            (" the quick brown fox jumps over the lazy dog.", 10),
            ("Hello! How can I assist you today?", 9),
            ("1, 2, 3, 4, 5", 13), // Qwen: each sign and digit
            ("fn main() {\n    println!(\"{}\", 1);\n}\n", 14),
            ("aGVsbG8gd29ybGQ=", 9),
            ("一个字的答案。", 7),
            ("🙂🙂", 4),
            ("Donaudampfschifffahrtsgesellschaft", 13),
            ("{\"city\": \"Paris\", \"unit\": \"C\"}", 12),
        ];
        for (text, tokens) in texts {
            assert!(most_tokens(text) >= tokens, "{text}: {} < {tokens}", most_tokens(text));
        }
    }

    #[test]
    fn words_are_counted_by_pairs_of_letters() {
        let texts = [
            ("a", 1),
            (" a", 1),
            (" alpha", 3),
            ("Alpha", 3),
            ("ALPHA", 3),
            ("aBcD", 3),
            ("a b", 2),
            ("  ", 2),
            ("a\n", 2),
            ("42", 2),
            ("é", 2),
            ("ab é1", 5),
        ];
        for (text, tokens) in texts {
            assert_eq!(most_tokens(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn reasoning_is_shown_by_its_tags_or_by_its_length() {
        for shown in [
            "<think>so</think>no",
            "\n<thought>so",
            "so it is</think>no",
            "<|channel|>analysis<|message|>so",
            "◁think▷so◁/think▷no",
            "[THINK]so[/THINK]no",
            "a text that is much longer than five tokens and the two in doubt can be",
        ] {
            assert!(shows_reasoning(shown, 5), "{shown}");
        }
        for hidden in ["", "no", "no <think>", "use <think>…</think>", "four words of answer here"]
        {
            assert!(!shows_reasoning(hidden, 5), "{hidden}");
        }
    }
}
