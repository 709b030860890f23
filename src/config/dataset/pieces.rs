//! A data file's bytes → the text of each record. Pure, and lenient: a record that is broken must
//! not take the others with it.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// The text of a data file. What is not UTF-8 in it is U+FFFD.
#[derive(Debug)]
pub(in crate::config) struct Text {
    pub(in crate::config) text: String,
    /// Where U+FFFD stands for bytes that are not UTF-8, in order.
    replaced: Vec<usize>,
}

impl Text {
    /// The text that `bytes` are, without a byte order mark.
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

    /// Whether all of `piece`, which begins at `at`, was UTF-8.
    pub(super) fn is_clean(&self, at: usize, piece: &str) -> bool {
        let next = self.replaced.partition_point(|replaced| *replaced < at);
        self.replaced.get(next).is_none_or(|replaced| *replaced >= at + piece.len())
    }

    /// The records, each with its place: the items of one JSON list, or the lines that are not
    /// blank, or values that go over several lines.
    pub(super) fn pieces(&self) -> Vec<(usize, &str)> {
        let text = self.text.as_str();
        if let Some(items) = listed(text) {
            return items;
        }
        let lines = lines(text);
        let is_value = |piece: &str| serde_json::from_str::<&RawValue>(piece).is_ok();
        match lines.first() {
            Some((_, first)) if !is_value(first) => values(text).unwrap_or(lines),
            _ => lines,
        }
    }
}

/// The lines that are not blank, each with its place.
fn lines(text: &str) -> Vec<(usize, &str)> {
    let mut at = 0;
    let mut lines = Vec::new();
    for line in text.split_inclusive('\n') {
        if !line.trim().is_empty() {
            lines.push((at, line));
        }
        at += line.len();
    }
    lines
}

/// The values of a text that is nothing but JSON values, one after the other.
fn values(text: &str) -> Option<Vec<(usize, &str)>> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let place = |item: &str| item.as_ptr().addr() - text.as_ptr().addr();
    values.map(|value| value.ok().map(|value| (place(value.get()), value.get()))).collect()
}

/// The items of the one list that `text` is. A comma after the last item is not an item, and a list
/// without an end has its last item up to the end of the text.
fn listed(text: &str) -> Option<Vec<(usize, &str)>> {
    let bytes = text.as_bytes();
    let mut at = skip_blanks(bytes, 0);
    if bytes.get(at) != Some(&b'[') {
        return None;
    }
    at = skip_blanks(bytes, at + 1);
    let mut items = Vec::new();
    while at < bytes.len() && bytes[at] != b']' {
        let end = end_of_value(bytes, at);
        items.push((at, text[at..end].trim_end()));
        at = skip_blanks(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = skip_blanks(bytes, at + 1);
        }
    }
    // Lists one after the other are records, each a list.
    let is_one = skip_blanks(bytes, (at + 1).min(bytes.len())) == bytes.len();
    is_one.then_some(items)
}

fn skip_blanks(bytes: &[u8], at: usize) -> usize {
    let rest = bytes[at..].iter().position(|byte| !byte.is_ascii_whitespace());
    rest.map_or(bytes.len(), |blanks| at + blanks)
}

/// Where the value that begins at `at` ends: before the comma or the bracket behind it.
fn end_of_value(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut end) = (0_usize, at);
    while end < bytes.len() {
        match bytes[end] {
            b'"' => end = end_of_string(bytes, end),
            b'[' | b'{' => depth += 1,
            b']' | b'}' | b',' if depth == 0 => return end.max(at + 1),
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        end += 1;
    }
    bytes.len()
}

/// The closing quote of the string that begins at `at`, or the last byte.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end.min(bytes.len() - 1)
}

/// `json` with what Python and JavaScript write and JSON has not: half of a surrogate pair becomes
/// U+FFFD, `NaN` and `Infinity` become `null`. `None` where there is nothing of that.
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

/// `string`, of JSON, in which each half of a surrogate pair without its other half is U+FFFD.
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
        text.pieces().into_iter().map(|(_, piece)| piece.trim().to_owned()).collect()
    }

    #[test]
    fn records_are_found_in_each_form_of_file() {
        let two = vec![r#"{"a":"],"}"#.to_owned(), r#"{"b":["\"",{}]}"#.to_owned()];
        let (a, b) = (&two[0], &two[1]);
        for text in [
            format!("{a}\n{b}\n"),
            format!("\u{feff}{a}\r\n\r\n  \n{b}"),
            format!("{a}\r{b}"),
            format!("[{a},{b}]"),
            format!(" [ {a} , {b} , ] \n"),
            format!("[{a},\n{b}"),
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
        let clean = text.pieces().into_iter().map(|(at, piece)| text.is_clean(at, piece));
        assert_eq!(clean.collect::<Vec<_>>(), [true, false, true]);
    }
}
