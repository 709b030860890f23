//! Makes foreign text printable: names from a config or a data set, messages of a server. Pure.

use std::{borrow::Cow, error::Error};

/// Returns the messages of an error and of its causes, outermost first.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let causes =
        std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns whether `ch` controls the display instead of being visible: it moves the cursor, changes
/// colours, reorders or ends the line, or is not a character. XML allows only tab and line feed of
/// these.
pub fn is_unprintable(ch: char) -> bool {
    let is_format = matches!(
        ch,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    );
    let number = u32::from(ch);
    let is_no_character = number & 0xfffe == 0xfffe || matches!(ch, '\u{fdd0}'..='\u{fdef}');
    ch.is_control() || is_format || is_no_character
}

/// Returns `text` on one line, with escapes such as `\u{1b}` for unprintable characters.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_unprintable)
}

/// Returns `text` with its lines and with escapes for other unprintable characters.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |ch| is_unprintable(ch) && !matches!(ch, '\n' | '\t'))
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for ch in text.chars() {
        match (is_hidden(ch), ch) {
            (true, '\n' | '\r' | '\t') => out.extend(ch.escape_default()),
            (true, _) => out.extend(ch.escape_unicode()),
            (false, _) => out.push(ch),
        }
    }
    Cow::Owned(out)
}

/// Formats a number of things: `1 record`, `2 records`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprintable_characters_are_escaped_and_others_are_kept() {
        assert_eq!(visible("a\u{1b}[31m\r\n\tb"), r"a\u{1b}[31m\r\n\tb");
        assert_eq!(visible_lines("a\u{1b}[31m\r\n\tb"), "a\\u{1b}[31m\\r\n\tb");
        let odd = "\0\u{7f}\u{85}\u{9b}\u{202e}\u{2066}\u{2028}\u{feff}\u{fffe}\u{ffff}\u{10ffff}";
        let expected =
            r"\u{0}\u{7f}\u{85}\u{9b}\u{202e}\u{2066}\u{2028}\u{feff}\u{fffe}\u{ffff}\u{10ffff}";
        assert_eq!(visible(odd), expected);
        // Joiners are part of words and of emoji.
        for text in ["Qwen/千问:8b — 👩\u{200d}🔬 می\u{200c}خواهم é\u{301}", "\u{fffd}", ""]
        {
            assert!(matches!(visible(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn nothing_is_left_that_xml_forbids() {
        let is_allowed = |ch: char| {
            matches!(
                ch,
                '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..
            )
        };
        let all: String = ('\0'..=char::MAX).collect();
        assert!(visible_lines(&all).chars().all(is_allowed));
    }
}
