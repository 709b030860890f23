//! Makes foreign text printable: names from a config or a data set, messages of a server. Pure.

use std::{borrow::Cow, error::Error};

/// Returns the messages of an error and of its causes, outermost first.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let causes =
        std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The length of a line of output and of a cell of a CSV file, in characters. Longer ones are cut.
pub const LONGEST_LINE: usize = 4_000;

/// Returns whether `ch` controls the display instead of being visible: it moves the cursor, changes
/// colours, reorders or ends the line, has no width, or is not a character. XML allows only tab and
/// line feed of these.
///
/// Joiners and variation selectors are not among them: [`visible`] keeps them within words and
/// emoji.
pub fn is_unprintable(ch: char) -> bool {
    let is_format = matches!(
        ch,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}'
    );
    let number = u32::from(ch);
    let is_no_character = number & 0xfffe == 0xfffe || matches!(ch, '\u{fdd0}'..='\u{fdef}');
    ch.is_control() || is_format || is_no_character
}

/// Returns `text` on one line, with escapes such as `\u{1b}` for unprintable characters and for
/// commands of CI systems.
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, is_unprintable)
}

/// Returns `text` with its lines and with escapes for other unprintable characters and for commands
/// of CI systems.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |ch| is_unprintable(ch) && ch != '\n')
}

/// Returns the JSON document `json` with JSON's escapes for the characters that [`visible`] escapes.
/// Its values remain the same.
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Outside of strings JSON has only ASCII and no `#`, and its blanks are not in strings.
    rewritten(json, |ch| is_unprintable(ch) && !ch.is_ascii_whitespace(), push_json_escape)
}

/// Returns the quoted text `quoted` of a YAML document with YAML's escapes for the characters that
/// [`visible`] escapes. Its value remains the same.
pub fn visible_yaml(quoted: &str) -> Cow<'_, str> {
    rewritten(quoted, is_unprintable, |out, ch| out.push_str(&format!("\\U{:08x}", u32::from(ch))))
}

/// Returns `text` with `_` for the parts of commands of CI systems and for stray joiners.
pub fn without_commands(text: &str) -> Cow<'_, str> {
    rewritten(text, |_| false, |out, _| out.push('_'))
}

/// Returns `text` as output has it: with its lines, each at most [`LONGEST_LINE`] long, and without
/// unprintable characters and commands of CI systems.
pub fn printable(text: &str) -> String {
    cut_lines(&visible_lines(text), LONGEST_LINE).into_owned()
}

/// Formats `url` for messages: without user, password and query, which may contain a key.
pub fn shown_url(url: &str) -> String {
    let (bare, query) = match url.find('?') {
        Some(at) => (&url[..at], "?…"),
        None => (url, ""),
    };
    match (bare.find("://"), bare.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}***{}{query}", &bare[..scheme + "://".len()], &bare[at..])
        }
        _ => format!("{bare}{query}"),
    }
}

/// Returns `text` with each line cut to `limit` characters. A cut line states what it lacks.
pub fn cut_lines(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit || text.lines().all(|line| line.chars().nth(limit).is_none()) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(limit * 2);
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        match line.char_indices().nth(limit) {
            None => out.push_str(line),
            Some((at, _)) => {
                let rest = line[at..].chars().count();
                out.push_str(&format!("{}… ({})", &line[..at], counted(rest, "more character")));
            }
        }
        out.push_str(end);
    }
    Cow::Owned(out)
}

fn escaped(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    rewritten(text, is_hidden, |out, ch| match ch {
        '\n' | '\r' | '\t' => out.extend(ch.escape_default()),
        _ => out.extend(ch.escape_unicode()),
    })
}

/// Replaces characters that are hidden and the parts of commands of CI systems.
///
/// The systems read the output of a step line by line:
///
/// - GitHub: `::command::` at the beginning of a line behind any blanks, `##[command]` anywhere
///   (`ActionCommand.cs` of actions/runner). Its search compares by the rules of a language, which
///   ignore characters without width.
/// - Azure: `##vso[command]` and `##[command]`; TeamCity: `##teamcity[`.
/// - GitLab: `section_start:TIME:NAME` with control characters behind it.
///
/// A text that was rewritten has none of these, so that rewriting it again changes nothing.
fn rewritten(
    text: &str,
    is_hidden: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"[:".contains(&byte) || byte == b' ';
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let (mut out, mut line) = (String::with_capacity(text.len()), 0);
    let mut previous = '\n';
    let mut chars = text.chars().peekable();
    while let Some(ch) = chars.next() {
        let next = chars.peek().copied();
        let before = &out[line..];
        let is_command = match ch {
            '[' => begins_command(before),
            ':' => next == Some(':') && before.trim_start().is_empty() || ends_section(before),
            _ => false,
        };
        if is_command || is_hidden(ch) || is_stray_joiner(previous, ch, next) {
            escape(&mut out, ch);
        } else {
            out.push(ch);
        }
        if ch == '\n' {
            line = out.len();
        }
        previous = ch;
    }
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// Returns whether a bracket behind `before` begins a command: `##[`, `##vso[`, `##teamcity[`.
fn begins_command(before: &str) -> bool {
    before.trim_end_matches(|ch: char| ch.is_ascii_alphanumeric()).ends_with("##")
}

/// Returns whether a colon behind `before` continues a section marker of GitLab.
fn ends_section(before: &str) -> bool {
    before.ends_with("section_start") || before.ends_with("section_end")
}

/// Returns whether `ch` has no width and stands where neither words nor emoji have it: next to ASCII.
fn is_stray_joiner(previous: char, ch: char, next: Option<char>) -> bool {
    match ch {
        '\u{200c}' | '\u{200d}' => previous.is_ascii() || next.is_none_or(|next| next.is_ascii()),
        '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => {
            previous.is_ascii()
        }
        _ => false,
    }
}

fn push_json_escape(out: &mut String, ch: char) {
    for unit in ch.encode_utf16(&mut [0; 2]) {
        out.push_str(&format!("\\u{unit:04x}"));
    }
}

/// Formats a number of things: `1 record`, `2 records`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(shown_url("http://me:pass@h:80/v1?key=x"), "http://***@h:80/v1?…");
        assert_eq!(shown_url("http://h/v1"), "http://h/v1");
    }

    #[test]
    fn unprintable_characters_are_escaped_and_others_are_kept() {
        assert_eq!(visible("a\u{1b}[31m\r\n\tb"), r"a\u{1b}[31m\r\n\tb");
        assert_eq!(visible_lines("a\u{1b}[31m\r\n\tb"), "a\\u{1b}[31m\\r\n\\tb");
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
    fn joiners_next_to_ascii_are_escaped() {
        assert_eq!(visible("gpt\u{200d}-4\u{fe0f}"), r"gpt\u{200d}-4\u{fe0f}");
        assert_eq!(visible("#\u{200d}#[error]"), r"#\u{200d}#[error]");
        assert_eq!(visible("中\u{200d}"), r"中\u{200d}");
        assert_eq!(
            visible("a\u{200b}\u{ad}\u{2060}\u{e0041}b"),
            r"a\u{200b}\u{ad}\u{2060}\u{e0041}b"
        );
    }

    #[test]
    fn commands_of_ci_systems_are_escaped() {
        for (text, expected) in [
            ("##[error]x ##[group]", r"##\u{5b}error]x ##\u{5b}group]"),
            ("a ###[add-mask]x", r"a ###\u{5b}add-mask]x"),
            ("##vso[task.complete]", r"##vso\u{5b}task.complete]"),
            ("##teamcity[x]", r"##teamcity\u{5b}x]"),
            ("::error::x", r"\u{3a}:error::x"),
            (" \u{3000}::add-mask::x", " \u{3000}\\u{3a}:add-mask::x"),
            (":::error::x", r"\u{3a}::error::x"),
            ("section_start:1:a", r"section_start\u{3a}1:a"),
            ("section_end:1:a", r"section_end\u{3a}1:a"),
        ] {
            assert_eq!(visible(text), expected);
            assert_eq!(visible(expected), expected, "twice as once");
        }
        for text in ["a::b", "m::p::run-1", "#[test] x[1] ## [a]", "[::1]:80", "a: b"] {
            assert!(matches!(visible(text), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(visible_lines("a::b\n  ::c::d"), "a::b\n  \\u{3a}:c::d");
    }

    #[test]
    fn json_keeps_its_values() {
        let text = "a\u{9b}\u{202e}\u{e0041} ##[error] ##vso[x] ::b \" \\ é 👩\u{200d}🔬\u{7f}\n";
        let json = serde_json::json!({ text: [text, 1] });
        let shown = visible_json(&format!("{json:#}")).into_owned();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), json);
        assert!(
            shown.contains(r"a\u009b\u202e\udb40\udc41 ##\u005berror] ##vso\u005bx] ::b"),
            "{shown}"
        );
        assert!(shown.contains("👩\u{200d}🔬\\u007f"), "{shown}");
    }

    #[test]
    fn long_lines_are_cut_and_say_so() {
        assert_eq!(
            cut_lines("abc\nabcd\n中中中中", 3),
            "abc\nabc… (1 more character)\n中中中… (1 more character)"
        );
        assert!(matches!(cut_lines("abc\n中中中\n", 3), Cow::Borrowed(_)));
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
