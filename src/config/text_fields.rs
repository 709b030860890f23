//! `text_fields` and `ignore_fields`: fields of an answer that the protocol does not define.

use llm_stream_core::protocol::{TextFields, TokenKind};

use super::{
    reader::{Entry, Fields, Reader},
    words::{self, TOKEN_KINDS},
    yaml::Yaml,
};

/// The keys.
pub(super) const KEYS: [&str; 2] = ["text_fields", "ignore_fields"];

const EXAMPLE: &str = "[thoughts, { summary: reasoning }]";

/// Reads both keys; `None` if neither is written.
pub(super) fn text_fields(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<TextFields> {
    let [text, ignored] = KEYS.map(|key| fields.get(key));
    text.or(ignored)?;
    let text = text.map_or_else(Vec::new, |entry| {
        let items = reader.list(entry, "a list of field names", EXAMPLE);
        items.iter().filter_map(|item| text_field(reader, item)).collect()
    });
    let names = ignored.map_or_else(Vec::new, |entry| reader.texts(entry));
    let known = TextFields { text, ignored: names.iter().map(|name| name.value.clone()).collect() };
    if let Some(entry) = ignored
        && let Some((name, _)) = known.text.iter().find(|(name, _)| known.ignored.contains(name))
    {
        let what = format!("`{name}` is in both `text_fields` and `ignore_fields`");
        reader.error(entry, what, "remove one of them");
    }
    Some(known)
}

/// A name, whose text belongs to the answer, or a map from a name to `answer` or `reasoning`.
fn text_field(reader: &mut Reader<'_>, item: &Entry<'_>) -> Option<(String, TokenKind)> {
    let Yaml::Map(_) = &item.value.value else {
        return reader.text(item).map(|name| (name.value, TokenKind::Answer));
    };
    let pairs = reader.text_keyed(item);
    let [(name, kind)] = pairs.as_slice() else {
        reader.wrong(
            item,
            "a field name, or one field name with its kind",
            "{ summary: reasoning }",
        );
        return None;
    };
    let word = reader.text_like(kind, "reasoning")?.value;
    let Some(value) = words::value_of(&word, &TOKEN_KINDS) else {
        let what = format!("unknown kind of text `{word}`: expected answer or reasoning");
        reader.error(kind, what, "for example `{ summary: reasoning }`");
        return None;
    };
    Some(((*name).to_owned(), value))
}
