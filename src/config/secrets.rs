//! Secrets in a config, which messages must not show: keys, passwords, and values of headers.

use std::ops::Range;

use http::HeaderName;
use llm_stream_client::secret_names::is_secret_header;

use super::{
    keys::{self, Section},
    span::{bytes, lines},
    suggest,
    yaml::{Node, Yaml},
};

/// Texts that look like a secret anywhere: `sk-…`, `Bearer …`, `user:password@`.
pub(super) fn in_text(text: &str) -> Vec<Range<usize>> {
    let mut masks = Vec::new();
    let mut previous = "";
    for word in words_of(text) {
        let written = &text[word.clone()];
        // A key where the name of a variable belongs.
        let is_of_variable = text[..word.start].ends_with("${") && is_prefixed(written);
        if is_of_variable || is_key(written) || previous.eq_ignore_ascii_case("bearer") {
            masks.push(word.clone());
        } else if let Some(user) = user_info(written) {
            masks.push(word.start + user.start..word.start + user.end);
        }
        previous = written;
    }
    masks
}

/// Finds values that are secret because of their key. The key of a model or of a body field is
/// chosen by the user and does not tell whether its value is a secret.
pub(super) fn in_tree(node: &Node, text: &str) -> Vec<Range<usize>> {
    let mut masks = Vec::new();
    let Yaml::Map(entries) = &node.value else {
        visit(node, text, Part::Section, &mut masks);
        return masks;
    };
    for (key, value) in entries {
        let has_parts = matches!(value.value, Yaml::Map(_) | Yaml::List(_));
        match &key.value {
            Yaml::Text(name) if keys::is_extension(name) => {
                // It has a header's name but is not a header.
                visit(value, text, Part::Loose, &mut masks);
            }
            Yaml::Text(name) if has_parts => match Section::Top.meant(name) {
                Some("models") => visit(value, text, Part::Names, &mut masks),
                Some("defaults") => visit(value, text, Part::Section, &mut masks),
                Some(_) => visit(value, text, Part::Body, &mut masks),
                None => visit_entry(key, value, text, Part::Loose, &mut masks),
            },
            _ => visit_entry(key, value, text, Part::Loose, &mut masks),
        }
    }
    masks
}

/// Possible secrets in a text that is not YAML: every value whose key is unknown.
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

/// Whether `value` can be shown under `key`.
fn is_plain(key: &str, value: &str) -> bool {
    match key {
        "headers" => value.trim().is_empty(),
        "api_key_env" => is_variable(key_in(value)),
        _ => keys::is_known(key) && !hides(key),
    }
}

/// The key in `written`, without the punctuation around it.
fn key_in(written: &str) -> &str {
    written.trim_matches(|ch: char| !ch.is_alphanumeric() && ch != '_')
}

/// The key of a model that `key` is probably meant to be.
fn meant(key: &str) -> Option<&'static str> {
    suggest::nearest(key, Section::Model.names())
}

/// The kind of a part of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The models by their names.
    Names,
    /// The settings of a model or `defaults`.
    Section,
    /// Such settings, or a map of them: the value of a top-level `x-…`.
    Loose,
    /// Our keys, or those of a server's protocol. Their names seldom make a secret of the value:
    /// `pad_token`, `prompt_cache_key`.
    Body,
    /// A map of headers or of a query's parameters, some of which are secrets.
    Pairs,
    /// A secret.
    Secret,
}

impl Part {
    /// Whether values in it are hidden unless their names are known to be plain.
    fn is_hidden(self) -> bool {
        matches!(self, Self::Pairs | Self::Secret)
    }
}

fn visit(node: &Node, text: &str, part: Part, masks: &mut Vec<Range<usize>>) {
    match &node.value {
        Yaml::List(items) => items.iter().for_each(|item| visit(item, text, part, masks)),
        Yaml::Map(entries) => {
            for (key, value) in entries {
                visit_entry(key, value, text, part, masks);
            }
        }
        Yaml::Text(text) if part.is_hidden() && text.starts_with("${") && is_variable_use(text) => {
        }
        _ if part.is_hidden() => masks.push(unquoted(text, bytes(text, node.defined))),
        _ => {}
    }
}

/// An entry of a map of the kind `part`.
fn visit_entry(key: &Node, value: &Node, text: &str, part: Part, masks: &mut Vec<Range<usize>>) {
    let written = bytes(text, key.defined);
    let name = match &key.value {
        Yaml::Text(key) => Some(key.as_str()),
        _ => None,
    };
    let is_header = name.is_some_and(|name| name.parse::<HeaderName>().is_ok());
    let is_bare = !text[written.clone()].starts_with(['"', '\'']);
    if part.is_hidden() && value.value == Yaml::Null && !(is_header && is_bare) {
        masks.push(unquoted(text, written.clone())); // the value without its key
    } else if name.is_none() {
        visit(key, text, part, masks);
    }
    let part = part_of(part, name.filter(|_| is_header || part != Part::Pairs), value);
    if part == Part::Secret && value.value == Yaml::Null {
        masks.push(rest_of_line(text, written.end)); // a value after a stray `#` or `&`
    }
    visit(value, text, part, masks);
}

/// The kind of `value` under the key `name` in a map of the kind `part`.
fn part_of(part: Part, name: Option<&str>, value: &Node) -> Part {
    let is_map = matches!(value.value, Yaml::Map(_));
    let is_text = matches!(value.value, Yaml::Text(_));
    let is_scalar = !matches!(value.value, Yaml::Map(_) | Yaml::List(_) | Yaml::Null);
    if matches!(&value.value, Yaml::Text(text) if text.contains("-----BEGIN")) {
        return Part::Secret;
    }
    match (part, name) {
        (Part::Secret, _) => Part::Secret,
        (Part::Pairs, Some(name)) if is_scalar && !may_be_secret_header(name) => Part::Body,
        (Part::Pairs, _) => Part::Secret,
        (Part::Names, _) if is_map => Part::Section,
        (part, None) => part,
        (_, Some("headers")) if is_map => Part::Pairs,
        (_, Some("base_url")) if is_text && may_hold_a_key(value) => Part::Secret,
        (_, Some("api_key_env")) if !is_map && !is_name_of_a_variable(value) => Part::Secret,
        (Part::Body, Some(name)) if names_a_secret_anywhere(name) => Part::Secret,
        (Part::Body, _) => Part::Body,
        (_, Some("query" | "params" | "query_params")) if is_map => Part::Pairs,
        (_, Some(name)) if is_map && meant(name) == Some("headers") => Part::Pairs,
        (Part::Loose, Some(name)) if is_map && !keys::is_known(name) => Part::Loose,
        (_, Some(name)) if hides(name) => Part::Secret,
        _ => Part::Body,
    }
}

/// Whether a URL has a part where people put keys.
fn may_hold_a_key(url: &Node) -> bool {
    matches!(&url.value, Yaml::Text(url) if url.contains(['?', '@']))
}

/// Whether it names an environment variable, or is of a type that cannot be a key.
fn is_name_of_a_variable(value: &Node) -> bool {
    match &value.value {
        Yaml::Text(name) => is_variable(name) || is_variable_use(name),
        Yaml::Null => false,
        _ => true,
    }
}

/// Whether the setting `key` of a model must be hidden, even if the key is misspelt.
fn hides(key: &str) -> bool {
    let known = keys::is_known(key) && key != "headers";
    let misspelt = || matches!(meant(key), Some("headers" | "api_key_env"));
    !known && (names_a_secret(key) || misspelt())
}

/// Whether the setting `key` of a model is probably a secret, or a map of secrets: a header that
/// belongs under `headers`.
fn names_a_secret(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    is_secret_header(key) || lower.contains("header") || lower.starts_with("x-")
}

/// Whether `key` names a secret anywhere.
fn names_a_secret_anywhere(key: &str) -> bool {
    const PARTS: &[&str] = &[
        "accesskey",
        "accesstoken",
        "apikey",
        "authorization",
        "authtoken",
        "bearertoken",
        "credential",
        "passwd",
        "password",
        "privatekey",
        "secret",
    ];
    let name = joined(key);
    PARTS.iter().any(|part| name.contains(part))
}

/// The letters and digits of `name`, in lower case.
fn joined(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
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
    let letters: Vec<char> = joined(name).chars().collect();
    let ends_like = |word: &&str| {
        (word.len() - 1..=word.len() + 1).any(|length| {
            let end: String = letters[letters.len().saturating_sub(length)..].iter().collect();
            strsim::osa_distance(&end, word) <= 1
        })
    };
    is_secret_header(name) || LONG.iter().any(ends_like)
}

/// Whether `text` has the form of a variable's name, and does not look like a key anyway.
pub(super) fn is_variable(text: &str) -> bool {
    let mut chars = text.chars();
    let begins = chars.next().is_some_and(|ch| ch == '_' || ch.is_ascii_alphabetic());
    // A short key must be hidden, too, where the name of its variable belongs.
    let is_name = begins && chars.all(|ch| ch == '_' || ch.is_ascii_alphanumeric());
    is_name && !is_prefixed(text) && !is_key(text)
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

/// What the API keys of some vendors begin with.
const PREFIXES: &[&str] = &["sk-", "sk_", "gsk_", "hf_", "xai-", "nvapi-", "AIza"];

/// Whether `text` begins like the key of a vendor.
fn is_prefixed(text: &str) -> bool {
    text.len() >= 11 && PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// Whether `text` looks like an API key: a vendor's prefix and random characters, or long, with
/// digits and small letters. Names of files and models begin with a prefix, too, but have dots,
/// slashes or words after it, and 40 hexadecimal digits are a revision.
fn is_key(text: &str) -> bool {
    let is_of_key = |ch: char| ch.is_ascii_alphanumeric() || matches!(ch, '-' | '_');
    let rest = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix));
    let is_prefixed = rest.is_some_and(|rest| {
        rest.len() >= 20 && rest.chars().all(is_of_key) && rest.split(['-', '_']).any(is_random)
    });
    let has = |test: fn(&char) -> bool| text.chars().any(|ch| test(&ch));
    let is_plain = text.chars().all(|ch| ch.is_ascii_alphanumeric());
    let is_revision =
        text.len() == 40 && text.chars().all(|ch| matches!(ch, '0'..='9' | 'a'..='f'));
    is_prefixed
        || is_plain
            && !is_revision
            && text.len() >= 32
            && has(char::is_ascii_digit)
            && has(char::is_ascii_lowercase)
}

/// Whether `piece` is too long and too mixed for a word.
fn is_random(piece: &str) -> bool {
    let has = |test: fn(&char) -> bool| piece.chars().any(|ch| test(&ch));
    let is_mixed = has(char::is_ascii_uppercase) && has(char::is_ascii_lowercase);
    piece.len() >= 16 && (has(char::is_ascii_digit) || is_mixed)
}

/// Where `user:password` is in a URL.
fn user_info(url: &str) -> Option<Range<usize>> {
    let start = url.find("://")? + 3;
    let authority = url[start..].split(['/', '?', '#']).next()?;
    let at = authority.rfind('@')?;
    Some(start..start + at)
}

/// The words of `text` between blanks and YAML's punctuation.
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

/// The rest of the line after `at`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_a_word_of_its_name() {
        for name in [
            // Parameters
            "sessionToken",
            "clientSecret",
            "subscriptionKey",
            "refreshToken",
            "idToken",
            "bearerToken",
            "masterKey",
            "appKey",
            "userPassword",
            "apitoken",
            "pwd",
            "code",
            "sas",
            "sig",
            "key",
            "APIKey",
            "api_key",
            "X-Amz-Signature",
            "X-Amz-Security-Token",
            "accessKeyId",
            "api.key",
            "x-pass-phrase",
            // Headers
            "sessiontoken",
            "x-clientsecret",
            "privatekey",
            "x-pass",
            "authorization-v2",
            "x-api-key-2",
            "x-jwt-assertion",
            "x-api-key",
            "cookie",
            "authorization",
            "apikey2",
            "x-goog-api-key",
            "ocp-apim-subscription-key",
            "x-oauth2",
            "xauthtoken",
        ] {
            assert!(is_secret_header(name), "{name}");
        }
        for name in [
            "api-version",
            "max-tokens",
            "max-token",
            "tokenizer",
            "x-tenant",
            "author",
            "authority",
            "keyword",
            "monkey",
            "x-error-code",
            "signature-version",
            "token-count",
            "bypass",
            "deployment",
            "x-request-id",
            "keyboard",
            "design",
            "significant",
            "session-id",
        ] {
            assert!(!is_secret_header(name), "{name}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_prefix_and_what_follows() {
        for key in [
            "sk-proj-0123456789abcdef",
            "sk-ant-api03-abcDEF0123456789xyz_-a",
            "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
            "gsk_0123456789abcdefghijABCDEFGHIJ",
            "0123456789abcdef0123456789abcdef",
            "AIzaSyA0123456789abcdefghijklmnopqrstuv",
        ] {
            assert!(is_key(key), "{key}");
        }
        for name in [
            "hf_rows.json",
            "hf_internal-testing/tiny",
            "sk-telecom/A.X-4.0-Light",
            "sk-telecom-a-model-with-many-words-4",
            "hf_datasets_server_rows_2024",
            "0123456789abcdef0123456789abcdef01234567",
        ] {
            assert!(!is_key(name), "{name}");
        }
    }
}
