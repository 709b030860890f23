//! Writes YAML for generated configs.

use serde_json::Value;

/// Quotes `text` on one line. JSON's escapes are YAML's; characters that JSON allows and YAML
/// forbids or reads as a line end are escaped too.
pub(super) fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let is_unsafe =
        |ch: char| ch.is_control() || matches!(ch, '\u{2028}' | '\u{2029}' | '\u{feff}');
    json.chars().fold(String::new(), |mut yaml, ch| {
        match is_unsafe(ch) {
            true => yaml.push_str(&format!("\\u{:04x}", u32::from(ch))),
            false => yaml.push(ch),
        }
        yaml
    })
}

/// Formats `name` as a key: plain if every YAML reader takes it as text.
pub(super) fn key(name: &str) -> String {
    let is_plain = |ch: char| ch.is_ascii_alphanumeric() || "-_.".contains(ch);
    let begins_plain = name.starts_with(|ch: char| ch.is_ascii_alphabetic());
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(name));
    match begins_plain && !is_word && name.chars().all(is_plain) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn texts_are_read_as_they_were_written() {
        let names =
            ["m", "a: b # c", "\"", "\\", "no", "1e3", "\u{85}\u{2028}x", "中 🙂", "\t\n", "~"];
        for name in names {
            let yaml = format!(
                "models: {{ {}: {{ simulate: {{}}, model_name: {} }} }}",
                key(&format!("k{name}")),
                quoted(&format!("v{name}"))
            );
            let config = Config::parse(&yaml, "configs.yaml", Path::new("")).expect(&yaml);
            assert_eq!(config.models[0].key.value, format!("k{name}"));
            let read = config.models[0].settings.model_name.clone();
            assert_eq!(read, Some(format!("v{name}")), "{yaml}");
        }
        assert_eq!(key("Qwen3-8B"), "Qwen3-8B");
        assert_eq!((key("no"), key("8b")), ("\"no\"".to_owned(), "\"8b\"".to_owned()));
    }
}
