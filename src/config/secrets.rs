//! What of a config must not be shown in a message: keys, passwords, the values of headers that hold
//! one.

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
        visit(node, text, Part::Plain, &mut masks);
        return masks;
    };
    for (key, value) in entries {
        match &key.value {
            // It is called like a header and is none.
            Yaml::Text(name) if words::is_extension(name) => {
                visit(value, text, Part::Plain, &mut masks)
            }
            _ => visit_entry(key, value, text, Part::Plain, &mut masks),
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

/// What a part of the document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing to hide, but for what its own keys say.
    Plain,
    /// A map of headers, some of which are secrets.
    Headers,
    /// A secret.
    Secret,
}

fn visit(node: &Node, text: &str, part: Part, masks: &mut Vec<Range<usize>>) {
    let is_secret = part != Part::Plain;
    match &node.value {
        Yaml::List(items) => items.iter().for_each(|item| visit(item, text, part, masks)),
        Yaml::Map(entries) => {
            for (key, value) in entries {
                visit_entry(key, value, text, part, masks);
            }
        }
        Yaml::Text(text) if is_secret && text.starts_with("${") && is_variable_use(text) => {}
        _ if is_secret => masks.push(unquoted(text, bytes(text, node.defined))),
        _ => {}
    }
}

/// An entry of a map that is such a `part`.
fn visit_entry(key: &Node, value: &Node, text: &str, part: Part, masks: &mut Vec<Range<usize>>) {
    let written = bytes(text, key.defined);
    let name = match &key.value {
        Yaml::Text(key) => key.parse::<HeaderName>().ok(),
        _ => None,
    };
    let is_bare = !text[written.clone()].starts_with(['"', '\'']);
    if part != Part::Plain && value.value == Yaml::Null && !(name.is_some() && is_bare) {
        masks.push(unquoted(text, written.clone())); // the value without its key
    } else if !matches!(key.value, Yaml::Text(_)) {
        visit(key, text, part, masks);
    }
    let is_plain_header = name.is_some_and(|name| !may_be_secret_header(name.as_str()));
    let part = match (part, &value.value) {
        (Part::Secret, _) => Part::Secret,
        (Part::Headers, Yaml::Text(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Bool(_))
            if is_plain_header =>
        {
            Part::Plain
        }
        (Part::Headers, _) => Part::Secret,
        (Part::Plain, Yaml::Map(_)) if is_headers(key) => Part::Headers,
        (Part::Plain, _) if is_secret(key, value) => Part::Secret,
        (Part::Plain, _) => Part::Plain,
    };
    if part == Part::Secret && value.value == Yaml::Null {
        masks.push(rest_of_line(text, written.end)); // a value after a stray `#` or `&`
    }
    visit(value, text, part, masks);
}

/// Whether `key` is `headers`, or was probably to be.
fn is_headers(key: &Node) -> bool {
    matches!(&key.value, Yaml::Text(key) if key == "headers" || meant(key) == Some("headers"))
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

/// Whether what goes by the name `key` is probably a secret, or a map of some.
fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    is_secret_header(&key) || key.contains("header") || key.contains("x-")
}

/// Whether the header or the parameter of a URL that is called `name` holds a secret: its last word
/// says so.
pub fn is_secret_header(name: &str) -> bool {
    const LAST: &[&str] = &[
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "jwt",
        "key",
        "keys",
        "passwd",
        "password",
        "secret",
        "secrets",
        "sig",
        "signature",
        "token",
    ];
    /// The same in one word.
    const ENDS: &[&str] = &["accesskey", "accesstoken", "apikey", "authtoken", "secretkey"];
    let name = name.to_ascii_lowercase();
    let last = name.rsplit(|ch: char| !ch.is_ascii_alphanumeric()).next();
    last.is_some_and(|last| LAST.contains(&last)) || ENDS.iter().any(|end| name.ends_with(end))
}

/// The same of a name that may be misspelt, for messages about the config.
fn may_be_secret_header(name: &str) -> bool {
    const LONG: &[&str] = &[
        "accesskey",
        "accesstoken",
        "apikey",
        "authorization",
        "authtoken",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "password",
        "secret",
        "secretkey",
        "signature",
    ];
    let letters: Vec<char> =
        name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let ends_like = |word: &&str| {
        (word.len() - 1..=word.len() + 1).any(|length| {
            let end: String = letters[letters.len().saturating_sub(length)..].iter().collect();
            strsim::osa_distance(&end, word) <= 1
        })
    };
    is_secret_header(name) || LONG.iter().any(ends_like)
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
