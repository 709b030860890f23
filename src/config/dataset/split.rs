//! Splits JSON text into its values, also after a broken one.
//!
//! A broken record lacks a bracket or a quote, so counting brackets does not find its end: the
//! count would include every later record. Its end is instead where the next record begins: a line
//! with the same indentation, or an object after a comma that has the keys of a record.

use serde_json::value::RawValue;

use super::{is_record, is_turn, pieces::end_of_string};

/// Values with their places.
pub(super) type Values<'t> = Vec<(usize, &'t str)>;

/// The items of the list whose bracket is at `at`, and the place behind the list.
pub(super) fn list(text: &str, at: usize) -> (Values<'_>, usize) {
    Splitter::new(text, at + 1, true).values(at + 1)
}

/// The values of `text` from `at`, one after the other.
pub(super) fn sequence(text: &str, at: usize) -> Values<'_> {
    Splitter::new(text, at, false).values(at).0
}

/// Returns the place of the first byte from `at` that is not blank. Concatenated files have byte
/// order marks in the middle.
pub(super) fn skip_blanks(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    text.len() - rest.trim_start_matches(is_blank).len()
}

pub(super) fn is_blank(ch: char) -> bool {
    ch.is_ascii_whitespace() || ch == '\u{feff}'
}

/// The JSON value that `text` begins with.
pub(super) fn first_value(text: &str) -> Option<&str> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    values.next()?.ok().map(RawValue::get)
}

struct Splitter<'t> {
    text: &'t str,
    in_list: bool,
    /// The byte with which a value begins: `{` or `[`.
    opener: u8,
    /// The first key of the first value.
    first_key: Option<&'t str>,
    /// Whether the values are the turns of a conversation.
    of_turns: bool,
    /// The blanks before a value that is the first of its line.
    indent: Option<usize>,
    /// Whether a line has several values.
    several_in_line: bool,
}

impl<'t> Splitter<'t> {
    fn new(text: &'t str, at: usize, in_list: bool) -> Self {
        let first = &text[skip_blanks(text, at)..];
        let opener = if first.starts_with('[') { b'[' } else { b'{' };
        let of_turns = first_value(first).is_some_and(is_turn);
        // A first value without its bracket starts with a key or a comment.
        let begins = first.as_bytes().first() == Some(&opener);
        let indent = (!in_list && !begins).then_some(0);
        let first_key = first_key(first);
        Self { text, in_list, opener, first_key, of_turns, indent, several_in_line: false }
    }

    fn values(&mut self, mut at: usize) -> (Values<'t>, usize) {
        let mut values = Vec::new();
        loop {
            at = skip_blanks(self.text, at);
            match self.text.as_bytes().get(at) {
                None => return (values, at),
                Some(b']') if self.in_list => return (values, at + 1),
                Some(b',') => {
                    at += 1;
                    continue;
                }
                Some(_) => {}
            }
            if self.text.as_bytes()[at] == self.opener {
                let indent = self.indent_at(at);
                self.several_in_line |= indent.is_none() && !values.is_empty();
                // A deeper indentation belongs to a broken value.
                self.indent = self.indent.into_iter().chain(indent).min();
            }
            let end = self.end_of_value(at);
            let blank = |ch| is_blank(ch) || ch == ',';
            values.push((at, self.text[at..end].trim_end_matches(blank)));
            at = end;
        }
    }

    /// Where the value that begins at `at` ends. A broken one ends where the next one begins.
    fn end_of_value(&self, at: usize) -> usize {
        if let Some(value) = first_value(&self.text[at..]) {
            let end = skip_blanks(self.text, at) + value.len();
            if self.is_end(end) {
                return end;
            }
        }
        if let Some(end) = self.closing_bracket(at).filter(|end| self.is_end(*end))
            && self.is_before_value(end)
            && self.next_value((at + 1)..end, Self::begins_line).is_none()
        {
            return end;
        }
        let is_of_lines = self.indent.is_some() && !self.several_in_line;
        let begins = |it: &Self, at| it.begins_line(at) || !is_of_lines && it.begins_record(at);
        let all = (at + 1)..self.text.len();
        self.next_value(all, begins).unwrap_or(self.text.len())
    }

    /// Whether a value may end at `end`, by what follows.
    fn is_end(&self, end: usize) -> bool {
        let next = skip_blanks(self.text, end);
        match self.text.as_bytes().get(next) {
            None | Some(b'{' | b'[') => true,
            Some(b',') => !self.is_inner_key(skip_blanks(self.text, next + 1)),
            Some(b']') if self.in_list => {
                let behind = skip_blanks(self.text, next + 1);
                matches!(self.text.as_bytes().get(behind), None | Some(b'{' | b'['))
            }
            Some(b']' | b'}') => false,
            Some(_) => !self.in_list && self.text[end..next].contains(['\n', '\r']),
        }
    }

    /// Whether a key is at `at` that is not the first of a value whose bracket is missing.
    fn is_inner_key(&self, at: usize) -> bool {
        let rest = &self.text[at..];
        let key = first_value(rest).filter(|key| key.starts_with('"'));
        let is_key = key.is_some_and(|key| rest[key.len()..].trim_start().starts_with(':'));
        let begins_line = self.indent.is_some() && self.indent_at(at) == self.indent;
        is_key && key != self.first_key && !begins_line
    }

    /// Whether a value like the others, or nothing, follows `at` and perhaps a comma.
    fn is_before_value(&self, at: usize) -> bool {
        let rest = self.text[at..].trim_start_matches(|ch| is_blank(ch) || ch == ',');
        rest.as_bytes().first().is_none_or(|byte| [self.opener, b']'].contains(byte))
    }

    /// Returns the place after the bracket that closes the bracket at `at`, with any text between
    /// them. `None` if a bracket or a quote is missing before it.
    fn closing_bracket(&self, at: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let (mut open, mut previous, mut place) = (Vec::new(), b' ', at);
        while let Some(byte) = bytes.get(place) {
            match byte {
                // After an unpaired quote, texts and the rest of the JSON are swapped.
                b'"' if !b"{[,:".contains(&previous) => return None,
                b'"' => {
                    let end = end_of_string(bytes, place);
                    if bytes[place..end].contains(&b'\n') {
                        return None;
                    }
                    place = end;
                }
                // In an object, a key comes first.
                b'{' | b'[' if open.last() == Some(&b'{') && previous != b':' => return None,
                b'{' | b'[' => open.push(*byte),
                b'}' | b']' => {
                    let opener = if *byte == b'}' { b'{' } else { b'[' };
                    if open.pop() != Some(opener) {
                        return None;
                    }
                }
                _ => {}
            }
            place += 1;
            if open.is_empty() {
                return Some(place).filter(|place| *place > at + 1);
            }
            if !byte.is_ascii_whitespace() {
                previous = *byte;
            }
        }
        None
    }

    /// The first place in `places` at which a value `begins`.
    fn next_value(
        &self,
        places: std::ops::Range<usize>,
        begins: impl Fn(&Self, usize) -> bool,
    ) -> Option<usize> {
        let openers = self.text.as_bytes()[places.clone()].iter().enumerate();
        let mut openers = openers.filter(|(_, byte)| **byte == self.opener);
        openers.find(|(nth, _)| begins(self, places.start + nth)).map(|(nth, _)| places.start + nth)
    }

    /// Whether the value at `at` is the first one of its line, has the indentation of the others,
    /// and is not a message of a record.
    fn begins_line(&self, at: usize) -> bool {
        let is_turn = || first_value(&self.text[at..]).is_some_and(is_turn);
        self.indent.is_some() && self.indent_at(at) == self.indent && (self.of_turns || !is_turn())
    }

    /// Whether the value at `at` follows a comma and is like a record.
    fn begins_record(&self, at: usize) -> bool {
        if !self.text[..at].trim_end_matches(is_blank).ends_with(',') {
            return false;
        }
        let rest = &self.text[at..];
        match first_value(rest) {
            Some(list) if self.opener == b'[' => {
                first_value(list[1..].trim_start()).is_some_and(is_turn)
            }
            Some(value) => is_record(value) || self.of_turns && is_turn(value),
            None => self.first_key.is_some() && first_key(rest) == self.first_key,
        }
    }

    /// The blanks between the beginning of the line and `at`; `None` if there is more than that.
    fn indent_at(&self, at: usize) -> Option<usize> {
        let before = self.text[..at].trim_end_matches([' ', '\t', '\u{feff}']);
        let starts = before.is_empty() || before.ends_with(['\n', '\r']);
        starts.then(|| self.text[before.len()..at].trim_start_matches('\u{feff}').len())
    }
}

/// The key with which the object `text` begins.
fn first_key(text: &str) -> Option<&str> {
    first_value(text.strip_prefix('{')?.trim_start()).filter(|key| key.starts_with('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten records, of which the sixth is `broken`, as a list: `first` is before the first and
    /// `between` before each of the others.
    fn listed(form: [&str; 3], record: impl Fn(usize) -> String, broken: &str) -> String {
        let [open, between, close] = form;
        let record = |nth| if nth == 5 { broken.to_owned() } else { record(nth) };
        let records: Vec<_> = (0..10).map(record).collect();
        format!("{open}{}{close}", records.join(between))
    }

    #[test]
    fn a_broken_value_leaves_the_others_whole() {
        let lists = [
            ["[", ",", "]"],
            ["[", ", ", "]\n"],
            ["[\n", ",\n", "\n]\n"],
            ["[\n  ", ",\n  ", "\n]"],
            ["[", ",\n", "]"],
            ["", "\n", "\n"],
            ["", ",\n", ""],
        ];
        let simple = |nth: usize| format!(r#"{{"prompt": "q{nth}"}}"#);
        let chat = |nth: usize| {
            format!(
                r#"{{"id": {nth}, "messages": [{{"role": "system", "content": "s"}}, {{"role": "user", "content": "q{nth}"}}]}}"#
            )
        };
        let nested = chat(5);
        let cut = |at: usize| nested[..nested.len() - at].to_owned();
        for form in lists {
            for broken in [
                r#"{"prompt": "q5""#,
                r#"{"prompt": "q5}"#,
                r#"{"prompt": q5"}"#,
                r#"{"prompt": "a 5" disk"}"#,
                r#"{"prompt": "q5"}}"#,
                r#"{"prompt": "q5"]}"#,
                r#"{"prompt": "q5"}]"#,
                r#"{{"prompt": "q5"}"#,
                r#"{"prompt": ["q5"}"#,
                r#""prompt": "q5"}"#,
                r#"{"prompt": "q5"}, "id": 5}"#,
                r#"{"id": 5, "prompt": {"prompt": "q5"}"#,
                r#"{prompt": "a \"5\" b"}"#,
                r#"{"prompt": "q5",}"#,
                r#"{"prompt" "q5"}"#,
                r#"{"prompt": NaN}"#,
                r#"{"prompt": undefined}"#,
                r#"{"prompt": "q5"} // why"#,
            ] {
                let text = listed(form, simple, broken);
                let is_list = text.starts_with('[');
                let values = if is_list { list(&text, 0).0 } else { sequence(&text, 0) };
                let found: Vec<_> = values.iter().map(|(_, value)| *value).collect();
                assert_eq!(found.len(), 10, "{text}\n{found:#?}");
                for (nth, value) in found.iter().enumerate().filter(|(nth, _)| *nth != 5) {
                    assert_eq!(*value, simple(nth), "{text}");
                }
            }
            for broken in [cut(1), cut(2), cut(3), nested.replace("q5", "a 5\" disk")] {
                let text = listed(form, chat, &broken);
                let is_list = text.starts_with('[');
                let values = if is_list { list(&text, 0).0 } else { sequence(&text, 0) };
                assert_eq!(values.len(), 10, "{text}\n{values:#?}");
                for (nth, (_, value)) in values.iter().enumerate().filter(|(nth, _)| *nth != 5) {
                    assert_eq!(*value, chat(nth), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_broken_value_of_several_lines_leaves_the_others_whole() {
        let record = |nth: usize| {
            format!(
                "{{\n  \"messages\": [\n    {{\n      \"role\": \"user\",\n      \"content\": \"q{nth}\"\n    }}\n  ]\n}}"
            )
        };
        let good = record(5);
        for broken in [
            good.replace("q5\"", "q5"),
            good.replace("\"q5\"", "NaN"),
            good.replace("\"q5\"", "q5"),
            good.replace("  ]\n", ""),
            good.replace("    }\n", ""),
            good.trim_end_matches('}').to_owned(),
            format!("{good} // why"),
            "# why".to_owned(),
        ] {
            let text = listed(["", "\n", "\n"], record, &broken);
            let values = sequence(&text, 0);
            assert_eq!(values.len(), 10, "{text}\n{values:#?}");
            assert!(values.iter().enumerate().all(|(nth, (_, it))| nth == 5 || *it == record(nth)));
        }
    }
}
