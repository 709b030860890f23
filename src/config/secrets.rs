//! What of a config must not be shown in a message: keys, passwords, the values of headers.

use std::ops::Range;

use http::HeaderName;

use super::{
    places::{bytes, lines},
    words::{self, MODEL},
    yaml::{Node, Yaml},
};

/// What looks like a secret wherever it stands: `sk-…`, `Bearer …`, `user:password@`.
pub(super) fn in_text(text: &str) -> Vec<Range<usize>> {
    let mut masks = Vec::new();
    let mut previous = "";
    for word in words_of(text) {
        let written = &text[word.clone()];
        if is_key(written) || previous.eq_ignore_ascii_case("bearer") {
            masks.push(word.clone());
        } else if let Some(user) = user_info(written) {
            masks.push(word.start + user.start..word.start + user.end);
        }
        previous = written;
    }
    masks
}

/// What the document says is a secret.
pub(super) fn in_tree(node: &Node, text: &str) -> Vec<Range<usize>> {
    let mut masks = Vec::new();
    let Yaml::Map(entries) = &node.value else {
        visit(node, text, false, &mut masks);
        return masks;
    };
    for (key, value) in entries {
        match &key.value {
            // It is called like a header and is none.
            Yaml::Text(name) if words::is_extension(name) => visit(value, text, false, &mut masks),
            _ => visit_entry(key, value, text, false, &mut masks),
        }
    }
    masks
}

/// What may be a secret in a text that is not YAML: every value whose key is none of ours.
pub(super) fn in_lines(text: &str) -> Vec<Range<usize>> {
    let mut masks = Vec::new();
    for line in lines(text) {
        let mut hidden = None;
        for piece in pieces(text, line) {
            let written = &text[piece.clone()];
            let (key, value) = match (written.split_once(':'), hidden) {
                (Some(pair), _) => pair,
                (None, Some(true)) => ("", written), // the value goes on after a comma
                (None, Some(false)) => continue,
                (None, None) => written.trim_start().split_once(' ').unwrap_or((written, "")),
            };
            let hide = !is_plain(key_in(key), value);
            if hide {
                masks.push(piece.end - value.trim_start().len()..piece.end);
            }
            hidden = Some(hide || key_in(key) == "headers");
        }
    }
    masks
}

/// The pieces of a line between the brackets and commas of flow style.
fn pieces(text: &str, line: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = line.start;
    text[line].split_inclusive(['{', '}', ',']).map(move |piece| {
        let range = start..start + piece.trim_end_matches(['{', '}', ',']).len();
        start += piece.len();
        range
    })
}

/// Whether `value` can be shown under `key`, which is one of ours.
fn is_plain(key: &str, value: &str) -> bool {
    match key {
        "headers" => value.trim().is_empty(),
        "api_key_env" => is_variable(key_in(value)),
        _ => words::is_known(key) && !hides(key),
    }
}

/// The key in `written`, without what is around it.
fn key_in(written: &str) -> &str {
    written.trim_matches(|ch: char| !ch.is_alphanumeric() && ch != '_')
}

/// The key of a model that `key` was probably to be.
fn meant(key: &str) -> Option<&'static str> {
    words::nearest(key, MODEL.iter().copied())
}

fn visit(node: &Node, text: &str, secret: bool, masks: &mut Vec<Range<usize>>) {
    match &node.value {
        Yaml::List(items) => items.iter().for_each(|item| visit(item, text, secret, masks)),
        Yaml::Map(entries) => {
            for (key, value) in entries {
                visit_entry(key, value, text, secret, masks);
            }
        }
        Yaml::Text(text) if secret && text.starts_with("${") && is_variable_use(text) => {}
        _ if secret => masks.push(unquoted(text, bytes(text, node.defined))),
        _ => {}
    }
}

/// `secret`: whether the map's values are secrets whatever their keys.
fn visit_entry(key: &Node, value: &Node, text: &str, secret: bool, masks: &mut Vec<Range<usize>>) {
    let written = bytes(text, key.defined);
    let is_name = matches!(&key.value, Yaml::Text(key) if key.parse::<HeaderName>().is_ok());
    let is_bare = !text[written.clone()].starts_with(['"', '\'']);
    if secret && value.value == Yaml::Null && !(is_name && is_bare) {
        masks.push(unquoted(text, written.clone())); // the value without its key
    } else if !matches!(key.value, Yaml::Text(_)) {
        visit(key, text, secret, masks);
    }
    let secret = secret || is_secret(key, value);
    if secret && value.value == Yaml::Null {
        masks.push(rest_of_line(text, written.end)); // a value after a stray `#` or `&`
    }
    visit(value, text, secret, masks);
}

fn is_secret(key: &Node, value: &Node) -> bool {
    let Yaml::Text(key) = &key.value else {
        return false;
    };
    match (key.as_str(), &value.value) {
        ("api_key_env", Yaml::Text(name)) => !is_variable(name) && !is_variable_use(name),
        ("base_url", Yaml::Text(url)) => url.contains(['?', '@']),
        (_, Yaml::Text(text)) if text.contains("-----BEGIN") => true,
        ("api_key_env", Yaml::Null) => true,
        (key, _) => hides(key),
    }
}

/// Whether a value under `key` is not to be shown: also when the key is misspelt.
fn hides(key: &str) -> bool {
    let known = MODEL.contains(&key) && key != "headers";
    let misspelt = || matches!(meant(key), Some("headers" | "api_key_env"));
    !known && (names_a_secret(key) || misspelt())
}

/// Whether what goes by the name `key` is probably a secret.
pub fn names_a_secret(key: &str) -> bool {
    const LAST: &[&str] = &[
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "key",
        "passwd",
        "password",
        "secret",
        "token",
    ];
    let key = key.to_ascii_lowercase();
    let last = key.rsplit(|ch: char| !ch.is_ascii_alphanumeric()).next();
    last.is_some_and(|last| LAST.contains(&last))
        || key.ends_with("apikey")
        || key.contains("header")
        || key.contains("x-")
}

/// Whether `text` has the form of a variable's name, and does not look like a key all the same.
pub(super) fn is_variable(text: &str) -> bool {
    let mut chars = text.chars();
    let begins = chars.next().is_some_and(|ch| ch == '_' || ch.is_ascii_alphabetic());
    begins && chars.all(|ch| ch == '_' || ch.is_ascii_alphanumeric()) && !is_key(text)
}

/// The name in `$NAME` or `${NAME}`.
pub(super) fn variable_in(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let braced = name.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
    Some(braced.unwrap_or(name)).filter(|name| is_variable(name))
}

fn is_variable_use(text: &str) -> bool {
    variable_in(text).is_some()
}

/// Whether `text` looks like an API key: a vendor's prefix, or long, with digits and small
/// letters.
fn is_key(text: &str) -> bool {
    const PREFIXES: &[&str] = &["sk-", "sk_", "gsk_", "hf_", "xai-", "nvapi-", "AIza"];
    let prefixed = PREFIXES.iter().any(|prefix| text.starts_with(prefix)) && text.len() >= 11;
    let has = |test: fn(&char) -> bool| text.chars().any(|ch| test(&ch));
    let plain = text.chars().all(|ch| ch.is_ascii_alphanumeric());
    prefixed
        || plain && text.len() >= 32 && has(char::is_ascii_digit) && has(char::is_ascii_lowercase)
}

/// Where `user:password` is in a URL.
fn user_info(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    let authority = url[start..].split(['/', '?', '#']).next()?;
    let at = authority.rfind('@')?;
    Some(start..start + at)
}

/// The words of `text`: what YAML's punctuation and blanks leave.
fn words_of(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_part = |ch: char| !ch.is_whitespace() && !"\"'`,{}[]()<>".contains(ch);
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + text[rest..].find(is_part)?;
        let len = text[start..].find(|ch| !is_part(ch));
        rest = len.map_or(text.len(), |len| start + len);
        Some(start..rest)
    })
}

/// What is written in the line after `at`.
fn rest_of_line(text: &str, at: usize) -> Range<usize> {
    let rest = text[at..].lines().next().unwrap_or_default();
    at + rest.len() - rest.trim_start_matches([':', ' ']).len()..at + rest.len()
}

/// `range` without the quotes around it.
fn unquoted(text: &str, range: Range<usize>) -> Range<usize> {
    let written = text.as_bytes().get(range.clone()).unwrap_or_default();
    match written {
        [b'"', .., b'"'] | [b'\'', .., b'\''] => range.start + 1..range.end - 1,
        _ => range,
    }
}
