//! Numbers of the config that must reach a server as the user wrote them: `1.10`, `1e5`, integers
//! of thirty digits. A `serde_json::Value` reduces numbers to 64 bits and forgets the notation.
//!
//! Such a number is a string in the [`Value`] with a prefix that no other text has. [`to_string`]
//! writes it without the prefix and the quotes. Numbers that `serde_json` writes unchanged stay
//! numbers.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::Error as _,
};
use serde_json::{Number, Value, value::RawValue};

/// The prefix of a number that is stored as text.
const MARK: &str = "\u{0}\u{f8ff}number\u{0}";

/// Returns the value of `text`, which is a JSON number.
pub fn number(text: &str) -> Value {
    match serde_json::from_str::<Number>(text) {
        Ok(number) if number.to_string() == text => Value::Number(number),
        _ => Value::String(format!("{MARK}{text}")),
    }
}

/// Parses JSON with numbers as they are written; `None` if `text` is not JSON.
pub fn parse(text: &str) -> Option<Value> {
    // Each level copies its text once more, so deep nesting is refused, as serde_json refuses it.
    parse_to(text, 127)
}

fn parse_to(text: &str, depth: usize) -> Option<Value> {
    let text = text.trim();
    match text.as_bytes().first()? {
        b'{' => {
            let fields: RawFields = serde_json::from_str(text).ok()?;
            let inner = depth.checked_sub(1)?;
            let fields =
                fields.0.into_iter().map(|(key, raw)| Some((key, parse_to(raw.get(), inner)?)));
            fields.collect::<Option<_>>().map(Value::Object)
        }
        b'[' => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(text).ok()?;
            let inner = depth.checked_sub(1)?;
            items
                .iter()
                .map(|raw| parse_to(raw.get(), inner))
                .collect::<Option<_>>()
                .map(Value::Array)
        }
        b'-' | b'0'..=b'9' => serde_json::from_str::<Number>(text).ok().map(|_| number(text)),
        _ => serde_json::from_str(text).ok(),
    }
}

/// The fields of an object in their order.
struct RawFields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for RawFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = RawFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<RawFields, M::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(RawFields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Formats `value` as JSON, with numbers as they were written.
pub fn to_string(value: &Value) -> String {
    serde_json::to_string(&Exact(value)).unwrap_or_else(|_| value.to_string())
}

/// Returns the whole number that `value` is, in any notation: `1000`, `1000.0` or `1e3`.
pub fn whole(value: &Value) -> Option<u64> {
    /// Above this, not every whole number is an `f64`.
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    let float = match value {
        Value::Number(number) => match number.as_u64() {
            Some(whole) => return Some(whole),
            None => number.as_f64()?,
        },
        Value::String(text) => text.strip_prefix(MARK)?.parse().ok()?,
        _ => return None,
    };
    (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64)
}

/// Serializes a value with its numbers as they were written.
struct Exact<'a>(&'a Value);

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) => match text.strip_prefix(MARK) {
                Some(number) => {
                    let raw = RawValue::from_string(number.to_owned()).map_err(S::Error::custom)?;
                    raw.serialize(serializer)
                }
                None => serializer.serialize_str(text),
            },
            Value::Array(items) => serializer.collect_seq(items.iter().map(Exact)),
            Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(key, value)| (key, Exact(value))))
            }
            plain => plain.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_written_as_they_were() {
        let written = "123456789012345678901234567890 -0 -0.0 1.10 1e5 1E+05 1e400 5e-324 1e-400 \
                       0.1 7 -7 18446744073709551616 3.141592653589793238462643383279";
        for text in written.split(' ') {
            assert_eq!(to_string(&json!({"a": [number(text)]})), format!("{{\"a\":[{text}]}}"));
        }
        assert!(number("7").is_u64() && number("0.1").is_f64());
    }

    #[test]
    fn parsed_numbers_and_fields_are_written_as_they_were() {
        let text =
            r#"{"z":1.10,"a":[1e5,-0,{"seed":18446744073709551616}],"text":"1.10","b":null}"#;
        assert_eq!(to_string(&parse(text).unwrap()), text);
        assert_eq!(parse(r#"{"a": 1"#), None);
        assert_eq!(parse(&"[".repeat(100_000)), None);
    }

    #[test]
    fn all_else_is_written_as_serde_writes_it() {
        let value = json!({"a": [null, true, "x\"\n\u{0}", 1.5, {"b": {}}], "c": "number"});
        assert_eq!(to_string(&value), value.to_string());
        // Text after the prefix that is not a number is serialized as text.
        let text = Value::String(format!("{MARK}1, \"x\": 2"));
        assert_eq!(to_string(&text), text.to_string());
    }

    #[test]
    fn whole_numbers_are_read_however_they_are_written() {
        let whole_of = |text| whole(&number(text));
        assert_eq!(whole_of("1000"), Some(1000));
        assert_eq!(whole_of("1000.0"), Some(1000));
        assert_eq!(whole_of("1e3"), Some(1000));
        assert_eq!(whole_of("18446744073709551615"), Some(u64::MAX));
        assert_eq!(whole_of("1.5"), None);
        assert_eq!(whole_of("-1"), None);
        assert_eq!(whole_of("123456789012345678901234567890"), None);
        assert_eq!(whole(&json!("1000")), None);
    }
}
