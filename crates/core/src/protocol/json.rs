//! Lenient JSON: a tree that borrows from the event and has no schema.
//!
//! A typed struct rejects a whole event for one field that has the wrong type, occurs twice or
//! breaks the grammar, even if no figure depends on it. So an event is parsed into a tree, and each
//! protocol takes the fields that it knows.
//!
//! serde_json parses strict JSON, which is nearly every event, in one pass. Only an event that
//! fails is [`repaired`] and parsed again: servers put `NaN`, lone surrogates, control characters
//! and invalid UTF-8 into log probabilities and texts.

use std::{borrow::Cow, fmt, fmt::Write as _};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};

/// The largest depth. Deeper values are not text of an answer and are skipped.
const DEPTH: u8 = 24;

/// Large fields that are never read.
const SKIPPED: &[&str] = &["logprobs", "prompt_logprobs", "prompt_token_ids", "token_ids"];

/// A JSON document. Strings without escapes are borrowed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum JsonTree<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<JsonTree<'a>>),
    /// The fields in order. A key that occurs twice is kept twice; the last one applies.
    Object(Vec<(Cow<'a, str>, JsonTree<'a>)>),
}

static ABSENT: JsonTree<'static> = JsonTree::Null;

impl<'a> JsonTree<'a> {
    /// Parses `data` leniently: see the head of this module.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        // One check of the whole text is faster than a check for each string.
        let strict = match std::str::from_utf8(data) {
            Ok(text) => read(text),
            Err(_) => read(&String::from_utf8_lossy(data)).map(JsonTree::into_owned),
        };
        strict.or_else(|error| match read(&repaired(data)) {
            Ok(tree) => Ok(tree.into_owned()),
            Err(_) => Err(error),
        })
    }

    /// Returns the value of `key`; null without such a key.
    pub(super) fn get(&self, key: &str) -> &JsonTree<'a> {
        self.find(key).unwrap_or(&ABSENT)
    }

    /// Returns the first value of `keys` that exists and is not null.
    pub(super) fn first(&self, keys: &[&str]) -> &JsonTree<'a> {
        let found = keys.iter().map(|key| self.get(key)).find(|value| !value.is_null());
        found.unwrap_or(&ABSENT)
    }

    /// Returns the value of `key`, which can be null.
    pub(super) fn find(&self, key: &str) -> Option<&JsonTree<'a>> {
        self.fields().rev().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Returns the fields of an object.
    pub(super) fn fields(&self) -> impl DoubleEndedIterator<Item = (&str, &JsonTree<'a>)> {
        let fields = if let JsonTree::Object(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// Returns the items of a list, or the value itself, because some servers omit the list. Nulls
    /// are skipped.
    pub(super) fn items(&self) -> impl Iterator<Item = &JsonTree<'a>> {
        let items =
            if let JsonTree::List(items) = self { items } else { std::slice::from_ref(self) };
        items.iter().filter(|item| !item.is_null())
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, JsonTree::Null)
    }

    /// Returns whether it is null or an empty text, list or object.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            JsonTree::Null => true,
            JsonTree::Bool(_) | JsonTree::Number(_) => false,
            JsonTree::Text(text) => text.is_empty(),
            JsonTree::List(items) => items.is_empty(),
            JsonTree::Object(fields) => fields.is_empty(),
        }
    }

    pub(super) fn is_empty_text(&self) -> bool {
        matches!(self, JsonTree::Text(text) if text.is_empty())
    }

    pub(super) fn is_true(&self) -> bool {
        *self == JsonTree::Bool(true)
    }

    /// Returns the text, if it is not empty.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            JsonTree::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    /// Returns the text, borrowed from the tree, if it is not empty.
    pub(super) fn str(&self) -> Option<&str> {
        match self {
            JsonTree::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Returns a text, a number or a boolean as text. Some gateways drop the quotes of a token that
    /// looks like a number.
    pub(super) fn scalar(&self) -> Option<Cow<'a, str>> {
        match self {
            JsonTree::Number(number) => Some(number.to_string().into()),
            JsonTree::Bool(value) => Some(value.to_string().into()),
            _ => self.text(),
        }
    }

    /// Returns a number, which can be written as text.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            JsonTree::Number(number) => number.as_f64(),
            JsonTree::Text(text) => {
                text.trim().parse().ok().filter(|number: &f64| number.is_finite())
            }
            _ => None,
        }
    }

    /// Returns a count: a whole number, which can be written as `12.0` or `"12"`. `None` if it is
    /// unknown: -1 means that, and a fraction is not a count.
    pub(super) fn count(&self) -> Option<u64> {
        /// Above this, not every whole number is an `f64`.
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        let exact = match self {
            JsonTree::Number(number) => number.as_u64(),
            JsonTree::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let is_count = |value: &f64| value.fract() == 0.0 && (0.0..=EXACT).contains(value);
        exact.or_else(|| self.number().filter(is_count).map(|value| value as u64))
    }

    /// Formats the document on one line.
    pub(super) fn written(&self) -> String {
        Value::from(self).to_string()
    }

    fn into_owned(self) -> JsonTree<'static> {
        match self {
            JsonTree::Null => JsonTree::Null,
            JsonTree::Bool(value) => JsonTree::Bool(value),
            JsonTree::Number(number) => JsonTree::Number(number),
            JsonTree::Text(text) => JsonTree::Text(text.into_owned().into()),
            JsonTree::List(items) => {
                JsonTree::List(items.into_iter().map(JsonTree::into_owned).collect())
            }
            JsonTree::Object(fields) => JsonTree::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key.into_owned().into(), value.into_owned()))
                    .collect(),
            ),
        }
    }
}

impl From<&JsonTree<'_>> for Value {
    fn from(json: &JsonTree<'_>) -> Self {
        match json {
            JsonTree::Null => Value::Null,
            JsonTree::Bool(value) => Value::Bool(*value),
            JsonTree::Number(number) => Value::Number(number.clone()),
            JsonTree::Text(text) => Value::String(text.to_string()),
            JsonTree::List(items) => items.iter().map(Value::from).collect(),
            JsonTree::Object(fields) => Value::Object(
                fields.iter().map(|(key, value)| (key.to_string(), Value::from(value))).collect(),
            ),
        }
    }
}

// -- strict ---------------------------------------------------------------------------------------

fn read(text: &str) -> Result<JsonTree<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let tree = TreeSeed { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(tree)
}

/// Parses a tree, `depth` levels below the root.
#[derive(Clone, Copy)]
struct TreeSeed {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for TreeSeed {
    type Value = JsonTree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonTree<'de>, D::Error> {
        match self.depth < DEPTH {
            true => deserializer.deserialize_any(self),
            false => IgnoredAny::deserialize(deserializer).map(|_| JsonTree::Null),
        }
    }
}

impl<'de> Visitor<'de> for TreeSeed {
    type Value = JsonTree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonTree<'de>, E> {
        Ok(Number::from_f64(value).map_or(JsonTree::Null, JsonTree::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonTree<'de>, E> {
        Ok(JsonTree::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<JsonTree<'de>, A::Error> {
        let below = TreeSeed { depth: self.depth + 1 };
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(JsonTree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<JsonTree<'de>, A::Error> {
        let below = TreeSeed { depth: self.depth + 1 };
        let mut object = Vec::with_capacity(8);
        while let Some(JsonKey(key)) = fields.next_key()? {
            if SKIPPED.contains(&key.as_ref()) {
                fields.next_value::<IgnoredAny>()?;
            } else {
                object.push((key, fields.next_value_seed(below)?));
            }
        }
        Ok(JsonTree::Object(object))
    }
}

/// A key, borrowed if it has no escapes.
struct JsonKey<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for JsonKey<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = JsonKey<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<JsonKey<'de>, E> {
        Ok(JsonKey(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<JsonKey<'de>, E> {
        Ok(JsonKey(Cow::Owned(text.to_owned())))
    }
}

// -- repaired -------------------------------------------------------------------------------------

/// Returns `data` with values outside JSON replaced by values of JSON:
///
/// | written | read as |
/// |---|---|
/// | bytes that are not UTF-8 | U+FFFD |
/// | `\ud83d` without its other half, `\u12` | U+FFFD |
/// | a control character within a string | its escape |
/// | `\x`, `\'` and other unknown escapes | the character |
/// | `NaN`, `Infinity`, `None`, `undefined`, numbers beyond `f64` | `null` |
/// | `True`, `False` | `true`, `false` |
/// | `.5`, `1.`, `+1`, `007` | the number |
///
/// Other defects remain, such as a missing bracket.
fn repaired(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = &*text;
    // Outside strings only words can be invalid. Brackets, commas and colons are copied: a wrong
    // structure cannot be repaired without guessing.
    while let Some(next) = rest.chars().next() {
        rest = match next {
            '"' => string(rest, &mut out),
            c if is_of_word(c) => word(rest, &mut out),
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    out
}

/// Copies the string at the beginning of `text` and returns the rest.
fn string<'t>(text: &'t str, out: &mut String) -> &'t str {
    out.push('"');
    let mut rest = &text[1..];
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        rest = match c {
            '"' => {
                out.push('"');
                return after;
            }
            '\\' => escape(after, out),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
                after
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    rest
}

/// Copies an escape after its backslash and returns the rest.
fn escape<'t>(text: &'t str, out: &mut String) -> &'t str {
    let Some(c) = text.chars().next() else { return text };
    let after = &text[c.len_utf8()..];
    match c {
        '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => {
            out.push('\\');
            out.push(c);
            after
        }
        'u' => unicode(after, out),
        c => {
            out.push(c);
            after
        }
    }
}

/// Copies the digits of `\u` with those of a second surrogate, and returns the rest.
fn unicode<'t>(text: &'t str, out: &mut String) -> &'t str {
    let Some(unit) = hex(text) else {
        out.push(char::REPLACEMENT_CHARACTER);
        return text;
    };
    let after = &text[4..];
    // Characters outside the basic plane are written as two surrogates, and each is meaningless
    // alone.
    let low = after.strip_prefix("\\u").and_then(hex).filter(|low| (0xDC00..0xE000).contains(low));
    match (unit, low) {
        (0xD800..0xDC00, Some(low)) => {
            let _ = write!(out, "\\u{unit:04x}\\u{low:04x}");
            &after[6..]
        }
        (0xD800..0xE000, _) => {
            out.push(char::REPLACEMENT_CHARACTER);
            after
        }
        _ => {
            let _ = write!(out, "\\u{unit:04x}");
            after
        }
    }
}

/// Parses the first four hexadecimal digits of `text`.
fn hex(text: &str) -> Option<u32> {
    let digits = text.get(..4)?;
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then(|| u32::from_str_radix(digits, 16).ok())?
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')
}

/// Copies a number or a word and returns the rest.
fn word<'t>(text: &'t str, out: &mut String) -> &'t str {
    let end = text.find(|c| !is_of_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    out.push_str(&value_of(word));
    rest
}

fn value_of(word: &str) -> Cow<'_, str> {
    let unsigned = word.trim_start_matches(['+', '-']).to_ascii_lowercase();
    match unsigned.as_str() {
        "nan" | "inf" | "infinity" | "none" | "undefined" => return "null".into(),
        "true" => return "true".into(),
        "false" => return "false".into(),
        _ => {}
    }
    let is_number = word.bytes().any(|byte| byte.is_ascii_digit());
    // A number is checked by the same parser that reads the result, so the repair cannot produce a
    // new error.
    match word.parse::<f64>() {
        Ok(_) if serde_json::from_str::<Number>(word).is_ok() => word.into(),
        Ok(number) if is_number => {
            Number::from_f64(number).map_or("null".into(), |n| n.to_string().into())
        }
        _ => word.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        JsonTree::parse(text.as_bytes())
            .map_or_else(|error| format!("! {error}"), |tree| tree.written())
    }

    #[test]
    fn strict_json_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,0.5,"é",null,true],"b":{"c":"\n"}}"#;
        assert_eq!(parsed(text), text);
    }

    #[test]
    fn texts_without_escapes_are_borrowed() {
        let data = br#"{"a":"b"}"#;
        let tree = JsonTree::parse(data).expect("JSON");
        let Some(Cow::Borrowed(text)) = tree.get("a").text() else { panic!("{tree:?}") };
        assert!(data.as_ptr_range().contains(&text.as_ptr()));
    }

    #[test]
    fn values_outside_json_are_replaced() {
        for (written, read) in [
            (
                r#"{"a":NaN,"b":-Infinity,"c":[inf,None,undefined]}"#,
                r#"{"a":null,"b":null,"c":[null,null,null]}"#,
            ),
            (r#"{"a":True,"b":False}"#, r#"{"a":true,"b":false}"#),
            (r#"[.5,+1,007,1e999,-1e999]"#, "[0.5,1.0,7.0,null,null]"),
            (r#"["\ud83d"]"#, "[\"\u{fffd}\"]"),
            (r#"["\ude00x"]"#, "[\"\u{fffd}x\"]"),
            (r#"["\ud83d\ude00"]"#, "[\"😀\"]"),
            (r#"["\ud83d\ud83d\ude00", NaN]"#, "[\"\u{fffd}😀\",null]"),
            (r#"["\ud83dA", "\u12"]"#, "[\"\u{fffd}A\",\"\u{fffd}12\"]"),
            (r#"["it\'s \x41"]"#, r#"["it's x41"]"#),
            ("[\"a\u{1}\tb\"]", "[\"a\\u0001\\tb\"]"),
            (r#"{"NaN":"NaN, True \"None\"","x":NaN}"#, r#"{"NaN":"NaN, True \"None\"","x":null}"#),
        ] {
            assert_eq!(parsed(written), read, "{written}");
        }
        let invalid = JsonTree::parse(b"[\"a\xff\xed\xa0\x80\"]").expect("JSON").written();
        assert_eq!(invalid.replace('\u{fffd}', ""), "[\"a\"]");
    }

    #[test]
    fn truncated_or_foreign_documents_remain_errors() {
        for text in
            ["", "ping", "{", r#"{"a":"#, r#"{"a":"b"#, r#"{"a":1}}"#, "[1 2]", r#"{"a" 1}"#]
        {
            assert!(JsonTree::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let tree = JsonTree::parse(br#"{"a":1,"a":2}"#).expect("JSON");
        assert_eq!(tree.get("a").count(), Some(2));
    }

    #[test]
    fn counts_are_whole_and_known() {
        for (written, count) in [
            ("12", Some(12)),
            ("12.0", Some(12)),
            ("1.2e1", Some(12)),
            ("\"12\"", Some(12)),
            ("\" 12.0 \"", Some(12)),
            ("0", Some(0)),
            ("-1", None),
            ("-1.0", None),
            ("12.5", None),
            ("1e300", None),
            ("\"many\"", None),
            ("true", None),
            ("null", None),
            ("[12]", None),
        ] {
            assert_eq!(
                JsonTree::parse(written.as_bytes()).expect("JSON").count(),
                count,
                "{written}"
            );
        }
    }

    #[test]
    fn a_deep_document_is_read_as_far_as_it_matters() {
        let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(JsonTree::parse(deep.as_bytes()).expect("JSON").get("b").count(), Some(1));
        let skipped = JsonTree::parse(br#"{"logprobs":{"content":[1]},"b":1}"#).expect("JSON");
        assert!(skipped.find("logprobs").is_none());
    }
}
