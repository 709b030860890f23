//! JSON as servers write it: a tree that borrows from the event, read without a schema.
//!
//! A typed struct refuses a whole event for one field of the wrong type, twice given, or out of
//! JSON's grammar, even where no figure depends on that field. So an event is read into a tree
//! first, and each protocol takes from it what it knows.
//!
//! Strict JSON, which is nearly every event, is read by serde_json in one pass. Only an event that
//! fails is rewritten by [`repaired`] and read again: `NaN`, lone surrogates, control characters
//! and invalid UTF-8 are common in what servers put into log probabilities and texts.

use std::{borrow::Cow, fmt, fmt::Write as _};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};

/// How deep a tree is read. What lies deeper is not text of an answer, and is skipped.
const DEPTH: u8 = 24;

/// Large fields that hold nothing that is read.
const SKIPPED: &[&str] = &["logprobs", "prompt_logprobs", "prompt_token_ids", "token_ids"];

/// A JSON document, its strings borrowed where they have no escapes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    /// The fields in their order. A key given twice is there twice: the last one counts.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

static ABSENT: Json<'static> = Json::Null;

impl<'a> Json<'a> {
    /// Reads `data`, leniently: see the head of this module.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, serde_json::Error> {
        // Checking the whole text once is faster than checking it string by string.
        let strict = match std::str::from_utf8(data) {
            Ok(text) => read(text),
            Err(_) => read(&String::from_utf8_lossy(data)).map(Json::into_owned),
        };
        strict.or_else(|error| match read(&repaired(data)) {
            Ok(tree) => Ok(tree.into_owned()),
            Err(_) => Err(error),
        })
    }

    /// The value of `key`; null where this is not an object or has no such key.
    pub(super) fn get(&self, key: &str) -> &Json<'a> {
        self.find(key).unwrap_or(&ABSENT)
    }

    /// The value of the first of `keys` that is there and not null.
    pub(super) fn first(&self, keys: &[&str]) -> &Json<'a> {
        let found = keys.iter().map(|key| self.get(key)).find(|value| !value.is_null());
        found.unwrap_or(&ABSENT)
    }

    /// The value of `key`, if there is one, null included.
    pub(super) fn find(&self, key: &str) -> Option<&Json<'a>> {
        self.fields().rev().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The fields of an object; none of anything else.
    pub(super) fn fields(&self) -> impl DoubleEndedIterator<Item = (&str, &Json<'a>)> {
        let fields = if let Json::Object(fields) = self { fields.as_slice() } else { &[] };
        fields.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// The items of a list, or the value itself where a server left the list out. Nulls are
    /// skipped.
    pub(super) fn items(&self) -> impl Iterator<Item = &Json<'a>> {
        let items = if let Json::List(items) = self { items } else { std::slice::from_ref(self) };
        items.iter().filter(|item| !item.is_null())
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    /// Whether it holds nothing: null, an empty text, list or object.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Json::Null => true,
            Json::Bool(_) | Json::Number(_) => false,
            Json::Text(text) => text.is_empty(),
            Json::List(items) => items.is_empty(),
            Json::Object(fields) => fields.is_empty(),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        *self == Json::Bool(true)
    }

    /// A text that is not empty.
    pub(super) fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Json::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }

    /// The same, borrowed from the tree.
    pub(super) fn str(&self) -> Option<&str> {
        match self {
            Json::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A text, or a number or `true`/`false` as it is written: some gateways lose the quotes of a
    /// token that looks like one.
    pub(super) fn scalar(&self) -> Option<Cow<'a, str>> {
        match self {
            Json::Number(number) => Some(number.to_string().into()),
            Json::Bool(value) => Some(value.to_string().into()),
            _ => self.text(),
        }
    }

    /// A number, also where it is written as a text.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Json::Number(number) => number.as_f64(),
            Json::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            _ => None,
        }
    }

    /// A count of something: a whole number, also as `12.0` or `"12"`. `None` where it is not
    /// known: -1 stands for that, and a fraction is not a count.
    pub(super) fn count(&self) -> Option<u64> {
        /// Beyond it, not every whole number is an `f64`.
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        let exact = match self {
            Json::Number(number) => number.as_u64(),
            Json::Text(text) => text.trim().parse().ok(),
            _ => None,
        };
        let is_count = |value: &f64| value.fract() == 0.0 && (0.0..=EXACT).contains(value);
        exact.or_else(|| self.number().filter(is_count).map(|value| value as u64))
    }

    /// The document as text, on one line.
    pub(super) fn written(&self) -> String {
        Value::from(self).to_string()
    }

    fn into_owned(self) -> Json<'static> {
        match self {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(value),
            Json::Number(number) => Json::Number(number),
            Json::Text(text) => Json::Text(text.into_owned().into()),
            Json::List(items) => Json::List(items.into_iter().map(Json::into_owned).collect()),
            Json::Object(fields) => Json::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| (key.into_owned().into(), value.into_owned()))
                    .collect(),
            ),
        }
    }
}

impl From<&Json<'_>> for Value {
    fn from(json: &Json<'_>) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => Value::Number(number.clone()),
            Json::Text(text) => Value::String(text.to_string()),
            Json::List(items) => items.iter().map(Value::from).collect(),
            Json::Object(fields) => Value::Object(
                fields.iter().map(|(key, value)| (key.to_string(), Value::from(value))).collect(),
            ),
        }
    }
}

// -- strict ---------------------------------------------------------------------------------------

fn read(text: &str) -> Result<Json<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let tree = Tree { depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(tree)
}

/// Reads a tree, `depth` levels below the document's root.
#[derive(Clone, Copy)]
struct Tree {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        match self.depth < DEPTH {
            true => deserializer.deserialize_any(self),
            false => IgnoredAny::deserialize(deserializer).map(|_| Json::Null),
        }
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json<'de>, A::Error> {
        let below = Tree { depth: self.depth + 1 };
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Json<'de>, A::Error> {
        let below = Tree { depth: self.depth + 1 };
        let mut object = Vec::with_capacity(8);
        while let Some(Key(key)) = fields.next_key()? {
            if SKIPPED.contains(&key.as_ref()) {
                fields.next_value::<IgnoredAny>()?;
            } else {
                object.push((key, fields.next_value_seed(below)?));
            }
        }
        Ok(Json::Object(object))
    }
}

/// A key that borrows where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(text.to_owned())))
    }
}

// -- repaired -------------------------------------------------------------------------------------

/// `data` with what JSON does not know replaced by what it does:
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
/// What is still wrong then, such as a missing bracket, stays wrong.
fn repaired(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = &*text;
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

/// Copies the string at the beginning of `text`; what follows it.
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

/// Copies an escape, whose backslash is already read; what follows it.
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

/// Copies the four digits of `\u`, with those of the other half where there is one.
fn unicode<'t>(text: &'t str, out: &mut String) -> &'t str {
    let Some(unit) = hex(text) else {
        out.push(char::REPLACEMENT_CHARACTER);
        return text;
    };
    let after = &text[4..];
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

/// The number that the first four hexadecimal digits of `text` write.
fn hex(text: &str) -> Option<u32> {
    let digits = text.get(..4)?;
    let are_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    are_digits.then(|| u32::from_str_radix(digits, 16).ok())?
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')
}

/// Copies a number or a word; what follows it.
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
        Json::parse(text.as_bytes())
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
        let tree = Json::parse(data).expect("JSON");
        let Some(Cow::Borrowed(text)) = tree.get("a").text() else { panic!("{tree:?}") };
        assert!(data.as_ptr_range().contains(&text.as_ptr()));
    }

    #[test]
    fn what_json_does_not_know_is_replaced() {
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
        let invalid = Json::parse(b"[\"a\xff\xed\xa0\x80\"]").expect("JSON").written();
        assert_eq!(invalid.replace('\u{fffd}', ""), "[\"a\"]");
    }

    #[test]
    fn what_is_cut_or_not_json_stays_wrong() {
        for text in
            ["", "ping", "{", r#"{"a":"#, r#"{"a":"b"#, r#"{"a":1}}"#, "[1 2]", r#"{"a" 1}"#]
        {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let tree = Json::parse(br#"{"a":1,"a":2}"#).expect("JSON");
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
            assert_eq!(Json::parse(written.as_bytes()).expect("JSON").count(), count, "{written}");
        }
    }

    #[test]
    fn a_deep_document_is_read_as_far_as_it_matters() {
        let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(Json::parse(deep.as_bytes()).expect("JSON").get("b").count(), Some(1));
        let skipped = Json::parse(br#"{"logprobs":{"content":[1]},"b":1}"#).expect("JSON");
        assert!(skipped.find("logprobs").is_none());
    }
}
