//! A data file's bytes → the text of each record. Pure, and lenient: a broken record must not
//! affect the others.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    is_record, is_turn,
    split::{self, Values, is_blank, skip_blanks},
};

/// The text of a data file. What is not UTF-8 in it is U+FFFD.
#[derive(Debug)]
pub(in crate::config) struct Text {
    pub(in crate::config) text: String,
    /// The places of U+FFFD that replace bytes that are not UTF-8, in order.
    replaced: Vec<usize>,
}

impl Text {
    /// Decodes `bytes`, without a byte order mark.
    pub(in crate::config) fn of(mut bytes: Vec<u8>) -> Self {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if bytes.starts_with(MARK) {
            bytes.drain(..MARK.len());
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self { text, replaced: Vec::new() },
            Err(error) => {
                let (mut text, mut replaced) = (String::new(), Vec::new());
                for chunk in error.as_bytes().utf8_chunks() {
                    text.push_str(chunk.valid());
                    if !chunk.invalid().is_empty() {
                        replaced.push(text.len());
                        text.push('\u{fffd}');
                    }
                }
                Self { text, replaced }
            }
        }
    }

    /// Whether all of `piece`, which begins at `at`, was valid UTF-8.
    pub(super) fn is_clean(&self, at: usize, piece: &str) -> bool {
        let next = self.replaced.partition_point(|replaced| *replaced < at);
        self.replaced.get(next).is_none_or(|replaced| *replaced >= at + piece.len())
    }

    /// Splits the text into records: the items of JSON lists, or the lines that are not blank, or
    /// values over several lines.
    pub(super) fn pieces(&self) -> Pieces<'_> {
        let text = self.text.as_str();
        let mut pieces = Pieces::default();
        if is_of_lines(text) {
            let lines = lines(text);
            let alone = lines.len() == 1;
            for (at, line) in lines {
                match line.starts_with('[') {
                    true => pieces.add_list((at, line), split::list(line, 0).0, alone),
                    false => pieces.records.push((at, line)),
                }
            }
            return pieces;
        }
        let mut at = skip_blanks(text, 0);
        while text[at..].starts_with('[') {
            let (items, end) = split::list(text, at);
            let items = items.into_iter().map(|(of, item)| (of - at, item)).collect();
            pieces.add_list((at, &text[at..end]), items, true);
            at = skip_blanks(text, end);
        }
        pieces.records.extend(split::sequence(text, at));
        pieces
    }
}

/// The records of a data file.
#[derive(Debug, Default)]
pub(super) struct Pieces<'t> {
    /// Each with its place.
    pub(super) records: Values<'t>,
    /// Whether they are items of a list: a line may then have several.
    pub(super) in_list: bool,
}

impl<'t> Pieces<'t> {
    /// Adds the records of a list, each with its place: the items, or the list itself if it is a
    /// conversation. A list that is `alone` always has records as its items.
    fn add_list(&mut self, (at, list): (usize, &'t str), items: Values<'t>, alone: bool) {
        let first = items.first().map_or("", |(_, item)| item);
        let holds_records = alone || first.starts_with('[') || is_record(first);
        let is_conversation = is_turn(first) && !items.iter().any(|(_, item)| is_record(item));
        if is_conversation || !holds_records {
            return self.records.push((at, list));
        }
        self.records.extend(items.into_iter().map(|(of, item)| (at + of, item)));
        self.in_list = true;
    }
}

/// Whether each line of `text` has its own value, judged by the first lines. In a list with an item
/// per line, no line except perhaps the last is a value like the first line.
fn is_of_lines(text: &str) -> bool {
    const MOST_READ: usize = 100;
    let (mut values, mut others) = (0_usize, 0_usize);
    let mut opener = None;
    let lines = text.split('\n').map(|line| line.trim_start_matches('\u{feff}'));
    let lines = lines.filter(|line| !line.starts_with([' ', '\t']) && !line.trim().is_empty());
    for line in lines.take(MOST_READ) {
        let is_bracket = line.starts_with(['{', '[', '}', ']']);
        if is_bracket {
            opener = opener.or(line.chars().next());
        }
        match serde_json::from_str::<&RawValue>(line) {
            Ok(_) if !is_bracket || opener.is_some_and(|opener| line.starts_with(opener)) => {
                values += 1;
            }
            Err(_) if !is_bracket => {}
            _ => others += 1,
        }
    }
    values > others
}

/// The lines that are not blank, each with its place.
fn lines(text: &str) -> Values<'_> {
    let mut at = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        let begins = line.len() - line.trim_start_matches(is_blank).len();
        let value = line[begins..].trim_end();
        if !value.is_empty() {
            lines.push((at + begins, value));
        }
        at += line.len();
    }
    lines
}

/// The closing quote of the string that begins at `at`, or the last byte.
pub(super) fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end.min(bytes.len() - 1)
}

/// Replaces extensions that Python and JavaScript write and JSON does not have: half of a surrogate
/// pair becomes U+FFFD, `NaN` and `Infinity` become `null`. `None` if `json` has none of them.
pub(super) fn repaired(json: &str) -> Option<String> {
    let mut repaired = String::with_capacity(json.len());
    let (mut rest, mut changed) = (json, false);
    while let Some(at) = rest.find(['"', 'N', 'I']) {
        repaired.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('"') {
            let end = end_of_string(rest.as_bytes(), 0) + 1;
            let string = whole_surrogates(&rest[..end]);
            changed |= matches!(string, Cow::Owned(_));
            repaired.push_str(&string);
            rest = &rest[end..];
        } else if let Some(behind) = ["NaN", "Infinity"].iter().find_map(|it| rest.strip_prefix(it))
        {
            if repaired.ends_with('-') {
                repaired.pop();
            }
            repaired.push_str("null");
            (rest, changed) = (behind, true);
        } else {
            repaired.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    repaired.push_str(rest);
    changed.then_some(repaired)
}

/// Replaces each unpaired half of a surrogate pair in the JSON `string` with U+FFFD.
fn whole_surrogates(string: &str) -> Cow<'_, str> {
    let mut whole = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(found) = string[at..].find('\\') {
        at += found;
        let unit = |at: usize| {
            let digits = string.get(at..)?.strip_prefix("\\u")?.get(..4)?;
            u32::from_str_radix(digits, 16).ok()
        };
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                whole.push_str(&string[kept..at]);
                whole.push_str("\\ufffd");
                kept = at + 6;
                6
            }
            _ => 1 + string[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    if kept == 0 {
        return string.into();
    }
    whole.push_str(&string[kept..]);
    whole.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces_of(text: &str) -> Vec<String> {
        let text = Text::of(text.into());
        text.pieces().records.into_iter().map(|(_, piece)| piece.trim().to_owned()).collect()
    }

    #[test]
    fn records_are_found_in_each_form_of_file() {
        let two = vec![r#"{"prompt":"],"}"#.to_owned(), r#"{"turns":["\"",{}]}"#.to_owned()];
        let (a, b) = (&two[0], &two[1]);
        for text in [
            format!("{a}\n{b}\n"),
            format!("\u{feff}{a}\r\n\r\n  \n{b}"),
            format!("{a}\r{b}"),
            format!("[{a},{b}]"),
            format!(" [ {a} , {b} , ] \n"),
            format!("[{a},\n{b}"),
            format!("[\n{a}\n{b}\n]"),
            format!("[{a}]\n[{b}]\n"),
            format!("[\n{a}\n]\n[\n{b}\n]\n"),
            format!("{a},\n{b},\n"),
            format!("{a}\n\u{feff}{b}\n"),
        ] {
            assert_eq!(pieces_of(&text), two, "{text:?}");
        }
        assert_eq!(pieces_of("{\n\"a\":\n1}\n{ }\n"), ["{\n\"a\":\n1}", "{ }"]);
        assert_eq!(pieces_of("[1]\n[2]\n"), ["[1]", "[2]"]);
        assert_eq!(pieces_of("[]"), [""; 0]);
        assert_eq!(pieces_of("# a comment\n{}\n"), ["# a comment", "{}"]);
    }

    #[test]
    fn any_text_is_cut_into_pieces_without_a_panic() {
        for text in ["[", "[\"", "[\"\\", "[,]", "[}", "[}}]", "[\"é", "[é,é]", "\u{feff}"] {
            let _ = pieces_of(text);
        }
    }

    #[test]
    fn what_other_languages_write_is_repaired() {
        for (written, expected) in [
            (r#"{"a":NaN,"b":[-Infinity,Infinity]}"#, r#"{"a":null,"b":[null,null]}"#),
            (r#""hi \ud83d there""#, r#""hi \ufffd there""#),
            (r#""\ude00\ud83d\ude00\ud83d""#, r#""\ufffd\ud83d\ude00\ufffd""#),
            (r#""\ud83d\\ude00""#, r#""\ufffd\\ude00""#),
            (r#""\ud83d\u0041""#, r#""\ufffd\u0041""#),
        ] {
            assert_eq!(repaired(written).as_deref(), Some(expected), "{written}");
        }
        for well in [r#""NaN \\ud83d \ud83d\ude00 é""#, r#"{"I":"N"}"#, "Nah", "\"\\"] {
            assert_eq!(repaired(well), None, "{well}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_known_by_their_record() {
        let text = Text::of(b"{\"p\":\"a\"}\n{\"p\":\"caf\xe9\"}\n{\"p\":\"b\"}\n".to_vec());
        let clean = text.pieces().records.into_iter().map(|(at, piece)| text.is_clean(at, piece));
        assert_eq!(clean.collect::<Vec<_>>(), [true, false, true]);
    }
}
