//! Numbers of the config that must reach a server as the user wrote them: `1.10`, `1e5`, integers
//! of thirty digits. A `serde_json::Value` reduces numbers to 64 bits and forgets the notation.
//!
//! Such a number is a string in the [`Value`] with a prefix that no other text has. [`to_string`]
//! writes it without the prefix and the quotes. Numbers that `serde_json` writes unchanged stay
//! numbers.

use serde::{Serialize, Serializer, ser::Error as _};
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
