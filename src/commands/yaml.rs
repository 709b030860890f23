//! Writes YAML for generated configs.

use llm_stream_core::text::visible_yaml;
use serde_json::Value;

/// Quotes `text` on one line. JSON's escapes are YAML's; characters that JSON allows and YAML
/// forbids or reads as a line end, and unprintable ones, are escaped too.
pub(super) fn quoted(text: &str) -> String {
    visible_yaml(&Value::from(text).to_string()).into_owned()
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
        let names = [
            "m",
            "##[error]::x",
            "\u{e0041}\u{202e}\u{9b}",
            "a: b # c",
            "\"",
            "\\",
            "no",
            "1e3",
            "\u{85}\u{2028}x",
            "中 🙂",
            "\t\n",
            "~",
        ];
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
